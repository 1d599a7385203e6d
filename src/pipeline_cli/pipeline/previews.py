"""A thumbnail as text: two pixels to a character, in true colour."""

import io
import warnings

from pipeline_cli.errors import SomeFailedError

FORMATS = ("JPEG", "WEBP")  # what the pipeline makes; nothing else is opened
MAX_PIXELS = 4_000_000  # a thumbnail has at most a thousand by a thousand
UPPER_HALF = "\u2580"


def preview(data: bytes, *, columns: int, rows: int) -> list[str]:
    """Lines of at most `columns` characters, `rows` lines at most; each ends with its colours reset.

    The upper half block shows one pixel in the foreground's colour and the one below in the background's.
    SomeFailedError when the bytes are no thumbnail.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise SomeFailedError(f"The thumbnail has {image.width} x {image.height} pixels: not one of the pipeline.")
        small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SomeFailedError(f"The thumbnail cannot be shown: {error}", "Fetch it: imgpipe thumbs get KEY") from error
    small.thumbnail((max(1, columns), max(2, 2 * rows)))
    lines = []
    for top in range(0, small.height, 2):
        line = []
        for x in range(small.width):
            upper = _rgb(small, x, top)
            lower = _rgb(small, x, top + 1) if top + 1 < small.height else None
            back = f"\x1b[48;2;{lower}m" if lower else "\x1b[49m"
            line.append(f"\x1b[38;2;{upper}m{back}{UPPER_HALF}")
        lines.append("".join(line) + "\x1b[0m")
    return lines


def _rgb(image: "object", x: int, y: int) -> str:
    from PIL import Image

    assert isinstance(image, Image.Image)  # noqa: S101  # for mypy: Pillow is imported late
    pixel = image.getpixel((x, y))
    assert isinstance(pixel, tuple)  # noqa: S101  # for mypy: of an RGB image
    return ";".join(str(int(value)) for value in pixel)
