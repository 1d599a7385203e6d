"""What is refused before it is decoded, and that what is let through keeps to its budget."""

import functools
import os
import platform
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from image_processor import jpeg, webp
from image_processor.admission import MAX_SCANS, bytes_per_pixel, memory_needed, webp_bytes_per_pixel
from image_processor.decoders import open_image
from image_processor.rendering import render
from image_processor.settings import MEBIBYTE, ImageSettings
from isolated import peak_memory_mb, rendered_apart
from pipeline_contract.failures import FailureCode, PipelineError

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="watches a forked child through /proc")


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def refused(data: bytes, settings: ImageSettings) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        render(data, None, settings)
    return caught.value


def png_of(width: int, height: int) -> bytes:
    """A black RGB image in a few kilobytes, row by row so that making it costs nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def webp_of(side: int) -> bytes:
    """A lossless WebP of one colour: 34 bytes, whatever its size (RFC 9649, section 3)."""
    bits = (side - 1) | (side - 1) << 14
    # No transform, no colour cache, no meta prefix codes; five codes of one symbol each.
    body = b"\x2f" + struct.pack("<I", bits) + bytes((0x88, 0x88, 0x08, 0, 0, 0, 0))
    body += b"\0" * (len(body) & 1)
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def scan_bomb(width: int, height: int, scans: int) -> bytes:
    """A progressive grey JPEG that refines the same coefficients again and again."""
    data = encoded(Image.new("L", (width, height), 90), "JPEG", progressive=True)
    header = jpeg.read_header(data)
    assert header is not None
    starts = [at for at in range(header.scans_at, len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    last = data[starts[-1] : -2]
    return data[:-2] + last * scans + b"\xff\xd9"


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + struct.pack("<IiiHH", 40, width, height, 1, 24) + bytes(24)


def gif_of(width: int, height: int) -> bytes:
    small = bytearray(encoded(Image.new("P", (8, 8)), "GIF"))
    struct.pack_into("<HH", small, 6, width, height)
    return bytes(small)


# Made when they are asked for; where the code depends on which limit is nearest, None.
BOMBS: dict[str, tuple[Callable[[], bytes], FailureCode | None]] = {
    "lossless WebP, 13000 x 13000": (lambda: webp_of(13000), FailureCode.PIXEL_LIMIT),
    "lossless WebP, 9900 x 9900": (lambda: webp_of(9900), FailureCode.MEMORY_BUDGET),
    "PNG, 13300 x 13300": (lambda: png_of(13300, 13300), FailureCode.PIXEL_LIMIT),
    "PNG, 9900 x 9900": (lambda: png_of(9900, 9900), FailureCode.MEMORY_BUDGET),
    "JPEG of 20,000 scans": (lambda: scan_bomb(700, 700, 20_000), FailureCode.FRAME_LIMIT),
    "JPEG of 20,000 scans, 49 megapixels": (lambda: scan_bomb(7000, 7000, 20_000), FailureCode.FRAME_LIMIT),
    "progressive JPEG, 100 megapixels": (
        lambda: encoded(Image.new("RGB", (10000, 10000)), "JPEG", progressive=True, subsampling=0),
        FailureCode.MEMORY_BUDGET,
    ),
    "BMP, 60000 x 60000": (lambda: bmp_of(60000, 60000), FailureCode.PIXEL_LIMIT),
    "GIF, 60000 x 60000": (lambda: gif_of(60000, 60000), FailureCode.PIXEL_LIMIT),
}


@functools.cache
def bomb(name: str) -> bytes:
    return BOMBS[name][0]()


@needs_fork
@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_are_refused_at_once(name: str) -> None:
    code = BOMBS[name][1]
    outcome = rendered_apart(bomb(name), ImageSettings())
    assert outcome.result in FailureCode.__members__
    if code is not None:
        assert outcome.result == code
    assert outcome.memory_mb < 100
    assert outcome.cpu_seconds < 2


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("memory", ["512", "1769", "10240"])
def test_bombs_in_functions_of_any_size(memory: str) -> None:
    """More memory lets more through, and what is let through still keeps to it."""
    settings = ImageSettings.from_environment({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory})
    for name in BOMBS:
        outcome = rendered_apart(bomb(name), settings)
        assert outcome.result in {"OK", *FailureCode.__members__}
        assert outcome.memory_mb < settings.memory_budget / MEBIBYTE


def test_the_sample_bombs_are_what_they_claim() -> None:
    """Small ones of the same making decode: it is their size that is refused."""
    for data in (webp_of(300), png_of(300, 300), scan_bomb(300, 300, 20)):
        assert render(data, None, ImageSettings()).facts.width == 300
    assert len(webp_of(13000)) <= 34
    assert jpeg.count_scans(scan_bomb(64, 64, 1000), MAX_SCANS) == MAX_SCANS + 1


def test_scans_of_previews_do_not_count() -> None:
    """A photograph may carry any number of JPEGs in its metadata, and behind its end."""
    plain = encoded(Image.new("RGB", (64, 64), "navy"), "JPEG", progressive=True)
    preview = encoded(Image.new("RGB", (8, 8)), "JPEG", progressive=True)
    segment = b"\xff\xef" + struct.pack(">H", 2 + 30 * len(preview[:2000])) + preview[:2000] * 30
    data = plain[:2] + segment + plain[2:] + preview * 60
    assert data.count(b"\xff\xda") > MAX_SCANS
    assert jpeg.count_scans(data, MAX_SCANS) == jpeg.count_scans(plain, MAX_SCANS) < MAX_SCANS
    assert render(data, None, ImageSettings()).facts.is_progressive


def test_limits() -> None:
    png = encoded(Image.new("RGB", (100, 80)), "PNG")
    assert refused(png, ImageSettings(max_bytes=len(png) - 1)).code is FailureCode.BYTE_LIMIT
    assert refused(png, ImageSettings(max_pixels=7999)).code is FailureCode.PIXEL_LIMIT
    assert refused(png, ImageSettings(memory_budget=20_000)).code is FailureCode.MEMORY_BUDGET
    assert render(png, None, ImageSettings(max_bytes=len(png), max_pixels=8000)).facts.width == 100


def test_a_jpeg_may_have_four_times_the_pixels() -> None:
    data = encoded(Image.new("RGB", (400, 200)), "JPEG")
    assert render(data, None, ImageSettings(max_pixels=20_000)).facts.width == 400
    assert refused(data, ImageSettings(max_pixels=19_999)).code is FailureCode.PIXEL_LIMIT


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_frames(image_format: str) -> None:
    images = [Image.new("RGB", (32, 32), (shade, 0, 255 - shade)) for shade in range(0, 240, 40)]
    data = encoded(images[0], image_format, save_all=True, append_images=images[1:], duration=70)
    facts = render(data, None, ImageSettings(max_frames=6)).facts
    assert facts.frame_count == 6
    assert facts.is_animated == (image_format != "TIFF")
    if image_format in ("GIF", "WEBP", "PNG"):
        assert facts.duration_ms == 420
    assert refused(data, ImageSettings(max_frames=5)).code is FailureCode.FRAME_LIMIT


def test_pages_that_go_in_circles() -> None:
    data = bytearray(encoded(Image.new("L", (8, 8)), "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    assert render(bytes(data), None, ImageSettings()).facts.frame_count == 1


SAMPLES = {
    "JPEG baseline": ("RGB", "JPEG", {}),
    "JPEG grey": ("L", "JPEG", {}),
    "JPEG CMYK": ("CMYK", "JPEG", {}),
    "JPEG progressive 4:2:0": ("RGB", "JPEG", {"progressive": True, "subsampling": 2}),
    "JPEG progressive 4:4:4": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "JPEG progressive CMYK": ("CMYK", "JPEG", {"progressive": True}),
    "PNG RGB": ("RGB", "PNG", {"compress_level": 1}),
    "PNG RGB, one colour transparent": ("RGB", "PNG", {"compress_level": 1, "transparency": (1, 2, 3)}),
    "PNG RGBA": ("RGBA", "PNG", {"compress_level": 1}),
    "PNG LA": ("LA", "PNG", {"compress_level": 1}),
    "PNG grey": ("L", "PNG", {"compress_level": 1}),
    "PNG grey, one shade transparent": ("L", "PNG", {"compress_level": 1, "transparency": 7}),
    "PNG palette": ("P", "PNG", {"compress_level": 1}),
    "PNG palette, one colour transparent": ("P", "PNG", {"compress_level": 1, "transparency": 7}),
    "PNG 1 bit": ("1", "PNG", {"compress_level": 1}),
    "PNG 16 bit": ("I;16", "PNG", {"compress_level": 1}),
    "TIFF raw": ("RGB", "TIFF", {}),
    "TIFF deflated": ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF fax": ("1", "TIFF", {"compression": "group4"}),
    "TIFF float": ("F", "TIFF", {}),
    "BMP": ("RGB", "BMP", {}),
    "GIF": ("P", "GIF", {}),
    "WebP lossy": ("RGB", "WEBP", {"method": 0, "quality": 30}),
    "WebP lossy, alpha": ("RGBA", "WEBP", {"method": 0, "quality": 30}),
    "WebP lossless": ("RGB", "WEBP", {"method": 0, "quality": 0, "lossless": True}),
    "AVIF": ("RGB", "AVIF", {"speed": 10, "quality": 30}),
    "AVIF, alpha": ("RGBA", "AVIF", {"speed": 10, "quality": 30}),
}


def big(mode: str) -> Image.Image:
    """16 megapixels that do not pack to nothing."""
    image = Image.effect_noise((400, 400), 60).resize((4000, 4000))
    match mode:
        case "RGB":
            return Image.merge("RGB", (image, image.transpose(Image.Transpose.ROTATE_90), image))
        case "RGBA":
            return Image.merge("RGBA", (image, image, image, image.transpose(Image.Transpose.ROTATE_90)))
        case "LA":
            return Image.merge("LA", (image, image.transpose(Image.Transpose.ROTATE_90)))
        case "I;16":
            return image.convert("I").convert("I;16")
    return image.convert(mode)


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), (1600,)])
@pytest.mark.parametrize("name", list(SAMPLES))
def test_the_estimate_holds(name: str, extra: tuple[int, ...], tmp_path: Path) -> None:
    """What a thumbnail really takes stays below what admission reckons with, but not so far that much is refused."""
    mode, image_format, options = SAMPLES[name]
    data = encoded(big(mode), image_format, **options)
    settings = ImageSettings(extra_sizes=extra, memory_budget=10**10)
    path = tmp_path / "sample"
    path.write_bytes(data)
    peak = peak_memory_mb(path, settings)
    if image_format == "WEBP":
        canvas = webp.read_header(data)
        assert canvas is not None
        per_pixel = webp_bytes_per_pixel(canvas, settings.largest)
    else:
        per_pixel = bytes_per_pixel(open_image(data, image_format), data, image_format, settings.largest)
    estimate = memory_needed((4000, 4000), per_pixel, data, settings) / MEBIBYTE
    assert peak < estimate + 16
    assert peak > estimate / 3 - 16


FAULTS = """
import resource, sys
from image_processor.rendering import render
from image_processor.settings import ImageSettings

data = sys.stdin.buffer.read()
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    render(data, None, ImageSettings())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's malloc")
def test_the_memory_of_one_image_serves_the_next() -> None:
    """In a fresh process: 24 MB of coefficients soon are no new memory to the kernel."""
    data = encoded(Image.effect_noise((2000, 2000), 70).convert("RGB"), "JPEG", progressive=True, subsampling=0)
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS],
        input=data,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    first, _, *later = map(int, ran.stdout.split())
    assert first > 5000
    assert max(later) < 500
