"""The three stores, listed in parallel stretches, page by page, into a checkpoint.

Every place where a listing goes on is a key, not a token that expires, so a stretch can be continued days later.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline_cli.pipeline.metadata import item_of
from pipeline_cli.pipeline.reconciling.accounting import ItemState
from pipeline_cli.pipeline.reconciling.checkpoint import Checkpoint, Part, Row, Store
from pipeline_cli.pipeline.thumbnails import stored_of
from pipeline_contract.identity import THUMBNAIL_PREFIX, image_id
from pipeline_contract.item import KEY, Status

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

AT_ONCE = 16  # requests
_RANGES = 16  # of the upload bucket, where it is large
_SEGMENTS = 8  # of the table
_MAX_DEPTH = 8  # folders that are opened in search of more than one
_PROJECTION = {
    "#id": KEY,
    "#status": "status",
    "#bucket": "bucket",
    "#key": "originalKey",
    "#etag": "eTag",
    "#sequencer": "sequencer",
    "#version": "versionId",
    "#date": "uploadDate",
    "#time": "asOf",
    "#thumbnail": "thumbnailKey",
    "#thumbnails": "thumbnails",
    "#error": "error",
}


@dataclass(frozen=True, slots=True)
class Stores:
    """Where the images of a deployment are."""

    s3: "S3Client"
    dynamodb: "DynamoDBClient"
    upload_bucket: str
    thumbnail_bucket: str
    table: str


def plan(stores: Stores) -> list[Part]:
    """The stretches that the stores are listed in."""
    spans: list[tuple[Store, Any]] = [
        *((Store.VERSIONS, span) for span in key_ranges(stores.s3, stores.upload_bucket)),
        *((Store.THUMBNAILS, f"{THUMBNAIL_PREFIX}{digit}") for digit in "0123456789abcdef"),
        *((Store.ITEMS, segment) for segment in range(_SEGMENTS)),
    ]
    return [Part(store, number, span) for number, (store, span) in enumerate(spans)]


def list_all(stores: Stores, checkpoint: Checkpoint, progress: Callable[[Store, int], None]) -> None:
    """Lists what is left of every stretch; `progress` hears of the rows of each page."""
    fetching: dict[Future[tuple[list[Row], Any]], Part] = {}
    waiting = checkpoint.unfinished()
    with ThreadPoolExecutor(AT_ONCE, "listing") as pool:
        try:
            while waiting or fetching:
                while waiting and len(fetching) < AT_ONCE:
                    part = waiting.pop()
                    fetching[pool.submit(_PAGES[part.store], stores, part.span, part.place)] = part
                for done in wait(fetching, return_when=FIRST_COMPLETED).done:
                    part = fetching.pop(done)
                    rows, place = done.result()
                    checkpoint.add_page(part, rows, place)
                    progress(part.store, len(rows))
                    if place is not None:
                        waiting.append(Part(part.store, part.number, part.span, place))
        finally:
            pool.shutdown(cancel_futures=True)


def key_ranges(s3: "S3Client", bucket: str) -> list[tuple[str | None, str | None]]:
    """Ranges of keys (after the first, up to and with the second) that together are the whole bucket.

    A bucket of one page is one range. A larger one is cut where its folders begin; keys that lie elsewhere are in one
    of the ranges all the same.
    """
    first = s3.list_objects_v2(Bucket=bucket)
    if not first.get("IsTruncated"):
        return [(None, None)]
    prefix = ""
    folders: list[str] = []
    for _ in range(_MAX_DEPTH):
        page = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
        folders = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
        if len(folders) != 1:
            break
        prefix = folders[0]
    cuts = folders[1:]
    step = max(1, -(-len(cuts) // (_RANGES - 1)))
    bounds = [None, *cuts[::step], None]
    return list(pairwise(bounds))


def version_page(stores: Stores, span: Any, place: Any) -> tuple[list[Row], Any]:
    """A page of the upload bucket's versions and delete markers in a range of keys."""
    after, until = span
    request: dict[str, Any] = {"Bucket": stores.upload_bucket}
    if place is not None:
        request["KeyMarker"] = place[0]
        if place[1]:
            request["VersionIdMarker"] = place[1]
    elif after is not None:
        request["KeyMarker"] = after
    answer: Any = stores.s3.list_object_versions(**request)
    rows: list[Row] = []
    beyond = False
    for marker, entries in ((False, answer.get("Versions", ())), (True, answer.get("DeleteMarkers", ()))):
        for entry in entries:
            key = entry["Key"]
            if until is not None and key > until:  # S3 sorts by UTF-8 bytes, which is the order of code points
                beyond = True
                continue
            rows.append(
                (
                    image_id(stores.upload_bucket, key),
                    key,
                    None if marker else entry["ETag"].strip('"'),
                    _version(entry.get("VersionId")),
                    entry["LastModified"].timestamp(),
                    entry["IsLatest"],
                    marker,
                )
            )
    more = answer.get("IsTruncated") and not beyond
    return rows, [answer["NextKeyMarker"], answer.get("NextVersionIdMarker")] if more else None


