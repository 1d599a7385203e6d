"""Each call to AWS of each handler fails in each way, for as long as the platform tries: nothing is lost by it.

The upload ends where an operator finds it, with the code and class of the fault, and redriving after the fault
leaves what would have been without it.
"""

import io
import json
import random
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from db_writer import handler as writer
from fake_aws import answer_error
from handler_world import CORRUPT, GOOD
from image_processor import handler as processor
from pipeline_contract.aws_failures import error_code, failure_code, http_status
from pipeline_contract.failures import FailureClass, FailureCode, PipelineError, parse_error_text
from platform_model import CONTEXT, IMAGE_DLQ, METADATA, METADATA_DLQ, Platform

KEY = "a.jpg"
ATTEMPTS = 3  # Lambda: one and two retries
RECEIVES = 5  # the queue's maxReceiveCount

FAULTS: dict[str, tuple[Exception, FailureCode]] = {
    "throttle": (answer_error("SlowDown", 503), FailureCode.THROTTLED),
    "error": (answer_error("InternalError", 500), FailureCode.SERVICE_ERROR),
    "timeout": (ReadTimeoutError(endpoint_url="https://aws"), FailureCode.TIMEOUT),
    "denial": (answer_error("AccessDenied", 403), FailureCode.ACCESS_DENIED),
}
PROCESSOR_CALLS = {
    "good": ["s3.get_object", "s3.put_object", "s3.head_object", f"sqs.send_message {METADATA}"],
    "corrupt": [
        "s3.get_object", "s3.list_objects_v2", "s3.delete_object", f"sqs.send_message {METADATA}",
        f"sqs.send_message {IMAGE_DLQ}",
    ],
    "removed": [
        "s3.get_object", "s3.list_objects_v2", "s3.delete_object", f"sqs.send_message {METADATA}",
    ],
}  # fmt: skip


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    made = Platform(random.Random(1))
    made.install(monkeypatch)
    return made


def invoke(platform: Platform, event: dict[str, Any]) -> str | None:
    """Lambda's three attempts; the text of the last error."""
    for _ in range(ATTEMPTS):
        try:
            processor.lambda_handler({"Records": [event]}, CONTEXT)
        except Exception as error:  # noqa: BLE001  # as Lambda does
            text = str(error)
        else:
            return None
    return text


def drain(platform: Platform) -> None:
    """The queue's five receives of each message; then the bare message goes to the DLQ."""
    bodies, platform.sqs.queues[METADATA] = platform.sqs.queues[METADATA], []
    for body in bodies:
        for receive in range(1, RECEIVES + 1):
            record = {"messageId": "m", "body": body, "attributes": {"ApproximateReceiveCount": str(receive)}}
            if not writer.lambda_handler({"Records": [record]}, CONTEXT)["batchItemFailures"]:
                break
        else:
            platform.sqs.queues[METADATA_DLQ].append(body)


def scenario(platform: Platform, kind: str) -> tuple[dict[str, Any], str]:
    """An event of that kind on top of an image that was processed well, and the state that should come of it."""
    if kind != "good":
        platform.create(KEY, GOOD)
        assert invoke(platform, platform.events.pop()[0]) is None
        drain(platform)
    platform.events.clear()
    if kind == "removed":
        platform.delete(KEY)
    else:
        platform.create(KEY, GOOD if kind == "good" else CORRUPT)
    event = platform.events.pop()[0]
    platform.events.clear()
    return event, {"good": "COMPLETED", "corrupt": "FAILED", "removed": "DELETED"}[kind]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("kind", "call"), [(kind, call) for kind, calls in PROCESSOR_CALLS.items() for call in calls])
def test_a_fault_of_the_image_function(platform: Platform, kind: str, call: str, fault: str) -> None:
    event, state = scenario(platform, kind)
    raised, code = FAULTS[fault]
    faults: list[str] = []

    def fail(name: str) -> Exception | None:
        faults.extend([name] if name == call else [])
        return raised if name == call else None

    platform.fault = fail
    text = invoke(platform, event)
    assert len(faults) == ATTEMPTS, f"{call} is not what this scenario does"
    # What Lambda writes to the image DLQ has this text, and the record.
    assert text is not None
    assert parse_error_text(text) is not None
    assert parse_error_text(text)[0] is code  # type: ignore[index]
    assert code.failure_class in (FailureClass.TRANSIENT, FailureClass.CONFIG)
    platform.fault = lambda name: None
    assert invoke(platform, event) is None  # the redrive
    drain(platform)
    item = platform.item(KEY)
    assert item is not None
    assert item["status"] == state
    assert bool(platform.thumbnails(KEY)) is (state == "COMPLETED")
    assert len(platform.reported(KEY)) == (1 if state == "FAILED" else 0)


