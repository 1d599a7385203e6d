"""`imgpipe dlq` against real queues: what the operator sees, agrees to, and gets back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import failures
from deployed import UPLOADS, Deployed, deployed
from pipeline_cli.errors import ExitCode
from pipeline_cli.pipeline.dead_letters import queues as dead_letter_queues
from pipeline_cli.pipeline.dead_letters.messages import REDRIVES
from pipeline_contract.failures import FailureCode


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


def test_what_is_permanent_is_refused_and_that_is_no_failure(world: Deployed) -> None:
    code, out, _ = world.run("dlq", "redrive", "--class", "permanent", "--yes", "--output", "json")
    assert (code, [row["action"] for row in json.loads(out)]) == (0, ["refused", "refused"])
    assert waiting(world, "image_dlq_url") == 2


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
