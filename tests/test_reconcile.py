"""`imgpipe reconcile` over real handlers: what was damaged is found, and repaired by the handlers alone."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler_world import CORRUPT, TABLE, THUMBNAILS, UPLOADS, jpeg
from pipeline_cli.errors import ExitCode
from pipeline_cli.pipeline.reconciling.checkpoint import Checkpoint, Store
from pipeline_contract.identity import image_id
from reconcile_world import Deployed, deployed

GONE = "00000000-0000-5000-8000-000000000000"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Deployed]:
    with deployed(monkeypatch, tmp_path) as stack:
        yield stack


def delete_item(here: Deployed, key: str) -> None:
    here.world.dynamodb.delete_item(TableName=TABLE, Key={"imageId": {"S": image_id(UPLOADS, key)}})


def delete_thumbnails(here: Deployed, key: str) -> None:
    for thumbnail in here.world.thumbnails(key):
        here.world.s3.delete_object(Bucket=THUMBNAILS, Key=thumbnail)


def put_thumbnail(here: Deployed, image: str, data: bytes = b"x") -> None:
    here.world.s3.put_object(Bucket=THUMBNAILS, Key=f"thumbnails/{image}.jpg", Body=data)


def repaired(here: Deployed, *args: str) -> dict[str, Any]:
    """Repairs, lets the function work, and proves that all agree."""
    done = here.reconcile("--repair", "--yes", *args)
    assert done.code == ExitCode.DONE, done.stderr
    here.function.run()
    again = here.reconcile()
    assert again.code == ExitCode.DONE, again.stdout
    assert again.json["findings"] == []
    assert again.json["accounting"]["balanced"]
    return done.json


def test_a_bucket_that_was_full_before_the_pipeline_existed(here: Deployed) -> None:
    for key in ("a.jpg", "ä ö+ü%20/日本 ☃.jpg", "by-content-type", "b.txt"):
        here.world.put(key, content_type="text/plain" if key == "b.txt" else "image/jpeg")
    here.world.put("bad.jpg", CORRUPT)
    found = here.reconcile()
    assert found.code == ExitCode.UNHEALTHY
    assert found.found == dict.fromkeys(("a.jpg", "ä ö+ü%20/日本 ☃.jpg", "by-content-type", "bad.jpg"), "MISSING_ITEM")
    assert found.json["accounting"]["ignored"] == 1
    assert found.json["accounting"]["unaccounted"] == 4
    done = repaired(here)
    assert done["repaired"] == {"sent": 4, "failed": 0, "reason": None}
    assert done["estimate"]["invocations"] == 4
    assert here.reconcile().json["accounting"] | {"images": 0} == {
        "uploads": 5,
        "completed": 3,
        "failed": 1,
        "deadLettered": 0,
        "ignored": 1,
        "superseded": 0,
        "deleted": 0,
        "inFlight": 0,
        "unaccounted": 0,
        "balanced": True,
        "images": 0,
        "foreignItems": 0,
    }


def test_every_sort_of_damage_is_found_and_repaired(here: Deployed) -> None:
    for key in ("whole.jpg", "no item.jpg", "no thumbnail.jpg", "stale thumbnail.jpg", "stale item.jpg", "gone.jpg"):
        here.upload(key)
    here.upload("extra.jpg")
    delete_item(here, "no item.jpg")
    delete_thumbnails(here, "no thumbnail.jpg")
    put_thumbnail(here, image_id(UPLOADS, "stale thumbnail.jpg"))
    put_thumbnail(here, image_id(UPLOADS, "extra.jpg") + "_400")
    here.world.put("stale item.jpg", jpeg("blue"))  # its event is lost
    here.world.delete("gone.jpg")  # the same
    found = here.reconcile()
    assert found.found == {
        "no item.jpg": "MISSING_ITEM",
        "no thumbnail.jpg": "MISSING_THUMBNAIL",
        "stale thumbnail.jpg": "STALE_THUMBNAIL",
        "stale item.jpg": "STALE_ITEM",
        "gone.jpg": "ORPHAN_ITEM",
        "extra.jpg": "ORPHAN_THUMBNAIL",
    }
    before = {key: here.world.item(key) for key in ("no thumbnail.jpg", "whole.jpg")}
    repaired(here)
    item = here.world.item("no thumbnail.jpg")
    assert item is not None
    assert before["no thumbnail.jpg"] is not None
    assert item["sequencer"] == before["no thumbnail.jpg"]["sequencer"]
    assert item["uploadDate"] == before["no thumbnail.jpg"]["uploadDate"]
    assert here.world.item("whole.jpg") == before["whole.jpg"]  # what was well was let be
    assert here.reconcile().json["accounting"]["superseded"] == 1
    assert here.reconcile().json["accounting"]["deleted"] == 1


def test_thumbnails_of_nothing_are_deleted_only_when_that_is_asked_for(here: Deployed) -> None:
    here.upload("a.jpg")
    put_thumbnail(here, GONE)
    here.world.s3.put_object(Bucket=THUMBNAILS, Key="thumbnails/readme.txt", Body=b"not ours")
    kept = here.reconcile("--repair", "--yes")
    assert kept.code == ExitCode.UNHEALTHY
    assert kept.json["findings"][0] == {
        "kind": "ORPHAN_THUMBNAIL",
        "imageId": GONE,
        "key": None,
        "detail": "its object is gone",
        "repair": "DELETE_THUMBNAIL",
        "thumbnails": [f"thumbnails/{GONE}.jpg"],
    }
    assert "--delete-orphans" in kept.stderr
    repaired(here, "--delete-orphans")
    left = here.world.s3.list_objects_v2(Bucket=THUMBNAILS)["Contents"]
    assert [entry["Key"] for entry in left] == sorted([*here.world.thumbnails("a.jpg"), "thumbnails/readme.txt"])
    assert here.function.seen == []


def test_what_is_young_is_in_flight_and_no_finding(here: Deployed) -> None:
    here.world.put("new.jpg")
    here.upload("a.jpg")
    here.world.delete("a.jpg")
    result = here.run("reconcile", "--output", "json")
    assert result.code == ExitCode.DONE
    assert result.json["accounting"]["inFlight"] == 2
    assert result.json["accounting"]["balanced"]
    assert here.reconcile().code == ExitCode.UNHEALTHY


def test_what_claims_to_be_no_image_is_ignored_however_young(here: Deployed) -> None:
    here.world.put("notes", content_type="text/plain")
    here.world.put("image without extension", content_type="image/jpeg")
    sums = here.run("reconcile", "--output", "json").json["accounting"]
    assert (sums["ignored"], sums["inFlight"], sums["uploads"]) == (1, 1, 2)


def test_a_dead_letter_is_an_outcome(here: Deployed) -> None:
    record = here.world.put("throttled.jpg")
    here.world.put("lost.jpg")
    letter = {
        "version": "1.0",
        "timestamp": "2026-10-03T12:34:56.789Z",
        "requestContext": {"requestId": "r", "condition": "RetriesExhausted", "approximateInvokeCount": 3},
        "requestPayload": {"Records": [record]},
        "responsePayload": {"errorMessage": "THROTTLED: slow down", "errorType": "PipelineError"},
    }
    here.world.sqs.send_message(QueueUrl=here.world.queues["image-dlq"], MessageBody=json.dumps(letter))
    result = here.reconcile()
    assert result.found == {"lost.jpg": "MISSING_ITEM"}
    assert result.json["accounting"]["deadLettered"] == 1
    assert "imgpipe dlq redrive" in result.stderr
    assert len(here.world.bodies("image-dlq")) == 1  # only looked at
    here.world.sqs.send_message(QueueUrl=here.world.queues["image-dlq"], MessageBody=json.dumps(letter))
    here.world.put("throttled.jpg", jpeg("green"))  # the letter is not about this one
    assert set(here.reconcile().found) == {"lost.jpg", "throttled.jpg"}


def test_messages_that_wait_may_bring_what_is_missing(here: Deployed) -> None:
    here.world.process(here.world.put("a.jpg"))  # its message is in the queue
    here.world.put("b.jpg")
    here.world.put("c.jpg")
    sums = here.reconcile().json["accounting"]
    assert (sums["inFlight"], sums["unaccounted"], sums["balanced"]) == (1, 2, False)


def test_items_of_other_buckets_and_of_the_original_project_are_left_alone(here: Deployed) -> None:
    random_id = "6f1c5a52-5a3e-4c52-9df0-0d7b7a6f2a11"
    flat = {"imageId": random_id, "originalKey": "old.jpg", "thumbnailKey": f"thumbnails/{random_id}.jpg"}
    flat |= {"uploadDate": "2025-01-01T00:00:00"}
    here.world.write(flat)
    put_thumbnail(here, random_id)
    other = image_id("another-bucket", "a.jpg")
    here.world.dynamodb.put_item(
        TableName=TABLE,
        Item={
            "imageId": {"S": other},
            "bucket": {"S": "another-bucket"},
            "originalKey": {"S": "a.jpg"},
            "status": {"S": "COMPLETED"},
        },
    )
    result = here.reconcile("--repair", "--yes", "--delete-orphans")
    assert result.code == ExitCode.DONE
    assert result.json["accounting"]["foreignItems"] == 2
    assert result.json["accounting"]["uploads"] == 0
    assert here.world.s3.head_object(Bucket=THUMBNAILS, Key=f"thumbnails/{random_id}.jpg")


def test_repairs_are_bounded_in_number_and_go_on_where_they_stopped(here: Deployed) -> None:
    for number in range(5):
        here.world.put(f"{number}.jpg")
    first = here.reconcile("--repair", "--yes", "--max", "2")
    assert first.code == ExitCode.UNHEALTHY
    assert (first.json["repaired"]["sent"], first.json["left"]) == (2, 3)
    second = here.reconcile("--repair", "--yes", "--max", "2")
    assert "Going on with the run" in second.stderr
    third = here.reconcile("--repair", "--yes", "--max", "2")
    assert third.code == ExitCode.DONE
    keys = [record["s3"]["object"]["key"] for record in here.function.seen]
    assert sorted(keys) == [f"{number}.jpg" for number in range(5)]
    here.function.run()
    assert here.reconcile().code == ExitCode.DONE


def test_a_repair_takes_what_was_shown_a_moment_ago_and_nothing_older(here: Deployed) -> None:
    here.world.put("a.jpg")
    now = 2e9
    assert here.run("reconcile", "--grace", "0", now=lambda: now).code == ExitCode.UNHEALTHY
    here.world.put("b.jpg")
    early = here.run("reconcile", "--grace", "0", "--repair", "--yes", now=lambda: now + 60)
    assert "Going on with the run" in early.stderr
    assert len(here.function.seen) == 1
    assert here.run("reconcile", "--grace", "0", now=lambda: now + 120).code == ExitCode.UNHEALTHY
    here.function.run()
    late = here.run("reconcile", "--grace", "0", "--repair", "--yes", now=lambda: now + 9999)
    assert "Going on with the run" not in late.stderr
    assert [one["s3"]["object"]["key"] for one in here.function.seen] == ["a.jpg", "b.jpg"]


def test_repairs_keep_to_the_rate(here: Deployed) -> None:
    for number in range(6):
        here.world.put(f"{number}.jpg")
    slept: list[float] = []
    done = here.run("reconcile", "--grace", "0", "--repair", "--yes", "--rate", "2", "-q", sleep=slept.append)
    assert done.code == ExitCode.DONE
    assert len(slept) == 3  # two at a time, a second each
    assert all(0 < seconds <= 1 for seconds in slept)


def test_repairs_that_were_refused_fail_the_command_and_stay_to_be_done(here: Deployed) -> None:
    here.world.put("a.jpg")
    here.function.refuse = True
    refused = here.reconcile("--repair", "--yes")
    assert refused.code == ExitCode.FAILED
    assert "Lambda answered 500" in refused.stderr
    here.function.refuse = False
    repaired(here)


def test_nothing_is_done_without_an_answer(here: Deployed) -> None:
    here.world.put("a.jpg")
    refused = here.reconcile("--repair")
    assert refused.code == ExitCode.USAGE
    assert here.function.seen == []


def test_an_interrupted_run_goes_on(here: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        here.world.put(f"{number}.jpg")
    from pipeline_cli.pipeline.reconciling import reconcile

    listed: list[str] = []
    judging = reconcile._judge_all

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reconcile, "_judge_all", interrupted)
    stopped = here.reconcile()
    assert stopped.code == ExitCode.INTERRUPTED
    assert "goes on" in stopped.stderr
    monkeypatch.setattr(reconcile, "_judge_all", judging)
    monkeypatch.setattr(reconcile.listings, "plan", lambda *_: listed.append("again"))
    here.world.put("later.jpg")
    result = here.reconcile()
    assert "Going on with the run" in result.stderr
    assert listed == []
    assert result.json["accounting"]["uploads"] == 5
    monkeypatch.undo()


def test_what_changes_while_it_is_listed_is_no_finding(here: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload bucket is listed first here, the others after everything has changed; and the other way round."""
    from pipeline_cli.pipeline.reconciling import listings, reconcile

    for key in ("deleted.jpg", "overwritten.jpg", "kept.jpg", "last.jpg"):
        here.upload(key)
    pages = listings._PAGES
    order = [Store.VERSIONS, Store.ITEMS, Store.THUMBNAILS]

    def one_after_the_other(stores: Any, checkpoint: Checkpoint, _: Any) -> None:
        for round_, store in enumerate(order):
            for part in [part for part in checkpoint.unfinished() if part.store is store]:
                rows, place = pages[store](stores, part.span, part.place)
                assert place is None
                checkpoint.add_page(part, rows, place)
            here.upload(f"new-{order[0]}-{round_}.jpg")
            here.upload("overwritten.jpg", data=jpeg("blue" if round_ % 2 else "green"))
            if round_ == 0:
                here.world.process(here.world.delete("deleted.jpg" if order[0] is Store.VERSIONS else "last.jpg"))
                here.world.settle()

    monkeypatch.setattr(reconcile.listings, "list_all", one_after_the_other)
    for _ in range(2):
        result = here.reconcile()
        assert result.code == ExitCode.DONE, result.stdout
        assert result.json["accounting"]["balanced"]
        order.reverse()


