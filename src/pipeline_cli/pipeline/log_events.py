"""The log events of both functions as one ordered stream that misses none and repeats none.

CloudWatch makes events readable late and out of order, above all across the streams of many Lambda environments, so
a tail that moves its cursor to the newest timestamp loses events for good. This one

- asks again for an overlap before the newest event that it has seen, which widens with the lateness that it meets;
- asks again for everything that it still remembers once a minute, and once more at the end;
- remembers the id of every event as long as it may ask for it again, and yields each id once.

So an event is yielded exactly once if it becomes readable before the end, and at most RETAIN - SWEEP_EVERY seconds
(less the time that a look takes) after its timestamp.
"""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

POLL_EVERY = 1.0  # seconds; FilterLogEvents allows 5 to 10 calls a second and account
OVERLAP = 30.0  # seconds asked for again at least
RETAIN = 900.0  # seconds for which ids are remembered, and the widest overlap
SWEEP_EVERY = 60.0  # seconds between looks at everything remembered
_THROTTLES = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException", "LimitExceededException"})
PAGE = 10_000  # FilterLogEvents: the most events of an answer


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line of a function's log. Times in UTC; `fields` is the object that a JSON line holds, else empty."""

    time: datetime
    function: str
    message: str
    level: str | None
    image_id: str | None
    key: str | None
    request_id: str | None
    code: str | None
    fields: Mapping[str, Any]
    stream: str
    ingestion_time: datetime
    event_id: str

    @property
    def failed(self) -> bool:
        """An error, or an image's failure (which a handler that did its work logs as a warning, with its code)."""
        return self.level in ("ERROR", "CRITICAL", "FATAL") or self.code is not None


@dataclass(slots=True)
class Tally:
    """What a tail did, counted while it runs; `late` came before an event that had been yielded already."""

    events: int = 0
    late: int = 0
    swept: int = 0  # found only by the last look
    calls: int = 0
    throttled: int = 0  # calls that CloudWatch refused after the retries of the SDK, and that were made again
    widest_overlap: float = OVERLAP
    interrupted: bool = False  # by Ctrl-C


@dataclass(frozen=True, slots=True)
class Group:
    """A log group and what its events are called."""

    function: str
    log_group: str


@dataclass(slots=True)
class _Cursor:
    """How far one log group has been read. Milliseconds since 1970."""

    newest: int
    overlap: float = OVERLAP
    seen: dict[str, int] = field(default_factory=dict)


def history(
    logs: "CloudWatchLogsClient",
    groups: Sequence[Group],
    *,
    since: float,
    until: float,
    pattern: str = "",
    tally: Tally | None = None,
) -> Iterator[LogEvent]:
    """The events between two moments (seconds since 1970), in order of time, read page by page."""
    tally = tally or Tally()
    streams = [_read(logs, group, int(since * 1000), int(until * 1000), pattern, tally) for group in groups]
    for event in heapq.merge(*streams, key=_order):
        tally.events += 1
        yield event


def about(
    logs: "CloudWatchLogsClient", groups: Sequence[Group], image_id: str, *, since: float, until: float
) -> Iterator[LogEvent]:
    """The events that speak of one image, and the other lines of the invocations that did (time-outs, reports).

    The server filters, so that a long history costs little.
    """
    speaking = list(history(logs, groups, since=since, until=until, pattern=f'"{image_id}"'))
    found: dict[str, LogEvent] = {}
    by_function = {group.function: group for group in groups}
    for function, request_id in dict.fromkeys((event.function, event.request_id) for event in speaking):
        if request_id is None:
            continue
        for event in history(logs, [by_function[function]], since=since, until=until, pattern=f'"{request_id}"'):
            if event.image_id in (None, image_id):
                found[event.event_id] = event
    found |= {event.event_id: event for event in speaking}
    yield from sorted(found.values(), key=_order)


