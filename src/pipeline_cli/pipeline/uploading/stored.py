"""What lies at the destination already, so that an unchanged file need not be sent again."""

import base64
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from pipeline_cli.pipeline.uploading.preflight import MD5_OF_PARTS
from pipeline_cli.pipeline.uploading.transfers import PART_BYTES

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# Where other keys lie between ours, a batch of 1,000 keys is not looked for through more pages than this.
MAX_PAGES = 3
_CHECKSUMS = {
    "x-amz-checksum-sha256": "sha256",
    "x-amz-checksum-sha1": "sha1",
    "x-amz-checksum-crc64nvme": "crc64nvme",
    "x-amz-checksum-crc32c": "crc32c",
    "x-amz-checksum-crc32": "crc32",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """An object at the destination. `checksums` are those of its whole content, by algorithm."""

    e_tag: str  # without quotes
    size: int
    version_id: str | None = None
    last_modified: str | None = None
    checksums: Mapping[str, bytes] | None = None  # None: not asked for

    @property
    def md5(self) -> bytes | None:
        """The eTag, where it can be the content's MD5: one part, and not encrypted with a KMS key (then it is not)."""
        try:
            digest = bytes.fromhex(self.e_tag)
        except ValueError:
            return None
        return digest if len(digest) == 16 else None

    @property
    def parts(self) -> tuple[bytes, int] | None:
        """The eTag of a multipart upload: the MD5 of its parts' MD5s, and how many parts there were."""
        digest, dash, count = self.e_tag.partition("-")
        try:
            return (bytes.fromhex(digest), int(count)) if dash else None
        except ValueError:
            return None


def listed(client: "S3Client", bucket: str, keys: Sequence[str]) -> dict[str, Stored]:
    """The objects among `keys` that a few pages of the bucket's listing show: a hint that saves sending.

    What it does not show may be there all the same; a conditional request will tell.
    """
    first, last = min(keys, key=str.encode), max(keys, key=str.encode)
    prefix = "".join(a for a, b in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    wanted = set(keys)
    found: dict[str, Stored] = {}
    start_after = first[:-1]  # the longest name that is surely before the first
    for _ in range(MAX_PAGES):
        page = client.list_objects_v2(Bucket=bucket, Prefix=prefix, StartAfter=start_after, EncodingType="url")
        key = ""
        for entry in page.get("Contents", ()):
            key = unquote_plus(entry["Key"])
            if key in wanted:
                found[key] = Stored(entry["ETag"].strip('"'), entry["Size"])
        if not page.get("IsTruncated") or not key or key.encode() >= last.encode():
            break
        start_after = key
    return found


def from_headers(headers: Mapping[str, str]) -> Stored:
    """What a HEAD with x-amz-checksum-mode says of an object."""
    whole = headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT"
    checksums = {}
    for name, algorithm in _CHECKSUMS.items():
        value = headers.get(name)
        if value and whole and "-" not in value:  # "-3": a checksum of three parts' checksums
            checksums[algorithm] = base64.b64decode(value)
    return Stored(
        headers.get("etag", "").strip('"'),
        int(headers.get("content-length", "-1")),
        headers.get("x-amz-version-id"),
        headers.get("last-modified"),
        checksums,
    )


def is_same(stored: Stored, size: int, checksum: str, digest: Callable[[str], bytes]) -> bool | None:
    """Whether a local file has the content of `stored`; None when what is known of it does not tell.

    `checksum` is the local file's CRC64NVME in base64, `digest` computes others: see `preflight.Inspector.digest`.
    """
    if stored.size != size:
        return False
    parts = -(-size // PART_BYTES)  # the AWS CLI cuts as we do
    if stored.parts is not None and stored.parts[1] == parts and digest(MD5_OF_PARTS) == stored.parts[0]:
        return True
    if stored.md5 is not None and digest("md5") == stored.md5:
        return True
    if stored.checksums is None:
        return None
    for algorithm, value in stored.checksums.items():
        if algorithm in ("sha256", "sha1"):
            return digest(algorithm) == value
        if algorithm == "crc64nvme":
            return base64.b64decode(checksum) == value
        if algorithm in ("crc32c", "crc32"):
            return digest(algorithm) == value
    return False
