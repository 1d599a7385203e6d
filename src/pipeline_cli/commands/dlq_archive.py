from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import typer

from pipeline_cli.commands.dlq_common import (
    CODE,
    KEY,
    MESSAGE,
    STAGE,
    archive_file,
    messages,
    none_readable,
    queues,
    read,
    say_hidden,
)
from pipeline_cli.context import Context
from pipeline_cli.errors import SomeFailedError, UsageError
from pipeline_cli.output import Column
from pipeline_cli.pipeline.dead_letters import archives, disposal
from pipeline_cli.pipeline.dead_letters.archives import Archive
from pipeline_cli.pipeline.dead_letters.disposal import Disposed, Fate
from pipeline_cli.pipeline.dead_letters.messages import dead_letter
from pipeline_cli.pipeline.dead_letters.queues import Selection, fields_of

_STYLES = {"removed": "green", "copied": "green", "restored": "green", "failed": "red", "taken": "yellow"}
ACTION = Column("action", "Action", style=lambda action: _STYLES.get(str(action), ""))
COLUMNS = (ACTION, KEY, CODE, STAGE, MESSAGE)

YES = typer.Option(False, "--yes", "-y", help="Do not ask.")
DRY_RUN = typer.Option(False, "--dry-run", "-n", help="Only say what would be done.")


def archive(
    ctx: typer.Context,
    selection: Selection,
    to: Path = typer.Option(None, metavar="FILE", help="The file, appended to. [default: a new one, imgpipe's own]"),
    keep: bool = typer.Option(False, "--keep", help="Leave the messages in their queues."),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
) -> None:
    """Move dead letters into a file, from which they can be restored.

    \b
    imgpipe dlq archive --class permanent --to failed.jsonl
    imgpipe dlq archive --keep --to copy.jsonl
    """
    context: Context = ctx.obj
    file = to or archive_file(context, "archive")
    agreed = _agreed(context, selection, "Move", dry_run=dry_run, yes=yes or keep)
    if agreed is not None and not agreed:
        return
    hidden: list[int] = []
    steps = list(
        disposal.dispose(
            context.clients.sqs,
            queues(context),
            selection,
            archive=Archive(file, context.now()),
            action="archive",
            keep=keep,
            only=agreed,
            hidden=hidden.append,
        )
    )
    _report(context, steps)
    context.note(f"Archive: {file}" if steps else "Nothing to archive: no file was written.")
    _judge(context, steps, sum(hidden))


def purge(
    ctx: typer.Context,
    selection: Selection,
    no_archive: bool = typer.Option(False, "--no-archive", help="Keep no copy: they are gone."),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
) -> None:
    """Delete dead letters; a safety copy stays on this machine.

    \b
    imgpipe dlq purge --class permanent --dry-run
    imgpipe dlq purge --key 'test/*' --yes
    """
    context: Context = ctx.obj
    agreed = _agreed(context, selection, "Delete", dry_run=dry_run, yes=yes)
    if agreed is not None and not agreed:
        return
    place = None if no_archive else Archive(archive_file(context, "purge"), context.now())
    hidden: list[int] = []
    steps = list(
        disposal.dispose(
            context.clients.sqs,
            queues(context),
            selection,
            archive=place,
            action="purge",
            only=agreed,
            hidden=hidden.append,
        )
    )
    _report(context, steps)
    if steps and place is not None:
        context.note(f"Safety copy: {place.file}. Bring them back: imgpipe dlq restore FILE")
    _judge(context, steps, sum(hidden))


def restore(
    ctx: typer.Context,
    file: Path = typer.Argument(..., metavar="FILE", help="An archive."),
    dry_run: bool = DRY_RUN,
) -> None:
    """Put archived dead letters back into their queues.

    \b
    imgpipe dlq restore failed.jsonl --dry-run
    imgpipe dlq restore failed.jsonl
    """
    context: Context = ctx.obj
    if not file.exists():
        raise UsageError(f"There is no file {file}.", f"imgpipe's own copies: ls {archive_file(context, '').parent}")
    archived = list(archives.load(file))
    if dry_run:
        rows = [{"action": "would restore", **fields_of(dead_letter(one.raw, one.queue))} for one in archived]
        context.out.rows(rows, COLUMNS, empty="The archive is empty.")
        return
    context.announce(f"Restoring {messages(len(archived))}")
    done = list(disposal.restore(context.clients.sqs, queues(context), archived))
    rows = [
        {
            "action": "restored" if one.reason is None else "failed",
            "reason": one.reason,
            **fields_of(dead_letter(one.archived.raw, one.archived.queue)),
        }
        for one in done
    ]
    context.out.rows(rows, (*COLUMNS, Column("reason", "Because")), empty="The archive is empty.")
    if failed := sum(1 for one in done if one.reason is not None):
        raise SomeFailedError(
            f"{messages(failed)} of {len(done)} could not be restored.", "They are still in the file."
        )


def _agreed(context: Context, selection: Selection, verb: str, *, dry_run: bool, yes: bool) -> frozenset[str] | None:
    """The messages that the operator agreed to; none after a dry run, None when no question had to be asked."""
    if yes and not dry_run:
        context.announce(f"{verb.rstrip('e')}ing dead letters")
        return None
    listing = read(context, selection)
    letters = listing.letters
    if dry_run or not letters:
        _report(context, [Disposed(letter, Fate.WOULD_REMOVE) for letter in letters])
        if not dry_run and listing.elsewhere:
            raise none_readable(listing.elsewhere)
        if not letters:
            context.note(f"Nothing to {verb.lower()}.")
        return frozenset()
    for (stage, code), number in Counter((one.stage, one.code or one.shape) for one in letters).items():
        context.note(f"  {number} of {stage}, {code}")
    context.confirm(f"{verb} {messages(len(letters))}?", yes=False)
    context.announce(f"{verb.rstrip('e')}ing dead letters")
    return frozenset(letter.message_id for letter in letters)


def _report(context: Context, steps: Iterable[Disposed]) -> None:
    rows = [{"action": step.fate, **fields_of(step.letter)} for step in steps]
    context.out.rows(rows, COLUMNS, empty="None such.")


def _judge(context: Context, steps: list[Disposed], hidden: int) -> None:
    if hidden and not steps:
        raise none_readable(hidden)
    say_hidden(context, hidden)
    if failed := sum(1 for step in steps if step.fate is Fate.FAILED):
        raise SomeFailedError(f"SQS did not delete {messages(failed)}.", "They are archived and still in the queue.")
