"""A PNG inflated by ISA-L decodes to the very pixels that Pillow alone makes of it, and fails alike."""

import contextlib
import gc
import random
import tracemalloc
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from image_processor import inflating
from image_processor.decoders import decoding, open_image
from photographs import photographs
from pipeline_contract.failures import FailureCode, PipelineError

# Colour types with their samples per pixel and bit depths: PNG third edition, table 12.
COLOURS = {0: (1, (1, 2, 4, 8, 16)), 2: (3, (8, 16)), 3: (1, (1, 2, 4, 8)), 4: (2, (8, 16)), 6: (4, (8, 16))}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png(header: bytes, *data: bytes) -> bytes:
    palette = chunk(b"PLTE", bytes(range(256)) * 3)
    parts = b"".join(chunk(b"IDAT", part) for part in data)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + parts + chunk(b"IEND", b"")


def header_of(width: int, height: int, depth: int, colour: int, interlaced: int = 0) -> bytes:
    return width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((depth, colour, 0, 0, interlaced))


def stream(source: random.Random, raw: bytes) -> bytes:
    """Deflated in one of the many ways there are."""
    window = source.choice((9, 12, 15))
    deflater = zlib.compressobj(source.randrange(10), zlib.DEFLATED, window, 8, source.choice(STRATEGIES))
    half = len(raw) // 2
    flush = source.choice((zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH))
    first = deflater.compress(raw[:half]) + (deflater.flush(flush) if flush else b"")
    return first + deflater.compress(raw[half:]) + deflater.flush()


def split(source: random.Random, data: bytes) -> Iterator[bytes]:
    """IDAT chunks of any sizes, empty ones among them."""
    position = 0
    while position < len(data):
        size = source.choice((0, 1, 2, 100, 5000, 200_000))
        yield data[position : position + size]
        position += size


