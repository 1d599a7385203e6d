"""Whatever the stores hold, each upload is counted once, the truth is found, and no output is ever taken in."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_cli.errors import ConfigurationError
from pipeline_cli.pipeline.outcomes import Outcome
from pipeline_cli.pipeline.reconciling.accounting import (
    UNACCOUNTED,
    Current,
    Image,
    ItemState,
    Kind,
    Repair,
    StoredThumbnail,
    Tally,
    Uploaded,
    judge,
)
from pipeline_cli.pipeline.reconciling.listings import Stores
from pipeline_cli.pipeline.reconciling.reconcile import check_apart
from pipeline_cli.pipeline.reconciling.repair import LoopError, record_for, s3_record
from pipeline_cli.pipeline.reconciling.reprocess import work_of
from pipeline_contract.events import Source, object_event
from pipeline_contract.identity import image_id
from pipeline_contract.item import Status

UP, THUMBS = "uploads", "thumbnails"
STORES = Stores(s3=SimpleNamespace(), dynamodb=SimpleNamespace(), upload_bucket=UP, thumbnail_bucket=THUMBS, table="t")  # type: ignore[arg-type]
SETTLED = 1000.0  # what came later may be on its way
KEYS = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()) | st.sampled_from(
    ["a.jpg", "thumbnails/x.jpg", "b.txt", "ä ö+ü%20/☃.png"]
)
BUCKETS = st.sampled_from([UP, THUMBS, "another", None])
TIMES = st.sampled_from([1.0, 999.0, 1000.0, 2000.0])
E_TAGS = st.sampled_from(["e1", "e2"])


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Anything that the stores might say of one image, sense or nonsense."""
    key = draw(KEYS)
    identity = draw(st.sampled_from([image_id(UP, key), "6f1c5a52-5a3e-4c52-9df0-0d7b7a6f2a11"]))
    uploaded = None
    if draw(st.booleans()):
        identity = image_id(UP, key)
        current = draw(st.none() | st.builds(Current, E_TAGS, TIMES, st.none() | st.just("v"), st.none()))
        versions = draw(st.integers(1 if current else 0, 5))
        uploaded = Uploaded(key, versions, current, None if current else draw(st.none() | TIMES))
    names = st.sampled_from([f"thumbnails/{identity}.jpg", f"thumbnails/{identity}_400.jpg"])
    item = draw(
        st.none()
        | st.builds(
            ItemState,
            status=st.sampled_from(Status),
            bucket=BUCKETS,
            key=st.none() | st.just(key) | KEYS,
            e_tag=st.none() | E_TAGS,
            sequencer=st.none() | st.just("0" * 32),
            version_id=st.none() | st.just("v"),
            upload_date=st.none() | st.just("2026-10-03T12:34:56.789Z"),
            as_of=st.none() | st.just("2026-10-03T12:34:56.789Z"),
            thumbnails=st.dictionaries(names, st.none() | st.integers(1, 3), max_size=2),
        )
    )
    stored = draw(st.lists(st.builds(StoredThumbnail, names, st.integers(1, 3), TIMES), unique_by=lambda one: one.key))
    letters = draw(st.frozensets(st.none() | E_TAGS, max_size=2))
    return Image(identity, uploaded, item, tuple(stored), letters)


@given(st.lists(images(), max_size=20), st.integers(0, 5))
def test_every_upload_has_one_outcome(found: list[Image], queued: int) -> None:
    tally = Tally()
    for image in found:
        tally.add(judge(image, UP, SETTLED))
    sums = tally.accounting(queued)
    outcomes = (
        sums.completed
        + sums.failed
        + sums.dead_lettered
        + sums.ignored
        + sums.superseded
        + sums.deleted
        + sums.in_flight
    )
    assert sums.uploads == outcomes + sums.unaccounted
    assert sums.balanced == (sums.unaccounted == 0)
    stored = sum(image.uploaded.versions for image in found if image.uploaded is not None)
    # What the bucket does not know any more is known by its item alone: one upload each.
    forgotten = sum(
        1 for image in found if (image.uploaded is None or image.uploaded.versions == 0) and image.item is not None
    )
    assert stored <= sums.uploads <= stored + forgotten
    assert Tally(tally.state).accounting(queued) == sums


@given(images())
def test_what_is_unaccounted_for_can_always_be_repaired(image: Image) -> None:
    verdict = judge(image, UP, SETTLED)
    if verdict.outcome is UNACCOUNTED:
        assert verdict.disagreement is not None
        assert verdict.disagreement.source is not None
    if verdict.foreign:
        assert verdict.disagreement is None
    if verdict.disagreement is not None:
        found = verdict.disagreement.finding
        assert (found.repair is Repair.DELETE_THUMBNAIL) == (verdict.disagreement.source is None)
        assert set(found.thumbnails) <= {one.key for one in image.thumbnails} | set(
            image.item.thumbnails if image.item is not None else ()
        )


