"""Where one image is, and how it got there: object, log lines, dead letters, item and thumbnails as one timeline."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline_cli.pipeline.dead_letters.messages import DeadLetter
from pipeline_cli.pipeline.dead_letters.queues import Queue, Selection, read
from pipeline_cli.pipeline.log_events import Group, LogEvent, about
from pipeline_cli.pipeline.metadata import Item, get
from pipeline_cli.pipeline.outcomes import Outcome
from pipeline_cli.pipeline.references import ImageReference
from pipeline_cli.pipeline.thumbnails import Stored, of_image
from pipeline_contract.item import Status
from pipeline_contract.kinds import claims_to_be_image

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")

PROMPT = 300.0  # seconds; an image that took longer did not just start
LOG_DAYS = 14  # how far back log lines are looked for, unless the upload is younger


@dataclass(frozen=True, slots=True)
class Object:
    """The object in the upload bucket now. Size in bytes."""

    size: int
    e_tag: str
    version_id: str | None
    content_type: str | None
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened, or is so."""

    time: datetime
    where: str  # s3 | processor | writer | table | thumbnail | dlq
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of an image, from everywhere; `unseen` names the places that could not be looked at, and why."""

    image_id: str
    bucket: str | None
    key: str | None
    object: Object | None
    item: Item | None
    thumbnails: tuple[Stored, ...]
    letters: tuple[DeadLetter, ...]
    events: tuple[LogEvent, ...]
    unseen: tuple[str, ...] = ()
    since: datetime | None = None  # from when log lines were read

    @property
    def known(self) -> bool:
        return bool(self.object or self.item or self.thumbnails or self.letters or self.events)


@dataclass(frozen=True, slots=True)
class Journey:
    """The timeline of an image. `gap` says what is amiss or still to come, `hint` what to do about it.

    `earlier` is when the image was first heard of, where that is before the log lines that were read.
    """

    image_id: str
    bucket: str | None
    key: str | None
    outcome: Outcome
    gap: str | None
    hint: str | None
    steps: tuple[Step, ...]
    unseen: tuple[str, ...]
    earlier: datetime | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where a deployment keeps things."""

    table: str
    thumbnail_bucket: str
    queues: Sequence[Queue]
    groups: Sequence[Group]


def find(
    s3: "S3Client",
    dynamodb: "DynamoDBClient",
    sqs: "SQSClient",
    logs: "CloudWatchLogsClient",
    places: Places,
    image: ImageReference,
    *,
    now: float,
    since: datetime | None = None,
) -> Found:
    """Looks everywhere. `since`: from when log lines are read; by default from a minute before the upload."""
    unseen: list[str] = []
    item = _seen("table", lambda: get(dynamodb, places.table, image.image_id), None, unseen)
    bucket, key = image.bucket, image.key
    if key is None and item is not None:
        bucket, key = item.get("bucket"), item.get("originalKey")
    there = None
    if bucket and key:
        there = _seen("upload bucket", lambda: _head(s3, bucket, key), None, unseen)
    selection = Selection(ids=frozenset({image.image_id}))
    start = since or _log_start(there, item, now)
    return Found(
        image.image_id,
        bucket,
        key,
        there,
        item,
        _seen("thumbnail bucket", lambda: tuple(of_image(s3, places.thumbnail_bucket, image.image_id)), (), unseen),
        _seen("dead letters", lambda: read(sqs, places.queues, selection).letters, (), unseen),
        _seen(
            "logs",
            lambda: tuple(about(logs, places.groups, image.image_id, since=start.timestamp(), until=now + 60)),
            (),
            unseen,
        ),
        tuple(unseen),
        start,
    )


def _seen(place: str, look: Callable[[], T], otherwise: T, unseen: list[str]) -> T:
    """What a look at a place shows. A place that is gone or closed to us hides its part, not the others'."""
    from botocore.exceptions import ClientError

    try:
        return look()
    except ClientError as error:
        said = error.response.get("Error", {})
        unseen.append(f"{place}: {said.get('Code')} {said.get('Message', '')}".rstrip())
        return otherwise


def journey(found: Found, now: float) -> Journey:
    """The timeline and the verdict of what was found."""
    outcome, gap, hint = _verdict(found, datetime.fromtimestamp(now, UTC))
    steps = tuple(sorted(_steps(found), key=lambda step: step.time))
    return Journey(found.image_id, found.bucket, found.key, outcome, gap, hint, steps, found.unseen, _earlier(found))


def _earlier(found: Found) -> datetime | None:
    """An item keeps when it was first made, through overwrites and deletions."""
    heard = [letter.failed_at for letter in found.letters]
    if found.item is not None and (created := _time(found.item.get("createdAt"))) is not None:
        heard.append(created)
    first = min(heard, default=None)
    return first if first is not None and found.since is not None and first < found.since else None


