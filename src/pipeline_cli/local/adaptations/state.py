"""State: what was stored survives a crash of the emulator, but for the last seconds.

ministack saves its state when it stops in order. Here it is saved while it runs, together with the asynchronous
invocations that were accepted and not yet settled. Objects are on disk as soon as they are acknowledged.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline_cli.local.adaptations import async_invoke
from pipeline_cli.local.adaptations.original import original
from pipeline_cli.local.adaptations.queue_lock import lock

SAVE_SECONDS = 2.0
LOGS_SECONDS = 20.0  # logs and metrics: much to write, and little lost with the last of them
SHARE = 0.1  # of the time may be spent on saving: a large state is saved less often
LATER = ("cloudwatch_logs", "cloudwatch")

log = logging.getLogger("imgpipe.state")


def apply() -> None:
    from ministack import app

    load = original("app", "_load_persisted_state", "03de3b870e8f")
    original("app", "_build_persistence_save_dict", "9a6393cc953d")
    original("core.persistence", "save_state", "58a955110973")
    logging.getLogger("persistence").setLevel(logging.WARNING)  # else a line for each service, every two seconds

    def load_state() -> None:
        load()
        move_queues()
        file = pending_file()
        if file.exists():
            async_invoke.restore(json.loads(file.read_text()))

    app._load_persisted_state = load_state


def pending_file() -> Path:
    from ministack.core.persistence import STATE_DIR

    return Path(STATE_DIR) / "imgpipe-pending-invocations.json"


def move_queues() -> None:
    """Give restored queues the address of this run: ministack finds a queue by its URL, and the port may be another."""
    from ministack.services import sqs

    for (account, region, url), queue in list(sqs._queues.all_items()):
        here = sqs._queue_url_for_account(account, queue["name"])
        if here != url:
            sqs._queues.set_scoped(account, region, here, queue)
            sqs._queues._data.pop((account, region, url))
    sqs._queue_name_to_url.clear()
    sqs._rebuild_queue_name_index()


async def background() -> None:
    """Save until the emulator stops, as often as the share of time allows."""
    due = {later: time.monotonic() for later in (False, True)}
    while True:
        await asyncio.sleep(SAVE_SECONDS / 4)
        for later, interval in ((False, SAVE_SECONDS), (True, LOGS_SECONDS)):
            if time.monotonic() < due[later]:
                continue
            began = time.monotonic()
            try:
                await save(later)
            except Exception:
                log.exception("The state was not saved")
            spent = time.monotonic() - began
            due[later] = time.monotonic() + max(interval, spent / SHARE)


async def save(later: bool) -> None:
    """Save the services that come later, or the others: copied on the event loop, written beside it."""
    from ministack.app import _build_persistence_save_dict
    from ministack.core.persistence import save_state

    states = {}
    for name, get_state in _build_persistence_save_dict().items():
        if (name in LATER) is later:
            states[name] = consistent(get_state)
            await asyncio.sleep(0)
    if not later:
        save_pending()
    for name, state in states.items():
        if state is not None:
            await asyncio.to_thread(save_state, name, state)


def consistent(get_state: Callable[[], Any]) -> Any:
    """A copy of a service's state; again when a thread changed it under the copying."""
    for _ in range(20):
        try:
            with lock:
                return get_state()
        except RuntimeError as error:  # dictionary changed size during iteration
            log.debug("Copied again: %s", error)
    return get_state()


def save_pending() -> None:
    """Save the asynchronous invocations that are not settled."""
    file = pending_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(async_invoke.queue.pending()))
    new.replace(file)
