"""Thumbnails: right side up, right colours, nothing of the original but its pixels."""

from io import BytesIO

import pytest
from PIL import Image, ImageChops, ImageStat

from image_processor.decoders import open_image
from image_processor.rendering import _decode, fit, render
from image_processor.settings import ImageSettings, ThumbnailFormat
from pipeline_contract.failures import FailureCode, PipelineError

SETTINGS = ImageSettings()


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def quarters() -> Image.Image:
    """Red, green; blue, yellow."""
    image = Image.new("RGB", (640, 480))
    image.paste("red", (0, 0, 320, 240))
    image.paste("lime", (320, 0, 640, 240))
    image.paste("blue", (0, 240, 320, 480))
    image.paste("yellow", (320, 240, 640, 480))
    return image


def named(pixel: tuple[int, int, int]) -> str:
    palette = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
    return min(palette, key=lambda name: sum((a - b) ** 2 for a, b in zip(palette[name], pixel, strict=True)))


def corners(image: Image.Image) -> list[str]:
    """Top left, top right, bottom left, bottom right."""
    rgb = image.convert("RGB")
    right, bottom = image.width - 10, image.height - 10
    return [named(rgb.getpixel(at)) for at in ((10, 10), (right, 10), (10, bottom), (right, bottom))]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("kind", list(ThumbnailFormat))
def test_every_format(image_format: str, kind: ThumbnailFormat) -> None:
    rendered = render(encoded(quarters(), image_format), None, ImageSettings(thumbnail_format=kind))
    [thumbnail] = rendered.thumbnails
    image = Image.open(BytesIO(thumbnail.data))
    assert image.format == thumbnail.format == kind
    assert image.size == (thumbnail.width, thumbnail.height) == (200, 150)
    assert corners(image) == ["red", "lime", "blue", "yellow"]
    facts = rendered.facts
    assert (facts.format, facts.width, facts.height, facts.orientation) == (image_format, 640, 480, 1)
    assert thumbnail.primary


# The corners that a viewer shows (CIPA DC-008, Orientation): where the first row and column of the stored image go.
DISPLAYED = {
    1: ["red", "lime", "blue", "yellow"],
    2: ["lime", "red", "yellow", "blue"],
    3: ["yellow", "blue", "lime", "red"],
    4: ["blue", "yellow", "red", "lime"],
    5: ["red", "blue", "lime", "yellow"],
    6: ["blue", "red", "yellow", "lime"],
    7: ["yellow", "lime", "blue", "red"],
    8: ["lime", "yellow", "red", "blue"],
}


@pytest.mark.parametrize("orientation", list(DISPLAYED))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    rendered = render(encoded(quarters(), image_format, exif=exif), None, SETTINGS)
    assert corners(Image.open(BytesIO(rendered.thumbnails[0].data))) == DISPLAYED[orientation]
    facts = rendered.facts
    assert facts.orientation == orientation
    assert (facts.stored_width, facts.stored_height) == (640, 480)
    assert (facts.width, facts.height) == ((640, 480) if orientation < 5 else (480, 640))
    assert (rendered.thumbnails[0].width, rendered.thumbnails[0].height) == fit((facts.width, facts.height), 200)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", FailureCode.EMPTY_OBJECT),
        (b"hello", FailureCode.NOT_AN_IMAGE),
        (b"%PDF-1.4", FailureCode.UNSUPPORTED_FORMAT),
        (b"\xff\xd8\xff", FailureCode.TRUNCATED),
        (b"\x89PNG\r\n\x1a\n", FailureCode.TRUNCATED),
    ],
)
def test_what_is_no_image(data: bytes, code: FailureCode) -> None:
    with pytest.raises(PipelineError) as caught:
        render(data, None, SETTINGS)
    assert caught.value.code is code


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"subsampling": 2, "progressive": True}])
@pytest.mark.parametrize("size", [(640, 480), (611, 403), (403, 613)])
def test_jpeg_decoded_at_three_eighths(mode: str, options: dict[str, object], size: tuple[int, int]) -> None:
    """It shows what a full decode shows, where it shows it."""
    noise = Image.effect_noise((24, 24), 90).resize(size, Image.Resampling.BICUBIC)
    grey = Image.merge("RGB", (noise, ImageChops.offset(noise, 40, 0), ImageChops.offset(noise, 0, 40)))
    data = encoded(grey.convert(mode), "JPEG", quality=90, **options)
    target = fit(size, 190)
    image = open_image(data, "JPEG")
    decoded = _decode(image, data, "JPEG", target, 8)
    assert decoded.image.size == (-(-size[0] * 3 // 8), -(-size[1] * 3 // 8))
    assert decoded.box == (0, 0, size[0] * 3 / 8, size[1] * 3 / 8)
    shown = decoded.image.resize(target, Image.Resampling.LANCZOS, box=decoded.box).convert("RGB")
    whole = Image.open(BytesIO(data)).convert("RGB").resize(target, Image.Resampling.LANCZOS)
    assert max(ImageStat.Stat(ImageChops.difference(shown, whole)).mean) < 3


def test_jpeg_needs_libjpeg_turbo_for_three_eighths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another libjpeg knows halves only, and would write 1/2 into the room of 3/8."""
    monkeypatch.setattr("PIL._imaging.HAVE_LIBJPEGTURBO", False)
    data = encoded(quarters(), "JPEG")
    assert _decode(open_image(data, "JPEG"), data, "JPEG", (190, 142), 8).image.size == (320, 240)
