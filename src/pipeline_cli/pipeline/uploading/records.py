"""What an upload is told, and what it tells of each file."""

from dataclasses import dataclass, field
from enum import StrEnum

from pipeline_cli.pipeline.uploading.preflight import Limits


class Action(StrEnum):
    """What was done with a file; in a dry run, what would be done."""

    UPLOAD = "upload"
    REPLACE = "replace"
    UNCHANGED = "unchanged"
    REFUSED = "refused"  # the pipeline would refuse it, so it was not sent
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Upload:
    """What became of one file. `code` and `reason` say why it was refused or failed; `seconds` is the request's time.

    `outcome` is what the pipeline made of it, once that is known (see outcomes.py).
    """

    path: str
    key: str | None
    action: Action
    image_id: str | None = None
    size: int | None = None
    checksum: str | None = None  # as S3 writes it: "CRC64NVME:" and eight bytes in base64
    content_type: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    e_tag: str | None = None
    version_id: str | None = None
    code: str | None = None
    reason: str | None = None
    seconds: float | None = None
    sent_at: float | None = None  # S3's clock when it had stored the object: seconds since 1970
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """How to upload. `limits` None sends what the pipeline would refuse, `overwrite` what is there already."""

    limits: Limits | None = field(default_factory=Limits)
    overwrite: bool = False
    dry_run: bool = False
    concurrency: int = 64
    read_timeout: float = 60.0  # seconds without a byte moved after which a request is given up
