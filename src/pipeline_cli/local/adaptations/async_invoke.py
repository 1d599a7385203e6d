"""Lambda: asynchronous invocations wait in a queue for one of a few workers, as AWS's internal queue does.

ministack starts a thread and often a process for each, all at once, and counts a throttle as a failed attempt: a burst
of uploads drowns the machine or ends in the dead-letter queue. Here N workers take them in turn; a throttled one goes
back without having been tried; a failed one is tried again as often as the function's `MaximumRetryAttempts` says,
after half a second and then one (AWS: one minute and then two); what failed for good goes where the function's
`OnFailure` destination says, in the shape of an invocation record.
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

import contextvars
import heapq
import itertools
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from pipeline_cli.local.adaptations.original import original

WORKERS_VARIABLE = "IMGPIPE_LOCAL_WORKERS"
RETRY_SECONDS = 0.5  # before the first retry; doubled before the next
THROTTLED_SECONDS = 0.2
DEFAULT_RETRIES = 2
DEFAULT_MAX_AGE_SECONDS = 21_600

log = logging.getLogger("imgpipe.async_invoke")


@dataclass(frozen=True, slots=True)
class Invocation:
    """One asynchronous invocation. `id` is its request id, the same for every attempt as on AWS."""

    id: str
    function_arn: str
    event: Any
    submitted: float  # seconds since 1970
    attempts: int = 0


# Runs an invocation once: None when it is settled, else what to run next and in how many seconds.
Attempt = Callable[[Invocation], tuple[Invocation, float] | None]


class InvocationQueue:
    """Invocations in the order in which they are due, run by a fixed number of threads."""

    def __init__(self, attempt: Attempt, workers: int) -> None:
        self._attempt = attempt
        self._workers = workers
        self._due: list[tuple[float, int, Invocation]] = []
        self._running: dict[str, Invocation] = {}
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._started = False

    def put(self, invocation: Invocation, delay: float = 0.0) -> None:
        """Add an invocation that is due `delay` seconds from now."""
        with self._changed:
            self._running.pop(invocation.id, None)
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._order), invocation))
            self._start()
            self._changed.notify()

    def pending(self) -> list[dict[str, Any]]:
        """What has not been settled, waiting or running, as JSON can hold it."""
        with self._changed:
            found = [*self._running.values(), *(entry[2] for entry in sorted(self._due))]
        # Not `asdict`, which would copy every event.
        return [{field.name: getattr(one, field.name) for field in fields(one)} for one in found]

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for number in range(self._workers):
                threading.Thread(target=self._work, name=f"async-invoke-{number}", daemon=True).start()

    def _take(self) -> Invocation:
        with self._changed:
            while True:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    invocation = heapq.heappop(self._due)[2]
                    self._running[invocation.id] = invocation
                    return invocation
                self._changed.wait(wait)

    def _work(self) -> None:
        while True:
            invocation = self._take()
            again = None
            try:
                again = self._attempt(invocation)
            except Exception:
                log.exception("Asynchronous invocation %s of %s was lost", invocation.id, invocation.function_arn)
            if again is not None:
                self.put(*again)
            else:
                with self._changed:
                    self._running.pop(invocation.id, None)


queue: InvocationQueue
_request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)


def apply() -> None:
    global queue
    from ministack.services import lambda_svc

    original("services.lambda_svc", "invoke_async_with_retry", "289fe4d3cbd4")
    original("services.lambda_svc", "_execute_function", "3ceb16d6480a")
    dispatch = original("services.lambda_svc", "_execute_function_dispatch", "f62cd259213e")

    def with_request_id(func: Any, config: Any, event: Any, request_id: str, started: float) -> Any:
        return dispatch(func, config, event, _request_id.get() or request_id, started)

    queue = InvocationQueue(_attempt, workers())
    lambda_svc._execute_function_dispatch = with_request_id
    lambda_svc.invoke_async_with_retry = submit


def submit(func: dict[str, Any], event: Any) -> None:
    """Stands in for ministack's `invoke_async_with_retry`."""
    config = func.get("config") or func
    queue.put(Invocation(str(uuid.uuid4()), config["FunctionArn"], event, time.time()))


