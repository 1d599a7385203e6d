"""Images through the local pipeline, from upload to item, thumbnail and dead-letter queue."""

import functools
import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_pipeline import LocalPipeline, eventually
from PIL import Image

pytestmark = pytest.mark.emulator


@functools.cache
def jpeg(width: int = 320, height: int = 200, seed: int = 0) -> bytes:
    """A photograph in kind: noise, so that it has some weight; the same bytes for the same arguments."""
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 40 + seed % 50).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_good_image_becomes_an_item_and_a_thumbnail(pipeline: LocalPipeline) -> None:
    image = pipeline.put("good/one.jpg", jpeg())
    item = eventually(lambda: pipeline.items("good/").get("good/one.jpg"), "an item")
    assert (item["status"], item["imageId"], item["width"], item["height"]) == ("COMPLETED", image, "320", "200")
    bucket = pipeline.outputs["thumbnail_bucket_name"]
    thumbnail = pipeline.clients.s3.get_object(Bucket=bucket, Key=f"thumbnails/{image}.jpg")["Body"].read()
    assert max(Image.open(io.BytesIO(thumbnail)).size) == 200


@pytest.mark.parametrize(
    "name", ["two words.jpg", "café.jpg", "🎉🏞.jpg", "a+b & c%20d.jpg", "-leading.jpg", "quote'\".jpg", "x=1;y?z#.jpg"]
)
def test_a_name_comes_through_as_it_is(pipeline: LocalPipeline, name: str) -> None:
    image = pipeline.put(f"names/{name}", jpeg())
    item = eventually(lambda: pipeline.items("names/").get(f"names/{name}"), "an item")
    assert (item["imageId"], item["status"]) == (image, "COMPLETED")


def test_what_is_no_image_ends_in_the_dead_letter_queue_with_its_reason_and_fires_the_alarm(
    pipeline: LocalPipeline,
) -> None:
    bad = {"bad/corrupt.jpg": jpeg()[:300], "bad/claims.png": b"no image", "bad/empty.jpg": b""}
    for key, data in bad.items():
        pipeline.put(key, data)
    pipeline.put("bad/notes.txt", b"claims nothing")
    codes = {"bad/claims.png": "NOT_AN_IMAGE", "bad/empty.jpg": "EMPTY_OBJECT"}
    items = eventually(lambda: len(found := pipeline.items("bad/")) == len(bad) and found, "an item for each")
    assert {key: item["status"] for key, item in items.items()} == dict.fromkeys(bad, "FAILED")
    assert {key: items[key]["errorCode"] for key in codes} == codes
    entries = [entry for entry in pipeline.dead_letters() if entry["source"]["key"] in bad]
    assert {entry["source"]["key"]: entry["code"] for entry in entries} == {
        key: item["errorCode"] for key, item in items.items()
    }
    eventually(lambda: pipeline.alarm("image-dlq-not-empty") == "ALARM", "the alarm fires")


def test_an_alarm_clears_when_the_queue_is_empty_and_tells_its_topic(pipeline: LocalPipeline) -> None:
    clients, outputs = pipeline.clients, pipeline.outputs
    inbox = clients.sqs.create_queue(QueueName="inbox")["QueueUrl"]
    arn = clients.sqs.get_queue_attributes(QueueUrl=inbox, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    clients.sns.subscribe(TopicArn=outputs["alarm_topic_arn"], Protocol="sqs", Endpoint=arn)
    clients.sqs.send_message(QueueUrl=outputs["dlq_url"], MessageBody="{}")
    eventually(lambda: pipeline.alarm("metadata-dlq-not-empty") == "ALARM", "the alarm fires")
    clients.sqs.purge_queue(QueueUrl=outputs["dlq_url"])
    eventually(lambda: pipeline.alarm("metadata-dlq-not-empty") == "OK", "the alarm clears")
    told: list[str] = []

    def both() -> bool:
        messages = clients.sqs.receive_message(QueueUrl=inbox, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in messages.get("Messages", []):
            alarm = json.loads(json.loads(message["Body"])["Message"])
            told.append(f"{alarm['AlarmName']} {alarm['NewStateValue']}")
        return len(told) >= 2

    eventually(both, "the topic is told twice")
    name = f"{outputs['name_prefix']}-metadata-dlq-not-empty"
    assert told[-2:] == [f"{name} ALARM", f"{name} OK"] or sorted(told[-2:]) == [f"{name} ALARM", f"{name} OK"]


@pytest.mark.slow
def test_a_burst_loses_nothing_and_sends_no_good_image_to_the_dead_letter_queue(pipeline: LocalPipeline) -> None:
    images = {f"burst/{number:03d}.jpg": jpeg(seed=number) for number in range(300)}
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda entry: pipeline.put(*entry), images.items()))
    items = eventually(lambda: len(found := pipeline.items("burst/")) == len(images) and found, "an item for each")
    assert {item["status"] for item in items.values()} == {"COMPLETED"}
    assert [entry for entry in pipeline.dead_letters() if "burst/" in json.dumps(entry)] == []


