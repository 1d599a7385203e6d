"""What is kept of an image's EXIF (CIPA DC-008): a few fields, by name, made harmless.

Everything here was written by a stranger. Texts are cleaned and capped, numbers are finite, the whole stays small, and
a field that cannot be read is left out. Pillow's names and types are of `Image.Exif`.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from image_processor.settings import GpsPolicy
from image_processor.text import clean

MAX_BYTES = 8000  # as ASCII JSON, the longest that a map of texts can get

_EXIF_IFD = 0x8769
_GPS_IFD = 0x8825
_ORIENTATION = 0x0112

_COARSE_DECIMALS = 2  # about a kilometre
_EXACT_DECIMALS = 6  # about a hand's breadth

_EXPOSURE_PROGRAMS = {
    1: "manual",
    2: "normal",
    3: "aperture priority",
    4: "shutter priority",
    5: "creative",
    6: "action",
    7: "portrait",
    8: "landscape",
}
_METERING_MODES = {
    1: "average",
    2: "center-weighted average",
    3: "spot",
    4: "multi-spot",
    5: "pattern",
    6: "partial",
    255: "other",
}
_WHITE_BALANCES = {0: "auto", 1: "manual"}
_COLOR_SPACES = {1: "sRGB", 2: "Adobe RGB", 0xFFFF: "uncalibrated"}

_Reader = Callable[[Any], Any]


def orientation(exif: Mapping[int, Any]) -> int:
    """1 to 8; 1 (upright) for anything else."""
    value = exif.get(_ORIENTATION)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read_exif(exif: Image.Exif, policy: GpsPolicy) -> dict[str, Any]:
    """The fields of a Pillow `Exif`: see `fields_of`."""
    return fields_of(exif, lambda tag: _directory(exif, tag), policy)


def fields_of(
    main: Mapping[int, Any], directory: Callable[[int], Mapping[int, Any]], policy: GpsPolicy
) -> dict[str, Any]:
    """What is kept of the directory `main` and those that `directory` finds by tag, ready for JSON and DynamoDB.

    Never raises; `damaged` says that something asked for could not be read. `available` is whether there is any EXIF,
    `fields` how many tags its first directory holds.
    """
    first = _Values(main)
    photo, gps = (first.follow(directory, tag) for tag in (_EXIF_IFD, _GPS_IFD))
    fields: dict[str, Any] = {"available": bool(len(main)), "fields": len(main)}
    for name, tag, reader in _MAIN_FIELDS:
        _put(fields, name, reader(first.get(tag)))
    for name, tag, reader in _PHOTO_FIELDS:
        _put(fields, name, reader(photo.get(tag)))
    _put_time(fields, photo)
    if any(len(values.directory) for values in (first, photo, gps)):
        fields["hasGps"] = bool(gps.get(2)) and bool(gps.get(4))
    if policy is not GpsPolicy.NONE:
        _put(fields, "gps", _position(gps, policy))
    if first.damaged or photo.damaged or gps.damaged:
        fields["damaged"] = True
    return bounded(fields)


@dataclass(slots=True)
class _Values:
    """The values of a directory; one that cannot be read is none, and `damaged` says so."""

    directory: Mapping[int, Any]
    damaged: bool = False

    def get(self, tag: int) -> Any:
        try:
            value = self.directory.get(tag)
        except Exception:  # noqa: BLE001  # Pillow's parser raises what it likes on hostile bytes, and no thumbnail may fail for it
            self.damaged = True
            return None
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value

    def follow(self, directory: Callable[[int], Mapping[int, Any]], tag: int) -> "_Values":
        try:
            return _Values(directory(tag))
        except Exception:  # noqa: BLE001  # as above
            return _Values({}, damaged=True)


def _directory(exif: Image.Exif, tag: int) -> Mapping[int, Any]:
    """As `exif.get_ifd(tag)`, but each value is unpacked when it is asked for: that takes most of the time, and of a
    camera's tags most are never asked for.
    """
    from PIL import TiffImagePlugin  # not loaded where there is no EXIF

    offset = exif.get(tag)
    if offset is None:
        return {}
    exif.fp.seek(offset)
    directory = TiffImagePlugin.ImageFileDirectory_v2(exif.head, group=tag)
    directory.load(exif.fp)
    return directory


def number(value: Any) -> float | int | None:
    """A finite number of at most 9 significant digits, or None. Of several values the first."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if not math.isfinite(result) or abs(result) > 1e15:
        return None
    return int(result) if result == int(result) else float(f"{result:.9g}")


def whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else round(found)


