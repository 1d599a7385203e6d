"""What lies in a dead-letter queue: its three shapes, read into one.

- the failure entry that a handler writes itself (`imgpipe.failure/1`);
- Lambda's invocation record, when the retries of an asynchronous invoke of image_processor are exhausted
  (AWS Lambda, "Capturing records of Lambda asynchronous invocations");
- a raw metadata body, when the metadata queue gave up on delivering it to db_writer.

Anything else is shown and kept, and cannot be redriven.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pipeline_contract.codec import decode, loads_object
from pipeline_contract.events import ObjectEvent, Source, object_events
from pipeline_contract.failures import FailureClass, FailureCode, PipelineError, Stage, parse_error_text
from pipeline_contract.messages import FAILURE_SCHEMA, METADATA_SCHEMA, REDRIVES, FailureEntry, schema_of


class Shape(StrEnum):
    FAILURE_ENTRY = "failure"
    INVOCATION_RECORD = "invocation"
    METADATA = "metadata"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of a dead-letter queue.

    `message` is the reason; `code` and `class_` are None where the message does not tell (then the log does).
    `records` are the S3 records that image_processor is invoked with again, `metadata_body` is what goes back to the
    metadata queue; a redrive has one of them. `receives` counts how often the message was received, lists included.
    """

    message_id: str
    queue: Stage
    shape: Shape
    stage: Stage
    class_: FailureClass | None
    code: FailureCode | None
    message: str
    source: Source | None
    image_id: str | None
    failed_at: datetime
    attempts: int | None
    receives: int
    redrives: int
    request_id: str | None
    hint: str | None
    records: tuple[Mapping[str, Any], ...]
    metadata_body: str | None
    raw: Mapping[str, Any]  # as SQS gave it

    @property
    def bucket(self) -> str | None:
        return self.source.bucket if self.source else None

    @property
    def key(self) -> str | None:
        return self.source.key if self.source else None

    @property
    def redrivable(self) -> bool:
        return bool(self.records) or self.metadata_body is not None


def dead_letter(raw: Mapping[str, Any], queue: Stage) -> DeadLetter:
    """Reads what `ReceiveMessage` gave. Never fails: what cannot be read is Shape.UNKNOWN, with the reason."""
    body = str(raw.get("Body", ""))
    try:
        value = loads_object(body)
        if schema_of(value) == FAILURE_SCHEMA:
            return _failure_entry(raw, queue, FailureEntry.from_object(value))
        if isinstance(value.get("requestContext"), Mapping) and "requestPayload" in value:
            return _invocation_record(raw, queue, value)
        if schema_of(value) == METADATA_SCHEMA or _is_flat_metadata(value):
            return _metadata(raw, queue, value)
        reason = "neither a failure entry, nor an invocation record, nor metadata"
    except PipelineError as error:
        reason = error.message
    return _letter(raw, queue, Shape.UNKNOWN, queue, FailureCode.MESSAGE_MALFORMED, f"cannot be read: {reason}")


def _failure_entry(raw: Mapping[str, Any], queue: Stage, entry: FailureEntry) -> DeadLetter:
    records: tuple[Mapping[str, Any], ...] = ()
    metadata_body: str | None = None
    original = entry.original
    if entry.original_truncated:
        original = None
    elif entry.stage is Stage.DB_WRITER and original is not None:
        metadata_body = original if isinstance(original, str) else json.dumps(original, separators=(",", ":"))
    elif isinstance(original, Mapping) and _events({"Records": [original]}):
        records = (original,)
    # An original that was cut or lost: the source says as much, and the processor makes everything else again.
    if not records and metadata_body is None and entry.source is not None:
        records = (record_of(entry.source),)
    return _letter(
        raw,
        queue,
        Shape.FAILURE_ENTRY,
        entry.stage,
        entry.code,
        entry.message,
        failure_class=entry.class_,
        source=entry.source or _source(records),
        image_id=entry.image_id,
        failed_at=_time(entry.failed_at),
        attempts=entry.attempts,
        request_id=entry.request_id,
        hint=entry.hint,
        records=records,
        metadata_body=metadata_body,
    )


def _invocation_record(raw: Mapping[str, Any], queue: Stage, value: Mapping[str, Any]) -> DeadLetter:
    context = value["requestContext"]
    code, message = _reason(context, value.get("responsePayload"))
    payload = value["requestPayload"]
    found = _events(payload)
    records = payload.get("Records") if isinstance(payload, Mapping) else None
    attempts = context.get("approximateInvokeCount")
    return _letter(
        raw,
        queue,
        Shape.INVOCATION_RECORD,
        Stage.IMAGE_PROCESSOR,
        code,
        message,
        source=found[0].source if found else None,
        failed_at=_time(value.get("timestamp")),
        attempts=attempts if isinstance(attempts, int) else None,
        request_id=_text(context.get("requestId")),
        records=tuple(records) if found and isinstance(records, list) else (),
    )


def _metadata(raw: Mapping[str, Any], queue: Stage, value: Mapping[str, Any]) -> DeadLetter:
    receives = _number(raw, "ApproximateReceiveCount")
    return _letter(
        raw,
        queue,
        Shape.METADATA,
        Stage.DB_WRITER,
        None,
        "db_writer failed on it each time it was delivered; its log says why",
        failure_class=FailureClass.TRANSIENT,
        source=_metadata_source(value),
        image_id=_text(value.get("imageId")),
        attempts=receives,
        metadata_body=str(raw["Body"]),
        hint=f"See why: imgpipe dlq show --id {str(raw.get('MessageId', ''))[:8]}; then redrive.",
    )


