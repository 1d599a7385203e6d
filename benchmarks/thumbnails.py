"""Thumbnails against their peers: CPU time by class of image, and whether speed was bought with damage.

    python benchmarks/thumbnails.py [FOLDER ...] [--rounds N] [--only CLASS]

Peers: the original project's routine (re-written from its description), pyvips and sharp; each engine in its own
process, the engines taking turns on every image, medians of the rounds. Ratios are geometric means over a class;
above 1, imgpipe is faster. Peers are installed on first use, in a cache folder, for the benchmark only.

Photographs: FOLDER, else `$IMGPIPE_PHOTOS`, else `../shared/photos` beside the checkout, else Debian's wallpapers.
Exit code 1 when a target is missed.
"""

import argparse
import base64
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgpipe" / "benchmarks"
PEERS = ("pyvips==3.2.0", "pyvips-binary==8.18.7", "numpy>=2", "Pillow>=12.3")
SHARP = "sharp@0.35.5"
SIZES = (200, 800)
WALLPAPERS = (Path("/usr/share/wallpapers"), Path("/usr/share/backgrounds"))
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".gif"})
LEAST_PROGRESSIVE_PIXELS = 4_000_000

ENOUGH_REAL = 4
DERIVED: dict[str, tuple[str, str, dict[str, object]]] = {
    "JPEG progressive": ("JPEG", "-progressive.jpg", {"quality": 88, "progressive": True}),
    "PNG": ("PNG", ".png", {}),
    "WebP": ("WEBP", ".webp", {"quality": 80}),
    "AVIF": ("AVIF", ".avif", {"quality": 65, "speed": 8}),
}

# By class and size: how many times faster than the original, pyvips and sharp at least.
TARGETS = {
    ("JPEG baseline", 200): (1.15, 1.15, 1.15),
    ("JPEG baseline", 800): (2.0, 0.93, 0.85),
    ("JPEG progressive", 200): (3.5, 3.5, 3.5),
    ("JPEG progressive", 800): (1.3, 0.95, 0.9),
    ("PNG", 200): (1.8, 0.6, 0.75),
    ("WebP", 200): (1.8, 1.1, 1.1),
    ("AVIF", 200): (0.98, 2.5, 2.5),
}
ENGINES = ("original", "pyvips", "sharp", "decode")
# How far below the original's the mean SSIM of upright images may be.
SSIM_MARGIN = {200: 0.002, 800: 0.003}


@dataclass(frozen=True)
class Sample:
    """`derived`: a real photograph's pixels, encoded for the benchmark because there is no real file of the class."""

    path: Path
    kind: str
    upright: bool
    derived: bool = False


class Process:
    """An engine that answers line by line."""

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "VIPS_CONCURRENCY": "1", "UV_THREADPOOL_SIZE": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def install_peers() -> tuple[str, Path | None]:
    """The interpreter that has pyvips and numpy, and the folder where sharp is (None without npm)."""
    python = CACHE / "venv" / "bin" / "python"
    stamp = CACHE / "installed"
    wanted = " ".join((*PEERS, SHARP, platform.python_version()))
    node_modules = CACHE / "sharp" if shutil.which("npm") else None
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"installing the peers in {CACHE}", file=sys.stderr)
        venv.create(CACHE / "venv", with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS], check=True)
        if node_modules:
            node_modules.mkdir(parents=True, exist_ok=True)
            command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(node_modules), SHARP]
            subprocess.run(command, check=True)
        stamp.write_text(wanted)
    return str(python), node_modules


def folders(named: list[Path]) -> list[Path]:
    if named:
        return named
    if "IMGPIPE_PHOTOS" in os.environ:
        return [Path(os.environ["IMGPIPE_PHOTOS"])]
    shared = HERE.parents[1] / "shared" / "photos"
    return [shared] if shared.is_dir() else [folder for folder in WALLPAPERS if folder.is_dir()]


def samples(paths: Iterable[Path]) -> list[Sample]:
    found = []
    for path in paths:
        with Image.open(path) as image:
            kind = classify(image)
            upright = image.getexif().get(0x0112, 1) == 1
        if kind is not None:
            found.append(Sample(path, kind, upright))
    return found


def classify(image: Image.Image) -> str | None:
    if image.format in ("JPEG", "MPO"):
        if image.mode == "CMYK":
            return "JPEG CMYK"
        if not image.info.get("progressive"):
            return "JPEG baseline"
        return "JPEG progressive" if image.width * image.height >= LEAST_PROGRESSIVE_PIXELS else None
    return {"PNG": "PNG", "WEBP": "WebP", "AVIF": "AVIF", "TIFF": "TIFF", "GIF": "GIF"}.get(image.format or "")


