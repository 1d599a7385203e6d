import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_contract.events import Source, object_event, object_events
from pipeline_contract.failures import FailureClass, FailureCode, PipelineError, Stage, parse_error_text
from pipeline_contract.identity import image_id, padded_sequencer, thumbnail_key, thumbnail_prefix
from pipeline_contract.kinds import claims_to_be_image, sniff
from pipeline_contract.messages import Error, FailureEntry, ImageFacts, MetadataMessage, Op, Thumbnail, Trace

IMAGE = ImageFacts(
    file_size=12345, format="JPEG", mime_type="image/jpeg", mode="RGB", width=3024, height=4032, stored_width=4032,
    stored_height=3024, orientation=6, content_sha256="ab" * 32, has_alpha=False, frame_count=1, is_progressive=True,
    dpi=72.0,
)  # fmt: skip
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


def upsert(key: str = "a/é 😀.jpg") -> MetadataMessage:
    return MetadataMessage(
        op=Op.UPSERT,
        source=Source("photos", key, "v1", "e" * 32, padded_sequencer("0055aed6dcd90281e5"), "2026-10-03T12:34:56.789Z",
                      "ObjectCreated:Put"),
        trace=Trace("req-1", "0.1.0", 2),
        image=IMAGE,
        exif={"available": True, "fields": 2, "make": "Canon", "gps": {"lat": 1.5}},
        thumbnails=(Thumbnail("thumbnails/x.jpg", 150, 200, "JPEG", 4321, 200),),
    )  # fmt: skip


def test_image_id_is_the_documented_uuid() -> None:
    assert image_id("photos", "a/é.jpg") == "167e0b74-f5be-5f80-b190-6333410b7348"


def test_thumbnail_keys_share_the_images_prefix_alone() -> None:
    one = image_id("b", "k")
    assert thumbnail_key(one, "jpg") == f"thumbnails/{one}.jpg"
    assert thumbnail_key(one, "webp", 800) == f"thumbnails/{one}_800.webp"
    assert thumbnail_key(one, "jpg").startswith(thumbnail_prefix(one))


@given(st.text("0123456789abcdefABCDEF", min_size=1, max_size=32), st.text("0123456789abcdef", min_size=1, max_size=32))
def test_sequencers_order_as_s3_documents(a: str, b: str) -> None:
    width = max(len(a), len(b))
    documented = a.upper().ljust(width, "0") < b.upper().ljust(width, "0")
    assert (padded_sequencer(a) < padded_sequencer(b)) == documented


@given(keys)
def test_metadata_survives_the_queue(key: str) -> None:
    message = upsert(key)
    assert MetadataMessage.from_json(message.to_json()) == message
    assert json.loads(message.to_json())["image"]["contentSha256"] == "ab" * 32


def test_failure_survives_the_queue() -> None:
    entry = FailureEntry(
        Stage.IMAGE_PROCESSOR, FailureClass.PERMANENT, FailureCode.CORRUPT, "broken", "2026-10-03T12:34:56.789Z", 1,
        {"s3": {"object": {"key": "a"}}}, upsert().source, upsert().image_id, "req", FailureCode.CORRUPT.hint,
    )  # fmt: skip
    assert FailureEntry.from_json(entry.to_json()) == entry
    assert json.loads(entry.to_json())["class"] == "PERMANENT"


def test_a_failure_entry_always_fits() -> None:
    entry = FailureEntry(
        Stage.DB_WRITER, FailureClass.PERMANENT, FailureCode.MESSAGE_MALFORMED, "x", "2026-10-03T12:34:56.789Z", 1,
        "\U0001f600" * 100_000,
    )  # fmt: skip
    again = FailureEntry.from_json(entry.to_json())
    assert again.original_truncated
    assert again.original.startswith("\U0001f600")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": "imgpipe.metadata/9"}, "SCHEMA_UNSUPPORTED: schema is 'imgpipe.metadata/9'"),
        ({"op": "drop"}, "op is 'drop', which is none of upsert, delete, fail"),
        ({"imageId": "other"}, "imageId is not the id of"),
        ({"extra": 1}, "unknown field extra"),
        ({"image": None}, "image does not go with op upsert"),
        ({"trace": {"requestId": "r"}}, "trace.processorVersion is missing"),
        ({"thumbnails": [{"key": 1}]}, "thumbnails[0].key is not a text"),
        ({"exif": {"a": [[[[[[[[1]]]]]]]]}}, "nested too deeply"),
        ({"reprocess": "yes"}, "reprocess is not true or false"),
    ],
)
def test_decoding_refuses_precisely(change: dict[str, object], reason: str) -> None:
    body = {**json.loads(upsert().to_json()), **change}
    with pytest.raises(PipelineError) as caught:
        MetadataMessage.from_json(json.dumps(body))
    assert reason in str(caught.value)


