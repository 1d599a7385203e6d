"""Every kind of pixel that files hold comes out as a person would see it."""

from io import BytesIO

import pytest
from PIL import Image, ImageCms

from image_processor import icc, libwebp
from image_processor.rendering import Rendered, render
from image_processor.settings import ImageSettings, ThumbnailFormat

WEBP = ImageSettings(thumbnail_format=ThumbnailFormat.WEBP)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def seen(data: bytes, settings: ImageSettings | None = None) -> Image.Image:
    rendered = render(data, None, settings or ImageSettings())
    return Image.open(BytesIO(rendered.thumbnails[0].data))


def centre(image: Image.Image) -> tuple[int, ...]:
    pixel = image.getpixel((image.width // 2, image.height // 2))
    assert pixel is not None
    return pixel if isinstance(pixel, tuple) else (int(pixel),)


def close(first: tuple[int, ...], second: tuple[int, ...], by: int = 4) -> bool:
    return len(first) == len(second) and all(abs(a - b) <= by for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_what_is_transparent_is_white_in_a_jpeg(image_format: str) -> None:
    image = Image.new("RGBA", (400, 400), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 400, 200))
    data = encoded(image, image_format)
    jpeg = seen(data)
    assert jpeg.mode == "RGB"
    assert close(jpeg.getpixel((100, 20)), (0, 0, 254), 6)
    assert close(jpeg.getpixel((100, 180)), (255, 255, 255))
    kept = seen(data, WEBP).convert("RGBA")
    assert kept.getpixel((100, 180))[3] == 0
    assert kept.getpixel((100, 20))[3] == 255


@pytest.mark.parametrize(("mode", "transparency"), [("RGB", (255, 0, 0)), ("L", 76), ("P", 0), ("P", bytes((0, 255)))])
def test_one_transparent_colour(mode: str, transparency: object) -> None:
    image = Image.new("RGB", (400, 400), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 400, 200))
    if mode == "P":
        image = image.quantize(2)
        red = image.getpixel((200, 300))
        transparency = red if isinstance(transparency, int) else bytes(0 if n == red else 255 for n in range(2))
    data = encoded(image.convert(mode), "PNG", transparency=transparency)
    rendered = render(data, None, ImageSettings())
    assert rendered.facts.has_alpha
    jpeg = Image.open(BytesIO(rendered.thumbnails[0].data)).convert("RGB")
    assert close(jpeg.getpixel((100, 180)), (255, 255, 255))
    assert sum(jpeg.getpixel((100, 20))) < 400


def test_edges_of_what_is_transparent_take_no_colour_from_behind_it() -> None:
    """Invisible pixels may be of any colour; filtering must not let it show."""
    image = Image.new("RGBA", (1000, 1000), (0, 255, 0, 0))
    image.paste((255, 255, 255, 255), (333, 0, 1000, 1000))
    for image_format in ("PNG", "WEBP"):
        jpeg = seen(encoded(image, image_format, **({"lossless": True} if image_format == "WEBP" else {})))
        assert min(min(band) for band in jpeg.convert("RGB").getextrema()) > 240


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("shade", [0, 77, 200, 255])
def test_sixteen_bits(image_format: str, shade: int) -> None:
    image = Image.new("I;16", (400, 300), shade * 257)
    rendered = render(encoded(image, image_format), None, ImageSettings())
    assert rendered.facts.bit_depth == 16
    assert close(centre(Image.open(BytesIO(rendered.thumbnails[0].data))), (shade,), 2)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-5.0, 5.0), (1e6, 3e6)])
def test_floats(low: float, high: float) -> None:
    image = Image.new("F", (400, 300), low)
    image.paste(high, (200, 0, 400, 300))
    thumbnail = seen(encoded(image, "TIFF"))
    assert close((thumbnail.getpixel((20, 75)),), (0,), 3)
    assert close((thumbnail.getpixel((180, 75)),), (255,), 3)


def test_floats_that_are_no_numbers() -> None:
    assert seen(encoded(Image.new("F", (400, 300), float("nan")), "TIFF")).size == (200, 150)


def test_one_bit_becomes_grey_before_it_shrinks() -> None:
    """Half of the pixels black: grey from afar, not whichever pixel was met."""
    image = Image.new("1", (800, 800))
    pixels = image.load()
    assert pixels is not None
    for x in range(800):
        for y in range(x % 2, 800, 2):
            pixels[x, y] = 1
    assert close(centre(seen(encoded(image, "PNG"))), (127,), 6)


def test_cmyk_without_a_profile() -> None:
    thumbnail = seen(encoded(Image.new("CMYK", (400, 300), (0, 255, 255, 0)), "JPEG", quality=95))
    assert thumbnail.mode == "RGB"
    assert close(centre(thumbnail), (255, 0, 0), 8)


