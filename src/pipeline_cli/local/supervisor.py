"""Runs the emulator as a child process, sees to its end, and leaves nothing behind, however either of them ends.

In the foreground it is a part of `imgpipe local up`; detached it is `python -m pipeline_cli.local.supervisor` in a
session of its own.
"""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from pipeline_cli.local.emulator import ADAPTATION_REFUSED, SOCKET_VARIABLE, SUPERVISOR_VARIABLE
from pipeline_cli.local.instance import (
    POLL_SECONDS,
    STOP_SECONDS,
    Home,
    LocalError,
    Running,
    endpoint_url,
    exclusive,
    process_started,
    wait_unlocked,
    write_running,
)

ACCOUNT = "000000000000"
REGION = "us-east-1"
START_SECONDS = 60.0
SIGNAL_SECONDS = 0.2
# All else stays outside: AWS_ENDPOINT_URL, proxies or profiles of the user must not reach the functions.
KEPT = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def supervise(home: Home, data: Path, port: int, ready: Callable[[Running], None]) -> int:
    """Run the emulator until it or this process is told to end. Returns the emulator's exit code.

    `ready` is called once, when the emulator answers. LocalError when it cannot start: another one runs, the port is
    taken (0 picks a free one), ministack is not there or not the one that is known.
    """
    # An emulator that has just lost its supervisor still saves its state.
    wait_unlocked(home, STOP_SECONDS, unless=lambda: home.running() is not None)
    running_elsewhere = "The local pipeline is already running"
    with (
        exclusive(home.lock, f"{running_elsewhere}.", "See: imgpipe local status") as lock,
        exclusive(data / "lock", f"{running_elsewhere} on {data}.", "Choose another folder with --data.") as data_lock,
    ):
        home.forget()
        with _listening(port) as listener, _stop_signals() as told:
            home.temporary.mkdir(parents=True)
            child = _start(home, data, listener, (lock, data_lock))
            try:
                listening = listener.getsockname()[1]
                listener.close()  # the child has it: when that ends, the port is free
                _wait_until_ready(home, child, listening)
                started = process_started(os.getpid()) or ""
                running = Running(os.getpid(), started, child.pid, listening, str(data), time.time())
                write_running(home, running)
                ready(running)
                return _wait(child, told)
            except Stop:
                return 0
            finally:
                _end(child)
                home.forget()


class Stop(BaseException):
    """This process was told to end (SIGTERM, SIGHUP)."""


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Signals raise KeyboardInterrupt or Stop; gives the list of those that came.

    An exception that is raised in a finalizer is printed and forgotten: the list is not.
    """
    told: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signature of a signal handler
        told.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Stop

    numbers = [signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a shell
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(child: subprocess.Popen[bytes], told: Sequence[int]) -> int:
    """The exit code of the child; KeyboardInterrupt or Stop as soon as a signal came, even if none was raised."""
    while (code := child.poll()) is None:
        if told:
            raise KeyboardInterrupt if signal.SIGINT in told else Stop
        time.sleep(SIGNAL_SECONDS)
    return code


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(512)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise LocalError(
                    f"Port {port} of 127.0.0.1 is taken by another program.",
                    "Choose one, or let the system choose: imgpipe local up --port 0",
                    code="PORT_TAKEN",
                ) from error
            raise LocalError(
                f"Port {port} of 127.0.0.1 cannot be used: {error.strerror}.", code="PORT_TAKEN"
            ) from error
        yield listener


def _start(home: Home, data: Path, listener: socket.socket, locks: tuple[int, int]) -> subprocess.Popen[bytes]:
    environment = emulator_environment(os.environ, home, data, listener)
    with home.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline_cli.local.emulator"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches this process alone; the functions' processes end with their group
            pass_fds=(listener.fileno(), *locks),
        )


def emulator_environment(environ: Mapping[str, str], home: Home, data: Path, listener: socket.socket) -> dict[str, str]:
    """The environment of the emulator and of the functions in it."""
    port = str(listener.getsockname()[1])
    kept = {name: environ[name] for name in KEPT if name in environ}
    ours = {name: value for name, value in environ.items() if name.startswith("IMGPIPE_LOCAL_")}
    return (
        kept
        | ours
        | {
            SOCKET_VARIABLE: str(listener.fileno()),
            SUPERVISOR_VARIABLE: str(os.getpid()),
            "PYTHONUTF8": "1",  # keys are file names
            "TMPDIR": str(home.temporary),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": port,
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(data / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(data / "s3"),
            "DOCKER_HOST": "unix:///nonexistent",  # it looks for containers to remove
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
        }
    )


def _wait_until_ready(home: Home, child: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise _did_not_start(home, child.returncode)
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{endpoint_url(port)}/_ministack/health", timeout=5):
                return
        except OSError:
            time.sleep(POLL_SECONDS)
    raise LocalError(f"The emulator did not answer within {START_SECONDS:.0f} s.", f"See {home.log}")


def _did_not_start(home: Home, code: int) -> LocalError:
    if code == ADAPTATION_REFUSED:
        return LocalError(
            f"The emulator does not fit this imgpipe: {home.log_tail(1)}.",
            "Install the one that does: pip install 'imgpipe[local]'",
            code="LOCAL_NOT_INSTALLED",
        )
    return LocalError(f"The emulator did not start (exit code {code}): {home.log_tail()}", f"See {home.log}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the emulator in order, so that it saves its state; then whatever is left of its process group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # told twice, it still tidies up once
    child.terminate()
    try:
        child.wait(STOP_SECONDS / 2)
    except subprocess.TimeoutExpired:
        child.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def main(folder: str, data: str, port: str) -> int:
    """The detached supervisor; `imgpipe local up --detach` reads its message and its exit code."""
    try:
        return supervise(Home(Path(folder)), Path(data), int(port), lambda _: None)
    except LocalError as error:
        sys.stderr.write(f"{error.code}\t{error.message}\t{error.hint}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
