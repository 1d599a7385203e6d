from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import SomeFailedError
from pipeline_cli.moments import HELP as MOMENT
from pipeline_cli.moments import age, moment
from pipeline_cli.output import Column
from pipeline_cli.paths import data_home
from pipeline_cli.pipeline import dead_letter_queues
from pipeline_cli.pipeline import redrive as redriving
from pipeline_cli.pipeline.archives import Archive
from pipeline_cli.pipeline.dead_letter_queues import Listing, Queue, Selection, fields_of
from pipeline_cli.pipeline.dead_letters import DeadLetter
from pipeline_cli.pipeline.expressions import expression
from pipeline_cli.pipeline.redrive import Action, Redriven, Summary, Targets
from pipeline_contract.failures import FailureClass, FailureCode, Stage

app = App(
    no_args_is_help=True,
    help="""See and repair what failed: the dead-letter queues of both functions.

    \b
    imgpipe dlq list --group
    imgpipe dlq redrive --dry-run
    """,
)

_CLASS_STYLES = {"PERMANENT": "red", "TRANSIENT": "yellow", "CONFIG": "magenta"}
_ACTION_STYLES = {"redriven": "green", "would redrive": "green", "refused": "yellow", "failed": "red"}

STAGE = typer.Option(None, case_sensitive=False, help="Of one function: image_processor or db_writer.")
CODE = typer.Option(None, case_sensitive=False, metavar="CODE", help="With this reason: CORRUPT, TIMEOUT ...")
CLASS = typer.Option(None, "--class", case_sensitive=False, help="PERMANENT, TRANSIENT or CONFIG.")
KEY = typer.Option(None, metavar="GLOB", help="Whose image key fits.")
SINCE = typer.Option(None, metavar="TIME", help=f"Failed at or after: {MOMENT}")
WHERE = typer.Option(None, metavar="EXPR", help="A condition on fields: \"attempts > 2 and code == 'TIMEOUT'\".")
IDS = typer.Option(None, "--id", metavar="ID", help="Message or image id, or how it begins; may be repeated.")
YES = typer.Option(False, "--yes", "-y", help="Do not ask.")
DRY_RUN = typer.Option(False, "--dry-run", "-n", help="Only say what would be done.")
ARCHIVE = typer.Option(None, "--archive", metavar="FILE", help="Where the safety copy goes.")


@app.command("list")
def list_(
    ctx: typer.Context,
    stage: Stage = STAGE,
    code: FailureCode = CODE,
    failure_class: FailureClass = CLASS,
    key: str = KEY,
    since: str = SINCE,
    where: str = WHERE,
    ids: list[str] = IDS,
    group: bool = typer.Option(False, "--group", help="One row per stage and reason, with how many."),
    limit: int = typer.Option(0, min=0, metavar="N", help="Stop reading after so many; 0 reads all."),
) -> None:
    """List what failed and why. The messages stay where they are, and visible.

    \b
    imgpipe dlq list
    imgpipe dlq list --group
    imgpipe dlq list --class transient --since 1d --output json
    """
    context: Context = ctx.obj
    selection = _selection(context, stage, code, failure_class, key, since, where, ids)
    listing = _read(context, selection, limit or None)
    if group:
        context.out.rows(_groups(listing.letters), GROUP_COLUMNS, empty="The dead-letter queues are empty.")
    else:
        rows = (fields_of(letter) for letter in listing.letters)
        context.out.rows(rows, _columns(context), empty="The dead-letter queues are empty.")
    _next(context, listing.letters)


@app.command()
def redrive(
    ctx: typer.Context,
    stage: Stage = STAGE,
    code: FailureCode = CODE,
    failure_class: FailureClass = CLASS,
    key: str = KEY,
    since: str = SINCE,
    where: str = WHERE,
    ids: list[str] = IDS,
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    force: bool = typer.Option(False, "--force", help="Permanent failures too, and those redriven often."),
    rate: float = typer.Option(None, metavar="N", min=0.1, help="At most so many a second."),
    archive: Path = ARCHIVE,
) -> None:
    """Send what failed back to where it failed; without a selection, all of it.

    Each message is copied to a file, sent, and only then deleted from its queue. Permanent failures are left alone:
    they would fail again.

    \b
    imgpipe dlq redrive --dry-run
    imgpipe dlq redrive --code timeout --yes
    imgpipe dlq redrive --key '2026/*' --rate 5
    imgpipe dlq redrive --id 0b1c --force
    """
    context: Context = ctx.obj
    selection = _selection(context, stage, code, failure_class, key, since, where, ids)
    agreed: frozenset[str] | None = None
    if dry_run or not yes:
        letters = _read(context, selection).letters
        plan = [_planned(letter, force=force) for letter in letters]
        going = [step.letter for step in plan if step.action is Action.WOULD_REDRIVE]
        if dry_run or not going:
            _report(context, plan)
            return
        _say_plan(context, plan)
        context.confirm(f"Redrive {_messages(len(going))}?", yes=yes)
        agreed = frozenset(letter.message_id for letter in going)
    context.announce("Redriving")
    place = Archive(archive or _archive_file(context, "redrive"), context.now())
    done = list(
        redriving.redrive(
            context.clients.sqs,
            _queues(context),
            _targets(context),
            selection,
            archive=place,
            sleep=context.sleep,
            force=force,
            rate=rate,
            only=agreed,
        )
    )
    _report(context, done)
    counted = Summary.of(Counter(step.action for step in done))
    if counted.redriven:
        context.note(f"Safety copy: {place.file}")
    if counted.failed:
        raise SomeFailedError(
            f"{_messages(counted.failed)} could not be redriven and stay in the queue.",
            "See why above, mend it (imgpipe doctor), and redrive again.",
        )


