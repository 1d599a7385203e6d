import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from pipeline_cli.cli import App
from pipeline_cli.commands.repairing import count, in_words, status, stores_of
from pipeline_cli.context import Context
from pipeline_cli.errors import NotFoundError, SomeFailedError, UsageError
from pipeline_cli.moments import HELP as MOMENT
from pipeline_cli.moments import moment
from pipeline_cli.output import Column
from pipeline_contract.item import Status

if TYPE_CHECKING:
    from pipeline_cli.pipeline.queries import Criteria
    from pipeline_cli.pipeline.reconciling.checkpoint import Work
    from pipeline_cli.pipeline.reconciling.listings import Stores
    from pipeline_cli.pipeline.reconciling.repair import Estimate, Repaired

app = App()

_COLUMNS = (Column("key", "Image"), Column("imageId", "Id"))


@dataclass(frozen=True, slots=True)
class _Result:
    """What is printed in the end."""

    selected: int
    sent: int
    failed: int
    reason: str | None
    left: int
    estimate: Any


@app.command()
def reprocess(
    ctx: typer.Context,
    images: list[str] = typer.Argument(None, metavar="[KEY|ID]...", help="Keys, image ids or s3:// addresses."),
    all_: bool = typer.Option(False, "--all", help="Every image."),
    outdated: bool = typer.Option(
        False, "--outdated", help="Those whose thumbnails have not the sizes and format that are made now."
    ),
    name: str = typer.Option(None, metavar="GLOB", help="Whose key, or its last part, fits."),
    image_format: str = typer.Option(None, "--format", metavar="NAME", help="Of this format: JPEG, PNG ..."),
    image_status: Status = typer.Option(None, "--status", case_sensitive=False, help="COMPLETED or FAILED."),
    since: str = typer.Option(None, metavar="TIME", help=f"Uploaded at or after: {MOMENT}"),
    until: str = typer.Option(None, metavar="TIME", help="Uploaded at or before."),
    where: str = typer.Option(None, metavar="EXPR", help='A condition on fields: "width > 4000".'),
    dry_run: bool = typer.Option(False, "--dry-run", "-n", help="Only list them, and say what it would cost."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    most: int = typer.Option(10_000, "--max", metavar="N", min=1, help="At most so many in one run."),
    rate: float = typer.Option(20.0, metavar="N", min=0.1, help="At most so many a second."),
) -> None:
    """Process chosen images once more.

    After a change of size or format, say.

    An item keeps its place in the order of events: what was overwritten or deleted meanwhile stays so. A run that was
    stopped goes on with --outdated: what was made again is not outdated any more.

    \b
    imgpipe reprocess photos/beach.jpg
    imgpipe reprocess --outdated --dry-run
    imgpipe reprocess --outdated --yes --max 100000 --rate 50
    imgpipe reprocess --status failed --where "errorCode == 'PIXEL_LIMIT'"
    """
    from pipeline_cli.pipeline.queries import Criteria, item_condition
    from pipeline_cli.pipeline.reconciling.reconcile import check_apart
    from pipeline_cli.pipeline.reconciling.repair import Repaired, estimate
    from pipeline_cli.pipeline.reconciling.reprocess import function_of, work_of

    context: Context = ctx.obj
    now = context.now()
    criteria = Criteria(
        since=moment(since, now) if since else None,
        until=moment(until, now) if until else None,
        status=image_status,
        format=image_format,
        name=name,
        where=item_condition(where) if where else None,
    )
    if not (images or all_ or outdated or criteria != Criteria()):
        raise UsageError("No images were chosen.", "Name them, or choose with --outdated, --name, --since or --all.")
    stores = stores_of(context)
    check_apart(stores)
    function = function_of(context.clients.lambda_, context.deployment.processor_function)
    items = _items(context, images, criteria)
    fits: Callable[[Any], bool] = function.thumbnails.outdated if outdated else lambda _: True

    def work() -> "Iterator[Work]":
        return work_of(items(), stores, fits)

    chosen = ({"key": one.key, "imageId": one.image_id} for one in work())
    selected = context.out.rows(chosen, _COLUMNS, empty="No images.") if dry_run else sum(1 for _ in chosen)
    plan = estimate(min(most, selected), 0, function.memory_mb, rate)
    context.note(f"{count(selected, 'image')} chosen: {in_words(plan)}.")
    if dry_run:
        return
    came = _send(context, stores, work(), plan, most=most, rate=rate, yes=yes) if selected else Repaired(0, 0)
    left = max(0, selected - came.sent)
    context.out.record(_Result(selected, came.sent, came.failed, came.reason, left, plan))
    if came.failed:
        raise SomeFailedError(
            f"{count(came.failed, 'invocation')} not accepted: {came.reason}", "Mend that: imgpipe doctor"
        )
    if left:
        context.note(f"{count(left, 'image')} left (--max {most:,}).")


def _send(
    context: Context,
    stores: "Stores",
    work: "Iterator[Work]",
    plan: "Estimate",
    *,
    most: int,
    rate: float,
    yes: bool,
) -> "Repaired":
    from pipeline_cli.pipeline.reconciling.repair import carry_out

    context.confirm(f"Reprocess ({in_words(plan)})?", yes=yes)
    context.announce(f"Reprocessing: {in_words(plan)}")
    sent = 0
    with status(context) as say:

        def done(accepted: "Sequence[Work]") -> None:
            nonlocal sent
            sent += len(accepted)
            say(f"Reprocessing: {sent:,} of {plan.invocations:,}")

        return carry_out(
            work,
            context.clients.lambda_,
            context.deployment.processor_function,
            stores,
            most=most,
            rate=rate,
            monotonic=time.monotonic,
            sleep=context.sleep,
            done=done,
        )


def _items(context: Context, images: Sequence[str], criteria: "Criteria") -> Callable[[], Iterable[Any]]:
    """What gives the items that are meant, each time anew; NotFoundError for a named image that has none."""
    from pipeline_cli.pipeline import metadata, queries
    from pipeline_cli.pipeline.references import reference

    dynamodb, table = context.clients.dynamodb, context.deployment.table
    if images:
        wanted = [reference(image, context.deployment.upload_bucket) for image in images]
        found = metadata.get_many(dynamodb, table, [one.image_id for one in wanted])
        if missing := [one.label for one in wanted if one.image_id not in found]:
            raise NotFoundError(
                f"There is no item of {', '.join(missing)}.", "What was never processed is found by: imgpipe reconcile"
            )
        return lambda: filter(criteria.matches, found.values())
    # By an index where one answers for all time; it goes back a while only, when no --since says how far.
    indexed = criteria.since is not None or criteria.status is Status.FAILED
    plan = queries.plan(criteria, context.now(), shards=context.deployment.upload_day_shards, scan=not indexed)
    return lambda: metadata.run(dynamodb, table, plan, criteria, metadata.Cost())