@pytest.mark.parametrize("body", ["", "[]", "nul", '{"a": NaN}', "[" * 100_000, '"text"'])
def test_no_json_object_is_malformed(body: str) -> None:
    with pytest.raises(PipelineError) as caught:
        MetadataMessage.from_json(body)
    assert caught.value.code is FailureCode.MESSAGE_MALFORMED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
FIELDS = [field.name for field in dataclasses.fields(MetadataMessage)]


@given(st.dictionaries(st.sampled_from([*FIELDS, "schema", "imageId"]), json_values))
def test_decoding_anything_raises_nothing_else(change: dict[str, object]) -> None:
    body = {**json.loads(upsert().to_json()), **change}
    codes = set()
    for reader in (MetadataMessage.from_object, FailureEntry.from_object):
        try:
            reader(body)
        except PipelineError as error:
            codes.add(error.code)
    assert all(code.failure_class is FailureClass.PERMANENT for code in codes)


def test_a_number_that_json_lacks_is_never_sent() -> None:
    with pytest.raises(PipelineError, match="cannot be JSON"):
        dataclasses.replace(upsert(), exif={"fNumber": math.nan}).to_json()


def record(**entity: object) -> dict[str, object]:
    return {
        "eventName": "ObjectCreated:Put", "eventTime": "2026-10-03T12:34:56.7891Z",
        "s3": {"bucket": {"name": "photos"}, "object": {"key": "a+b/%C3%A9.jpg", "size": 5, "eTag": "e", **entity}},
    }  # fmt: skip


def test_an_s3_record_is_decoded() -> None:
    event = object_event(record(sequencer="0055aed6dcd90281e5"))
    assert event.source.key == "a b/é.jpg"
    assert event.source.sequencer == "0055AED6DCD90281E5".ljust(32, "0")
    assert event.source.event_time == "2026-10-03T12:34:56.789Z"
    assert not event.removed


def test_the_test_event_of_s3_has_no_records() -> None:
    assert list(object_events({"Service": "Amazon S3", "Event": "s3:TestEvent"})) == []


@given(json_values)
def test_a_strange_event_is_malformed_and_nothing_else(value: object) -> None:
    with pytest.raises(PipelineError):
        list(object_events({"Records": [value]}))
    with pytest.raises(PipelineError):
        list(object_events({"Records": value} if isinstance(value, dict) else value))


@pytest.mark.parametrize("code", FailureCode)
def test_each_code_has_a_class_and_a_hint_and_is_read_back_from_an_error_text(code: FailureCode) -> None:
    assert code.hint.endswith(".")
    assert parse_error_text(str(PipelineError(code, "why: so"))) == (code, "why: so")
    assert Error.of(PipelineError(code, "x" * 900)).message == "x" * 500


def test_foreign_error_texts_are_not_codes() -> None:
    assert parse_error_text("KeyError: 'Records'") is None
    assert parse_error_text("Task timed out after 60.00 seconds") is None


@pytest.mark.parametrize(
    ("key", "content_type", "claims"),
    [("a.JPG", None, True), ("a.txt", "image/png", True), ("a.txt", "text/plain", False), ("jpg", None, False),
     ("a/.jpg", None, False), ("a.jpg/", None, False), ("x.heic", "binary/octet-stream", True)],
)  # fmt: skip
def test_what_claims_to_be_an_image(key: str, content_type: str | None, claims: bool) -> None:
    assert claims_to_be_image(key, content_type) is claims


@given(st.binary(max_size=64))
def test_sniffing_any_bytes_is_safe(head: bytes) -> None:
    assert sniff(head) in {None, "JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "HEIF"}
