"""The two handlers with everything around them in moto: buckets, queues, table, and what the platform does between.

No pipeline_cli here: these tests also run where only the Lambda runtime's libraries are.
"""

import io
import json
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import botocore.session
import pytest
from moto import mock_aws
from PIL import Image

import db_writer.clients
import image_processor.clients
from db_writer import handler as writer
from image_processor import handler as processor
from pipeline_contract.identity import image_id

UPLOADS, THUMBNAILS, TABLE = "uploads", "thumbnails", "images"


def jpeg(color: str = "red", size: tuple[int, int] = (640, 480)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "JPEG")
    return out.getvalue()


GOOD = jpeg()
CORRUPT = GOOD[:200] + b"\0" * 200  # claims to be an image, cannot be decoded
CONTEXT = types.SimpleNamespace(aws_request_id="request-1", get_remaining_time_in_millis=lambda: 30_000)


def record(
    key: str,
    name: str = "ObjectCreated:Put",
    *,
    sequencer: str | None = None,
    e_tag: str | None = None,
    version_id: str | None = None,
    time: str = "2026-10-03T12:00:00.000Z",
    **more: Any,
) -> dict[str, Any]:
    """One record as S3 sends it."""
    entity = {"key": quote_plus(key, safe="/"), "sequencer": sequencer, "eTag": e_tag, "versionId": version_id}
    present = {name: value for name, value in entity.items() if value is not None}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": name,
        "eventTime": time,
        "s3": {"bucket": {"name": UPLOADS}, "object": present},
        **more,
    }


def plain(value: dict[str, Any]) -> Any:
    """A DynamoDB value as Python has it."""
    ((kind, content),) = value.items()
    if kind == "M":
        return {name: plain(item) for name, item in content.items()}
    if kind == "L":
        return [plain(item) for item in content]
    return float(content) if kind == "N" else content


@dataclass
class World:
    s3: Any
    sqs: Any
    dynamodb: Any
    queues: dict[str, str]
    clock: int = 0
    sequence: int = 0
    sent_back: list[dict[str, Any]] = field(default_factory=list)

    def put(self, key: str, data: bytes = GOOD, content_type: str = "image/jpeg", **more: Any) -> dict[str, Any]:
        """Upload; the record that S3 would send."""
        answer = self.s3.put_object(Bucket=UPLOADS, Key=key, Body=data, ContentType=content_type)
        return self.event(key, e_tag=answer["ETag"].strip('"'), version_id=answer.get("VersionId"), **more)

    def delete(self, key: str, version_id: str | None = None, **more: Any) -> dict[str, Any]:
        which = {} if version_id is None else {"VersionId": version_id}
        answer = self.s3.delete_object(Bucket=UPLOADS, Key=key, **which)
        name = "ObjectRemoved:Delete" if version_id else "ObjectRemoved:DeleteMarkerCreated"
        return self.event(key, name, version_id=version_id or answer.get("VersionId"), **more)

    def event(self, key: str, name: str = "ObjectCreated:Put", **more: Any) -> dict[str, Any]:
        self.sequence += 1
        defaults = {
            "sequencer": f"{self.sequence:018x}",
            "time": f"2026-10-03T12:{self.sequence // 60:02}:{self.sequence % 60:02}.000Z",
        }
        return record(key, name, **(defaults | more))

    def process(self, *records: dict[str, Any]) -> dict[str, int]:
        return processor.lambda_handler({"Records": list(records)}, CONTEXT)

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """All messages of a queue, taken out."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.sqs.receive_message(
                QueueUrl=self.queues[queue],
                MaxNumberOfMessages=10,
                AttributeNames=["ApproximateReceiveCount"],
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            if not page:
                return found
            for message in page:
                self.sqs.delete_message(QueueUrl=self.queues[queue], ReceiptHandle=message["ReceiptHandle"])
            found += page

    def bodies(self, queue: str) -> list[dict[str, Any]]:
        return [json.loads(message["Body"]) for message in self.messages(queue)]

    def write(self, *bodies: Any, receives: int = 1, attributes: Any = None) -> list[str]:
        """The ids (m0, m1, ...) of the bodies that the writer gives back to the queue."""
        records = [
            {
                "messageId": f"m{index}",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": {"ApproximateReceiveCount": str(receives)},
                "messageAttributes": attributes or {},
            }
            for index, body in enumerate(bodies)
        ]
        answer = writer.lambda_handler({"Records": records}, CONTEXT)
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    def settle(self) -> None:
        """The metadata queue emptied into the table."""
        while bodies := self.bodies("metadata"):
            for start in range(0, len(bodies), 10):
                assert self.write(*bodies[start : start + 10]) == []

    def item(self, key: str) -> dict[str, Any] | None:
        return self.item_of(image_id(UPLOADS, key))

    def item_of(self, identity: str) -> dict[str, Any] | None:
        found = self.dynamodb.get_item(TableName=TABLE, Key={"imageId": {"S": identity}}, ConsistentRead=True)
        return {name: plain(value) for name, value in found["Item"].items()} if "Item" in found else None

    def thumbnails(self, key: str) -> list[str]:
        page = self.s3.list_objects_v2(Bucket=THUMBNAILS, Prefix=f"thumbnails/{image_id(UPLOADS, key)}")
        return [entry["Key"] for entry in page.get("Contents", [])]


def forget_clients() -> None:
    """The handlers keep clients and settings for the life of their process; a test is a new process."""
    for clients in (db_writer.clients, image_processor.clients):
        clients.client.cache_clear()
        clients.session.cache_clear()
    processor.deployment.cache_clear()
    writer.deployment.cache_clear()


@contextmanager
def world(monkeypatch: pytest.MonkeyPatch, *, versioned: bool = True) -> Iterator[World]:
    with mock_aws():
        forget_clients()
        session = botocore.session.get_session()
        s3, sqs, dynamodb = (session.create_client(name, region_name="us-east-1") for name in ("s3", "sqs", "dynamodb"))
        for bucket in (UPLOADS, THUMBNAILS):
            s3.create_bucket(Bucket=bucket)
        if versioned:
            s3.put_bucket_versioning(Bucket=UPLOADS, VersioningConfiguration={"Status": "Enabled"})
        names = ("metadata", "metadata-dlq", "image-dlq")
        queues = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in names}
        create_table(dynamodb)
        monkeypatch.setenv("THUMBNAIL_BUCKET", THUMBNAILS)
        monkeypatch.setenv("METADATA_QUEUE", queues["metadata"])
        monkeypatch.setenv("IMAGE_DLQ", queues["image-dlq"])
        monkeypatch.setenv("METADATA_DLQ", queues["metadata-dlq"])
        monkeypatch.setenv("DYNAMODB_TABLE", TABLE)
        monkeypatch.setenv("THUMBNAIL_SIZE", "100")
        monkeypatch.setenv("PROCESSOR_VERSION", "test")
        yield World(s3, sqs, dynamodb, queues)
        forget_clients()


def create_table(dynamodb: Any) -> None:
    keys = {
        "UploadDateIndex": ("uploadDay", "uploadDate"),
        "FormatIndex": ("formatMonth", "uploadDate"),
        "StatusIndex": ("attention", "updatedAt"),
    }
    names = {"imageId", *(name for pair in keys.values() for name in pair)}
    dynamodb.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "imageId", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in sorted(names)],
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": [
                    {"AttributeName": first, "KeyType": "HASH"},
                    {"AttributeName": second, "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
            for index, (first, second) in keys.items()
        ],
    )
