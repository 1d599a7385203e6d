import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

import image_processor.clients
from handler_world import CONTEXT, CORRUPT, GOOD, THUMBNAILS, World, forget_clients, jpeg, world
from image_processor import handler as processor
from pipeline_contract.failures import PipelineError
from pipeline_contract.identity import image_id, thumbnail_key


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world(monkeypatch) as made:
        yield made


KEY = "2026/café 😀+1.jpg"


def test_a_good_image_becomes_a_thumbnail_and_an_item(here: World) -> None:
    assert here.process(here.put(KEY)) == {"COMPLETED": 1}
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert item["status"] == "COMPLETED"
    assert item["originalKey"] == KEY
    assert item["fileName"] == "café 😀+1.jpg"
    assert (item["width"], item["height"], item["format"]) == (640, 480, "JPEG")
    assert item["uploadDay"] == "2026-10-03"
    assert item["formatMonth"] == "JPEG#2026-10"
    assert item["thumbnailKey"] == thumbnail_key(image_id("uploads", KEY), "jpg")
    assert here.thumbnails(KEY) == [item["thumbnailKey"]]
    assert "attention" not in item
    stored = here.s3.get_object(Bucket=THUMBNAILS, Key=item["thumbnailKey"])
    assert stored["ContentType"] == "image/jpeg"
    assert stored["Metadata"]["image-id"] == item["imageId"]
    assert stored["Metadata"]["source-sequencer"] == item["sequencer"]
    assert here.bodies("image-dlq") == []


def test_a_corrupt_image_is_reported_and_becomes_a_failed_item(here: World) -> None:
    event = here.put(KEY, CORRUPT)
    assert here.process(event) == {"FAILED": 1}
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert (item["status"], item["attention"]) == ("FAILED", "FAILED")
    (entry,) = here.bodies("image-dlq")
    assert entry["code"] == item["errorCode"]
    assert entry["class"] == "PERMANENT"
    assert entry["original"] == event
    assert entry["imageId"] == item["imageId"]
    assert entry["source"]["key"] == KEY
    assert here.thumbnails(KEY) == []


def test_what_does_not_claim_to_be_an_image_is_ignored(here: World) -> None:
    assert here.process(here.put("notes.txt", b"hello", "text/plain")) == {"IGNORED": 1}
    here.settle()
    assert here.item("notes.txt") is None
    assert here.bodies("image-dlq") == []


def test_the_log_line_of_an_image(here: World, capsys: pytest.CaptureFixture[str]) -> None:
    here.process(here.put(KEY))
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert line["outcome"] == "COMPLETED"
    assert line["key"] == KEY
    assert line["imageId"] == image_id("uploads", KEY)
    assert set(line["ms"]) == {"fetch", "render", "store", "verify", "send"}
    assert line["Processed"] == 1
    assert line["Bytes"] == len(GOOD)
    named = {metric["Name"] for directive in line["_aws"]["CloudWatchMetrics"] for metric in directive["Metrics"]}
    assert named <= set(line)
    assert {"Processed", "Bytes", "DecodeMs"} <= named


def test_an_overwrite_replaces_item_and_thumbnail(here: World) -> None:
    here.process(here.put(KEY))
    here.process(here.put(KEY, jpeg("blue", (300, 600))))
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert (item["width"], item["height"]) == (300, 600)
    assert len(here.thumbnails(KEY)) == 1


def during(world_: World, service: str, operation: str, act: Callable[[], object], *, times: int = 1) -> None:
    """Do something right after the handler's next calls of an operation, as if another process had."""
    left = [times]

    def hook(**_: Any) -> None:
        if left[0] > 0:
            left[0] -= 1
            act()

    image_processor.clients.client(service).meta.events.register(f"after-call.{service}.{operation}", hook)


def test_a_removed_image_becomes_a_tombstone_without_thumbnails(here: World) -> None:
    here.process(here.put(KEY))
    assert here.process(here.delete(KEY)) == {"DELETED": 1}
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert item["status"] == "DELETED"
    month = 30 * 24 * 3600
    assert abs(item["ttl"] - datetime.fromisoformat(item["updatedAt"]).timestamp() - month) <= 1
    assert not {"uploadDay", "formatMonth", "attention", "thumbnailKey", "exif", "width"} & set(item)
    assert here.thumbnails(KEY) == []


def test_a_late_create_does_not_bring_an_image_back(here: World) -> None:
    created = here.put(KEY)
    here.process(created)
    late = here.bodies("metadata")
    here.process(here.delete(KEY))
    here.settle()
    assert here.write(*late) == []
    assert here.item(KEY)["status"] == "DELETED"  # type: ignore[index]
    assert here.process(created) == {"GONE": 1}
    assert here.bodies("metadata") == []


