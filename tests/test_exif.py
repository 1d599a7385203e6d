"""EXIF as strangers write it, and as it is kept."""

import json
import math
import random
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from image_processor import exif as module
from image_processor.exif import MAX_BYTES, bounded, fields_of, number, orientation, read_exif, seconds
from image_processor.rendering import render
from image_processor.settings import GpsPolicy, ImageSettings
from image_processor.text import MAX_TEXT, clean
from photographs import FOLDER, photographs
from pipeline_contract.codec import dumps

EXIF_IFD, GPS_IFD = 0x8769, 0x8825


def fields_kept(main: Any, photo: Any = None, gps: Any = None, policy: GpsPolicy = GpsPolicy.EXACT) -> dict[str, Any]:
    """Of an image with these directories; one that is an exception cannot be read."""

    def directory(tag: int) -> Any:
        found = {EXIF_IFD: photo, GPS_IFD: gps}[tag] or {}
        if isinstance(found, Exception):
            raise found
        return found

    return fields_of(main, directory, policy)


def test_a_photographer_s_fields() -> None:
    photo = {
        0xA434: "EF24-105mm f/4L IS USM",
        0x829A: IFDRational(1, 250),
        0x829D: IFDRational(28, 10),
        0x8827: 400,
        0x920A: IFDRational(50, 1),
        0xA405: 75,
        0x9204: IFDRational(-1, 3),
        0x8822: 3,
        0x9207: 5,
        0x9209: 0x19,
        0xA403: 0,
        0xA001: 1,
        0x9003: "2015:04:10 20:12:23",
        0x9011: "+02:00",
        0x927C: b"maker note",
        0x9286: b"user comment",
    }
    main = {
        0x010F: "Canon\0",
        0x0110: "EOS 6D ",
        0x0131: "1.1.8",
        0x013B: "Ann",
        0x8298: "© Ann",
        0x010E: "A lake",
        0x0112: 6,
    }
    assert fields_kept(main, photo) == {
        "available": True,
        "fields": 7,
        "make": "Canon",
        "model": "EOS 6D",
        "software": "1.1.8",
        "artist": "Ann",
        "copyright": "© Ann",
        "imageDescription": "A lake",
        "orientation": 6,
        "lensModel": "EF24-105mm f/4L IS USM",
        "exposureTime": "1/250",
        "fNumber": 2.8,
        "iso": 400,
        "focalLength": 50,
        "focalLength35mm": 75,
        "exposureBias": -0.333333333,
        "exposureProgram": "aperture priority",
        "meteringMode": "pattern",
        "flashFired": True,
        "whiteBalance": "auto",
        "colorSpace": "sRGB",
        "dateTimeOriginal": "2015-04-10T20:12:23+02:00",
        "hasGps": False,
    }


@pytest.mark.parametrize(
    ("taken", "offset", "expected"),
    [
        ("2015:04:10 20:12:23", None, {"dateTimeOriginal": "2015-04-10T20:12:23", "dateTimeIsLocal": True}),
        ("2015:04:10 20:12:23", "-05:00", {"dateTimeOriginal": "2015-04-10T20:12:23-05:00"}),
        ("2015:04:10 20:12:23", "later", {"dateTimeOriginal": "2015-04-10T20:12:23", "dateTimeIsLocal": True}),
        ("2015-04-10 20:12:23\0", "+01:00", {"dateTimeOriginal": "2015-04-10T20:12:23+01:00"}),
        ("0000:00:00 00:00:00", None, {}),
        ("2015:13:10 20:12:23", None, {}),
        ("2015:04:10 24:12:23", None, {}),
        ("    :  :     :  :  ", None, {}),
        ("yesterday", None, {}),
        (b"2015:04:10 20:12:23", None, {"dateTimeOriginal": "2015-04-10T20:12:23", "dateTimeIsLocal": True}),
        (20150410, None, {}),
    ],
)
def test_times(taken: Any, offset: Any, expected: dict[str, Any]) -> None:
    fields = fields_kept({}, {0x9003: taken, 0x9011: offset})
    assert {name: fields[name] for name in fields if name.startswith("dateTime")} == expected