def test_a_failing_function_is_tried_three_times_and_then_reported(pipeline: LocalPipeline) -> None:
    function, outputs = pipeline.outputs["image_processor_function_name"], pipeline.outputs
    clients = pipeline.clients
    # An event that the handler cannot settle: its bucket is not there, which only an operator can mend.
    event = {
        "Records": [
            {
                "eventName": "ObjectCreated:Put",
                "eventTime": "2026-01-01T00:00:00.000Z",
                "s3": {"bucket": {"name": "nowhere"}, "object": {"key": "gone.jpg", "sequencer": "01"}},
            }
        ]
    }
    clients.lambda_.invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(event).encode())

    def record() -> dict[str, object]:
        return next((entry for entry in pipeline.dead_letters() if entry.get("requestPayload") == event), {})

    found = eventually(record, "an invocation record")
    context = found["requestContext"]
    assert isinstance(context, dict)
    assert (context["condition"], context["approximateInvokeCount"]) == ("RetriesExhausted", 3)
    answer = found["responsePayload"]
    assert isinstance(answer, dict)
    assert answer["errorType"] == "PipelineError"
    assert answer["errorMessage"].startswith("NO_SUCH_BUCKET: ")
    group = f"/aws/lambda/{function}"
    lines = clients.logs.filter_log_events(logGroupName=group, filterPattern=f'"{context["requestId"]}" START')
    assert len(lines["events"]) == 3
    assert outputs["image_dlq_url"].endswith("image-dlq")


def test_log_events_come_in_pages_and_by_pattern(pipeline: LocalPipeline) -> None:
    logs, group = pipeline.clients.logs, "/test/pages"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="a")
    messages = [json.dumps({"n": number, "level": "ERROR" if number % 2 else "INFO"}) for number in range(10)]
    logs.put_log_events(
        logGroupName=group,
        logStreamName="a",
        logEvents=[
            {"timestamp": 1_700_000_000_000 + number // 3, "message": text} for number, text in enumerate(messages)
        ],
    )
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 3})
    events = [event for page in pages for event in page["events"]]
    assert sorted(event["message"] for event in events) == sorted(messages)
    assert len({event["eventId"] for event in events}) == len(messages)
    found = logs.filter_log_events(logGroupName=group, filterPattern='{ $.level = "ERROR" && $.n > 4 }')["events"]
    assert sorted(json.loads(event["message"])["n"] for event in found) == [5, 7, 9]
    with pytest.raises(logs.exceptions.InvalidParameterException):
        logs.filter_log_events(logGroupName=group, filterPattern="[a, b]")


def test_messages_of_a_dead_letter_queue_can_be_moved_back(pipeline: LocalPipeline) -> None:
    sqs = pipeline.clients.sqs
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = {"deadLetterTargetArn": arn, "maxReceiveCount": 1}
    live = sqs.create_queue(QueueName="live", Attributes={"RedrivePolicy": json.dumps(policy)})["QueueUrl"]
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [live]
    sqs.send_message(QueueUrl=live, MessageBody="failed")
    for _ in range(2):  # the second time it has been received often enough
        sqs.receive_message(QueueUrl=live, VisibilityTimeout=0)
    sqs.start_message_move_task(SourceArn=arn)
    assert sqs.list_message_move_tasks(SourceArn=arn)["Results"][0]["ApproximateNumberOfMessagesMoved"] == 1
    [message] = sqs.receive_message(QueueUrl=live, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "failed"
    sqs.delete_message(QueueUrl=live, ReceiptHandle=message["ReceiptHandle"])

    sqs.send_message(QueueUrl=dead, MessageBody="sent there")  # so nobody knows where it belongs, unless it is said
    sqs.start_message_move_task(SourceArn=arn)
    task = sqs.list_message_move_tasks(SourceArn=arn)["Results"][0]
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    sqs.start_message_move_task(SourceArn=arn, DestinationArn=arn.replace("dead", "live"))
    assert sqs.receive_message(QueueUrl=live, WaitTimeSeconds=5)["Messages"][0]["Body"] == "sent there"
    with pytest.raises(sqs.exceptions.ClientError, match="configured as a Dead Letter Queue"):
        sqs.start_message_move_task(SourceArn=arn.replace("dead", "live"))
