"""Opening and decoding with Pillow, safely: by an allow-list, one plugin at a time, every fault with a code.

`Image.open` would load five plugins before it looks at the first byte, and can be led to any of forty. Here the first
bytes choose the one plugin that is imported and asked.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from PIL import Image, ImageFile

from image_processor.text import clean
from pipeline_contract.failures import FailureCode, PipelineError
from pipeline_contract.kinds import sniff

# A damaged image is an error, never half a picture.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Admission knows the real limits (see admission.py), and asks before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_PLUGINS = {
    "JPEG": "PIL.JpegImagePlugin",
    "PNG": "PIL.PngImagePlugin",
    "WEBP": "PIL.WebPImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "TIFF": "PIL.TiffImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "AVIF": "PIL.AvifImagePlugin",
    "HEIF": "pillow_heif.HeifImagePlugin",
}

# Images that are none of ours, so that their owner reads "unsupported" and not "no image".
_UNSUPPORTED = (
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"icns", "ICNS"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x8aMNG\r\n", "MNG"),
    (b"IIRO", "Olympus raw"),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    *((f"P{digit}".encode(), "PNM") for digit in "1234567"),
)


def identify(data: bytes) -> str:
    """The format that the first bytes show: a key of `kinds.MIME_TYPES`.

    EMPTY_OBJECT, UNSUPPORTED_FORMAT for an image of another kind, NOT_AN_IMAGE for anything else.
    """
    if not data:
        raise PipelineError(FailureCode.EMPTY_OBJECT, "the object has no bytes")
    found = sniff(data[:64])
    if found is not None:
        return found
    for magic, name in _UNSUPPORTED:
        if data.startswith(magic):
            raise PipelineError(FailureCode.UNSUPPORTED_FORMAT, f"the object is a {name} file")
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace")
        raise PipelineError(FailureCode.UNSUPPORTED_FORMAT, f"the object is an ISO media file of brand {brand!r}")
    raise PipelineError(FailureCode.NOT_AN_IMAGE, "the first bytes are those of no image format")


def open_image(data: bytes, image_format: str) -> Image.Image:
    """The image with its header read and nothing decoded, except that a WebP's canvas is allocated."""
    try:
        importlib.import_module(_PLUGINS[image_format])
    except ImportError as error:
        if image_format != "HEIF":
            raise
        raise PipelineError(
            FailureCode.UNSUPPORTED_FORMAT,
            "HEIC is decoded only where the function was built with it (imgpipe build --heic)",
        ) from error
    factory, accept = Image.OPEN[image_format]
    with decoding(data, image_format):
        accepted = accept is None or accept(data[:16])
        if accepted is not True:
            raise SyntaxError(accepted or f"not a {image_format} after all")
        return factory(BytesIO(data), "")


@contextmanager
def decoding(data: bytes, image_format: str) -> Iterator[None]:
    """Around calls into a decoder: whatever it raises on hostile bytes becomes TRUNCATED, CORRUPT or MEMORY_BUDGET."""
    try:
        yield
    except PipelineError:
        raise
    except MemoryError as error:
        raise PipelineError(FailureCode.MEMORY_BUDGET, "decoding ran out of memory") from error
    except Exception as error:
        reason = clean(str(error)) or type(error).__name__
        raise PipelineError(_code(data, image_format, reason.lower()), f"{image_format}: {reason}") from error


def _code(data: bytes, image_format: str, reason: str) -> FailureCode:
    if "truncated" in reason or _ends_early(data, image_format):
        return FailureCode.TRUNCATED
    if "unsupported" in reason or "unknown pixel mode" in reason or "unknown compression" in reason:
        return FailureCode.UNSUPPORTED_FORMAT
    return FailureCode.CORRUPT


def _ends_early(data: bytes, image_format: str) -> bool:
    """Whether a file that does not decode lacks its end."""
    match image_format:
        case "JPEG":
            return b"\xff\xd9" not in data[-4096:]
        case "PNG":
            return b"IEND" not in data[-4096:]
        case "GIF":
            return not data.rstrip(b"\0").endswith(b";")
        case "WEBP":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
        case "AVIF" | "HEIF":
            return _boxes_end(data) > len(data)
    return False


def _boxes_end(data: bytes) -> int:
    """Where the last top-level box of an ISO media file says that it ends."""
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < 8:  # 0: to the end of the file; 2 to 7: no size at all
            return len(data)
        position += size
    return max(len(data), position)
