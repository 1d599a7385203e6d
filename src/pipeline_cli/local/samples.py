"""Images to try the pipeline with: photographs in kind, drawn here, and two that are broken.

They differ in what an operator meets: formats, EXIF, orientation, transparency, names of every sort.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

_ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
_HORIZON = 0.55  # of the height


def make_samples(folder: Path) -> list[str]:
    """Draw the samples into a folder; returns their names, relative to it."""
    from PIL import Image

    def save(name: str, image: Image.Image, **settings: Any) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file, **settings)
        made.append(name)

    made: list[str] = []
    canon = exif("Canon", "EOS R6", "2026:06:21 05:12:40")
    phone = exif("Apple", "iPhone 15", "2026:08:02 19:03:11")
    turned = exif("Apple", "iPhone 15", "2026:08:02 19:05:52", orientation=6)
    save("alps.jpg", landscape(2400, 1600, 1), quality=88, exif=canon)
    save("upright phone photo.jpg", landscape(1600, 1200, 2), quality=85, exif=turned)
    save("café terrace.jpg", landscape(1500, 1000, 3), quality=85, exif=phone)
    save("🌅 sunrise.jpg", landscape(1800, 1012, 4, sky=((30, 20, 70), (255, 150, 60))), quality=88, exif=canon)
    save("2026/field & fence + 50%.jpg", landscape(1200, 900, 5), quality=80)
    save("2026/progressive.jpg", landscape(2000, 1333, 6), quality=85, progressive=True, exif=canon)
    save("2026/grey.jpg", landscape(1000, 1000, 7).convert("L"), quality=80)
    save("logo.png", logo(900, 600))
    save("meadow.webp", landscape(1600, 1067, 8), quality=80)
    save("waves.gif", landscape(640, 360, 9).quantize(64))
    save("-leading dash.jpg", landscape(800, 533, 10), quality=80)
    whole = (folder / "alps.jpg").read_bytes()
    for name, data in (
        ("broken/half a photo.jpg", whole[: len(whole) // 2]),
        ("broken/only claims to be one.jpg", b"These are words, whatever the name says.\n"),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        made.append(name)
    return made


def landscape(
    width: int,
    height: int,
    seed: int,
    *,
    sky: tuple[tuple[int, int, int], tuple[int, int, int]] = ((64, 120, 200), (220, 232, 240)),
) -> "Image":
    """A sky with a sun over hills, grainy as a photograph is; the same for the same seed."""
    from PIL import Image, ImageChops, ImageDraw

    chance = random.Random(seed)  # noqa: S311  # scenery
    fade = Image.linear_gradient("L").resize((width, height))
    image = Image.composite(Image.new("RGB", (width, height), sky[1]), Image.new("RGB", (width, height), sky[0]), fade)
    draw = ImageDraw.Draw(image)
    radius = height // 12
    x, y = chance.randint(width // 5, width * 4 // 5), chance.randint(height // 8, height // 3)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 244, 214))
    for depth in range(4):
        shade = 150 - 32 * depth
        colour = (shade // 2 + chance.randint(0, 20), shade, shade // 2 + chance.randint(0, 10))
        draw.polygon(list(_ridge(chance, width, height, depth)), fill=colour)
    grain = Image.effect_noise((width, height), 22).convert("RGB")
    return ImageChops.overlay(image, grain)


def _ridge(chance: random.Random, width: int, height: int, depth: int) -> Iterable[tuple[float, float]]:
    """A line of hills from left to right, and the ground below it."""
    level = height * (_HORIZON + 0.11 * depth)
    points = 14
    for number in range(points + 1):
        yield width * number / points, level - chance.uniform(0, height * 0.14)
    yield width, height
    yield 0, height


def logo(width: int, height: int) -> "Image":
    """Shapes on nothing: an image whose background is transparent."""
    from PIL import Image, ImageDraw

    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    edge = height // 8
    draw.rounded_rectangle((edge, edge, width - edge, height - edge), radius=edge, fill=(200, 40, 60, 230))
    draw.ellipse((width // 3, height // 4, width * 2 // 3, height * 3 // 4), fill=(255, 255, 255, 160))
    return image


def exif(make: str, model: str, taken: str, *, orientation: int = 1) -> "Exif":
    """What a camera says of a photograph."""
    from PIL import Image

    said = Image.Exif()
    said[0x010F], said[0x0110], said[_ORIENTATION] = make, model, orientation
    ifd = said.get_ifd(_EXIF_IFD)
    ifd[0x9003] = taken  # DateTimeOriginal
    ifd[0x829A], ifd[0x829D], ifd[0x8827] = 1 / 250, 5.6, 200  # ExposureTime, FNumber, ISO
    return said
