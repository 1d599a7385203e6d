import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from handler_world import CORRUPT, THUMBNAILS, jpeg
from image_processor import handler as processor
from pipeline_cli.errors import ExitCode
from reconcile_world import Deployed, deployed


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Deployed]:
    with deployed(monkeypatch, tmp_path) as stack:
        yield stack


def change(here: Deployed, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    """The function is deployed anew with other settings."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        here.function.environment[name] = value
    processor.deployment.cache_clear()


def test_after_a_change_of_size_and_format(here: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("a.jpg", "b.jpg"):
        here.upload(key)
    before = here.world.item("a.jpg")
    assert here.run("reprocess", "--outdated", "--yes", "--output", "json").json["selected"] == 0
    change(here, monkeypatch, THUMBNAIL_SIZE="50", THUMBNAIL_FORMAT="WEBP", EXTRA_THUMBNAIL_SIZES="80")
    planned = here.run("reprocess", "--outdated", "--dry-run", "--output", "jsonl")
    assert sorted(json.loads(line)["key"] for line in planned.stdout.splitlines()) == ["a.jpg", "b.jpg"]
    assert "2 images chosen: 2 invocations" in planned.stderr
    assert here.function.seen == []

    first = here.run("reprocess", "--outdated", "--yes", "--max", "1", "--output", "json")
    assert (first.code, first.json["sent"], first.json["left"]) == (ExitCode.DONE, 1, 1)
    here.function.run()
    rest = here.run("reprocess", "--outdated", "--yes", "--output", "json")
    assert rest.json["selected"] == 1  # what was done is not outdated any more
    here.function.run()

    item = here.world.item("a.jpg")
    assert item is not None
    assert before is not None
    assert [(one["pixels"], one["format"]) for one in item["thumbnails"]] == [(50, "WEBP"), (80, "WEBP")]
    assert sorted(here.world.thumbnails("a.jpg")) == sorted(one["key"] for one in item["thumbnails"])
    for name in ("sequencer", "uploadDate", "createdAt", "eTag", "versionId"):
        assert item[name] == before[name], name
    assert here.reconcile().code == ExitCode.DONE
    assert here.run("reprocess", "--outdated", "--yes", "--output", "json").json["selected"] == 0


def test_named_images_and_only_those(here: Deployed) -> None:
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        here.upload(key)
    done = here.run("reprocess", "b.jpg", "--yes", "--output", "json")
    assert list(done.json) == ["selected", "sent", "failed", "reason", "left", "estimate"]
    (record,) = here.function.seen
    assert record["s3"]["object"]["key"] == "b.jpg"
    assert record["reprocess"] is True
    unknown = here.run("reprocess", "b.jpg", "nope.jpg", "--yes")
    assert unknown.code == ExitCode.NOT_FOUND
    assert "nope.jpg" in unknown.stderr
    assert here.run("reprocess", "--yes").code == ExitCode.USAGE
    assert here.run("reprocess", "--all").code == ExitCode.USAGE  # nobody is there to answer
    assert len(here.function.seen) == 1


def test_a_failed_image_whose_limit_was_raised(here: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    change(here, monkeypatch, MAX_PIXELS="1000")
    here.upload("large.jpg")
    here.upload("bad.jpg", data=CORRUPT)
    assert here.world.item("large.jpg")["errorCode"] == "PIXEL_LIMIT"  # type: ignore[index]
    change(here, monkeypatch, MAX_PIXELS="10000000")
    done = here.run("reprocess", "--status", "failed", "--where", "errorCode == 'PIXEL_LIMIT'", "--yes", "-q")
    assert done.code == ExitCode.DONE
    here.function.run()
    assert here.world.item("large.jpg")["status"] == "COMPLETED"  # type: ignore[index]
    assert here.world.item("bad.jpg")["status"] == "FAILED"  # type: ignore[index]


def test_what_happened_meanwhile_wins(here: Deployed) -> None:
    for key in ("overwritten.jpg", "deleted.jpg"):
        here.upload(key)
    assert here.run("reprocess", "--all", "--yes").code == ExitCode.DONE
    here.upload("overwritten.jpg", data=jpeg("blue"))
    newer = here.world.item("overwritten.jpg")
    here.world.process(here.world.delete("deleted.jpg"))
    here.world.settle()
    here.function.run()
    assert here.world.item("overwritten.jpg") == newer
    assert here.world.item("deleted.jpg")["status"] == "DELETED"  # type: ignore[index]
    assert here.world.s3.list_objects_v2(Bucket=THUMBNAILS)["KeyCount"] == 1
    assert here.reconcile().code == ExitCode.DONE
    assert here.run("reprocess", "--all", "--yes", "--output", "json").json["selected"] == 1
