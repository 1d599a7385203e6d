"""What this function puts into its two queues."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipeline_contract.aws_failures import pipeline_error
from pipeline_contract.events import Source
from pipeline_contract.failures import PipelineError, Stage
from pipeline_contract.messages import MAX_ERROR_MESSAGE, FailureEntry, MetadataMessage


@dataclass(frozen=True, slots=True)
class Outbox:
    """`sqs` is asked for its client only when something is sent. Queues are URLs."""

    sqs: Callable[[], Any]
    metadata_queue: str
    failure_queue: str

    def metadata(self, message: MetadataMessage) -> None:
        self._send(self.metadata_queue, message.to_json(), "metadata queue")

    def failure(
        self, error: PipelineError, original: Any, source: Source | None, *, request_id: str, failed_at: str
    ) -> None:
        entry = FailureEntry(
            stage=Stage.IMAGE_PROCESSOR,
            class_=error.code.failure_class,
            code=error.code,
            message=error.message[:MAX_ERROR_MESSAGE],
            failed_at=failed_at,
            attempts=1,
            original=dict(original) if isinstance(original, Mapping) else original,
            source=source,
            image_id=None if source is None else source.image_id,
            request_id=request_id,
            hint=error.code.hint,
        )
        self._send(self.failure_queue, entry.to_json(), "image DLQ")

    def _send(self, queue: str, body: str, name: str) -> None:
        try:
            self.sqs().send_message(QueueUrl=queue, MessageBody=body)
        except (BotoCoreError, ClientError) as error:
            raise pipeline_error(error, f"send to the {name}") from error
