"""HEIC, with and without its decoder; the decoder comes only where bytes are HEIC."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from image_processor.rendering import render
from image_processor.settings import ImageSettings
from pipeline_contract.failures import FailureCode, PipelineError

HEAD = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"


def test_without_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pillow_heif", "pillow_heif.HeifImagePlugin", "_pillow_heif"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PipelineError) as caught:
        render(HEAD, "image/heic", ImageSettings())
    assert caught.value.code is FailureCode.UNSUPPORTED_FORMAT
    assert "imgpipe build --heic" in caught.value.message


def test_the_decoder_is_not_loaded_for_others() -> None:
    program = (
        "import sys, io\n"
        "from PIL import Image\n"
        "from image_processor.rendering import render\n"
        "from image_processor.settings import ImageSettings\n"
        "before = set(sys.modules)\n"
        "png = bytes.fromhex(sys.argv[1])\n"
        "render(png, None, ImageSettings())\n"
        "print(*sorted(name for name in sys.modules if 'heif' in name.lower() or 'ImagePlugin' in name))\n"
    )
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    lambdas, source = (str(Path(__file__).resolve().parents[1] / folder) for folder in ("lambdas", "src"))
    done = subprocess.run(
        [sys.executable, "-c", program, buffer.getvalue().hex()],
        env={"PYTHONPATH": f"{lambdas}:{source}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert "PIL.PngImagePlugin" in loaded
    assert not [name for name in loaded if "heif" in name.lower()]
    # What Pillow loads beside the one that is asked for, when it saves a JPEG.
    assert loaded <= {f"PIL.{name}ImagePlugin" for name in ("Png", "Jpeg", "Tiff")}


@pytest.fixture
def heif() -> object:
    return pytest.importorskip("pillow_heif", reason="needs pillow-heif (pip install pillow-heif)")


def heic(heif: object, image: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    heif.from_pillow(image).save(buffer, quality=80, **options)  # type: ignore[attr-defined]
    return buffer.getvalue()


def test_with_the_decoder(heif: object) -> None:
    image = Image.new("RGB", (640, 480), (200, 30, 30))
    image.paste((30, 30, 200), (0, 240, 640, 480))
    exif = Image.Exif()
    exif[0x010F] = "Apple"
    rendered = render(heic(heif, image, exif=exif.tobytes()), "image/heic", ImageSettings())
    facts = rendered.facts
    assert (facts.format, facts.mime_type, facts.type_mismatch) == ("HEIF", "image/heic", False)
    assert (facts.width, facts.height, facts.bit_depth, facts.frame_count) == (640, 480, 8, 1)
    assert rendered.exif["make"] == "Apple"
    thumbnail = Image.open(BytesIO(rendered.thumbnails[0].data))
    assert thumbnail.size == (200, 150)
    top, bottom = thumbnail.getpixel((100, 20)), thumbnail.getpixel((100, 130))
    assert top[0] > 150 > top[2]
    assert bottom[2] > 150 > bottom[0]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_upright(heif: object, orientation: int) -> None:
    image = Image.new("RGB", (640, 480), "red")
    image.paste("blue", (0, 0, 640, 60))  # the stored top
    exif = Image.Exif()
    exif[0x0112] = orientation
    rendered = render(heic(heif, image, exif=exif.tobytes()), None, ImageSettings())
    thumbnail = Image.open(BytesIO(rendered.thumbnails[0].data))
    assert thumbnail.size == ((200, 150) if orientation in (1, 3) else (150, 200))
    width, height = thumbnail.size
    at = {1: (width // 2, 5), 3: (width // 2, height - 5), 6: (width - 5, height // 2), 8: (5, height // 2)}[
        orientation
    ]
    assert thumbnail.getpixel(at)[2] > 150


def test_damaged(heif: object) -> None:
    data = heic(heif, Image.effect_noise((640, 480), 60).convert("RGB"))
    for length in range(40, len(data), len(data) // 9):
        with pytest.raises(PipelineError) as caught:
            render(data[:length], None, ImageSettings())
        assert caught.value.code in (FailureCode.TRUNCATED, FailureCode.CORRUPT)


def test_budget(heif: object) -> None:
    with pytest.raises(PipelineError) as caught:
        render(heic(heif, Image.new("RGB", (2000, 2000))), None, ImageSettings(memory_budget=10_000_000))
    assert caught.value.code is FailureCode.MEMORY_BUDGET
