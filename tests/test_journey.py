"""What `imgpipe trace` makes of what it found: the outcome, and the link that is missing."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from failures import image_failure, received
from pipeline_cli.pipeline.dead_letters import reasons
from pipeline_cli.pipeline.dead_letters.messages import dead_letter
from pipeline_cli.pipeline.journey import Found, Object, journey
from pipeline_cli.pipeline.log_events import log_event
from pipeline_cli.pipeline.outcomes import Outcome
from pipeline_cli.pipeline.thumbnails import Stored
from pipeline_contract.failures import FailureClass, FailureCode, Stage
from pipeline_contract.identity import image_id

UPLOADED = datetime(2026, 10, 3, 12, 34, 56, tzinfo=UTC)
KEY = "a b/é.jpg"
IMAGE = image_id("uploads", KEY)
OBJECT = Object(3, "e", "v1", "image/jpeg", UPLOADED)
ITEM = {
    "imageId": IMAGE,
    "status": "COMPLETED",
    "eTag": "e",
    "versionId": "v1",
    "updatedAt": "2026-10-03T12:34:58.000Z",
}
FAILED = {**ITEM, "status": "FAILED", "errorCode": "CORRUPT", "error": "damaged"}
THUMBNAIL = Stored(f"thumbnails/{IMAGE}.jpg", IMAGE, None, 9, UPLOADED)
LETTER = dead_letter(received(image_failure()), Stage.IMAGE_PROCESSOR)
NOTHING = Found(IMAGE, "uploads", KEY, None, None, (), (), ())


def line(function: str, **fields: Any) -> Any:
    message = json.dumps({"imageId": IMAGE, "outcome": "COMPLETED", "requestId": "r", **fields})
    at = round((UPLOADED.timestamp() + 1) * 1000)
    return log_event({"timestamp": at, "message": message, "eventId": f"{function}{len(fields)}"}, function)


@pytest.mark.parametrize(
    ("found", "outcome", "gap"),
    [
        (replace(NOTHING, object=OBJECT, item=ITEM, thumbnails=(THUMBNAIL,)), Outcome.COMPLETED, None),
        (replace(NOTHING, object=OBJECT, item=ITEM), Outcome.COMPLETED, "its thumbnail is missing"),
        (replace(NOTHING, object=OBJECT, item=ITEM, unseen=("thumbnail bucket: no",)), Outcome.COMPLETED, None),
        (replace(NOTHING, object=OBJECT, item=FAILED), Outcome.FAILED, "CORRUPT: damaged"),
        (replace(NOTHING, object=OBJECT, letters=(LETTER,)), Outcome.DEAD_LETTERED, "CORRUPT: why"),
        (
            replace(NOTHING, object=OBJECT, item={**ITEM, "versionId": "v0"}, letters=(LETTER,)),
            Outcome.DEAD_LETTERED,
            "CORRUPT: why",
        ),
        (replace(NOTHING, item={**ITEM, "status": "DELETED"}), Outcome.DELETED, None),
        (replace(NOTHING, item=ITEM), Outcome.COMPLETED, "the object is gone and the item does not know it"),
        (
            replace(NOTHING, key="notes.txt", object=replace(OBJECT, content_type="text/plain")),
            Outcome.IGNORED,
            "neither its name nor its content type says that it is an image",
        ),
        (
            replace(NOTHING, object=OBJECT),
            Outcome.IN_FLIGHT,
            "image_processor has not logged it: the bucket's event did not arrive, or waits (9 s after the upload)",
        ),
        (
            replace(NOTHING, object=OBJECT, events=(line("processor"),)),
            Outcome.IN_FLIGHT,
            "image_processor has handled it, db_writer has not (9 s after the upload)",
        ),
    ],
)
def test_the_verdict(found: Found, outcome: Outcome, gap: str | None) -> None:
    made = journey(found, (UPLOADED + timedelta(seconds=9)).timestamp())
    assert (made.outcome, made.gap) == (outcome, gap)
    assert (made.hint is None) == (gap is None or outcome is Outcome.IGNORED)


def test_an_old_upload_that_nobody_heard_of_sends_to_the_doctor() -> None:
    made = journey(replace(NOTHING, object=OBJECT), (UPLOADED + timedelta(hours=1)).timestamp())
    assert made.hint == "imgpipe doctor, then imgpipe reconcile"


def test_the_steps_are_in_order_of_time() -> None:
    found = replace(
        NOTHING,
        object=OBJECT,
        item=FAILED,
        letters=(LETTER,),
        thumbnails=(THUMBNAIL,),
        events=(line("processor", code="CORRUPT", message="damaged"), line("writer")),
    )
    steps = journey(found, UPLOADED.timestamp()).steps
    assert [step.time for step in steps] == sorted(step.time for step in steps)
    assert {step.where for step in steps} == {"s3", "thumbnail", "processor", "writer", "table", "dlq"}


@pytest.mark.parametrize(("ago", "told"), [(timedelta(days=2), True), (-timedelta(seconds=2), False)])
def test_an_earlier_history_than_the_log_lines_that_were_read_is_told(ago: timedelta, told: bool) -> None:
    created = UPLOADED - ago
    item = {**ITEM, "status": "DELETED", "createdAt": created.isoformat()}
    found = replace(NOTHING, item=item, since=UPLOADED - timedelta(minutes=1))
    assert journey(found, UPLOADED.timestamp()).earlier == (created if told else None)


def test_the_log_tells_the_reason_that_a_message_does_not() -> None:
    silent = replace(LETTER, code=None, class_=FailureClass.TRANSIENT, message="?")
    assert reasons.unexplained(silent)
    told = reasons.explained(silent, [line("writer", code="TABLE_MISSING", message="no table"), line("writer")])
    assert (told.code, told.class_, told.message) == (
        FailureCode.TABLE_MISSING,
        FailureClass.CONFIG,
        "no table (log)",
    )
    assert reasons.explained(silent, [line("writer")]) == silent
    timeout = log_event({"timestamp": 1, "message": "2026 r Task timed out after 30.00 seconds"}, "writer")
    assert reasons.explained(silent, [timeout]).code is FailureCode.TIMEOUT
