"""What became of every upload, told by what the stores hold: no counter can drift, because there is none.

An upload is one version of an object. Of the versions of a key all but the newest were superseded; what became of the
newest one, the item, the dead-letter queues and the object itself tell. For a deployment that has lost nothing

    uploads = completed + failed + dead-lettered + ignored + superseded + deleted + in flight

and what is missing from the right side is unaccounted: the item does not say what the bucket says, and nothing that is
known will make it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pipeline_cli.pipeline.outcomes import Outcome
from pipeline_contract.events import Source
from pipeline_contract.identity import image_id
from pipeline_contract.item import Status
from pipeline_contract.kinds import claims_to_be_image


class Unaccounted(StrEnum):
    """The lack of an outcome, for an upload that should have one by now."""

    UNACCOUNTED = "UNACCOUNTED"


UNACCOUNTED = Unaccounted.UNACCOUNTED


class Kind(StrEnum):
    """How the stores disagree about an image."""

    MISSING_ITEM = "MISSING_ITEM"  # an object that no item speaks of
    STALE_ITEM = "STALE_ITEM"  # the item speaks of another object of the same key
    ORPHAN_ITEM = "ORPHAN_ITEM"  # an item whose object is gone
    MISSING_THUMBNAIL = "MISSING_THUMBNAIL"
    STALE_THUMBNAIL = "STALE_THUMBNAIL"  # older than the object, or not of the size that the item tells
    ORPHAN_THUMBNAIL = "ORPHAN_THUMBNAIL"  # a thumbnail of nothing, or one that its item does not know


class Repair(StrEnum):
    """What makes the stores agree again."""

    PROCESS = "PROCESS"  # image_processor looks at the object and makes everything
    REPROCESS = "REPROCESS"  # the same, and the item of the same event may be replaced
    REMOVE = "REMOVE"  # image_processor sees that the object is gone, and cleans up
    DELETE_THUMBNAIL = "DELETE_THUMBNAIL"  # nobody knows its key any more: only deleting it helps


@dataclass(frozen=True, slots=True)
class Current:
    """The current object of a key. `modified` in seconds since 1970, `content_type` None where nobody asked."""

    e_tag: str
    modified: float
    version_id: str | None = None
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What the upload bucket holds under one key. `versions` counts objects, current or not, but no delete markers."""

    key: str
    versions: int
    current: Current | None
    removed_at: float | None = None  # when the delete marker that hides the versions was made


@dataclass(frozen=True, slots=True)
class ItemState:
    """What the table says of an image. `thumbnails` are the keys of its thumbnails with their bytes, where known."""

    status: Status
    bucket: str | None
    key: str | None
    e_tag: str | None = None
    sequencer: str | None = None
    version_id: str | None = None
    upload_date: str | None = None
    as_of: str | None = None  # the time of the event that it is of
    thumbnails: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredThumbnail:
    key: str
    bytes: int
    modified: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Image:
    """Everything that the stores hold of one image. `letters` are the eTags that dead letters of it speak of."""

    image_id: str
    uploaded: Uploaded | None = None
    item: ItemState | None = None
    thumbnails: tuple[StoredThumbnail, ...] = ()
    letters: frozenset[str | None] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    """One image about which the stores disagree, and what makes them agree. `thumbnails` are the keys concerned."""

    kind: Kind
    image_id: str
    key: str | None
    detail: str
    repair: Repair
    thumbnails: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A finding, and what image_processor is told of to mend it; None when there is nothing to tell."""

    finding: Finding
    source: Source | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the uploads of one image: `outcome` is the newest one's, None where there was no upload.

    UNACCOUNTED: there was one, and it should have an outcome by now.
    """

    outcome: Outcome | Unaccounted | None
    superseded: int = 0
    disagreement: Disagreement | None = None
    foreign: bool = False  # an item of another bucket or another program

    @property
    def kind(self) -> Kind | None:
        return None if self.disagreement is None else self.disagreement.finding.kind


