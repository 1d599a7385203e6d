"""What a body in the metadata queue is: a metadata message, the original project's flat body, or a failure entry."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline_contract.codec import decode, loads_object, malformed
from pipeline_contract.events import Source
from pipeline_contract.failures import PipelineError, Stage
from pipeline_contract.messages import FAILURE_SCHEMA, FailureEntry, MetadataMessage, schema_of
from pipeline_contract.times import parse_time

_MAX_UNWRAPPING = 4  # an entry about an entry; nothing makes deeper ones


@dataclass(frozen=True, slots=True)
class FlatBody:
    """What the original project's image function sent: the item itself, with a random id and no bucket."""

    image_id: str
    original_key: str
    upload_date: str
    thumbnail_key: str | None = None
    file_name: str | None = None
    file_size: int | None = None
    file_size_k_b: float | None = None  # fileSizeKB
    width: int | None = None
    height: int | None = None
    format: str | None = None
    mode: str | None = None
    processing_date: str | None = None
    thumbnail_size: int | None = None
    exif: Mapping[str, Any] | None = None
    error: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class ForeignEntryError(Exception):
    """A failure entry of the other stage: its original is an S3 record, which only the image function can take."""

    def __init__(self, image_id: str | None) -> None:
        super().__init__()
        self.image_id = image_id


def unwrapped(text: str) -> tuple[Any, int]:
    """What a body is about, out of its failure entry if it is in one, and the attempts counted so far.

    Text that is no JSON object is given back as it is. ForeignEntryError for an image_processor entry.
    """
    value: Any = text
    attempts = 0
    for _ in range(_MAX_UNWRAPPING):
        if isinstance(value, str):
            try:
                value = loads_object(value)
            except PipelineError:
                return value, attempts
        if not (isinstance(value, Mapping) and schema_of(value) == FAILURE_SCHEMA):
            return value, attempts
        try:
            entry = FailureEntry.from_object(value)
        except PipelineError:
            return value, attempts
        if entry.stage is not Stage.DB_WRITER:
            raise ForeignEntryError(entry.image_id)
        attempts += max(0, entry.attempts)
        value = entry.original
    return value, attempts


def read_body(original: Any) -> MetadataMessage | FlatBody:
    """What an unwrapped body asks for; MESSAGE_MALFORMED or SCHEMA_UNSUPPORTED when it is nothing known."""
    value = loads_object(original) if isinstance(original, str) else original
    if not isinstance(value, Mapping):
        raise malformed("not a JSON object")
    if "schema" in value or "op" in value:
        return MetadataMessage.from_object(value)
    return decode(FlatBody, value)


def source_of(original: Any) -> Source | None:
    """The source that a body names although the body as a whole cannot be used."""
    try:
        value = loads_object(original) if isinstance(original, str) else original
        return decode(Source, value["source"]) if isinstance(value, Mapping) and "source" in value else None
    except PipelineError:
        return None


def naive_utc(text: str) -> str:
    """A time as the pipeline writes it; the original project's times have no offset and are UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise malformed(f"not an ISO 8601 time: {text!r:.60}") from error
    return parse_time((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat())
