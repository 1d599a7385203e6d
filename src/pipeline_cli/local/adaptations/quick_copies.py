"""DynamoDB: items and the state that is saved are copied by pickling, several times faster than `copy.deepcopy`.

ministack copies an item on every write, and all of them whenever the state is saved, while every request waits.
"""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

from pipeline_cli.local.adaptations.original import original


def apply() -> None:
    from ministack.services import dynamodb

    original("services.dynamodb", "get_state", "ce90690a6033")
    stand_in: Any = SimpleNamespace(deepcopy=deepcopy)
    dynamodb.copy = stand_in  # the module's name for the standard library's


def deepcopy(value: Any) -> Any:
    """An independent copy, equal to the one of `copy.deepcopy`."""
    try:
        return pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))  # noqa: S301  # what it has just written
    except (pickle.PicklingError, AttributeError, TypeError):
        return copy.deepcopy(value)
