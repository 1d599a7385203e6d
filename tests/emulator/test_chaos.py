"""Two thousand uploads while the functions' processes are killed at random: none is lost, and the accounts balance."""

import contextlib
import io
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from local_pipeline import LocalPipeline
from PIL import Image

UPLOADS, OVERWRITES, CORRUPT_SHARE = 2000, 200, 0.05
KILLS = 60  # then the pipeline is left to finish
LIMIT_SECONDS = 900.0  # for a machine that does many other things
# On AWS six times the function's timeout. Here nothing takes so long, and a killed writer's batch comes back after it.
VISIBILITY_SECONDS = 20


def picture(number: int) -> bytes:
    """A small JPEG, each with bytes of its own."""
    out = io.BytesIO()
    Image.new("RGB", (160, 120), (number % 256, number // 256, 90)).save(out, "JPEG")
    return out.getvalue()


def broken(number: int) -> bytes:
    whole = picture(number)
    return whole[: len(whole) // 2]


def workers(emulator_pid: int) -> list[int]:
    """The processes in which this pipeline's functions run: the emulator's children."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == emulator_pid and b"_worker.py" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


class Killer(threading.Thread):
    """Kills one of the functions' processes every now and then, `KILLS` times."""

    def __init__(self, emulator_pid: int, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._emulator_pid, self._chance = emulator_pid, chance
        self._over = threading.Event()
        self.killed = 0

    def run(self) -> None:
        # Seldom enough that between two of them something gets done: a new process takes a second to begin.
        while self.killed < KILLS and not self._over.wait(self._chance.uniform(0.5, 3)):
            alive = workers(self._emulator_pid)
            if alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._chance.choice(alive), signal.SIGKILL)
                    self.killed += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


def uploads(chance: random.Random) -> list[tuple[str, bytes, bool]]:
    """Key, content and whether it is usable, in the order of uploading; overwrites come some time after their first."""
    keys = [f"{number % 7}/image {number} é.jpg" for number in range(UPLOADS - OVERWRITES)]
    order = [*keys, *chance.sample(keys[: len(keys) // 2], OVERWRITES)]
    made = []
    for number, key in enumerate(order):
        usable = chance.random() >= CORRUPT_SHARE
        made.append((key, picture(number) if usable else broken(number), usable))
    first, last = made[: len(keys) // 2], made[len(keys) // 2 :]
    chance.shuffle(last)
    return first + last


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no {what} after {LIMIT_SECONDS:.0f} s"
        time.sleep(2)


def reconciled(pipeline: LocalPipeline, *args: str) -> Any:
    import json

    done = pipeline.run("reconcile", "--anew", "--grace", "0s", "--output", "json", *args, check=False)
    assert done.returncode in (0, 6), done.stderr
    return json.loads(done.stdout)


@pytest.mark.emulator
@pytest.mark.slow
def test_nothing_is_lost_while_functions_are_killed(stopped_pipeline: LocalPipeline) -> None:
    pipeline = stopped_pipeline
    pipeline.run("local", "up", "--detach", "--port", 0)
    sqs, names = pipeline.clients.sqs, pipeline.outputs
    queue = names["metadata_queue_url"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": str(VISIBILITY_SECONDS)})
    chance = random.Random(20261003)
    made = uploads(chance)
    usable = {key: good for key, _, good in made}  # of a key, the last
    killer = Killer(pipeline.process["emulator_pid"], chance)
    killer.start()

    by_key: dict[str, list[bytes]] = {}
    for key, data, _ in made:
        by_key.setdefault(key, []).append(data)
    with ThreadPoolExecutor(8) as pool:  # uploads of one key in their order, keys side by side
        list(pool.map(lambda key: [pipeline.put(key, data, ContentType="image/jpeg") for data in by_key[key]], by_key))

    def has_outcomes() -> bool:
        accounting = reconciled(pipeline)["accounting"]
        return int(accounting["unaccounted"]) == 0

    with contextlib.suppress(AssertionError):
        until(has_outcomes, "outcome of every upload")  # what is missing after that, the repair has to find
    killer.stop()
    assert killer.killed >= 20, "nothing much was killed: the test shows nothing"

    pipeline.run("dlq", "redrive", "--class", "transient", "--yes", check=False)
    until(has_outcomes, "outcome of every upload")
    pipeline.run("reconcile", "--anew", "--grace", "0s", "--repair", "--yes", check=False)

    def agrees() -> bool:
        return reconciled(pipeline)["findings"] == []

    until(agrees, "agreement after the repair")
    result = reconciled(pipeline)
    accounting = result["accounting"]
    bad = sum(not good for good in usable.values())
    assert accounting["balanced"] is True
    assert accounting["uploads"] == UPLOADS
    assert accounting["superseded"] == OVERWRITES
    assert accounting["completed"] + accounting["failed"] + accounting["deadLettered"] == len(usable)
    items = pipeline.items()
    assert {key: item["status"] for key, item in items.items()} == {
        key: "COMPLETED" if good else "FAILED" for key, good in usable.items()
    }
    assert (accounting["completed"], accounting["failed"]) == (len(usable) - bad, bad)
    assert result["left"] == 0