def test_a_removed_delete_marker_brings_the_image_back(here: World) -> None:
    first = here.put(KEY)
    here.process(first)
    removed = here.delete(KEY)
    here.process(removed)
    here.process(here.delete(KEY, removed["s3"]["object"]["versionId"]))
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert item["status"] == "COMPLETED"
    assert item["versionId"] == first["s3"]["object"]["versionId"]
    assert "ttl" not in item
    assert here.thumbnails(KEY) == [item["thumbnailKey"]]


def test_a_lifecycle_expiry_without_a_sequencer_is_decided_by_looking(here: World) -> None:
    here.process(here.put(KEY))
    here.settle()
    name = "LifecycleExpiration:DeleteMarkerCreated"
    still_there = here.event(KEY, name, sequencer=None)
    here.process(still_there)
    here.settle()
    assert here.item(KEY)["status"] == "COMPLETED"  # type: ignore[index]
    here.delete(KEY)
    here.process(here.event(KEY, name, sequencer=None))
    here.settle()
    assert here.item(KEY)["status"] == "DELETED"  # type: ignore[index]


def test_an_event_of_an_object_that_was_overwritten_is_superseded(here: World) -> None:
    first = here.put(KEY)
    second = here.put(KEY, jpeg("blue"))
    assert here.process(first) == {"SUPERSEDED": 1}
    assert here.process(second) == {"COMPLETED": 1}
    assert len(here.bodies("metadata")) == 1


def test_an_image_overwritten_by_something_unusable_loses_its_thumbnail(here: World) -> None:
    here.process(here.put(KEY))
    here.process(here.put(KEY, CORRUPT))
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert item["status"] == "FAILED"
    assert not {"thumbnailKey", "thumbnails", "width", "exif", "formatMonth"} & set(item)
    assert here.thumbnails(KEY) == []


def test_an_image_overwritten_by_what_is_none_at_all_is_deleted(here: World) -> None:
    here.process(here.put("picture", GOOD, "image/jpeg"))
    here.process(here.put("picture", b"hello", "text/plain"))
    here.settle()
    assert here.item("picture")["status"] == "DELETED"  # type: ignore[index]
    assert here.thumbnails("picture") == []


def test_a_source_that_goes_while_its_thumbnail_is_stored_takes_it_along(here: World) -> None:
    event = here.put(KEY)
    during(here, "s3", "PutObject", lambda: here.delete(KEY))
    here.process(event)
    assert here.thumbnails(KEY) == []
    assert here.bodies("metadata") == []


def test_a_source_overwritten_while_its_thumbnail_is_stored_is_looked_at_again(here: World) -> None:
    event = here.put(KEY)
    during(here, "s3", "PutObject", lambda: here.put(KEY, CORRUPT))
    assert here.process(event) == {"SUPERSEDED": 1}
    assert here.thumbnails(KEY) == []


def test_a_repeated_event_never_takes_the_thumbnail_of_a_newer_one(here: World) -> None:
    old = here.put(KEY)
    newer = here.event(KEY, e_tag=old["s3"]["object"]["eTag"])  # the same bytes again, a newer event
    assert here.process(newer) == {"COMPLETED": 1}
    stored = here.s3.head_object(Bucket=THUMBNAILS, Key=here.thumbnails(KEY)[0])["Metadata"]
    assert here.process(old) == {"SUPERSEDED": 1}
    assert here.s3.head_object(Bucket=THUMBNAILS, Key=here.thumbnails(KEY)[0])["Metadata"] == stored


def test_a_removal_that_meets_a_new_upload_while_cleaning_makes_its_thumbnail_again(here: World) -> None:
    here.process(here.put(KEY))
    removed = here.delete(KEY)
    during(here, "s3", "ListObjectsV2", lambda: here.put(KEY, jpeg("blue")))
    assert here.process(removed) == {"COMPLETED": 1}
    assert len(here.thumbnails(KEY)) == 1


def test_an_attempt_that_died_after_its_thumbnail_is_cleaned_up_by_the_next(here: World) -> None:
    event = here.put(KEY)

    def die() -> None:
        raise KeyboardInterrupt

    during(here, "s3", "PutObject", die)
    with pytest.raises(KeyboardInterrupt):
        here.process(event)
    assert len(here.thumbnails(KEY)) == 1
    here.put(KEY, CORRUPT)
    assert here.process(event) == {"SUPERSEDED": 1}
    assert here.thumbnails(KEY) == []


