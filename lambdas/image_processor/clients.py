"""The AWS clients of this function: low-level, each made once, when it is first needed."""

import functools
from typing import Any

import botocore.session
from botocore.config import Config

# Three attempts in the call, then the platform's own retries. A read that stalls fails well within the function's time.
_CONFIG = Config(
    connect_timeout=3,
    read_timeout=12,
    retries={"mode": "standard", "total_max_attempts": 3},
    parameter_validation=False,
)

_SERVICES = ("s3", "sqs")


@functools.cache
def client(service: str) -> Any:
    return session().create_client(service, config=_CONFIG)


@functools.cache
def session() -> botocore.session.Session:
    made = botocore.session.get_session()
    # To see that a service is there, botocore's loader looks into the folders of all 400, twice for each client.
    made.get_component("data_loader").list_available_services = lambda type_name: list(_SERVICES)  # noqa: ARG005
    return made