@dataclass(frozen=True, slots=True)
class Accounting:
    """How many uploads met which outcome. `foreign_items` speak of no object of this bucket and count for nothing."""

    uploads: int
    completed: int
    failed: int
    dead_lettered: int
    ignored: int
    superseded: int
    deleted: int
    in_flight: int
    unaccounted: int
    balanced: bool
    images: int
    foreign_items: int


class Tally:
    """Counts verdicts, in constant memory."""

    def __init__(self, counted: Mapping[str, int] | None = None) -> None:
        self._counted = Counter(counted or {})

    @property
    def state(self) -> dict[str, int]:
        """What a later tally goes on from."""
        return dict(self._counted)

    def add(self, verdict: Verdict) -> None:
        self._counted["images"] += 1
        self._counted["foreign"] += verdict.foreign
        self._counted[Outcome.SUPERSEDED] += verdict.superseded
        if verdict.outcome is not None:
            self._counted[verdict.outcome] += 1

    def accounting(self, queued: int) -> Accounting:
        """The sums. Each of the `queued` messages in the metadata queue may be the outcome of an upload that has none:
        that many are in flight however old they are."""
        count = self._counted
        waiting = min(queued, count[UNACCOUNTED])
        unaccounted = count[UNACCOUNTED] - waiting
        return Accounting(
            uploads=sum(count[outcome] for outcome in (*Outcome, UNACCOUNTED)),
            completed=count[Outcome.COMPLETED],
            failed=count[Outcome.FAILED],
            dead_lettered=count[Outcome.DEAD_LETTERED],
            ignored=count[Outcome.IGNORED],
            superseded=count[Outcome.SUPERSEDED],
            deleted=count[Outcome.DELETED],
            in_flight=count[Outcome.IN_FLIGHT] + waiting,
            unaccounted=unaccounted,
            balanced=unaccounted == 0,
            images=count["images"],
            foreign_items=count["foreign"],
        )


def judge(image: Image, bucket: str, settled_before: float) -> Verdict:
    """What became of an image's uploads to `bucket`, and whether the stores agree about it.

    What was uploaded or removed at or after `settled_before` (seconds since 1970) may still be on its way.
    """
    uploaded = image.uploaded
    superseded = max(0, uploaded.versions - 1) if uploaded is not None else 0
    if uploaded is None or uploaded.current is None:
        return _judge_absent(image, bucket, settled_before, superseded)
    current = uploaded.current
    source = Source(bucket, uploaded.key, current.version_id, current.e_tag, event_name="ObjectCreated:Put")
    young = current.modified >= settled_before
    item = image.item
    if item is not None and item.status is not Status.DELETED and item.e_tag in (None, current.e_tag):
        outcome = Outcome(item.status)
        found = _compare_thumbnails(image, item, current, source)
        return Verdict(outcome, superseded, None if young else found)
    if not image.letters.isdisjoint({None, current.e_tag}):
        return Verdict(Outcome.DEAD_LETTERED, superseded)
    if (item is None or item.status is Status.DELETED) and not claims_to_be_image(uploaded.key, current.content_type):
        left = _orphans(image, "of an object that does not claim to be an image", source, Repair.REPROCESS)
        return Verdict(Outcome.IGNORED, superseded, None if young else left)
    if young:
        return Verdict(Outcome.IN_FLIGHT, superseded)
    if item is None:
        # Thumbnails that lie about are cleared away by a reprocess alone.
        repair = Repair.REPROCESS if image.thumbnails else Repair.PROCESS
        found = _disagreement(image, Kind.MISSING_ITEM, source, "no item speaks of the object", repair)
    else:
        said = "deleted" if item.status is Status.DELETED else f"of eTag {item.e_tag}"
        found = _disagreement(image, Kind.STALE_ITEM, source, f"the item is {said}", Repair.REPROCESS)
    return Verdict(UNACCOUNTED, superseded, found)


