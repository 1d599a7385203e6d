"""The Lambda function behind the metadata queue."""

import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from db_writer.batch import Batch, Handled
from db_writer.clients import client
from db_writer.retrying import Retrying
from pipeline_contract.log_lines import metric_line, write

_RESERVE_MS = 9_000  # one more call at its slowest (clients.py), failure entries and the answer
_NO_LIMIT_MS = 30_000.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the function's environment says, read once. The queue is a URL."""

    table: str
    metadata_dlq: str
    shards: int
    max_receives: int
    function: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Deployment":
        return cls(
            table=environment["DYNAMODB_TABLE"],
            metadata_dlq=environment["METADATA_DLQ"],
            shards=max(1, int(environment.get("UPLOAD_DAY_SHARDS") or 1)),
            max_receives=max(1, int(environment.get("METADATA_MAX_RECEIVES") or 5)),
            function=environment.get("AWS_LAMBDA_FUNCTION_NAME", "db_writer"),
        )


@functools.cache
def deployment() -> Deployment:
    return Deployment.from_environment(os.environ)


def lambda_handler(event: Mapping[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:
    """Write each message of a batch; only those that really failed go back to the queue."""
    here = deployment()
    remaining: Callable[[], float] = getattr(context, "get_remaining_time_in_millis", lambda: _NO_LIMIT_MS)
    request_id = str(getattr(context, "aws_request_id", "local"))
    batch = Batch(
        dynamodb=lambda: client("dynamodb"),
        sqs=lambda: client("sqs"),
        table=here.table,
        failure_queue=here.metadata_dlq,
        shards=here.shards,
        max_receives=here.max_receives,
        request_id=request_id,
        retrying=Retrying(lambda: remaining() - _RESERVE_MS),
    )
    handled = batch.handle(event["Records"])
    for one in handled:
        _log(one, here.function, request_id)
    return {"batchItemFailures": [{"itemIdentifier": one.message_id} for one in handled if one.returned]}


def _log(handled: Handled, function: str, request_id: str) -> None:
    error = handled.error
    fields = {
        "level": "INFO" if error is None else "WARN",
        "event": "item",
        "outcome": handled.outcome,
        "message": None if error is None else error.message,
        "imageId": handled.image_id,
        "messageId": handled.message_id,
        "requestId": request_id,
        "ms": None if handled.write_ms is None else {"write": round(handled.write_ms, 1)},
    }
    code = None if error is None else error.code
    write(metric_line(function, time.time_ns() // 1_000_000, fields, {"Processed": 1}, code))