class OfImage:
    """Tells which events of a tail speak of one image, or belong to an invocation that did."""

    def __init__(self, image_id: str) -> None:
        self._image_id = image_id
        self._requests: set[str] = set()

    def __call__(self, event: LogEvent) -> bool:
        if event.image_id == self._image_id or self._image_id in event.message:
            if event.request_id:
                self._requests.add(event.request_id)
            return True
        return event.image_id is None and event.request_id in self._requests


def follow(
    logs: "CloudWatchLogsClient",
    groups: Sequence[Group],
    *,
    since: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
    pattern: str = "",
    until: float | None = None,
    until_idle: float | None = None,
    tally: Tally | None = None,
) -> Iterator[LogEvent]:
    """The events since a moment and those to come, until `until`, or until none came for `until_idle` seconds.

    Ctrl-C ends it too; however it ends, a last look finds what had become readable late.
    """
    tally = tally or Tally()
    floor = int(since * 1000)
    cursors = {group: _Cursor(newest=floor) for group in groups}
    seen = {group.function: cursor.seen for group, cursor in cursors.items()}
    newest = floor  # of what was yielded

    def look(*, everything: bool = False) -> Iterator[LogEvent]:
        nonlocal newest
        streams = [
            _fresh(logs, group, cursor, floor, now(), pattern, tally, sleep, everything=everything)
            for group, cursor in cursors.items()
        ]
        # The first look may be a long history and streams through; the others are small, and sorted for sure.
        fresh = heapq.merge(*streams, key=_order)
        for event in fresh if newest == floor else sorted(fresh, key=_order):
            at = _millis(event.time)
            if until is not None and at > until * 1000:
                continue
            tally.events += 1
            tally.late += at < newest
            newest = max(newest, at)
            yield event
            # Not before: Ctrl-C while a look collects must leave what it collected for the last look.
            seen[event.function][event.event_id] = at

    last_new = swept = now()
    try:
        while True:
            started, before = now(), tally.events
            everything = started - swept >= SWEEP_EVERY
            yield from look(everything=everything)
            if everything:
                swept = started
            if tally.events > before:
                last_new = now()
            if until is not None and started >= until:
                break
            if until_idle is not None and started - last_new >= until_idle:
                break
            sleep(POLL_EVERY)
    except KeyboardInterrupt:
        tally.interrupted = True
    before = tally.events
    yield from look(everything=True)
    tally.swept = tally.events - before


def _fresh(
    logs: "CloudWatchLogsClient",
    group: Group,
    cursor: _Cursor,
    floor: int,
    present: float,
    pattern: str,
    tally: Tally,
    sleep: Callable[[float], None],
    *,
    everything: bool,
) -> Iterator[LogEvent]:
    """What a group has that was not yielded before; moves the cursor, fits its overlap, forgets what is too old."""
    # A stream whose clock is ahead must not drag the cursor into the future.
    newest = min(cursor.newest, int(present * 1000))
    start = max(floor, newest - int((RETAIN if everything else cursor.overlap) * 1000))
    lateness = 0.0
    for event in _read(logs, group, start, None, pattern, tally, sleep):
        if event.event_id in cursor.seen:
            continue
        at = _millis(event.time)
        cursor.newest = max(cursor.newest, at)
        if newest > floor:
            lateness = max(lateness, (newest - at) / 1000)
        yield event
    cursor.overlap = min(RETAIN, max(OVERLAP, cursor.overlap * 0.99, 2 * lateness))
    tally.widest_overlap = max(tally.widest_overlap, cursor.overlap)
    if everything:
        # No later look starts before this, so an id that is forgotten here cannot come again.
        oldest = newest - int(RETAIN * 1000)
        for name in [name for name, at in cursor.seen.items() if at < oldest]:
            del cursor.seen[name]


