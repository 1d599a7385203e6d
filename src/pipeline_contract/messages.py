"""The two messages of the pipeline: metadata (image_processor to db_writer) and failure (either to its DLQ)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline_contract.codec import MAX_MESSAGE_BYTES, decode, dumps, encode, loads_object, malformed
from pipeline_contract.events import Source
from pipeline_contract.failures import FailureClass, FailureCode, PipelineError, Stage

METADATA_SCHEMA = "imgpipe.metadata/1"
FAILURE_SCHEMA = "imgpipe.failure/1"
MAX_ERROR_MESSAGE = 500
REDRIVES = "imgpipeRedrives"  # how often a message was redriven: field of an S3 record, attribute of an SQS message


class Op(StrEnum):
    """What the writer does: put the item, put a tombstone, or put a FAILED item."""

    UPSERT = "upsert"
    DELETE = "delete"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image. Widths and heights in pixels, `file_size` in bytes.

    `width` and `height` are as displayed, after orientation; `stored_*` as in the file.
    """

    file_size: int
    format: str
    mime_type: str
    mode: str
    width: int
    height: int
    stored_width: int
    stored_height: int
    orientation: int
    content_sha256: str
    has_alpha: bool
    frame_count: int
    is_progressive: bool
    is_animated: bool = False
    bit_depth: int | None = None
    dpi: float | None = None
    duration_ms: float | None = None
    icc_profile: str | None = None
    megapixels: float | None = None
    declared_content_type: str | None = None
    type_mismatch: bool = False


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One stored thumbnail; `pixels` is the side of the square box that it was fitted into."""

    key: str
    width: int
    height: int
    format: str
    bytes: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Error:
    class_: FailureClass
    code: FailureCode
    message: str

    @classmethod
    def of(cls, error: PipelineError) -> "Error":
        return cls(error.code.failure_class, error.code, error.message[:MAX_ERROR_MESSAGE])


@dataclass(frozen=True, slots=True)
class Trace:
    """Which run of the processor wrote a message."""

    request_id: str
    processor_version: str
    attempt: int = 1
    processing_date: str | None = None


@dataclass(frozen=True, slots=True)
class MetadataMessage:
    """What the processor found out about one event. `image` with op upsert, `error` with op fail.

    `observed_at` is the moment just before the processor looked at the source: it orders what has no sequencer.
    `uploaded_at` is when the object that it found was uploaded, where that was not the event's own doing (an older
    version is current again, a listing was replayed).
    """

    op: Op
    source: Source
    trace: Trace
    image: ImageFacts | None = None
    exif: Mapping[str, Any] = field(default_factory=dict)
    thumbnails: tuple[Thumbnail, ...] = ()
    error: Error | None = None
    reprocess: bool = False
    observed_at: str | None = None
    uploaded_at: str | None = None

    @property
    def image_id(self) -> str:
        return self.source.image_id

    def to_json(self) -> str:
        """The body of the SQS message. ITEM_TOO_LARGE beyond 256 KB, MESSAGE_MALFORMED for numbers JSON lacks."""
        body = {"schema": METADATA_SCHEMA, "imageId": self.image_id, **encode(self)}
        return _bounded(body)

    @classmethod
    def from_json(cls, body: str) -> "MetadataMessage":
        return cls.from_object(loads_object(body))

    @classmethod
    def from_object(cls, value: Mapping[str, Any]) -> "MetadataMessage":
        """SCHEMA_UNSUPPORTED for another schema, MESSAGE_MALFORMED for anything that contradicts this one."""
        rest = _without_schema(value, METADATA_SCHEMA)
        claimed = rest.pop("imageId", None)
        message = decode(cls, rest)
        if claimed != message.image_id:
            raise malformed("imageId is not the id of source.bucket and source.key")
        if (message.op is Op.UPSERT) != (message.image is not None):
            raise malformed(f"image does not go with op {message.op}")
        if (message.op is Op.FAIL) != (message.error is not None):
            raise malformed(f"error does not go with op {message.op}")
        return message


@dataclass(frozen=True, slots=True)
class FailureEntry:
    """A failure with everything that a repair needs. `original` is the S3 record or the metadata body, as it came."""

    stage: Stage
    class_: FailureClass
    code: FailureCode
    message: str
    failed_at: str
    attempts: int
    original: Any
    source: Source | None = None
    image_id: str | None = None
    request_id: str | None = None
    hint: str | None = None
    original_truncated: bool = False

    def to_json(self) -> str:
        """The body of the SQS message; an `original` with which it would not fit is cut, as text."""
        body = {"schema": FAILURE_SCHEMA, **encode(self)}
        try:
            return _bounded(body)
        except PipelineError:
            raw = self.original if isinstance(self.original, str) else repr(self.original)
            # A sixteenth: JSON may write a character as twelve (a surrogate pair, escaped), and there are other fields.
            return _bounded({**body, "original": raw[: MAX_MESSAGE_BYTES // 16], "originalTruncated": True})

    @classmethod
    def from_json(cls, body: str) -> "FailureEntry":
        return cls.from_object(loads_object(body))

    @classmethod
    def from_object(cls, value: Mapping[str, Any]) -> "FailureEntry":
        return decode(cls, _without_schema(value, FAILURE_SCHEMA))


def schema_of(value: Mapping[str, Any]) -> str | None:
    """The schema a body names, None when it names none (the original project's flat body, an invocation record)."""
    schema = value.get("schema")
    return schema if isinstance(schema, str) else None


def _without_schema(value: Mapping[str, Any], expected: str) -> dict[str, Any]:
    rest = dict(value)
    schema = rest.pop("schema", None)
    if schema != expected:
        raise PipelineError(FailureCode.SCHEMA_UNSUPPORTED, f"schema is {schema!r:.60}, not {expected}")
    return rest


def _bounded(body: Mapping[str, Any]) -> str:
    try:
        text = dumps(body)
    except (TypeError, ValueError) as error:
        raise malformed(f"cannot be JSON: {error}") from error
    if len(text) > MAX_MESSAGE_BYTES:  # ASCII only: characters are bytes
        raise PipelineError(FailureCode.ITEM_TOO_LARGE, f"the message has {len(text)} bytes, over {MAX_MESSAGE_BYTES}")
    return text
