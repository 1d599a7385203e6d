"""What one S3 event means: look at the object, act on its thumbnails, look again, and say what the item should be.

The last thing done to the thumbnails of an image is always followed by a look at the source that agrees with it.
Events come late, twice and in any order, and several run at once; whoever acts last has looked after acting, so the
thumbnails end as the source does, whichever event that was.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from image_processor.rendering import Rendered
from image_processor.settings import ImageSettings
from image_processor.source import Look, OpenObject, SupersededError, look, opened
from image_processor.thumbnails import Stamp, ThumbnailStore
from pipeline_contract.events import ObjectEvent, Source
from pipeline_contract.failures import FailureClass, FailureCode, PipelineError
from pipeline_contract.identity import thumbnail_key
from pipeline_contract.kinds import claims_to_be_image
from pipeline_contract.messages import Error, MetadataMessage, Op, Thumbnail, Trace

_ROUNDS = 4

Render = Callable[[bytes, str | None, ImageSettings], Rendered]


class Outcome(StrEnum):
    """What became of one event."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    DELETED = "DELETED"
    IGNORED = "IGNORED"  # does not claim to be an image
    GONE = "GONE"  # created once, not there any more: its removal has an event of its own
    SUPERSEDED = "SUPERSEDED"  # overwritten: the newer object has an event of its own


@dataclass(slots=True)
class Timings:
    """Milliseconds by stage; a stage that ran twice counts twice."""

    stages: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str) -> "_Stage":
        return _Stage(self, stage)


@dataclass(slots=True)
class _Stage:
    timings: Timings
    name: str
    started: float = 0.0

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        elapsed = (time.perf_counter() - self.started) * 1000
        self.timings.stages[self.name] = self.timings.stages.get(self.name, 0.0) + elapsed


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of an event, with the message for the writer where the item may have to change."""

    outcome: Outcome
    message: MetadataMessage | None = None
    error: PipelineError | None = None
    size: int | None = None
    decode_ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one look showed: nothing (`look` is None), a usable image, or one that is not."""

    look: Look | None
    observed_at: str
    rendered: Rendered | None = None
    error: PipelineError | None = None  # PERMANENT


