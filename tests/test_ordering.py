"""Whatever order events come in, however often, whatever fails between: the table ends as the bucket is."""

import itertools
import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler_world import UPLOADS, World, jpeg, world
from platform_model import KilledError, Platform

GOOD = [jpeg(color, (24, 16)) for color in ("red", "green", "blue")]
CORRUPT = [GOOD[0][:120], GOOD[1][:130]]
EXAMPLES = int(os.environ.get("ORDERING_EXAMPLES", "400"))  # more, to hunt
KEYS = ["a.jpg", "b/c d+é.jpg"]

operations = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(KEYS), st.sampled_from([*GOOD, *CORRUPT])),
    st.tuples(st.just("delete"), st.sampled_from(KEYS), st.booleans()),
    st.tuples(st.just("remove_version"), st.sampled_from(KEYS), st.integers(0, 3), st.booleans()),
)
# What the platform does after an operation before the next: nothing, or some calls, so that handlers are caught midway.
pauses = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 12, 20, 40])


def act(platform: Platform, operation: tuple[Any, ...]) -> None:
    match operation:
        case ("create", key, data):
            platform.create(key, data)
        case ("delete", key, lifecycle):
            platform.delete(key, lifecycle=lifecycle)
        case ("remove_version", key, which, lifecycle):
            platform.remove_version(key, which, lifecycle=lifecycle)


def assert_agrees(platform: Platform, key: str) -> None:
    current = platform.s3.current(UPLOADS, key)
    item = platform.item(key)
    thumbnails = platform.thumbnails(key)
    if current is None:
        assert item is None or (item["status"] == "DELETED" and item["ttl"] > 0)
        assert thumbnails == []
        return
    assert item is not None
    assert (item["eTag"], item["versionId"]) == (current.e_tag, current.version_id)
    if current.data in GOOD:
        assert item["status"] == "COMPLETED"
        assert "attention" not in item
        assert [made["source-etag"] for made in thumbnails] == [current.e_tag]
    else:
        assert (item["status"], item["attention"]) == ("FAILED", "FAILED")
        assert thumbnails == []
        assert current.e_tag in {entry["source"]["eTag"] for entry in platform.reported(key)}


@settings(max_examples=EXAMPLES)
@given(st.lists(st.tuples(operations, pauses), min_size=1, max_size=12), st.integers(0, 2**32), st.integers(0, 12))
def test_the_table_ends_as_the_bucket_is(steps: list[tuple[tuple[Any, ...], int]], seed: int, troubles: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        platform = Platform(random.Random(seed), troubles)
        platform.install(patch)
        for operation, pause in steps:
            act(platform, operation)
            for _ in range(pause):
                platform.step()
        platform.settle()
        for key in KEYS:
            if key in platform.s3.buckets[UPLOADS]:
                assert_agrees(platform, key)


# Two handlers at one key, every way in which their calls can fall: what random schedules meet once in hundreds.

SECOND = {
    "overwritten": ("create", "a.jpg", GOOD[1]),
    "spoiled": ("create", "a.jpg", CORRUPT[0]),
    "deleted": ("delete", "a.jpg", False),
    "expired": ("delete", "a.jpg", True),
}
CALLS = 8  # more than a handler makes


def interleaved(platform: Platform, second: tuple[Any, ...], before: int, between: int, dies_after: int | None) -> None:
    """An upload is being processed, `before` calls far, when a second operation follows. Its handler makes `between`
    calls; then the first goes on to its end, or to its death and a second attempt; then the other ends."""
    platform.create("a.jpg", GOOD[0])
    first = platform.begin()
    for _ in range(before):
        platform.advance(first)
    act(platform, second)
    other = platform.begin()
    for _ in range(between):
        platform.advance(other)
    for _ in range(CALLS if dies_after is None else dies_after):
        platform.advance(first)
    if dies_after is not None:
        platform.advance(first, KilledError())
    for one in (first, other):
        while not one.over:
            platform.advance(one)
    platform.settle()


@pytest.mark.parametrize("second", SECOND)
def test_two_handlers_however_their_calls_fall(monkeypatch: pytest.MonkeyPatch, second: str) -> None:
    for before, between in itertools.product(range(CALLS), range(CALLS)):
        for dies_after in (None, *range(5)):
            platform = Platform(random.Random(0), repeats=(1,))
            with pytest.MonkeyPatch.context() as patch:
                platform.install(patch)
                interleaved(platform, SECOND[second], before, between, dies_after)
            assert_agrees(platform, "a.jpg")


# The model is believed as far as it agrees with moto, which was not made for it.

SEQUENCES: list[list[tuple[Any, ...]]] = [
    [("create", "a.jpg", GOOD[0]), ("create", "a.jpg", GOOD[1]), ("delete", "a.jpg", False)],
    [("create", "a.jpg", GOOD[0]), ("delete", "a.jpg", True), ("create", "a.jpg", CORRUPT[0])],
    [("create", "a.jpg", GOOD[0]), ("create", "a.jpg", CORRUPT[0]), ("remove_version", "a.jpg", -1, False)],
    [("create", "a.jpg", CORRUPT[1]), ("create", "a.jpg", GOOD[2]), ("remove_version", "a.jpg", 0, True)],
    [("create", "a.jpg", GOOD[0]), ("delete", "a.jpg", False), ("remove_version", "a.jpg", -1, False)],
]


class Twin:
    """Does in moto what is done in the model."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.versions: list[str] = []

    def act(self, operation: tuple[Any, ...]) -> dict[str, Any]:
        match operation:
            case ("create", key, data):
                event = self.here.put(key, data)
            case ("delete", key, lifecycle):
                event = self.here.delete(key)
                event = without_sequencer(event) if lifecycle else event
            case ("remove_version", key, which, lifecycle):
                version = self.versions.pop(which)
                event = self.here.delete(key, version)
                return without_sequencer(event) if lifecycle else event
        self.versions.append(event["s3"]["object"]["versionId"])
        return event


def without_sequencer(event: dict[str, Any]) -> dict[str, Any]:
    entity = {name: value for name, value in event["s3"]["object"].items() if name != "sequencer"}
    name = event["eventName"].replace("ObjectRemoved", "LifecycleExpiration")
    return {**event, "eventName": name, "s3": {**event["s3"], "object": entity}}


TOLD = ("status", "errorCode", "eTag", "width", "thumbnailKey", "attention", "format", "ttl")


def told(item: dict[str, Any] | None, thumbnails: int) -> dict[str, Any]:
    """What is the same wherever it was written: no times (those of moto are of today), no version ids."""
    known = {name: (item or {}).get(name) for name in TOLD}
    return {**known, "ttl": known["ttl"] is not None, "thumbnails": thumbnails}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steps", SEQUENCES)
def test_the_model_behaves_as_moto_does(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[Any, ...]], seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        platform = Platform(random.Random(seed))
        platform.install(patch)
        for step in steps:
            act(platform, step)
        platform.settle()
        assert_agrees(platform, "a.jpg")
        modelled = told(platform.item("a.jpg"), len(platform.thumbnails("a.jpg")))
    with world(monkeypatch) as here:
        monkeypatch.setenv("THUMBNAIL_SIZE", "16")
        twin = Twin(here)
        events = [twin.act(step) for step in steps] * 2
        chance = random.Random(seed)
        chance.shuffle(events)
        for event in events:
            here.process(event)
        bodies = here.bodies("metadata") * 2
        chance.shuffle(bodies)
        for body in bodies:
            assert here.write(body) == []
        assert told(here.item("a.jpg"), len(here.thumbnails("a.jpg"))) == modelled
