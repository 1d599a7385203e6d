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


@functools.cache
def client(service: str) -> Any:
    return session().create_client(service, config=_CONFIG)


@functools.cache
def session() -> botocore.session.Session:
    return botocore.session.get_session()
