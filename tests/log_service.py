"""CloudWatch Logs as a tail meets it: events that become readable late and out of order, pages, empty pages."""

import random
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

START = 1_790_000_000.0  # seconds since 1970


class Clock:
    """A time that passes only when somebody sleeps or asks the service."""

    def __init__(self) -> None:
        self.time = START
        self.interrupt_at: float | None = None

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.time += seconds
        if self.interrupt_at is not None and self.time >= self.interrupt_at:
            self.interrupt_at = None
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Line:
    """An event, and when it becomes readable. Seconds since START."""

    at: float
    readable: float
    message: str = "line"
    group: str = "/aws/lambda/p"
    stream: str = "s"
    event_id: str | None = None


class NoSuchGroupError(Exception):
    pass


@dataclass
class LogService:
    """What `FilterLogEvents` does. `cuts`: answers one page without a token, as an emulator does."""

    clock: Clock
    lines: list[Line]
    page: int = 7
    cuts: bool = False
    groups: tuple[str, ...] = ("/aws/lambda/p", "/aws/lambda/w")
    calls: int = 0
    throttles: float = 0.0  # how many of the calls are refused
    repeats: bool = False  # a page begins with the last event of the page before
    interrupted_call: int | None = None  # Ctrl-C comes during this one
    interrupted_at: float | None = None  # seconds since START
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    class exceptions:  # noqa: N801  # botocore's name
        ResourceNotFoundException = NoSuchGroupError

    def filter_log_events(self, **request: Any) -> dict[str, Any]:
        if request["logGroupName"] not in self.groups:
            raise NoSuchGroupError
        self.calls += 1
        self.clock.time += 0.02
        if self.calls == self.interrupted_call:
            self.interrupted_at = self.clock.time - START
            raise KeyboardInterrupt
        if self.chance.random() < self.throttles:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "FilterLogEvents")
        token = request.get("nextToken")
        if token is None:
            found, offset = self._found(request), 0
        else:
            found, offset = token
        if self.cuts:
            return {"events": found[: request["limit"]]}
        # A page may be empty and still have a successor.
        count = self.chance.choice((0, 1, self.page))
        answer: dict[str, Any] = {"events": found[max(0, offset - self.repeats) : offset + count]}
        if offset + count < len(found):
            answer["nextToken"] = (found, offset + count)
        return answer

    def _found(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        now = self.clock.time - START
        low, high = request["startTime"], request.get("endTime", float("inf"))
        wanted = (request.get("filterPattern") or "").strip('"')
        found = []
        for line in self.lines:
            millis = round((START + line.at) * 1000)
            if line.group != request["logGroupName"] or line.readable > now or not low <= millis <= high:
                continue
            if wanted not in line.message:
                continue
            raw = {
                "timestamp": millis,
                "ingestionTime": round((START + line.readable) * 1000),
                "message": line.message + "\n",
                "logStreamName": line.stream,
            }
            found.append(raw if line.event_id is None else {**raw, "eventId": line.event_id})
        return sorted(found, key=lambda raw: raw["timestamp"])
