"""Nothing that can stand in the metadata queue blocks its batch, and nothing is dropped."""

import json
import random
from typing import Any

import pytest

from db_writer import handler as writer
from handler_world import UPLOADS, plain
from pipeline_contract.identity import image_id
from platform_model import METADATA_DLQ, Platform
from test_db_writer import FLAT, message

BODIES = 1000
STRANGE: list[Any] = [
    None, True, -1, 2**70, 1e300, 1e-300, "", "x", "\0", "\ud800", "\u202e", "x" * 5000, [], [[[[[[[[1]]]]]]]], {},
    {"": 1}, {"a": None}, "NaN", "2026-13-45T99:99:99Z", "2026-10-03T12:00:00", "999999-01-01", "thumbnails/../../x",
]  # fmt: skip


def mutated(chance: random.Random, value: Any) -> Any:
    """The value with one thing in it changed."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        kind = chance.randrange(4)
        if kind == 0:
            return {other: item for other, item in value.items() if other != name}
        if kind == 1:
            return {**value, name + chance.choice(["x", "", "\n"]): chance.choice(STRANGE)}
        return {**value, name: mutated(chance, value[name])}
    if isinstance(value, list) and value and chance.random() < 0.5:
        return [mutated(chance, value[0]), *value[1:]]
    return chance.choice(STRANGE)


def body(chance: random.Random) -> str:
    kind = chance.randrange(8)
    if kind == 0:
        return "".join(chr(chance.randrange(1, 0x2FF)) for _ in range(chance.randrange(200)))
    if kind == 1:
        return chance.choice(["", "null", "[]", "{}", "NaN", "[" * 50_000, '{"a":' * 3000, '{"schema":1}', '"x"'])
    value: Any = chance.choice([message(), message(2, message_op(chance)), FLAT, entry()])
    for _ in range(chance.randrange(1, 4)):
        value = mutated(chance, value)
    text = json.dumps(value)
    if kind == 2:
        where = chance.randrange(len(text) + 1)
        text = text[:where] + chance.choice(['"', "}", "\\", "\0", "é", ""]) + text[where + 1 :]
    return text


def message_op(chance: random.Random) -> Any:
    from pipeline_contract.messages import Op

    return chance.choice(list(Op))


def entry() -> dict[str, Any]:
    return {
        "schema": "imgpipe.failure/1", "stage": "db_writer", "class": "PERMANENT", "code": "CORRUPT", "message": "m",
        "failedAt": "2026-10-03T12:00:00.000Z", "attempts": 1, "original": message(),
    }  # fmt: skip


def test_poison_blocks_nothing_and_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(20261003)
    platform = Platform(chance)
    platform.install(monkeypatch)
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(writer, "write", lines.append)
    bodies = [body(chance) for _ in range(BODIES)]
    context = type("Context", (), {"aws_request_id": "r", "get_remaining_time_in_millis": lambda self: 10_000})()
    for start in range(0, BODIES, 9):
        good = message(3, key=f"good-{start}.jpg")
        batch = [*bodies[start : start + 9], json.dumps(good)]
        records = [
            {"messageId": f"{start + index}", "body": text, "attributes": {"ApproximateReceiveCount": "1"}}
            for index, text in enumerate(batch)
        ]
        answer = writer.lambda_handler({"Records": records}, context)
        assert answer == {"batchItemFailures": []}
        item = platform.dynamodb.items[image_id(UPLOADS, f"good-{start}.jpg")]
        assert plain(item["status"]) == "COMPLETED"
    outcomes = [line["outcome"] for line in lines]
    batches = -(-BODIES // 9)
    assert len(outcomes) == BODIES + batches
    reported = sum(outcome in ("REPORTED", "FORWARDED") for outcome in outcomes)
    assert reported == len(platform.sqs.queues[METADATA_DLQ])
    assert set(outcomes) <= {"WRITTEN", "DUPLICATE", "STALE", "REPORTED", "FORWARDED"}
    assert reported > BODIES // 2  # they are poison
    for text in platform.sqs.queues[METADATA_DLQ]:
        assert json.loads(text)["schema"] == "imgpipe.failure/1"
        assert json.loads(text)["code"]