def restore(pending: list[dict[str, Any]]) -> None:
    """Take up again what an earlier run of the emulator had accepted and not settled."""
    for entry in pending:
        queue.put(Invocation(**entry))


def workers() -> int:
    """How many run at once: one more than the machine has processors, for each also waits for S3 and SQS."""
    return int(os.environ.get(WORKERS_VARIABLE) or min(8, (os.cpu_count() or 1) + 1))


def _attempt(invocation: Invocation) -> tuple[Invocation, float] | None:
    """Run an invocation once. Returns it with the seconds until its next attempt, or None when it is settled."""
    return contextvars.copy_context().run(_attempt_in_scope, invocation)


def _attempt_in_scope(invocation: Invocation) -> tuple[Invocation, float] | None:
    from ministack.core.responses import _request_account_id, _request_region
    from ministack.services import lambda_svc

    _, _, _, region, account, *_ = invocation.function_arn.split(":")
    _request_account_id.set(account)
    _request_region.set(region)
    _request_id.set(invocation.id)
    func, config, name = lambda_svc._get_func_record_for_ref(invocation.function_arn)
    if func is None or config is None:
        log.warning("Lambda %s is gone: its asynchronous invocation %s is dropped", name, invocation.id)
        return None
    settings = _settings(lambda_svc, func)
    retries, max_age = settings["MaximumRetryAttempts"], settings["MaximumEventAgeInSeconds"]

    started = time.monotonic()
    result = lambda_svc._execute_function(lambda_svc._execution_record_for_config(func, config), invocation.event)
    throttled, failed = bool(result.get("throttle")), bool(result.get("error"))
    lambda_svc._emit_lambda_metrics(name, (time.monotonic() - started) * 1000, failed and not throttled, throttled)
    if not failed:
        return None
    tried = invocation if throttled else replace(invocation, attempts=invocation.attempts + 1)
    delay = THROTTLED_SECONDS if throttled else RETRY_SECONDS * 2 ** (tried.attempts - 1)
    if not throttled and tried.attempts > retries:
        _fail(settings, tried, result, "RetriesExhausted")
    elif time.time() - invocation.submitted + delay > max_age:
        _fail(settings, tried, result, "EventAgeExceeded")
    else:
        return tried, delay
    return None


def _settings(lambda_svc: Any, func: Any) -> dict[str, Any]:
    """The function's event invoke configuration, with AWS's defaults where it says nothing."""
    given = lambda_svc._event_invoke_config(func, None) or lambda_svc._event_invoke_config(func, "$LATEST") or {}
    defaults = {"MaximumRetryAttempts": DEFAULT_RETRIES, "MaximumEventAgeInSeconds": DEFAULT_MAX_AGE_SECONDS}
    return defaults | {name: value for name, value in given.items() if value is not None}


def _fail(settings: dict[str, Any], invocation: Invocation, result: dict[str, Any], condition: str) -> None:
    log.warning("Lambda invocation %s: %s after %d attempts", invocation.id, condition, invocation.attempts)
    target = ((settings.get("DestinationConfig") or {}).get("OnFailure") or {}).get("Destination")
    if not target:
        return
    record = invocation_record(invocation, result, condition, datetime.now(UTC))
    if target.split(":")[2] != "sqs":
        log.error("On-failure destination %s is no SQS queue: not supported here", target)
        return
    from ministack.services import sqs

    _, _, _, _, account, name = target.split(":", 5)
    sqs._act_send_message({"MessageBody": json.dumps(record)}, sqs._queue_url_for_account(account, name))


def invocation_record(invocation: Invocation, result: dict[str, Any], condition: str, now: datetime) -> dict[str, Any]:
    """What Lambda sends to an on-failure destination ("Invocation record" in its developer guide)."""
    throttled = bool(result.get("throttle"))
    return {
        "version": "1.0",
        "timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": invocation.id,
            "functionArn": f"{invocation.function_arn}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": invocation.attempts,
        },
        "requestPayload": invocation.event,
        **(
            {}
            if throttled  # it never ran, so there is nothing that it answered
            else {
                "responseContext": {
                    "statusCode": 200,
                    "executedVersion": "$LATEST",
                    "functionError": result.get("function_error") or "Unhandled",
                },
                "responsePayload": result.get("body"),
            }
        ),
    }
