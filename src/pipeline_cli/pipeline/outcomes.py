"""What the pipeline made of each uploaded file: waiting until there is an item, a dead letter, or a reason for neither.

An item or dead letter counts only when it is about this very upload: it has its version, or its eTag and is not older.
"""

from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from pipeline_cli.pipeline.uploading.records import Action, Upload
from pipeline_contract.item import KEY, Status
from pipeline_contract.kinds import claims_to_be_image

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

BATCH = 100  # keys that BatchGetItem takes
ROUND = 1000  # items asked for in vain before the others' turn comes
SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 2.0  # seconds between two looks at the table
# While images come through, the next look waits for a tenth of the time that the rest will take: of 5,000 images few
# are asked for in vain, and the end is still seen within a fraction of a second.
PAUSE_SHARE, LONGEST_PAUSE_IN_PROGRESS = 0.1, 1.0
FIRST_LOOK_AT_DEAD_LETTERS, DEAD_LETTERS_EVERY = 1.0, 5.0  # seconds
# HTTP dates have whole seconds, S3's event times milliseconds; and its clocks are several.
CLOCK_TOLERANCE = 2.0

_ATTRIBUTES = (
    KEY,
    "status",
    "eTag",
    "versionId",
    "asOf",
    "uploadDate",
    "processingDate",
    "updatedAt",
    "errorCode",
    "error",
)


class Outcome(StrEnum):
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    DEAD_LETTERED = "DEAD_LETTERED"  # in a dead-letter queue and no item: the retries are exhausted
    IGNORED = "IGNORED"
    SUPERSEDED = "SUPERSEDED"  # a newer upload of the same key won
    DELETED = "DELETED"
    IN_FLIGHT = "IN_FLIGHT"  # none yet


# What the operator asked for, or did otherwise since.
FINE = frozenset({Outcome.COMPLETED, Outcome.IGNORED, Outcome.SUPERSEDED, Outcome.DELETED})


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter about an image. `final` says that no item will follow it."""

    image_id: str
    e_tag: str | None
    version_id: str | None
    failed_at: float
    code: str
    reason: str
    final: bool


class DeadLetters(Protocol):
    """Reads what is in the dead-letter queues now."""

    def __call__(self) -> Iterable[Dead]: ...


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds, of which half and nineteen in twenty of the images took at most."""

    count: int
    p50: float
    p95: float


class Latencies:
    """How long images took in each stage, from the times that S3, the processor and the writer noted."""

    def __init__(self) -> None:
        self._samples: dict[str, array[float]] = defaultdict(lambda: array("d"))

    def add(self, stage: str, seconds: float) -> None:
        self._samples[stage].append(max(0.0, seconds) * 1000)

    def spreads(self) -> dict[str, Spread]:
        return {stage: _spread(samples) for stage, samples in self._samples.items()}