def thumbnail_page(stores: Stores, span: Any, place: Any) -> tuple[list[Row], Any]:
    """A page of the thumbnails under a prefix. What is not named like a thumbnail is none of ours."""
    start: Any = {} if place is None else {"StartAfter": place}
    answer = stores.s3.list_objects_v2(Bucket=stores.thumbnail_bucket, Prefix=span, **start)
    entries = answer.get("Contents", [])
    rows: list[Row] = [
        (one.image_id, one.thumbnail_key, one.bytes, one.last_modified.timestamp())
        for entry in entries
        if (one := stored_of(entry)) is not None
    ]
    return rows, entries[-1]["Key"] if answer.get("IsTruncated") and entries else None


def item_page(stores: Stores, span: Any, place: Any) -> tuple[list[Row], Any]:
    """A page of a segment of the table."""
    request: dict[str, Any] = {
        "TableName": stores.table,
        "Segment": span,
        "TotalSegments": _SEGMENTS,
        "ProjectionExpression": ", ".join(_PROJECTION),
        "ExpressionAttributeNames": _PROJECTION,
    }
    if place is not None:
        request["ExclusiveStartKey"] = {KEY: {"S": place}}
    answer: Any = stores.dynamodb.scan(**request)
    last = answer.get("LastEvaluatedKey")
    return [_item_row(item_of(raw)) for raw in answer["Items"]], None if last is None else last[KEY]["S"]


_PAGES: dict[Store, Callable[[Stores, Any, Any], tuple[list[Row], Any]]] = {
    Store.VERSIONS: version_page,
    Store.THUMBNAILS: thumbnail_page,
    Store.ITEMS: item_page,
}


def item_state(item: Mapping[str, Any]) -> ItemState:
    """What an item says. The original project's items have no status."""
    status = str(item.get("status"))
    if status not in Status.__members__:
        status = Status.FAILED if item.get("error") else Status.COMPLETED
    return ItemState(
        status=Status(status),
        bucket=item.get("bucket"),
        key=item.get("originalKey"),
        e_tag=item.get("eTag"),
        sequencer=item.get("sequencer"),
        version_id=item.get("versionId"),
        upload_date=item.get("uploadDate"),
        as_of=item.get("asOf"),
        thumbnails=_thumbnails(item),
    )


def _item_row(item: Mapping[str, Any]) -> Row:
    state = item_state(item)
    return (
        item[KEY],
        state.status,
        state.bucket,
        state.key,
        state.e_tag,
        state.sequencer,
        state.version_id,
        state.upload_date,
        state.as_of,
        json.dumps(state.thumbnails),
    )


def _thumbnails(item: Mapping[str, Any]) -> dict[str, int | None]:
    """The keys of an item's thumbnails, with their bytes where it tells."""
    found: dict[str, int | None] = {}
    if primary := item.get("thumbnailKey"):
        found[primary] = None
    for one in item.get("thumbnails") or ():
        if key := one.get("key"):
            found[key] = one.get("bytes")
    return found


def _version(text: str | None) -> str | None:
    return None if text == "null" else text  # S3's word for "never versioned"
