import json
from collections.abc import Iterator

import pytest

from handler_world import CORRUPT, GOOD, THUMBNAILS, World, jpeg, world
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
