"""S3 event notifications, read with suspicion."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from pipeline_contract.failures import FailureCode, PipelineError
from pipeline_contract.identity import SEQUENCER_WIDTH, image_id, padded_sequencer
from pipeline_contract.times import parse_time


@dataclass(frozen=True, slots=True)
class Source:
    """The object that an event speaks of. `key` is decoded, `sequencer` padded, `eTag` without quotes."""

    bucket: str
    key: str
    version_id: str | None = None
    e_tag: str | None = None
    sequencer: str | None = None
    event_time: str | None = None
    event_name: str | None = None

    @property
    def image_id(self) -> str:
        return image_id(self.bucket, self.key)


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """One record of an S3 event notification."""

    source: Source
    removed: bool  # ObjectRemoved or LifecycleExpiration: only says that something was removed
    size: int | None
    reprocess: bool  # asked for by an operator: may replace an item of the same event
    record: Mapping[str, Any]  # as it came, for a failure entry


_REMOVED = ("ObjectRemoved:", "LifecycleExpiration:")


def event_records(event: Any) -> list[Any]:
    """The records of what S3 sent to a Lambda function, as they came.

    `s3:TestEvent`, which S3 sends when a notification is made, has none. Anything else that is no S3 event raises
    MESSAGE_MALFORMED.
    """
    if isinstance(event, Mapping) and event.get("Event") == "s3:TestEvent":
        return []
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list):
        raise PipelineError(FailureCode.MESSAGE_MALFORMED, "not an S3 event: it has no list of Records")
    return records


def object_events(event: Any) -> Iterator[ObjectEvent]:
    """The object events in what S3 sent to a Lambda function; MESSAGE_MALFORMED at the first that is none."""
    for record in event_records(event):
        yield object_event(record)


def object_event(record: Any) -> ObjectEvent:
    """One record of an S3 event; MESSAGE_MALFORMED when it is none."""
    try:
        name = record["eventName"].removeprefix("s3:")
        entity = record["s3"]["object"]
        bucket = record["s3"]["bucket"]["name"]
        raw_key = entity["key"]
        time = record.get("eventTime")
    except (KeyError, TypeError, AttributeError) as error:
        raise PipelineError(FailureCode.MESSAGE_MALFORMED, f"not an S3 event record: {error!r}") from error
    size, sequencer = entity.get("size"), entity.get("sequencer")
    for label, value in (("eventName", name), ("bucket name", bucket), ("object key", raw_key)):
        if not isinstance(value, str) or not value:
            raise PipelineError(FailureCode.MESSAGE_MALFORMED, f"S3 event record: {label} is not text")
    if not name.startswith(("ObjectCreated:", *_REMOVED)):
        raise PipelineError(FailureCode.MESSAGE_MALFORMED, f"S3 event record: unknown event {name!r}")
    if sequencer is not None and not (isinstance(sequencer, str) and 0 < len(sequencer) <= SEQUENCER_WIDTH):
        raise PipelineError(FailureCode.MESSAGE_MALFORMED, "S3 event record: sequencer is not 1 to 32 characters")
    try:
        key = unquote_plus(raw_key, errors="strict")
    except UnicodeDecodeError as error:
        raise PipelineError(FailureCode.MESSAGE_MALFORMED, "S3 event record: object key is not UTF-8") from error
    return ObjectEvent(
        source=Source(
            bucket=bucket,
            key=key,
            version_id=_text(entity.get("versionId")),
            e_tag=(_text(entity.get("eTag")) or "").strip('"') or None,
            sequencer=None if sequencer is None else padded_sequencer(sequencer),
            event_time=None if time is None else parse_time(time),
            event_name=name,
        ),
        removed=name.startswith(_REMOVED),
        size=size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
        reprocess=record.get("reprocess") is True,
        record=record,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
