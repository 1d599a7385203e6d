"""From any mode a decoder gives to what a screen shows: 8-bit grey or RGB, in sRGB, with or without alpha."""

import math
from typing import Any

from PIL import Image

from image_processor import icc
from pipeline_contract.failures import FailureCode, PipelineError

WHITE = 255


_FILTERED = frozenset({"L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"})


def resizable(image: Image.Image) -> Image.Image:
    """A mode that can be filtered: palettes and bits are spread out first, because Pillow would only pick pixels.

    UNSUPPORTED_FORMAT for a mode that is none of Pillow's for files.
    """
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I;16"):
        return image.convert("I")
    if image.mode not in ("I", "F") and image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.mode in ("P", "PA"):
        return image.convert("RGB")
    if image.mode not in _FILTERED:
        raise PipelineError(FailureCode.UNSUPPORTED_FORMAT, f"the image has pixels of kind {image.mode}")
    return image


def value_range(image: Image.Image, bit_depth: int) -> tuple[float, float] | None:
    """Which values of a decoded image are black and white; None for the usual 0 and 255.

    Whole numbers of up to 16 bits fill the range of their bit depth. Floats and 32-bit numbers have no agreed range:
    it is that of the values that occur, unless those already lie in 0..1 or 0..255.
    """
    if image.mode not in ("I", "F"):
        return None
    if image.mode == "I" and bit_depth <= 16:
        return 0.0, float((1 << bit_depth) - 1)
    extrema: Any = image.getextrema()
    low, high = float(extrema[0]), float(extrema[1])
    if low >= 0 and high <= 1 and image.mode == "F":
        return 0.0, 1.0
    if low >= 0 and high <= 255:
        return 0.0, 255.0
    return low, high


def displayable(image: Image.Image, values: tuple[float, float] | None, icc_profile: bytes | None) -> Image.Image:
    """L, LA, RGB or RGBA in sRGB. Works on few pixels: call it on the thumbnail."""
    if values is not None:
        image = _scaled(image, *values)
    if icc_profile:
        converted = icc.to_srgb(image, icc_profile)
        if converted is not None:
            return converted
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    return image.convert("RGB")


def _scaled(image: Image.Image, low: float, high: float) -> Image.Image:
    span = high - low
    scale = 255.0 / span if 0 < span < math.inf else 0.0  # NaN and infinities: black
    offset = -low * scale if scale else 0.0
    return image.convert("F").point(lambda value: value * scale + offset).convert("L")


def on_white(image: Image.Image) -> Image.Image:
    """Without alpha: what was transparent shows white."""
    if image.mode not in ("LA", "RGBA"):
        return image
    opaque = "L" if image.mode == "LA" else "RGB"
    ground = Image.new(opaque, image.size, WHITE if opaque == "L" else (WHITE, WHITE, WHITE))
    ground.paste(image.convert(opaque), mask=image.getchannel("A"))
    return ground
