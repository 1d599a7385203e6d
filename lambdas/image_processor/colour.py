"""From any mode a decoder gives to what a screen shows: 8-bit grey or RGB, in sRGB, with or without alpha."""

from io import BytesIO
from typing import Any

from PIL import Image

WHITE = 255


def resizable(image: Image.Image) -> Image.Image:
    """A mode that can be filtered: palettes and bits are spread out first, because Pillow would only pick pixels."""
    if image.mode == "1":
        return image.convert("L")
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    if image.mode in ("P", "PA"):
        return image.convert("RGB")
    return image


def displayable(image: Image.Image, bit_depth: int, icc_profile: bytes | None) -> Image.Image:
    """L, LA, RGB or RGBA in sRGB. Works on few pixels: call it on the thumbnail."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = eight_bits(image, bit_depth)
    if icc_profile:
        converted = to_srgb(image, icc_profile)
        if converted is not None:
            return converted
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    return image.convert("RGB")


def eight_bits(image: Image.Image, bit_depth: int) -> Image.Image:
    """Grey of more than 8 bits as L.

    Whole numbers fill the range of their bit depth. Floats and 32-bit numbers have no agreed range: they are stretched
    to the values that occur, unless those already lie in 0..1 or 0..255.
    """
    if image.mode not in ("I", "F"):
        top = float((1 << min(max(bit_depth, 9), 16)) - 1)
        return _scaled(image.convert("I"), 0.0, top)
    extrema: Any = image.getextrema()
    low, high = float(extrema[0]), float(extrema[1])
    if image.mode == "I" and low >= 0 and high <= 0xFFFF and bit_depth <= 16:
        return _scaled(image, 0.0, 65535.0)
    if low >= 0 and high <= 1 and image.mode == "F":
        return _scaled(image, 0.0, 1.0)
    if low >= 0 and high <= 255:
        return _scaled(image, 0.0, 255.0)
    return _scaled(image, low, high)


def _scaled(image: Image.Image, low: float, high: float) -> Image.Image:
    span = high - low
    scale = 255.0 / span if span > 0 else 0.0  # also false for NaN
    offset = -low * scale if scale else 0.0
    return image.convert("F").point(lambda value: value * scale + offset).convert("L")


def to_srgb(image: Image.Image, icc_profile: bytes) -> Image.Image | None:
    """The image in sRGB, or None where the profile cannot be used for it."""
    from PIL import ImageCms

    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    grey = image.mode in ("L", "LA")
    plain = image.convert("L" if grey else "RGB") if alpha else image
    try:
        converted = ImageCms.profileToProfile(
            plain,
            ImageCms.ImageCmsProfile(BytesIO(icc_profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # damaged, or made for other channels than the image has
    if converted is None:
        return None
    if grey:
        converted = converted.convert("L")
    if alpha:
        converted.putalpha(alpha)
    return converted


def on_white(image: Image.Image) -> Image.Image:
    """Without alpha: what was transparent shows white."""
    if image.mode not in ("LA", "RGBA"):
        return image
    opaque = "L" if image.mode == "LA" else "RGB"
    ground = Image.new(opaque, image.size, WHITE if opaque == "L" else (WHITE, WHITE, WHITE))
    ground.paste(image.convert(opaque), mask=image.getchannel("A"))
    return ground
