"""Thumbnails: what the table says of them, joined with what lies in the buckets.

Joins stay cheap: a short list asks the bucket for each thumbnail (HEAD, side by side), a long one lists the bucket
(a thousand keys a call); what is missing or stale is found from the listings of both buckets alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline_contract.identity import THUMBNAIL_PREFIX, image_id, thumbnail_prefix
from pipeline_contract.item import KEY
from pipeline_contract.kinds import claims_to_be_image

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HEADS_AT_ONCE = 16
JOINED_AT_ONCE = 100
_NAME = re.compile(rf"{THUMBNAIL_PREFIX}([0-9a-f-]{{36}})(?:_(\d+))?\.(\w+)")


@dataclass(frozen=True, slots=True)
class Stored:
    """A thumbnail in the bucket. `pixels` None is the primary size."""

    thumbnail_key: str
    image_id: str
    pixels: int | None
    bytes: int
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class Row:
    """An image and its primary thumbnail. `present` tells whether the bucket holds it; sizes in pixels and bytes."""

    key: str | None
    image_id: str
    thumbnail_key: str | None
    width: int | None
    height: int | None
    bytes: int | None
    present: bool
    upload_date: str | None


@dataclass(frozen=True, slots=True)
class Gap:
    """An image in the upload bucket whose thumbnail is missing, or older than the image."""

    key: str
    image_id: str
    uploaded: datetime
    thumbnail_key: str | None
    thumbnail_made: datetime | None


def join(s3: "S3Client", bucket: str, items: Iterable[Mapping[str, Any]], *, long: bool) -> Iterator[Row]:
    """Items of the table with their thumbnails. `long`: list the bucket once instead of asking for each."""
    listed = {one.thumbnail_key: one for one in stored(s3, bucket)} if long else None
    with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
        remaining = iter(items)
        while chunk := list(islice(remaining, JOINED_AT_ONCE)):
            keys = [item.get("thumbnailKey") for item in chunk]
            found: Iterable[Stored | None]
            if listed is not None:
                found = [listed.get(str(key)) for key in keys]
            else:
                found = pool.map(lambda key: head(s3, bucket, key), keys)
            yield from map(_row, chunk, found)


def stored(s3: "S3Client", bucket: str, prefix: str = THUMBNAIL_PREFIX) -> Iterator[Stored]:
    """The thumbnails in the bucket, by key."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", []):
            if (one := stored_of(entry)) is not None:
                yield one


def stored_of(entry: Mapping[str, Any]) -> Stored | None:
    """An entry of the bucket's listing; None when it is not named like a thumbnail."""
    match = _NAME.fullmatch(entry["Key"])
    if match is None:
        return None
    pixels = int(match[2]) if match[2] else None
    return Stored(entry["Key"], match[1], pixels, entry["Size"], entry["LastModified"])


def of_image(s3: "S3Client", bucket: str, image: str) -> list[Stored]:
    """The thumbnails of one image, the primary one first."""
    return sorted(stored(s3, bucket, thumbnail_prefix(image)), key=lambda one: (one.pixels is not None, one.pixels))


def head(s3: "S3Client", bucket: str, key: str | None) -> Stored | None:
    """One thumbnail by its key; None when the bucket has none."""
    from botocore.exceptions import ClientError

    match = _NAME.fullmatch(key or "")
    if key is None or match is None:
        return None
    try:
        answer = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound"):
            return None
        raise
    pixels = int(match[2]) if match[2] else None
    return Stored(key, match[1], pixels, answer["ContentLength"], answer["LastModified"])


def gaps(s3: "S3Client", upload_bucket: str, thumbnail_bucket: str, *, missing: bool, stale: bool) -> Iterator[Gap]:
    """Images without a thumbnail, or with one that is older than they are, from two listings."""
    made = {one.image_id: one for one in stored(s3, thumbnail_bucket) if one.pixels is None}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=upload_bucket):
        for entry in page.get("Contents", []):
            key = entry["Key"]
            if not claims_to_be_image(key, None):
                continue
            image = image_id(upload_bucket, key)
            thumbnail = made.get(image)
            if thumbnail is None:
                if missing:
                    yield Gap(key, image, entry["LastModified"], None, None)
            elif stale and thumbnail.last_modified < entry["LastModified"]:
                yield Gap(key, image, entry["LastModified"], thumbnail.thumbnail_key, thumbnail.last_modified)


def _row(item: Mapping[str, Any], found: Stored | None) -> Row:
    key = item.get("thumbnailKey")
    described: Mapping[str, Any] = next((one for one in item.get("thumbnails") or () if one.get("key") == key), {})
    return Row(
        key=item.get("originalKey"),
        image_id=item[KEY],
        thumbnail_key=key,
        width=described.get("width"),
        height=described.get("height"),
        bytes=found.bytes if found else None,
        present=found is not None,
        upload_date=item.get("uploadDate"),
    )


def fetch(s3: "S3Client", bucket: str, key: str) -> bytes:
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def file_name(image_key: str | None, thumbnail: Stored) -> str:
    """What a thumbnail is called on disk: after the last part of its image's key, never a path."""
    last = (image_key or thumbnail.image_id).replace("\\", "/").rsplit("/", 1)[-1]
    stem = re.sub(r"[\x00-\x1f\x7f]", "_", last).lstrip(".") or thumbnail.image_id
    size = f"_{thumbnail.pixels}" if thumbnail.pixels else ""
    return f"{stem}.thumb{size}.{thumbnail.thumbnail_key.rsplit('.', 1)[-1]}"