def _read(
    logs: "CloudWatchLogsClient",
    group: Group,
    start: int,
    end: int | None,
    pattern: str,
    tally: Tally,
    sleep: Callable[[float], None] | None = None,
) -> Iterator[LogEvent]:
    """Every event of a group from `start` on, through all pages; milliseconds since 1970.

    An empty page may have a successor. A full page that names none is a server that cuts its answer (an emulator):
    it is asked again from the last event on. With `sleep`, a page that was throttled is asked for until it comes.
    """
    from botocore.exceptions import ClientError

    request: dict[str, Any] = {"logGroupName": group.log_group, "startTime": max(0, start), "limit": PAGE}
    if end is not None:
        request["endTime"] = end
    if pattern:
        request["filterPattern"] = pattern
    met: Counter[str] = Counter()
    given: set[str] = set()
    while True:
        try:
            answer: Any = logs.filter_log_events(**request)
        except logs.exceptions.ResourceNotFoundException:
            return  # the group appears with the function's first line
        except ClientError as error:
            if sleep is None or error.response.get("Error", {}).get("Code") not in _THROTTLES:
                raise
            tally.throttled += 1
            sleep(POLL_EVERY)
            continue
        tally.calls += 1
        page = sorted(answer.get("events", []), key=lambda raw: raw["timestamp"])
        for raw in page:
            event = log_event(raw, group.function, met)
            if event.event_id not in given:
                given.add(event.event_id)
                yield event
        if answer.get("nextToken"):
            request["nextToken"] = answer["nextToken"]
            continue
        if len(page) < PAGE or page[-1]["timestamp"] == request["startTime"]:
            return
        request["startTime"] = page[-1]["timestamp"]
        request.pop("nextToken", None)
        met = Counter()


def log_event(raw: Mapping[str, Any], function: str, met: Counter[str] | None = None) -> LogEvent:
    """What CloudWatch (or an emulator, which may give no eventId) says, as an event."""
    message = str(raw.get("message", "")).rstrip("\n")
    fields = _object(message)
    identity = raw.get("eventId")
    if not identity:
        base = f"{raw.get('logStreamName')}/{raw['timestamp']}/{raw.get('ingestionTime')}/{message}"
        number = 0
        if met is not None:
            number = met[base]
            met[base] += 1
        identity = f"{base}/{number}"
    return LogEvent(
        time=_moment(raw["timestamp"]),
        function=function,
        message=message,
        level=_level(message, fields),
        image_id=_text(fields, "imageId", "image_id"),
        key=_text(fields, "key", "originalKey"),
        request_id=_text(fields, "requestId", "function_request_id", "aws_request_id") or _platform_request(message),
        code=_text(fields, "code", "errorCode"),
        fields=fields,
        stream=str(raw.get("logStreamName", "")),
        ingestion_time=_moment(raw.get("ingestionTime") or raw["timestamp"]),
        event_id=str(identity),
    )


def _order(event: LogEvent) -> tuple[datetime, datetime, str]:
    return event.time, event.ingestion_time, event.stream


def _millis(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, UTC)


def _object(message: str) -> dict[str, Any]:
    start = message.find("{")
    if start < 0 or not message.endswith("}"):
        return {}
    try:
        value = json.loads(message[start:])
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(fields: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _platform_request(message: str) -> str | None:
    """The request id in a line of the platform: `START RequestId: ...`, `REPORT RequestId: ...`."""
    _, found, rest = message.partition("RequestId: ")
    return rest.split()[0] if found and rest.split() else None


def _level(message: str, fields: Mapping[str, Any]) -> str | None:
    level = _text(fields, "level", "levelname", "severity")
    if level:
        return level.upper()
    # What the Lambda platform writes of failures has no level: time-outs, memory, crashes at start.
    if "Task timed out after" in message or "Runtime exited" in message or "Traceback (most recent" in message:
        return "ERROR"
    if message.startswith("REPORT ") and ("Status: timeout" in message or "Status: error" in message):
        return "ERROR"
    for name in ("ERROR", "CRITICAL", "WARNING", "INFO", "DEBUG"):
        if message.startswith((f"[{name}]", f"{name} ", f"{name}\t")):
            return name
    return None
