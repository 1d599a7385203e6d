import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db_writer import batch
from db_writer import handler as writer
from db_writer.items import item_size, typed, write_of
from db_writer.retrying import Retrying
from handler_world import CONTEXT, TABLE, UPLOADS, World, world
from pipeline_contract.events import Source
from pipeline_contract.failures import FailureCode, PipelineError
from pipeline_contract.identity import image_id, padded_sequencer
from pipeline_contract.item import ATTRIBUTES
from pipeline_contract.messages import REDRIVES, Error, ImageFacts, MetadataMessage, Op, Thumbnail, Trace

KEY = "a/é 1.jpg"
IMAGE = ImageFacts(
    file_size=12345, format="JPEG", mime_type="image/jpeg", mode="RGB", width=3024, height=4032, stored_width=4032,
    stored_height=3024, orientation=6, content_sha256="ab" * 32, has_alpha=False, frame_count=1, is_progressive=True,
)  # fmt: skip


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world(monkeypatch) as made:
        yield made


def message(
    sequence: int | None = 1, op: Op = Op.UPSERT, *, key: str = KEY, e_tag: str = "e1", **more: Any
) -> dict[str, Any]:
    moment = f"2026-10-03T12:00:{sequence or 0:02}.000Z"
    made = MetadataMessage(
        op=op,
        source=Source(
            UPLOADS, key, "v1", e_tag, None if sequence is None else padded_sequencer(f"{sequence:06x}"), moment, "x"
        ),
        trace=Trace("request-0", "test", 1, "2026-10-03T12:30:00.000Z"),
        image=IMAGE if op is Op.UPSERT else None,
        exif={"available": True, "fields": 1, "fNumber": 2.8} if op is Op.UPSERT else {},
        thumbnails=(Thumbnail("thumbnails/x.jpg", 75, 100, "JPEG", 999, 100),) if op is Op.UPSERT else (),
        error=Error.of(PipelineError(FailureCode.CORRUPT, "broken")) if op is Op.FAIL else None,
    )
    body: dict[str, Any] = json.loads(dataclasses.replace(made, **more).to_json())
    return body


def test_an_item_has_every_attribute_of_its_message(here: World) -> None:
    assert here.write(message()) == []
    item = here.item(KEY)
    assert item is not None
    assert item == {
        "imageId": image_id(UPLOADS, KEY), "bucket": UPLOADS, "originalKey": KEY, "fileName": "é 1.jpg",
        "status": "COMPLETED", "schemaVersion": 1, "sequencer": "000001".ljust(32, "0"), "versionId": "v1",
        "eTag": "e1", "asOf": "2026-10-03T12:00:01.000Z", "uploadDate": "2026-10-03T12:00:01.000Z",
        "uploadDay": "2026-10-03", "formatMonth": "JPEG#2026-10", "processingDate": "2026-10-03T12:30:00.000Z",
        "processorVersion": "test", "requestId": "request-0", "fileSize": 12345, "fileSizeKB": 12.06, "format": "JPEG",
        "mimeType": "image/jpeg", "mode": "RGB", "width": 3024, "height": 4032, "storedWidth": 4032,
        "storedHeight": 3024, "orientation": 6, "contentSha256": "ab" * 32, "hasAlpha": False, "frameCount": 1,
        "isProgressive": True, "isAnimated": False, "typeMismatch": False, "thumbnailKey": "thumbnails/x.jpg",
        "thumbnailSize": 100, "exif": {"available": True, "fields": 1, "fNumber": 2.8},
        "thumbnails": [
            {"key": "thumbnails/x.jpg", "width": 75, "height": 100, "format": "JPEG", "bytes": 999, "pixels": 100}
        ],
        "createdAt": item["createdAt"], "updatedAt": item["updatedAt"],
    }  # fmt: skip


COMPLETED, FAILED, DELETED = Op.UPSERT, Op.FAIL, Op.DELETE


@pytest.mark.parametrize(
    ("there", "comes", "wins"),
    [
        ((1, COMPLETED), (2, COMPLETED), True),
        ((1, COMPLETED), (2, FAILED), True),
        ((1, COMPLETED), (2, DELETED), True),
        ((2, COMPLETED), (1, COMPLETED), False),
        ((2, DELETED), (1, COMPLETED), False),
        ((2, FAILED), (1, COMPLETED), False),
        ((1, COMPLETED), (1, COMPLETED), False),
        ((1, COMPLETED), (1, FAILED), False),
        ((1, FAILED), (1, FAILED), False),
        ((1, FAILED), (1, COMPLETED), True),
        ((1, FAILED), (1, DELETED), True),
        ((1, DELETED), (1, COMPLETED), False),
    ],
)
def test_the_write_condition(here: World, there: tuple[int, Op], comes: tuple[int, Op], wins: bool) -> None:
    here.write(message(*there))
    here.write(message(*comes, e_tag="e2"))
    item = here.item(KEY)
    assert item is not None
    assert (item["eTag"] == "e2") is wins


