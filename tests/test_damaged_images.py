"""Images that are cut, changed or something else than they claim: each with the code that says so."""

import random
from io import BytesIO

import pytest
from PIL import Image

from image_processor.rendering import render
from image_processor.settings import ImageSettings
from pipeline_contract.failures import FailureClass, FailureCode, PipelineError

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF")
SETTINGS = ImageSettings()


def sample(image_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    Image.effect_noise((320, 240), 70).convert("RGB").save(buffer, image_format, **options)
    return buffer.getvalue()


def outcome(data: bytes) -> FailureCode | None:
    try:
        render(data, None, SETTINGS)
    except PipelineError as error:
        failure = error
    else:
        return None
    assert failure.message.isprintable()
    assert 0 < len(failure.message) < 300
    return failure.code


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_cut(image_format: str, part: float) -> None:
    data = sample(image_format)
    assert outcome(data) is None
    code = outcome(data[: int(len(data) * part)])
    assert code is FailureCode.TRUNCATED or (image_format == "TIFF" and code is FailureCode.CORRUPT)


def test_a_cut_progressive_jpeg() -> None:
    data = sample("JPEG", progressive=True)
    for part in (0.3, 0.6, 0.95):
        assert outcome(data[: int(len(data) * part)]) is FailureCode.TRUNCATED


@pytest.mark.parametrize("image_format", FORMATS)
def test_changed_bytes(image_format: str) -> None:
    """A picture or a permanent code, whatever is changed; never another exception."""
    source = random.Random(image_format)
    data = sample(image_format, **({"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"} if image_format == "JPEG" else {}))
    codes = set()
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(source.choice((1, 5, 50))):
            # The header is where it hurts.
            changed[source.randrange(source.choice((64, 700, len(changed))))] = source.randrange(256)
        code = outcome(bytes(changed))
        assert code is None or code.failure_class is FailureClass.PERMANENT
        codes.add(code)
    assert len(codes) > 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", FailureCode.EMPTY_OBJECT),
        (b"\0", FailureCode.NOT_AN_IMAGE),
        (b"<html></html>", FailureCode.NOT_AN_IMAGE),
        (b"PK\3\4", FailureCode.NOT_AN_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", FailureCode.UNSUPPORTED_FORMAT),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", FailureCode.UNSUPPORTED_FORMAT),
        (b"8BPS\0\1", FailureCode.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x0cjP  \r\n\x87\n", FailureCode.UNSUPPORTED_FORMAT),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", FailureCode.UNSUPPORTED_FORMAT),
        (b"P6\n1 1\n255\n\0\0\0", FailureCode.UNSUPPORTED_FORMAT),
        (b"GIF89a", FailureCode.TRUNCATED),
        (b"RIFF\x04\0\0\0WEBP", FailureCode.CORRUPT),
        (b"II*\0\x08\0\0\0", FailureCode.CORRUPT),
    ],
)
def test_what_is_no_image_of_ours(data: bytes, code: FailureCode) -> None:
    assert outcome(data) is code


def test_the_content_decides_not_the_name() -> None:
    """A PNG that is declared to be a JPEG is a PNG, and the mismatch is told."""
    data = sample("PNG")
    for declared, mismatch in (
        ("image/jpeg", True),
        ("image/PNG; charset=binary", False),
        ("image/x-png", False),
        ("application/octet-stream", False),
        ("text/html", True),
        (None, False),
        ("", False),
    ):
        facts = render(data, declared, SETTINGS).facts
        assert (facts.format, facts.mime_type, facts.type_mismatch) == ("PNG", "image/png", mismatch), declared
    assert render(data, "image/jpeg\x1b[31m; q=1", SETTINGS).facts.declared_content_type == "image/jpeg [31m"


def test_facts_of_a_photograph() -> None:
    rendered = render(sample("JPEG", dpi=(300, 300), progressive=True), "image/jpeg", SETTINGS)
    facts = rendered.facts
    assert (facts.width, facts.height, facts.mode, facts.bit_depth) == (320, 240, "RGB", 8)
    assert (facts.dpi, facts.is_progressive, facts.has_alpha, facts.frame_count) == (300, True, False, 1)
    assert facts.megapixels == 0.08
    assert len(facts.content_sha256) == 64
    assert rendered.decode_ms >= 0


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_bit_depth_of_avif(depth: int) -> None:
    """Pillow writes 8 bits only: the two flags of av1C are set by hand, and only read."""
    from image_processor.facts import _avif_bit_depth

    data = bytearray(sample("AVIF"))
    at = data.index(b"av1C") + 6
    data[at] = data[at] & ~0x60 | {8: 0, 10: 0x40, 12: 0x60}[depth]
    assert _avif_bit_depth(bytes(data)) == depth
