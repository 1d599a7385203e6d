"""Taking dead letters out of their queues for good, and putting archived ones back.

A message is on the disk before it is deleted; what SQS did not delete stays, and is said to stay.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline_cli.pipeline.dead_letters.archives import Archive, Archived
from pipeline_cli.pipeline.dead_letters.messages import DeadLetter
from pipeline_cli.pipeline.dead_letters.queues import Queue, Selection, holding, receive
from pipeline_cli.pipeline.dead_letters.redrive import attributes

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


class Fate(StrEnum):
    COPIED = "copied"  # archived, and still in the queue
    REMOVED = "removed"
    WOULD_REMOVE = "would remove"
    TAKEN = "taken"  # somebody else holds it
    FAILED = "failed"  # SQS did not delete it


@dataclass(frozen=True, slots=True)
class Disposed:
    letter: DeadLetter
    fate: Fate


def dispose(
    sqs: "SQSClient",
    queues: Sequence[Queue],
    selection: Selection,
    *,
    archive: Archive | None,
    action: str,
    keep: bool = False,
    only: frozenset[str] | None = None,
    hidden: Callable[[int], None] = lambda _: None,
) -> Iterator[Disposed]:
    """Archives what is meant and then deletes it, unless `keep`; says of each message what became of it.

    `only` are the ids of the messages that the operator has seen and agreed to. `hidden` is told, of each queue that
    was read to its end, how many messages somebody else is reading.
    """
    for queue in queues:
        left = None if only is None else set(only)
        with holding(sqs, queue) as held:
            for batch in receive(held):
                meant = [
                    letter
                    for letter in batch
                    if selection.matches(letter) and (only is None or letter.message_id in only)
                ]
                ours = meant if keep else held.extend(meant)
                if archive is not None:
                    archive.write(ours, action)
                undeleted = [] if keep else held.delete(held.delete(ours))
                for letter in meant:
                    yield Disposed(letter, _fate(letter, ours, undeleted, keep=keep))
                if left is not None:
                    left -= {letter.message_id for letter in batch}
                    if not left:
                        break
            hidden(held.elsewhere)


def _fate(letter: DeadLetter, ours: Sequence[DeadLetter], undeleted: Sequence[DeadLetter], *, keep: bool) -> Fate:
    if letter not in ours:
        return Fate.TAKEN
    if keep:
        return Fate.COPIED
    return Fate.FAILED if letter in undeleted else Fate.REMOVED


@dataclass(frozen=True, slots=True)
class Restored:
    """A message of an archive that was sent to its queue again; `reason` when SQS did not take it."""

    archived: Archived
    reason: str | None


def restore(sqs: "SQSClient", queues: Sequence[Queue], messages: Iterable[Archived]) -> Iterator[Restored]:
    """Sends archived messages back to the dead-letter queues that they came from, with their attributes.

    They get new message ids, and their age begins anew.
    """
    urls = {queue.stage: queue.url for queue in queues}
    for one in messages:
        # One at a time: a batch is bounded as a whole, and an archive may hold messages near the limit of one.
        body = {"MessageBody": one.raw["Body"], "MessageAttributes": attributes(one.raw)}
        yield Restored(one, _send(sqs, urls[one.queue], body))


def _send(sqs: "SQSClient", url: str, body: Any) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        sqs.send_message(QueueUrl=url, **body)
    except (ClientError, BotoCoreError) as error:
        return str(error)
    return None
