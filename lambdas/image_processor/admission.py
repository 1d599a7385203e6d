"""What is let through to the decoder, decided from headers alone.

The decoders cannot be stopped once they run: a WebP of 34 bytes makes Pillow ask for 2.6 GB, a JPEG of 2 MB with
20,000 scans keeps it busy for 20 seconds. Each costs microseconds to refuse.
"""

import math

from PIL import Image

from image_processor import jpeg, webp
from image_processor.frames import Frames, count_frames
from image_processor.settings import MEBIBYTE, ImageSettings
from pipeline_contract.failures import FailureCode, PipelineError

# A progressive JPEG of a camera or an optimizer has about ten scans.
MAX_SCANS = 100
# How near a JPEG shrunk while it is decoded may come to the thumbnail: nearer is faster and softer, the more so where
# the thumbnail is small (measured: below 400 pixels 1.15 times, above 1.1 times).
MAX_GAP = 1.15
# A JPEG is shrunk while it is decoded: by pixel it costs a quarter of the others and less. Phones make 200 megapixels.
_JPEG_ALLOWANCE = 4

# Peak bytes per stored pixel while a thumbnail is made, over what the process has anyway: measured with Pillow 13, and
# checked by a test. Decoders that hand out whole frames hold them two or three times.
_AVIF = 9.5
_HEIF = 9.5
_JPEG_SHRUNK = 0.3
_COEFFICIENT = 2.0
_SLACK = 0.5


def admit_bytes(data: bytes, image_format: str, settings: ImageSettings) -> None:
    """Before the file is opened: bytes, and a WebP's canvas (opening allocates it)."""
    if len(data) > settings.max_bytes:
        raise PipelineError(FailureCode.BYTE_LIMIT, f"{len(data)} bytes, over {settings.max_bytes}")
    if image_format == "WEBP" and (canvas := webp.read_header(data)) is not None:
        size = canvas.width, canvas.height
        _admit_pixels(size, image_format, settings)
        _admit_memory(size, webp_bytes_per_pixel(canvas, settings.largest), data, settings)


def admit_image(image: Image.Image, data: bytes, image_format: str, settings: ImageSettings) -> Frames:
    """After the header was read: pixels, frames, and the memory that decoding would take."""
    _admit_pixels(image.size, image_format, settings)
    if image_format != "WEBP":
        _admit_memory(image.size, bytes_per_pixel(image, data, image_format, settings.largest), data, settings)
    frames = count_frames(image, data, image_format, settings.max_frames)
    if frames.count > settings.max_frames:
        raise PipelineError(FailureCode.FRAME_LIMIT, f"more than {settings.max_frames} frames or pages")
    return frames


def admit_scans(data: bytes) -> None:
    """Before a JPEG is decoded, all of it."""
    header = jpeg.read_header(data)
    one_scan = header is not None and not header.whole_image_buffered
    if not one_scan and jpeg.count_scans(data, MAX_SCANS) > MAX_SCANS:
        raise PipelineError(FailureCode.FRAME_LIMIT, f"the JPEG has more than {MAX_SCANS} scans")


def bytes_per_pixel(image: Image.Image, data: bytes, image_format: str, largest: int) -> float:
    """Peak bytes per stored pixel that making thumbnails up to a box of `largest` takes, once the header was read."""
    match image_format:
        case "JPEG":
            return _jpeg_bytes_per_pixel(image.size, jpeg.read_header(data), largest)
        case "AVIF":
            return _AVIF + 3.0 * image.has_transparency_data
        case "HEIF":
            return _HEIF
    # As Pillow stores it, and each copy that spreading palettes and bits out and premultiplying alpha makes.
    transparent = image.has_transparency_data
    match image.mode:
        case "1":
            copies = 1.0 + 1.0
        case "L":
            copies = 1.0 + 8.0 * transparent
        case "P" | "PA":
            copies = (1.0 if image.mode == "P" else 4.0) + 4.0 + 4.0 * transparent
        case "LA" | "RGBA":
            copies = 4.0 + 4.0
        case mode if mode.startswith("I;16"):
            copies = 2.0 + 4.0
        case _:
            copies = 4.0 + 8.0 * transparent
    return copies + _SLACK


def _jpeg_bytes_per_pixel(size: tuple[int, int], header: jpeg.Header | None, largest: int) -> float:
    """The pixels that are left after shrinking, and the coefficients where the decoder must hold them all."""
    enlarged = max(size) // math.ceil(largest * MAX_GAP)
    shrunk = next((by for by in (8, 4, 2) if enlarged >= by), 1)
    pixels = _JPEG_SHRUNK + 4.0 / shrunk**2
    if header is None:  # the decoder forgives more than we do: assume the worst
        return pixels + 4 * _COEFFICIENT
    return pixels + header.whole_image_buffered * header.samples_per_pixel * _COEFFICIENT


def webp_bytes_per_pixel(header: webp.Header, largest: int) -> float:
    """Peak bytes per stored pixel that making thumbnails of a WebP up to a box of `largest` takes; measured."""
    from image_processor import libwebp

    if header.animated or libwebp.library() is None:
        return 17.0
    if header.has_alpha:
        return 13.0
    side = max(1, min(largest, header.width, header.height))
    shrunk = webp.shrinks_by((header.width, header.height), (side, side))
    return 4.5 / shrunk**2 + (4.5 if header.lossless else 0.5)


def _admit_pixels(size: tuple[int, int], image_format: str, settings: ImageSettings) -> None:
    width, height = size
    limit = settings.max_pixels * (_JPEG_ALLOWANCE if image_format == "JPEG" else 1)
    if width * height > limit:
        raise PipelineError(FailureCode.PIXEL_LIMIT, f"{width} x {height} pixels, over {limit}")


def memory_needed(size: tuple[int, int], per_pixel: float, data: bytes, settings: ImageSettings) -> float:
    """Bytes: the pixels, the file twice (as fetched, and as a decoder's own copy), and the filter's first pass."""
    width, height = size
    source, largest = max(size), settings.largest
    filtering = 4 * largest * (min(source, 4 * largest) + largest) if source > largest else 0
    return width * height * per_pixel + 2 * len(data) + filtering


def _admit_memory(size: tuple[int, int], per_pixel: float, data: bytes, settings: ImageSettings) -> None:
    needed = memory_needed(size, per_pixel, data, settings)
    if needed > settings.memory_budget:
        raise PipelineError(
            FailureCode.MEMORY_BUDGET,
            f"{size[0]} x {size[1]} pixels need about {needed / MEBIBYTE:.0f} MB of memory, "
            f"over {settings.memory_budget / MEBIBYTE:.0f} MB",
        )
