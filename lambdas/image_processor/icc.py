"""What an ICC profile calls itself, and the way from it to sRGB (ICC.1:2022, sections 7, 9 and 10)."""

import functools
import struct
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from image_processor.text import clean

if TYPE_CHECKING:
    from PIL import ImageCms

MAX_PROFILE_BYTES = 8 * 1024 * 1024  # press profiles have 2 MB
_MAX_TAGS = 200
# Measured for CMYK: the table takes as long as 100,000 pixels.
_WORTH_A_TABLE = 100_000
# By the modes that colour spaces of profiles go with.
_SPACES = {b"RGB ": ("RGB", "RGBA", "RGBX"), b"CMYK": ("CMYK",), b"GRAY": ("L", "LA"), b"Lab ": ("LAB",)}


def profile_name(profile: bytes) -> str | None:
    """The description tag, cleaned; None where there is none that can be read."""
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        for index in range(min(count, _MAX_TAGS)):
            signature, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
            if signature == b"desc":
                return clean(_description(profile[offset : offset + size]))
    except struct.error:
        return None
    return None


def _description(tag: bytes) -> str:
    """textDescriptionType (version 2) or the first record of multiLocalizedUnicodeType (version 4)."""
    if tag[:4] == b"desc":
        (length,) = struct.unpack_from(">I", tag, 8)
        return tag[12 : 12 + length].decode("latin-1")
    if tag[:4] == b"mluc":
        length, offset = struct.unpack_from(">II", tag, 20)
        return tag[offset : offset + length].decode("utf-16-be", "ignore")
    return ""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The image in sRGB, its alpha untouched. None where nothing is to be done, or the profile is of no use for it."""
    if image.mode not in _SPACES.get(profile[16:20], ()) or len(profile) > MAX_PROFILE_BYTES:
        return None
    if (profile_name(profile) or "").lower().startswith("srgb"):
        return None
    grey = image.mode in ("L", "LA")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    plain = {"LA": "L", "RGBA": "RGB", "RGBX": "RGB"}.get(image.mode, image.mode)
    table = image.mode != "CMYK" or image.width * image.height > _WORTH_A_TABLE
    transform = _transform(profile, plain, table)
    if transform is None:
        return None
    converted = transform.apply(image.convert(plain))
    if grey:
        converted = converted.convert("L")
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


# A camera's profile comes again with the next photograph, and the way from it to sRGB costs more than going it.
@functools.lru_cache(maxsize=4)
def _transform(profile: bytes, mode: str, table: bool) -> "ImageCms.ImageCmsTransform | None":
    """None where the profile is damaged. Without `table` each pixel is computed, instead of first a table of them."""
    from PIL import ImageCms  # few images need it

    flags = ImageCms.Flags.NONE if table else ImageCms.Flags.NOOPTIMIZE
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        return ImageCms.ImageCmsTransform(source, target, mode, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
