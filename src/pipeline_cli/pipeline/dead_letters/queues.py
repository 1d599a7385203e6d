"""Reading dead-letter queues to the end, without losing a message and without hiding one for long.

SQS receives are samples: an empty answer does not mean an empty queue. A queue is drained when several long polls
(which ask all of its servers) in a row were empty and the queue itself counts no visible message.
While messages are read they are invisible to others for a short time; what is not deleted is made visible again at
once, however the reading ends.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pipeline_cli.pipeline.dead_letters.messages import DeadLetter, dead_letter
from pipeline_cli.pipeline.expressions import Expression
from pipeline_contract.failures import FailureClass, FailureCode, Stage
from pipeline_contract.times import format_time

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

HIDDEN = 60  # seconds for which a message that was read is invisible, unless it is released before
LONG_POLL = 1  # seconds
EMPTY_POLLS = 2  # in a row, for a queue to be drained
MAX_EMPTY_POLLS = 10  # when the queue still counts messages that it does not give
BATCH = 10  # SQS: messages of a batch


@dataclass(frozen=True, slots=True)
class Queue:
    """A dead-letter queue: whose failures it holds, and where it is."""

    stage: Stage
    url: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters are meant; None is any."""

    stage: Stage | None = None
    code: FailureCode | None = None
    class_: FailureClass | None = None
    key: str | None = None  # glob
    ids: frozenset[str] = frozenset()  # message ids or image ids, or how they begin
    since: datetime | None = None
    where: Expression | None = None

    @property
    def everything(self) -> bool:
        return self == Selection()

    def matches(self, letter: DeadLetter) -> bool:
        return (
            (self.stage is None or letter.stage is self.stage)
            and (self.code is None or letter.code is self.code)
            and (self.class_ is None or letter.class_ is self.class_)
            and (self.key is None or fnmatchcase(letter.key or "", self.key))
            and (not self.ids or self._names(letter))
            and (self.since is None or letter.failed_at >= self.since)
            and (self.where is None or self.where.matches(fields_of(letter)))
        )

    def _names(self, letter: DeadLetter) -> bool:
        names = (letter.message_id, letter.image_id or "")
        return any(name.startswith(wanted) for wanted in self.ids for name in names)


