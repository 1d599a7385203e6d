"""From the bytes of an image to its thumbnails and what there is to know about it. Pure: bytes in, bytes out.

One open and one decode, of as few pixels as the largest thumbnail needs; orientation, colour and alpha are seen to at
thumbnail size, where they cost nothing.
"""

import hashlib
import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image, ImageFile, _imaging

from image_processor import colour, facts
from image_processor.admission import MAX_GAP, admit_bytes, admit_image, admit_scans
from image_processor.decoders import decoding, identify, open_image
from image_processor.exif import orientation, read_exif
from image_processor.progressive import without_unseen_scans
from image_processor.settings import MEBIBYTE, ImageSettings, ThumbnailFormat
from pipeline_contract.kinds import MIME_TYPES
from pipeline_contract.messages import ImageFacts

JPEG_QUALITY = 85
OPTIMIZED_SIDE = 400  # beyond, fitted Huffman tables take 7 % of all time for 1 to 3 % of the bytes
WEBP_QUALITY = 80
WEBP_METHOD = 2  # less than half the time of the default 4, for 3 % more bytes

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _keep_large_blocks() -> None:
    """Have malloc keep the memory of one image for the next.

    glibc gives each large block back to the kernel, which hands out the next one page by page and zeroed: as much work
    as decoding a progressive JPEG into it. It stops doing so for blocks up to the size of the largest that it has seen
    come and go, of at most 32 MiB, and keeps at most twice that (malloc.c, "dynamic mmap threshold"). So one goes,
    untouched, before there is an image.
    """
    bytes(32 * MEBIBYTE - 2**16)


_keep_large_blocks()

_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class RenderedThumbnail:
    """`pixels` is the side of the box it was fitted into; the primary one is of THUMBNAIL_SIZE."""

    pixels: int
    primary: bool
    width: int
    height: int
    format: str
    extension: str
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Rendered:
    facts: ImageFacts
    exif: Mapping[str, Any]
    thumbnails: tuple[RenderedThumbnail, ...]
    decode_ms: float


@dataclass(frozen=True, slots=True)
class _Decoded:
    """`box` is the part of `image` that is picture: a JPEG shrunk by 8 may end in a fraction of a pixel.

    `values` are its black and white, where they are not 0 and 255.
    """

    image: Image.Image
    box: _Box | None = None
    values: tuple[float, float] | None = None


def render(data: bytes, declared_content_type: str | None, settings: ImageSettings) -> Rendered:
    """Thumbnails and facts of an image; PipelineError with a permanent code where there can be none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow thinks of a stranger's EXIF would only fill the log
        return _render(data, declared_content_type, settings)


def _render(data: bytes, declared_content_type: str | None, settings: ImageSettings) -> Rendered:
    image_format = identify(data)
    admit_bytes(data, image_format, settings)
    image = open_image(data, image_format)
    frames = admit_image(image, data, image_format, settings)
    header = facts.read_header(image, data, image_format, frames)

    sizes = (settings.thumbnail_size, *settings.extra_sizes)
    started = time.perf_counter()
    decoded = _decode(image, data, image_format, fit(image.size, max(sizes)), header.bit_depth)
    decode_ms = (time.perf_counter() - started) * 1000

    turn = header.orientation or _late_orientation(image)
    # Pillow turns a TIFF upright while it decodes it.
    transpose = None if image_format == "TIFF" else _TRANSPOSE.get(turn)
    swapped = turn >= 5
    width, height = header.size[::-1] if swapped and transpose is not None else header.size
    stored = (height, width) if swapped else (width, height)
    return Rendered(
        facts=ImageFacts(
            file_size=len(data),
            format=image_format,
            mime_type=MIME_TYPES[image_format],
            mode=header.mode,
            width=width,
            height=height,
            stored_width=stored[0],
            stored_height=stored[1],
            orientation=turn,
            content_sha256=hashlib.sha256(data).hexdigest(),
            has_alpha=header.has_alpha,
            frame_count=header.frame_count,
            is_progressive=header.is_progressive,
            is_animated=header.is_animated,
            bit_depth=header.bit_depth,
            duration_ms=header.duration_ms,
            dpi=header.dpi,
            icc_profile=header.icc_profile_name,
            megapixels=round(width * height / 1e6, 2),
            declared_content_type=facts.declared(declared_content_type),
            type_mismatch=facts.mismatch(declared_content_type, image_format),
        ),
        exif=read_exif(image.getexif(), settings.gps_policy),
        thumbnails=tuple(
            _thumbnail(decoded, fit(header.size, pixels), pixels, pixels == sizes[0], transpose, header, settings)
            for pixels in sizes
        ),
        decode_ms=decode_ms,
    )


def fit(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The size in a square box of `pixels`: never enlarged, at least 1 x 1, its aspect as near as can be."""
    width, height = size
    if width <= pixels and height <= pixels:
        return size
    if width >= height:
        return pixels, _nearest(pixels * height / width, lambda side: abs(width / height - pixels / side))
    return _nearest(pixels * width / height, lambda side: abs(width / height - side / pixels)), pixels


