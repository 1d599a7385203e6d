"""A batch of queue messages: each ends written, found old, reported to the DLQ, or handed back to the queue.

No message can spoil another's turn. Messages about one image are taken newest first, so that the newest costs one
write and what it settles costs none; different images are written side by side.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from db_writer.bodies import ForeignEntryError, read_body, source_of, unwrapped
from db_writer.items import Write, write_of
from db_writer.retrying import Retrying
from db_writer.writes import WriteOutcome, settles, update
from pipeline_contract.aws_failures import pipeline_error
from pipeline_contract.events import Source
from pipeline_contract.failures import FailureClass, PipelineError, Stage
from pipeline_contract.item import Status
from pipeline_contract.messages import MAX_ERROR_MESSAGE, REDRIVES, Error, FailureEntry, MetadataMessage, Op, Trace
from pipeline_contract.times import format_time

_PARALLEL = 10  # a batch of the default size at once

FORWARDED, REPORTED, RETURNED = "FORWARDED", "REPORTED", "RETURNED"


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a message: a `WriteOutcome`, FORWARDED, REPORTED (to the DLQ) or RETURNED (to the queue)."""

    message_id: str
    outcome: str
    error: PipelineError | None = None
    image_id: str | None = None
    write_ms: float | None = None

    @property
    def returned(self) -> bool:
        return self.outcome == RETURNED


@dataclass(frozen=True, slots=True)
class _Job:
    """A message that could be opened. `write` is what it asks for, `error` why that cannot be said."""

    message_id: str
    original: Any
    attempts: int
    redrives: int
    last_receive: bool
    source: Source | None
    message: MetadataMessage | None = None
    write: Write | None = None
    error: PipelineError | None = None

    @property
    def image_id(self) -> str | None:
        if self.write is not None:
            return self.write.image_id
        return None if self.source is None else self.source.image_id