@pytest.mark.parametrize(
    ("gps", "expected"),
    [
        ({1: "N", 2: (52.0, 31.0, 12.0), 3: "W", 4: (13.0, 24.0, 36.0)}, {"lat": 52.52, "lon": -13.41}),
        (
            {1: "S", 2: (33.0, 51.5), 3: "E", 4: (151.0,), 5: b"\1", 6: 12.34},
            {"lat": -33.858333, "lon": 151, "alt": -12.3},
        ),
        ({2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0), 6: IFDRational(0, 0)}, {"lat": 0, "lon": 0}),
        ({2: (IFDRational(0, 0), 0.0, 0.0), 4: (1.0, 0.0, 0.0)}, None),
        ({2: (91.0, 0.0, 0.0), 4: (1.0, 0.0, 0.0)}, None),
        ({2: (1.0, 0.0, 0.0), 4: (-1.0, 0.0, 0.0)}, None),
        ({2: (1.0, 2.0, 3.0, 4.0), 4: (1.0, 0.0, 0.0)}, None),
        ({2: "north", 4: b"east"}, None),
        ({2: (1.0, 0.0, 0.0)}, None),
        ({}, None),
    ],
)
def test_positions(gps: dict[int, Any], expected: dict[str, float] | None) -> None:
    assert fields_kept({}, {}, gps).get("gps") == expected
    coarse = fields_kept({}, {}, gps, GpsPolicy.COARSE).get("gps")
    assert coarse == (expected and {name: round(expected[name], 2) for name in ("lat", "lon")})
    assert "gps" not in fields_kept({}, {}, gps, GpsPolicy.NONE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (IFDRational(0, 0), None),
        (IFDRational(1, 0), None),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
        ((IFDRational(7, 2), 9), 3.5),
        ((), None),
        ("7", None),
        (b"7", None),
        (None, None),
        (IFDRational(1, 3), 0.333333333),
        (8, 8),
    ],
)
def test_numbers(value: Any, expected: float | None) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.004, "1/250"), (1 / 60, "1/60"), (0.5, "0.5"), (1.3, "1.3"), (30, "30"), (0, None), (-1, None), (1e-12, None)],
)
def test_exposure_times(value: float, expected: str | None) -> None:
    assert seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("  a  line\r\nand\tmore ", "a line and more"),
        ("ends\0here", "ends"),
        ("\x1b[31mred\x07", "[31mred"),
        ("\u202egnp.exe", "gnp.exe"),
        ("zero\u200bwidth", "zerowidth"),
        ("line\u2028break", "line break"),
        ("Köln".encode().decode("latin-1"), "Köln"),
        ("Köln", "Köln"),
        ("日本", "日本"),
        ("\ud800", None),
        (b"bytes", "bytes"),
        ("", None),
        (" \0", None),
        (7, None),
        ("x" * 9999, "x" * MAX_TEXT),
    ],
)
def test_texts(value: Any, expected: str | None) -> None:
    assert clean(value) == expected


def test_the_whole_is_bounded() -> None:
    """However long each field: as JSON, which writes some characters as twelve, it stays under 8 KB."""
    long = dict.fromkeys((271, 272, 305, 315, 33432, 270), "😀" * 999)
    fields = fields_kept(long, {0xA434: "\U0001f600" * 999})
    assert len(dumps(fields)) <= MAX_BYTES < 8192
    assert all(fields[name] for name in ("make", "lensModel", "copyright"))
    assert bounded({"a": "x" * 5000, "b": "y" * 5000})["a"]


def test_a_directory_that_cannot_be_read() -> None:
    fields = fields_kept({0x010F: "Canon"}, ValueError("bad"), RecursionError())
    assert fields == {"available": True, "fields": 1, "make": "Canon", "hasGps": False, "damaged": True}


def test_a_value_that_cannot_be_read() -> None:
    class Damaged(dict[int, Any]):
        def get(self, tag: int, default: Any = None) -> Any:
            if tag == 0x829A:
                raise ValueError("bad")
            return super().get(tag, default)

    fields = fields_kept({0x010F: "Canon"}, Damaged({0x829A: 1, 0x8827: 400}))
    assert fields == {
        "available": True,
        "fields": 1,
        "make": "Canon",
        "iso": 400,
        "hasGps": False,
        "damaged": True,
    }


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_as_pillow_reads_directories(image_format: str) -> None:
    """Read one by one as they are asked for, the values are those of Pillow's whole directories."""
    buffer = BytesIO()
    exif = Image.Exif()
    exif.load(rich_exif())
    Image.new("RGB", (32, 24), "olive").save(buffer, image_format, exif=exif)
    with Image.open(buffer) as image:
        read = image.getexif()
        found = read_exif(read, GpsPolicy.EXACT)
        assert found == fields_of(dict(read), read.get_ifd, GpsPolicy.EXACT)
    assert found["exposureTime"] == "1/250"
    assert found["gps"]


