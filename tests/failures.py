"""Dead letters in their three shapes, as the pipeline and AWS write them."""

import json
from typing import Any

from pipeline_contract.events import Source
from pipeline_contract.failures import FailureCode, Stage
from pipeline_contract.messages import Error, FailureEntry, MetadataMessage, Op, Trace

BUCKET = "uploads"


def record(key: str = "a b/é.jpg", **more: Any) -> dict[str, Any]:
    from urllib.parse import quote_plus

    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-10-03T12:34:56.789Z",
        "s3": {
            "bucket": {"name": BUCKET},
            "object": {"key": quote_plus(key, safe="/"), "size": 3, "eTag": "e", "sequencer": "0061"},
        },
        **more,
    }


def source(key: str = "a b/é.jpg") -> Source:
    return Source(BUCKET, key, None, "e", "0061".ljust(32, "0"), "2026-10-03T12:34:56.789Z", "ObjectCreated:Put")


def metadata(key: str = "a b/é.jpg") -> str:
    error = Error(FailureCode.CORRUPT.failure_class, FailureCode.CORRUPT, "damaged")
    return MetadataMessage(Op.FAIL, source(key), Trace("r1", "v1"), error=error).to_json()


def image_failure(key: str = "a b/é.jpg", code: FailureCode = FailureCode.CORRUPT, **more: Any) -> str:
    return _entry(Stage.IMAGE_PROCESSOR, code, key, **{"original": record(key), **more})


def writer_failure(key: str = "a b/é.jpg", code: FailureCode = FailureCode.THROTTLED, **more: Any) -> str:
    return _entry(Stage.DB_WRITER, code, key, **{"original": json.loads(metadata(key)), **more})


def _entry(stage: Stage, code: FailureCode, key: str, **more: Any) -> str:
    fields: dict[str, Any] = {
        "stage": stage,
        "class_": code.failure_class,
        "code": code,
        "message": "why",
        "failed_at": "2026-10-03T12:35:00.000Z",
        "attempts": 1,
        "source": source(key),
        "image_id": source(key).image_id,
        "request_id": "r1",
        "hint": code.hint,
        **more,
    }
    return FailureEntry(**fields).to_json()


def invocation_record(
    key: str = "a b/é.jpg", error: dict[str, Any] | None = None, condition: str = "RetriesExhausted", **more: Any
) -> str:
    """AWS Lambda, "Capturing records of Lambda asynchronous invocations"."""
    return json.dumps(
        {
            "version": "1.0",
            "timestamp": "2026-10-03T12:36:00.000Z",
            "requestContext": {
                "requestId": "r2",
                "functionArn": "arn:aws:lambda:us-east-1:1:function:p:$LATEST",
                "condition": condition,
                "approximateInvokeCount": 3,
            },
            "requestPayload": {"Records": [record(key)]},
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "responsePayload": {"errorMessage": "boom", "errorType": "ValueError"} if error is None else error,
            **more,
        }
    )


def received(body: str, message_id: str = "m1", **more: Any) -> dict[str, Any]:
    """A message as `ReceiveMessage` gives it."""
    return {
        "MessageId": message_id,
        "ReceiptHandle": "receipt",
        "Body": body,
        "Attributes": {"SentTimestamp": "1790000000000", "ApproximateReceiveCount": "6"},
        **more,
    }
