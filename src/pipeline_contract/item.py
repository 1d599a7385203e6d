"""The names of the `images` table: its key, indexes, states, and the index keys that dates and formats make."""

from enum import StrEnum

SCHEMA_VERSION = 1
KEY = "imageId"
UPLOAD_DATE_INDEX = "UploadDateIndex"  # uploadDay, uploadDate
FORMAT_INDEX = "FormatIndex"  # formatMonth, uploadDate
STATUS_INDEX = "StatusIndex"  # attention, updatedAt; sparse
TOMBSTONE_DAYS = 30
MAX_ITEM_BYTES = 400 * 1024  # DynamoDB, "Service, account, and table quotas"

# Every attribute that an item may have but for its key and createdAt. What a state does not set, it removes.
# fmt: off
ATTRIBUTES = frozenset({
    "asOf", "attention", "bitDepth", "bucket", "contentSha256", "declaredContentType", "dpi", "durationMs",
    "eTag", "error", "errorCode", "exif", "fileName", "fileSize", "fileSizeKB", "format", "formatMonth",
    "frameCount", "hasAlpha", "height", "iccProfile", "isAnimated", "isProgressive", "megapixels", "mimeType",
    "mode", "orientation", "originalKey", "processingDate", "processorVersion", "requestId", "schemaVersion",
    "sequencer", "status", "storedHeight", "storedWidth", "thumbnailKey", "thumbnailSize", "thumbnails", "ttl",
    "typeMismatch", "updatedAt", "uploadDate", "uploadDay", "versionId", "width",
})
# fmt: on


class Status(StrEnum):
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    DELETED = "DELETED"


def upload_day(upload_date: str, shard: int = 0) -> str:
    """The partition of UploadDateIndex: the UTC day of `2026-10-03T12:34:56.789Z`; shards after the first add `#n`."""
    day = upload_date[:10]
    return f"{day}#{shard}" if shard else day


def format_month(image_format: str, upload_date: str) -> str:
    """The partition of FormatIndex: `JPEG#2026-10`."""
    return f"{image_format}#{upload_date[:7]}"