class Waiter:
    """Waits for the outcomes of uploads to one bucket."""

    def __init__(
        self,
        dynamodb: "DynamoDBClient",
        table: str,
        s3: "S3Client",
        bucket: str,
        dead_letters: DeadLetters,
        *,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._s3 = s3
        self._bucket = bucket
        self._dead_letters = dead_letters
        self._now = now
        self._sleep = sleep
        self.latencies = Latencies()

    def run(
        self, uploads: Iterable[Upload], *, timeout: float, on_waiting: Callable[[int], None] = lambda _: None
    ) -> Iterator[Upload]:
        """Yields each upload with its outcome, as they come; `timeout` seconds after the last, the rest IN_FLIGHT.

        What was not sent or is ignored comes at once. `on_waiting` is told how many are left when all are sent.
        After a KeyboardInterrupt what was sent is told of too, before it is raised again.
        """
        pending: deque[Upload] = deque()
        try:
            yield from self._run(pending, uploads, timeout, on_waiting)
        except KeyboardInterrupt:
            yield from _in_flight(pending)
            raise
        yield from _in_flight(pending)

    def _run(
        self, pending: deque[Upload], uploads: Iterable[Upload], timeout: float, on_waiting: Callable[[int], None]
    ) -> Iterator[Upload]:
        """Leaves in `pending` what has no outcome."""
        for done in uploads:
            if not _was_stored(done):
                yield done
            elif not claims_to_be_image(done.key or "", done.content_type):
                yield replace(done, outcome=Outcome.IGNORED)
            else:
                pending.append(done)
        on_waiting(len(pending))
        deadline = self._now() + timeout
        pause, looked = SHORTEST_PAUSE, self._now()
        next_dead_letters = min(deadline, self._now() + FIRST_LOOK_AT_DEAD_LETTERS)
        while pending:
            resolved = 0
            for done in self._look(pending):
                resolved += 1
                yield done
            if pending and self._now() >= next_dead_letters:
                for done in self._buried(pending):
                    resolved += 1
                    yield done
                if self._now() >= deadline:
                    break
                next_dead_letters = min(deadline, self._now() + DEAD_LETTERS_EVERY)
            if pending:
                now = self._now()
                if resolved:
                    left = len(pending) * (now - looked) / resolved
                    pause = min(LONGEST_PAUSE_IN_PROGRESS, max(SHORTEST_PAUSE, PAUSE_SHARE * left))
                else:
                    pause = min(LONGEST_PAUSE, pause * 1.5)
                looked = now
                self._sleep(min(pause, max(0.0, deadline - self._now())))

    def _look(self, pending: deque[Upload]) -> Iterator[Upload]:
        """Looks at the oldest first, as far as outcomes are found: what was sent later has none before them.

        Where the first ROUND have none they go to the end, so that some that never get one do not hide the others.
        """
        left: list[Upload] = []
        resolved = 0
        try:
            while pending:
                before = resolved
                batch = list(islice(pending, BATCH))
                items = self._items([done.image_id or "" for done in batch])
                for done in batch:
                    item = items.get(done.image_id or "")
                    outcome = self._by_item(done, item) if item else None
                    pending.popleft()
                    if outcome is None:
                        left.append(done)
                    else:
                        resolved += 1
                        yield outcome
                if resolved == before and (resolved or len(left) >= ROUND):
                    break
        finally:
            if resolved:
                pending.extendleft(reversed(left))
            else:
                pending.extend(left)

    def _items(self, image_ids: list[str]) -> dict[str, dict[str, str]]:
        names = {f"#{index}": name for index, name in enumerate(_ATTRIBUTES)}
        request: Any = {
            self._table: {
                "Keys": [{KEY: {"S": image}} for image in dict.fromkeys(image_ids)],
                "ProjectionExpression": ", ".join(names),
                "ExpressionAttributeNames": names,
            }
        }
        found: dict[str, dict[str, str]] = {}
        while request:
            answer = self._dynamodb.batch_get_item(RequestItems=request)
            for raw in answer["Responses"].get(self._table, ()):
                item = {name: str(next(iter(value.values()))) for name, value in raw.items()}
                found[item[KEY]] = item
            request = answer.get("UnprocessedKeys")
            if request:
                self._sleep(SHORTEST_PAUSE)
        return found

    def _by_item(self, done: Upload, item: Mapping[str, str]) -> Upload | None:
        as_of = _seconds(item.get("asOf") or item.get("uploadDate"))
        earliest = _earliest(done)
        if item.get("status") == Status.DELETED:
            newer = as_of is None or earliest is None or as_of >= earliest
            return replace(done, outcome=Outcome.DELETED) if newer else None
        if _is_about(done, item.get("eTag"), item.get("versionId"), as_of):
            if earliest is not None and as_of is not None:
                self._measure(done, item, as_of)
            if item.get("status") == Status.FAILED:
                return replace(done, outcome=Outcome.FAILED, code=item.get("errorCode"), reason=item.get("error"))
            return replace(done, outcome=Outcome.COMPLETED)
        if as_of is not None and earliest is not None and as_of >= earliest and not self._is_current(done):
            return replace(done, outcome=Outcome.SUPERSEDED)
        return None

    def _measure(self, done: Upload, item: Mapping[str, str], uploaded: float) -> None:
        processed, written = _seconds(item.get("processingDate")), _seconds(item.get("updatedAt"))
        if done.seconds is not None:
            self.latencies.add("upload", done.seconds)
        if processed is not None:
            self.latencies.add("process", processed - uploaded)
        if written is not None:
            if processed is not None:
                self.latencies.add("write", written - processed)
            self.latencies.add("total", written - uploaded)

    def _is_current(self, done: Upload) -> bool:
        """Whether the key still holds what was uploaded."""
        from botocore.exceptions import ClientError

        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=done.key or "")
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return True  # deleted: a tombstone will say so
            raise
        if done.version_id and "VersionId" in head:
            return head["VersionId"] == done.version_id
        return head["ETag"].strip('"') == done.e_tag

    def _buried(self, pending: deque[Upload]) -> Iterator[Upload]:
        waiting = {done.image_id: done for done in pending}
        for dead in self._dead_letters():
            done = waiting.get(dead.image_id)
            if done is None or not dead.final or not _is_about(done, dead.e_tag, dead.version_id, dead.failed_at):
                continue
            pending.remove(done)
            del waiting[dead.image_id]
            yield replace(done, outcome=Outcome.DEAD_LETTERED, code=dead.code, reason=dead.reason)


def _in_flight(pending: deque[Upload]) -> Iterator[Upload]:
    while pending:
        yield replace(pending.popleft(), outcome=Outcome.IN_FLIGHT, reason="the pipeline has not finished with it yet")


def _was_stored(done: Upload) -> bool:
    return done.action in (Action.UPLOAD, Action.REPLACE, Action.UNCHANGED)


def _earliest(done: Upload) -> float | None:
    """The earliest that S3 can have noted for this upload; None when it was there before this run."""
    if done.sent_at is None:
        return None
    return done.sent_at - (done.seconds or 0.0) - CLOCK_TOLERANCE


def _is_about(done: Upload, e_tag: str | None, version_id: str | None, moment: float | None) -> bool:
    if done.version_id and version_id:
        return done.version_id == version_id
    if not e_tag or e_tag != done.e_tag:
        return False
    earliest = _earliest(done)
    return earliest is None or moment is None or moment >= earliest


def _seconds(time: str | None) -> float | None:
    return datetime.fromisoformat(time).timestamp() if time else None


def _spread(samples: "array[float]") -> Spread:
    ordered = sorted(samples)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return Spread(len(ordered), at(0.5), at(0.95))