def _verdict(found: Found, now: datetime) -> tuple[Outcome, str | None, str | None]:
    item, there = found.item, found.object
    name = found.key or found.image_id
    if there is None:
        if item is not None and item.get("status") == Status.COMPLETED and found.key is not None:
            return Outcome.COMPLETED, "the object is gone and the item does not know it", "imgpipe reconcile"
        if item is not None and item.get("status") == Status.FAILED:
            return Outcome.FAILED, _reason(item), None
        return Outcome.DELETED, None, None
    if item is not None and _is_of(item, there):
        if item.get("status") == Status.FAILED:
            return Outcome.FAILED, _reason(item), "imgpipe dlq show --id " + found.image_id
        if item.get("status") == Status.COMPLETED:
            thumbnails_seen = not any(place.startswith("thumbnail bucket") for place in found.unseen)
            if thumbnails_seen and not any(one.pixels is None for one in found.thumbnails):
                return Outcome.COMPLETED, "its thumbnail is missing", "imgpipe reconcile"
            return Outcome.COMPLETED, None, None
    if found.letters:
        last = found.letters[-1]
        return Outcome.DEAD_LETTERED, f"{last.code}: {last.message}", f"imgpipe dlq show --id {found.image_id}"
    if not claims_to_be_image(name, there.content_type):
        return Outcome.IGNORED, "neither its name nor its content type says that it is an image", None
    return Outcome.IN_FLIGHT, *_missing_link(found, there, now)


def _missing_link(found: Found, there: Object, now: datetime) -> tuple[str, str]:
    """The stage that has not spoken of this upload yet."""
    waited = (now - there.last_modified).total_seconds()
    since = there.last_modified - timedelta(seconds=2)
    heard = {event.function for event in found.events if event.image_id and event.time >= since}
    if "writer" in heard:
        missing = "the writer has handled it, and the item is not of this upload yet"
    elif "processor" in heard:
        missing = "image_processor has handled it, db_writer has not"
    else:
        missing = "image_processor has not logged it: the bucket's event did not arrive, or waits"
    if waited < PROMPT:
        return f"{missing} ({waited:.0f} s after the upload)", "imgpipe logs --follow --image " + found.image_id
    return f"{missing}, and the upload is old", "imgpipe doctor, then imgpipe reconcile"


def _steps(found: Found) -> Iterator[Step]:
    if (there := found.object) is not None:
        version = f", version {there.version_id}" if there.version_id else ""
        yield Step(there.last_modified, "s3", "uploaded", f"{there.size} bytes, eTag {there.e_tag}{version}")
    for event in found.events:
        if event.image_id == found.image_id:
            told = (event.fields.get("code"), event.fields.get("message"), f"request {event.request_id}")
            what = str(event.fields.get("outcome") or "logged")
            yield Step(event.time, event.function, what, ", ".join(str(part) for part in told if part))
        elif event.failed or event.message.startswith("REPORT "):
            what = "failed" if event.failed else "report"
            yield Step(event.time, event.function, what, _report(event.message))
    for letter in found.letters:
        reason = f"{letter.code}: {letter.message} (message {letter.message_id})"
        yield Step(letter.failed_at, "dlq", f"dead letter of {letter.stage}", reason)
    for one in found.thumbnails:
        yield Step(one.last_modified, "thumbnail", "stored", f"{one.thumbnail_key}, {one.bytes} bytes")
    if (item := found.item) is not None and (at := _time(item.get("updatedAt"))) is not None:
        details = {
            Status.COMPLETED: f"{item.get('format')}, {item.get('width')} x {item.get('height')}",
            Status.FAILED: _reason(item),
        }
        yield Step(at, "table", str(item.get("status")), details.get(item.get("status", ""), ""))


def _report(message: str) -> str:
    """Lambda's REPORT line without what repeats; any other line as it is."""
    parts = [part.strip() for part in message.split("\t")]
    if not parts[0].startswith("REPORT RequestId"):
        return " ".join(message.split())
    return ", ".join(part for part in parts[1:] if part and not part.startswith("Billed Duration"))


def _reason(item: Mapping[str, Any]) -> str:
    return f"{item.get('errorCode')}: {item.get('error')}"


def _is_of(item: Mapping[str, Any], there: Object) -> bool:
    """Whether an item is about the object that is there now."""
    if item.get("versionId") and there.version_id:
        return bool(item["versionId"] == there.version_id)
    return item.get("eTag") in (None, there.e_tag)


def _head(s3: "S3Client", bucket: str, key: str) -> Object | None:
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return None
        raise
    return Object(
        head["ContentLength"],
        head["ETag"].strip('"'),
        head.get("VersionId"),
        head.get("ContentType"),
        head["LastModified"],
    )


def _log_start(there: Object | None, item: Item | None, now: float) -> datetime:
    earliest = datetime.fromtimestamp(now, UTC) - timedelta(days=LOG_DAYS)
    known = [there.last_modified] if there else []
    if item is not None and (uploaded := _time(item.get("asOf") or item.get("uploadDate"))) is not None:
        known.append(uploaded)
    return max(earliest, min(known) - timedelta(minutes=1)) if known else earliest


def _time(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (TypeError, ValueError):
        return None
