"""How many frames or pages a file has, and how long it plays: from its structure, nothing decoded, never more than a
limit counted.

Pillow counts too, but builds every frame's or page's whole description on the way, as far as a hostile file likes.
"""

import struct
from dataclasses import dataclass

from PIL import Image

# A GIF's data comes in blocks of at most 255 bytes: this many are 500 MB, or a file that wants to keep us busy.
_MAX_BLOCKS = 2_000_000


@dataclass(frozen=True, slots=True)
class Frames:
    """`duration_ms` of all frames together; None for a still, or where the format does not say."""

    count: int
    duration_ms: float | None = None


def count_frames(image: Image.Image, data: bytes, image_format: str, limit: int) -> Frames:
    """The frames or pages; a count beyond `limit` means more than that. Damaged structure ends the count early."""
    match image_format:
        case "GIF":
            frames = _gif(data, limit)
        case "WEBP":
            frames = _webp(data, limit)
        case "PNG":
            frames = _png(data, limit)
        case "TIFF":
            frames = Frames(_tiff_pages(data, limit))
        case "AVIF" | "HEIF":
            frames = Frames(int(getattr(image, "n_frames", 1)))
        case _:
            frames = Frames(1)
    return frames if frames.count > 1 else Frames(1)


def _gif(data: bytes, limit: int) -> Frames:
    """GIF89a, sections 18 to 26: blocks of data sub-blocks; delays in hundredths of a second."""
    count = delay = 0
    try:
        position = 13 + _colour_table(data[10])
        for _ in range(_MAX_BLOCKS):
            introducer = data[position]
            if introducer == 0x2C:
                count += 1
                if count > limit:
                    break
                position = _after_sub_blocks(data, position + 11 + _colour_table(data[position + 9]))
            elif introducer == 0x21:
                if data[position + 1] == 0xF9 and data[position + 2] == 4:
                    delay += int.from_bytes(data[position + 4 : position + 6], "little")
                position = _after_sub_blocks(data, position + 2)
            else:
                break
    except IndexError:
        pass  # cut off: what was counted counts
    return Frames(count, delay * 10.0 if count > 1 else None)


def _colour_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_sub_blocks(data: bytes, position: int) -> int:
    for _ in range(_MAX_BLOCKS):
        size = data[position]
        position += 1 + size
        if size == 0:
            return position
    return len(data)


def _webp(data: bytes, limit: int) -> Frames:
    """RFC 9649, section 2.7: an ANMF chunk for each frame, with its duration in milliseconds."""
    count = duration = 0
    if data[12:16] != b"VP8X" or not data[20] & 0x02:
        return Frames(1)
    position = 12
    while position + 8 <= len(data) and count <= limit:
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"ANMF":
            count += 1
            duration += int.from_bytes(data[position + 20 : position + 23], "little")
        position += 8 + size + (size & 1)
    return Frames(count, float(duration))


def _png(data: bytes, limit: int) -> Frames:
    """PNG third edition, 11.3.6: acTL says how many, each fcTL how long (a fraction of a second)."""
    control = data.find(b"acTL", 0, max(0, data.find(b"IDAT")))
    if control < 0:
        return Frames(1)
    (count,) = struct.unpack_from(">I", data, control + 4)
    if count > limit:
        return Frames(count)
    duration, position = 0.0, 8
    for _ in range(_MAX_BLOCKS):
        if position + 8 > len(data):
            break
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"fcTL" and size == 26 and position + 32 <= len(data):
            numerator, denominator = struct.unpack_from(">HH", data, position + 28)
            duration += 1000 * numerator / (denominator or 100)
        position += 12 + size
    return Frames(count, round(duration, 3))


def _tiff_pages(data: bytes, limit: int) -> int:
    """TIFF 6.0, section 2: directories in a chain; in BigTIFF with wider numbers."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    count_format, entry_size, offset_format = (f"{order}Q", 20, f"{order}Q") if big else (f"{order}H", 12, f"{order}I")
    count, seen = 0, set()
    try:
        (offset,) = struct.unpack_from(offset_format, data, 8 if big else 4)
        while offset and offset not in seen and count <= limit:
            seen.add(offset)
            (entries,) = struct.unpack_from(count_format, data, offset)
            count += 1
            (offset,) = struct.unpack_from(
                offset_format, data, offset + struct.calcsize(count_format) + entries * entry_size
            )
    except struct.error:
        pass  # the chain leaves the file: what was counted counts
    return count
