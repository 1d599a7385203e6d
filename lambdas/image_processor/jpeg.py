"""The header of a JPEG, up to its first scan (ITU-T T.81, annex B)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

SOI, EOI, SOS, DQT, DHT, DRI = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD
SOF_PROGRESSIVE = 0xC2
# Start of frame: C0 to CF but for DHT (C4), JPG (C8) and DAC (CC).
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN = re.compile(rb"\xff\xda")  # finds it in less than half the time of bytes.count
_NO_LENGTH = frozenset({0x01, SOI, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True)
class Component:
    id: int
    horizontal: int
    vertical: int
    quantization_table: int


@dataclass(frozen=True, slots=True)
class Header:
    """`sof` is the marker's second byte, `scans_at` where the first scan's marker is."""

    sof: int
    precision: int
    width: int
    height: int
    components: tuple[Component, ...]
    scans_at: int
    components_in_first_scan: int

    @property
    def progressive(self) -> bool:
        return self.sof in (0xC2, 0xC6, 0xCA, 0xCE)

    @property
    def whole_image_buffered(self) -> bool:
        """Whether the decoder must hold every coefficient, because a later scan may change the first pixel."""
        return self.progressive or self.components_in_first_scan < len(self.components)

    @property
    def samples_per_pixel(self) -> float:
        """3 for 4:4:4, 2 for 4:2:2, 1.5 for 4:2:0."""
        widest = max((component.horizontal for component in self.components), default=1)
        tallest = max((component.vertical for component in self.components), default=1)
        return sum(component.horizontal * component.vertical for component in self.components) / (widest * tallest)


def read_header(data: bytes) -> Header | None:
    """The header, or None where the bytes are not those of a well-formed JPEG."""
    frame: tuple[int, int, int, int, tuple[Component, ...]] | None = None
    for position, marker, body in segments(data):
        if marker in _SOF:
            if frame is not None or len(body) < 6 or len(body) != 6 + 3 * body[5]:
                return None
            components = tuple(
                Component(body[at], body[at + 1] >> 4, body[at + 1] & 15, body[at + 2]) for at in range(6, len(body), 3)
            )
            if not components or any(not (1 <= c.horizontal <= 4 and 1 <= c.vertical <= 4) for c in components):
                return None
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            frame = marker, body[0], width, height, components
        elif marker == SOS:
            if frame is None or not body:
                return None
            return Header(*frame, scans_at=position, components_in_first_scan=body[0])
    return None


def segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Position, marker and body of each segment up to the first scan's; ends early where the bytes make no sense."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _NO_LENGTH:
            position += 2
        else:
            length = int.from_bytes(data[position + 2 : position + 4], "big")
            body = data[position + 4 : position + 2 + length]
            if marker == EOI or length < 2 or len(body) != length - 2:
                return
            yield position, marker, body
            if marker == SOS:
                return
            position += 2 + length


def count_scans(data: bytes, limit: int) -> int:
    """How many scans the first image has, counted up to `limit` + 1.

    Entropy-coded data never holds the marker, so that counting bytes is an upper bound; only where that is over the
    limit are the segments walked, past embedded previews and further images.
    """
    upper = sum(1 for _ in islice(_SCAN.finditer(data), limit + 1))
    if upper <= limit:
        return upper
    scans, position = 0, 2
    while scans <= limit:
        position = data.find(b"\xff", position)
        if position < 0 or position + 2 > len(data):
            break
        marker = data[position + 1]
        if marker == EOI:
            break
        if marker in (0x00, 0xFF) or marker in _NO_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        scans += marker == SOS
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return scans
