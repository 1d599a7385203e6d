"""Sending a small image through the whole pipeline, and taking it out again."""

import io
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline_cli.pipeline import metadata
from pipeline_cli.pipeline.thumbnails import of_image
from pipeline_cli.pipeline.watching.checks import Check, Verdict
from pipeline_contract.identity import image_id
from pipeline_contract.item import Status

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

PREFIX = "imgpipe-probe/"
PAUSE = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Places:
    upload_bucket: str
    thumbnail_bucket: str
    table: str


def probe(
    s3: "S3Client",
    dynamodb: "DynamoDBClient",
    places: Places,
    *,
    now: Callable[[], float],
    sleep: Callable[[float], None],
    timeout: float,
) -> list[Check]:
    """Uploads an image of its own, waits for item and thumbnail, removes it, and waits until both are gone.

    Whatever happens, the object and all of its versions are removed at the end.
    """
    key = f"{PREFIX}{uuid.uuid4()}.png"
    image = image_id(places.upload_bucket, key)
    checks = []

    def wait(done: Callable[[], bool]) -> float | None:
        started = now()
        while not done():
            if now() - started >= timeout:
                return None
            sleep(PAUSE)
        return now() - started

    def status() -> str | None:
        return (metadata.get(dynamodb, places.table, image) or {}).get("status")

    try:
        s3.put_object(Bucket=places.upload_bucket, Key=key, Body=_image(), ContentType="image/png")
        took = wait(lambda: status() is not None)
        if took is None:
            detail = f"no item after {timeout:.0f} s"
            return [Check("probe", Verdict.FAIL, detail, f"imgpipe trace {key}")]
        if status() != Status.COMPLETED or not of_image(s3, places.thumbnail_bucket, image):
            return [Check("probe", Verdict.FAIL, f"its item is {status()}", f"imgpipe trace {key}")]
        checks.append(Check("probe", Verdict.OK, f"an image was processed in {took:.1f} s"))
        s3.delete_object(Bucket=places.upload_bucket, Key=key)
        took = wait(lambda: status() == Status.DELETED and not of_image(s3, places.thumbnail_bucket, image))
        if took is None:
            detail = f"its deletion was not followed within {timeout:.0f} s"
            checks.append(Check("probe", Verdict.FAIL, detail, f"imgpipe trace {key}"))
        else:
            checks.append(Check("probe", Verdict.OK, f"its deletion was followed in {took:.1f} s"))
        return checks
    finally:
        _remove(s3, places.upload_bucket, key)


def _remove(s3: "S3Client", bucket: str, key: str) -> None:
    """The object, its versions and delete markers."""
    s3.delete_object(Bucket=bucket, Key=key)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=key):
        for one in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            s3.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])


def _image() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
