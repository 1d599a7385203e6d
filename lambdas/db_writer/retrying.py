"""Calls repeated while that may help and there is time."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline_contract.aws_failures import failure_code
from pipeline_contract.failures import FailureClass

T = TypeVar("T")

_BASE_SECONDS = 0.05
_MAX_SECONDS = 2.0
_ATTEMPTS = 6


@dataclass(frozen=True, slots=True)
class Retrying:
    """Repeats a call that failed for a TRANSIENT reason: "full jitter" between attempts, none past the deadline.

    `remaining_ms` says how much time there is, with what the rest of the work needs already taken off.
    """

    remaining_ms: Callable[[], float]
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[float, float], float] = random.uniform

    def call(self, operation: Callable[[], T]) -> T:
        for attempt in range(_ATTEMPTS):
            try:
                return operation()
            except Exception as error:
                if failure_code(error).failure_class is not FailureClass.TRANSIENT or attempt == _ATTEMPTS - 1:
                    raise
                pause = self.uniform(0, min(_MAX_SECONDS, _BASE_SECONDS * 2**attempt))
                if pause * 1000 >= self.remaining_ms():
                    raise
                self.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")
