"""Uploading files: each is read once, judged, and sent unless its content is there already."""

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from pipeline_cli.errors import ConfigurationError, ImgpipeError
from pipeline_cli.pipeline.uploading import preflight
from pipeline_cli.pipeline.uploading.pacing import Window, backoff
from pipeline_cli.pipeline.uploading.preflight import Inspected, Inspector, UnusableFileError
from pipeline_cli.pipeline.uploading.records import Action, Rules, Upload
from pipeline_cli.pipeline.uploading.s3_errors import THROTTLED, WRONG_BYTES, configuration_error
from pipeline_cli.pipeline.uploading.selection import LocalFile, Problem, Unusable
from pipeline_cli.pipeline.uploading.stored import Stored, from_headers, is_same, listed
from pipeline_cli.pipeline.uploading.transfers import (
    CHECKSUM_ALGORITHM,
    CHECKSUM_HEADER,
    PART_BYTES,
    PARTS_AT_ONCE,
    Answer,
    Meter,
    Transfers,
    resolve,
)
from pipeline_contract.identity import image_id

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client

BATCH = 1000  # keys that one page of a listing answers for
FEW = 4  # so few files are sent without a look at the bucket: the condition on the request protects what is there
MAX_ATTEMPTS = 6
MAX_READINGS = 3  # of a file whose bytes never have the checksum that they had
MAX_NETWORK_FAILURES = 10  # in a row, with no success between them: nobody is there
BYTES_UNDER_WAY = 64 * 1024 * 1024


