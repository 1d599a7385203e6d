"""The emulator's process: `python -m pipeline_cli.local.emulator`, started and watched by the supervisor.

It adapts ministack and serves it on a socket that it was given. It stops in order, with its state saved, on SIGTERM
and when its supervisor is gone.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from pipeline_cli.local.adaptations import BACKGROUND, AdaptationError, apply_all, async_invoke
from pipeline_cli.local.adaptations.state import save_pending, watched

SOCKET_VARIABLE = "IMGPIPE_LOCAL_SOCKET"  # file descriptor of the listening socket
SUPERVISOR_VARIABLE = "IMGPIPE_LOCAL_SUPERVISOR"  # process id
ADAPTATION_REFUSED = 3  # exit code: this is not the ministack that the adaptations know
SUPERVISOR_CHECK_SECONDS = 0.5
SWITCH_SECONDS = 0.0005  # Python's 5 ms are long for a thread that only has an answer to pass on

log = logging.getLogger("imgpipe.emulator")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the supervisor says in the environment."""

    socket: int
    supervisor: int


def main() -> int:
    settings = Settings(int(os.environ[SOCKET_VARIABLE]), int(os.environ[SUPERVISOR_VARIABLE]))
    try:
        apply_all()
    except AdaptationError as error:
        sys.stderr.write(f"{error}\n")
        return ADAPTATION_REFUSED
    try:
        sys.setswitchinterval(SWITCH_SECONDS)
        asyncio.run(_serve(settings))
    finally:
        _stop_workers()
        shutil.rmtree(tempfile.gettempdir(), ignore_errors=True)
    return 0


async def _serve(settings: Settings) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"fd://{settings.socket}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    config.loglevel = "WARNING"
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def stopped() -> None:
        while not stop.is_set():
            if os.getppid() != settings.supervisor:
                log.warning("The supervisor is gone: stopping")
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), SUPERVISOR_CHECK_SECONDS)

    beside = [asyncio.create_task(run()) for run in BACKGROUND]
    serving: Any = watched(app)
    await serve(serving, config, shutdown_trigger=stopped)
    for task in beside:
        task.cancel()
    save_pending(async_invoke.queue.pending())


def _stop_workers() -> None:
    """End the processes in which functions run."""
    from ministack.core import lambda_runtime

    lambda_runtime.kill_workers([worker for workers in lambda_runtime._workers.values() for worker in workers])


if __name__ == "__main__":
    # Not sys.exit: an invocation may still be waiting in a thread that nothing can end.
    code = main()
    logging.shutdown()
    os._exit(code)
