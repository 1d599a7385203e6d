"""What a message makes of the item: the attributes to set, with their DynamoDB types, and the ones to remove."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from db_writer.bodies import FlatBody, naive_utc
from pipeline_contract.codec import encode, malformed
from pipeline_contract.failures import FailureCode, PipelineError
from pipeline_contract.identity import padded_sequencer
from pipeline_contract.item import (
    ATTRIBUTES,
    MAX_ITEM_BYTES,
    SCHEMA_VERSION,
    TOMBSTONE_DAYS,
    Status,
    format_month,
    upload_day,
)
from pipeline_contract.messages import MetadataMessage, Op
from pipeline_contract.times import parse_time

_MAX_NUMBER, _MIN_NUMBER = 9.9e125, 1e-130  # DynamoDB, "Naming rules and data types": Number
_MAX_INDEX_KEY = 1024  # bytes; a sort key's limit, and half of a partition key's

Attributes = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Write:
    """One state of an item. `as_of` says when it was true: the event's time, or, without sequencer, the look's."""

    image_id: str
    status: Status
    as_of: str
    sequencer: str | None
    e_tag: str | None
    reprocess: bool
    attributes: Attributes  # without imageId and createdAt
    only_if_absent: bool = False  # the original project's rule, for its own bodies

    @property
    def removed(self) -> frozenset[str]:
        return ATTRIBUTES - self.attributes.keys()


def write_of(body: MetadataMessage | FlatBody, now: str, shards: int = 1) -> Write:
    """The state that a body describes. MESSAGE_MALFORMED or ITEM_TOO_LARGE for what a table cannot hold."""
    write = _flat_write(body, now, shards) if isinstance(body, FlatBody) else _message_write(body, now, shards)
    size = item_size(write.attributes) + len("imageId") + len(write.image_id) + len("createdAt") + len(now)
    if size > MAX_ITEM_BYTES:
        raise PipelineError(FailureCode.ITEM_TOO_LARGE, f"the item has {size} bytes, over {MAX_ITEM_BYTES}")
    return write


def _message_write(message: MetadataMessage, now: str, shards: int) -> Write:
    source = message.source
    sequencer = None if source.sequencer is None else _sequencer(source.sequencer)
    event_time, observed_at = _time(source.event_time), _time(message.observed_at)
    as_of = (event_time if sequencer else observed_at) or event_time or observed_at
    if as_of is None:
        raise malformed("neither source.eventTime nor observedAt says when")
    upload_date = _time(message.uploaded_at) or event_time or as_of
    status = {Op.UPSERT: Status.COMPLETED, Op.DELETE: Status.DELETED, Op.FAIL: Status.FAILED}[message.op]
    item: dict[str, Any] = {
        "schemaVersion": SCHEMA_VERSION,
        "bucket": source.bucket,
        "originalKey": source.key,
        "fileName": source.key.rsplit("/", 1)[-1],
        "status": status,
        "sequencer": sequencer,
        "versionId": source.version_id,
        "eTag": source.e_tag,
        "asOf": as_of,
        "processingDate": _time(message.trace.processing_date),
        "processorVersion": message.trace.processor_version,
        "requestId": message.trace.request_id,
        "updatedAt": now,
    }
    if message.op is Op.DELETE:
        item["ttl"] = _ttl(now)
    else:
        item |= _dated(upload_date, message.image_id, shards)
    if message.error is not None:
        item |= {"attention": status, "error": message.error.message, "errorCode": message.error.code}
    if message.image is not None:
        item |= _image_attributes(message, upload_date)
    return Write(
        message.image_id, status, as_of, sequencer, source.e_tag, message.reprocess, _typed(item), only_if_absent=False
    )


def _image_attributes(message: MetadataMessage, upload_date: str) -> dict[str, Any]:
    facts = encode(message.image)
    primary = message.thumbnails[0] if message.thumbnails else None
    return {
        **facts,
        "fileSizeKB": round(facts["fileSize"] / 1024, 2),
        "formatMonth": format_month(facts["format"], upload_date),
        "exif": message.exif or None,
        "thumbnailKey": None if primary is None else primary.key,
        "thumbnailSize": None if primary is None else primary.pixels,
        "thumbnails": encode(message.thumbnails) or None,
    }


def _flat_write(body: FlatBody, now: str, shards: int) -> Write:
    if not body.image_id:
        raise malformed("imageId is empty")
    upload_date = naive_utc(body.upload_date)
    fields = encode(body)
    status = Status.FAILED if body.error is not None else Status.COMPLETED
    item = {name: value for name, value in fields.items() if name not in ("imageId", "createdAt", "updatedAt")} | {
        "schemaVersion": SCHEMA_VERSION,
        "status": status,
        "asOf": upload_date,
        "processingDate": None if body.processing_date is None else naive_utc(body.processing_date),
        "updatedAt": now,
        **_dated(upload_date, body.image_id, shards),
    }
    if body.format:
        item["formatMonth"] = format_month(body.format, upload_date)
    if status is Status.FAILED:
        item |= {"attention": status, "errorCode": FailureCode.UNEXPECTED}
    return Write(body.image_id, status, upload_date, None, None, False, _typed(item), only_if_absent=True)


def _dated(upload_date: str, image_id: str, shards: int) -> dict[str, str]:
    # crc32 spreads ids evenly and, unlike hash(), alike in every process.
    shard = zlib.crc32(image_id.encode()) % shards if shards > 1 else 0
    return {"uploadDate": upload_date, "uploadDay": upload_day(upload_date, shard)}


def _time(value: str | None) -> str | None:
    return None if value is None else parse_time(value)


def _sequencer(value: str) -> str:
    if not 0 < len(value) <= 32:
        raise malformed("source.sequencer is not 1 to 32 characters")
    return padded_sequencer(value)


def _ttl(now: str) -> int:
    """Seconds since 1970, as DynamoDB's time to live wants them."""
    return int((datetime.fromisoformat(now) + timedelta(days=TOMBSTONE_DAYS)).timestamp())


