from collections.abc import Callable
from enum import StrEnum

import typer

from pipeline_cli.cli import App
from pipeline_cli.commands.log_lines import print_lines
from pipeline_cli.context import Context
from pipeline_cli.errors import ExitCode, UsageError
from pipeline_cli.moments import HELP as MOMENT
from pipeline_cli.moments import duration, moment
from pipeline_cli.output import Column, Format
from pipeline_cli.pipeline import log_events
from pipeline_cli.pipeline.log_events import Group, OfImage, Tally
from pipeline_cli.pipeline.references import reference

app = App()

DEFAULT_SINCE = "10m"
COLUMNS = (
    Column("time", "Time"),
    Column("function", "Function"),
    Column("level", "Level"),
    Column("key", "Image"),
    Column("message", "Message"),
)


class Which(StrEnum):
    PROCESSOR = "processor"
    WRITER = "writer"
    ALL = "all"


@app.command()
def logs(
    ctx: typer.Context,
    which: Which = typer.Argument(Which.ALL, metavar="[processor|writer|all]", help="Whose log."),
    follow: bool = typer.Option(False, "-f", "--follow", help="Go on as new events come."),
    since: str = typer.Option(None, metavar="TIME", help=f"From: {MOMENT} [default: {DEFAULT_SINCE}]"),
    until: str = typer.Option(None, metavar="TIME", help="To; in the past, or with --follow in the future: 'in 5m'."),
    pattern: str = typer.Option("", "--filter", metavar="PATTERN", help="A CloudWatch Logs filter pattern."),
    image: str = typer.Option(None, metavar="KEY|ID", help="The lines that speak of one image."),
    errors: bool = typer.Option(False, "--errors", help="Errors alone: failures, time-outs, crashes."),
    until_idle: float = typer.Option(
        None, metavar="SECONDS", min=0, help="Follow, and end when nothing came for so long."
    ),
) -> None:
    """Print the log lines of both functions in order of time.

    With --follow none is missed and none repeated, however late and out of order CloudWatch makes them readable.

    \b
    imgpipe logs --follow
    imgpipe logs processor --since 2h --errors
    imgpipe logs --image photos/beach.jpg --since 1d
    imgpipe logs --until-idle 10 --output jsonl | jq .message
    """
    context: Context = ctx.obj
    now = context.now()
    start = moment(since or DEFAULT_SINCE, now).timestamp()
    end = _end(until, now)
    if end is not None and end < start:
        raise UsageError("--until is before --since.")
    following = follow or until_idle is not None
    if end is not None and end > now and not following:
        raise UsageError("--until lies in the future.", "Add --follow to wait for what comes until then.")
    groups = _groups(context, which)
    tally = Tally()
    wanted = reference(image, context.deployment.upload_bucket).image_id if image else None
    last = now if end is None else end
    if following:
        events = log_events.follow(
            context.clients.logs,
            groups,
            since=start,
            now=context.now,
            sleep=_flushing(context),
            pattern=pattern,
            until=end,
            until_idle=until_idle,
            tally=tally,
        )
    elif wanted and not pattern:
        events = log_events.about(context.clients.logs, groups, wanted, since=start, until=last)
    else:
        events = log_events.history(context.clients.logs, groups, since=start, until=last, pattern=pattern)
    if wanted and (following or pattern):
        events = filter(OfImage(wanted), events)
    if errors:
        events = (event for event in events if event.failed)
    shown = print_lines(context, events) if context.out.format is Format.TABLE else context.out.rows(events, COLUMNS)
    if following:
        context.note(f"{tally.events} events, {tally.late} came late, {tally.swept} found by the last look.")
        if tally.interrupted:
            raise typer.Exit(ExitCode.INTERRUPTED)
    elif not shown:
        context.note(f"No log lines since {since or DEFAULT_SINCE}.")


def _end(until: str | None, now: float) -> float | None:
    """`--until`: a moment, or how far ahead (`in 5m`)."""
    if until is None:
        return None
    if until.startswith("in "):
        return now + duration(until.removeprefix("in "))
    return moment(until, now).timestamp()


def _groups(context: Context, which: Which) -> list[Group]:
    deployment = context.deployment
    functions = {Which.PROCESSOR: deployment.processor_function, Which.WRITER: deployment.writer_function}
    return [
        Group(one, deployment.log_group(function)) for one, function in functions.items() if which in (one, Which.ALL)
    ]


def _flushing(context: Context) -> Callable[[float], None]:
    """A sleep before which the lines that were written reach their reader."""

    def sleep(seconds: float) -> None:
        context.out.flush()
        context.sleep(seconds)

    return sleep