def wide_gamut() -> bytes:
    """A profile whose red is sRGB's green: what is done with it cannot be overlooked."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {profile[at : at + 4].decode(): at for at in range(132, 132 + 12 * profile[131], 12)}
    red, green = tags["rXYZ"], tags["gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    name = profile.find("sRGB".encode("utf-16-be"))
    profile[name : name + 8] = "Mine".encode("utf-16-be")
    return bytes(profile)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_icc_profiles_are_applied(image_format: str) -> None:
    data = encoded(Image.new("RGB", (400, 300), (255, 0, 0)), image_format, icc_profile=wide_gamut())
    rendered = render(data, None, ImageSettings())
    assert close(centre(Image.open(BytesIO(rendered.thumbnails[0].data))), (0, 255, 0), 8)
    assert (rendered.facts.icc_profile or "").startswith("Mine")


def test_icc_profiles_with_alpha() -> None:
    image = Image.new("RGBA", (400, 300), (255, 0, 0, 128))
    kept = seen(encoded(image, "PNG", icc_profile=wide_gamut()), WEBP)
    assert close(centre(kept), (0, 255, 0, 128), 8)


@pytest.mark.parametrize(
    "profile",
    [b"x", b"x" * 200, wide_gamut()[:140], wide_gamut()[:-300], wide_gamut().replace(b"RGB ", b"GRAY")],
    ids=["a byte", "junk", "header only", "cut", "of another colour space"],
)
def test_broken_profiles_cost_nothing(profile: bytes) -> None:
    data = encoded(Image.new("RGB", (400, 300), (10, 200, 30)), "JPEG", icc_profile=profile, quality=95)
    assert close(centre(seen(data)), (10, 200, 30), 8)


def test_names_of_profiles() -> None:
    assert (icc.profile_name(wide_gamut()) or "").startswith("Mine")
    old = bytes(128) + (1).to_bytes(4, "big") + b"desc" + (144).to_bytes(4, "big") + (40).to_bytes(4, "big")
    old += b"desc" + bytes(4) + (9).to_bytes(4, "big") + b"Adobe\x1b[2J\0"
    assert icc.profile_name(old) == "Adobe [2J"
    assert icc.profile_name(b"") is None


def test_webp_by_either_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Pillow's own libwebp or, where that is not found, through Pillow: the same to the eye."""

    def both(data: bytes) -> tuple[Rendered, Rendered]:
        first = render(data, None, ImageSettings())
        with monkeypatch.context() as patched:
            patched.setattr(libwebp, "library", lambda: None)
            return first, render(data, None, ImageSettings())

    noise = Image.effect_noise((150, 100), 90).resize((1500, 1000), Image.Resampling.BICUBIC)
    picture = Image.merge("RGB", (noise, noise.transpose(Image.Transpose.ROTATE_180), noise))
    alpha = picture.copy()
    alpha.putalpha(noise)
    for image in (picture, alpha):
        for options in ({"quality": 80}, {"lossless": True}):
            direct, through_pillow = both(encoded(image, "WEBP", **options))
            pixels = [
                Image.open(BytesIO(rendered.thumbnails[0].data)).convert("RGB").tobytes()
                for rendered in (direct, through_pillow)
            ]
            assert sum(abs(a - b) for a, b in zip(*pixels, strict=True)) / len(pixels[0]) < 4
            assert direct.facts == through_pillow.facts


@pytest.mark.skipif(libwebp.library() is None, reason="Pillow without a libwebp of its own")
def test_webp_is_shrunk_while_it_is_decoded() -> None:
    data = encoded(Image.effect_noise((2000, 1000), 50).convert("RGB"), "WEBP", method=0)
    decoded = libwebp.decode(data, (200, 100))
    assert decoded is not None
    assert decoded.size == (400, 200)
    frames = encoded(Image.new("RGB", (64, 64)), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 64), 9)])
    assert libwebp.decode(frames, (32, 32)) is None


@pytest.mark.parametrize("kind", list(ThumbnailFormat))
def test_further_sizes_from_the_same_decode(kind: ThumbnailFormat) -> None:
    image = Image.effect_noise((1600, 1200), 50).convert("RGB")
    settings = ImageSettings(200, (800, 64, 2000), thumbnail_format=kind)
    thumbnails = render(encoded(image, "JPEG"), None, settings).thumbnails
    assert [(t.pixels, t.primary, t.width, t.height) for t in thumbnails] == [
        (200, True, 200, 150),
        (800, False, 800, 600),
        (64, False, 64, 48),
        (2000, False, 1600, 1200),
    ]
    for thumbnail in thumbnails:
        assert Image.open(BytesIO(thumbnail.data)).size == (thumbnail.width, thumbnail.height)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 9), (200, 200), (201, 200)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_odd_sizes(size: tuple[int, int], image_format: str) -> None:
    thumbnail = seen(encoded(Image.new("RGB", size, "teal"), image_format))
    assert max(thumbnail.size) <= 200
    assert min(thumbnail.size) >= 1
    if max(size) <= 200:
        assert thumbnail.size == size
