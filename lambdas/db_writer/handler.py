"""The Lambda function behind the metadata queue."""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from db_writer.bodies import ForeignEntryError, read_body, source_of, unwrapped
from db_writer.clients import client
from db_writer.items import Write, write_of
from db_writer.retrying import Retrying
from db_writer.writes import WriteOutcome, update
from pipeline_contract.aws_failures import pipeline_error
from pipeline_contract.events import Source
from pipeline_contract.failures import FailureClass, PipelineError, Stage
from pipeline_contract.messages import MAX_ERROR_MESSAGE, Error, FailureEntry, MetadataMessage, Op, Trace
from pipeline_contract.times import format_time

_PARALLEL = 10  # a batch of the default size at once
_RESERVE_MS = 2_000  # what the rest of an invocation needs: failure entries and the answer


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the function's environment says, read once. Queues are URLs."""

    table: str
    metadata_dlq: str
    shards: int
    max_receives: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Deployment":
        return cls(
            table=environment["DYNAMODB_TABLE"],
            metadata_dlq=environment["METADATA_DLQ"],
            shards=max(1, int(environment.get("UPLOAD_DAY_SHARDS") or 1)),
            max_receives=max(1, int(environment.get("METADATA_MAX_RECEIVES") or 5)),
        )


@functools.cache
def deployment() -> Deployment:
    return Deployment.from_environment(os.environ)


def lambda_handler(event: Mapping[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
    """Write each message of a batch; only those that really failed go back to the queue."""
    remaining: Callable[[], float] = getattr(context, "get_remaining_time_in_millis", lambda: 30_000.0)
    batch = Batch(
        here=deployment(),
        retrying=Retrying(lambda: remaining() - _RESERVE_MS),
        request_id=str(getattr(context, "aws_request_id", "local")),
    )
    records = event["Records"]
    if len(records) == 1:
        failed = [batch.handle(record) for record in records]
    else:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            failed = list(pool.map(batch.handle, records))
    return {"batchItemFailures": [{"itemIdentifier": name} for name in failed if name is not None]}


@dataclass(frozen=True, slots=True)
class Batch:
    here: Deployment
    retrying: Retrying
    request_id: str

    def handle(self, record: Mapping[str, Any]) -> str | None:
        """One message: its id when it has to come back, None when it is done with."""
        started = time.perf_counter()
        try:
            outcome, code, image_id = self._handle(record)
        except Exception as error:  # noqa: BLE001  # whatever it is, it costs this message alone, and SQS brings it back
            known = pipeline_error(error, "handle the message")
            _log(record, self.request_id, "RETURNED", known, None, started)
            return str(record["messageId"])
        _log(record, self.request_id, outcome, code, image_id, started)
        return None

    def _handle(self, record: Mapping[str, Any]) -> tuple[str, PipelineError | None, str | None]:
        receives = _receives(record)
        try:
            original, attempts = unwrapped(record["body"])
        except ForeignEntryError:
            # Nothing here can take it. It stays what it is, where `imgpipe dlq redrive` sends it the right way.
            self._send(record["body"])
            return "FORWARDED", None, None
        message: MetadataMessage | None = None
        try:
            body = read_body(original)
            message = body if isinstance(body, MetadataMessage) else None
            write = write_of(body, _now(), self.here.shards)
            return self._write(write), None, write.image_id
        except (PipelineError, BotoCoreError, ClientError, OSError) as error:
            known = pipeline_error(error, "write the item")
            if known.code.failure_class is not FailureClass.PERMANENT and receives < self.here.max_receives:
                raise known from error
            source = message.source if message is not None else source_of(original)
            self._report(known, original, source, attempts + receives)
            if known.code.failure_class is FailureClass.PERMANENT and source is not None:
                self._write(self._failed(known, source, message))
            return "REPORTED", known, None if source is None else source.image_id

    def _write(self, write: Write) -> WriteOutcome:
        return self.retrying.call(lambda: update(client("dynamodb"), self.here.table, write))

    def _report(self, error: PipelineError, original: Any, source: Source | None, attempts: int) -> None:
        entry = FailureEntry(
            stage=Stage.DB_WRITER,
            class_=error.code.failure_class,
            code=error.code,
            message=error.message[:MAX_ERROR_MESSAGE],
            failed_at=_now(),
            attempts=attempts,
            original=original,
            source=source,
            image_id=None if source is None else source.image_id,
            request_id=self.request_id,
            hint=error.code.hint,
        )
        self._send(entry.to_json())

    def _send(self, body: str) -> None:
        self.retrying.call(lambda: client("sqs").send_message(QueueUrl=self.here.metadata_dlq, MessageBody=body))

    def _failed(self, error: PipelineError, source: Source, message: MetadataMessage | None) -> Write:
        """The item of an image whose own metadata cannot be written."""
        now = _now()
        trace = message.trace if message is not None else Trace(self.request_id, "unknown")
        observed_at = message.observed_at if message is not None else now
        failed = MetadataMessage(Op.FAIL, source, trace, error=Error.of(error), observed_at=observed_at)
        return write_of(failed, now, self.here.shards)


def _receives(record: Mapping[str, Any]) -> int:
    text = str(record.get("attributes", {}).get("ApproximateReceiveCount", "1"))
    return int(text) if text.isdigit() else 1


def _now() -> str:
    return format_time(datetime.now(UTC))


def _log(
    record: Mapping[str, Any],
    request_id: str,
    outcome: str,
    error: PipelineError | None,
    image_id: str | None,
    started: float,
) -> None:
    line = {
        "level": "INFO" if error is None else "WARN",
        "event": "item",
        "outcome": outcome,
        "code": None if error is None else error.code,
        "message": None if error is None else error.message,
        "imageId": image_id,
        "messageId": record.get("messageId"),
        "requestId": request_id,
        "ms": {"total": round((time.perf_counter() - started) * 1000, 1)},
    }
    present = {name: value for name, value in line.items() if value is not None}
    sys.stdout.write(json.dumps(present, separators=(",", ":")) + "\n")
    sys.stdout.flush()