def seconds(value: Any) -> str | None:
    """An exposure time as photographers write it: 1/250, 0.8, 30."""
    found = number(value)
    if found is None or not 1e-6 <= found <= 1e6:
        return None
    if found <= 0.3:
        return f"1/{round(1 / found)}"
    return f"{round(found, 1):g}"


def bounded(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with its longest texts halved until the whole fits `MAX_BYTES`."""
    while len(json.dumps(fields)) > MAX_BYTES:
        name = max((name for name in fields if isinstance(fields[name], str)), key=lambda name: len(fields[name]))
        fields = {**fields, name: fields[name][: len(fields[name]) // 2]}
    return fields


def _choice(names: Mapping[int, str]) -> _Reader:
    def read(value: Any) -> str | None:
        found = whole(value)
        return None if found is None else names.get(found)

    return read


def _flash_fired(value: Any) -> bool | None:
    found = whole(value)
    return None if found is None else bool(found & 1)


_MAIN_FIELDS: tuple[tuple[str, int, _Reader], ...] = (
    ("make", 0x010F, clean),
    ("model", 0x0110, clean),
    ("software", 0x0131, clean),
    ("artist", 0x013B, clean),
    ("copyright", 0x8298, clean),
    ("imageDescription", 0x010E, clean),
    ("orientation", _ORIENTATION, whole),
)
_PHOTO_FIELDS: tuple[tuple[str, int, _Reader], ...] = (
    ("lensModel", 0xA434, clean),
    ("exposureTime", 0x829A, seconds),
    ("fNumber", 0x829D, number),
    ("iso", 0x8827, whole),
    ("focalLength", 0x920A, number),
    ("focalLength35mm", 0xA405, whole),
    ("exposureBias", 0x9204, number),
    ("exposureProgram", 0x8822, _choice(_EXPOSURE_PROGRAMS)),
    ("meteringMode", 0x9207, _choice(_METERING_MODES)),
    ("flashFired", 0x9209, _flash_fired),
    ("whiteBalance", 0xA403, _choice(_WHITE_BALANCES)),
    ("colorSpace", 0xA001, _choice(_COLOR_SPACES)),
)

_TIME = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)\Z", re.ASCII)
_OFFSET = re.compile(r"[+-]\d\d:\d\d\Z", re.ASCII)


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        fields[name] = value


def _put_time(fields: dict[str, Any], photo: _Values) -> None:
    """dateTimeOriginal in ISO 8601. Without an offset it is the camera's local time, and `dateTimeIsLocal` says so."""
    match = _TIME.match(clean(photo.get(0x9003)) or "")
    if match is None or not (match[1] >= "0001" and "01" <= match[2] <= "12" and "01" <= match[3] <= "31"):
        return
    year, month, day, hour, minute, second = match.groups()
    if not (hour <= "23" and minute <= "59" and second <= "60"):
        return
    offset = clean(photo.get(0x9011)) or ""
    known = _OFFSET.match(offset) is not None
    fields["dateTimeOriginal"] = f"{year}-{month}-{day}T{hour}:{minute}:{second}{offset if known else ''}"
    if not known:
        fields["dateTimeIsLocal"] = True


def _position(gps: _Values, policy: GpsPolicy) -> dict[str, float] | None:
    """Degrees, north and east positive; metres above the sea."""
    latitude = _degrees(gps.get(2), gps.get(1), "S", 90)
    longitude = _degrees(gps.get(4), gps.get(3), "W", 180)
    if latitude is None or longitude is None:
        return None
    decimals = _COARSE_DECIMALS if policy is GpsPolicy.COARSE else _EXACT_DECIMALS
    position = {"lat": round(latitude, decimals), "lon": round(longitude, decimals)}
    altitude = number(gps.get(6))
    if policy is GpsPolicy.EXACT and altitude is not None and abs(altitude) < 1e5:
        below = gps.get(5) in (1, b"\x01")
        position["alt"] = round(-altitude if below else altitude, 1)
    return position


def _degrees(value: Any, reference: Any, negative: str, limit: int) -> float | None:
    parts = [number(part) for part in value] if isinstance(value, tuple | list) else [number(value)]
    if not 1 <= len(parts) <= 3 or any(part is None or part < 0 for part in parts):
        return None
    # fsum: the same in every Python, where sum has other last digits since 3.12.
    degrees = math.fsum(part / 60**power for power, part in enumerate(parts) if part is not None)
    if degrees > limit:
        return None
    return -degrees if (clean(reference) or "").upper().startswith(negative) else degrees
