"""An image rendered in a child of its own, so that what it does to the process can be seen from outside."""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from image_processor.rendering import render
from image_processor.settings import MEBIBYTE, ImageSettings
from pipeline_contract.failures import PipelineError

CPU_LIMIT_SECONDS = 60
ADDRESS_SPACE = 6 * 1024 * MEBIBYTE


@dataclass(frozen=True)
class Outcome:
    """`result` is OK, a failure code, or what ought not to happen: `raised ...`, `killed by ...`."""

    result: str
    message: str
    cpu_seconds: float
    memory_mb: float  # at its highest, over what the process had before


def rendered_apart(data: bytes, settings: ImageSettings) -> Outcome:
    before = _resident_mb()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_SECONDS, CPU_LIMIT_SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.write(writer, json.dumps(_outcome(data, settings)).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        result, message = f"killed by {signal.Signals(os.WTERMSIG(status)).name}", ""
    else:
        result, message = json.loads(said)
    return Outcome(result, message, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024 - before)


def peak_memory_mb(path: Path, settings: ImageSettings) -> float:
    """What rendering the file takes at most, over a fresh interpreter that has loaded all it needs and the file."""
    program = (
        "import sys, pathlib\n"
        "from image_processor.decoders import identify, open_image\n"
        "from image_processor.rendering import render\n"
        "from image_processor.settings import ImageSettings\n"
        "def status(name):\n"
        "    lines = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith(name))\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "size, extra, budget = int(sys.argv[2]), eval(sys.argv[3]), int(sys.argv[4])\n"
        "open_image(data, identify(data))\n"
        "before = status('VmRSS')\n"
        "render(data, None, ImageSettings(thumbnail_size=size, extra_sizes=extra, memory_budget=budget))\n"
        "print((status('VmHWM') - before) / 1024)\n"
    )
    arguments = (str(path), str(settings.thumbnail_size), repr(settings.extra_sizes), str(settings.memory_budget))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _outcome(data: bytes, settings: ImageSettings) -> tuple[str, str]:
    try:
        rendered = render(data, None, settings)
    except PipelineError as error:
        return str(error.code), error.message
    except BaseException as error:  # noqa: BLE001  # that nothing else is raised is what the tests want to know
        return f"raised {type(error).__name__}", str(error)[:500]
    size = len(json.dumps(dict(rendered.exif), allow_nan=False))
    return ("OK", "") if size <= 8192 else (f"raised nothing, but EXIF of {size} bytes", "")


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE
