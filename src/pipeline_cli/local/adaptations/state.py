"""State: what was stored survives a crash of the emulator, but for the last seconds.

ministack saves its state when it stops in order. Here it is saved while it runs, together with the asynchronous
invocations that were accepted and not yet settled. Objects are on disk as soon as they are acknowledged.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pipeline_cli.local.adaptations import async_invoke
from pipeline_cli.local.adaptations.original import original
from pipeline_cli.local.adaptations.queue_lock import lock

SAVE_SECONDS = 2.0
LOGS_SECONDS = 20.0  # logs and metrics: much to write, and little lost with the last of them
SHARE = 0.1  # of the time may be spent on saving: a large state is saved less often
SETTLE_SECONDS = 5.0  # after the last request: by then its thread has noted everything, its log lines too
LATER = ("cloudwatch_logs", "cloudwatch")

log = logging.getLogger("imgpipe.state")
_last_request = time.monotonic()


def watched(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The same application, whose requests are noticed: while there are none, nothing changes and nothing is saved.

    Functions and event source mappings make requests too, as soon as they do anything.
    """

    async def notice(scope: Any, receive: Any, send: Any) -> None:
        global _last_request
        _last_request = time.monotonic()
        await app(scope, receive, send)

    return notice


def apply() -> None:
    from ministack import app

    load = original("app", "_load_persisted_state", "03de3b870e8f")
    original("app", "_build_persistence_save_dict", "9a6393cc953d")
    original("core.persistence", "save_state", "58a955110973")
    logging.getLogger("persistence").setLevel(logging.WARNING)  # else a line for each service, every two seconds

    def load_state() -> None:
        load()
        restore_queues(time.time())
        file = pending_file()
        if file.exists():
            async_invoke.restore(json.loads(file.read_text()))

    app._load_persisted_state = load_state


def pending_file() -> Path:
    from ministack.core.persistence import STATE_DIR

    return Path(STATE_DIR) / "imgpipe-pending-invocations.json"


def restore_queues(now: float) -> None:
    """Make restored queues those of this run.

    ministack finds a queue by its URL, and the port may be another now. Whoever had taken a message is gone with the
    run before, so the message is there for the next.
    """
    from ministack.services import sqs

    for (account, region, url), queue in list(sqs._queues.all_items()):
        for message in queue["messages"]:
            if message["receive_count"]:
                message["visible_at"] = min(message["visible_at"], now)
        here = sqs._queue_url_for_account(account, queue["name"])
        if here != url:
            sqs._queues.set_scoped(account, region, here, queue)
            sqs._queues._data.pop((account, region, url))
    sqs._queue_name_to_url.clear()
    sqs._rebuild_queue_name_index()


async def background() -> None:
    """Save until the emulator stops, as often as the share of time allows."""
    due = {later: time.monotonic() for later in (False, True)}
    saved = dict.fromkeys(due, float("-inf"))
    while True:
        await asyncio.sleep(SAVE_SECONDS / 4)
        for later, interval in ((False, SAVE_SECONDS), (True, LOGS_SECONDS)):
            began = time.monotonic()
            if began < due[later] or saved[later] > _last_request + SETTLE_SECONDS:
                continue
            saved[later] = began
            spent = 0.0
            try:
                spent = await save(later)
            except Exception:
                log.exception("The state was not saved")
            due[later] = began + max(interval, spent / SHARE)


async def save(later: bool) -> float:
    """Save the services that come later, or the others: copied on the event loop, written beside it.

    Returns the seconds of processor time that the copying took.
    """
    from ministack.app import _build_persistence_save_dict

    began = time.thread_time()
    services = _build_persistence_save_dict()
    pending = [] if later else async_invoke.queue.pending()
    states = {}
    # What moves on while this copies (from an invocation to a message to an item) is then in one copy at least.
    for name in sorted(services, key=_downstream):
        if (name in LATER) is later:
            states[name] = consistent(services[name])
    spent = time.thread_time() - began
    # The other way round, so that a crash in between leaves no newer copy above an older one below.
    for name, state in reversed(states.items()):
        if state is not None:
            await asyncio.to_thread(write, name, state)
    if not later:
        save_pending(pending)
    return spent


def write(service: str, state: Any) -> None:
    """Write a service's state as ministack reads it. Its own `save_state` encodes in Python, many times slower."""
    from ministack.core import persistence

    wrapped = {"__ministack_format__": persistence._state_format_version(service), "payload": state}
    replace(Path(persistence.STATE_DIR) / f"{service}.json", json.dumps(wrapped, default=persistence._json_default))


def replace(file: Path, text: str) -> None:
    """Write a file in one step: a crash leaves the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def _downstream(service: str) -> int:
    """How far down the pipeline a service holds what is in work: messages, and then items."""
    return {"sqs": 1, "dynamodb": 2}.get(service, 0)


def consistent(get_state: Callable[[], Any]) -> Any:
    """A copy of a service's state; again when a thread changed it under the copying."""
    for _ in range(20):
        try:
            with lock:
                return get_state()
        except RuntimeError as error:  # dictionary changed size during iteration
            log.debug("Copied again: %s", error)
    return get_state()


def save_pending(pending: list[dict[str, Any]]) -> None:
    """Save the asynchronous invocations that were accepted and are not settled."""
    replace(pending_file(), json.dumps(pending))