def test_a_limit_lowered_since_takes_nothing_away(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    event = here.put(KEY)
    here.process(event)
    here.settle()
    monkeypatch.setenv("MAX_BYTES", "100")
    forget_clients()
    assert here.process(event) == {"FAILED": 1}
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert item["status"] == "COMPLETED"
    assert here.thumbnails(KEY) == [item["thumbnailKey"]]
    (entry,) = here.bodies("image-dlq")
    assert entry["code"] == "BYTE_LIMIT"


def test_a_redrive_repairs_a_failed_item(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_BYTES", "100")
    here.process(here.put(KEY))
    here.settle()
    assert here.item(KEY)["errorCode"] == "BYTE_LIMIT"  # type: ignore[index]
    monkeypatch.delenv("MAX_BYTES")
    forget_clients()
    (entry,) = here.bodies("image-dlq")
    assert here.process(entry["original"]) == {"COMPLETED": 1}
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert item["status"] == "COMPLETED"
    assert not {"attention", "error", "errorCode"} & set(item)


def test_reprocessing_replaces_the_item_and_what_is_not_made_any_more(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = here.put(KEY)
    here.process(event)
    here.settle()
    before = here.item(KEY)
    monkeypatch.setenv("THUMBNAIL_FORMAT", "WEBP")
    monkeypatch.setenv("EXTRA_THUMBNAIL_SIZES", "300")
    forget_clients()
    here.process(event)
    here.settle()
    assert here.item(KEY) == before  # an equal event changes nothing
    assert here.process({**event, "reprocess": True}) == {"COMPLETED": 1}
    here.settle()
    item = here.item(KEY)
    assert item is not None
    assert before is not None
    assert item["thumbnailKey"].endswith(".webp")
    assert len(item["thumbnails"]) == 2
    assert sorted(here.thumbnails(KEY)) == sorted(made["key"] for made in item["thumbnails"])
    assert item["createdAt"] == before["createdAt"]


@pytest.mark.parametrize(
    ("data", "code"), [(b"", "EMPTY_OBJECT"), (b"plain text that is no image at all", "NOT_AN_IMAGE")]
)
def test_what_claims_to_be_an_image_and_is_not(here: World, data: bytes, code: str) -> None:
    here.process(here.put(KEY, data))
    here.settle()
    assert here.item(KEY)["errorCode"] == code  # type: ignore[index]


def test_what_is_no_s3_event_is_reported_and_costs_nothing_else(here: World) -> None:
    assert here.process({"s3": "nonsense"}, here.put(KEY)) == {"FAILED": 1, "COMPLETED": 1}
    (entry,) = here.bodies("image-dlq")
    assert (entry["code"], entry["original"]) == ("MESSAGE_MALFORMED", {"s3": "nonsense"})
    assert processor.lambda_handler({"hello": 1}, CONTEXT) == {"FAILED": 1}
    assert here.bodies("image-dlq")[0]["original"] == {"hello": 1}
    assert processor.lambda_handler({"Service": "Amazon S3", "Event": "s3:TestEvent"}, CONTEXT) == {}


def test_metadata_too_large_for_the_queue_is_a_permanent_failure(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = processor.render

    def wordy(data: bytes, content_type: str | None, settings: Any) -> Any:
        return dataclasses.replace(real(data, content_type, settings), exif={"note": "x" * 300_000})

    monkeypatch.setattr(processor, "render", wordy)
    assert here.process(here.put(KEY)) == {"FAILED": 1}
    here.settle()
    assert here.item(KEY)["errorCode"] == "ITEM_TOO_LARGE"  # type: ignore[index]
    assert [entry["code"] for entry in here.bodies("image-dlq")] == ["ITEM_TOO_LARGE"]


def test_a_bug_is_raised_with_its_name_and_the_other_records_have_their_turn(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = processor.render
    calls: list[int] = []

    def broken(data: bytes, content_type: str | None, settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("oops")
        return real(data, content_type, settings)

    monkeypatch.setattr(processor, "render", broken)
    with pytest.raises(PipelineError, match=r"\AUNEXPECTED: .*ZeroDivisionError: oops"):
        here.process(here.put("a.jpg"), here.put("b.jpg"))
    here.settle()
    assert here.item("a.jpg") is None
    assert here.item("b.jpg")["status"] == "COMPLETED"  # type: ignore[index]


def test_clients_are_made_once_and_only_when_needed(here: World) -> None:
    here.process(here.put("notes.txt", b"hello", "text/plain"))
    assert image_processor.clients.client.cache_info().currsize == 1  # s3 alone
    here.process(here.put("a.jpg"), here.put("b.jpg"))
    assert image_processor.clients.client.cache_info().currsize == 2


def test_an_unversioned_bucket_works_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    with world(monkeypatch, versioned=False) as here:
        here.process(here.put(KEY))
        here.process(here.put(KEY, jpeg("blue", (300, 600))))
        here.settle()
        assert here.item(KEY)["width"] == 300  # type: ignore[index]
        here.process(here.delete(KEY))
        here.settle()
        assert here.item(KEY)["status"] == "DELETED"  # type: ignore[index]


def test_an_environment_that_cannot_be_used_is_said_so(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUMBNAIL_SIZE", "huge")
    forget_clients()
    with pytest.raises(PipelineError, match=r"\AUNEXPECTED: .*THUMBNAIL_SIZE is 'huge'"):
        here.process(here.put(KEY))
