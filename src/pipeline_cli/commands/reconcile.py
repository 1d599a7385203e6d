import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from pipeline_cli.cli import App
from pipeline_cli.commands.repairing import count, in_words, status, stores_of
from pipeline_cli.context import Context
from pipeline_cli.errors import ExitCode, SomeFailedError, UsageError
from pipeline_cli.output import Column, Format
from pipeline_cli.paths import data_home

if TYPE_CHECKING:
    from pipeline_cli.pipeline.reconciling.checkpoint import Checkpoint, Store, Work
    from pipeline_cli.pipeline.reconciling.listings import Stores
    from pipeline_cli.pipeline.reconciling.reconcile import Progress, Queues, Report
    from pipeline_cli.pipeline.reconciling.repair import Estimate, Repaired

app = App()

_COLUMNS = (
    Column("kind", "Finding", show=lambda kind: str(kind).lower().replace("_", " ")),
    Column("key", "Image", show=lambda key: str(key or "?")),
    Column("detail", "Because"),
    Column("repair", "Repair"),
    Column("imageId", "Id"),
)
_FOR_PEOPLE = tuple(column for column in _COLUMNS if column.name != "repair")
_SHOWN = 1000
_FRESH = 3600.0  # seconds for which --repair takes a finished comparison as it is


@app.command()
def reconcile(
    ctx: typer.Context,
    repair: bool = typer.Option(False, "--repair", help="Process again what is missing, after a plan and a question."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    most: int = typer.Option(10_000, "--max", metavar="N", min=1, help="Repair at most so many in one run."),
    rate: float = typer.Option(20.0, metavar="N", min=0.1, help="Repair at most so many a second."),
    delete_orphans: bool = typer.Option(
        False, "--delete-orphans", help="With --repair: delete thumbnails of which nobody knows the image any more."
    ),
    grace: str = typer.Option("15m", metavar="TIME", help="How long an upload may take before it counts as lost."),
    limit: int = typer.Option(_SHOWN, "-n", "--limit", min=0, metavar="N", help="Print so many findings; 0 is all."),
    anew: bool = typer.Option(False, "--anew", help="Begin anew, whatever an interrupted run has done."),
) -> None:
    """Compare buckets and table, and account for every upload.

    Exit code 0: they agree. 6: something needs repair. 1: repairs failed. A bucket that was full before the pipeline
    existed is filled in by --repair. Ctrl-C loses nothing; the next run goes on.

    \b
    imgpipe reconcile
    imgpipe reconcile --output json
    imgpipe reconcile --repair
    imgpipe reconcile --repair --yes --max 100000 --rate 50
    """
    from pipeline_cli.moments import duration
    from pipeline_cli.pipeline.reconciling import reconcile as reconciling
    from pipeline_cli.pipeline.reconciling.accounting import Repair
    from pipeline_cli.pipeline.reconciling.checkpoint import Checkpoint, Phase
    from pipeline_cli.pipeline.reconciling.repair import INVOKED

    context: Context = ctx.obj
    seconds = duration(grace)
    if repair and not yes and not (context.stdin.isatty() and context.stderr.isatty()):
        raise UsageError("Repairs ask first, and nobody is there to answer.", "Add --yes.", code="NOT_CONFIRMED")
    stores, queues = stores_of(context), _queues(context)
    repairs = (*INVOKED, Repair.DELETE_THUMBNAIL) if delete_orphans else INVOKED
    file = data_home(context.environ) / "reconcile" / f"{context.deployment.name}.sqlite3"
    about = {"uploads": stores.upload_bucket, "thumbnails": stores.thumbnail_bucket, "table": stores.table}
    with Checkpoint.open(file, about, context.now(), anew=anew) as checkpoint:
        over = checkpoint.phase in (Phase.JUDGED, Phase.REPAIRING)
        if over and not (repair and _is_worth_repairing(checkpoint, context.now())):
            checkpoint.begin(about, context.now())
        elif checkpoint.planned():
            context.note(f"Going on with the run of {_time(checkpoint.started)}; --anew begins anew.")
        try:
            with _progress(context) as progress:
                report = reconciling.compare(
                    stores, queues, checkpoint, now=context.now, grace=seconds, progress=progress
                )
        except KeyboardInterrupt:
            context.note("What was done so far is kept; the next imgpipe reconcile goes on.")
            raise
        plan = _estimate(context, checkpoint, most, rate, repairs)
        if context.out.format is not Format.JSON:
            columns = _FOR_PEOPLE if context.out.format is Format.TABLE else _COLUMNS
            context.out.rows(checkpoint.findings(limit or None), columns, empty="The stores agree.")
        _say(context, report, plan, limit, repair=repair)
        repaired = _repair(context, checkpoint, stores, plan, repairs, most, rate, yes=yes) if repair else None
        left = sum(checkpoint.repairs().values())
        if context.out.format is Format.JSON:
            context.out.record(_result(context, report, checkpoint, plan, repaired, left, limit))
    if repaired is not None and repaired.failed:
        raise SomeFailedError(
            f"{repaired.failed:,} repairs were not accepted: {repaired.reason}",
            "Mend that (imgpipe doctor), then go on: imgpipe reconcile --repair",
        )
    if left:
        raise typer.Exit(ExitCode.UNHEALTHY)


def _is_worth_repairing(checkpoint: "Checkpoint", now: float) -> bool:
    """Whether a finished comparison has repairs left to do: begun ones, or those that were shown a moment ago."""
    from pipeline_cli.pipeline.reconciling.checkpoint import Phase

    if not sum(checkpoint.repairs().values()):
        return False
    return checkpoint.phase is Phase.REPAIRING or now - checkpoint.started < _FRESH


@dataclass(frozen=True, slots=True)
class _Result:
    """What --output json prints."""

    deployment: str
    started: datetime
    healthy: bool
    accounting: Any
    queued: int
    counts: Any
    findings: list[Any]
    estimate: Any
    repaired: Any
    left: int


def _result(
    context: Context,
    report: "Report",
    checkpoint: "Checkpoint",
    plan: "Estimate",
    repaired: "Repaired | None",
    left: int,
    limit: int,
) -> _Result:
    return _Result(
        deployment=context.deployment.name,
        started=datetime.fromtimestamp(report.started, UTC),
        healthy=report.total == 0,
        accounting=report.accounting,
        queued=report.queued,
        counts=report.findings,
        findings=list(checkpoint.findings(limit or None)),
        estimate=plan,
        repaired=repaired,
        left=left,
    )


def _queues(context: Context) -> "Queues":
    from pipeline_cli.pipeline.dead_letters.queues import Queue
    from pipeline_cli.pipeline.reconciling.reconcile import Queues
    from pipeline_contract.failures import Stage

    deployment = context.deployment
    dead = (
        Queue(Stage.IMAGE_PROCESSOR, deployment.image_dlq_url),
        Queue(Stage.DB_WRITER, deployment.metadata_dlq_url),
    )
    return Queues(context.clients.sqs, deployment.metadata_queue_url, dead)


def _estimate(context: Context, checkpoint: "Checkpoint", most: int, rate: float, repairs: Any) -> "Estimate":
    from pipeline_cli.pipeline.reconciling.accounting import Repair
    from pipeline_cli.pipeline.reconciling.repair import INVOKED, estimate, memory_of

    waiting = checkpoint.repairs()
    invocations = min(most, sum(waiting[one] for one in INVOKED))
    deletes = min(most - invocations, waiting[Repair.DELETE_THUMBNAIL]) if Repair.DELETE_THUMBNAIL in repairs else 0
    memory = memory_of(context.clients.lambda_, context.deployment.processor_function) if invocations else 0
    return estimate(invocations, deletes, memory, rate)


def _say(context: Context, report: "Report", plan: "Estimate", limit: int, *, repair: bool) -> None:
    """The sums, for people, on stderr."""
    sums = report.accounting
    parts = {
        "completed": sums.completed,
        "failed": sums.failed,
        "dead-lettered": sums.dead_lettered,
        "ignored": sums.ignored,
        "superseded": sums.superseded,
        "deleted": sums.deleted,
        "in flight": sums.in_flight,
    }
    shown = " + ".join(f"{number:,} {name}" for name, number in parts.items() if number) or "0"
    missing = "" if sums.balanced else f", and {sums.unaccounted:,} unaccounted for"
    context.note(f"{sums.uploads:,} uploads = {shown}{missing}.")
    if sums.dead_lettered:
        context.note(f"  {count(sums.dead_lettered, 'dead letter')}: imgpipe dlq redrive --dry-run")
    if sums.foreign_items:
        context.note(f"  {count(sums.foreign_items, 'item')} of other buckets, left alone.")
    if report.queued:
        context.note(f"  The metadata queue holds {count(report.queued, 'message')}, which may bring what is missing.")
    if report.total:
        found = ", ".join(
            f"{number:,} {kind.lower().replace('_', ' ')}" for kind, number in report.findings.items() if number
        )
        context.note(f"{count(report.total, 'finding')}: {found}.")
        if limit and report.total > limit:
            context.note(f"  The first {limit:,} are printed; all with --limit 0.")
        if not repair:
            planned = f" ({in_words(plan)})" if plan.invocations else " --delete-orphans"
            context.note(f"Repair: imgpipe reconcile --repair{planned}")


def _repair(
    context: Context,
    checkpoint: "Checkpoint",
    stores: "Stores",
    plan: "Estimate",
    repairs: Any,
    most: int,
    rate: float,
    *,
    yes: bool,
) -> "Repaired | None":
    from pipeline_cli.pipeline.reconciling.accounting import Repair
    from pipeline_cli.pipeline.reconciling.checkpoint import Phase
    from pipeline_cli.pipeline.reconciling.repair import carry_out, pending

    waiting = checkpoint.repairs()
    if orphans := 0 if Repair.DELETE_THUMBNAIL in repairs else waiting[Repair.DELETE_THUMBNAIL]:
        context.note(f"{count(orphans, 'thumbnail')} of nothing kept; --delete-orphans deletes them.")
    if not plan.invocations and not plan.thumbnails_deleted:
        return None
    checkpoint.phase = Phase.REPAIRING
    context.confirm(f"Repair ({in_words(plan)})?", yes=yes)
    context.announce(f"Repairing: {in_words(plan)}")
    with status(context) as say:
        sent = 0

        def done(accepted: "Sequence[Work]") -> None:
            nonlocal sent
            checkpoint.done(one.number for one in accepted)
            sent += len(accepted)
            say(f"Repairing: {sent:,} of {plan.invocations + plan.thumbnails_deleted:,}")

        repaired = carry_out(
            pending(lambda after, limit: checkpoint.work(repairs, after, limit)),
            context.clients.lambda_,
            context.deployment.processor_function,
            stores,
            most=most,
            rate=rate,
            monotonic=time.monotonic,
            sleep=context.sleep,
            done=done,
        )
    left = sum(checkpoint.repairs()[one] for one in repairs)
    context.note(f"{count(repaired.sent, 'repair')} accepted" + (f"; {left:,} left: run it again." if left else "."))
    if not left:
        checkpoint.phase = Phase.JUDGED
        context.note("When they are through, see that all agree: imgpipe reconcile")
    return repaired


@contextmanager
def _progress(context: Context) -> "Iterator[Progress]":
    """Says how much was listed, then how much was judged."""
    from pipeline_cli.pipeline.reconciling.reconcile import Progress

    rows: Counter[Store] = Counter()
    images = 0
    with status(context) as say:

        def listed(store: "Store", number: int) -> None:
            rows[store] += number
            say("Listing: " + ", ".join(f"{total:,} {name}" for name, total in sorted(rows.items())))

        def judged(number: int) -> None:
            nonlocal images
            images += number
            say(f"Comparing: {images:,} images")

        yield Progress(listed, judged)


def _time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
