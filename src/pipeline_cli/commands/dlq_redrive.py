from collections import Counter
from pathlib import Path

import typer

from pipeline_cli.commands.dlq_common import (
    CODE,
    KEY,
    MESSAGE,
    SETTLED,
    STAGE,
    archive_file,
    messages,
    none_readable,
    queues,
    read,
    say_hidden,
    settled,
)
from pipeline_cli.context import Context
from pipeline_cli.errors import SomeFailedError, UsageError, WaitTimeoutError
from pipeline_cli.moments import duration
from pipeline_cli.output import Column
from pipeline_cli.pipeline.dead_letters import following
from pipeline_cli.pipeline.dead_letters import redrive as redriving
from pipeline_cli.pipeline.dead_letters.archives import Archive
from pipeline_cli.pipeline.dead_letters.following import Followed
from pipeline_cli.pipeline.dead_letters.messages import DeadLetter
from pipeline_cli.pipeline.dead_letters.queues import Selection, fields_of
from pipeline_cli.pipeline.dead_letters.redrive import Action, Redriven, Targets
from pipeline_cli.pipeline.outcomes import FINE, Outcome
from pipeline_contract.failures import Stage

_STYLES = {
    "redriven": "green",
    "would redrive": "green",
    "refused": "yellow",
    "failed": "red",
    "COMPLETED": "green",
    "DEAD_LETTERED": "red",
    "IN_FLIGHT": "yellow",
}
COLUMNS = (
    Column("action", "Action", style=lambda action: _STYLES.get(str(action), "")),
    KEY,
    CODE,
    Column("reason", "Because"),
    STAGE,
    MESSAGE,
)
WAITED = (COLUMNS[0], Column("outcome", "Outcome", style=lambda outcome: _STYLES.get(str(outcome), "")), *COLUMNS[1:])


