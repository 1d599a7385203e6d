"""WebP decoded at the size that is needed, by the libwebp that Pillow brings along.

Pillow decodes every WebP at full size, as an animation, through four buffers: 17 bytes for each pixel. libwebp itself
can shrink while it decodes (WebPDecoderOptions.use_scaling), row by row: less than half the time and, of a lossy file,
hardly any memory. Pillow has no way to ask for that, so its library is asked directly.

Only stills take this way, those with alpha without shrinking, since libwebp would mix in the colours of invisible
pixels. Where the library is not where Pillow's wheels have it (a distribution's Pillow, for one), `decode` returns
None, and Pillow does it. Structures and constants: src/webp/decode.h, whose ABI the library is asked to confirm.

In a module of its own, because importing ctypes takes as long as decoding a photograph.
"""

import ctypes
import functools
import sys
from ctypes import POINTER, Structure, Union, byref, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_void_p
from pathlib import Path

import PIL
from PIL import Image

from image_processor.webp import shrinks_by

# Major 2, since libwebp 0.1.99 (2012); the library refuses another major version.
_DECODER_ABI_VERSION = 0x0200
_MODE_RGBA = 1
_OK = 0
_OUT_OF_MEMORY = 1
_NOT_ENOUGH_DATA = 7


class _Features(Structure):
    _fields_ = (
        ("width", c_int),
        ("height", c_int),
        ("has_alpha", c_int),
        ("has_animation", c_int),
        ("format", c_int),
        ("pad", c_uint32 * 5),
    )


class _RgbaBuffer(Structure):
    _fields_ = (("rgba", c_void_p), ("stride", c_int), ("size", c_size_t))


class _YuvaBuffer(Structure):
    _fields_ = (
        *((plane, c_void_p) for plane in ("y", "u", "v", "a")),
        *((f"{plane}_stride", c_int) for plane in ("y", "u", "v", "a")),
        *((f"{plane}_size", c_size_t) for plane in ("y", "u", "v", "a")),
    )


class _Planes(Union):
    _fields_ = (("rgba", _RgbaBuffer), ("yuva", _YuvaBuffer))


class _Buffer(Structure):
    _fields_ = (
        ("colorspace", c_int),
        ("width", c_int),
        ("height", c_int),
        ("is_external_memory", c_int),
        ("planes", _Planes),
        ("pad", c_uint32 * 4),
        ("private_memory", c_void_p),
    )


class _Options(Structure):
    _fields_ = (
        ("bypass_filtering", c_int),
        ("no_fancy_upsampling", c_int),
        ("use_cropping", c_int),
        ("crop_left", c_int),
        ("crop_top", c_int),
        ("crop_width", c_int),
        ("crop_height", c_int),
        ("use_scaling", c_int),
        ("scaled_width", c_int),
        ("scaled_height", c_int),
        ("use_threads", c_int),
        ("dithering_strength", c_int),
        ("flip", c_int),
        ("alpha_dithering_strength", c_int),
        ("pad", c_uint32 * 5),
    )


class _Config(Structure):
    _fields_ = (("input", _Features), ("output", _Buffer), ("options", _Options))


@functools.cache
def library() -> ctypes.CDLL | None:
    """The libwebp beside Pillow, or None where there is none of this ABI."""
    package = Path(PIL.__file__).parent
    folder, pattern = {
        "linux": (package.parent / "pillow.libs", "libwebp-*.so*"),
        "darwin": (package / ".dylibs", "libwebp.*.dylib"),
    }.get(sys.platform, (package, "no such file"))
    for path in sorted(folder.glob(pattern)):
        try:
            found = ctypes.CDLL(str(path))
            found.WebPInitDecoderConfigInternal.argtypes = (POINTER(_Config), c_int)
            found.WebPGetFeaturesInternal.argtypes = (c_char_p, c_size_t, POINTER(_Features), c_int)
            found.WebPDecode.argtypes = (c_char_p, c_size_t, POINTER(_Config))
            if found.WebPInitDecoderConfigInternal(byref(_Config()), _DECODER_ABI_VERSION):
                return found
        except (OSError, AttributeError):
            continue
    return None


def decode(data: bytes, target: tuple[int, int]) -> Image.Image | None:
    """A still as RGBX or RGBA, at least twice the target where it is larger than that, by whole divisors.

    None where Pillow has to do it: an animation, or no library. OSError for data that libwebp does not take.
    """
    webp = library()
    config = _Config()
    if webp is None or not webp.WebPInitDecoderConfigInternal(byref(config), _DECODER_ABI_VERSION):
        return None
    features = config.input
    if webp.WebPGetFeaturesInternal(data, len(data), byref(features), _DECODER_ABI_VERSION) != _OK:
        return None  # Pillow says what is wrong with it
    if features.has_animation:
        return None
    divisor = 1 if features.has_alpha else shrinks_by((features.width, features.height), target)
    width, height = -(-features.width // divisor), -(-features.height // divisor)
    pixels = (c_uint8 * (4 * width * height))()
    output, options = config.output, config.options
    output.colorspace = _MODE_RGBA
    output.is_external_memory = 1
    output.planes.rgba.rgba = ctypes.addressof(pixels)
    output.planes.rgba.stride = 4 * width
    output.planes.rgba.size = 4 * width * height
    if divisor > 1:
        options.use_scaling, options.scaled_width, options.scaled_height = 1, width, height
    status = webp.WebPDecode(data, len(data), byref(config))
    if status == _OUT_OF_MEMORY:
        raise MemoryError
    if status != _OK:
        raise OSError("image file is truncated" if status == _NOT_ENOUGH_DATA else f"libwebp status {status}")
    # Shares the memory of `pixels`, and keeps it.
    mode = "RGBA" if features.has_alpha else "RGBX"
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)
