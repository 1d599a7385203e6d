"""What an operator may call an image: its key, its id, its S3 address, or the key of its thumbnail."""

import re
from dataclasses import dataclass

from pipeline_contract.identity import THUMBNAIL_PREFIX, image_id

_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_BARE_ID = re.compile(_ID)
_THUMBNAIL = re.compile(rf"{THUMBNAIL_PREFIX}({_ID})(?:_\d+)?\.\w+")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image, by id; `bucket` and `key` where the reference told them."""

    image_id: str
    bucket: str | None = None
    key: str | None = None

    @property
    def label(self) -> str:
        return self.key or self.image_id


def reference(text: str, upload_bucket: str) -> ImageReference:
    """The image that `text` means: `s3://bucket/key`, an id, `thumbnails/<id>.jpg`, else a key in the upload bucket.

    An id is computed from bucket and key, so nothing is looked up.
    """
    if match := _THUMBNAIL.fullmatch(text):
        return ImageReference(match[1])
    if _BARE_ID.fullmatch(text.lower()):
        return ImageReference(text.lower())
    bucket, key = upload_bucket, text
    if text.startswith("s3://"):
        bucket, _, key = text.removeprefix("s3://").partition("/")
    return ImageReference(image_id(bucket, key), bucket, key)
