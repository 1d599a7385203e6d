"""One way to make thumbnails, in a process of its own: reads `<path>\\t<size>` lines, answers a line of JSON each.

    python _engines.py imgpipe|original|decode|pyvips

Each is asked for the same: the SHA-256 of the file, by which a pipeline knows its content, and a thumbnail, JPEG of
quality 85. What an engine does besides (imgpipe reads the EXIF, the original counts its tags) is its own affair.
The answer: CPU milliseconds of this process (user and system, all threads) and the thumbnail, base64.
"""

import base64
import hashlib
import json
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

Engine = Callable[[bytes, int], bytes]


def imgpipe() -> Engine:
    """All of it: hash, header facts, EXIF, thumbnail."""
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root / "lambdas"), str(root / "src")]
    from image_processor.rendering import render
    from image_processor.settings import ImageSettings

    def thumbnail(data: bytes, size: int) -> bytes:
        return render(data, None, ImageSettings(thumbnail_size=size, memory_budget=2**40)).thumbnails[0].data

    return thumbnail


def original() -> Engine:
    """The original project's routine, from its description: metadata from one open, the thumbnail from another;
    alpha and palettes are pasted on white at full size, then Image.thumbnail with LANCZOS, JPEG 85, optimized."""
    from PIL import Image

    Image.init()

    def thumbnail(data: bytes, size: int) -> bytes:
        hashlib.sha256(data).hexdigest()
        with Image.open(BytesIO(data)) as image:
            _ = (image.size, image.format, image.mode, len(image.getexif()))
        with Image.open(BytesIO(data)) as image:
            result: Image.Image = image
            if image.mode in ("RGBA", "LA", "P"):
                white = Image.new("RGB", image.size, (255, 255, 255))
                if image.mode == "P":
                    result = image.convert("RGBA")
                white.paste(result, mask=result.split()[-1] if result.mode == "RGBA" else None)
                result = white
            result.thumbnail((size, size), Image.Resampling.LANCZOS)
            buffer = BytesIO()
            result.save(buffer, "JPEG", quality=85, optimize=True)
            return buffer.getvalue()

    return thumbnail


def decode() -> Engine:
    """The floor, without the hash: only Pillow's decoding, a JPEG's at the scale that a thumbnail needs."""
    from PIL import Image

    def thumbnail(data: bytes, size: int) -> bytes:
        with Image.open(BytesIO(data)) as image:
            image.draft(None, (size, size))
            image.load()
        return b""

    return thumbnail


def pyvips() -> Engine:
    import pyvips as vips

    vips.cache_set_max(0)

    def thumbnail(data: bytes, size: int) -> bytes:
        hashlib.sha256(data).hexdigest()
        image = vips.Image.thumbnail_buffer(data, size, height=size, size="down")
        if image.hasalpha():
            image = image.flatten(background=255)
        return bytes(image.jpegsave_buffer(Q=85, optimize_coding=size <= 400, keep="none"))

    return thumbnail


def main() -> None:
    engine = {"imgpipe": imgpipe, "original": original, "decode": decode, "pyvips": pyvips}[sys.argv[1]]()
    for line in sys.stdin:
        path, size = line.rstrip("\n").split("\t")
        data = Path(path).read_bytes()
        started = time.process_time()
        thumbnail = engine(data, int(size))
        spent = (time.process_time() - started) * 1000
        print(json.dumps({"ms": spent, "thumbnail": base64.b64encode(thumbnail).decode()}), flush=True)


if __name__ == "__main__":
    main()