def _letter(
    raw: Mapping[str, Any],
    queue: Stage,
    shape: Shape,
    stage: Stage,
    code: FailureCode | None,
    message: str,
    *,
    failure_class: FailureClass | None = None,
    source: Source | None = None,
    image_id: str | None = None,
    failed_at: datetime | None = None,
    attempts: int | None = None,
    request_id: str | None = None,
    hint: str | None = None,
    records: tuple[Mapping[str, Any], ...] = (),
    metadata_body: str | None = None,
) -> DeadLetter:
    sent = datetime.fromtimestamp(_number(raw, "SentTimestamp") / 1000, UTC)
    return DeadLetter(
        message_id=str(raw.get("MessageId", "")),
        queue=queue,
        shape=shape,
        stage=stage,
        class_=code.failure_class if code else failure_class,
        code=code,
        message=message,
        source=source,
        image_id=image_id or (source.image_id if source else None),
        failed_at=failed_at or sent,
        attempts=attempts,
        receives=_number(raw, "ApproximateReceiveCount"),
        redrives=_redrives(raw, records),
        request_id=request_id,
        hint=hint or (code.hint if code else None),
        records=records,
        metadata_body=metadata_body,
        raw=raw,
    )


_OUT_OF_MEMORY = re.compile(r"signal: killed|Runtime\.OutOfMemory|MemoryError|out of memory", re.IGNORECASE)
_NO_IMPORT = re.compile(r"Runtime\.(ImportModuleError|UserCodeSyntaxError|HandlerNotFound)|Unable to import module")


def _reason(context: Mapping[str, Any], answer: Any) -> tuple[FailureCode, str]:
    """Code and text of an invocation record. A PipelineError's text names its code; the platform's own failures
    (time-out, killed process, failed import) are known by what Lambda writes of them.
    """
    condition = str(context.get("condition", ""))
    if not isinstance(answer, Mapping):
        if condition == "EventAgeExceeded":
            return FailureCode.THROTTLED, "waited longer than the event's maximum age: the function was throttled"
        return FailureCode.UNEXPECTED, f"{condition or 'failed'} without an answer of the function"
    text = str(answer.get("errorMessage", ""))
    if known := parse_error_text(text):
        return known
    kind = str(answer.get("errorType", ""))
    shown = text if not kind or kind in text else f"{kind}: {text}"
    if "Task timed out after" in text or kind == "Sandbox.Timedout":
        return FailureCode.TIMEOUT, shown
    if _OUT_OF_MEMORY.search(shown):
        return FailureCode.OUT_OF_MEMORY, shown
    if _NO_IMPORT.search(shown):
        return FailureCode.IMPORT_ERROR, shown
    return FailureCode.UNEXPECTED, shown or condition or "no reason given"


def original(letter: DeadLetter) -> Any:
    """What the message is about, as plain data where it can be read: the S3 records, the metadata, or the body."""
    if letter.records:
        return list(letter.records)
    body = letter.metadata_body if letter.metadata_body is not None else str(letter.raw.get("Body", ""))
    try:
        return json.loads(body)
    except ValueError:
        return body


def record_of(source: Source) -> dict[str, Any]:
    """An S3 event record that tells image_processor of an object again."""
    from urllib.parse import quote_plus

    entity = {"key": quote_plus(source.key, safe="/"), "sequencer": source.sequencer}
    entity |= {"versionId": source.version_id, "eTag": source.e_tag}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": source.event_name or "ObjectCreated:Put",
        "eventTime": source.event_time or "1970-01-01T00:00:00.000Z",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": source.bucket, "arn": f"arn:aws:s3:::{source.bucket}"},
            "object": {name: value for name, value in entity.items() if value is not None},
        },
    }


def _events(payload: Any) -> list[ObjectEvent]:
    try:
        return list(object_events(payload))
    except PipelineError:
        return []


def _source(records: tuple[Mapping[str, Any], ...]) -> Source | None:
    found = _events({"Records": list(records)})
    return found[0].source if found else None


def _metadata_source(value: Mapping[str, Any]) -> Source | None:
    try:
        return decode(Source, value["source"]) if "source" in value else None
    except PipelineError:
        return None


def _is_flat_metadata(value: Mapping[str, Any]) -> bool:
    """The original project's flat body, which db_writer takes too."""
    return "imageId" in value or "image_id" in value


def _redrives(raw: Mapping[str, Any], records: tuple[Mapping[str, Any], ...]) -> int:
    inside = records[0].get(REDRIVES) if records else None
    if isinstance(inside, int) and not isinstance(inside, bool):
        return max(0, inside)
    attribute = (raw.get("MessageAttributes") or {}).get(REDRIVES) or {}
    text = str(attribute.get("StringValue", "0"))
    return int(text) if text.isascii() and text.isdigit() else 0


def _number(raw: Mapping[str, Any], name: str) -> int:
    text = str((raw.get("Attributes") or {}).get(name, "0"))
    return int(text) if text.isascii() and text.isdigit() else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: Any) -> datetime | None:
    try:
        read = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