def derived(real: list[Sample]) -> list[Sample]:
    """Files of the pixels of up to three baseline photographs, for classes of which there are few real ones."""
    sources = [sample.path for sample in real if sample.kind == "JPEG baseline" and sample.upright][:3]
    made = []
    for kind, (image_format, suffix, options) in DERIVED.items():
        if sum(sample.kind == kind for sample in real) >= ENOUGH_REAL:
            continue
        for source in sources:
            path = CACHE / "derived" / f"{source.stem}{suffix}"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                buffer = BytesIO()
                with Image.open(source) as image:
                    image.convert("RGB").save(buffer, image_format, **options)
                path.write_bytes(buffer.getvalue())
            made.append(Sample(path, kind, upright=True, derived=True))
    return made


@dataclass(frozen=True)
class Measured:
    sample: Sample
    size: int
    ms: dict[str, float]
    ssim: dict[str, float]


def measure(sample: Sample, size: int, engines: dict[str, Process], judge: Process, rounds: int) -> Measured:
    spent: dict[str, list[float]] = {name: [] for name in engines}
    thumbnails: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, engine in engines.items():
            answer = json.loads(engine.ask(f"{sample.path}\t{size}"))
            if number:  # the first round warms up
                spent[name].append(answer["ms"])
            thumbnails[name] = answer["thumbnail"]
    ssim = {
        name: float(judge.ask(f"{sample.path}\t{size}\t{thumbnail}"))
        for name, thumbnail in thumbnails.items()
        if base64.b64decode(thumbnail)
    }
    return Measured(sample, size, {name: statistics.median(times) for name, times in spent.items()}, ssim)


def geomean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))


def report(measured: list[Measured]) -> bool:
    """The table on stdout; whether every target was met."""
    met = True
    print("| class | n | px | ms | original | pyvips | sharp | decode only | SSIM | original's |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    kinds = dict.fromkeys(m.sample.kind for m in measured)
    for kind in kinds:
        for size in SIZES:
            rows = [m for m in measured if m.sample.kind == kind and m.size == size]
            if not rows:
                continue
            cells = []
            targets = TARGETS.get((kind, size), ())
            for index, name in enumerate(ENGINES):
                if name not in rows[0].ms:
                    cells.append("-")
                    continue
                ratio = geomean(row.ms[name] / row.ms["imgpipe"] for row in rows)
                target = targets[index] if index < len(targets) else None
                missed = target is not None and ratio < target
                met &= not missed
                wanted = "" if target is None else f" (>= {target:g})"
                cells.append(f"{ratio:.2f}x{wanted}{' MISSED' if missed else ''}")
            ours, theirs = (statistics.mean(row.ssim[name] for row in rows) for name in ("imgpipe", "original"))
            number = f"{len(rows)}" + (f" ({n} derived)" if (n := sum(row.sample.derived for row in rows)) else "")
            milliseconds = geomean(row.ms["imgpipe"] for row in rows)
            print(
                f"| {kind} | {number} | {size} | {milliseconds:.1f} | {' | '.join(cells)} | {ours:.4f} | {theirs:.4f} |"
            )
    for size, margin in SSIM_MARGIN.items():
        upright = [m for m in measured if m.size == size and m.sample.upright]
        if not upright:
            continue
        ours, theirs = (statistics.mean(m.ssim[name] for m in upright) for name in ("imgpipe", "original"))
        close = ours >= theirs - margin
        met &= close
        verdict = "within" if close else "MISSED:"
        print(
            f"\nMean SSIM of {len(upright)} upright images at {size} px: {ours:.4f}, the original's {theirs:.4f}"
            f" ({verdict} {margin})"
        )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="*")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help="one class, as the table names it")
    arguments = parser.parse_args()
    where = folders(arguments.folder)
    paths = [path for folder in where for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    real = samples(paths)
    if not real:
        print("no photographs: name a folder, or install plasma-workspace-wallpapers", file=sys.stderr)
        return 2
    python, sharp = install_peers()
    engines = {
        "imgpipe": Process([sys.executable, str(HERE / "_engines.py"), "imgpipe"]),
        "original": Process([sys.executable, str(HERE / "_engines.py"), "original"]),
        "pyvips": Process([python, str(HERE / "_engines.py"), "pyvips"]),
        "decode": Process([sys.executable, str(HERE / "_engines.py"), "decode"]),
    }
    if sharp:
        engines["sharp"] = Process(["node", str(HERE / "_sharp.mjs"), str(sharp)])
    judge = Process([python, str(HERE / "_judge.py")])
    measured = []
    try:
        for sample in sorted((*real, *derived(real)), key=lambda sample: sample.kind):
            if arguments.only not in (None, sample.kind):
                continue
            for size in SIZES:
                measured.append(measure(sample, size, engines, judge, arguments.rounds))
                print(".", end="", file=sys.stderr, flush=True)
    finally:
        for process in (*engines.values(), judge):
            process.close()
    print(file=sys.stderr)
    return 0 if report(measured) else 1


if __name__ == "__main__":
    sys.exit(main())
