"""Addresses under which an object can be read without credentials, for a while."""

from typing import TYPE_CHECKING

from pipeline_cli.errors import UsageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_SECONDS = 7 * 24 * 3600  # Signature Version 4; credentials that expire end it sooner


def address(s3: "S3Client", bucket: str, key: str, seconds: float) -> str:
    """A signed address of an object; UsageError beyond seven days. Nothing is asked of S3."""
    if not 1 <= seconds <= MAX_SECONDS:
        raise UsageError("An address works between one second and seven days.", "As in --expires 2h")
    return s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=int(seconds))


def exists(s3: "S3Client", bucket: str, key: str) -> bool:
    """Whether the bucket holds an object under the key."""
    from botocore.exceptions import ClientError

    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return False
        raise
    return True
