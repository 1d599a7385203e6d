"""How like a thumbnail is to a full decode of its original: mean SSIM of luma (Wang et al. 2004: 11 x 11 Gaussian of
sigma 1.5, K1 = 0.01, K2 = 0.03).

    python _judge.py     reads `<path>\\t<size>\\t<thumbnail, base64>` lines, answers one number each

The reference: every pixel decoded, turned upright, laid on white, LANCZOS without a shortcut.
"""

import base64
import functools
import sys
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps

KERNEL = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
KERNEL /= KERNEL.sum()
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@functools.lru_cache(maxsize=1)
def upright(path: str) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "1":
        image = image.convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def blurred(plane: Any) -> Any:
    rows = sum(weight * plane[:, at : plane.shape[1] - 10 + at] for at, weight in enumerate(KERNEL))
    return sum(weight * rows[at : rows.shape[0] - 10 + at, :] for at, weight in enumerate(KERNEL))


def ssim(first: Image.Image, second: Image.Image) -> float:
    x, y = (np.asarray(image.convert("L"), dtype=np.float64) for image in (first, second))
    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    bottom = (mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2)
    return float((top / bottom).mean())


def main() -> None:
    for line in sys.stdin:
        path, _, encoded = line.rstrip("\n").split("\t")
        thumbnail = Image.open(BytesIO(base64.b64decode(encoded)))
        reference = upright(path)
        if (thumbnail.width > thumbnail.height) != (reference.width > reference.height):
            print(0.0, flush=True)  # lies on its side
            continue
        print(ssim(reference.resize(thumbnail.size, Image.Resampling.LANCZOS), thumbnail), flush=True)


if __name__ == "__main__":
    main()
