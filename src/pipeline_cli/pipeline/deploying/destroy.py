"""Taking a deployment away: what would be lost, and emptying its buckets, which Terraform does not do."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline_cli.errors import ImgpipeError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

    from pipeline_cli.deployment import Deployment

BATCH = 1000  # S3: the most keys in one DeleteObjects
_COUNTED = 20_000  # listing more to say a number would take longer than the number is worth
_PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Loss:
    """What a resource holds. `count` of objects counts versions; with `at_least` there are more."""

    resource: str
    what: str
    count: int
    at_least: bool = False


def losses(s3: "S3Client", dynamodb: "DynamoDBClient", sqs: "SQSClient", deployment: "Deployment") -> Iterator[Loss]:
    """What is lost with a deployment; what is gone already is left out."""
    for bucket, what in (
        (deployment.upload_bucket, "object versions"),
        (deployment.thumbnail_bucket, "thumbnail versions"),
    ):
        count = 0
        for page in _pages(s3, bucket):
            count += len(page)
            if count >= _COUNTED:
                break
        yield Loss(bucket, what, count, at_least=count >= _COUNTED)
    try:
        table = dynamodb.describe_table(TableName=deployment.table)["Table"]
    except dynamodb.exceptions.ResourceNotFoundException:
        pass
    else:
        yield Loss(deployment.table, "items (as DynamoDB counted within six hours)", table["ItemCount"])
    for url in (deployment.metadata_queue_url, deployment.image_dlq_url, deployment.metadata_dlq_url):
        try:
            attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        except sqs.exceptions.QueueDoesNotExist:
            continue
        waiting = int(attributes["Attributes"]["ApproximateNumberOfMessages"])
        yield Loss(url.rpartition("/")[2], "messages", waiting)


def is_protected(dynamodb: "DynamoDBClient", table: str) -> bool:
    """Whether the table refuses to be deleted."""
    try:
        described = dynamodb.describe_table(TableName=table)["Table"]
    except dynamodb.exceptions.ResourceNotFoundException:
        return False
    return bool(described.get("DeletionProtectionEnabled"))


def stop_notifications(s3: "S3Client", bucket: str) -> None:
    """Without it, every object that is removed next would be an event, and a write into the table."""
    try:
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    except s3.exceptions.NoSuchBucket:
        return


def empty(s3: "S3Client", bucket: str, progress: Callable[[int], None] = lambda _count: None) -> int:
    """Removes every version, delete marker and unfinished upload; how many versions and markers there were.

    `progress` is told the count so far. Thousand keys a request, several requests at once. ImgpipeError when S3
    refuses one.
    """
    removed = 0
    with ThreadPoolExecutor(_PARALLEL) as pool:
        pages = _pages(s3, bucket)
        # A few pages at a time: listing runs ahead of removing, and memory stays small.
        while batch := list(islice(pages, _PARALLEL)):
            for count in pool.map(lambda keys: _delete(s3, bucket, keys), batch):
                removed += count
                progress(removed)
    _abort_uploads(s3, bucket)
    return removed


def _pages(s3: "S3Client", bucket: str) -> Iterator[list[dict[str, str]]]:
    """Keys and version ids, a page at a time; none when the bucket is not there."""
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            entries: list[Any] = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            if entries:
                yield [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]
    except s3.exceptions.NoSuchBucket:
        return


def _delete(s3: "S3Client", bucket: str, keys: list[dict[str, str]]) -> int:
    objects: Any = keys
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
    if errors := answer.get("Errors"):
        first = errors[0]
        raise ImgpipeError(
            f"S3 did not remove {len(errors)} of {len(keys)} objects of {bucket}: {first.get('Code')} "
            f"{first.get('Message')} ({first.get('Key')})",
            code="NOT_EMPTIED",
        )
    return len(keys)


def _abort_uploads(s3: "S3Client", bucket: str) -> None:
    try:
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", ()):
                s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    except s3.exceptions.NoSuchBucket:
        return
