from collections.abc import Iterable
from typing import Any

import typer

from pipeline_cli.cli import App
from pipeline_cli.commands.dlq_archive import archive, purge, restore
from pipeline_cli.commands.dlq_common import (
    CLASS,
    CODE,
    KEY,
    MESSAGE,
    STAGE,
    ago,
    groups,
    messages,
    read,
    selecting,
    settled,
)
from pipeline_cli.commands.dlq_redrive import redrive
from pipeline_cli.commands.log_lines import print_lines
from pipeline_cli.context import Context
from pipeline_cli.errors import NotFoundError
from pipeline_cli.output import Column, Format, to_json
from pipeline_cli.pipeline.dead_letters import reasons
from pipeline_cli.pipeline.dead_letters.messages import DeadLetter, original
from pipeline_cli.pipeline.dead_letters.queues import Selection, fields_of
from pipeline_cli.pipeline.dead_letters.redrive import refusal

app = App(
    no_args_is_help=True,
    help="""See and repair what failed: the dead-letter queues.

    \b
    imgpipe dlq list --group
    imgpipe dlq redrive --dry-run
    """,
)

GROUP_COLUMNS = (
    Column("count", "Count", right=True),
    CLASS,
    CODE,
    STAGE,
    Column("redrivable", "Redrivable", right=True, wide=True),
    Column("example", "For example", wide=True),
    Column("hint", "What to do"),
)


@app.command("list")
@selecting
def list_(
    ctx: typer.Context,
    selection: Selection,
    group: bool = typer.Option(False, "--group", help="One row per reason, with how many and what to do."),
    why: bool = typer.Option(False, "--why", help="Find reasons that messages do not tell in the functions' logs."),
    limit: int = typer.Option(0, min=0, metavar="N", help="Stop reading after so many; 0 reads all."),
) -> None:
    """List what failed and why. The messages stay where they are, and visible.

    \b
    imgpipe dlq list
    imgpipe dlq list --group
    imgpipe dlq list --class transient --since 1d --output json
    """
    context: Context = ctx.obj
    listing = read(context, selection, limit or None)
    letters = listing.letters
    if why and any(map(reasons.unexplained, letters)):
        letters = tuple(reasons.explain_all(context.clients.logs, groups(context), letters, now=context.now()))
    over = settled(context, letters)
    empty = "None such."
    if selection.everything:
        hidden = "None can be read now: try again in a minute."
        empty = hidden if listing.elsewhere else "Nothing failed: the dead-letter queues are empty."
    if group:
        context.out.rows(_groups(letters), GROUP_COLUMNS, empty=empty)
    else:
        rows = [{**fields_of(letter), "settled": over.get(letter.message_id)} for letter in letters]
        context.out.rows(rows, _columns(context, settled=bool(over)), empty=empty)
    if over:
        context.note(f"{messages(len(over))} settled since, with nothing to repair: imgpipe dlq archive --id MESSAGE")
    open_ = [letter for letter in letters if letter.message_id not in over]
    if fixable := sum(1 for letter in open_ if refusal(letter, force=False) is None):
        context.note(f"{messages(fixable)} can be redriven: imgpipe dlq redrive --dry-run")


@app.command()
@selecting
def show(
    ctx: typer.Context,
    selection: Selection,
    log: bool = typer.Option(True, help="With the log lines about the image, around its failure."),
    limit: int = typer.Option(10, "-n", "--limit", min=1, help="At most so many messages."),
) -> None:
    """Show everything about dead letters: the reason, the original, the log lines.

    \b
    imgpipe dlq show --id 0b1c2d3e
    imgpipe dlq show --key 'photos/*' --output json
    """
    context: Context = ctx.obj
    letters = read(context, selection, limit).letters
    if not letters:
        raise NotFoundError("No such dead letter.", "See them all: imgpipe dlq list")
    for number, letter in enumerate(letters):
        lines = []
        if log:
            lines = reasons.lines_about(context.clients.logs, groups(context), letter, now=context.now())
        if reasons.unexplained(letter):
            letter = reasons.explained(letter, lines)  # the same letter, better known
        if number:
            context.out.separate()
        known = {**fields_of(letter), "redrivable": refusal(letter, force=False) or "yes"}
        if context.out.format is Format.TABLE:
            context.out.record(known)
            context.out.console.print(to_json(original(letter), indent=2), style="dim")
            print_lines(context, lines)
        else:
            said = [
                {"time": line.time, "function": line.function, "level": line.level, "message": line.message}
                for line in lines
            ]
            context.out.record({**known, "original": original(letter), "log": said})


app.command()(selecting(redrive))
app.command()(selecting(archive))
app.command()(restore)
app.command()(selecting(purge))


def _columns(context: Context, *, settled: bool) -> tuple[Column, ...]:
    """A table for people has the column of what was settled since only when something was."""
    since = Column("settled", "Since then", show=lambda outcome: str(outcome or ""))
    shown = settled or context.out.format is not Format.TABLE
    return (
        KEY,
        CLASS,
        CODE,
        Column("message", "Says"),
        STAGE,
        Column("failedAt", "Age", right=True, show=ago(context), whole=True),
        Column("attempts", "Tries", right=True, wide=True),
        Column("receives", "Reads", right=True, wide=True),
        MESSAGE,
        *((since,) if shown else ()),
    )


def _groups(letters: Iterable[DeadLetter]) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], list[DeadLetter]] = {}
    for letter in letters:
        found.setdefault((letter.class_, letter.code, letter.stage), []).append(letter)
    rows = [
        {
            "count": len(members),
            "class": failure_class,
            "code": code,
            "stage": stage,
            "redrivable": sum(1 for letter in members if refusal(letter, force=False) is None),
            "example": members[-1].key or members[-1].message_id,
            "hint": members[-1].hint,
        }
        for (failure_class, code, stage), members in found.items()
    ]
    return sorted(rows, key=lambda row: -row["count"])
