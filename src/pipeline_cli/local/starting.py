"""Starting the local pipeline: the emulator, detached or not, and then the stack in it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline_cli.aws import Clients
from pipeline_cli.local.instance import POLL_SECONDS, Home, LocalError, Running, stop, write_json
from pipeline_cli.local.stack import create_stack
from pipeline_cli.local.supervisor import ACCOUNT, REGION, START_SECONDS

NAME_PREFIX = "imgpipe-local"
DEFAULT_PORT = 14566


def start_detached(home: Home, data: Path, port: int) -> Running:
    """Start a supervisor that outlives this process; returns when its emulator answers.

    LocalError says why it cannot start. Interrupted, it takes the supervisor with it.
    """
    home.folder.mkdir(parents=True, exist_ok=True)
    said = home.folder / "supervisor.log"
    with said.open("wb") as errors:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "pipeline_cli.local.supervisor", str(home.folder), str(data), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    try:
        return _running(home, supervisor, said)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGTERM)
        supervisor.wait()
        raise


def _running(home: Home, supervisor: subprocess.Popen[bytes], said: Path) -> Running:
    deadline = time.monotonic() + 2 * START_SECONDS
    while time.monotonic() < deadline:
        if supervisor.poll() is not None:
            raise _why(said)
        running = home.running()
        if running is not None and running.pid == supervisor.pid:
            return running
        time.sleep(POLL_SECONDS)
    raise LocalError("The emulator did not start in time.", f"See {home.log}")


def _why(said: Path) -> LocalError:
    text = said.read_text(errors="replace").strip()
    code, tab, rest = text.rpartition("\n")[2].partition("\t")
    if not tab:
        return LocalError(f"The supervisor failed: {text or 'it said nothing'}", f"See {said}")
    message, _, hint = rest.partition("\t")
    return LocalError(message, hint, code=code)


def bring_up(home: Home, running: Running) -> dict[str, str]:
    """Create what is missing of the stack in a running emulator, and make it known as the deployment `local`.

    Returns its outputs.
    """
    clients = Clients(profile=None, region=REGION, endpoint_url=running.endpoint_url)
    outputs = create_stack(clients, prefix=NAME_PREFIX, account=ACCOUNT, region=REGION)
    write_json(home.outputs, {name: {"value": value} for name, value in outputs.items()})
    write_json(home.endpoint, {"endpoint_url": running.endpoint_url, "region": REGION, "pid": running.pid})
    return outputs


def start_or_stop(home: Home, data: Path, port: int) -> tuple[Running, dict[str, str]]:
    """Start it detached with its stack; when the stack cannot be made, stop it again."""
    running = start_detached(home, data, port)
    try:
        return running, bring_up(home, running)
    except BaseException:
        stop(home)
        raise