def _planned(letter: DeadLetter, *, force: bool) -> Redriven:
    reason = redriving.refusal(letter, force=force)
    return Redriven(letter, Action.WOULD_REDRIVE if reason is None else Action.REFUSED, reason or "")


def _say_plan(context: Context, plan: list[Redriven]) -> None:
    counted = Counter((step.action, step.letter.stage, step.letter.code or step.letter.shape) for step in plan)
    for (action, stage, code), number in sorted(counted.items()):
        context.note(f"  {action}: {number} of {stage}, {code}")


def _report(context: Context, steps: list[Redriven]) -> None:
    rows = [{"action": step.action, "reason": step.reason, **fields_of(step.letter)} for step in steps]
    context.out.rows(rows, STEP_COLUMNS, empty="Nothing to redrive.")
    counted = Counter(step.action for step in steps)
    if steps:
        context.note(", ".join(f"{number} {action}" for action, number in sorted(counted.items())) + ".")


def _selection(
    context: Context,
    stage: Stage | None,
    code: FailureCode | None,
    failure_class: FailureClass | None,
    key: str | None,
    since: str | None,
    where: str | None,
    ids: list[str] | None,
) -> Selection:
    return Selection(
        stage=stage,
        code=code,
        class_=failure_class,
        key=key,
        ids=frozenset(ids or ()),
        since=moment(since, context.now()) if since else None,
        where=expression(where) if where else None,
    )


def _queues(context: Context) -> list[Queue]:
    deployment = context.deployment
    return [
        Queue(Stage.IMAGE_PROCESSOR, deployment.image_dlq_url),
        Queue(Stage.DB_WRITER, deployment.metadata_dlq_url),
    ]


def _targets(context: Context) -> Targets:
    deployment = context.deployment
    return Targets(context.clients.lambda_, deployment.processor_function, deployment.metadata_queue_url)


def _read(context: Context, selection: Selection, limit: int | None = None) -> Listing:
    listing = dead_letter_queues.read(context.clients.sqs, _queues(context), selection, limit=limit)
    if listing.elsewhere:
        context.note(f"{_messages(listing.elsewhere)} more: somebody else is reading them just now.")
    return listing


def _archive_file(context: Context, action: str) -> Path:
    stamp = datetime.fromtimestamp(context.now(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return data_home(context.environ) / "archives" / context.deployment.name / f"{action}-{stamp}.jsonl"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _next(context: Context, letters: Iterable[DeadLetter]) -> None:
    fixable = sum(1 for letter in letters if redriving.refusal(letter, force=False) is None)
    if fixable:
        context.note(f"{_messages(fixable)} can be redriven: imgpipe dlq redrive --dry-run")


def _columns(context: Context) -> tuple[Column, ...]:
    now = context.now()

    def ago(failed_at: Any) -> str:
        return age(now - datetime.fromisoformat(failed_at).timestamp())

    return (
        Column("key", "Image", show=lambda key: str(key or "?")),
        Column("class", "Class", style=lambda name: _CLASS_STYLES.get(str(name), "")),
        Column("code", "Reason", show=lambda code: str(code or "?")),
        Column("message", "Says"),
        Column("stage", "Stage"),
        Column("failedAt", "Age", right=True, show=ago),
        Column("attempts", "Tries", right=True),
        Column("receives", "Reads", right=True),
        Column("messageId", "Message", show=lambda name: str(name)[:8]),
    )


GROUP_COLUMNS = (
    Column("count", "Count", right=True),
    Column("stage", "Stage"),
    Column("class", "Class", style=lambda name: _CLASS_STYLES.get(str(name), "")),
    Column("code", "Reason", show=lambda code: str(code or "?")),
    Column("example", "For example"),
    Column("oldest", "Oldest"),
    Column("hint", "What to do"),
)
STEP_COLUMNS = (
    Column("action", "Action", style=lambda action: _ACTION_STYLES.get(str(action), "")),
    Column("key", "Image", show=lambda key: str(key or "?")),
    Column("code", "Reason", show=lambda code: str(code or "?")),
    Column("reason", "Because"),
    Column("stage", "Stage"),
    Column("messageId", "Message", show=lambda name: str(name)[:8]),
)


def _groups(letters: Iterable[DeadLetter]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[DeadLetter]] = {}
    for letter in letters:
        groups.setdefault((letter.stage, letter.class_, letter.code), []).append(letter)
    rows = [
        {
            "count": len(members),
            "stage": stage,
            "class": failure_class,
            "code": code,
            "example": members[-1].key or members[-1].message_id,
            "oldest": members[0].failed_at,
            "hint": members[-1].hint,
        }
        for (stage, failure_class, code), members in groups.items()
    ]
    return sorted(rows, key=lambda row: -row["count"])
