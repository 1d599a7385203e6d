"""The three shapes of a dead letter, read into one; and whatever else may lie in the queue."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failures import image_failure, invocation_record, metadata, received, record, source, writer_failure
from pipeline_cli.pipeline.dead_letters.messages import Shape, dead_letter, record_of
from pipeline_contract.events import object_event
from pipeline_contract.failures import FailureClass, FailureCode, Stage
from pipeline_contract.messages import REDRIVES

KEY = "a b/é.jpg"
IMAGE, WRITER = Stage.IMAGE_PROCESSOR, Stage.DB_WRITER


def test_a_failure_entry_of_the_processor_goes_back_as_its_own_record() -> None:
    letter = dead_letter(received(image_failure()), IMAGE)
    assert (letter.shape, letter.stage, letter.class_, letter.code) == (
        Shape.FAILURE_ENTRY,
        IMAGE,
        FailureClass.PERMANENT,
        FailureCode.CORRUPT,
    )
    assert (letter.key, letter.image_id, letter.message, letter.attempts, letter.receives) == (
        KEY,
        source().image_id,
        "why",
        1,
        6,
    )
    assert letter.records == (record(),)
    assert letter.metadata_body is None


def test_a_failure_entry_of_the_writer_goes_back_as_its_own_body() -> None:
    letter = dead_letter(received(writer_failure()), WRITER)
    assert (letter.stage, letter.class_, letter.key) == (WRITER, FailureClass.TRANSIENT, KEY)
    assert letter.records == ()
    assert json.loads(letter.metadata_body or "") == json.loads(metadata())


@pytest.mark.parametrize("make", [image_failure, writer_failure])
def test_an_entry_whose_original_was_cut_is_told_to_the_processor_again(make: Any) -> None:
    letter = dead_letter(received(make(original="{'s3': ...", original_truncated=True)), IMAGE)
    assert letter.metadata_body is None
    assert object_event(letter.records[0]).source == source()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_record_made_from_a_source_means_that_source(key: str) -> None:
    assert object_event(record_of(source(key))).source == source(key)


def test_a_raw_metadata_body_goes_back_as_it_is() -> None:
    letter = dead_letter(received(metadata()), WRITER)
    assert (letter.shape, letter.stage, letter.code, letter.key) == (Shape.METADATA, WRITER, None, KEY)
    assert letter.metadata_body == metadata()
    assert letter.attempts == 6


def test_the_original_projects_flat_body_is_metadata_too() -> None:
    body = json.dumps({"imageId": "0b1c", "originalKey": "x.jpg", "uploadDate": "2024-01-01T00:00:00"})
    letter = dead_letter(received(body), WRITER)
    assert (letter.shape, letter.image_id, letter.metadata_body) == (Shape.METADATA, "0b1c", body)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"errorMessage": "THROTTLED: slow down", "errorType": "PipelineError"}, FailureCode.THROTTLED, "slow down"),
        (
            {"errorMessage": "2026-10-03T12:35:00.000Z r2 Task timed out after 60.00 seconds"},
            FailureCode.TIMEOUT,
            "2026-10-03T12:35:00.000Z r2 Task timed out after 60.00 seconds",
        ),
        (
            {"errorMessage": "RequestId: r2 Error: Runtime exited with error: signal: killed"},
            FailureCode.OUT_OF_MEMORY,
            "RequestId: r2 Error: Runtime exited with error: signal: killed",
        ),
        (
            {"errorMessage": "Unable to import module 'x'", "errorType": "Runtime.ImportModuleError"},
            FailureCode.IMPORT_ERROR,
            "Runtime.ImportModuleError: Unable to import module 'x'",
        ),
        ({"errorMessage": "boom", "errorType": "ValueError"}, FailureCode.UNEXPECTED, "ValueError: boom"),
        ({}, FailureCode.UNEXPECTED, "RetriesExhausted"),
    ],
)
def test_why_an_invocation_failed(error: dict[str, Any], code: FailureCode, message: str) -> None:
    letter = dead_letter(received(invocation_record(error=error)), IMAGE)
    assert (letter.shape, letter.code, letter.message) == (Shape.INVOCATION_RECORD, code, message)
    assert (letter.key, letter.attempts, letter.records) == (KEY, 3, (record(),))


def test_an_event_that_grew_too_old_was_throttled() -> None:
    body = json.loads(invocation_record(condition="EventAgeExceeded"))
    del body["responsePayload"]
    letter = dead_letter(received(json.dumps(body)), IMAGE)
    assert letter.code is FailureCode.THROTTLED
    assert letter.redrivable


def test_what_was_redriven_before_says_how_often() -> None:
    again = {**record(), REDRIVES: 2}
    assert dead_letter(received(image_failure(original=again)), IMAGE).redrives == 2
    attributes = {REDRIVES: {"DataType": "Number", "StringValue": "3"}}
    assert dead_letter(received(metadata(), MessageAttributes=attributes), WRITER).redrives == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.text())
def test_any_text_is_a_letter(body: str) -> None:
    letter = dead_letter(received(body), IMAGE)
    assert not letter.redrivable or letter.shape is not Shape.UNKNOWN


@given(st.sampled_from([image_failure(), writer_failure(), invocation_record(), metadata()]), st.data())
def test_a_letter_with_any_field_replaced_is_still_a_letter(body: str, data: st.DataObject) -> None:
    value = json.loads(body)
    where = value
    while True:
        name = data.draw(st.sampled_from(sorted(where)))
        if isinstance(where[name], dict) and where[name] and data.draw(st.booleans()):
            where = where[name]
            continue
        where[name] = data.draw(JSON)
        break
    letter = dead_letter(received(json.dumps(value)), IMAGE)
    # What would be sent can be sent: records are S3 records, a body is text.
    for one in letter.records:
        object_event(one)
    assert letter.metadata_body is None or isinstance(letter.metadata_body, str)
