"""How many requests to have under way: as many as S3 takes without complaint."""

import random


class Window:
    """Additive increase, multiplicative decrease (RFC 5681's idea): doubles until the first sign of congestion, then
    grows by one a round. A throttle or a stall halves it, at most once a round."""

    def __init__(self, most: int, start: int = 16) -> None:
        self._most = most
        self._size = float(min(start, most))
        self._threshold = float(most)
        self._grace = 0  # answers to requests that were sent before the last decrease

    @property
    def size(self) -> int:
        return int(self._size)

    def succeeded(self) -> None:
        self._grace = max(0, self._grace - 1)
        if self._size < self._threshold:
            self._size = min(self._most, self._size + 1)
        else:
            self._size = min(self._most, self._size + 1 / self._size)

    def congested(self) -> None:
        if self._grace:
            self._grace -= 1
            return
        self._grace = self.size
        self._threshold = max(1.0, self._size / 2)
        self._size = self._threshold


def backoff(attempt: int, rng: random.Random, *, base: float = 0.5, cap: float = 20.0) -> float:
    """Seconds to wait before attempt `attempt` + 1: full jitter ("Exponential Backoff And Jitter", AWS, 2015)."""
    return rng.uniform(0, min(cap, base * 2**attempt))
