"""What an operator may set about images, read from the function's environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

MEBIBYTE = 1024 * 1024
MAX_THUMBNAIL_SIZE = 1000
MAX_EXTRA_SIZE = 4096
MAX_EXTRA_SIZES = 8

# What the interpreter, boto3, Pillow and its codecs take before an image comes (about 100 MB), with some air.
_RUNTIME_MB = 160
_DEFAULT_BUDGET_MB = 300


class GpsPolicy(StrEnum):
    """How much of a photograph's location is kept: that there is one, about a kilometre, or all of it."""

    NONE = "none"
    COARSE = "coarse"
    EXACT = "exact"


class ThumbnailFormat(StrEnum):
    JPEG = "JPEG"
    WEBP = "WEBP"

    @property
    def extension(self) -> str:
        return "jpg" if self is ThumbnailFormat.JPEG else "webp"

    @property
    def content_type(self) -> str:
        return "image/jpeg" if self is ThumbnailFormat.JPEG else "image/webp"


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Sizes are sides of square boxes in pixels. `max_pixels` is about stored pixels, `memory_budget` in bytes.

    `max_frames` also bounds the pages of a TIFF.
    """

    thumbnail_size: int = 200
    extra_sizes: tuple[int, ...] = ()
    thumbnail_format: ThumbnailFormat = ThumbnailFormat.JPEG
    gps_policy: GpsPolicy = GpsPolicy.NONE
    max_pixels: int = 100_000_000
    max_bytes: int = 100 * MEBIBYTE
    max_frames: int = 5000
    memory_budget: int = _DEFAULT_BUDGET_MB * MEBIBYTE

    @property
    def largest(self) -> int:
        return max(self.thumbnail_size, *self.extra_sizes, 0)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ImageSettings":
        """ValueError, with the name of the variable, for a value that cannot be meant."""
        default = cls()
        size = _integer(environment, "THUMBNAIL_SIZE", default.thumbnail_size, 1, MAX_THUMBNAIL_SIZE)
        return cls(
            thumbnail_size=size,
            extra_sizes=_sizes(environment, "EXTRA_THUMBNAIL_SIZES", without=size),
            thumbnail_format=ThumbnailFormat(_choice(environment, "THUMBNAIL_FORMAT", ThumbnailFormat, "JPEG").upper()),
            gps_policy=GpsPolicy(_choice(environment, "GPS_POLICY", GpsPolicy, "none").lower()),
            max_pixels=_integer(environment, "MAX_PIXELS", default.max_pixels, 1, 10**10),
            max_bytes=_integer(environment, "MAX_BYTES", default.max_bytes, 1, 5 * 1024**4),
            max_frames=_integer(environment, "MAX_FRAMES", default.max_frames, 1, 10**6),
            memory_budget=_integer(environment, "MEMORY_BUDGET_MB", _budget_mb(environment), 1, 10**6) * MEBIBYTE,
        )


def _budget_mb(environment: Mapping[str, str]) -> int:
    """What decoding may take: of the memory the function has, what its runtime leaves, less a tenth."""
    memory = _integer(environment, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0, 0, 10**6)
    if memory == 0:
        return _DEFAULT_BUDGET_MB
    return max(1, (memory - _RUNTIME_MB) * 9 // 10)


def _text(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()


def _integer(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = _text(environment, name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ValueError(f"{name} is {text!r:.40}, not a whole number from {low} to {high}")
    return int(text)


def _choice(environment: Mapping[str, str], name: str, choices: type[StrEnum], default: str) -> str:
    text = _text(environment, name) or default
    if text.lower() not in {choice.lower() for choice in choices}:
        raise ValueError(f"{name} is {text!r:.40}, not one of {', '.join(choices)}")
    return text


def _sizes(environment: Mapping[str, str], name: str, without: int) -> tuple[int, ...]:
    """Distinct sizes in the order given, less the one that is made anyway."""
    parts = [part.strip() for part in _text(environment, name).split(",") if part.strip()]
    sizes = dict.fromkeys(_integer({name: part}, name, 0, 1, MAX_EXTRA_SIZE) for part in parts)
    sizes.pop(without, None)
    if len(sizes) > MAX_EXTRA_SIZES:
        raise ValueError(f"{name} names {len(sizes)} sizes, over {MAX_EXTRA_SIZES}")
    return tuple(sizes)