def _judge_absent(image: Image, bucket: str, settled_before: float, superseded: int) -> Verdict:
    """Of an image without a current object."""
    uploaded, item = image.uploaded, image.item
    if uploaded is None and item is not None and not _is_ours(image.image_id, item, bucket):
        return Verdict(None, foreign=True)
    removed_at = None if uploaded is None else uploaded.removed_at
    young = removed_at is not None and removed_at >= settled_before
    key = uploaded.key if uploaded is not None else None if item is None else item.key
    source = None if key is None else Source(bucket, key, event_name="ObjectRemoved:Delete")
    if item is not None and item.status is not Status.DELETED:
        if None in image.letters:  # a removal has no eTag
            return Verdict(Outcome.DEAD_LETTERED, superseded)
        if young:
            return Verdict(Outcome.IN_FLIGHT, superseded)
        found = _disagreement(image, Kind.ORPHAN_ITEM, source, "its object is gone", Repair.REMOVE)
        return Verdict(UNACCOUNTED, superseded, found)
    known = item is not None or (uploaded is not None and uploaded.versions > 0)
    young = young or any(one.modified >= settled_before for one in image.thumbnails)
    repair = Repair.DELETE_THUMBNAIL if source is None else Repair.REMOVE
    left = None if young else _orphans(image, "its object is gone", source, repair)
    return Verdict(Outcome.DELETED if known else None, superseded, left)


def _compare_thumbnails(image: Image, item: ItemState, current: Current, source: Source) -> Disagreement | None:
    """How the thumbnails contradict an item that speaks of the current object."""
    stored = {one.key: one for one in image.thumbnails}
    wanted = item.thumbnails if item.status is Status.COMPLETED else {}
    missing = tuple(key for key in wanted if key not in stored)
    stale = tuple(
        key
        for key, size in wanted.items()
        if (one := stored.get(key)) is not None
        and (one.modified < current.modified or (size is not None and size != one.bytes))
    )
    extra = tuple(key for key in stored if key not in wanted)
    for kind, keys, detail in (
        (Kind.MISSING_THUMBNAIL, missing, "its item names it and it is not there"),
        (Kind.STALE_THUMBNAIL, stale, "it is not the one that its item tells of"),
        (Kind.ORPHAN_THUMBNAIL, extra, "its item does not know it"),
    ):
        if keys:
            # A failed image's own event would keep the thumbnails that it made before it failed.
            own = source if item.status is Status.FAILED else own_event(item, source)
            return _disagreement(image, kind, own, detail, Repair.REPROCESS, keys)
    return None


def own_event(item: ItemState, source: Source) -> Source:
    """The item's own event again, so that it keeps its place in the order of events.

    Not where the event came after the upload (an older version became current again): then looking decides once more.
    """
    if item.sequencer is None or item.as_of != item.upload_date:
        return source
    return replace(
        source, version_id=item.version_id or source.version_id, sequencer=item.sequencer, event_time=item.as_of
    )


def _orphans(image: Image, detail: str, source: Source | None, repair: Repair) -> Disagreement | None:
    keys = tuple(one.key for one in image.thumbnails)
    return _disagreement(image, Kind.ORPHAN_THUMBNAIL, source, detail, repair, keys) if keys else None


def _disagreement(
    image: Image, kind: Kind, source: Source | None, detail: str, repair: Repair, keys: tuple[str, ...] = ()
) -> Disagreement:
    key = None if source is None else source.key
    return Disagreement(Finding(kind, image.image_id, key, detail, repair, keys), source)


def _is_ours(identity: str, item: ItemState, bucket: str) -> bool:
    """Whether an item can be of this pipeline's bucket: the original project's items have no bucket and random ids."""
    return item.bucket == bucket and item.key is not None and image_id(bucket, item.key) == identity
