"""The AWS clients of this function: low-level, each made once, when it is first needed."""

import functools
from typing import Any

import botocore.session
from botocore.config import Config

# One attempt a call: the function repeats calls itself, within the time that it has left (see retrying.py).
_CONFIG = Config(
    connect_timeout=2,
    read_timeout=5,
    max_pool_connections=16,
    retries={"mode": "standard", "total_max_attempts": 1},
    parameter_validation=False,
)


@functools.cache
def client(service: str) -> Any:
    return session().create_client(service, config=_CONFIG)


@functools.cache
def session() -> botocore.session.Session:
    return botocore.session.get_session()
