"""How many pixels an image stores, read from its header alone.

For whoever must judge an image before it is decoded, sent or even read whole: no decoder, no library, a few
microseconds a file. What cannot be told for certain is None: then the decoder decides.
"""

import struct
from collections.abc import Callable

# `read(offset, size)` gives the bytes of the file at that place, fewer (or none) where it ends.
Read = Callable[[int, int], bytes]

# Start of frame: C0 to CF but for DHT (C4), JPG (C8) and DAC (CC). ITU-T T.81, table B.1.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
_SOS, _EOI = 0xDA, 0xD9
# More segments than any camera writes before the frame header; ends the walk through a hostile file.
_MAX_SEGMENTS = 1000
_MAX_TIFF_TAGS = 500
_MAX_META_BYTES = 256 * 1024


def stored_size(image_format: str, read: Read) -> tuple[int, int] | None:
    """Width and height in pixels as stored, before orientation, of a file of a format that `kinds.sniff` told."""
    reader = _READERS.get(image_format)
    try:
        size = reader(read) if reader else None
    except (struct.error, IndexError):  # the header ends early
        return None
    return size if size is not None and min(size) > 0 else None


def _jpeg(read: Read) -> tuple[int, int] | None:
    position = 2
    for _ in range(_MAX_SEGMENTS):
        head = read(position, 9)
        if head[0] != 0xFF:
            return None
        marker = head[1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _SOF:
            height, width = struct.unpack_from(">HH", head, 5)
            return width, height
        elif marker in (_SOS, _EOI):
            return None
        else:
            length = head[2] << 8 | head[3]
            if length < 2:
                return None
            position += 2 + length
    return None


def _png(read: Read) -> tuple[int, int] | None:
    """W3C PNG, 5.6: IHDR comes first."""
    head = read(0, 24)
    return struct.unpack_from(">II", head, 16) if head[12:16] == b"IHDR" else None


def _gif(read: Read) -> tuple[int, int]:
    return struct.unpack_from("<HH", read(0, 10), 6)


def _bmp(read: Read) -> tuple[int, int] | None:
    head = read(0, 26)
    (header_size,) = struct.unpack_from("<I", head, 14)
    if header_size == 12:  # BITMAPCOREHEADER
        return struct.unpack_from("<HH", head, 18)
    width, height = struct.unpack_from("<ii", head, 18)
    return width, abs(height)  # negative: stored from the top


def _webp(read: Read) -> tuple[int, int] | None:
    """RFC 9649, sections 2.5 to 2.7."""
    head = read(0, 30)
    match head[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X" if len(head) == 30:
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


def _tiff(read: Read) -> tuple[int, int] | None:
    """The first directory's ImageWidth (256) and ImageLength (257). TIFF 6.0, section 2."""
    head = read(0, 8)
    order = "<" if head[:2] == b"II" else ">"
    version, offset = struct.unpack_from(order + "HI", head, 2)
    if version != 42:  # BigTIFF
        return None
    (count,) = struct.unpack_from(order + "H", read(offset, 2))
    if count > _MAX_TIFF_TAGS:
        return None
    found: dict[int, int] = {}
    directory = read(offset + 2, 12 * count)
    for at in range(0, len(directory) - 11, 12):
        tag, kind = struct.unpack_from(order + "HH", directory, at)
        if tag in (256, 257) and kind in (3, 4):  # SHORT, LONG
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), directory, at + 8)
    return (found[256], found[257]) if len(found) == 2 else None


def _avif(read: Read) -> tuple[int, int] | None:
    """The largest image spatial extent (ISO/IEC 23008-12, 6.5.3): tiles and thumbnails are smaller than the image."""
    position = 0
    for _ in range(8):
        head = read(position, 8)
        length = int.from_bytes(head[:4], "big")
        if head[4:8] == b"meta":
            meta = read(position, min(length, _MAX_META_BYTES))
            break
        if length < 8:
            return None
        position += length
    else:
        return None
    sizes = []
    at = meta.find(b"ispe")
    while 0 <= at <= len(meta) - 16:
        sizes.append(struct.unpack_from(">II", meta, at + 8))
        at = meta.find(b"ispe", at + 4)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


_READERS: dict[str, Callable[[Read], tuple[int, int] | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
    "WEBP": _webp,
    "TIFF": _tiff,
    "AVIF": _avif,
    "HEIF": _avif,
}
