"""The dead letters of images that somebody waits for."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline_cli.pipeline.dead_letters.messages import DeadLetter, Shape
from pipeline_cli.pipeline.dead_letters.queues import Queue, counts, read
from pipeline_cli.pipeline.outcomes import Dead
from pipeline_contract.failures import FailureClass, FailureCode, Stage

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

READ_ANYWAY = 12  # every so many looks


class Burials:
    """Reads both dead-letter queues again and again, each only when it counts other messages than it did.

    Reading counts as a receive of every message, so a queue that does not change is left in peace.
    """

    def __init__(self, sqs: "SQSClient", queues: Sequence[Queue]) -> None:
        self._sqs = sqs
        self._queues = queues
        self._visible: dict[Stage, int] = {}
        self._known: dict[Stage, list[Dead]] = {}
        self._looks = 0

    def __call__(self) -> Iterator[Dead]:
        self._looks += 1
        for queue in self._queues:
            visible, _, _ = counts(self._sqs, queue)
            # Counts are approximate, and one letter may have come for another: read it now and then all the same.
            if visible != self._visible.get(queue.stage, 0) or (visible and self._looks % READ_ANYWAY == 0):
                self._visible[queue.stage] = visible
                self._known[queue.stage] = [
                    dead for letter in read(self._sqs, [queue]).letters if (dead := dead_of(letter)) is not None
                ]
            yield from self._known.get(queue.stage, ())


def dead_of(letter: DeadLetter) -> Dead | None:
    """What a dead letter says of an upload; None when it names no image."""
    source = letter.source
    image = letter.image_id or (source.image_id if source else None)
    if image is None:
        return None
    return Dead(
        image_id=image,
        e_tag=source.e_tag if source else None,
        version_id=source.version_id if source else None,
        failed_at=letter.failed_at.timestamp(),
        code=letter.code or FailureCode.UNEXPECTED,
        reason=letter.message,
        # The processor reports what is permanent twice: here, and as a FAILED item by way of the metadata queue.
        final=not (
            letter.shape is Shape.FAILURE_ENTRY
            and letter.stage is Stage.IMAGE_PROCESSOR
            and letter.class_ is FailureClass.PERMANENT
        ),
    )
