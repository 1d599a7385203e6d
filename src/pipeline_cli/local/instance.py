"""The one local pipeline of a user: its folder, who runs it, and how to end that."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline_cli.errors import ImgpipeError
from pipeline_cli.paths import data_home

STOP_SECONDS = 20.0  # for saving the state and ending the functions' processes
POLL_SECONDS = 0.05


class LocalError(ImgpipeError):
    """The local pipeline cannot be started or stopped."""

    code = "LOCAL"


@dataclass(frozen=True, slots=True)
class Running:
    """Who runs the local pipeline: the supervisor, its emulator, and where that listens."""

    pid: int
    started: str  # when the system says that the process began: tells it from a later one with the same id
    emulator_pid: int
    port: int
    data: str
    since: float  # seconds since 1970

    @property
    def endpoint_url(self) -> str:
        return endpoint_url(self.port)


@dataclass(frozen=True)
class Home:
    """The folder of the local pipeline, `<data home>/local`, and the files in it."""

    folder: Path

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Home":
        return cls(data_home(environ) / "local")

    @cached_property
    def data(self) -> Path:
        """Objects, items and messages, unless --data names another folder."""
        return self.folder / "data"

    @cached_property
    def temporary(self) -> Path:
        """TMPDIR of the emulator and of the functions; gone when it has stopped."""
        return self.folder / "tmp"

    @cached_property
    def log(self) -> Path:
        return self.folder / "emulator.log"

    @cached_property
    def endpoint(self) -> Path:
        """Where the emulator is, for `-d local`: there is one as long as the stack is up."""
        return self.folder / "endpoint.json"

    @cached_property
    def outputs(self) -> Path:
        return self.folder / "outputs.json"

    @cached_property
    def process(self) -> Path:
        return self.folder / "process.json"

    @cached_property
    def lock(self) -> Path:
        return self.folder / "lock"

    def running(self) -> Running | None:
        """Who runs the local pipeline; None when nobody does, whatever files an earlier run left behind."""
        try:
            running = Running(**json.loads(self.process.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return running if process_started(running.pid) == running.started else None

    def locked(self) -> bool:
        """Whether a supervisor, or an emulator that has lost its own, still holds the lock."""
        try:
            with self.lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def log_tail(self, lines: int = 5) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def forget(self) -> None:
        """Remove what only holds while it runs."""
        for file in (self.endpoint, self.process):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.temporary, ignore_errors=True)


def endpoint_url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def exclusive(file: Path, message: str, hint: str = "") -> Iterator[int]:
    """Hold the lock on `file`; LocalError with `message` when another process holds it.

    Gives the file descriptor, for a child to hold on to as well: the lock falls when the last of them ends, however
    it ends.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalError(message, hint, code="LOCAL_RUNNING") from error
        yield opened.fileno()


def process_started(pid: int) -> str | None:
    """When the system says that a process began, as text to compare; None when there is no such process."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        try:
            # The name in parentheses may hold anything; state and start time are fields 3 and 22 (proc_pid_stat(5)).
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def stop(home: Home) -> Running | None:
    """End the local pipeline and wait until it has ended. Returns who ran it; None when nobody did."""
    running = home.running()
    if running is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGTERM)
    if not wait_unlocked(home, STOP_SECONDS) and running is not None:
        for pid in (running.pid, running.emulator_pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        wait_unlocked(home, STOP_SECONDS)
    if home.locked():
        raise LocalError(
            "The local pipeline does not stop.", f"See what holds {home.lock}, and end it.", code="LOCAL_STUCK"
        )
    home.forget()
    return running


def wait_unlocked(home: Home, seconds: float, *, unless: Callable[[], bool] = lambda: False) -> bool:
    """Whether nobody holds the lock, now or within so many seconds; `unless` ends the waiting."""
    deadline = time.monotonic() + seconds
    while home.locked():
        if unless() or time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file in one step: a reader sees the old one or the new one."""
    temporary = file.with_suffix(".new")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(file)


def write_running(home: Home, running: Running) -> None:
    write_json(home.process, asdict(running))
