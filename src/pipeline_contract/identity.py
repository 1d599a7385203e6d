"""What an image is called, everywhere: its id, the keys of its thumbnails, the order of its events."""

import uuid

SEQUENCER_WIDTH = 32
THUMBNAIL_PREFIX = "thumbnails/"


def image_id(bucket: str, key: str) -> str:
    """UUIDv5 (URL namespace) of `s3://<bucket>/<decoded key>`.

    A retry, an overwrite and a delete of the same key all find the same id without a look-up.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"s3://{bucket}/{key}"))


def thumbnail_key(image: str, extension: str, pixels: int | None = None) -> str:
    """The key of a thumbnail: `thumbnails/<imageId>.jpg`, a further size `thumbnails/<imageId>_<pixels>.jpg`."""
    size = "" if pixels is None else f"_{pixels}"
    return f"{THUMBNAIL_PREFIX}{image}{size}.{extension}"


def thumbnail_prefix(image: str) -> str:
    """The prefix under which every thumbnail of an image lies, and no other image's."""
    return f"{THUMBNAIL_PREFIX}{image}"


def padded_sequencer(sequencer: str) -> str:
    """A sequencer as text that sorts as S3 orders events of one key.

    S3: "right pad the shorter value with zeros, then do a lexicographical comparison" (Event message structure).
    Sequencers of different keys cannot be compared.
    """
    return sequencer.upper().ljust(SEQUENCER_WIDTH, "0")
