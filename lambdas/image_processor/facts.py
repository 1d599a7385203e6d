"""What the header of an image tells, before it is decoded."""

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image

from image_processor import icc
from image_processor.exif import orientation
from image_processor.frames import Frames
from image_processor.text import clean
from pipeline_contract.kinds import MIME_TYPES

# Other names by which a format goes in a Content-Type.
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/apng": "image/png",
    "image/x-ms-bmp": "image/bmp",
    "image/x-bmp": "image/bmp",
    "image/heif": "image/heic",
    "image/heic-sequence": "image/heic",
    "image/heif-sequence": "image/heic",
    "image/avif-sequence": "image/avif",
}
_BIT_DEPTHS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}


@dataclass(frozen=True, slots=True)
class Header:
    """What is read before decoding.

    `size` is as Pillow sees it: as stored, but for a TIFF as displayed. `orientation` None: known after decoding.
    """

    size: tuple[int, int]
    mode: str
    orientation: int | None
    has_alpha: bool
    frame_count: int
    duration_ms: float | None
    is_animated: bool
    is_progressive: bool
    bit_depth: int
    dpi: float | None
    icc_profile: bytes | None
    icc_profile_name: str | None


def read_header(image: Image.Image, data: bytes, image_format: str, frames: Frames) -> Header:
    profile = image.info.get("icc_profile") or None
    return Header(
        size=image.size,
        mode=image.mode,
        orientation=_orientation(image, image_format),
        has_alpha=image.has_transparency_data,
        frame_count=frames.count,
        duration_ms=frames.duration_ms,
        is_animated=frames.count > 1 and image_format not in ("TIFF", "HEIF"),
        is_progressive=image_format == "JPEG" and bool(image.info.get("progressive")),
        bit_depth=_bit_depth(image, data, image_format),
        dpi=_dpi(image.info.get("dpi")),
        icc_profile=profile,
        icc_profile_name=icc.profile_name(profile) if profile else None,
    )


def declared(content_type: str | None) -> str | None:
    """The Content-Type as it may be stored: without parameters, cleaned, lower case."""
    return clean((content_type or "").split(";", 1)[0].lower())


def mismatch(content_type: str | None, image_format: str) -> bool:
    """Whether a Content-Type names something else than the bytes show. An unspecific one names nothing."""
    name = declared(content_type)
    if name is None or name in ("application/octet-stream", "binary/octet-stream", "image/*"):
        return False
    return _ALIASES.get(name, name) != MIME_TYPES[image_format]


def _orientation(image: Image.Image, image_format: str) -> int | None:
    if image_format == "PNG":
        return None  # asking would decode it, a second time
    if image_format == "HEIF":
        return 1  # its decoder turns it upright by itself
    try:
        return orientation(image.getexif())
    except Exception:  # noqa: BLE001  # as in exif.py: damaged EXIF never costs the thumbnail
        return 1


def _bit_depth(image: Image.Image, data: bytes, image_format: str) -> int:
    """Bits of one channel, as stored."""
    if image_format == "PNG":
        return data[24]
    if image_format == "TIFF":
        bits: Any = image.tag_v2.get(258)  # type: ignore[attr-defined]  # BitsPerSample
        if isinstance(bits, tuple) and bits and isinstance(bits[0], int):
            return bits[0]
        return bits if isinstance(bits, int) else 1  # 1 is the default (TIFF 6.0, section 8)
    if image_format == "AVIF":
        return _avif_bit_depth(data)
    depth = image.info.get("bit_depth")  # HEIF
    return depth if isinstance(depth, int) else _BIT_DEPTHS.get(image.mode, 8)


def _avif_bit_depth(data: bytes) -> int:
    """AV1 Codec ISO Media File Format Binding, section 2.3: two flags in the third byte of av1C."""
    at = data.find(b"av1C", 0, 65536)
    flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _dpi(value: Any) -> float | None:
    if not isinstance(value, tuple) or not value:
        return None
    try:
        dpi = float(value[0])
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return round(dpi, 2) if math.isfinite(dpi) and 0 < dpi < 1e6 else None
