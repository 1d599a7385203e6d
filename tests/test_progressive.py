"""The shortened progressive JPEG decodes, at an eighth, to the very pixels of the whole one."""

import random
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from image_processor.jpeg import read_header
from image_processor.progressive import without_unseen_scans
from photographs import photographs

PROGRESSIVE = [
    path
    for path in photographs(".jpg", ".jpeg")
    if (header := read_header(path.read_bytes())) is not None and header.progressive
]


def at_an_eighth(data: bytes) -> tuple[str, tuple[int, int], bytes] | None:
    """The pixels, or None for a file that does not decode."""
    try:
        image = Image.open(BytesIO(data), formats=["JPEG"])
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except (OSError, SyntaxError):
        return None
    return image.mode, image.size, image.tobytes()


def photo(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    """Noise with structure at every scale."""
    source = random.Random(seed)
    noise = Image.frombytes("RGB", (64, 64), source.randbytes(3 * 64 * 64))
    return noise.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.EDGE_ENHANCE).convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", **{"progressive": True, "quality": 80, **options})
    return buffer.getvalue()


@pytest.mark.skipif(not PROGRESSIVE, reason="no progressive photographs here")
@pytest.mark.parametrize("path", PROGRESSIVE, ids=lambda path: path.name)
def test_real_files(path: object) -> None:
    data = path.read_bytes()  # type: ignore[attr-defined]
    shorter = without_unseen_scans(data)
    assert len(shorter) < len(data) / 2
    assert at_an_eighth(shorter) == at_an_eighth(data)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(8, 8), (17, 9), (333, 127), (640, 480), (1601, 1003)])
@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}, {"comment": b"\xff\xda between"}])
def test_every_layout(mode: str, subsampling: int, size: tuple[int, int], options: dict[str, object]) -> None:
    data = jpeg(photo(*size, seed=1, mode=mode), subsampling=subsampling, **options)
    shorter = without_unseen_scans(data)
    assert shorter is not data
    expected = at_an_eighth(data)
    assert expected is not None
    assert at_an_eighth(shorter) == expected


@given(st.integers(8, 400), st.integers(8, 400), st.integers(0, 2), st.integers(1, 95), st.integers(0, 9))
def test_any_size(width: int, height: int, subsampling: int, quality: int, seed: int) -> None:
    data = jpeg(photo(width, height, seed), subsampling=subsampling, quality=quality)
    assert at_an_eighth(without_unseen_scans(data)) == at_an_eighth(data) is not None


def test_what_it_does_not_apply_to() -> None:
    """Baseline, CMYK and what is no JPEG come back as they are."""
    for data in (
        b"",
        b"\xff\xd8\xff",
        b"no JPEG at all",
        jpeg(photo(64, 64, 1), progressive=False),
        jpeg(photo(64, 64, 1, "CMYK")),
    ):
        assert without_unseen_scans(data) is data


def scans(data: bytes) -> list[int]:
    """Where the scans of a file begin."""
    return [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]


def test_a_file_that_lacks_its_last_scans_is_left_alone() -> None:
    """Its decoder smooths what it lacks; the shortened file would say that nothing is lacking."""
    data = jpeg(photo(640, 480, 3))
    for start in scans(data)[1:]:
        unfinished = data[:start] + b"\xff\xd9"
        assert without_unseen_scans(unfinished) is unfinished


def test_a_cut_file_is_left_alone() -> None:
    data = jpeg(photo(320, 240, 4))
    for length in range(0, len(data), 97):
        cut = data[:length]
        assert without_unseen_scans(cut) is cut


def test_what_follows_the_image_does_not_matter() -> None:
    data = jpeg(photo(320, 240, 5))
    assert without_unseen_scans(data + jpeg(photo(64, 64, 6))) == without_unseen_scans(data)


def with_sampling(data: bytes, luma: int) -> bytes:
    """The same with other sampling factors for luma (as in SOF: horizontal << 4 | vertical)."""
    at = data.index(b"\xff\xc2")
    return data[: at + 11] + bytes((luma,)) + data[at + 12 :]