def redrive(
    ctx: typer.Context,
    selection: Selection,
    dry_run: bool = typer.Option(False, "--dry-run", "-n", help="Only say what would be done."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    force: bool = typer.Option(False, "--force", help="Permanent failures too, and those redriven often."),
    wait: bool = typer.Option(False, "--wait", help="Wait for what becomes of each image."),
    timeout: str = typer.Option("5m", metavar="TIME", help="How long --wait waits."),
    rate: float = typer.Option(None, metavar="N", min=0.1, help="At most so many a second."),
    native: bool = typer.Option(
        False, "--native", help="Let SQS move all of the writer's messages itself (no copy, no refusal)."
    ),
    archive: Path = typer.Option(None, metavar="FILE", help="Where the safety copy goes. [default: imgpipe's own]"),
) -> None:
    """Send what failed back to where it failed; without a selection, all of it.

    Each message is copied to a file, sent, and only then deleted from its queue. Permanent failures are left alone:
    they would fail again. Exit code 1 when nothing else was there.

    \b
    imgpipe dlq redrive --dry-run
    imgpipe dlq redrive --code timeout --yes --wait
    imgpipe dlq redrive --key '2026/*' --rate 5
    imgpipe dlq redrive --id 0b1c --force
    """
    context: Context = ctx.obj
    if native:
        _native(context, selection, yes=yes, rate=rate)
        return
    patience = duration(timeout)
    agreed: frozenset[str] | None = None
    if dry_run or not yes:
        listing = read(context, selection)
        plan = [_planned(letter, force=force) for letter in listing.letters]
        going = [step.letter for step in plan if step.action is Action.WOULD_REDRIVE]
        if dry_run or not going:
            over = settled(context, listing.letters)
            _report(context, plan, over)
            if not dry_run:
                _judge(plan, {}, over, listing.elsewhere)
            return
        _say_plan(context, plan)
        context.confirm(f"Redrive {messages(len(going))}?", yes=yes)
        agreed = frozenset(letter.message_id for letter in going)
    context.announce("Redriving")
    deployment, clients = context.deployment, context.clients
    place = Archive(archive or archive_file(context, "redrive"), context.now())
    started = context.now()
    hidden: list[int] = []
    steps = redriving.redrive(
        clients.sqs,
        queues(context),
        Targets(clients.lambda_, deployment.processor_function, deployment.metadata_queue_url),
        selection,
        archive=place,
        sleep=context.sleep,
        force=force,
        rate=rate,
        only=agreed,
        hidden=hidden.append,
    )
    done: list[Redriven] = []
    try:
        for step in steps:
            done.append(step)  # noqa: PERF402  # kept when the next one is interrupted
        followed = _follow(context, done, started, patience) if wait else None
    except BaseException:
        _say_what_was_done(context, done, place)
        raise
    over = settled(context, [step.letter for step in done])
    _report(context, done, over, followed)
    _say_copy(context, done, place)
    say_hidden(context, sum(hidden))
    _judge(done, followed or {}, over, sum(hidden))


def _say_what_was_done(context: Context, done: list[Redriven], place: Archive) -> None:
    """Of a redrive that was interrupted, by Ctrl-C or an error."""
    if done:
        _report(context, done, {})
    else:
        context.note("Nothing was redriven yet.")
    _say_copy(context, done, place)
    context.note("What was not sent is still in its queue. Go on with the same command: imgpipe dlq redrive ...")


def _say_copy(context: Context, done: list[Redriven], place: Archive) -> None:
    if any(step.action in (Action.REDRIVEN, Action.DUPLICATE, Action.INTERRUPTED) for step in done):
        context.note(f"Safety copy: {place.file}")


def _native(context: Context, selection: Selection, *, yes: bool, rate: float | None) -> None:
    if selection not in (Selection(), Selection(stage=Stage.DB_WRITER)):
        raise UsageError("--native moves all of the writer's messages: it knows no selection.")
    context.confirm("Let SQS move every message of the metadata dead-letter queue back?", yes=yes)
    context.announce("Redriving")
    deployment = context.deployment
    handle = redriving.native_move(
        context.clients.sqs, deployment.metadata_dlq_url, deployment.metadata_queue_url, rate
    )
    context.note("SQS moves them by itself from now on.")
    context.out.record({"taskHandle": handle})


def _follow(context: Context, done: list[Redriven], started: float, timeout: float) -> dict[str, Followed]:
    sent = [step.letter for step in done if step.action in (Action.REDRIVEN, Action.DUPLICATE)]
    if sent:
        context.note(f"Waiting for {len(sent)} images ...")
    outcomes = following.follow(
        context.clients.sqs,
        queues(context),
        context.clients.dynamodb,
        context.deployment.table,
        sent,
        started=started,
        now=context.now,
        sleep=context.sleep,
        timeout=timeout,
    )
    return {one.letter.message_id: one for one in outcomes}


def _planned(letter: DeadLetter, *, force: bool) -> Redriven:
    reason = redriving.refusal(letter, force=force)
    return Redriven(letter, Action.WOULD_REDRIVE if reason is None else Action.REFUSED, reason or "")


def _say_plan(context: Context, plan: list[Redriven]) -> None:
    counted = Counter((step.action, step.letter.stage, step.letter.code or step.letter.shape) for step in plan)
    for (action, stage, code), number in sorted(counted.items()):
        context.note(f"  {action}: {number} of {stage}, {code}")


def _report(
    context: Context,
    steps: list[Redriven],
    over: dict[str, Outcome],
    followed: dict[str, Followed] | None = None,
) -> None:
    sent = {step.letter.message_id for step in steps if step.action in (Action.REDRIVEN, Action.DUPLICATE)}
    back = {step.twin: step.letter for step in steps if step.action is Action.RETURNED and step.twin in sent}
    rows = []
    for step in steps:
        if step.twin in sent:
            continue  # its twin's row says that it is there
        outcome = over.get(step.letter.message_id)
        reason = step.reason
        if step.action in (Action.WOULD_REDRIVE, Action.REFUSED) and outcome is not None:
            reason = f"{SETTLED[outcome]}: nothing to repair"
        elif again := back.get(step.letter.message_id):
            reason = f"in the queue again: {again.code}: {again.message}"
        row = {"action": step.action, "reason": reason, **fields_of(step.letter), "settled": outcome}
        if followed is not None:
            end = followed.get(step.letter.message_id)
            row |= {"outcome": end.outcome if end else None, "reason": (end and end.reason) or reason}
        rows.append(row)
    context.out.rows(rows, COLUMNS if followed is None else WAITED, empty="Nothing to redrive.")
    if steps:
        counted = Counter(str(row["action"]) for row in rows)
        counted["in the queue again"] = len(back)
        counted.update(str(end.outcome) for end in (followed or {}).values())
        context.note(", ".join(f"{number} {what}" for what, number in counted.items() if number) + ".")


def _judge(done: list[Redriven], followed: dict[str, Followed], over: dict[str, Outcome], hidden: int) -> None:
    """The exit code: 1 when a message was not accepted, an image failed again, or all that is to repair was refused;
    5 when an image is still under way."""
    if not done and hidden:
        raise none_readable(hidden)
    refused = [step for step in done if step.action is Action.REFUSED and step.letter.message_id not in over]
    if refused and len(refused) == sum(1 for step in done if step.letter.message_id not in over):
        raise SomeFailedError(
            f"Nothing was redriven: {messages(len(refused))} refused.",
            "See why above: --force tries them all the same, imgpipe dlq archive takes them out.",
        )
    not_sent = sum(1 for step in done if step.action is Action.FAILED)
    if not_sent:
        raise SomeFailedError(
            f"{messages(not_sent)} could not be redriven and stay in the queue.",
            "See why above, mend it, and redrive again.",
        )
    ends = Counter(end.outcome for end in followed.values())
    if again := sum(number for outcome, number in ends.items() if outcome not in (*FINE, Outcome.IN_FLIGHT)):
        raise SomeFailedError(f"{again} of {len(followed)} images failed again.", "See why: imgpipe dlq list")
    if ends[Outcome.IN_FLIGHT]:
        raise WaitTimeoutError(
            f"{ends[Outcome.IN_FLIGHT]} of {len(followed)} images are not done yet.",
            "Wait longer with --timeout, or look: imgpipe logs --follow",
        )
