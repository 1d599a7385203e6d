"""A redrive loses no message, whatever fails in the middle of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failures import image_failure, invocation_record, metadata, writer_failure
from pipeline_cli.errors import UsageError
from pipeline_cli.pipeline.dead_letters import archives
from pipeline_cli.pipeline.dead_letters.archives import Archive
from pipeline_cli.pipeline.dead_letters.messages import dead_letter
from pipeline_cli.pipeline.dead_letters.queues import Queue, Selection, read
from pipeline_cli.pipeline.dead_letters.redrive import MAX_REDRIVES, Action, Redriven, Targets, redrive
from pipeline_contract.failures import FailureClass, FailureCode, Stage
from pipeline_contract.messages import REDRIVES
from queue_service import Message, QueueService

IMAGE_DLQ, METADATA_DLQ, METADATA = "image-dlq", "metadata-dlq", "metadata"
QUEUES = (Queue(Stage.IMAGE_PROCESSOR, IMAGE_DLQ), Queue(Stage.DB_WRITER, METADATA_DLQ))

BODIES = {
    "timeout": lambda key: image_failure(key, FailureCode.TIMEOUT),
    "corrupt": lambda key: image_failure(key, FailureCode.CORRUPT),
    "invocation": invocation_record,
    "writer": writer_failure,
    "raw": metadata,
    "nonsense": lambda key: f"nonsense {key}",
}
REDRIVABLE = {"timeout", "invocation", "writer", "raw"}


def service(kinds: list[str], *, seed: int = 0, faults: float = 0.0) -> QueueService:
    queues: dict[str, list[Message]] = {IMAGE_DLQ: [], METADATA_DLQ: [], METADATA: []}
    for number, kind in enumerate(kinds):
        url = METADATA_DLQ if kind in ("writer", "raw") else IMAGE_DLQ
        queues[url].append(Message(f"{number}-{kind}", BODIES[kind](f"{number}.jpg")))
    return QueueService(queues, seed=seed, faults=faults)


def run(sqs: QueueService, file: Path, selection: Selection | None = None, **settings: Any) -> list[Redriven]:
    targets = Targets(sqs, "processor", METADATA)
    return list(
        redrive(
            sqs,
            QUEUES,
            targets,
            selection or Selection(),
            archive=Archive(file, 1_790_000_000),
            sleep=lambda seconds: None,
            **settings,
        )
    )


def accepted(sqs: QueueService) -> set[str]:
    """The keys of the images that the pipeline was given again."""
    keys = {json.loads(payload)["Records"][0]["s3"]["object"]["key"] for payload in sqs.invoked}
    return keys | {json.loads(entry["MessageBody"])["source"]["key"] for _, entry in sqs.sent}


def key_of(message_id: str) -> str:
    return message_id.split("-")[0] + ".jpg"


@given(
    st.lists(st.sampled_from(sorted(BODIES)), max_size=40),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.1, 0.4]),
)
def test_no_message_is_lost_and_what_left_the_queue_was_accepted_and_archived(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], seed: int, faults: float
) -> None:
    file = tmp_path_factory.mktemp("archive") / "a.jsonl"
    sqs = service(kinds, seed=seed, faults=faults)
    before = {message.message_id for url in (IMAGE_DLQ, METADATA_DLQ) for message in sqs.queues[url]}
    steps = run(sqs, file)
    left = {message.message_id for url in (IMAGE_DLQ, METADATA_DLQ) for message in sqs.queues[url]}
    gone = before - left
    assert {key_of(name) for name in gone} <= accepted(sqs)
    archived = {one.raw["MessageId"] for one in archives.load(file)} if file.exists() else set()
    assert gone <= archived
    # Each message is spoken of once, and what is said of it is so.
    assert sorted(step.letter.message_id for step in steps) == sorted(before)
    for step in steps:
        name, kind = step.letter.message_id, step.letter.message_id.split("-")[1]
        assert (step.action is Action.REDRIVEN) == (name in gone)
        assert (step.action is Action.REFUSED) == (kind not in REDRIVABLE)
        assert (step.action in (Action.REDRIVEN, Action.DUPLICATE)) == (key_of(name) in accepted(sqs))
    # What stays is visible again at once.
    assert len(sqs.visible(IMAGE_DLQ)) + len(sqs.visible(METADATA_DLQ)) == len(left)
    if not faults:
        assert {name.split("-")[1] for name in left} <= set(BODIES) - REDRIVABLE


def test_a_list_reads_all_and_leaves_all_visible() -> None:
    sqs = service(["timeout", "corrupt", "raw", "nonsense"] * 30)
    listing = read(sqs, QUEUES)
    assert len(listing.letters) == 120
    assert listing.elsewhere == 0
    assert len(sqs.visible(IMAGE_DLQ)) + len(sqs.visible(METADATA_DLQ)) == 120


def test_a_list_says_when_somebody_else_holds_messages() -> None:
    sqs = service(["timeout", "timeout", "timeout"])
    sqs.queues[IMAGE_DLQ][0].hidden_until = 1e9
    listing = read(sqs, QUEUES)
    assert (len(listing.letters), listing.elsewhere) == (2, 1)


def test_messages_are_visible_again_after_an_interrupt() -> None:
    sqs = service(["timeout"] * 30)

    def interrupted(**request: Any) -> dict[str, Any]:
        if sqs.time > 0.05:
            raise KeyboardInterrupt
        return QueueService.receive_message(sqs, **request)

    sqs.receive_message = interrupted
    with pytest.raises(KeyboardInterrupt):
        read(sqs, QUEUES[:1])
    assert len(sqs.visible(IMAGE_DLQ)) == 30


def test_a_message_that_fails_again_at_once_is_not_redriven_in_a_circle(tmp_path: Path) -> None:
    sqs = service(["timeout"] * 3)
    accept = sqs.invoke

    def failing(**request: Any) -> dict[str, Any]:
        answer = accept(**request)
        again = json.loads(request["Payload"])["Records"][0]
        body = image_failure(again["s3"]["object"]["key"], FailureCode.TIMEOUT, original=again)
        sqs.queues[IMAGE_DLQ].append(Message(f"back{len(sqs.invoked)}", body))
        return answer

    sqs.invoke = failing
    steps = run(sqs, tmp_path / "a.jsonl")
    assert len(sqs.invoked) == 3
    assert sorted(step.action for step in steps) == [Action.REDRIVEN] * 3 + [Action.RETURNED] * 3
    back = [dead_letter({"MessageId": m.message_id, "Body": m.body}, QUEUES[0].stage) for m in sqs.queues[IMAGE_DLQ]]
    assert [letter.redrives for letter in back] == [1, 1, 1]


def test_what_came_back_too_often_is_refused_unless_forced(tmp_path: Path) -> None:
    sqs = service(["raw"])
    sqs.queues[METADATA_DLQ][0].attributes = {REDRIVES: {"DataType": "Number", "StringValue": str(MAX_REDRIVES)}}
    assert [step.action for step in run(sqs, tmp_path / "a.jsonl")] == [Action.REFUSED]
    assert [step.action for step in run(sqs, tmp_path / "a.jsonl", force=True)] == [Action.REDRIVEN]


def test_permanent_failures_are_redriven_when_forced_and_nonsense_never(tmp_path: Path) -> None:
    sqs = service(["corrupt", "nonsense"])
    steps = run(sqs, tmp_path / "a.jsonl", force=True)
    assert {step.letter.message_id: step.action for step in steps} == {
        "0-corrupt": Action.REDRIVEN,
        "1-nonsense": Action.REFUSED,
    }


def test_attributes_of_every_type_go_along(tmp_path: Path) -> None:
    sqs = service(["raw"])
    sqs.queues[METADATA_DLQ][0].attributes = {
        "text": {"DataType": "String", "StringValue": "é", "StringListValues": []},
        "number": {"DataType": "Number.int", "StringValue": "7"},
        "binary": {"DataType": "Binary", "BinaryValue": b"\x00\xff", "BinaryListValues": []},
    }
    run(sqs, tmp_path / "a.jsonl")
    assert sqs.sent[0][1]["MessageAttributes"] == {
        "text": {"DataType": "String", "StringValue": "é"},
        "number": {"DataType": "Number.int", "StringValue": "7"},
        "binary": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        REDRIVES: {"DataType": "Number", "StringValue": "1"},
    }
    (archived,) = archives.load(tmp_path / "a.jsonl")
    assert archived.raw["MessageAttributes"]["binary"]["BinaryValue"] == b"\x00\xff"


def test_only_what_is_selected_goes(tmp_path: Path) -> None:
    sqs = service(["timeout", "invocation", "raw", "raw"])
    steps = run(sqs, tmp_path / "a.jsonl", Selection(stage=Stage.DB_WRITER, key="3*"))
    assert [step.letter.message_id for step in steps] == ["3-raw"]
    steps = run(sqs, tmp_path / "a.jsonl", Selection(class_=FailureClass.TRANSIENT), only=frozenset({"0-timeout"}))
    assert [step.letter.message_id for step in steps] == ["0-timeout"]
    assert len(sqs.queues[IMAGE_DLQ]) + len(sqs.queues[METADATA_DLQ]) == 2


def test_the_rate_is_kept(tmp_path: Path) -> None:
    slept: list[float] = []
    sqs = service(["timeout"] * 30)
    targets = Targets(sqs, "processor", METADATA)
    archive = Archive(tmp_path / "a.jsonl", 0)
    steps = list(redrive(sqs, QUEUES, targets, Selection(), archive=archive, sleep=slept.append, rate=5))
    assert len(steps) == 30
    assert sum(slept) == pytest.approx(6)


def test_nothing_is_sent_when_the_archive_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sqs = service(["timeout"])
    with pytest.raises(OSError, match="file"):
        run(sqs, tmp_path / "file" / "a.jsonl")
    assert not sqs.invoked
    assert len(sqs.visible(IMAGE_DLQ)) == 1


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"schema": "imgpipe.archive/1"}', '{"schema": "x", "body": "b"}'])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(UsageError, match="line 2"):
        list(archives.load(file))