@pytest.mark.parametrize("kind", ["corrupt", "removed"])
def test_a_look_that_fails_after_cleaning_is_made_good_by_the_next_attempt(platform: Platform, kind: str) -> None:
    event, state = scenario(platform, kind)
    failed: list[str] = []

    def fail(name: str) -> Exception | None:
        # The first look is the test for the kept thumbnail where the image is corrupt; the last follows the cleaning.
        if name == "s3.head_object" and not platform.thumbnails(KEY):
            failed.append(name)
            return FAULTS["error"][0]
        return None

    platform.fault = fail
    assert invoke(platform, event) is None
    assert len(failed) == 1
    drain(platform)
    assert platform.item(KEY)["status"] == state  # type: ignore[index]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ReadTimeoutError(endpoint_url="https://aws"), FailureCode.TIMEOUT),
        (ResponseStreamingError(error="reset"), FailureCode.NETWORK),
        (IncompleteReadError(actual_bytes=1, expected_bytes=2), FailureCode.NETWORK),
    ],
)
def test_a_fault_while_the_body_is_read(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, error: Exception, code: FailureCode
) -> None:
    class Body(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise error

    event, _ = scenario(platform, "good")
    real = platform.s3.get_object
    monkeypatch.setattr(platform.s3, "get_object", lambda **asked: {**real(**asked), "Body": Body()})
    text = invoke(platform, event)
    assert text is not None
    assert text.startswith(f"{code}: cannot read s3://uploads/{KEY}")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_table(platform: Platform, fault: str) -> None:
    event, state = scenario(platform, "good")
    raised, code = FAULTS[fault]
    platform.fault = lambda name: raised if name == "dynamodb.update_item" else None
    assert invoke(platform, event) is None
    drain(platform)
    (entry,) = [json.loads(body) for body in platform.sqs.queues[METADATA_DLQ]]
    assert (entry["code"], entry["class"], entry["attempts"]) == (code, code.failure_class, RECEIVES)
    assert entry["source"]["key"] == KEY
    assert entry["hint"] == code.hint
    platform.fault = lambda name: None
    platform.sqs.queues[METADATA] = platform.sqs.queues[METADATA_DLQ]  # the redrive
    drain(platform)
    item = platform.item(KEY)
    assert item is not None
    assert item["status"] == state


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_dlq_leaves_the_message_to_the_queue(platform: Platform, fault: str) -> None:
    platform.fault = lambda name: FAULTS[fault][0] if name == f"sqs.send_message {METADATA_DLQ}" else None
    platform.sqs.queues[METADATA] = ["poison"]
    drain(platform)
    assert platform.sqs.queues[METADATA_DLQ] == ["poison"]  # bare, as SQS moves it


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_not_noticed(platform: Platform, fault: str) -> None:
    """One failing answer to the writer costs a retry within the same invocation, unless waiting cannot help."""
    event, _ = scenario(platform, "good")
    raised, code = FAULTS[fault]
    left = [1]

    def once(name: str) -> Exception | None:
        if name == "dynamodb.update_item" and left[0]:
            left[0] -= 1
            return raised
        return None

    assert invoke(platform, event) is None
    platform.fault = once
    record = {"messageId": "m", "body": platform.sqs.queues[METADATA].pop(), "attributes": {}}
    answer = writer.lambda_handler({"Records": [record]}, CONTEXT)
    assert bool(answer["batchItemFailures"]) is (code.failure_class is FailureClass.CONFIG)


def client_error(code: str, status: int, message: str = "") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "Operation",
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (client_error("ProvisionedThroughputExceededException", 400), FailureCode.THROTTLED),
        (client_error("ThrottlingException", 400), FailureCode.THROTTLED),
        (client_error("RequestThrottled", 403), FailureCode.THROTTLED),
        (client_error("TooManyRequests", 429), FailureCode.THROTTLED),
        (client_error("KMS.ThrottlingException", 400), FailureCode.THROTTLED),
        (client_error("ServiceUnavailable", 503), FailureCode.SERVICE_ERROR),
        (client_error("500", 500), FailureCode.SERVICE_ERROR),
        (client_error("InternalServerError", 200), FailureCode.SERVICE_ERROR),
        (client_error("RequestTimeout", 400), FailureCode.TIMEOUT),
        (client_error("403", 403), FailureCode.ACCESS_DENIED),
        (client_error("ExpiredTokenException", 400), FailureCode.ACCESS_DENIED),
        (client_error("UnrecognizedClientException", 400), FailureCode.ACCESS_DENIED),
        (client_error("AccessDenied", 403, "not allowed to kms:Decrypt on the key"), FailureCode.KMS_DENIED),
        (client_error("KMS.DisabledException", 400), FailureCode.KMS_DENIED),
        (client_error("KmsAccessDenied", 400), FailureCode.KMS_DENIED),
        (client_error("NoSuchBucket", 404), FailureCode.NO_SUCH_BUCKET),
        (client_error("ResourceNotFoundException", 400), FailureCode.TABLE_MISSING),
        (client_error("AWS.SimpleQueueService.NonExistentQueue", 400), FailureCode.QUEUE_MISSING),
        (client_error("QueueDoesNotExist", 400), FailureCode.QUEUE_MISSING),
        (client_error("InvalidArgument", 400), FailureCode.UNEXPECTED),
        (ConnectTimeoutError(endpoint_url="https://aws"), FailureCode.TIMEOUT),
        (EndpointConnectionError(endpoint_url="https://aws"), FailureCode.NETWORK),
        (NoCredentialsError(), FailureCode.ACCESS_DENIED),
        (ConnectionResetError(), FailureCode.NETWORK),
        (TimeoutError(), FailureCode.TIMEOUT),
        (MemoryError(), FailureCode.OUT_OF_MEMORY),
        (ModuleNotFoundError("PIL"), FailureCode.IMPORT_ERROR),
        (ValueError("x"), FailureCode.UNEXPECTED),
        (PipelineError(FailureCode.CORRUPT, "x"), FailureCode.CORRUPT),
    ],
)
def test_what_an_exception_means(error: Exception, code: FailureCode) -> None:
    assert failure_code(error) is code


def test_other_exceptions_are_no_answers() -> None:
    assert error_code(ValueError()) is None
    assert http_status(ValueError()) is None
