"""The header of a WebP (RFC 9649, sections 2.5 to 2.7), and by how much decoding can shrink one."""

import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Header:
    """What the first chunk says. `lossless` where it does not say."""

    width: int
    height: int
    has_alpha: bool
    animated: bool
    lossless: bool


def read_header(data: bytes) -> Header | None:
    """None where the bytes are no WebP's."""
    match data[12:16]:
        case b"VP8 " if len(data) >= 30:
            width, height = struct.unpack_from("<HH", data, 26)
            return Header(width & 0x3FFF, height & 0x3FFF, has_alpha=False, animated=False, lossless=False)
        case b"VP8L" if len(data) >= 25:
            bits = int.from_bytes(data[21:25], "little")
            alpha = bool(bits >> 28 & 1)
            return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, alpha, animated=False, lossless=True)
        case b"VP8X" if len(data) >= 30:
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
            alpha, animated = bool(data[20] & 0x10), bool(data[20] & 0x02)
            return Header(width, height, alpha, animated, lossless=True)
    return None


def shrinks_by(size: tuple[int, int], target: tuple[int, int]) -> int:
    """By what an opaque still is shrunk: so that at least twice the target is left to filter well."""
    return max(1, min(size[0] // (2 * target[0]), size[1] // (2 * target[1])))
