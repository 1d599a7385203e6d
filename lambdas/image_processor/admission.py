"""What is let through to the decoder, decided from headers alone.

The decoders cannot be stopped once they run: a WebP of 34 bytes makes Pillow ask for 2.6 GB, a JPEG of 2 MB with
20,000 scans keeps it busy for 20 seconds. Each costs microseconds to refuse.
"""

from PIL import Image

from image_processor import jpeg, webp
from image_processor.settings import MEBIBYTE, ImageSettings
from pipeline_contract.failures import FailureCode, PipelineError

# A progressive JPEG of a camera or an optimizer has about ten scans.
MAX_SCANS = 100
# A JPEG is shrunk while it is decoded: by pixel it costs a quarter of the others and less. Phones make 200 megapixels.
_JPEG_ALLOWANCE = 4

# Peak bytes per stored pixel while a thumbnail is made, over what the process has anyway: measured with Pillow 13.
# Where one format has several, the mode decides (below).
_BYTES_PER_PIXEL = {"AVIF": 9.5, "HEIF": 12.0}
# Pillow holds three and four channels in four bytes; alpha and palettes are held twice while they are converted.
_BYTES_PER_PIXEL_BY_MODE = {
    "1": 2.5, "L": 1.5, "P": 5.5, "PA": 9.0, "LA": 8.5, "La": 8.5, "RGB": 4.5, "RGBA": 8.5, "RGBX": 4.5, "RGBa": 8.5,
    "CMYK": 4.5, "YCbCr": 4.5, "LAB": 4.5, "HSV": 4.5, "I": 4.5, "F": 4.5, "I;16": 2.5, "I;16B": 2.5, "I;16L": 2.5,
}  # fmt: skip
_WORST_BYTES_PER_PIXEL = 9.0
_COEFFICIENT_BYTES = 2.0
_JPEG_BASE = 0.3


def admit_bytes(data: bytes, image_format: str, settings: ImageSettings) -> None:
    """Before the file is opened: bytes, a WebP's canvas (opening allocates it), a JPEG's scans."""
    if len(data) > settings.max_bytes:
        raise PipelineError(FailureCode.BYTE_LIMIT, f"{len(data)} bytes, over {settings.max_bytes}")
    if image_format == "WEBP" and (canvas := webp.read_header(data)) is not None:
        _admit_pixels(canvas.width, canvas.height, image_format, settings)
        _admit_memory(canvas.width, canvas.height, canvas.bytes_per_pixel(settings.largest), data, settings)
    if image_format == "JPEG":
        header = jpeg.read_header(data)
        one_scan = header is not None and not header.whole_image_buffered
        if not one_scan and jpeg.count_scans(data, MAX_SCANS) > MAX_SCANS:
            raise PipelineError(FailureCode.FRAME_LIMIT, f"the JPEG has more than {MAX_SCANS} scans")


def admit_image(image: Image.Image, data: bytes, image_format: str, settings: ImageSettings) -> None:
    """After the header was read: pixels, frames, and the memory that decoding would take."""
    width, height = image.size
    _admit_pixels(width, height, image_format, settings)
    if image_format != "WEBP":
        _admit_memory(width, height, bytes_per_pixel(image, data, image_format), data, settings)


def bytes_per_pixel(image: Image.Image, data: bytes, image_format: str) -> float:
    """Peak bytes per stored pixel that making a thumbnail takes."""
    if image_format == "JPEG":
        header = jpeg.read_header(data)
        if header is None:  # the decoder forgives more than we do: assume the worst
            return _JPEG_BASE + 4 * _COEFFICIENT_BYTES
        return _JPEG_BASE + header.whole_image_buffered * header.samples_per_pixel * _COEFFICIENT_BYTES
    fixed = _BYTES_PER_PIXEL.get(image_format)
    if fixed is not None:
        return fixed
    return _BYTES_PER_PIXEL_BY_MODE.get(image.mode, _WORST_BYTES_PER_PIXEL)


def _admit_pixels(width: int, height: int, image_format: str, settings: ImageSettings) -> None:
    limit = settings.max_pixels * (_JPEG_ALLOWANCE if image_format == "JPEG" else 1)
    if width * height > limit:
        raise PipelineError(FailureCode.PIXEL_LIMIT, f"{width} x {height} pixels, over {limit}")


def _admit_memory(width: int, height: int, per_pixel: float, data: bytes, settings: ImageSettings) -> None:
    # Twice the file: as it was fetched, and as a decoder's own copy.
    needed = width * height * per_pixel + 2 * len(data)
    if needed > settings.memory_budget:
        raise PipelineError(
            FailureCode.MEMORY_BUDGET,
            f"{width} x {height} pixels need about {needed / MEBIBYTE:.0f} MB of memory, "
            f"over {settings.memory_budget / MEBIBYTE:.0f} MB",
        )