@pytest.mark.skipif(not photographs(), reason="no photographs here")
@pytest.mark.parametrize("path", photographs(), ids=lambda path: path.name)
def test_as_pillow_reads_photographs(path: Path) -> None:
    with Image.open(path) as image:
        exif = image.getexif()
        assert read_exif(exif, GpsPolicy.EXACT) == fields_of(dict(exif), exif.get_ifd, GpsPolicy.EXACT)


@pytest.mark.parametrize(
    ("value", "expected"), [(6, 6), (0, 1), (9, 1), (-1, 1), ("6", 1), (6.0, 1), (None, 1), ((6,), 1)]
)
def test_orientation(value: Any, expected: int) -> None:
    assert orientation({0x0112: value}) == expected


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.binary(max_size=40)
    | st.builds(IFDRational, st.integers(-(2**31), 2**32 - 1), st.integers(-(2**31), 2**32 - 1)),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
known = sorted(
    {tag for _, tag, _ in (*module._MAIN_FIELDS, *module._PHOTO_FIELDS)} | {0x9003, 0x9011, 1, 2, 3, 4, 5, 6}
)
directories = st.dictionaries(st.sampled_from(known) | st.integers(0, 65535), anything, max_size=12)


@given(directories, directories, directories, st.sampled_from(GpsPolicy))
def test_any_tags(main: dict[int, Any], photo: dict[int, Any], gps: dict[int, Any], policy: GpsPolicy) -> None:
    """Whatever is in it: JSON without NaN, small, clean, and never an exception."""
    fields = fields_kept(main, photo, gps, policy)
    assert len(dumps(fields)) <= MAX_BYTES
    for value in fields.values():
        if isinstance(value, str):
            assert value.isprintable()
            assert 0 < len(value) <= MAX_TEXT
        if isinstance(value, float):
            assert math.isfinite(value)


def jpeg_with(exif: bytes) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), "olive").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def rich_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Canon"
    exif[0x0112] = 6
    exif.get_ifd(EXIF_IFD).update({0x829A: IFDRational(1, 250), 0x9003: "2015:04:10 20:12:23", 0x927C: b"note" * 30})
    exif.get_ifd(GPS_IFD).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    return exif.tobytes()


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_never_costs_the_thumbnail(image_format: str) -> None:
    """Thousands of damaged blocks in sound images: a thumbnail each, and fields that JSON takes."""
    source = random.Random(20)
    sound = rich_exif()
    for _ in range(700):
        changed = bytearray(sound)
        for _ in range(source.choice((1, 3, 20))):
            changed[source.randrange(6, len(changed))] = source.randrange(256)
        block = bytes(changed[: source.choice((len(changed), source.randrange(7, len(changed))))])
        buffer = BytesIO()
        Image.new("RGB", (32, 24), "olive").save(buffer, image_format, exif=block)
        rendered = render(buffer.getvalue(), None, ImageSettings(gps_policy=GpsPolicy.EXACT))
        assert {rendered.thumbnails[0].width, rendered.thumbnails[0].height} == {32, 24}
        assert len(dumps(rendered.exif)) <= MAX_BYTES


def test_png_tells_its_orientation_late() -> None:
    """An eXIf chunk may come after the pixels (PNG third edition, 5.6)."""
    buffer = BytesIO()
    Image.new("RGB", (640, 480)).save(buffer, "PNG", exif=rich_exif())
    data = buffer.getvalue()
    at = data.index(b"eXIf") - 4
    size = int.from_bytes(data[at : at + 4], "big") + 12
    end = data.index(b"IEND") - 4
    moved = data[:at] + data[at + size : end] + data[at : at + size] + data[end:]
    rendered = render(moved, None, ImageSettings())
    assert (rendered.facts.orientation, rendered.facts.width, rendered.exif["make"]) == (6, 480, "Canon")


@pytest.mark.skipif(not photographs(), reason="no photographs here")
def test_real_cameras() -> None:
    """What exiftool says of these photographs."""
    expected = {
        "nokia-exif.jpg": {
            "make": "HMD Global",
            "iso": 100,
            "dateTimeOriginal": "2022-08-14T14:12:31+03:00",
            "hasGps": True,
        },
        "iphone-exif.jpg": {"model": "iPhone 6", "exposureTime": "1/40", "focalLength": 4.15, "hasGps": True},
        "canon-rotated-6.jpg": {"orientation": 6, "meteringMode": "pattern", "flashFired": False, "hasGps": False},
    }
    for name, fields in expected.items():
        found = render((FOLDER / name).read_bytes(), None, ImageSettings()).exif
        assert {field: found[field] for field in fields} == fields
        assert "gps" not in found
        json.dumps(found, allow_nan=False)
