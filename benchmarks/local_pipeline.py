"""How fast the local pipeline is: small JPEGs from upload to item, on this machine.

    python benchmarks/local_pipeline.py [--images 200] [--rounds 6]

Starts a pipeline of its own with `imgpipe local up`, uploads with `imgpipe upload --wait`, and prints images per
second from the first upload to the last item (as the items tell) and over the whole command, the processor time that
the emulator and the functions spent on each (which a busy machine hardly changes), and the most processes and memory
that they took at once. The first round pays for starting the functions' processes; the median of the others is held
against the target of 40 images a second on two cores.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image

IMGPIPE = Path(sys.executable).with_name("imgpipe")
QUERY = ("meta", "query", "-q", "--limit", "0", "--columns", "uploadDate,updatedAt", "--output", "json")
TARGET = 40.0  # images per second on two cores


@dataclass
class Usage:
    """The processes of the pipeline: seconds of processor time so far, and the most that was seen at once."""

    group: int
    processor_seconds: float = 0.0
    processes: int = 0
    kilobytes: int = 0  # PSS: memory that several share counts once

    def look(self) -> None:
        members = [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and _group(pid) == self.group]
        self.processes = max(self.processes, len(members))
        self.kilobytes = max(self.kilobytes, sum(map(_proportional_size, members)))
        self.processor_seconds = sum(map(_processor_seconds, members))


def _stat(process: Path) -> list[str]:
    """The fields after the name of /proc/PID/stat (proc_pid_stat(5)); none of a process that has ended."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _group(process: Path) -> int | None:
    fields = _stat(process)
    return int(fields[2]) if fields else None


def _processor_seconds(process: Path) -> float:
    fields = _stat(process)
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _proportional_size(process: Path) -> int:
    try:
        text = (process / "smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def draw(folder: Path, count: int) -> None:
    """Small photographs in kind: 640 by 480, about 60 kB, each different."""
    folder.mkdir()
    grain = Image.effect_noise((640, 480), 12).convert("RGB")
    for number in range(count):
        image = grain.copy()
        image.paste((number % 256, number // 256, 90), (0, 0, 64, 64))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=70)
        (folder / f"{number:05d}.jpg").write_bytes(buffer.getvalue())


def _seconds(items: list[dict[str, str]]) -> float:
    """From the first event of an upload to the last item written."""
    first = min(datetime.fromisoformat(item["uploadDate"]) for item in items)
    last = max(datetime.fromisoformat(item["updatedAt"]) for item in items)
    return (last - first).total_seconds()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgpipe-pipeline-") as folder:
        home = Path(folder) / "home"
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "IMGPIPE_"))}
        environ |= {"IMGPIPE_HOME": str(home), "IMGPIPE_DEPLOYMENT": "local"}
        draw(Path(folder) / "photos", options.images)

        def imgpipe(*args: str) -> str:
            return subprocess.run([IMGPIPE, *args], env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout

        began = time.monotonic()
        imgpipe("local", "up", "--detach", "--port", "0", "-q")
        print(f"up, with the stack: {time.monotonic() - began:.1f} s")
        process = json.loads((home / "data" / "local" / "process.json").read_text())
        usage, over = Usage(process["emulator_pid"]), threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                usage.look()

        watcher = threading.Thread(target=watch)
        watcher.start()
        rates = []
        try:
            for number in range(options.rounds):
                usage.look()
                spent, began = usage.processor_seconds, time.monotonic()
                photos = str(Path(folder) / "photos")
                said = imgpipe("upload", photos, "--prefix", f"{number}/", "--wait", "-q", "--output", "json")
                whole = options.images / (time.monotonic() - began)
                usage.look()
                each = (usage.processor_seconds - spent) / options.images * 1000
                rates.append(options.images / _seconds(json.loads(imgpipe(*QUERY, "--name", f"{number}/*"))))
                outcomes = json.loads(said)["outcomes"]
                print(
                    f"round {number + 1}: {rates[-1]:.1f} images/s, {whole:.1f} over the whole command, "
                    f"{each:.0f} ms of a processor for each, {outcomes}"
                )
                if outcomes != {"COMPLETED": options.images}:
                    return 1
        finally:
            over.set()
            watcher.join()
            imgpipe("local", "down", "-q")
        print(f"peak: {usage.kilobytes / 1000:.0f} MB (PSS), {usage.processes} processes, {os.cpu_count()} processors")
        rate = statistics.median(rates[1:] or rates)
        print(f"median of the rounds after the first: {rate:.1f} images/s")
        print(f"target: {TARGET:.0f} images/s: {'met' if rate >= TARGET else 'missed'}")
        return 0 if rate >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
