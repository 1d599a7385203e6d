"""SQS: one lock around everything that reads and rewrites a queue's list of messages.

ministack runs requests on its event loop and event source mappings on threads. Deleting builds a new list and stores
it: a message that is sent in between is lost. On AWS a sent message is never lost.
"""

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

from pipeline_cli.local.adaptations.original import original

# Called by others than the request handlers, or between two waits of a long poll.
_LOCKED = {
    "_dlq_sweep": "6a77691e1671",
    "_expire_retained": "c0da3361632b",
    "_collect_msgs": "308a6eb1b3d4",
    "_refresh_counts": "5d0fb7b342d2",
    "_receive_messages_for_esm": "f230dbcd4974",
    "_delete_messages_for_esm": "c1686f29b48b",
    "_act_send_message": "3abd766508c8",
}

lock = threading.RLock()


def apply() -> None:
    from ministack.services import sqs

    sqs._queues_lock = lock
    for name, fingerprint in _LOCKED.items():
        setattr(sqs, name, _locked(original("services.sqs", name, fingerprint)))
    for action, handler in sqs._HANDLERS.items():
        if not inspect.iscoroutinefunction(handler):
            sqs._HANDLERS[action] = _locked(handler)


def _locked(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return function(*args, **kwargs)

    return call