def test_two_runs_at_once_do_not_mix(here: Deployed) -> None:
    assert here.reconcile().code == ExitCode.DONE
    (file,) = (Path(here.environ["IMGPIPE_HOME"]) / "data" / "reconcile").glob("*.sqlite3")
    other = sqlite3.connect(file)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    busy = here.reconcile()
    other.close()
    assert busy.code == ExitCode.FAILED
    assert json.loads(busy.stderr)["error"]["code"] == "RECONCILE_RUNNING"


def test_a_bucket_without_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with deployed(monkeypatch, tmp_path, versioned=False) as here:
        here.upload("a.jpg")
        here.upload("gone.jpg")
        here.world.delete("gone.jpg")
        assert here.reconcile().found == {"gone.jpg": "ORPHAN_ITEM"}
        repaired(here)
        assert here.reconcile().json["accounting"]["deleted"] == 1


def test_the_json_is_a_contract(here: Deployed) -> None:
    here.world.put("a.jpg")
    result = here.reconcile().json
    assert list(result) == [
        "deployment",
        "started",
        "healthy",
        "accounting",
        "queued",
        "counts",
        "findings",
        "estimate",
        "repaired",
        "left",
    ]
    assert list(result["counts"]) == [
        "MISSING_ITEM",
        "STALE_ITEM",
        "ORPHAN_ITEM",
        "MISSING_THUMBNAIL",
        "STALE_THUMBNAIL",
        "ORPHAN_THUMBNAIL",
    ]
    assert list(result["findings"][0]) == ["kind", "imageId", "key", "detail", "repair", "thumbnails"]
    assert list(result["estimate"]) == ["invocations", "thumbnailsDeleted", "seconds", "usd"]
    rows = here.run("reconcile", "--grace", "0", "--output", "jsonl")
    assert [json.loads(line)["key"] for line in rows.stdout.splitlines()] == ["a.jpg"]
    assert "1 findings" not in rows.stdout