def test_a_reprocess_may_replace_its_equal_but_not_by_a_failure(here: World) -> None:
    here.write(message(1))
    here.write(message(1, e_tag="e2", reprocess=True))
    assert here.item(KEY)["eTag"] == "e2"  # type: ignore[index]
    here.write(message(1, FAILED, e_tag="e3", reprocess=True))
    assert here.item(KEY)["status"] == "COMPLETED"  # type: ignore[index]
    here.write(message(0, e_tag="e4", reprocess=True))
    assert here.item(KEY)["eTag"] == "e2"  # type: ignore[index]


@pytest.mark.parametrize(
    ("there", "observed_at", "wins"),
    [(5, "2026-10-03T12:00:06.000Z", True), (5, "2026-10-03T12:00:04.000Z", False)],
)
def test_without_a_sequencer_the_times_decide(here: World, there: int, observed_at: str, wins: bool) -> None:
    here.write(message(there))
    looked = message(None, DELETED, observed_at=observed_at)
    here.write(looked)
    assert (here.item(KEY)["status"] == "DELETED") is wins  # type: ignore[index]
    here.write(message(3))  # older than either
    assert (here.item(KEY)["status"] == "DELETED") is wins  # type: ignore[index]
    here.write(message(7, e_tag="e7"))  # newer than either
    assert here.item(KEY)["eTag"] == "e7"  # type: ignore[index]


def test_a_failure_found_by_looking_is_repaired_by_the_objects_own_event(here: World) -> None:
    here.write(message(None, FAILED, observed_at="2026-10-03T12:00:30.000Z"))
    here.write(message(1, e_tag="other"))
    assert here.item(KEY)["status"] == "FAILED"  # type: ignore[index]
    here.write(message(1))
    assert here.item(KEY)["status"] == "COMPLETED"  # type: ignore[index]


def test_a_state_removes_what_it_does_not_set(here: World) -> None:
    here.write(message(1))
    created = here.item(KEY)["createdAt"]  # type: ignore[index]
    here.write(message(2, FAILED))
    item = here.item(KEY)
    assert item is not None
    assert (item["attention"], item["errorCode"], item["error"]) == ("FAILED", "CORRUPT", "broken")
    assert item["createdAt"] == created
    assert not {"width", "exif", "thumbnailKey", "thumbnails", "formatMonth", "contentSha256"} & set(item)
    here.write(message(3, DELETED))
    item = here.item(KEY)
    assert item is not None
    assert not {"attention", "error", "errorCode", "uploadDay", "uploadDate"} & set(item)
    here.write(message(4))
    assert "ttl" not in here.item(KEY)  # type: ignore[operator]