@dataclass(slots=True)
class Held:
    """Messages of one queue that are invisible because we read them. Deletes and releases by their receipts."""

    sqs: "SQSClient"
    queue: Queue
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    elsewhere: int = 0  # in somebody else's hands when the queue was drained

    def add(self, raw: Mapping[str, Any]) -> DeadLetter | None:
        """Keeps the newest receipt of a message; None when the message is held already."""
        letter = dead_letter(raw, self.queue.stage)
        known = letter.message_id in self.letters
        self.letters[letter.message_id] = letter
        return None if known else letter

    def delete(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Deletes messages; returns those that SQS did not delete."""
        failed: list[DeadLetter] = []
        for batch in _batches(letters):
            entries: Any = [
                {"Id": str(index), "ReceiptHandle": letter.raw["ReceiptHandle"]} for index, letter in enumerate(batch)
            ]
            answer = self.sqs.delete_message_batch(QueueUrl=self.queue.url, Entries=entries)
            kept = {int(entry["Id"]) for entry in answer.get("Failed", [])}
            for index, letter in enumerate(batch):
                if index in kept:
                    failed.append(letter)
                else:
                    self.letters.pop(letter.message_id, None)
        return failed

    def extend(self, letters: Sequence[DeadLetter], seconds: int = HIDDEN) -> list[DeadLetter]:
        """Keeps messages invisible a while longer; returns those that are still ours.

        A receipt that SQS no longer takes means that somebody else has the message, or deleted it.
        """
        ours: list[DeadLetter] = []
        for batch in _batches(letters):
            entries: Any = [
                {"Id": str(index), "ReceiptHandle": letter.raw["ReceiptHandle"], "VisibilityTimeout": seconds}
                for index, letter in enumerate(batch)
            ]
            answer = self.sqs.change_message_visibility_batch(QueueUrl=self.queue.url, Entries=entries)
            lost = {int(entry["Id"]) for entry in answer.get("Failed", [])}
            for index, letter in enumerate(batch):
                if index in lost:
                    self.letters.pop(letter.message_id, None)
                else:
                    ours.append(letter)
        return ours

    def release(self) -> None:
        """Makes everything that is still held visible again."""
        self.extend(list(self.letters.values()), seconds=0)
        self.letters.clear()


@contextmanager
def holding(sqs: "SQSClient", queue: Queue) -> Iterator[Held]:
    """A place for what is read from a queue; what was not deleted is visible again afterwards."""
    held = Held(sqs, queue)
    try:
        yield held
    finally:
        held.release()


def receive(held: Held, *, enough: Callable[[], bool] = lambda: False) -> Iterator[list[DeadLetter]]:
    """Batches of messages that were not read before, until the queue is drained or there are enough."""
    empty = 0
    while not enough():
        answer = held.sqs.receive_message(
            QueueUrl=held.queue.url,
            MaxNumberOfMessages=BATCH,
            VisibilityTimeout=HIDDEN,
            WaitTimeSeconds=LONG_POLL if empty else 0,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        raws = answer.get("Messages", [])
        fresh = [letter for raw in raws if (letter := held.add(raw)) is not None]
        if fresh:
            empty = 0
            yield fresh
            continue
        # The first poll is short; from then on they are long.
        empty += 1
        if empty > EMPTY_POLLS:
            visible, hidden, _ = counts(held.sqs, held.queue)
            if visible == 0 or empty > MAX_EMPTY_POLLS:
                held.elsewhere = max(0, hidden - len(held.letters))
                return


@dataclass(frozen=True, slots=True)
class Listing:
    """What the dead-letter queues hold. `elsewhere` counts messages that somebody else was reading meanwhile."""

    letters: tuple[DeadLetter, ...]
    elsewhere: int


def read(
    sqs: "SQSClient", queues: Sequence[Queue], selection: Selection | None = None, *, limit: int | None = None
) -> Listing:
    """The messages that are meant, oldest failure first; afterwards all are as visible as before.

    `limit` ends the reading of a queue after so many matching messages.
    """
    wanted = selection or Selection()

    def read_one(queue: Queue) -> tuple[list[DeadLetter], int]:
        found: list[DeadLetter] = []
        with holding(sqs, queue) as held:
            for batch in receive(held):
                found += [letter for letter in batch if wanted.matches(letter)]
                if limit is not None and len(found) >= limit:
                    break
            return found, held.elsewhere

    with ThreadPoolExecutor(max(1, len(queues))) as pool:
        results = list(pool.map(read_one, queues))
    letters = sorted((letter for found, _ in results for letter in found), key=lambda letter: letter.failed_at)
    return Listing(tuple(letters[:limit]), sum(elsewhere for _, elsewhere in results))


def counts(sqs: "SQSClient", queue: Queue) -> tuple[int, int, int]:
    """How many messages a queue has, approximately: visible, being read, delayed."""
    answer = sqs.get_queue_attributes(
        QueueUrl=queue.url,
        AttributeNames=[
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ],
    )["Attributes"]
    return (
        int(answer.get("ApproximateNumberOfMessages", 0)),
        int(answer.get("ApproximateNumberOfMessagesNotVisible", 0)),
        int(answer.get("ApproximateNumberOfMessagesDelayed", 0)),
    )


# What `fields_of` gives.
# fmt: off
FIELDS = (
    "messageId", "stage", "shape", "class", "code", "message", "bucket", "key", "imageId", "failedAt", "attempts",
    "receives", "redrives", "requestId", "hint",
)
# fmt: on


def fields_of(letter: DeadLetter) -> dict[str, Any]:
    """The fields of a dead letter under the names that JSON output has: what --where speaks of."""
    return {
        "messageId": letter.message_id,
        "stage": letter.stage,
        "shape": letter.shape,
        "class": letter.class_,
        "code": letter.code,
        "message": letter.message,
        "bucket": letter.bucket,
        "key": letter.key,
        "imageId": letter.image_id,
        "failedAt": format_time(letter.failed_at),
        "attempts": letter.attempts,
        "receives": letter.receives,
        "redrives": letter.redrives,
        "requestId": letter.request_id,
        "hint": letter.hint,
    }


def _batches(letters: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    for start in range(0, len(letters), BATCH):
        yield letters[start : start + BATCH]
