"""What an upload came to, counted as its results come by."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline_cli.pipeline.outcomes import FINE, Latencies, Outcome, Spread
from pipeline_cli.pipeline.uploading.records import Action, Upload
from pipeline_cli.pipeline.uploading.selection import LeftOut
from pipeline_contract.kinds import claims_to_be_image

MAX_NAMED = 1000  # failures named in a summary; the manifest has them all


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that was not uploaded, or of which the pipeline made nothing."""

    path: str
    key: str | None
    image_id: str | None
    what: str  # the action, or the outcome
    code: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """`uploaded` counts new keys, `replaced` changed content; with a dry run both are what would happen.

    `outcomes` and `latency` are there with --wait: counts by outcome, and for each stage milliseconds at p50 and p95.
    """

    dry_run: bool
    interrupted: bool
    files: int
    uploaded: int
    replaced: int
    unchanged: int
    refused: int
    failed: int
    bytes_sent: int
    seconds: float
    outcomes: Mapping[str, int]
    latency: Mapping[str, Spread]
    failures: tuple[Failure, ...]
    not_images: int = 0  # sent all the same, for the pipeline to ignore
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def not_done(self) -> int:
        return self.refused + self.failed

    @property
    def in_flight(self) -> int:
        return self.outcomes.get(Outcome.IN_FLIGHT, 0)

    @property
    def gone_wrong(self) -> int:
        """Images of which the pipeline made nothing."""
        return sum(count for outcome, count in self.outcomes.items() if outcome not in (*FINE, Outcome.IN_FLIGHT))

    def sentence(self) -> str:
        """For people: `5,000 files: 4,990 uploaded, 10 unchanged (776 MB in 2.1 s)`."""
        would = "would be " if self.dry_run else ""
        parts = [
            f"{count:,} {would}{word}"
            for count, word in (
                (self.uploaded, "uploaded"),
                (self.replaced, "replaced"),
                (self.unchanged, "left as they are" if self.dry_run else "unchanged"),
                (self.refused, "refused"),
            )
            if count
        ]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        noun = "file" if self.files == 1 else "files"
        return f"{self.files:,} {noun}: {', '.join(parts)}" if parts else "No files."

    def left_out_sentence(self) -> str:
        """For people: `Left out: 3 hidden, 1 by --include or --exclude.`; empty when everything was taken."""
        parts = [
            f"{count:,} {what}"
            for count, what in (
                (self.left_out.hidden, "hidden (--hidden takes them)"),
                (self.left_out.by_pattern, "by --include or --exclude"),
                (self.left_out.link_loops, "links in a circle"),
                (self.left_out.not_files, "pipes, sockets or devices"),
            )
            if count
        ]
        said = [f"Left out: {', '.join(parts)}."] if parts else []
        if self.not_images:
            said.append(f"No images, so that the pipeline ignores them: {self.not_images:,}.")
        return " ".join(said)

    def interrupted_sentence(self, *, waited: bool) -> str:
        """For people: what is stored for certain, and what is not known."""
        stored = self.uploaded + self.replaced + self.unchanged
        said = f"Interrupted: {stored:,} files are stored; what was under way or not begun is not."
        if waited and self.in_flight:
            said += f" What becomes of {self.in_flight:,} of them was not waited for, see: imgpipe status."
        return said

    def outcome_sentence(self) -> str:
        """For people: `4,998 completed, 2 failed; p50 310 ms, p95 1,200 ms`."""
        counts = [f"{count:,} {outcome.lower().replace('_', '-')}" for outcome, count in self.outcomes.items()]
        times = [
            f"{stage} p50 {spread.p50:,.0f} ms, p95 {spread.p95:,.0f} ms" for stage, spread in self.latency.items()
        ]
        return "; ".join([", ".join(counts), *times])


def stage_times(latency: Mapping[str, Spread]) -> str:
    """For people: `process p50 310 ms, p95 1,200 ms; write p50 40 ms, p95 90 ms`."""
    return "; ".join(f"{stage} p50 {spread.p50:,.0f} ms, p95 {spread.p95:,.0f} ms" for stage, spread in latency.items())


class Tally:
    """Counts results; what failed is kept by name."""

    def __init__(self) -> None:
        self.actions: Counter[Action] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        self.interrupted = False
        self.not_images = 0
        self.bytes_sent = 0
        self.seconds = 0.0  # until the last file was sent
        self.failures: list[Failure] = []

    def add(self, done: Upload) -> None:
        self.actions[done.action] += 1
        if done.action in (Action.UPLOAD, Action.REPLACE):
            self.bytes_sent += done.size or 0
            self.not_images += not claims_to_be_image(done.key or "", done.content_type)
        elif done.action is not Action.UNCHANGED and len(self.failures) < MAX_NAMED:
            self.failures.append(Failure(done.path, done.key, done.image_id, done.action, done.code, done.reason))

    def add_outcome(self, done: Upload) -> None:
        if done.outcome is None:
            return
        outcome = Outcome(done.outcome)
        self.outcomes[outcome] += 1
        if outcome not in FINE and len(self.failures) < MAX_NAMED:
            self.failures.append(Failure(done.path, done.key, done.image_id, outcome, done.code, done.reason))

    @property
    def files(self) -> int:
        return self.actions.total()

    def summary(
        self,
        *,
        dry_run: bool = False,
        latencies: Latencies | None = None,
        left_out: LeftOut | None = None,
    ) -> Summary:
        return Summary(
            dry_run=dry_run,
            interrupted=self.interrupted,
            files=self.files,
            uploaded=self.actions[Action.UPLOAD],
            replaced=self.actions[Action.REPLACE],
            unchanged=self.actions[Action.UNCHANGED],
            refused=self.actions[Action.REFUSED],
            failed=self.actions[Action.FAILED],
            bytes_sent=self.bytes_sent,
            seconds=round(self.seconds, 3),
            outcomes=dict(self.outcomes.most_common()),
            latency=latencies.spreads() if latencies else {},
            failures=tuple(self.failures),
            not_images=self.not_images,
            left_out=left_out or LeftOut(),
        )