def test_the_index_of_a_hot_day_can_be_spread(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOAD_DAY_SHARDS", "4")
    writer.deployment.cache_clear()
    here.write(*(message(1, key=f"{number}.jpg") for number in range(10)))
    days = {here.item(f"{number}.jpg")["uploadDay"] for number in range(10)}  # type: ignore[index]
    assert days > {"2026-10-03", "2026-10-03#1"}
    assert days <= {"2026-10-03", "2026-10-03#1", "2026-10-03#2", "2026-10-03#3"}


def calls(world_: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that the writer makes from here on."""
    made: list[str] = []
    real = batch.update

    def counted(*arguments: Any) -> Any:
        made.append("update_item")
        return real(*arguments)

    monkeypatch.setattr(batch, "update", counted)
    return made


def test_a_batch_about_one_image_costs_one_write(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = calls(here, monkeypatch)
    assert here.write(*(message(sequence, e_tag=f"e{sequence}") for sequence in (3, 1, 5, 5, 2, 4))) == []
    assert made == ["update_item"]
    assert here.item(KEY)["eTag"] == "e5"  # type: ignore[index]


def test_of_equals_in_a_batch_the_one_that_may_repair_is_written(here: World) -> None:
    here.write(message(2, FAILED), message(2), message(1))
    assert here.item(KEY)["status"] == "COMPLETED"  # type: ignore[index]


def test_only_what_failed_goes_back(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = batch.update

    def flaky(client: Any, table: str, write: Any) -> Any:
        if write.image_id == image_id(UPLOADS, "bad.jpg"):
            raise ConnectionError("no network")
        return real(client, table, write)

    monkeypatch.setattr(batch, "update", flaky)
    monkeypatch.setattr(writer, "Retrying", lambda remaining: Retrying(remaining, sleep=lambda seconds: None))
    assert here.write(message(key="a.jpg"), message(key="bad.jpg"), "poison", message(key="b.jpg")) == ["m1"]
    assert here.item("a.jpg") is not None
    assert here.item("b.jpg") is not None
    assert [entry["code"] for entry in here.bodies("metadata-dlq")] == ["MESSAGE_MALFORMED"]


def test_on_its_last_receive_a_failing_message_is_reported_with_its_reason(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.dynamodb.delete_table(TableName=TABLE)
    body = message()
    assert here.write(body, receives=4) == ["m0"]
    assert here.bodies("metadata-dlq") == []
    assert here.write(body, receives=5) == []
    (entry,) = here.bodies("metadata-dlq")
    assert (entry["class"], entry["code"], entry["attempts"]) == ("CONFIG", "TABLE_MISSING", 5)
    assert entry["original"] == body
    assert entry["imageId"] == image_id(UPLOADS, KEY)


def test_a_failure_entry_sent_back_is_unwrapped_and_never_nested(here: World) -> None:
    here.write({"schema": "imgpipe.metadata/2", "hello": 1}, receives=2)
    (entry,) = here.bodies("metadata-dlq")
    assert (entry["code"], entry["attempts"]) == ("SCHEMA_UNSUPPORTED", 2)
    here.write(entry)
    (again,) = here.bodies("metadata-dlq")
    assert again["original"] == entry["original"]
    assert again["attempts"] == 3
    here.write({**entry, "original": message()})
    here.write({**entry, "original": json.dumps(message(key="text.jpg"))})
    assert here.item(KEY)["status"] == "COMPLETED"  # type: ignore[index]
    assert here.item("text.jpg")["status"] == "COMPLETED"  # type: ignore[index]
    assert here.bodies("metadata-dlq") == []


def test_an_entry_keeps_the_count_of_redrives(here: World) -> None:
    counted = {REDRIVES: {"stringValue": "2", "dataType": "Number", "stringListValues": []}}
    foreign = {
        "schema": "imgpipe.failure/1", "stage": "image_processor", "class": "PERMANENT", "code": "CORRUPT",
        "message": "m", "failedAt": "2026-10-03T12:00:00.000Z", "attempts": 1, "original": {"s3": {}},
    }  # fmt: skip
    for body in ("poison", foreign):
        here.write(body, attributes=counted)
        (sent,) = here.messages("metadata-dlq")
        assert sent["MessageAttributes"][REDRIVES] == {"DataType": "Number", "StringValue": "2"}
    here.write("poison")
    (sent,) = here.messages("metadata-dlq")
    assert "MessageAttributes" not in sent


def test_an_entry_of_the_image_function_is_kept_as_it_is(here: World) -> None:
    entry = {
        "schema": "imgpipe.failure/1", "stage": "image_processor", "class": "PERMANENT", "code": "CORRUPT",
        "message": "m", "failedAt": "2026-10-03T12:00:00.000Z", "attempts": 1, "original": {"s3": {}},
    }  # fmt: skip
    assert here.write(entry) == []
    assert here.bodies("metadata-dlq") == [entry]


def test_a_schema_of_the_future_leaves_a_failed_item_that_a_redrive_repairs(here: World) -> None:
    future = {**message(), "schema": "imgpipe.metadata/2"}
    assert here.write(future) == []
    item = here.item(KEY)
    assert item is not None
    assert (item["status"], item["errorCode"]) == ("FAILED", "SCHEMA_UNSUPPORTED")
    (entry,) = here.bodies("metadata-dlq")
    assert entry["source"]["key"] == KEY
    here.write({**entry, "original": message()})
    assert here.item(KEY)["status"] == "COMPLETED"  # type: ignore[index]


def test_an_item_beyond_400_kb_is_a_permanent_failure(here: World) -> None:
    large = message()
    large["exif"] = {f"field{number}": "x" * 4000 for number in range(110)}
    assert here.write(large) == []
    assert here.item(KEY)["errorCode"] == "ITEM_TOO_LARGE"  # type: ignore[index]
    (entry,) = here.bodies("metadata-dlq")
    assert (entry["code"], entry["class"]) == ("ITEM_TOO_LARGE", "PERMANENT")
    assert entry["originalTruncated"] is True


FLAT = {
    "imageId": "0b5c5f0e-0000-4000-8000-000000000001", "originalKey": "photos/beach.jpg",
    "thumbnailKey": "thumbnails/0b5c5f0e-0000-4000-8000-000000000001.jpg", "fileName": "beach.jpg", "fileSize": 2048,
    "fileSizeKB": 2.0, "width": 640, "height": 480, "format": "JPEG", "mode": "RGB",
    "uploadDate": "2026-10-03T12:34:56.789012", "processingDate": "2026-10-03T12:34:57", "thumbnailSize": 200,
    "exif": {"available": True, "fields": 12},
}  # fmt: skip


def test_the_original_projects_flat_body_is_written_once(here: World) -> None:
    assert here.write(FLAT) == []
    item = here.item_of(str(FLAT["imageId"]))
    assert item is not None
    assert {name: item[name] for name in FLAT if "Date" not in name} == {
        name: value for name, value in FLAT.items() if "Date" not in name
    }
    assert item["uploadDate"] == "2026-10-03T12:34:56.789Z"
    assert item["status"] == "COMPLETED"
    assert (item["uploadDay"], item["formatMonth"]) == ("2026-10-03", "JPEG#2026-10")
    here.write({**FLAT, "width": 1})
    assert here.item_of(str(FLAT["imageId"])) == item


def test_the_original_projects_failure_is_a_failed_item(here: World) -> None:
    body = {name: FLAT[name] for name in ("imageId", "originalKey", "fileName", "fileSize", "uploadDate")}
    here.write({**body, "error": "cannot identify image file"})
    item = here.item_of(str(FLAT["imageId"]))
    assert item is not None
    assert (item["status"], item["attention"], item["error"]) == ("FAILED", "FAILED", "cannot identify image file")


def test_retries_stop_where_time_or_hope_ends() -> None:
    slept: list[float] = []
    tries: list[int] = []

    def fails(error: Exception) -> Any:
        def operation() -> None:
            tries.append(1)
            raise error

        return operation

    patient = Retrying(lambda: 10_000, slept.append, lambda low, high: high)
    with pytest.raises(ConnectionError):
        patient.call(fails(ConnectionError()))
    assert (len(tries), slept) == (6, [0.05, 0.1, 0.2, 0.4, 0.8])
    tries.clear()
    with pytest.raises(ConnectionError):
        Retrying(lambda: 150, slept.append, lambda low, high: high).call(fails(ConnectionError()))
    assert len(tries) == 3
    tries.clear()
    with pytest.raises(PipelineError):
        patient.call(fails(PipelineError(FailureCode.TABLE_MISSING, "gone")))
    assert len(tries) == 1


@pytest.mark.parametrize("value", [1e126, -1e300, 1e-200, {"": 1}, object()])
def test_what_a_table_cannot_hold_is_malformed(value: Any) -> None:
    with pytest.raises(PipelineError) as caught:
        typed(value, "exif.x")
    assert caught.value.code is FailureCode.MESSAGE_MALFORMED


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_number_is_a_dynamodb_number_or_refused(value: float) -> None:
    try:
        made = typed(value, "x")["N"]
    except PipelineError:
        assert not math.isfinite(value) or not 1e-130 <= abs(value) <= 9.9e125
    else:
        assert float(made) == value


def test_the_size_of_an_item_is_never_below_its_text() -> None:
    write = write_of(MetadataMessage.from_object(message()), "2026-10-03T12:00:00.000Z")
    assert item_size(write.attributes) > sum(len(name) for name in write.attributes)
    assert write.removed | write.attributes.keys() == ATTRIBUTES


def test_the_log_line_of_a_message(here: World, capsys: pytest.CaptureFixture[str]) -> None:
    here.write(message(), "poison")
    lines = {line["messageId"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert lines["m0"]["outcome"] == "WRITTEN"
    assert lines["m0"]["imageId"] == image_id(UPLOADS, KEY)
    assert (lines["m1"]["outcome"], lines["m1"]["code"], lines["m1"]["Failed"]) == ("REPORTED", "MESSAGE_MALFORMED", 1)
    assert writer.lambda_handler({"Records": []}, CONTEXT) == {"batchItemFailures": []}