@dataclass(frozen=True, slots=True)
class Processor:
    s3: Any
    thumbnails: ThumbnailStore
    settings: ImageSettings
    render: Render
    now: Callable[[], str]
    trace: Trace
    timings: Timings = field(default_factory=Timings)

    def process(self, event: ObjectEvent) -> Result:
        """The result of one event. Raises a `PipelineError` that is TRANSIENT or CONFIG for what may pass."""
        source = event.source
        # A removal says only that something was removed, and without a sequencer nothing says whether the event is
        # the newest: what is there now decides. Any other event is about its own object alone.
        by_looking = event.removed or source.sequencer is None
        speaks = True
        e_tag = None if by_looking else source.e_tag
        for _ in range(_ROUNDS):
            try:
                finding = self._find(source, e_tag)
            except SupersededError:
                if not self._left_a_thumbnail(source):
                    return Result(Outcome.SUPERSEDED)
                e_tag, speaks = None, False
                continue
            acted = self._act(event, finding)
            if acted is None:
                return Result(Outcome.SUPERSEDED)
            if not acted or self._still_there(source, finding.look):
                return self._result(event, finding, by_looking, acted) if speaks else Result(Outcome.SUPERSEDED)
            e_tag, speaks = None, by_looking
        raise PipelineError(FailureCode.SERVICE_ERROR, f"s3://{source.bucket}/{source.key} keeps changing")

    def _find(self, source: Source, e_tag: str | None) -> _Finding:
        observed_at = self.now()
        with self.timings.timed("fetch"), opened(self.s3, source.bucket, source.key, e_tag) as current:
            if current is None:
                return _Finding(None, observed_at)
            if not claims_to_be_image(source.key, current.look.content_type):
                return _Finding(current.look, observed_at)
            try:
                data = self._read(current)
            except PipelineError as error:
                return self._unusable(current.look, observed_at, error)
        with self.timings.timed("render"):
            try:
                rendered = self.render(data, current.look.content_type, self.settings)
            except PipelineError as error:
                return self._unusable(current.look, observed_at, error)
        return _Finding(current.look, observed_at, rendered)

    def _read(self, current: OpenObject) -> bytes:
        return current.read(self.settings.max_bytes)

    @staticmethod
    def _unusable(seen: Look, observed_at: str, error: PipelineError) -> _Finding:
        if error.code.failure_class is not FailureClass.PERMANENT:
            raise error
        return _Finding(seen, observed_at, error=error)

    def _left_a_thumbnail(self, source: Source) -> bool:
        """Whether an earlier attempt at this very event stored a thumbnail and died before it looked again."""
        key = thumbnail_key(source.image_id, self.settings.thumbnail_format.extension)
        return self.thumbnails.made_for(key, source.sequencer)

    def _act(self, event: ObjectEvent, finding: _Finding) -> bool | None:
        """Make the thumbnails agree: whether anything was changed, None when a newer event has been here."""
        image_id = event.source.image_id
        with self.timings.timed("store"):
            if finding.rendered is not None and finding.look is not None:
                return self._store(event, finding.look, finding.rendered)
            return self.thumbnails.remove(image_id, lambda key: self._is_kept(key, event.source, finding)) > 0

    def _is_kept(self, key: str, source: Source, finding: _Finding) -> bool:
        """Whether a thumbnail stays although its image fails: it is of this event and this object.

        The object was usable once (then a limit was lowered), its item is COMPLETED, and FAILED of the same event
        will not replace that.
        """
        if finding.error is None or finding.look is None:
            return False
        return self.thumbnails.made_for(key, source.sequencer, finding.look.e_tag)

    def _store(self, event: ObjectEvent, seen: Look, rendered: Rendered) -> bool | None:
        source = event.source
        stamp = Stamp(source.image_id, source.sequencer, seen.e_tag, rendered.facts.content_sha256)
        others = event.reprocess
        for made in rendered.thumbnails:
            put = self.thumbnails.put(_key(source, made), made.data, made.content_type, stamp)
            if not put.stored:
                return None
            others = others or put.replaced
        if others:  # of a size or format that is not made any more
            made_now = {_key(source, made) for made in rendered.thumbnails}
            self.thumbnails.remove(source.image_id, made_now.__contains__)
        return True

    def _still_there(self, source: Source, seen: Look | None) -> bool:
        with self.timings.timed("verify"):
            current = look(self.s3, source.bucket, source.key)
        if current is None or seen is None:
            return current is seen
        return current.e_tag == seen.e_tag

    def _result(self, event: ObjectEvent, finding: _Finding, by_looking: bool, acted: bool) -> Result:
        seen = finding.look
        if seen is None and not by_looking:
            return Result(Outcome.GONE)
        ignored = seen is not None and finding.rendered is None and finding.error is None
        if seen is None or (ignored and (acted or event.reprocess)):
            # Nothing is there, or something that is no image has taken the place of one.
            return Result(Outcome.DELETED, self._message(event, finding, Op.DELETE))
        if finding.error is not None:
            message = self._message(event, finding, Op.FAIL)
            return Result(Outcome.FAILED, message, finding.error, seen.size)
        if finding.rendered is None:
            return Result(Outcome.IGNORED, size=seen.size)
        made = finding.rendered
        message = replace(
            self._message(event, finding, Op.UPSERT),
            image=made.facts,
            exif=made.exif,
            thumbnails=tuple(
                Thumbnail(_key(event.source, one), one.width, one.height, one.format, len(one.data), one.pixels)
                for one in made.thumbnails
            ),
        )
        return Result(Outcome.COMPLETED, message, size=seen.size, decode_ms=made.decode_ms)

    def _message(self, event: ObjectEvent, finding: _Finding, op: Op) -> MetadataMessage:
        source, seen = event.source, finding.look
        uploaded_at = None
        if seen is not None:
            own = not event.removed and seen.e_tag == source.e_tag
            source = replace(
                source, e_tag=seen.e_tag, version_id=seen.version_id or (source.version_id if own else None)
            )
            uploaded_at = None if own and source.sequencer is not None else seen.last_modified
        return MetadataMessage(
            op=op,
            source=source,
            trace=replace(self.trace, processing_date=self.now()),
            error=None if finding.error is None else Error.of(finding.error),
            reprocess=event.reprocess,
            observed_at=finding.observed_at,
            uploaded_at=uploaded_at,
        )


def _key(source: Source, made: Any) -> str:
    return thumbnail_key(source.image_id, made.extension, None if made.primary else made.pixels)