class Sender(Protocol):
    """What `transfers.Transfers` does."""

    meter: Meter

    def __len__(self) -> int: ...
    def put(self, token: "_Job", path: str, key: str, size: int, headers: Mapping[str, str]) -> None: ...
    def head(self, token: "_Job", key: str) -> None: ...
    def next(self, timeout: float) -> "tuple[_Job, Answer] | None": ...
    def cancel_all(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Job:
    """A file on its way."""

    file: LocalFile
    inspected: Inspected
    stored: Stored | None = None
    replacing: bool = False
    asking: bool = False  # a HEAD is under way, not a PUT
    attempts: int = 0
    not_before: float = 0.0

    @property
    def cost(self) -> int:
        """Bytes of memory while it is under way."""
        return 0 if self.asking else min(self.inspected.size, PART_BYTES * PARTS_AT_ONCE)


class Uploader:
    """Uploads files to one bucket."""

    def __init__(
        self,
        client: "S3Client",
        bucket: str,
        sender: Sender,
        rules: Rules,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._sender = sender
        self._rules = rules
        self._monotonic = monotonic
        self._rng = rng or random.Random()  # noqa: S311  # jitter
        self._inspector = Inspector(rules.limits)
        self._window = Window(rules.concurrency)
        self._waiting: deque[_Job] = deque()  # for their next attempt
        self._bytes_under_way = 0
        self._network_failures = 0
        self._sums_parts = True  # whether S3 verifies a whole file that comes in parts
        self._heard = False  # whether S3 ever answered
        self._succeeded = 0
        self._started = monotonic()
        self.meter = sender.meter

    def run(self, files: Iterable[LocalFile | Unusable]) -> Iterator[Upload]:
        """Yields what became of each file, in the order in which they finish.

        ConfigurationError when S3 refuses everything (no bucket, bad credentials), ImgpipeError when nobody is there.
        """
        try:
            yield from self._run(files)
        finally:  # interrupted, or nobody wants to know any more
            self._sender.cancel_all()

    def _run(self, files: Iterable[LocalFile | Unusable]) -> Iterator[Upload]:
        jobs = self._jobs(files)
        more = True
        while more or self._waiting or len(self._sender):
            while more and self._has_room():
                job = next(jobs, None)
                if job is None:
                    more = False
                elif isinstance(job, Upload):
                    yield job
                else:
                    self._send(job)
            self._send_waiting()
            answered = self._sender.next(0.1 if self._waiting else 1.0) if len(self._sender) else None
            if answered is not None:
                job, answer = answered
                self._bytes_under_way -= job.cost
                done = self._answered(job, answer)
                if done is not None:
                    yield done
            elif not len(self._sender) and self._waiting:
                time.sleep(0.05)

    def _has_room(self) -> bool:
        return len(self._sender) < self._window.size and (
            self._bytes_under_way < BYTES_UNDER_WAY or not len(self._sender)
        )

    def _jobs(self, files: Iterable[LocalFile | Unusable]) -> Iterator["_Job | Upload"]:
        """Files ready to be sent, and what is known of the others. A batch is listed while the one before is sent."""
        if self._rules.overwrite:
            for file in files:
                yield from self._job(file, None)
            return
        stream = iter(files)
        with ThreadPoolExecutor(1, "listing") as background:
            batch = list(islice(stream, BATCH))
            listing = self._list(background, batch)
            while batch:
                following = list(islice(stream, BATCH))
                there = listing.result()
                listing = self._list(background, following)
                for file in batch:
                    yield from self._job(file, there.get(file.key) if isinstance(file, LocalFile) else None)
                batch = following

    def _list(self, background: ThreadPoolExecutor, batch: list[LocalFile | Unusable]) -> "Future[dict[str, Stored]]":
        keys = [file.key for file in batch if isinstance(file, LocalFile)]
        if len(keys) <= FEW and not self._rules.dry_run:
            keys = []
        return background.submit(lambda: listed(self._client, self._bucket, keys) if keys else {})

    def _job(self, file: LocalFile | Unusable, stored: Stored | None) -> Iterator["_Job | Upload"]:
        if isinstance(file, Unusable):
            yield Upload(file.path, None, Action.FAILED, code=file.code, reason=file.reason)
            return
        try:
            inspected = self._inspector.inspect(file.path, file.key)
            refusal = inspected.refusal
            if refusal is not None:
                yield self._result(file, inspected, Action.REFUSED, code=refusal.code, reason=refusal.reason)
                return
            job = _Job(file, inspected, stored)
            same = self._is_same(job, stored) if stored is not None else False
        except UnusableFileError as error:
            yield Upload(file.path, file.key, Action.FAILED, code=error.code, reason=error.reason)
            return
        if same:
            yield self._unchanged(job)
        elif self._rules.dry_run and (same is False or self._rules.overwrite):
            yield self._result(file, inspected, Action.REPLACE if stored else Action.UPLOAD)
        else:
            job.asking = same is None or (stored is None and inspected.size > PART_BYTES and not self._rules.overwrite)
            job.replacing = same is False and stored is not None
            yield job

    def _is_same(self, job: _Job, stored: Stored) -> bool | None:
        inspected = job.inspected
        return is_same(
            stored,
            inspected.size,
            inspected.checksum,
            lambda algorithm: self._inspector.digest(job.file.path, algorithm),
        )

    def _send(self, job: _Job) -> None:
        job.attempts += 1
        self._bytes_under_way += job.cost
        if job.asking:
            self._sender.head(job, job.file.key)
            return
        headers = {
            "Content-Type": job.inspected.content_type,
            "x-amz-sdk-checksum-algorithm": CHECKSUM_ALGORITHM,
        }
        if not self._in_parts(job) or self._sums_parts:
            headers[CHECKSUM_HEADER] = job.inspected.checksum
        if not self._rules.overwrite:
            if job.replacing and job.stored is not None:
                headers["If-Match"] = f'"{job.stored.e_tag}"'
            else:
                headers["If-None-Match"] = "*"
        self._sender.put(job, job.file.path, job.file.key, job.inspected.size, headers)

    def _send_waiting(self) -> None:
        now = self._monotonic()
        for _ in range(len(self._waiting)):
            if not self._has_room():
                return
            job = self._waiting.popleft()
            if job.not_before <= now:
                self._send(job)
            else:
                self._waiting.append(job)

    def _answered(self, job: _Job, answer: Answer) -> Upload | None:
        """What became of the file, or None when it is tried again."""
        if answer.status is not None:
            self._network_failures, self._heard = 0, True
        if answer.ok:
            self._window.succeeded()
            self._succeeded += 1
            return self._looked_at(job, answer) if job.asking else self._stored(job, answer)
        code = answer.error or ""
        if job.asking and code in ("NoSuchKey", "NotFound"):
            job.asking, job.replacing, job.stored = False, False, None
            if self._rules.dry_run:
                return self._result(job.file, job.inspected, Action.UPLOAD)
            return self._step(job)
        if code == "PreconditionFailed" and not job.asking:
            return self._occupied(job)
        if code in ("ConditionalRequestConflict", "OperationAborted"):
            return self._retry(job, Problem.CONFLICT, "another writer stores this key")
        if code in WRONG_BYTES or "FILE" in code or "CONTENT_LENGTH" in code:
            return self._read_again(job, answer)
        if code in THROTTLED or (answer.status or 0) >= 500:
            self._window.congested()
            return self._retry(job, Problem.THROTTLED, f"{code}: {answer.message}")
        if answer.status is None:
            return self._unreached(job, answer)
        about_all = configuration_error(answer)
        if about_all is not None and (code != "AccessDenied" or not self._succeeded):
            raise about_all
        return self._failed(job, Problem.REFUSED_BY_S3, f"{code}: {answer.message}")

    def _stored(self, job: _Job, answer: Answer) -> Upload | None:
        said = answer.headers.get(CHECKSUM_HEADER)
        if said is not None and "-" not in said and said != job.inspected.checksum:
            return self._read_again(job, answer)
        # An endpoint that verified nothing, or only parts: a file that changed meanwhile may have arrived torn.
        if (said is None or "-" in said or not self._sums_parts) and self._has_changed(job):
            return self._read_again(job, answer)
        return self._result(
            job.file,
            job.inspected,
            Action.REPLACE if job.replacing else Action.UPLOAD,
            e_tag=answer.headers.get("etag", "").strip('"') or None,
            version_id=answer.headers.get("x-amz-version-id"),
            seconds=answer.seconds,
            sent_at=_moment(answer.headers.get("date")),
        )

    def _looked_at(self, job: _Job, answer: Answer) -> Upload | None:
        job.asking = False
        stored = from_headers(answer.headers)
        try:
            same = self._is_same(job, stored)
        except UnusableFileError as error:
            return self._failed(job, error.code, error.reason)
        job.stored = stored
        if same:
            return self._unchanged(job)
        if self._rules.dry_run:
            return self._result(job.file, job.inspected, Action.REPLACE)
        if self._written_meanwhile(answer, stored):
            return self._failed(
                job, Problem.CONFLICT, "another writer stored this key during the upload; --overwrite sends it anyway"
            )
        job.replacing = True
        return self._step(job)

    def _occupied(self, job: _Job) -> Upload | None:
        """The condition did not hold: the key is taken, or was taken by somebody else since it was looked at."""
        if job.replacing:
            return self._failed(
                job, Problem.CONFLICT, "another writer stored this key during the upload; --overwrite sends it anyway"
            )
        job.asking = True
        return self._step(job)

    def _written_meanwhile(self, answer: Answer, stored: Stored) -> bool:
        """By S3's own clock, to the second."""
        now, written = _moment(answer.headers.get("date")), _moment(stored.last_modified)
        if now is None or written is None:
            return False
        return written > now - (self._monotonic() - self._started)

    def _read_again(self, job: _Job, answer: Answer) -> Upload | None:
        """What was sent is not what was read: the file changed meanwhile, or the way garbled it."""
        try:
            again = self._inspector.inspect(job.file.path, job.file.key)
        except UnusableFileError as error:
            return self._failed(job, error.code, error.reason)
        changed = again.stamp != job.inspected.stamp or again.checksum != job.inspected.checksum
        if not (answer.ok or changed) and self._in_parts(job):
            # Some S3-compatible servers know no checksum of a whole object that came in parts: then the parts' must do.
            self._sums_parts = False
        job.inspected = again
        if answer.ok:  # it is stored, and not what it should be
            job.stored = Stored(answer.headers.get("etag", "").strip('"'), job.inspected.size)
            job.replacing = True
        problem = Problem.CHANGED if changed else Problem.CHECKSUM
        reason = "it keeps changing while it is sent" if changed else f"{answer.error}: {answer.message}"
        return self._retry(job, problem, reason, at_most=MAX_READINGS)

    def _in_parts(self, job: _Job) -> bool:
        return job.inspected.size > PART_BYTES

    def _has_changed(self, job: _Job) -> bool:
        try:
            return preflight.stamp(os.stat(job.file.path)) != job.inspected.stamp
        except OSError:
            return False  # gone since; what was sent is what was read

    def _unreached(self, job: _Job, answer: Answer) -> Upload | None:
        stalled = answer.error == "STALLED"
        self._window.congested()
        self._network_failures += 1
        # awscrt has tried several times by itself, for half a minute.
        if not (self._heard or stalled) or (self._network_failures >= MAX_NETWORK_FAILURES and not self._succeeded):
            raise ImgpipeError(
                f"S3 was not reached: {answer.error}: {answer.message}",
                "Check the network and the endpoint; for the local pipeline: imgpipe local status",
                code="NETWORK",
            )
        problem = Problem.STALLED if stalled else Problem.NETWORK
        return self._retry(job, problem, f"{answer.error}: {answer.message}")

    def _step(self, job: _Job) -> Upload | None:
        """The next request for a file, which is no repetition; yet a key that others keep changing has an end."""
        if job.attempts >= 2 * MAX_ATTEMPTS:
            return self._failed(job, Problem.CONFLICT, "others keep changing this key")
        job.not_before = 0.0
        self._waiting.append(job)
        return None

    def _retry(self, job: _Job, problem: Problem, reason: str, at_most: int = MAX_ATTEMPTS) -> Upload | None:
        """The same request later, with `problem` as the result when it was tried often enough."""
        if job.attempts >= at_most:
            return self._failed(job, problem, reason)
        job.not_before = self._monotonic() + backoff(job.attempts, self._rng)
        self._waiting.append(job)
        return None

    def _unchanged(self, job: _Job) -> Upload:
        stored = job.stored
        return self._result(
            job.file,
            job.inspected,
            Action.UNCHANGED,
            e_tag=stored.e_tag if stored else None,
            version_id=stored.version_id if stored else None,
        )

    def _failed(self, job: _Job, problem: Problem, reason: str) -> Upload:
        return self._result(job.file, job.inspected, Action.FAILED, code=problem, reason=reason)

    def _result(
        self,
        file: LocalFile,
        inspected: Inspected,
        action: Action,
        *,
        code: str | None = None,
        reason: str | None = None,
        e_tag: str | None = None,
        version_id: str | None = None,
        seconds: float | None = None,
        sent_at: float | None = None,
    ) -> Upload:
        return Upload(
            path=file.path,
            key=file.key,
            action=action,
            image_id=image_id(self._bucket, file.key),
            size=inspected.size,
            checksum=f"{CHECKSUM_ALGORITHM}:{inspected.checksum}",
            content_type=inspected.content_type,
            format=inspected.format,
            width=inspected.width,
            height=inspected.height,
            e_tag=e_tag,
            version_id=version_id,
            code=code,
            reason=reason,
            seconds=seconds,
            sent_at=sent_at,
        )


def uploader(
    client: "S3Client", credentials: "Credentials | None", bucket: str, rules: Rules, *, ca_bundle: str | None = None
) -> Uploader:
    """An uploader with awscrt under it, that sends to the bucket where `client` would find it.

    ConfigurationError when there are no credentials.
    """
    if credentials is None:
        raise ConfigurationError(
            "No AWS credentials were found.",
            "Sign in (aws sso login, aws configure) or name a profile: --profile NAME",
            code="NO_CREDENTIALS",
        )
    sender = Transfers(
        resolve(client, bucket),
        credentials,
        connections=rules.concurrency,
        stall_seconds=rules.read_timeout,
        ca_bundle=ca_bundle,
    )
    return Uploader(client, bucket, sender, rules)


@lru_cache(maxsize=16)  # many answers come in one second
def _moment(date: str | None) -> float | None:
    """Seconds since 1970 of an HTTP date."""
    return parsedate_to_datetime(date).timestamp() if date else None
