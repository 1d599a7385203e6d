"""Comparing what the upload bucket, the table and the thumbnail bucket say of each image.

The listings take time, and meanwhile images come and go. So whatever looks wrong in them is looked at again in the
stores themselves before it is called wrong.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline_cli.errors import ConfigurationError
from pipeline_cli.pipeline.dead_letters.queues import Queue, counts, read
from pipeline_cli.pipeline.metadata import get_many
from pipeline_cli.pipeline.reconciling import listings
from pipeline_cli.pipeline.reconciling.accounting import (
    Accounting,
    Current,
    Finding,
    Image,
    Kind,
    StoredThumbnail,
    Tally,
    Uploaded,
    Verdict,
    judge,
)
from pipeline_cli.pipeline.reconciling.checkpoint import Checkpoint, Phase, Store
from pipeline_cli.pipeline.reconciling.listings import Stores
from pipeline_cli.pipeline.reconciling.repair import record_for
from pipeline_cli.pipeline.thumbnails import of_image
from pipeline_contract.failures import Stage
from pipeline_contract.item import Status
from pipeline_contract.kinds import claims_to_be_image

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

GRACE = 900.0  # seconds in which an upload normally has an outcome
_WINDOW = 2000  # images judged between two commits
_LOOKED_AT = 50  # images of one look
_THUMBNAIL_KINDS = (Kind.MISSING_THUMBNAIL, Kind.STALE_THUMBNAIL, Kind.ORPHAN_THUMBNAIL)


@dataclass(frozen=True, slots=True)
class Queues:
    """Where uploads wait and end: URLs of the metadata queue and both dead-letter queues."""

    sqs: "SQSClient"
    metadata: str
    dead: tuple[Queue, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What a comparison showed. Counts of findings by kind; times in seconds since 1970.

    `queued` messages in the metadata queue may still write items.
    """

    started: float
    accounting: Accounting
    queued: int
    findings: Mapping[Kind, int]

    @property
    def total(self) -> int:
        return sum(self.findings.values())


@dataclass(frozen=True, slots=True)
class Progress:
    """Who is told how far it is: of each store the rows that were listed, then the images that were judged."""

    listed: Callable[[Store, int], None]
    judged: Callable[[int], None]


def check_apart(stores: Stores) -> None:
    """ConfigurationError when thumbnails would be uploads: what goes out would come in again, for ever."""
    if stores.upload_bucket == stores.thumbnail_bucket:
        raise ConfigurationError(
            f"Uploads and thumbnails share the bucket {stores.upload_bucket}: each thumbnail would be processed again.",
            "Deploy with two buckets: imgpipe deploy",
            code="BUCKETS_SHARED",
        )


def compare(
    stores: Stores,
    queues: Queues,
    checkpoint: Checkpoint,
    *,
    now: Callable[[], float],
    grace: float,
    progress: Progress,
) -> Report:
    """Compares the stores, going on from where `checkpoint` is; the findings end up in it.

    `grace` is the age in seconds under which an upload without an outcome counts as in flight.
    """
    check_apart(stores)
    if checkpoint.phase is Phase.LISTING:
        if not checkpoint.planned():
            checkpoint.plan(listings.plan(stores))
        listings.list_all(stores, checkpoint, progress.listed)
        checkpoint.phase = Phase.JUDGING
    if checkpoint.phase is Phase.JUDGING:
        checkpoint.set_letters(
            (one.image_id, one.source.e_tag if one.source is not None else None)
            for one in read(queues.sqs, queues.dead).letters
            if one.image_id is not None
        )
        _judge_all(stores, checkpoint, now() - grace, progress.judged)
        checkpoint.queued = sum(counts(queues.sqs, Queue(Stage.DB_WRITER, queues.metadata)))
        checkpoint.phase = Phase.JUDGED
    return report(checkpoint)


def report(checkpoint: Checkpoint) -> Report:
    """What a finished comparison showed."""
    tally = Tally(checkpoint.judged[1])
    return Report(checkpoint.started, tally.accounting(checkpoint.queued), checkpoint.queued, checkpoint.kinds())


def _judge_all(stores: Stores, checkpoint: Checkpoint, settled_before: float, judged: Callable[[int], None]) -> None:
    after, counted = checkpoint.judged
    tally = Tally(counted)
    images = checkpoint.images()
    with ThreadPoolExecutor(listings.AT_ONCE, "looking") as pool:
        while window := list(islice(images, _WINDOW)):
            found: list[tuple[Finding, Any]] = []
            suspects: list[Image] = []
            for image in window:
                verdict = judge(image, stores.upload_bucket, settled_before)
                if _is_doubtful(image, verdict):
                    suspects.append(image)
                else:
                    tally.add(verdict)
            chunks = [suspects[start : start + _LOOKED_AT] for start in range(0, len(suspects), _LOOKED_AT)]
            for looked_at in pool.map(lambda chunk: list(_look_again(stores, chunk, settled_before)), chunks):
                for verdict in looked_at:
                    tally.add(verdict)
                    if (one := verdict.disagreement) is not None:
                        found.append((one.finding, record_for(one, stores)))
            after = window[-1].image_id
            checkpoint.add_findings(found, after, tally.state)
            judged(len(window))


def _is_doubtful(image: Image, verdict: Verdict) -> bool:
    """Whether the listings alone do not settle it: they have no content types, and they age."""
    uploaded = image.uploaded
    unnamed = uploaded is not None and uploaded.current is not None and not claims_to_be_image(uploaded.key, None)
    without_item = image.item is None or image.item.status is Status.DELETED
    return verdict.disagreement is not None or (unnamed and without_item)


def _look_again(stores: Stores, images: Sequence[Image], settled_before: float) -> Iterator[Verdict]:
    """Verdicts on what the stores hold now: first the items, then the objects, last the thumbnails they rest on."""

    def judged(image: Image) -> Verdict:
        return judge(image, stores.upload_bucket, settled_before)

    items = get_many(stores.dynamodb, stores.table, [image.image_id for image in images])
    for listed in images:
        item = items.get(listed.image_id)
        image = replace(listed, item=None if item is None else listings.item_state(item))
        verdict = judged(image)
        if _is_doubtful(image, verdict):
            image = _look_at_object(stores, image, verdict)
            verdict = judged(image)
        if verdict.kind in _THUMBNAIL_KINDS:
            stored = of_image(stores.s3, stores.thumbnail_bucket, image.image_id)
            fresh = (StoredThumbnail(one.thumbnail_key, one.bytes, one.last_modified.timestamp()) for one in stored)
            verdict = judged(replace(image, thumbnails=tuple(fresh)))
        yield verdict


def _look_at_object(stores: Stores, image: Image, verdict: Verdict) -> Image:
    key = image.uploaded.key if image.uploaded is not None else None if image.item is None else image.item.key
    # For a missing item the name is enough: the handler looks at the object, whatever it is told.
    if key is None or (verdict.kind is Kind.MISSING_ITEM and claims_to_be_image(key, None)):
        return image
    current = head(stores.s3, stores.upload_bucket, key)
    before = image.uploaded or Uploaded(key, 0, None)
    versions = before.versions if current is None else max(1, before.versions)
    return replace(image, uploaded=replace(before, current=current, versions=versions))


def head(s3: "S3Client", bucket: str, key: str) -> Current | None:
    """The current object of a key, None when there is none."""
    from botocore.exceptions import ClientError

    try:
        answer = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return None
        raise
    return Current(
        answer["ETag"].strip('"'),
        answer["LastModified"].timestamp(),
        answer.get("VersionId"),
        answer.get("ContentType", ""),
    )
