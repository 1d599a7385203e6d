"""A deployment in moto, and imgpipe run against it in this process."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from boto3.dynamodb.types import TypeSerializer
from moto import mock_aws

from pipeline_cli import app
from pipeline_cli.context import Context
from pipeline_contract.identity import image_id
from pipeline_contract.item import format_month, upload_day

NOW = datetime(2026, 10, 20, 12, 0, tzinfo=UTC)
UPLOADS, THUMBNAILS, TABLE = "p-uploads", "p-thumbnails", "p-images"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Deployed:
    environ: dict[str, str]
    outputs: dict[str, str]
    now: datetime = NOW
    s3: Any = field(default_factory=lambda: boto3.client("s3"))
    sqs: Any = field(default_factory=lambda: boto3.client("sqs"))
    dynamodb: Any = field(default_factory=lambda: boto3.client("dynamodb"))
    logs: Any = field(default_factory=lambda: boto3.client("logs"))

    def run(self, *arguments: str, stdout: io.StringIO | None = None, stdin: str = "") -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command line."""
        out, err = stdout or io.StringIO(), io.StringIO()
        context = Context(
            environ=self.environ,
            stdin=io.StringIO(stdin),
            stdout=out,
            stderr=err,
            now=lambda: self.now.timestamp(),
            sleep=lambda seconds: None,
        )
        return app.run(arguments, context), out.getvalue(), err.getvalue()

    def json(self, *arguments: str) -> Any:
        """What a command prints with --output json; it has to succeed."""
        code, out, err = self.run(*arguments, "--output", "json")
        assert code == 0, err
        return json.loads(out)

    def put_item(self, key: str, *, ago: timedelta = timedelta(), shard: int = 0, **fields: Any) -> dict[str, Any]:
        """An item as db_writer makes them; fields that are None are left out."""
        date = (NOW - ago).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        name = image_id(UPLOADS, key)
        item = {
            "imageId": name,
            "originalKey": key,
            "bucket": UPLOADS,
            "status": "COMPLETED",
            "format": "JPEG",
            "formatMonth": format_month(fields.get("format") or "JPEG", date),
            "width": 4000,
            "height": 3000,
            "fileSize": 2_000_000,
            "uploadDate": date,
            "updatedAt": date,
            "uploadDay": upload_day(date, shard),
            "thumbnailKey": f"thumbnails/{name}.jpg",
            "thumbnails": [
                {"key": f"thumbnails/{name}.jpg", "width": 200, "height": 150, "bytes": 5000, "pixels": 200}
            ],
            **fields,
        }
        item = {field: value for field, value in item.items() if value is not None}
        write = TypeSerializer().serialize
        self.dynamodb.put_item(TableName=TABLE, Item={field: write(value) for field, value in item.items()})
        return item

    def put_failed(self, key: str, code: str = "CORRUPT", **fields: Any) -> dict[str, Any]:
        failed = {"status": "FAILED", "attention": "FAILED", "errorCode": code, "error": "why", "formatMonth": None}
        absent: dict[str, Any] = dict.fromkeys(("format", "width", "height", "thumbnailKey", "thumbnails"))
        return self.put_item(key, **{**absent, **failed, **fields})

    def put_thumbnail(self, item: dict[str, Any], data: bytes = b"thumbnail") -> None:
        self.s3.put_object(Bucket=THUMBNAILS, Key=item["thumbnailKey"], Body=data)


@contextmanager
def deployed(folder: Path) -> Iterator[Deployed]:
    """An empty deployment."""
    with mock_aws():
        s3, sqs, dynamodb = boto3.client("s3"), boto3.client("sqs"), boto3.client("dynamodb")
        for bucket in (UPLOADS, THUMBNAILS):
            s3.create_bucket(Bucket=bucket)
        keys = ("imageId", "uploadDay", "uploadDate", "formatMonth", "attention", "updatedAt")
        indexes = {
            "UploadDateIndex": ("uploadDay", "uploadDate"),
            "FormatIndex": ("formatMonth", "uploadDate"),
            "StatusIndex": ("attention", "updatedAt"),
        }
        dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            KeySchema=[{"AttributeName": "imageId", "KeyType": "HASH"}],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": name,
                    "KeySchema": [
                        {"AttributeName": partition, "KeyType": "HASH"},
                        {"AttributeName": order, "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }
                for name, (partition, order) in indexes.items()
            ],
        )
        urls = {name: sqs.create_queue(QueueName=f"p-{name}")["QueueUrl"] for name in ("metadata", "dlq", "image-dlq")}
        outputs = {
            "upload_bucket_name": UPLOADS,
            "thumbnail_bucket_name": THUMBNAILS,
            "metadata_queue_url": urls["metadata"],
            "dlq_url": urls["dlq"],
            "image_dlq_url": urls["image-dlq"],
            "dynamodb_table_name": TABLE,
            "image_processor_function_name": "p-image-processor",
            "db_writer_function_name": "p-db-writer",
            "aws_region": "us-east-1",
            "name_prefix": "p",
        }
        file = folder / "outputs.json"
        file.write_text(json.dumps({name: {"value": value} for name, value in outputs.items()}))
        environ = {"IMGPIPE_OUTPUTS": str(file), "IMGPIPE_HOME": str(folder / "home")}
        yield Deployed(environ, outputs)
