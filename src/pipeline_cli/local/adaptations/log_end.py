"""Lambda: what a function writes belongs to the invocation that wrote it.

ministack waits up to 50 ms for the output of a worker and takes what comes later for the next invocation's. Here the
worker marks the end of its output, and everything up to the mark is taken, as soon as it is there.
"""

import queue
import time
from typing import Any

from pipeline_cli.local.adaptations.original import AdaptationError, original

MARK = "\x1eimgpipe: end of invocation"
PATIENCE_SECONDS = 5.0  # a worker that dies cannot mark; what it had written ends with it, unless a child holds it open
LOOK_SECONDS = 0.1  # how often to see whether it has died

# The end of an invocation in the script of ministack's Python workers.
_ANSWERED = "        _real_stdout.flush()\n\nrun()"
_MARKED = f"        sys.stderr.write({MARK!r} + '\\n')\n        sys.stderr.flush()\n{_ANSWERED}"


def apply() -> None:
    from ministack.core import lambda_runtime

    original("core.lambda_runtime", "Worker._drain_stderr_bounded", "3fd7cc742872")
    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(_ANSWERED) != 1:
        raise AdaptationError("ministack's Python worker answers in another way")
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_ANSWERED, _MARKED)
    lambda_runtime.Worker._drain_stderr_bounded = output


def output(worker: Any) -> str:
    """The lines that the invocation which has just ended wrote. Stands in for `Worker._drain_stderr_bounded`."""
    lines: list[str] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        written_all = not worker._stderr_thread.is_alive()  # asked before looking: nothing comes after that
        try:
            line = worker._stderr_queue.get(timeout=0 if written_all else LOOK_SECONDS)
        except queue.Empty:
            if written_all:
                break
            continue
        before, mark, _ = line.partition(MARK)
        if before or not mark:
            lines.append(before)
        if mark:
            break
    return "\n".join(lines)
