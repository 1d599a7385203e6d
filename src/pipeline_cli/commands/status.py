from collections.abc import Iterator

import typer

from pipeline_cli.cli import App
from pipeline_cli.commands.dlq_common import queues
from pipeline_cli.context import Context
from pipeline_cli.errors import ExitCode, UnhealthyError
from pipeline_cli.output import Column, Format
from pipeline_cli.pipeline.watching import health
from pipeline_cli.pipeline.watching.health import Health, Parts

app = App()

COLUMNS = (
    Column("at", "Time"),
    Column("uploadedLastHour", "Uploaded in the last hour", right=True),
    Column("needsAttention", "Failed images", right=True),
    Column("waiting", "Metadata waiting", right=True),
    Column("dead", "Dead letters", right=True),
    Column("problems", "Problems"),
)


@app.command()
def status(
    ctx: typer.Context,
    watch: bool = typer.Option(False, "-w", "--watch", help="Go on, until Ctrl-C."),
    interval: float = typer.Option(2.0, min=0.5, metavar="SECONDS", help="With --watch: how often."),
) -> None:
    """Show how the pipeline is: queues, failures, alarms.

    Exit code 6 when something is wrong.

    \b
    imgpipe status
    imgpipe status --watch
    imgpipe status --output json
    """
    context: Context = ctx.obj
    if watch:
        _watch(context, interval)
        raise typer.Exit(ExitCode.INTERRUPTED)
    seen = _look(context)
    if context.out.format is Format.TABLE:
        context.out.record(_lines(seen))
    elif context.out.format in (Format.JSON, Format.JSONL):
        context.out.record(seen)
    else:
        context.out.rows([_row(seen)], COLUMNS)
    if seen.problems:
        raise UnhealthyError("; ".join(seen.problems))


def _look(context: Context) -> Health:
    deployment, clients = context.deployment, context.clients
    parts = Parts(
        deployment.table,
        deployment.metadata_queue_url,
        queues(context),
        deployment.processor_function,
        deployment.writer_function,
        deployment.name_prefix,
        deployment.upload_day_shards,
    )
    return health.look(clients.sqs, clients.dynamodb, clients.lambda_, clients.cloudwatch, parts, now=context.now())


def _watch(context: Context, interval: float) -> None:
    def ticks() -> Iterator[Health]:
        while True:
            yield _look(context)
            context.out.flush()
            context.sleep(interval)

    try:
        if context.out.format is Format.TABLE:
            from rich.live import Live

            with Live(console=context.out.console, auto_refresh=False) as live:
                for seen in ticks():
                    live.update(context.out.grid(_lines(seen)), refresh=True)
        elif context.out.format in (Format.JSON, Format.JSONL):
            context.out.rows(ticks(), COLUMNS)
        else:
            context.out.rows(map(_row, ticks()), COLUMNS)
    except KeyboardInterrupt:
        return


def _row(seen: Health) -> dict[str, object]:
    return {
        "at": seen.at,
        "uploadedLastHour": seen.uploaded_last_hour,
        "needsAttention": seen.needs_attention,
        "waiting": sum(depth.waiting + depth.in_flight for depth in seen.queues if depth.queue == "metadata"),
        "dead": sum(depth.waiting + depth.in_flight for depth in seen.queues if depth.queue != "metadata"),
        "problems": "; ".join(seen.problems),
    }


def _lines(seen: Health) -> dict[str, str]:
    """What people read."""
    failed = f"{seen.needs_attention}: imgpipe meta query --status failed" if seen.needs_attention else "none"
    return {
        "time": f"{seen.at:%Y-%m-%d %H:%M:%S} UTC",
        "uploaded": f"{seen.uploaded_last_hour} in the last hour",
        "failed images": failed,
        **{depth.queue: f"{depth.waiting} waiting, {depth.in_flight} being read" for depth in seen.queues},
        **{one.name: f"{one.state}, last update {one.last_update}" for one in seen.functions},
        "feed of db_writer": seen.writer_mapping,
        "alarms": ", ".join(seen.alarms_ringing) or "none rings",
        "verdict": "; ".join(seen.problems) or "all well",
    }
