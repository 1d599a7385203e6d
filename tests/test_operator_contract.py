"""The JSON that the operator's commands print is a contract: scripts rely on its names."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import failures
from deployed import UPLOADS, Deployed, deployed
from pipeline_cli.errors import ExitCode
from pipeline_cli.pipeline.dead_letters import queues as dead_letter_queues

LETTER = [
    "messageId",
    "stage",
    "shape",
    "class",
    "code",
    "message",
    "bucket",
    "key",
    "imageId",
    "failedAt",
    "attempts",
    "receives",
    "redrives",
    "requestId",
    "hint",
]
EVENT = [
    "time",
    "function",
    "message",
    "level",
    "imageId",
    "key",
    "requestId",
    "code",
    "fields",
    "stream",
    "ingestionTime",
    "eventId",
]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    monkeypatch.setattr(failures, "BUCKET", UPLOADS)
    monkeypatch.setattr(dead_letter_queues, "LONG_POLL", 0)
    with deployed(tmp_path) as made:
        item = made.put_item("a.jpg")
        made.put_thumbnail(item)
        made.s3.put_object(Bucket=UPLOADS, Key="a.jpg", Body=b"x")
        made.sqs.send_message(QueueUrl=made.outputs["image_dlq_url"], MessageBody=failures.image_failure("bad.jpg"))
        group = "/aws/lambda/p-image-processor"
        made.logs.create_log_group(logGroupName=group)
        made.logs.create_log_stream(logGroupName=group, logStreamName="s")
        line = {"level": "INFO", "outcome": "COMPLETED", "imageId": item["imageId"], "key": "a.jpg", "requestId": "r"}
        made.now = datetime.now(UTC)  # CloudWatch refuses events that are weeks old
        event = {"timestamp": round(made.now.timestamp() * 1000) - 1000, "message": json.dumps(line)}
        made.logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=[event])
        yield made


def names(world: Deployed, *arguments: str) -> list[str]:
    printed: Any = world.json(*arguments)
    return list(printed[0] if isinstance(printed, list) else printed)


def test_the_names_are_kept(world: Deployed) -> None:
    assert names(world, "thumbs", "list") == [
        "key",
        "imageId",
        "thumbnailKey",
        "width",
        "height",
        "bytes",
        "present",
        "uploadDate",
    ]
    assert names(world, "dlq", "list") == [*LETTER, "settled"]
    assert names(world, "dlq", "list", "--group") == [
        "count",
        "class",
        "code",
        "stage",
        "redrivable",
        "example",
        "hint",
    ]
    assert names(world, "dlq", "show", "--key", "bad.jpg") == [*LETTER, "redrivable", "original", "log"]
    assert names(world, "dlq", "redrive", "--dry-run") == ["action", "reason", *LETTER, "settled"]
    assert names(world, "dlq", "archive", "--keep") == ["action", *LETTER]
    assert names(world, "dlq", "purge", "--dry-run") == ["action", *LETTER]
    assert names(world, "logs") == EVENT
    assert names(world, "trace", "a.jpg") == [
        "imageId",
        "bucket",
        "key",
        "outcome",
        "gap",
        "hint",
        "steps",
        "unseen",
        "earlier",
    ]
    assert list(world.json("trace", "a.jpg")["steps"][0]) == ["time", "where", "what", "detail"]


def test_a_trace_shows_the_way_to_the_history_before_a_deletion(world: Deployed) -> None:
    world.put_item("b c.jpg", status="DELETED", asOf=world.now.isoformat(), createdAt="2026-10-18T01:00:00.000Z")
    code, _, err = world.run("trace", "b c.jpg")
    assert (code, "imgpipe trace 'b c.jpg' --since 2026-10-18T00:00:00" in err) == (0, True)
    assert "earlier history" not in world.run("trace", "b c.jpg", "--since", "2026-10-18T00:00:00")[2]


def test_what_doctor_prints_has_the_same_names_whatever_it_finds(world: Deployed) -> None:
    code, out, err = world.run("doctor", "--output", "json")
    assert code == ExitCode.UNHEALTHY
    found = json.loads(out)
    assert {tuple(check) for check in found} == {("check", "verdict", "detail", "fix")}
    by_name = {check["check"]: check for check in found}
    # This deployment has no functions and no event: that is what it has to say, with the way out.
    assert by_name["upload event"]["verdict"] == "fail"
    assert by_name["upload event"]["fix"] == "imgpipe deploy, then imgpipe reconcile --repair"
    assert by_name["image_processor"]["verdict"] == by_name["feed of db_writer"]["verdict"] == "fail"
    assert by_name["dead letters"]["verdict"] in ("warn", "ok")
    assert json.loads(err.splitlines()[-1])["error"]["code"] == "UNHEALTHY"


def test_every_list_is_empty_without_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_queues, "LONG_POLL", 0)
    with deployed(tmp_path) as empty:
        for arguments in (
            ("thumbs", "list"),
            ("thumbs", "list", "--missing", "--stale"),
            ("meta", "query"),
            ("logs",),
            ("dlq", "list"),
            ("dlq", "list", "--group"),
            ("dlq", "redrive", "--dry-run"),
            ("dlq", "purge", "--yes"),
        ):
            assert empty.run(*arguments, "--output", "json")[:2] == (0, "[]\n"), arguments
            assert empty.run(*arguments, "--output", "jsonl")[:2] == (0, ""), arguments