def random_png(source: random.Random) -> bytes:
    colour, (samples, depths) = source.choice(list(COLOURS.items()))
    depth = source.choice(depths)
    width, height = (
        source.choice(((1, 1), (7, 5), (300, 200))) if source.random() < 0.5 else (source.randrange(1, 400), 90)
    )
    interlaced = source.random() < 0.3
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    raw = bytearray()
    for x, y, dx, dy in passes:
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns <= 0:
            continue
        for _ in range(rows):
            row = -(-columns * samples * depth // 8)
            raw.append(source.randrange(5))
            raw += source.randbytes(row) if source.random() < 0.5 else bytes([source.randrange(256)]) * row
    return png(header_of(width, height, depth, colour, interlaced), *split(source, stream(source, bytes(raw))))


def pixels(data: bytes, *, alone: bool) -> tuple[str, bytes] | FailureCode:
    """Mode and pixels, or the code it fails with; by Pillow alone or with the inflater."""
    try:
        image = open_image(data, "PNG")
        with decoding(data, "PNG"):
            if alone:
                image.load()
            else:
                image = inflating.load(image, data)
        return image.mode, image.tobytes()
    except PipelineError as error:
        return error.code


def without_help(*_: object) -> Image.Image:
    pytest.fail("a sound file was left to Pillow alone")


@pytest.mark.parametrize("seed", range(150))
def test_any_sound_png(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_png(random.Random(seed))
    alone = pixels(data, alone=True)
    assert isinstance(alone, tuple)
    monkeypatch.setattr(inflating, "open_image", without_help)
    assert pixels(data, alone=False) == alone


@pytest.mark.skipif(not photographs(".png"), reason="no PNG files here")
@pytest.mark.parametrize("path", photographs(".png"), ids=lambda path: path.name)
def test_real_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = path.read_bytes()
    alone = pixels(data, alone=True)
    monkeypatch.setattr(inflating, "open_image", without_help)
    assert pixels(data, alone=False) == alone


def damaged(source: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    start = data.index(b"IDAT")
    match source.randrange(3):
        case 0:
            return data[: source.randrange(start, len(data))]
        case 1:
            for _ in range(source.choice((1, 3, 30))):
                changed[source.randrange(start, len(changed))] = source.randrange(256)
        case 2:
            at = source.randrange(start, len(changed))
            changed[at : at + source.randrange(40)] = source.randbytes(source.randrange(40))
    return bytes(changed)


def test_thousands_of_damaged_files() -> None:
    source = random.Random(20)
    outcomes = set()
    for _ in range(3000):
        data = damaged(source, random_png(source))
        alone = pixels(data, alone=True)
        assert pixels(data, alone=False) == alone
        outcomes.add(alone if isinstance(alone, FailureCode) else None)
    assert {None, FailureCode.CORRUPT, FailureCode.TRUNCATED} <= outcomes


ROWS = bytes((0, 1, 2, 3)) * 2  # a filter byte and a pixel, twice
SOUND = zlib.compress(ROWS)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param([SOUND], ("RGB", bytes((1, 2, 3, 1, 2, 3))), id="sound"),
        pytest.param([SOUND[:-4] + b"\0\0\0\0"], FailureCode.CORRUPT, id="checksum wrong"),
        pytest.param([SOUND[:-4]], ("RGB", bytes((1, 2, 3, 1, 2, 3))), id="no checksum"),
        pytest.param([SOUND + b"more"], ("RGB", bytes((1, 2, 3, 1, 2, 3))), id="more behind the end"),
        pytest.param([zlib.compress(ROWS * 9)], ("RGB", bytes((1, 2, 3, 1, 2, 3))), id="more rows"),
        pytest.param([zlib.compress(ROWS[:5])], FailureCode.TRUNCATED, id="a row is missing"),
        pytest.param([b"\x78"], FailureCode.TRUNCATED, id="half a header"),
        pytest.param([b"\x00\x00" + SOUND[2:]], FailureCode.CORRUPT, id="no header"),
        pytest.param([b"\x78\xbb\0\0\0\0" + SOUND[2:]], FailureCode.TRUNCATED, id="a preset dictionary"),
        pytest.param([b""], FailureCode.TRUNCATED, id="nothing"),
    ],
)
def test_odd_ends(data: list[bytes], expected: object) -> None:
    odd = png(header_of(1, 2, 8, 2), *data)
    assert pixels(odd, alone=True) == expected
    assert pixels(odd, alone=False) == expected


def test_damage_behind_the_last_row() -> None:
    """It must not be come upon before everything is had that the sound data holds."""
    data = png(header_of(300, 200, 8, 6), zlib.compress(bytes(1201) * 200))
    end = data.index(b"IEND")
    damaged = data[:end] + b"\0\0\0\0" + data[end + 4 :]
    assert pixels(damaged, alone=True) == ("RGBA", bytes(300 * 200 * 4))
    assert pixels(damaged, alone=False) == ("RGBA", bytes(300 * 200 * 4))


@pytest.mark.parametrize("data", [png(header_of(1, 2, 8, 2), SOUND), png(header_of(1, 2, 8, 2), b"\0\0" + SOUND)])
def test_nothing_holds_an_image_that_is_let_go_of(data: bytes) -> None:
    gc.disable()
    try:
        image = open_image(data, "PNG")
        alive = weakref.ref(image)
        with contextlib.suppress(OSError):
            inflating.load(image, data)
        del image
        assert alive() is None
    finally:
        gc.enable()


def test_it_takes_no_memory_however_far_the_data_expands() -> None:
    deflater = zlib.compressobj(9)
    rows = b"".join(deflater.compress(bytes(1_000_001)) for _ in range(100)) + deflater.flush()
    data = png(header_of(1_000_000, 100, 8, 0), rows)
    image = open_image(data, "PNG")
    tracemalloc.start()  # Python's memory: the pixels are Pillow's own
    inflating.load(image, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