def _typed(item: Mapping[str, Any]) -> Attributes:
    unknown = item.keys() - ATTRIBUTES
    if unknown:
        raise AssertionError(f"attributes that no other state would remove: {sorted(unknown)}")
    attributes = {name: typed(value, name) for name, value in item.items() if value is not None and value != ""}
    for name in ("uploadDay", "formatMonth", "uploadDate", "attention"):
        if name in attributes and len(attributes[name]["S"].encode()) > _MAX_INDEX_KEY:
            raise malformed(f"{name} is too long for an index")
    return attributes


def typed(value: Any, path: str) -> dict[str, Any]:
    """A plain value as DynamoDB writes it; MESSAGE_MALFORMED for what it cannot hold."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int | float):
        return {"N": _number(value, path)}
    if isinstance(value, str):
        return {"S": str(value)}
    if isinstance(value, list | tuple):
        return {"L": [typed(item, f"{path}[{index}]") for index, item in enumerate(value) if item is not None]}
    if isinstance(value, Mapping):
        if "" in value:
            raise malformed(f"{path} has a field without a name")
        return {"M": {name: typed(item, f"{path}.{name}") for name, item in value.items() if item is not None}}
    raise malformed(f"{path} is a {type(value).__name__}")


def _number(value: float, path: str) -> str:
    if value != 0 and not (math.isfinite(value) and _MIN_NUMBER <= abs(value) <= _MAX_NUMBER):
        raise malformed(f"{path} is beyond the numbers of DynamoDB")
    return repr(value)


def item_size(attributes: Attributes) -> int:
    """Bytes of an item as DynamoDB counts them, rounded up ("DynamoDB item sizes and formats")."""
    return sum(len(name.encode()) + _value_size(value) for name, value in attributes.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return min(21, len(content) // 2 + 2)
    if kind == "L":
        return 3 + sum(1 + _value_size(item) for item in content)
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + _value_size(item) for name, item in content.items())
    return 1
