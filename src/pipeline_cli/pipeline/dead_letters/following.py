"""What became of images that were sent back to the pipeline."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline_cli.pipeline.dead_letters.messages import DeadLetter
from pipeline_cli.pipeline.dead_letters.queues import Queue, counts, read
from pipeline_cli.pipeline.metadata import Item, get_many
from pipeline_cli.pipeline.outcomes import CLOCK_TOLERANCE, Outcome
from pipeline_contract.item import Status

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

PAUSE = 1.0  # seconds between looks at the table
DEAD_LETTERS_EVERY = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Followed:
    """A dead letter that was redriven, and what its image came to; `reason` when it failed again."""

    letter: DeadLetter
    outcome: Outcome
    reason: str | None = None


def follow(
    sqs: "SQSClient",
    queues: Sequence[Queue],
    dynamodb: "DynamoDBClient",
    table: str,
    letters: Sequence[DeadLetter],
    *,
    started: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
    timeout: float,
) -> Iterator[Followed]:
    """Yields each image with its outcome as it comes; after `timeout` seconds, the rest IN_FLIGHT.

    COMPLETED or DELETED by its item, SUPERSEDED when a newer event has the item, DEAD_LETTERED when a dead letter
    about it came back that is not older than `started` (seconds since 1970, when the redrive began).
    """
    waiting: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        if letter.image_id is not None:
            waiting.setdefault(letter.image_id, []).append(letter)
    deadline, next_dead_letters = now() + timeout, now()
    known: list[int] = []
    while waiting:
        items = get_many(dynamodb, table, list(waiting))
        for image_id, item in items.items():
            if (outcome := _by_item(waiting[image_id][-1], item)) is not None:
                yield from (Followed(letter, outcome) for letter in waiting.pop(image_id))
        last = now() >= deadline
        if waiting and (last or now() >= next_dead_letters):
            next_dead_letters = now() + DEAD_LETTERS_EVERY
            # Reading counts as a receive of every message: queues that did not change are left in peace.
            visible = [counts(sqs, queue)[0] for queue in queues]
            if any(visible) and (last or visible != known):
                known = visible
                for image_id, back in _came_back(sqs, queues, waiting, started).items():
                    reason = f"{back.code}: {back.message}"
                    yield from (Followed(letter, Outcome.DEAD_LETTERED, reason) for letter in waiting.pop(image_id))
        if last:
            break
        if waiting:
            sleep(PAUSE)
    for letter in (letter for rest in waiting.values() for letter in rest):
        yield Followed(letter, Outcome.IN_FLIGHT, "the pipeline has not finished with it yet")


def settled(dynamodb: "DynamoDBClient", table: str, letters: Sequence[DeadLetter]) -> dict[str, Outcome]:
    """What the images of dead letters came to since by their items, by message id: COMPLETED, DELETED or SUPERSEDED.

    A letter or an item that has no sequencer settles nothing: it cannot be told which of them is newer.
    """
    items = get_many(dynamodb, table, [letter.image_id for letter in letters if letter.image_id is not None])
    found: dict[str, Outcome] = {}
    for letter in letters:
        item = items.get(letter.image_id or "", {})
        if letter.source is None or not letter.source.sequencer or not item.get("sequencer"):
            continue
        newer = item["sequencer"] > letter.source.sequencer
        if newer and item.get("status") == Status.DELETED:
            found[letter.message_id] = Outcome.DELETED
        elif (outcome := _by_item(letter, item)) is not None:
            found[letter.message_id] = outcome
    return found


def _by_item(letter: DeadLetter, item: Item) -> Outcome | None:
    if item.get("status") not in (Status.COMPLETED, Status.DELETED):
        return None  # FAILED is what it was before: a failure does not overwrite a failure of the same event
    asked, has = letter.source.sequencer if letter.source else None, item.get("sequencer")
    if asked and has and has != asked:
        return Outcome.SUPERSEDED if has > asked else None
    return Outcome.COMPLETED if item["status"] == Status.COMPLETED else Outcome.DELETED


def _came_back(
    sqs: "SQSClient", queues: Sequence[Queue], waiting: Mapping[str, Sequence[DeadLetter]], started: float
) -> dict[str, DeadLetter]:
    """The dead letters about images that are waited for, of this redrive: the newest of each image."""
    since = datetime.fromtimestamp(started - CLOCK_TOLERANCE, UTC)
    sent = {letter.message_id for letters in waiting.values() for letter in letters}
    found: dict[str, DeadLetter] = {}
    for letter in read(sqs, queues).letters:
        image_id = letter.image_id or ""
        if image_id not in waiting or letter.message_id in sent:
            continue
        if letter.redrives > waiting[image_id][-1].redrives or letter.failed_at >= since:
            found[image_id] = letter
    return found