@pytest.mark.parametrize("luma", [0x11, 0x12, 0x14, 0x21, 0x22, 0x24, 0x41, 0x42])
def test_any_sampling(luma: int) -> None:
    """The scans of another layout: what they say is nonsense, but both files must say the same nonsense."""
    data = with_sampling(jpeg(photo(64, 64, 9), subsampling=0), luma)
    shorter = without_unseen_scans(data)
    assert shorter is not data
    assert at_an_eighth(shorter) == at_an_eighth(data) is not None


def test_chroma_of_a_quarter_is_left_alone() -> None:
    """Its blocks make 4 x 4 samples, for which the decoder uses the coefficients whose quantizers are zeroed."""
    data = with_sampling(jpeg(photo(64, 64, 9), subsampling=0), 0x44)
    assert without_unseen_scans(data) is data


def test_16_bit_quantizers() -> None:
    data = jpeg(photo(320, 240, 10), subsampling=2)
    at = data.index(b"\xff\xdb")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    wide = b""
    for start in range(at + 4, at + 2 + length, 65):
        wide += bytes((data[start] | 0x10,))
        wide += b"".join(b"\0" + bytes((value,)) for value in data[start + 1 : start + 65])
    data = data[: at + 2] + (2 + len(wide)).to_bytes(2, "big") + wide + data[at + 2 + length :]
    shorter = without_unseen_scans(data)
    assert shorter is not data
    assert at_an_eighth(shorter) == at_an_eighth(data) is not None


def mutated(data: bytes, source: random.Random) -> bytes:
    """One of what happens to files: a bit flips, bytes change, vanish, come twice, are zeroed, the end is lost."""
    changed = bytearray(data)
    start = source.randrange(len(changed))
    length = source.choice((1, 2, 16, 256))
    match source.randrange(7):
        case 0:
            changed[start] ^= 1 << source.randrange(8)
        case 1:
            changed[start : start + length] = source.randbytes(length)
        case 2:
            del changed[start : start + length]
        case 3:
            changed[start:start] = changed[start : start + length]
        case 4:
            changed[start : start + length] = bytes(length)
        case 5:
            changed[start : start + 2] = bytes((0xFF, source.randrange(256)))
        case _:
            # Where it hurts: in the header of a scan or of a table.
            markers = [at for at in range(len(changed) - 1) if changed[at] == 0xFF and changed[at + 1] in (0xDA, 0xC4)]
            at = source.choice(markers) + source.randrange(40)
            if at < len(changed):
                changed[at] = source.randrange(256)
    return bytes(changed)


def compared(data: bytes, seed: int, count: int) -> tuple[int, int]:
    """How many of `count` mutants were shortened, and how many of those decode; each as its whole file does."""
    source = random.Random(seed)
    shortened = decoded = 0
    for number in range(count):
        mutant = mutated(data, source)
        shorter = without_unseen_scans(mutant)
        if shorter is mutant:
            continue
        shortened += 1
        expected = at_an_eighth(mutant)
        decoded += expected is not None
        assert at_an_eighth(shorter) == expected, f"mutant {number} of seed {seed}"
    return shortened, decoded


SEEDS = [(subsampling, mode) for subsampling in (0, 1, 2) for mode in ("RGB", "L")]


@pytest.mark.parametrize(("subsampling", "mode"), SEEDS)
def test_damaged_files(subsampling: int, mode: str) -> None:
    data = jpeg(photo(333, 251, 7, mode), subsampling=subsampling)
    shortened, decoded = compared(data, seed=subsampling, count=150)
    assert shortened > 20
    assert decoded > 10


@pytest.mark.slow
@pytest.mark.parametrize(("subsampling", "mode"), SEEDS)
@pytest.mark.parametrize("restarts", [0, 5])
def test_thousands_of_damaged_files(subsampling: int, mode: str, restarts: int) -> None:
    options = {"restart_marker_blocks": restarts} if restarts else {}
    data = jpeg(photo(640, 427, 8, mode), subsampling=subsampling, **options)
    shortened, decoded = compared(data, seed=1000 + subsampling, count=1000)
    assert shortened > 100
    assert decoded > 50


@pytest.mark.slow
@pytest.mark.skipif(not PROGRESSIVE, reason="no progressive photographs here")
@pytest.mark.parametrize("path", PROGRESSIVE, ids=lambda path: path.name)
def test_damaged_photographs(path: object) -> None:
    shortened, decoded = compared(path.read_bytes(), seed=2000, count=150)  # type: ignore[attr-defined]
    assert shortened > 20
    assert decoded > 10
