"""Lambda: an update, or the failure of one execution environment, ends no invocation that runs in another.

ministack kills every worker of a function whose code or configuration changes, whatever it is doing. On AWS running
invocations end as they began, and later ones meet the new function.
"""

import threading
from typing import Any

from pipeline_cli.local.adaptations.original import original

_leased = threading.local()  # the worker on which this thread runs an invocation


def apply() -> None:
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    acquire = original("core.lambda_runtime", "acquire_worker", "5017d144adb5")
    original("core.lambda_runtime", "release_worker", "25d5dd7d42b6")
    original("core.lambda_runtime", "invalidate_worker", "1be5d7f769f5")

    def acquire_worker(*args: Any, **kwargs: Any) -> Any:
        worker, reason = acquire(*args, **kwargs)
        _leased.worker = worker
        return worker, reason

    for module in (lambda_runtime, lambda_svc):
        module.acquire_worker = acquire_worker
        module.release_worker = release_worker
        module.invalidate_worker = invalidate_worker


def invalidate_worker(
    func_name: str, qualifier: str | None = None, account: str | None = None, region: str | None = None
) -> None:
    """Take a function's workers out of use: the idle ones end now, and the others with their invocation."""
    from ministack.core import lambda_runtime

    wanted = (account, region, func_name, qualifier)
    with lambda_runtime._lock:
        keys = [key for key in lambda_runtime._workers if _matches(key, wanted)]
        retired = [worker for key in keys for worker in lambda_runtime._workers.pop(key)]
        for worker in retired:
            worker.retired = True
        own = getattr(_leased, "worker", None)  # it failed: nobody will release it
        ended = [worker for worker in retired if not worker.in_use or worker is own]
    lambda_runtime.kill_workers(ended)


def release_worker(worker: Any) -> None:
    from ministack.core import lambda_runtime

    if worker is None:
        return
    with lambda_runtime._lock:
        worker.in_use = False
        retired = getattr(worker, "retired", False)
    if retired:
        lambda_runtime.kill_workers([worker])


def _matches(key: str, wanted: tuple[str | None, ...]) -> bool:
    """Whether the pool `account:region:function:qualifier` is meant; None stands for any."""
    parts = key.split(":")
    return len(parts) == len(wanted) and all(one in (None, part) for one, part in zip(wanted, parts, strict=True))
