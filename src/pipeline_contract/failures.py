"""Why an image failed: the closed list of codes, what class each belongs to, and what to do about it."""

import re
from enum import StrEnum


class FailureClass(StrEnum):
    """What the platform does with a failure: nothing more, try again, or wait for the operator."""

    PERMANENT = "PERMANENT"
    TRANSIENT = "TRANSIENT"
    CONFIG = "CONFIG"


class Stage(StrEnum):
    """The handler in which a failure happened."""

    IMAGE_PROCESSOR = "image_processor"
    DB_WRITER = "db_writer"


class FailureCode(StrEnum):
    """The reason of a failure. Its class and hint hang on it, so they cannot disagree with it."""

    EMPTY_OBJECT = "EMPTY_OBJECT"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    CORRUPT = "CORRUPT"
    TRUNCATED = "TRUNCATED"
    PIXEL_LIMIT = "PIXEL_LIMIT"
    BYTE_LIMIT = "BYTE_LIMIT"
    MEMORY_BUDGET = "MEMORY_BUDGET"
    FRAME_LIMIT = "FRAME_LIMIT"
    MESSAGE_MALFORMED = "MESSAGE_MALFORMED"
    SCHEMA_UNSUPPORTED = "SCHEMA_UNSUPPORTED"
    ITEM_TOO_LARGE = "ITEM_TOO_LARGE"
    THROTTLED = "THROTTLED"
    SERVICE_ERROR = "SERVICE_ERROR"
    NETWORK = "NETWORK"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    UNEXPECTED = "UNEXPECTED"
    ACCESS_DENIED = "ACCESS_DENIED"
    KMS_DENIED = "KMS_DENIED"
    NO_SUCH_BUCKET = "NO_SUCH_BUCKET"
    TABLE_MISSING = "TABLE_MISSING"
    QUEUE_MISSING = "QUEUE_MISSING"
    IMPORT_ERROR = "IMPORT_ERROR"

    @property
    def failure_class(self) -> FailureClass:
        return _CLASS[self]

    @property
    def hint(self) -> str:
        """What an operator does next, in one sentence."""
        return _HINT[self]


_HINT = {
    FailureCode.EMPTY_OBJECT: "Upload the file again; the object has no bytes.",
    FailureCode.NOT_AN_IMAGE: "The object claims to be an image and is not; remove it or upload the real file.",
    FailureCode.UNSUPPORTED_FORMAT: "Convert the image to JPEG, PNG, WebP, GIF, TIFF, BMP or AVIF and upload it again.",
    FailureCode.CORRUPT: "The image data is damaged; upload an intact copy.",
    FailureCode.TRUNCATED: "The image ends early; upload the whole file again.",
    FailureCode.PIXEL_LIMIT: "Shrink the image, or raise the pixel limit of the deployment and redrive with --force.",
    FailureCode.BYTE_LIMIT: "Shrink the file, or raise the byte limit of the deployment and redrive with --force.",
    FailureCode.MEMORY_BUDGET: "Decoding needs more memory than the function has; raise it and redrive with --force.",
    FailureCode.FRAME_LIMIT: "The animation has too many frames, or the JPEG too many scans; re-encode it.",
    FailureCode.MESSAGE_MALFORMED: "Nothing in the pipeline sends such a message; see its original and archive it.",
    FailureCode.SCHEMA_UNSUPPORTED: "Deploy the same release of both functions, then redrive with --force.",
    FailureCode.ITEM_TOO_LARGE: "The metadata does not fit a DynamoDB item (400 KB); strip the image's metadata.",
    FailureCode.THROTTLED: "AWS was asked too often; redrive.",
    FailureCode.SERVICE_ERROR: "AWS answered with an error of its own; redrive.",
    FailureCode.NETWORK: "The network failed; redrive.",
    FailureCode.TIMEOUT: "The function ran out of time; redrive, or raise its timeout.",
    FailureCode.OUT_OF_MEMORY: "The function ran out of memory; raise its memory, then redrive.",
    FailureCode.UNEXPECTED: "The function failed in a way it does not know; see its log, then redrive.",
    FailureCode.ACCESS_DENIED: "A policy lacks a permission; mend it (imgpipe doctor), then redrive.",
    FailureCode.KMS_DENIED: "The function may not use the key; mend the key policy, then redrive.",
    FailureCode.NO_SUCH_BUCKET: "A bucket is gone; deploy again, then redrive.",
    FailureCode.TABLE_MISSING: "The table is gone; deploy again, then redrive.",
    FailureCode.QUEUE_MISSING: "A queue is gone; deploy again, then redrive.",
    FailureCode.IMPORT_ERROR: "The function's zip lacks a module; build and deploy again, then redrive.",
}

_TRANSIENT = frozenset(
    {
        FailureCode.THROTTLED,
        FailureCode.SERVICE_ERROR,
        FailureCode.NETWORK,
        FailureCode.TIMEOUT,
        FailureCode.OUT_OF_MEMORY,
        FailureCode.UNEXPECTED,
    }
)
_CONFIG = frozenset(
    {
        FailureCode.ACCESS_DENIED,
        FailureCode.KMS_DENIED,
        FailureCode.NO_SUCH_BUCKET,
        FailureCode.TABLE_MISSING,
        FailureCode.QUEUE_MISSING,
        FailureCode.IMPORT_ERROR,
    }
)
_CLASS = {
    code: FailureClass.TRANSIENT
    if code in _TRANSIENT
    else FailureClass.CONFIG
    if code in _CONFIG
    else FailureClass.PERMANENT
    for code in FailureCode
}


class PipelineError(Exception):
    """A failure whose reason is known.

    Its text is `CODE: message`, because that text is all that survives of a raised exception in Lambda's
    invocation record (`responsePayload.errorMessage`); `parse_error_text` reads it back.
    """

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


_ERROR_TEXT = re.compile(r"\A([A-Z][A-Z_]*): (.*)\Z", re.DOTALL)


def parse_error_text(text: str) -> tuple[FailureCode, str] | None:
    """The code and message of a `PipelineError`'s text, or None when the text is not one."""
    match = _ERROR_TEXT.match(text)
    if match is None or match[1] not in FailureCode.__members__:
        return None
    return FailureCode(match[1]), match[2]
