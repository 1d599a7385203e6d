"""What `imgpipe upload` says on stderr while it works: a live line on a terminal, a line now and then elsewhere."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from pipeline_cli.context import Context
from pipeline_cli.output import size
from pipeline_cli.pipeline.uploading.summary import stage_times
from pipeline_cli.pipeline.uploading.transfers import Meter

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from pipeline_cli.pipeline.outcomes import Latencies
    from pipeline_cli.pipeline.uploading.records import Upload

LINES_EVERY = 10.0  # seconds between plain lines
REDRAWS = 8  # a second
BAR = 16  # columns


class Progress(Protocol):
    """Is told what happens; shows it or not."""

    def __enter__(self) -> "Progress": ...
    def __exit__(self, *_: object) -> None: ...
    def uploaded(self, done: "Upload") -> None: ...
    def waiting_for(self, count: int, latencies: "Latencies") -> None: ...
    def resolved(self, done: "Upload") -> None: ...


def progress(context: Context, meter: Meter, count: Callable[[], int] | None) -> Progress:
    """The display for this stderr. `count` tells how many files there are, where that can be known; it takes a walk."""
    if context.options.quiet:
        return _Silent()
    if context.stderr.isatty() and context.environ.get("TERM") != "dumb":
        return _Live(context, meter, count)
    return _Lines(context, meter)


class _Silent:
    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def uploaded(self, done: "Upload") -> None:
        pass

    def waiting_for(self, count: int, latencies: "Latencies") -> None:
        pass

    def resolved(self, done: "Upload") -> None:
        pass


class _Counting(_Silent):
    def __init__(self, context: Context, meter: Meter) -> None:
        self._context = context
        self._meter = meter
        self._started = time.monotonic()
        self._files = 0
        self._to_wait_for = 0
        self._latencies: Latencies | None = None
        self._outcomes: Counter[str] = Counter()

    def uploaded(self, done: "Upload") -> None:  # noqa: ARG002
        self._files += 1

    def waiting_for(self, count: int, latencies: "Latencies") -> None:
        self._to_wait_for = count
        self._latencies = latencies

    def resolved(self, done: "Upload") -> None:
        if done.outcome:
            self._outcomes[done.outcome] += 1

    def _sent(self) -> str:
        seconds = max(time.monotonic() - self._started, 0.001)
        sent = self._meter.bytes_sent
        return f"{size(sent)} sent, {size(sent / seconds)}/s"

    def _outcome_counts(self) -> str:
        counts = ", ".join(f"{count:,} {outcome.lower()}" for outcome, count in self._outcomes.most_common())
        return f"{self._outcomes.total():,} of {self._to_wait_for:,} images done" + (f": {counts}" if counts else "")


class _Lines(_Counting):
    """For logs: nothing that moves, nothing too often."""

    def __init__(self, context: Context, meter: Meter) -> None:
        super().__init__(context, meter)
        self._said = self._started

    def uploaded(self, done: "Upload") -> None:
        super().uploaded(done)
        self._say(lambda: f"{self._files:,} files done, {self._sent()}")

    def waiting_for(self, count: int, latencies: "Latencies") -> None:
        super().waiting_for(count, latencies)
        if count:
            self._context.note(f"Waiting for what becomes of {count:,} images")

    def resolved(self, done: "Upload") -> None:
        super().resolved(done)
        self._say(self._outcome_counts)

    def _say(self, text: Callable[[], str]) -> None:
        now = time.monotonic()
        if now - self._said >= LINES_EVERY:
            self._said = now
            self._context.note(text())


class _Live(_Counting):
    """One line that is drawn again and again; Rich is imported once it is worth it."""

    def __init__(self, context: Context, meter: Meter, count: Callable[[], int] | None) -> None:
        super().__init__(context, meter)
        self._count = count
        self._total: int | None = None
        self._stages = ""
        self._stages_at = 0.0
        self._live: Live | None = None

    def __enter__(self) -> "_Live":
        from rich.live import Live

        if self._count is not None:
            threading.Thread(target=self._find_total, daemon=True).start()
        self._live = Live(
            console=self._context.console,
            refresh_per_second=REDRAWS,
            transient=True,
            get_renderable=self._render,
        )
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _find_total(self) -> None:
        assert self._count is not None  # noqa: S101  # started only then
        self._total = self._count()

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(width=BAR)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        if self._to_wait_for:
            done, total = self._outcomes.total(), self._to_wait_for
            grid.add_row("Waiting", ProgressBar(total, done, width=BAR), Text(self._outcome_counts()))
            return Group(grid, Text(self._stage_times(), no_wrap=True, overflow="ellipsis"))
        files = f"{self._files:,} of {self._total:,} files" if self._total else f"{self._files:,} files"
        bar = ProgressBar(self._total or None, self._files, width=BAR, pulse=not self._total)
        grid.add_row("Uploading", bar, Text(f"{files}, {self._sent()}{self._left()}"))
        return grid

    def _stage_times(self) -> str:
        """Looked at once a second: a spread is a sort."""
        now = time.monotonic()
        if self._latencies is not None and now - self._stages_at >= 1:
            self._stages_at = now
            self._stages = stage_times(self._latencies.spreads())
        return self._stages

    def _left(self) -> str:
        if not self._total or not self._files:
            return ""
        seconds = (time.monotonic() - self._started) / self._files * max(0, self._total - self._files)
        minutes, seconds = divmod(int(seconds), 60)
        return f", {minutes}:{seconds:02d} left"
