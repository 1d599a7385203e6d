"""What is known of a file before it is sent: its checksum, its kind, and whether the pipeline would refuse it."""

import base64
import hashlib
import mimetypes
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO

from pipeline_cli.pipeline.uploading.selection import Problem
from pipeline_cli.pipeline.uploading.transfers import PART_BYTES
from pipeline_contract.failures import FailureCode
from pipeline_contract.headers import stored_size
from pipeline_contract.kinds import MIME_TYPES, claims_to_be_image, sniff

MEBIBYTE = 1024 * 1024
CHUNK = PART_BYTES
MD5_OF_PARTS = "md5 of parts"  # what S3 makes the eTag of a multipart upload of
OTHER_CONTENT_TYPE = "binary/octet-stream"  # what S3 itself assumes
# By pixel, decoding a JPEG costs a quarter of the others: the processor shrinks it while it decodes.
JPEG_PIXEL_ALLOWANCE = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What the image processor lets through: its MAX_BYTES, MAX_PIXELS, and whether it was built with HEIC."""

    max_bytes: int = 100 * MEBIBYTE
    max_pixels: int = 100_000_000
    heic: bool = False

    @classmethod
    def of(cls, outputs: Mapping[str, str]) -> "Limits":
        """The limits that a deployment's outputs document names, else the defaults."""
        default = cls()
        return cls(
            int(outputs.get("max_bytes") or default.max_bytes),
            int(outputs.get("max_pixels") or default.max_pixels),
            outputs.get("heic", "").lower() == "true",
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the image processor would say of a file."""

    code: FailureCode
    reason: str


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file as it was read: what will be sent must have this checksum, a CRC64NVME in base64 as S3 writes it."""

    size: int
    checksum: str
    content_type: str
    format: str | None
    width: int | None
    height: int | None
    refusal: Refusal | None
    stamp: tuple[int, int, int]  # inode, size, mtime in ns: another stamp, another content


class UnusableFileError(Exception):
    """The file cannot be read; `code` and `reason` say why."""

    def __init__(self, code: Problem, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Inspector:
    """Reads files once, through one buffer, however large they are."""

    def __init__(self, limits: Limits | None) -> None:
        """Without `limits` nothing is refused."""
        from awscrt.checksums import crc64nvme

        self._limits = limits
        self._crc64nvme = crc64nvme
        self._buffer = memoryview(bytearray(CHUNK))

    def inspect(self, path: str, key: str) -> Inspected:
        """UnusableFileError when it cannot be read, is no file, or changes meanwhile."""
        try:
            # NONBLOCK: a pipe would wait for its writer for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(error) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnusableFileError(Problem.NOT_A_FILE, "it is not a regular file")
            head, checksum = self._read(descriptor, status.st_size)
            return self._judge(descriptor, key, status, head, checksum)
        except OSError as error:
            raise _unusable(error) from error
        finally:
            os.close(descriptor)

    def digest(self, path: str, algorithm: str) -> bytes:
        """A digest of the file as it is now: crc32, crc32c, MD5_OF_PARTS, or one of hashlib's."""
        try:
            with open(path, "rb", buffering=0) as file:
                if algorithm == MD5_OF_PARTS:
                    return self._md5_of_parts(file)
                if algorithm in ("crc32", "crc32c"):
                    return self._crc(file, algorithm)
                digest = hashlib.new(algorithm, usedforsecurity=False)
                while count := file.readinto(self._buffer):
                    digest.update(self._buffer[:count])
        except OSError as error:
            raise _unusable(error) from error
        return digest.digest()

    def _md5_of_parts(self, file: FileIO) -> bytes:
        digests = hashlib.md5(usedforsecurity=False)
        while part := file.read(CHUNK):
            digests.update(hashlib.md5(part, usedforsecurity=False).digest())
        return digests.digest()

    def _crc(self, file: FileIO, algorithm: str) -> bytes:
        from awscrt import checksums

        update = getattr(checksums, algorithm)
        checksum = 0
        while count := file.readinto(self._buffer):
            checksum = update(self._buffer[:count], checksum)
        return checksum.to_bytes(4, "big")

    def _read(self, descriptor: int, size: int) -> tuple[bytes | memoryview, int]:
        """The file's first bytes (all of it, up to 8 MB) and the checksum of all."""
        total = os.readv(descriptor, [self._buffer])
        checksum = self._crc64nvme(self._buffer[:total])
        head: bytes | memoryview = self._buffer[:total]
        if total < size:
            head = b""  # the buffer is needed again: the header is read from the file
            while count := os.readv(descriptor, [self._buffer]):
                checksum = self._crc64nvme(self._buffer[:count], checksum)
                total += count
        if total != size:
            raise UnusableFileError(Problem.CHANGED, "it changed while it was read")
        return head, checksum

    def _judge(
        self, descriptor: int, key: str, status: os.stat_result, head: bytes | memoryview, checksum: int
    ) -> Inspected:
        def read(offset: int, size: int) -> bytes:
            if len(head) == status.st_size:
                return bytes(head[offset : offset + size])
            return os.pread(descriptor, size, offset)

        image_format = sniff(read(0, 64))
        pixels = stored_size(image_format, read) if image_format and self._limits else None
        content_type = MIME_TYPES[image_format] if image_format else guess_content_type(key)
        return Inspected(
            size=status.st_size,
            checksum=base64.b64encode(checksum.to_bytes(8, "big")).decode(),
            content_type=content_type,
            format=image_format,
            width=pixels[0] if pixels else None,
            height=pixels[1] if pixels else None,
            refusal=refusal(key, content_type, status.st_size, image_format, pixels, self._limits)
            if self._limits
            else None,
            stamp=stamp(status),
        )


def refusal(
    key: str,
    content_type: str,
    size: int,
    image_format: str | None,
    pixels: tuple[int, int] | None,
    limits: Limits,
) -> Refusal | None:
    """What the image processor would refuse a file for, as far as its header tells for certain."""
    if not claims_to_be_image(key, content_type):
        return None  # ignored, not refused
    if size == 0:
        return Refusal(FailureCode.EMPTY_OBJECT, "the file has no bytes")
    if size > limits.max_bytes:
        return Refusal(FailureCode.BYTE_LIMIT, f"{size} bytes, over {limits.max_bytes}")
    if image_format is None:
        if claims_to_be_image(key, None):
            return Refusal(FailureCode.NOT_AN_IMAGE, "its first bytes are those of no image format of the pipeline")
        return Refusal(FailureCode.UNSUPPORTED_FORMAT, f"the pipeline makes no thumbnails of {content_type}")
    if image_format == "HEIF" and not limits.heic:
        return Refusal(FailureCode.UNSUPPORTED_FORMAT, "HEIC is decoded only where the function was built with it")
    if pixels is not None:
        width, height = pixels
        allowed = limits.max_pixels * (JPEG_PIXEL_ALLOWANCE if image_format == "JPEG" else 1)
        if width * height > allowed:
            return Refusal(FailureCode.PIXEL_LIMIT, f"{width} x {height} pixels, over {allowed}")
    return None


def guess_content_type(key: str) -> str:
    """By the name, as `aws s3` does; what the name does not tell is S3's own default."""
    return mimetypes.guess_type(key, strict=False)[0] or OTHER_CONTENT_TYPE


def stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _unusable(error: OSError) -> UnusableFileError:
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return UnusableFileError(Problem.NOT_FOUND, reason)
    return UnusableFileError(Problem.UNREADABLE, reason)