def _nearest(exact: float, error: Any) -> int:
    low = max(1, math.floor(exact))
    return min(low, max(1, math.ceil(exact)), key=error)


def _decode(image: Image.Image, data: bytes, image_format: str, target: tuple[int, int], bit_depth: int) -> _Decoded:
    box = None
    with decoding(data, image_format):
        if image_format == "JPEG":
            box = _shrink_on_load(image, data, target)
        if image_format == "WEBP":
            from image_processor import libwebp

            if (shrunk := libwebp.decode(data, target)) is not None:
                return _Decoded(shrunk)
        if image_format == "PNG":
            from image_processor import inflating

            image = inflating.load(image, data)
        image.load()
        filterable = colour.resizable(image)
        return _Decoded(filterable, box, colour.value_range(filterable, bit_depth))


def _shrink_on_load(image: Image.Image, data: bytes, target: tuple[int, int]) -> _Box | None:
    """Set the JPEG to be decoded at the smallest of 1/1, 1/2, 3/8, 1/4 and 1/8 that is enough for the target."""
    # Read at once: 1 % less time than in the usual 64 KB, after each of which the decoder starts a row again.
    image.decodermaxblock = len(data)  # type: ignore[attr-defined]
    gap = MAX_GAP if max(target) <= 400 else 1.1
    wanted = math.ceil(target[0] * gap), math.ceil(target[1] * gap)
    width, height = image.size
    drafted = image.draft(None, wanted)
    box = drafted[1] if drafted else None
    if box == (0, 0, width / 8, height / 8) and (shorter := without_unseen_scans(data)) is not data:
        image.fp = BytesIO(shorter)  # type: ignore[attr-defined]  # read from its start when it is loaded
        return box
    admit_scans(data)
    if box == (0, 0, width / 2, height / 2) and width * 3 / 8 >= wanted[0] and height * 3 / 8 >= wanted[1]:
        return _three_eighths(image, (width, height)) or box
    return box


def _three_eighths(image: Image.Image, stored: tuple[int, int]) -> _Box | None:
    """Set a JPEG that was drafted to 1/2 to 3/8, and the part of it that is picture; None where that cannot be.

    Of n/8, libjpeg-turbo takes the smallest that is no less than 1/denominator (jdmaster.c,
    jpeg_core_output_dimensions): a denominator of 3 gives 3/8, a size that `draft` does not offer. Decoding takes as
    long as at 1/2; there are 9/16 of the pixels to resize, which takes longer than decoding.
    """
    if not (getattr(_imaging, "HAVE_LIBJPEGTURBO", False) and isinstance(image, ImageFile.ImageFile)):
        return None
    width, height = stored
    image._size = -(-width * 3 // 8), -(-height * 3 // 8)  # as draft does it
    image.tile = [image.tile[0]._replace(extents=(0, 0, *image.size))]
    image.decoderconfig = (3, 0)
    return 0, 0, width * 3 / 8, height * 3 / 8


def _late_orientation(image: Image.Image) -> int:
    """A PNG may tell its orientation after its pixels."""
    try:
        return orientation(image.getexif())
    except Exception:  # noqa: BLE001  # as in exif.py: damaged EXIF never costs the thumbnail
        return 1


def _thumbnail(
    decoded: _Decoded,
    target: tuple[int, int],
    pixels: int,
    primary: bool,
    transpose: Image.Transpose | None,
    header: facts.Header,
    settings: ImageSettings,
) -> RenderedThumbnail:
    image = decoded.image.resize(target, Image.Resampling.LANCZOS, box=decoded.box, reducing_gap=2.0)
    image = colour.displayable(image, decoded.values, header.icc_profile)
    if transpose is not None:
        image = image.transpose(transpose)
    kind = settings.thumbnail_format
    return RenderedThumbnail(
        pixels=pixels,
        primary=primary,
        width=image.width,
        height=image.height,
        format=kind.value,
        extension=kind.extension,
        content_type=kind.content_type,
        data=_encode(image, kind),
    )


def _encode(image: Image.Image, kind: ThumbnailFormat) -> bytes:
    if kind is ThumbnailFormat.JPEG:
        image = colour.on_white(image)
        options: dict[str, Any] = {"quality": JPEG_QUALITY, "optimize": max(image.size) <= OPTIMIZED_SIDE}
    else:
        options = {"quality": WEBP_QUALITY, "method": WEBP_METHOD}
    image.info = {}  # comment, EXIF, XMP, ICC: Pillow would write some of what it read
    buffer = BytesIO()
    # By a name rather than a format, Pillow loads the one plugin that is needed, not the five usual ones.
    buffer.name = f"thumbnail.{kind.extension}"
    image.save(buffer, **options)
    return buffer.getvalue()
