"""A progressive JPEG without the scans that an eighth-size decode does not look at.

Shrunk by 8, libjpeg makes one sample of each 8 x 8 block: its DC coefficient. (Where both sides of a component are
subsampled, as chroma in 4:2:0, a block makes 2 x 2 samples, and some AC coefficients count.) A baseline file holds a
block's coefficients together, so all must be read. A progressive file sends them in scans: the AC scans of luma are
most of its bytes, decoded for nothing.

So they are left out before the decoder sees the file. What is left is an unfinished progressive file, whose blocks
libjpeg smooths on a guess, unless a quantizer that the guess divides by is zero. Therefore the table of a component of
the first scan comes once more, with two zeros: for the coefficients (2, 0) and (0, 2), which a block that makes 1 or
2 x 2 samples has no use for. The pixels are then the same, bit for bit, as those of the whole file, at a quarter of
the time.

That holds for a sound file whose scans, taken together, send every coefficient to the last bit. Anything else is
returned as it is, so that the decoder sees the real bytes and says what is wrong with them. The caller must have asked
the decoder whether it shrinks by 8.

Markers, scans and Huffman tables: ITU-T T.81, annexes B, C and G. What libjpeg uses of a block: jdmaster.c
(jpeg_calc_output_dimensions), jdcoefct.c (smoothing_ok), jdinput.c (latch_quant_tables) and jidctred.c (jpeg_idct_2x2).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from image_processor import jpeg
from image_processor.admission import MAX_SCANS

_LAST = 63  # index of a block's last coefficient
_UNSENT = -1

# Entropy-coded data ends at a marker: FF, but not FF00 (a stuffed FF) and not a restart marker.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7]")
# Application data, comments, quantization tables, Huffman tables and restart intervals may stand between scans.
_BETWEEN_SCANS = frozenset({*range(0xE0, 0xF0), 0xFE, jpeg.DQT, jpeg.DHT, jpeg.DRI})

# Where a quantization table, in zigzag order, has the coefficients (2, 0) and (0, 2).
_UNSEEN_QUANTIZERS = (3, 5)


class _UnusualError(Exception):
    """The file is not one that may be shortened."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A segment, or a scan with its data: `start` to `end` in the file. `components` are indexes; () for no scan."""

    start: int
    end: int
    components: tuple[int, ...] = ()
    first_coefficient: int = 0


def without_unseen_scans(data: bytes) -> bytes:
    """The JPEG without what a decode at an eighth does not look at; the same object where there is nothing to gain.

    It has no more scans than `admission` lets through.
    """
    header = jpeg.read_header(data)
    if (
        header is None
        or header.sof != jpeg.SOF_PROGRESSIVE
        or header.precision != 8
        or len(header.components) not in (1, 3)
    ):
        return data
    unseen = {index for index in range(len(header.components)) if _only_dc_is_seen(header, index)}
    try:
        pieces = list(_pieces(data, header))
        unsmoothed = _unsmoothed(data, header)
    except (_UnusualError, IndexError):
        return data
    kept = [
        data[piece.start : piece.end]
        for piece in pieces
        if piece.first_coefficient == 0 or piece.components[0] not in unseen
    ]
    if len(kept) == len(pieces):
        return data
    return b"".join((data[: header.scans_at], unsmoothed, *kept, bytes((0xFF, jpeg.EOI))))


def _only_dc_is_seen(header: jpeg.Header, index: int) -> bool:
    component = header.components[index]
    widest = max(other.horizontal for other in header.components)
    tallest = max(other.vertical for other in header.components)
    return bool(widest % (2 * component.horizontal) or tallest % (2 * component.vertical))


