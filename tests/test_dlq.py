"""`imgpipe dlq` against real queues: what the operator sees, agrees to, and gets back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import failures
from deployed import TABLE, UPLOADS, Deployed, Terminal, deployed
from pipeline_cli.errors import ExitCode
from pipeline_cli.pipeline.dead_letters import queues as dead_letter_queues
from pipeline_contract.failures import FailureCode
from pipeline_contract.messages import REDRIVES


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    monkeypatch.setattr(failures, "BUCKET", UPLOADS)
    monkeypatch.setattr(dead_letter_queues, "LONG_POLL", 0)
    with deployed(tmp_path) as made:
        image, writer = made.outputs["image_dlq_url"], made.outputs["dlq_url"]
        made.sqs.send_message(QueueUrl=image, MessageBody=failures.image_failure("corrupt.jpg"))
        made.sqs.send_message(QueueUrl=image, MessageBody="nonsense")
        for number in range(12):
            body = failures.writer_failure(f"{number}.jpg", FailureCode.TABLE_MISSING)
            made.sqs.send_message(QueueUrl=writer, MessageBody=body)
        made.sqs.send_message(
            QueueUrl=writer,
            MessageBody=failures.metadata("raw.jpg"),
            MessageAttributes={"tint": {"DataType": "String", "StringValue": "é"}},
        )
        yield made


def waiting(world: Deployed, queue: str) -> int:
    answer = world.sqs.get_queue_attributes(QueueUrl=world.outputs[queue], AttributeNames=["All"])["Attributes"]
    assert answer["ApproximateNumberOfMessagesNotVisible"] == "0"
    return int(answer["ApproximateNumberOfMessages"])


def keys(world: Deployed, *arguments: str) -> list[str | None]:
    return sorted(row["key"] or "" for row in world.json("dlq", "list", *arguments))


def test_a_list_shows_all_with_reasons_and_hides_none(world: Deployed) -> None:
    rows = world.json("dlq", "list")
    assert len(rows) == 15
    assert {(row["class"], row["code"]) for row in rows} == {
        ("PERMANENT", "CORRUPT"),
        ("PERMANENT", "MESSAGE_MALFORMED"),
        ("CONFIG", "TABLE_MISSING"),
        ("TRANSIENT", None),
    }
    assert (waiting(world, "image_dlq_url"), waiting(world, "dlq_url")) == (2, 13)
    groups = world.json("dlq", "list", "--group")
    assert (groups[0]["count"], groups[0]["code"], groups[0]["redrivable"]) == (12, "TABLE_MISSING", 12)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--stage", "image_processor"], 2),
        (["--code", "table_missing"], 12),
        (["--class", "permanent"], 2),
        (["--key", "1*.jpg"], 3),
        (["--where", "code is None"], 1),
        (["--where", "attempts >= 1 and stage == 'db_writer'"], 13),
        (["--since", "1h", "--code", "table_missing"], 0),
        (["--since", "30d", "--code", "table_missing"], 12),
        (["--class", "config", "--key", "3.jpg"], 1),
    ],
)
def test_what_is_selected(world: Deployed, arguments: list[str], count: int) -> None:
    # The failures of this test are of 2026-10-03, but for what has no time of its own.
    selected = [
        row for row in world.json("dlq", "list", *arguments) if row["shape"] == "failure" or "--since" not in arguments
    ]
    assert len(selected) == count


def test_selecting_by_id_takes_its_beginning_or_the_image(world: Deployed) -> None:
    row = world.json("dlq", "list", "--key", "7.jpg")[0]
    for name in (row["messageId"][:9], row["imageId"]):
        assert keys(world, "--id", name) == ["7.jpg"]
    assert keys(world, "--id", "nothing") == []


def test_without_a_yes_nothing_moves(world: Deployed) -> None:
    for command in (("redrive",), ("purge",), ("archive",)):
        code, _, err = world.run("dlq", *command)
        assert (code, "Nobody is there to answer" in err) == (ExitCode.USAGE, True)
        assert world.run("dlq", *command, "--dry-run")[0] == 0
    assert (waiting(world, "image_dlq_url"), waiting(world, "dlq_url"), waiting(world, "metadata_queue_url")) == (
        2,
        13,
        0,
    )


def test_a_redrive_sends_to_the_metadata_queue_what_failed_there(world: Deployed) -> None:
    code, out, err = world.run("dlq", "redrive", "--stage", "db_writer", "--yes", "--output", "jsonl")
    assert code == 0, err
    assert {json.loads(line)["action"] for line in out.splitlines()} == {"redriven"}
    assert "deployment p" in err
    assert (waiting(world, "dlq_url"), waiting(world, "metadata_queue_url")) == (0, 13)
    found = {}
    while batch := world.sqs.receive_message(
        QueueUrl=world.outputs["metadata_queue_url"], MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    ).get("Messages"):
        found |= {json.loads(message["Body"])["source"]["key"]: message for message in batch}
    assert len(found) == 13
    assert json.loads(found["3.jpg"]["Body"]) == json.loads(failures.metadata("3.jpg"))
    assert found["raw.jpg"]["MessageAttributes"]["tint"]["StringValue"] == "é"
    assert found["raw.jpg"]["MessageAttributes"][REDRIVES]["StringValue"] == "1"
    (copy,) = (Path(world.environ["IMGPIPE_HOME"]) / "data" / "archives" / "p").glob("redrive-*.jsonl")
    assert len(copy.read_text().splitlines()) == 13
    assert copy.stat().st_mode & 0o077 == 0


def test_a_redrive_that_refuses_everything_has_failed(world: Deployed) -> None:
    for answer in ("--yes", "--quiet"):  # as it goes, and when it would ask
        code, out, err = world.run("dlq", "redrive", "--class", "permanent", answer, "--output", "json")
        assert (code, [row["action"] for row in json.loads(out)]) == (ExitCode.FAILED, ["refused", "refused"])
        assert "Nothing was redriven: 2 messages refused" in err
    assert waiting(world, "image_dlq_url") == 2
    assert world.run("dlq", "redrive", "--class", "permanent", "--dry-run")[0] == 0
    assert world.run("dlq", "redrive", "--yes")[0] == 0  # what is permanent is left alone, beside what is sent


def test_an_interrupted_redrive_says_what_it_did(world: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline_cli.pipeline.dead_letters import redrive

    send, batches = redrive._send, []

    def interrupted(*arguments: Any) -> Any:
        batches.append(arguments)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return send(*arguments)

    monkeypatch.setattr(redrive, "_send", interrupted)
    code, out, err = world.run("dlq", "redrive", "--stage", "db_writer", "--yes", "--output", "json")
    assert code == ExitCode.INTERRUPTED
    actions = [row["action"] for row in json.loads(out)]
    sent, held = actions.count("redriven"), actions.count("interrupted")
    assert (sent, held) == (len(batches[0][2]), len(batches[1][2]))
    assert f"{sent} redriven, {held} interrupted." in err
    assert "Go on with the same command: imgpipe dlq redrive" in err
    copy = next(Path(line.removeprefix("Safety copy: ")) for line in err.splitlines() if line.startswith("Safety"))
    assert len(copy.read_text().splitlines()) == sent + held
    assert (waiting(world, "dlq_url"), waiting(world, "metadata_queue_url")) == (13 - sent, sent)


def test_a_message_that_comes_back_at_once_has_one_row(world: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline_cli.pipeline.dead_letters import redrive

    def failing(_targets: Any, letter: Any) -> None:
        again = failures.image_failure("corrupt.jpg", original={**letter.records[0], REDRIVES: 1})
        world.sqs.send_message(QueueUrl=world.outputs["image_dlq_url"], MessageBody=again)

    monkeypatch.setattr(redrive, "_invoke", failing)
    monkeypatch.setattr(dead_letter_queues, "BATCH", 1)
    arguments = ("--key", "corrupt.jpg", "--force", "--yes", "--output", "json")
    code, out, err = world.run("dlq", "redrive", *arguments)
    (row,) = json.loads(out)
    assert (code, row["action"], row["reason"]) == (0, "redriven", "in the queue again: CORRUPT: why")
    assert "1 redriven, 1 in the queue again." in err


def test_what_newer_events_have_settled_needs_no_repair_and_is_kept(world: Deployed) -> None:
    newer, older = "0062".ljust(32, "0"), "0060".ljust(32, "0")
    world.put_item("corrupt.jpg", status="DELETED", sequencer=newer, uploadDay=None, formatMonth=None)
    world.put_item("1.jpg", sequencer=newer)
    world.put_item("2.jpg", sequencer="0061".ljust(32, "0"))
    world.put_item("3.jpg", status="DELETED", sequencer=older, uploadDay=None, formatMonth=None)
    world.put_failed("4.jpg", sequencer=newer)
    world.put_item("5.jpg")  # nobody knows which is newer
    listed = world.json("dlq", "list")
    known = {row["key"]: row["settled"] for row in listed if row["settled"]}
    assert known == {"corrupt.jpg": "DELETED", "1.jpg": "SUPERSEDED", "2.jpg": "COMPLETED"}
    code, out, err = world.run("dlq", "list", stdout=Terminal())
    assert ("Since then" in out, "3 messages settled since" in err) == (True, True)
    assert "11 messages can be redriven" in err
    planned = {row["key"]: row["reason"] for row in world.json("dlq", "redrive", "--dry-run")}
    assert planned["corrupt.jpg"] == "the image was deleted since: nothing to repair"
    assert planned["1.jpg"] == "a newer event of the image has come through since: nothing to repair"
    # Refused because it is permanent, but there is nothing to repair: no failure, and it is still there.
    assert world.run("dlq", "redrive", "--key", "corrupt.jpg", "--yes")[0] == 0
    assert (waiting(world, "image_dlq_url"), waiting(world, "dlq_url")) == (2, 13)
    world.dynamodb.delete_table(TableName=TABLE)
    code, out, err = world.run("dlq", "list", "--output", "json")
    assert (code, len(json.loads(out))) == (0, 15)
    assert "the table answers ResourceNotFoundException" in err


def test_nothing_to_archive_is_said_and_hidden_messages_are_no_success(world: Deployed, tmp_path: Path) -> None:
    file = tmp_path / "none.jsonl"
    for more in ((), ("--yes",), ("--keep",)):
        code, _, err = world.run("dlq", "archive", "--key", "nothing", "--to", str(file), *more)
        assert code == 0
        assert "Nothing to " in err
    assert not file.exists()
    for queue in ("image_dlq_url", "dlq_url"):
        while world.sqs.receive_message(
            QueueUrl=world.outputs[queue], MaxNumberOfMessages=10, VisibilityTimeout=600
        ).get("Messages"):
            pass
    for command in ("archive", "purge", "redrive"):
        for more in ((), ("--yes",)):
            code, _, err = world.run("dlq", command, *more)
            assert (code, "Nothing was done: somebody else is reading 15 messages" in err) == (ExitCode.FAILED, True)
    assert world.run("dlq", "archive", "--dry-run")[0] == 0


def test_an_image_that_nobody_takes_stays_and_is_said_to_stay(world: Deployed) -> None:
    """The processor does not exist here: its invoke is refused."""
    code, out, err = world.run("dlq", "redrive", "--key", "corrupt.jpg", "--force", "--yes", "--output", "json")
    assert (code, json.loads(out)[0]["action"]) == (ExitCode.FAILED, "failed")
    assert "1 message could not be redriven and stay in the queue" in err
    assert waiting(world, "image_dlq_url") == 2


def test_an_archive_comes_back_as_it_was(world: Deployed, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    before = keys(world)
    code, _, err = world.run("dlq", "archive", "--to", str(file), "--yes")
    assert code == 0, err
    assert (waiting(world, "image_dlq_url"), waiting(world, "dlq_url")) == (0, 0)
    assert world.run("dlq", "restore", str(file), "--dry-run")[0] == 0
    assert waiting(world, "dlq_url") == 0
    code, _, err = world.run("dlq", "restore", str(file))
    assert code == 0, err
    assert keys(world) == before
    raw = world.json("dlq", "show", "--where", "code is None", "--no-log")
    assert raw["original"] == json.loads(failures.metadata("raw.jpg"))


def test_a_missing_archive_is_named_with_the_folder_of_the_others(world: Deployed, tmp_path: Path) -> None:
    code, _, err = world.run("dlq", "restore", str(tmp_path / "missing.jsonl"))
    assert (code, "Errno" in err) == (ExitCode.USAGE, False)
    assert f"There is no file {tmp_path}/missing.jsonl" in err
    assert f"ls {world.environ['IMGPIPE_HOME']}/data/archives/p" in err


def test_keep_copies_and_leaves(world: Deployed, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    assert world.run("dlq", "archive", "--keep", "--to", str(file))[0] == 0
    assert len(file.read_text().splitlines()) == 15
    assert (waiting(world, "image_dlq_url"), waiting(world, "dlq_url")) == (2, 13)


def test_a_purge_deletes_what_is_selected_and_keeps_a_copy(world: Deployed) -> None:
    code, _, err = world.run("dlq", "purge", "--key", "1*.jpg", "--yes")
    assert (code, "Safety copy" in err) == (0, True)
    assert len(keys(world)) == 12
    code, _, err = world.run("dlq", "purge", "--yes", "--no-archive")
    assert (code, "Safety copy" in err) == (0, False)
    assert keys(world) == []


def test_show_says_all_and_nothing_is_not_found(world: Deployed) -> None:
    shown = world.json("dlq", "show", "--key", "corrupt.jpg", "--no-log")
    assert (shown["original"], shown["redrivable"]) == (
        [failures.record("corrupt.jpg")],
        "permanent: it would fail again (--force to try)",
    )
    assert world.run("dlq", "show", "--key", "nothing")[0] == ExitCode.NOT_FOUND
