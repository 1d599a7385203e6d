"""A thumbnail tells nothing of its original but the picture: every output is opened again and searched."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from image_processor.rendering import render
from image_processor.settings import GpsPolicy, ImageSettings, ThumbnailFormat
from photographs import photographs

PHOTOGRAPHS = photographs()
SECRET = "Kilroy was here"
XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf>{SECRET}</rdf></x:xmpmeta>'.encode()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def telling_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = SECRET
    exif[0x013B] = SECRET
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8769)[0x9286] = SECRET.encode()
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 25.2)})
    return exif


def telling(image_format: str) -> bytes:
    """An image with everything that its format can carry about its maker."""
    image = Image.effect_noise((640, 480), 80).convert("RGB")
    options: dict[str, object] = {"exif": telling_exif().tobytes(), "icc_profile": SRGB}
    match image_format:
        case "JPEG":
            options |= {"comment": SECRET, "xmp": XMP, "dpi": (300, 300)}
        case "PNG":
            text = PngImagePlugin.PngInfo()
            text.add_text("Author", SECRET)
            text.add_itxt("XML:com.adobe.xmp", XMP.decode())
            text.add_text("Comment", SECRET, zip=True)
            options |= {"pnginfo": text, "dpi": (300, 300)}
        case "WEBP" | "AVIF":
            options |= {"xmp": XMP}
        case "TIFF":
            options |= {"description": SECRET, "software": SECRET}
        case "GIF":
            options = {"comment": SECRET.encode(), "xmp": XMP}
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    assert SECRET.encode() in buffer.getvalue() or image_format == "PNG"
    return buffer.getvalue()


def assert_clean(thumbnail: bytes) -> None:
    image = Image.open(BytesIO(thumbnail))
    image.load()
    exif = image.getexif()
    assert dict(exif) == {}
    assert exif.get_ifd(0x8769) == {}
    assert exif.get_ifd(0x8825) == {}
    allowed = {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop", "background", "timestamp", "duration"}
    assert set(image.info) <= allowed, image.info
    if image.format == "JPEG":
        segments = {name for name, _ in image.applist}
        assert segments <= {"APP0"}
        assert image.info["jfif_density"] == (1, 1)
    else:
        assert not set(chunks(thumbnail)) & {b"EXIF", b"XMP ", b"ICCP"}
    for word in (SECRET.encode(), b"Exif\0", b"http://", b"adobe", b"ICC_PROFILE"):
        assert word not in thumbnail


def chunks(webp: bytes) -> list[bytes]:
    found, position = [], 12
    while position + 8 <= len(webp):
        found.append(webp[position : position + 4])
        size = int.from_bytes(webp[position + 4 : position + 8], "little")
        position += 8 + size + (size & 1)
    return found


@pytest.mark.parametrize("kind", list(ThumbnailFormat))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP"])
def test_generated(image_format: str, kind: ThumbnailFormat) -> None:
    """At sizes that shrink the image and at one that leaves it as it is, with the most talkative policy."""
    data = telling(image_format) if image_format != "BMP" else plain_bmp()
    settings = ImageSettings(150, (640, 1000), thumbnail_format=kind, gps_policy=GpsPolicy.EXACT)
    rendered = render(data, None, settings)
    assert len(rendered.thumbnails) == 3
    for thumbnail in rendered.thumbnails:
        assert_clean(thumbnail.data)


def plain_bmp() -> bytes:
    buffer = BytesIO()
    Image.effect_noise((640, 480), 80).convert("RGB").save(buffer, "BMP", dpi=(300, 300))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", list(ThumbnailFormat))
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_modes(mode: str, kind: ThumbnailFormat) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", SECRET)
    grey = Image.effect_noise((640, 480), 80)
    image = grey.convert("I").convert("I;16") if mode == "I;16" else grey.convert(mode)
    buffer = BytesIO()
    image.save(buffer, "PNG", pnginfo=text, exif=telling_exif().tobytes())
    assert_clean(render(buffer.getvalue(), None, ImageSettings(thumbnail_format=kind)).thumbnails[0].data)


@pytest.mark.skipif(not PHOTOGRAPHS, reason="no photographs here")
@pytest.mark.parametrize("kind", list(ThumbnailFormat))
@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.name)
def test_photographs(path: Path, kind: ThumbnailFormat) -> None:
    settings = ImageSettings(200, (800,), thumbnail_format=kind, memory_budget=2**30, gps_policy=GpsPolicy.EXACT)
    for thumbnail in render(path.read_bytes(), None, settings).thumbnails:
        assert_clean(thumbnail.data)


@pytest.mark.parametrize("policy", list(GpsPolicy))
def test_location_by_policy(policy: GpsPolicy) -> None:
    exif = render(telling("JPEG"), None, ImageSettings(gps_policy=policy)).exif
    assert exif["hasGps"] is True
    expected = {
        GpsPolicy.NONE: None,
        GpsPolicy.COARSE: {"lat": 52.52, "lon": 13.41},
        GpsPolicy.EXACT: {"lat": 52.52, "lon": 13.407},
    }
    assert exif.get("gps") == expected[policy]
