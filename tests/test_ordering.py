"""Whatever order events come in, however often, whatever fails between: the table ends as the bucket is."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler_world import UPLOADS, jpeg
from platform_model import Platform

GOOD = [jpeg(color, (24, 16)) for color in ("red", "green", "blue")]
CORRUPT = [GOOD[0][:120], GOOD[1][:130]]
KEYS = ["a.jpg", "b/c d+é.jpg"]

operations = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(KEYS), st.sampled_from([*GOOD, *CORRUPT])),
    st.tuples(st.just("delete"), st.sampled_from(KEYS), st.booleans()),
    st.tuples(st.just("remove_version"), st.sampled_from(KEYS), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("wait"), st.integers(1, 40)),
)


def act(platform: Platform, operation: tuple[Any, ...]) -> None:
    match operation:
        case ("create", key, data):
            platform.create(key, data)
        case ("delete", key, lifecycle):
            platform.delete(key, lifecycle=lifecycle)
        case ("remove_version", key, which, lifecycle):
            platform.remove_version(key, which, lifecycle=lifecycle)
        case ("wait", steps):
            for _ in range(steps):
                platform.step()


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


@settings(max_examples=250)
@given(st.lists(operations, min_size=1, max_size=14), st.integers(0, 2**32), st.integers(0, 12))
def test_the_table_ends_as_the_bucket_is(steps: list[tuple[Any, ...]], seed: int, troubles: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        platform = Platform(random.Random(seed), troubles)
        platform.install(patch)
        for operation in steps:
            act(platform, operation)
        platform.settle()
        for key in KEYS:
            if key in platform.s3.buckets[UPLOADS]:
                assert_agrees(platform, key)
