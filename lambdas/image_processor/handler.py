"""The Lambda function behind the upload bucket's notifications."""

import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from image_processor.clients import client
from image_processor.processing import Outcome, Processor, Result, Timings
from image_processor.rendering import render
from image_processor.sending import Outbox
from image_processor.settings import ImageSettings
from image_processor.thumbnails import ThumbnailStore
from pipeline_contract.aws_failures import pipeline_error
from pipeline_contract.events import ObjectEvent, event_records, object_event
from pipeline_contract.failures import FailureClass, PipelineError
from pipeline_contract.log_lines import metric_line, write
from pipeline_contract.messages import Error, Op, Trace
from pipeline_contract.times import format_time


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the function's environment says, read once."""

    thumbnail_bucket: str
    metadata_queue: str
    image_dlq: str
    settings: ImageSettings
    version: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Deployment":
        return cls(
            thumbnail_bucket=environment["THUMBNAIL_BUCKET"],
            metadata_queue=environment["METADATA_QUEUE"],
            image_dlq=environment["IMAGE_DLQ"],
            settings=ImageSettings.from_environment(environment),
            version=environment.get("PROCESSOR_VERSION", "unversioned"),
        )


@functools.cache
def deployment() -> Deployment:
    return Deployment.from_environment(os.environ)


def lambda_handler(event: Any, context: Any) -> dict[str, int]:
    """Process each record of an S3 event; how many ended in which outcome.

    A permanent failure is reported and is no error. Anything else raises, once every record has had its turn: Lambda
    then tries again, and records that were done are found done.
    """
    request_id = str(getattr(context, "aws_request_id", "local"))
    outcomes: dict[str, int] = {}
    failure: PipelineError | None = None
    try:
        records = event_records(event)
    except PipelineError as error:
        _outbox().failure(error, event, None, request_id=request_id, failed_at=_now())
        return {Outcome.FAILED: 1}
    for record in records:
        try:
            outcome = _process(record, request_id)
        except PipelineError as error:
            failure = failure or error
        else:
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    if failure is not None:
        raise failure
    return outcomes


def _process(record: Any, request_id: str) -> Outcome:
    """Process one record and write its log line. Raises a `PipelineError` for what should be tried again."""
    timings = Timings()
    event: ObjectEvent | None = None
    try:
        event = object_event(record)
        result = _processor(request_id, timings).process(event)
    except PipelineError as error:
        if error.code.failure_class is not FailureClass.PERMANENT:
            _log(request_id, event, timings, error=error)
            raise
        result = Result(Outcome.FAILED, error=error)
    except Exception as error:
        known = pipeline_error(error, "process the record")
        _log(request_id, event, timings, error=known)
        raise known from error
    try:
        with timings.timed("send"):
            result = _sendable(result)
            _report(result, record, event, request_id)
    except PipelineError as error:
        _log(request_id, event, timings, error=error)
        raise
    _log(request_id, event, timings, result=result)
    return result.outcome


def _sendable(result: Result) -> Result:
    """The result, or a failure when its message cannot be one: too large, or with numbers that JSON does not know."""
    if result.message is None:
        return result
    try:
        result.message.to_json()
    except PipelineError as error:
        failed = replace(result.message, op=Op.FAIL, image=None, exif={}, thumbnails=(), error=Error.of(error))
        return replace(result, outcome=Outcome.FAILED, message=failed, error=error)
    return result


def _report(result: Result, record: Any, event: ObjectEvent | None, request_id: str) -> None:
    """Send what a result means. The message first: said twice, it is a duplicate; an entry would be found twice."""
    outbox = _outbox()
    source = None if event is None else event.source
    if result.message is not None:
        source = result.message.source  # with the eTag and version that were found
        outbox.metadata(result.message)
    if result.error is not None:
        outbox.failure(result.error, record, source, request_id=request_id, failed_at=_now())


def _processor(request_id: str, timings: Timings) -> Processor:
    here = deployment()
    return Processor(
        s3=client("s3"),
        thumbnails=ThumbnailStore(client("s3"), here.thumbnail_bucket),
        settings=here.settings,
        render=render,
        now=_now,
        trace=Trace(request_id=request_id, processor_version=here.version),
        timings=timings,
    )


def _outbox() -> Outbox:
    here = deployment()
    return Outbox(lambda: client("sqs"), here.metadata_queue, here.image_dlq)


def _now() -> str:
    return format_time(datetime.now(UTC))


def _log(
    request_id: str,
    event: ObjectEvent | None,
    timings: Timings,
    *,
    result: Result | None = None,
    error: PipelineError | None = None,
) -> None:
    reason = error if error is not None else None if result is None else result.error
    fields: dict[str, Any] = {
        "level": "ERROR" if result is None else "INFO" if reason is None else "WARN",
        "event": "image",
        "outcome": "ERROR" if result is None else result.outcome,
        "requestId": request_id,
        "message": None if reason is None else reason.message,
        "ms": {stage: round(value, 1) for stage, value in timings.stages.items()},
    }
    if event is not None:
        source = event.source
        fields |= {
            "imageId": source.image_id,
            "bucket": source.bucket,
            "key": source.key,
            "eventName": source.event_name,
            "sequencer": source.sequencer,
        }
    # Not from deployment(): a line is written about an environment that cannot be used, too.
    function = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "image_processor")
    metrics: dict[str, float | None] = {"Processed": 1}
    if result is not None:
        metrics |= {"Bytes": result.size, "DecodeMs": result.decode_ms}
    write(metric_line(function, time.time_ns() // 1_000_000, fields, metrics, None if reason is None else reason.code))