def _pieces(data: bytes, header: jpeg.Header) -> Iterator[_Piece]:
    """Everything from the first scan to the end of the image, in order."""
    # How many low bits each coefficient still lacks, as libjpeg counts them (coef_bits).
    missing = [[_UNSENT] * (_LAST + 1) for _ in header.components]
    tables = {n for _, marker, body in jpeg.segments(data) if marker == jpeg.DHT for n in _ac_tables(body)}
    position, scans = header.scans_at, 0
    while True:
        if data[position] != 0xFF or scans > MAX_SCANS:
            raise _UnusualError
        marker = data[position + 1]
        if marker == jpeg.EOI:
            break
        body = position + 4
        end = position + 2 + int.from_bytes(data[position + 2 : body], "big")
        if end > len(data) or end < body:
            raise _UnusualError
        if marker == jpeg.SOS:
            scans += 1
            components, first = _account(data[body:end], header, missing)
            if first and data[end - 4] & 15 not in tables:
                raise _UnusualError
            stop = _SCAN_END.search(data, end)
            if stop is None:
                raise _UnusualError
            yield _Piece(position, stop.start(), components, first)
            position = stop.start()
        elif marker in _BETWEEN_SCANS:
            if marker == jpeg.DHT:
                tables |= _ac_tables(data[body:end])
            yield _Piece(position, end)
            position = end
        else:
            raise _UnusualError
    if any(any(bits) for bits in missing):
        raise _UnusualError


def _ac_tables(body: bytes) -> set[int]:
    """The numbers of the AC tables in a DHT segment, each one that the decoder would take (T.81, B.2.4.2 and annex C).

    A table is looked at when a scan uses it: left out with its scans, a broken one would not be found out.
    """
    numbers = set()
    while body:
        kind, counts = body[0], body[1:17]
        total = sum(counts)
        if kind & 15 > 3 or kind >> 4 > 1 or total > 256 or len(body) < 17 + total:
            raise _UnusualError
        code = 0
        for length, count in enumerate(counts, start=1):
            code = 2 * code + count
            if code >= 1 << length:  # no code is all ones
                raise _UnusualError
        if kind >> 4:
            numbers.add(kind & 15)
        body = body[17 + total :]
    return numbers


def _account(scan: bytes, header: jpeg.Header, missing: list[list[int]]) -> tuple[tuple[int, ...], int]:
    """The components and first coefficient of a scan, after noting what it sends."""
    count = scan[0]
    if len(scan) != 4 + 2 * count or not 1 <= count <= len(header.components):
        raise _UnusualError
    ids = [component.id for component in header.components]
    wanted = [scan[1 + 2 * n] for n in range(count)]
    if len(set(ids)) != len(ids) or len(set(wanted)) != count or not set(wanted) <= set(ids):
        raise _UnusualError
    components = tuple(ids.index(wanted_id) for wanted_id in wanted)
    first, last, before, after = scan[-3], scan[-2], scan[-1] >> 4, scan[-1] & 15
    dc = first == 0
    if (dc and last != 0) or (not dc and (count != 1 or not first <= last <= _LAST)):
        raise _UnusualError
    for index in components:
        bits = missing[index]
        if not dc and bits[0] == _UNSENT:
            raise _UnusualError
        for coefficient in range(first, last + 1):
            # The first scan of a coefficient sends all but its low bits, each further one a bit more.
            sent_before = bits[coefficient] != _UNSENT
            if sent_before != (before > 0) or (sent_before and (before != bits[coefficient] or after != before - 1)):
                raise _UnusualError
            bits[coefficient] = after
    return components, first


def _unsmoothed(data: bytes, header: jpeg.Header) -> bytes:
    """A DQT segment that keeps the decoder from smoothing: a table of the file with quantizers of zero.

    The decoder keeps a component's table as it is at the component's first scan. The segment is to stand before the
    first scan of all.
    """
    widest = max(component.horizontal for component in header.components)
    tallest = max(component.vertical for component in header.components)
    if any(widest % (4 * c.horizontal) == 0 and tallest % (4 * c.vertical) == 0 for c in header.components):
        raise _UnusualError  # a block of 4 x 4 samples needs those coefficients
    tables: dict[int, bytes] = {}
    for _, marker, body in jpeg.segments(data):
        while marker == jpeg.DQT and body:
            length = 1 + (128 if body[0] >> 4 else 64)
            if len(body) < length or body[0] & 15 > 3:
                raise _UnusualError
            tables[body[0] & 15] = body[:length]
            body = body[length:]
    first = next(c for c in header.components if c.id == data[header.scans_at + 5])
    if (table := bytearray(tables.get(first.quantization_table, b""))) == b"":
        raise _UnusualError
    width = 2 if table[0] >> 4 else 1
    for index in _UNSEEN_QUANTIZERS:
        table[1 + width * index : 1 + width * (index + 1)] = bytes(width)
    return bytes((0xFF, jpeg.DQT, 0, 2 + len(table))) + table