@given(images())
def test_outputs_can_never_become_inputs(image: Image) -> None:
    """However an item lies about its bucket and key, only objects of the upload bucket are ever processed."""
    disagreement = judge(image, UP, SETTLED).disagreement
    if disagreement is None or (record := record_for(disagreement, STORES)) is None:
        return
    source = object_event(record).source
    assert source.bucket == UP
    assert source.image_id == image.image_id  # no other image than the one that was compared
    assert record["s3"]["bucket"]["arn"] == f"arn:aws:s3:::{UP}"
    assert unquote_plus(record["s3"]["object"]["key"]) == source.key


@given(BUCKETS, KEYS, st.sampled_from(Status))
def test_reprocessing_names_only_uploads(bucket: str | None, key: str, status: Status) -> None:
    item = {"imageId": "x", "bucket": bucket, "originalKey": key, "status": status}
    work = list(work_of([item], STORES, lambda _: True))
    assert len(work) == (bucket == UP and status is not Status.DELETED)
    for one in work:
        assert one.record is not None
        assert object_event(one.record).source.bucket == UP
        assert object_event(one.record).reprocess


def test_a_deployment_that_shares_its_buckets_is_refused() -> None:
    shared = replace(STORES, thumbnail_bucket=UP)
    with pytest.raises(ConfigurationError, match="share the bucket"):
        check_apart(shared)
    with pytest.raises(LoopError):
        s3_record(Source(UP, "a.jpg"), shared, reprocess=False)
    with pytest.raises(LoopError):
        s3_record(Source(THUMBS, "thumbnails/a.jpg"), STORES, reprocess=False)


@dataclass(frozen=True)
class Case:
    why: str
    image: Image
    outcome: Any
    kind: Kind | None = None


ID = image_id(UP, "a.jpg")
OLD = Current("e1", 1.0)
DONE = ItemState(Status.COMPLETED, UP, "a.jpg", "e1", thumbnails={f"thumbnails/{ID}.jpg": 3})
THUMB = StoredThumbnail(f"thumbnails/{ID}.jpg", 3, 1.0)
WHOLE = Image(ID, Uploaded("a.jpg", 1, OLD), DONE, (THUMB,))
CASES = [
    Case("all agree", WHOLE, Outcome.COMPLETED),
    Case("thumbnail older than the object", replace(WHOLE, uploaded=Uploaded("a.jpg", 1, Current("e1", 2.0))),
         Outcome.COMPLETED, Kind.STALE_THUMBNAIL),
    Case("thumbnail of another size", replace(WHOLE, thumbnails=(replace(THUMB, bytes=4),)),
         Outcome.COMPLETED, Kind.STALE_THUMBNAIL),
    Case("a failed image needs no thumbnail", replace(WHOLE, item=replace(DONE, status=Status.FAILED), thumbnails=()),
         Outcome.FAILED),
    Case("a failed image keeps none", replace(WHOLE, item=replace(DONE, status=Status.FAILED)),
         Outcome.FAILED, Kind.ORPHAN_THUMBNAIL),
    Case("a tombstone over a living object", replace(WHOLE, item=replace(DONE, status=Status.DELETED)),
         UNACCOUNTED, Kind.STALE_ITEM),
    Case("deleted, and all know it", Image(ID, Uploaded("a.jpg", 1, None, 1.0), replace(DONE, status=Status.DELETED)),
         Outcome.DELETED),
    Case("deleted, and its tombstone has expired", Image(ID, Uploaded("a.jpg", 2, None, 1.0)), Outcome.DELETED),
    Case("deleted just now", Image(ID, Uploaded("a.jpg", 1, None, 1000.0), DONE, (THUMB,)), Outcome.IN_FLIGHT),
    Case("deleted, the letter about its removal is dead",
         Image(ID, Uploaded("a.jpg", 1, None, 1.0), DONE, (THUMB,), frozenset({None})), Outcome.DEAD_LETTERED),
    Case("a dead letter about another version", replace(WHOLE, item=None, letters=frozenset({"e2"})),
         UNACCOUNTED, Kind.MISSING_ITEM),
    Case("a dead letter does not undo an item", replace(WHOLE, letters=frozenset({"e1", None})), Outcome.COMPLETED),
    Case("named by its content type", Image(ID, Uploaded("a", 1, replace(OLD, content_type="image/png"))),
         UNACCOUNTED, Kind.MISSING_ITEM),
    Case("no image at all, and young", Image(ID, Uploaded("a", 1, Current("e1", 1000.0, content_type="text/plain"))),
         Outcome.IGNORED),
    Case("no image at all, and young, its thumbnail may still go",
         Image(ID, Uploaded("a", 1, Current("e1", 1000.0, content_type="text/plain")), thumbnails=(THUMB,)),
         Outcome.IGNORED),
    Case("an image, and young", Image(ID, Uploaded("a", 1, Current("e1", 1000.0, content_type="image/png"))),
         Outcome.IN_FLIGHT),
    Case("no image at all", Image(ID, Uploaded("a", 1, replace(OLD, content_type="text/plain"))), Outcome.IGNORED),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_known_cases(case: Case) -> None:
    verdict = judge(case.image, UP, SETTLED)
    found = verdict.disagreement.finding.kind if verdict.disagreement is not None else None
    assert (verdict.outcome, found) == (case.outcome, case.kind)