@dataclass(frozen=True, slots=True)
class Batch:
    dynamodb: Callable[[], Any]
    sqs: Callable[[], Any]
    table: str
    failure_queue: str
    shards: int
    max_receives: int
    request_id: str
    retrying: Retrying

    def handle(self, records: Iterable[Mapping[str, Any]]) -> list[Handled]:
        handled: list[Handled] = []
        groups: dict[str, list[_Job]] = {}
        for record in records:
            opened = self._open(record)
            if isinstance(opened, Handled):
                handled.append(opened)
            else:
                groups.setdefault(opened.image_id or f"message {opened.message_id}", []).append(opened)
        if len(groups) == 1:
            handled += self._handle_image(*groups.values())
        elif groups:
            with ThreadPoolExecutor(min(_PARALLEL, len(groups))) as pool:
                for some in pool.map(self._handle_image, groups.values()):
                    handled += some
        return handled

    def _open(self, record: Mapping[str, Any]) -> "_Job | Handled":
        message_id, text = str(record["messageId"]), record["body"]
        receives, redrives = _receives(record), _redrives(record)
        last_receive = receives >= self.max_receives
        try:
            original, attempts = unwrapped(text)
        except ForeignEntryError as foreign:
            return self._forward(message_id, text, redrives, foreign)
        message: MetadataMessage | None = None
        try:
            body = read_body(original)
            message = body if isinstance(body, MetadataMessage) else None
            source = None if message is None else message.source
            write = write_of(body, _now(), self.shards)
        except Exception as error:  # noqa: BLE001  # whatever a body does to its reader, it costs that body alone
            known = pipeline_error(error, "read the message")
            source = message.source if message is not None else source_of(original)
            return _Job(message_id, original, attempts + receives, redrives, last_receive, source, message, error=known)
        return _Job(message_id, original, attempts + receives, redrives, last_receive, source, message, write)

    def _forward(self, message_id: str, text: str, redrives: int, foreign: ForeignEntryError) -> Handled:
        """An entry that only the image function can take stays what it is, where a redrive sends it the right way."""
        try:
            self._send(text, redrives)
        except Exception as error:  # noqa: BLE001  # it comes back
            return Handled(message_id, RETURNED, pipeline_error(error, "send to the metadata DLQ"), foreign.image_id)
        return Handled(message_id, FORWARDED, image_id=foreign.image_id)

    def _handle_image(self, jobs: list[_Job]) -> list[Handled]:
        handled = []
        settled: Write | None = None
        for job in sorted(jobs, key=_rank, reverse=True):
            started = time.perf_counter()
            if settled is not None and job.write is not None and settles(settled, job.write):
                same = settled.sequencer == job.write.sequencer
                outcome = WriteOutcome.DUPLICATE if same else WriteOutcome.STALE
                handled.append(Handled(job.message_id, outcome, None, job.image_id))
                continue
            try:
                done = self._handle_one(job)
                settled = job.write if done.error is None else settled
            except Exception as error:  # noqa: BLE001  # whatever it is, SQS brings this message back
                done = Handled(job.message_id, RETURNED, pipeline_error(error, "handle the message"), job.image_id)
            elapsed = (time.perf_counter() - started) * 1000
            handled.append(Handled(done.message_id, done.outcome, done.error, done.image_id, elapsed))
        return handled

    def _handle_one(self, job: _Job) -> Handled:
        """Write a message or report it. Raises where it should come back."""
        error = job.error
        if job.write is not None:
            try:
                return Handled(job.message_id, self._write(job.write), None, job.image_id)
            except Exception as failure:  # noqa: BLE001  # classified
                error = pipeline_error(failure, "write the item")
        assert error is not None  # noqa: S101  # a job has a write or an error
        permanent = error.code.failure_class is FailureClass.PERMANENT
        if not permanent and not job.last_receive:
            raise error
        # The item first: repeated, it is a duplicate, while an entry sent twice would be found twice.
        if permanent and job.source is not None:
            self._fail_item(error, job.source, job)
        # On the last receive SQS would move the bare message to the DLQ; the entry says why as well.
        self._report(error, job)
        return Handled(job.message_id, REPORTED, error, job.image_id)

    def _fail_item(self, error: PipelineError, source: Source, job: _Job) -> None:
        """The item of an image whose own metadata cannot be written, as far as its source can be believed."""
        now = _now()
        message = job.message
        trace = message.trace if message is not None else Trace(self.request_id, "unknown")
        observed_at = message.observed_at if message is not None else now
        failed = MetadataMessage(Op.FAIL, source, trace, error=Error.of(error), observed_at=observed_at)
        try:
            self._write(write_of(failed, now, self.shards))
        except Exception as failure:
            code = pipeline_error(failure, "write the failed item").code
            if code.failure_class is not FailureClass.PERMANENT and not job.last_receive:
                raise

    def _write(self, write: Write) -> WriteOutcome:
        return self.retrying.call(lambda: update(self.dynamodb(), self.table, write))

    def _report(self, error: PipelineError, job: _Job) -> None:
        entry = FailureEntry(
            stage=Stage.DB_WRITER,
            class_=error.code.failure_class,
            code=error.code,
            message=error.message[:MAX_ERROR_MESSAGE],
            failed_at=_now(),
            attempts=job.attempts,
            original=job.original,
            source=job.source,
            image_id=job.image_id,
            request_id=self.request_id,
            hint=error.code.hint,
        )
        self._send(entry.to_json(), job.redrives)

    def _send(self, body: str, redrives: int) -> None:
        """The count of redrives goes along: what came back too often is redriven no more."""
        more: dict[str, Any] = {}
        if redrives:
            more["MessageAttributes"] = {REDRIVES: {"DataType": "Number", "StringValue": str(redrives)}}
        self.retrying.call(lambda: self.sqs().send_message(QueueUrl=self.failure_queue, MessageBody=body, **more))


def _rank(job: _Job) -> tuple[str, bool, bool]:
    """What sorts last is the newest, and of equals the one that may replace the others."""
    write = job.write
    if write is None:
        return ("", False, False)
    return (write.sequencer or "", write.status is not Status.FAILED, write.reprocess)


def _receives(record: Mapping[str, Any]) -> int:
    text = str(record.get("attributes", {}).get("ApproximateReceiveCount", "1"))
    return int(text) if text.isascii() and text.isdigit() else 1


def _redrives(record: Mapping[str, Any]) -> int:
    text = str(record.get("messageAttributes", {}).get(REDRIVES, {}).get("stringValue", "0"))
    return int(text) if text.isascii() and text.isdigit() else 0


def _now() -> str:
    return format_time(datetime.now(UTC))
