"""What the dlq commands share: the selection, the queues, the columns."""

import functools
import inspect
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from pipeline_cli.context import Context
from pipeline_cli.errors import SomeFailedError
from pipeline_cli.moments import HELP as MOMENT
from pipeline_cli.moments import age, moment
from pipeline_cli.output import Column
from pipeline_cli.paths import data_home
from pipeline_cli.pipeline.dead_letters import following
from pipeline_cli.pipeline.dead_letters import queues as dead_letter_queues
from pipeline_cli.pipeline.dead_letters.messages import DeadLetter
from pipeline_cli.pipeline.dead_letters.queues import Listing, Queue, Selection
from pipeline_cli.pipeline.expressions import expression
from pipeline_cli.pipeline.log_events import Group
from pipeline_cli.pipeline.outcomes import Outcome
from pipeline_contract.failures import FailureClass, FailureCode, Stage

_CLASS_STYLES = {"PERMANENT": "red", "TRANSIENT": "yellow", "CONFIG": "magenta"}
KEY = Column("key", "Image", show=lambda key: str(key or "?"))
CLASS = Column("class", "Class", style=lambda name: _CLASS_STYLES.get(str(name), ""), whole=True, wide=True)
CODE = Column("code", "Reason", show=lambda code: str(code or "?"), style=lambda code: _code_style(code), whole=True)
STAGE = Column("stage", "Stage", whole=True, wide=True)
MESSAGE = Column("messageId", "Message", show=lambda name: str(name)[:8], whole=True)


def _code_style(code: Any) -> str:
    known = FailureCode(code).failure_class if code in FailureCode.__members__ else FailureClass.TRANSIENT
    return _CLASS_STYLES[known]


def _options(
    stage: Stage = typer.Option(None, case_sensitive=False, help="Of one function."),
    code: FailureCode = typer.Option(None, case_sensitive=False, metavar="CODE", help="CORRUPT, TIMEOUT ..."),
    failure_class: FailureClass = typer.Option(None, "--class", case_sensitive=False, help="Of one class."),
    key: str = typer.Option(None, metavar="GLOB", help="Whose image key fits."),
    since: str = typer.Option(None, metavar="TIME", help=f"Failed at or after: {MOMENT}"),
    where: str = typer.Option(None, metavar="EXPR", help='A condition on fields: "attempts > 2".'),
    ids: list[str] = typer.Option(
        None, "--id", metavar="ID", help="Message or image id, or its beginning; repeatable."
    ),
) -> None:
    """The options that select dead letters, for Typer to read."""


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of a selection; it gets what they mean as its argument `selection`."""
    options = inspect.signature(_options).parameters

    @functools.wraps(command)
    def wrapper(ctx: typer.Context, **given: Any) -> None:
        chosen = {name: given.pop(name) for name in options}
        command(ctx, selection=_selection(ctx.obj, **chosen), **given)

    own = [one for name, one in inspect.signature(command).parameters.items() if name != "selection"]
    first, *rest = own
    wrapper.__signature__ = inspect.Signature([first, *options.values(), *rest])  # type: ignore[attr-defined]
    annotations = {**_options.__annotations__, **command.__annotations__}
    wrapper.__annotations__ = {name: kind for name, kind in annotations.items() if name != "selection"}
    return wrapper


def _selection(
    context: Context,
    *,
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
        where=expression(where, dead_letter_queues.FIELDS) if where else None,
    )


def queues(context: Context) -> list[Queue]:
    deployment = context.deployment
    return [
        Queue(Stage.IMAGE_PROCESSOR, deployment.image_dlq_url),
        Queue(Stage.DB_WRITER, deployment.metadata_dlq_url),
    ]


def groups(context: Context) -> list[Group]:
    deployment = context.deployment
    return [
        Group("processor", deployment.log_group(deployment.processor_function)),
        Group("writer", deployment.log_group(deployment.writer_function)),
    ]


def read(context: Context, selection: Selection, limit: int | None = None) -> Listing:
    listing = dead_letter_queues.read(context.clients.sqs, queues(context), selection, limit=limit)
    say_hidden(context, listing.elsewhere)
    return listing


def say_hidden(context: Context, count: int) -> None:
    if count:
        context.note(f"{messages(count)} more were just taken by somebody, or by a command that was stopped.")


def none_readable(count: int) -> SomeFailedError:
    """Why nothing was done although there are dead letters."""
    return SomeFailedError(
        f"Nothing was done: somebody else is reading {messages(count)} of the dead-letter queues.",
        "They can be read again in a minute; then try again.",
        code="NONE_READABLE",
    )


def settled(context: Context, letters: Sequence[DeadLetter]) -> dict[str, Outcome]:
    """What the images of dead letters came to by something newer, by message id: these need no repair."""
    from botocore.exceptions import ClientError

    try:
        return following.settled(context.clients.dynamodb, context.deployment.table, letters)
    except ClientError as error:  # the table may be what failed
        code = error.response.get("Error", {}).get("Code")
        context.note(f"Could not look whether newer events have settled some: the table answers {code}.")
        return {}


SETTLED = {
    Outcome.COMPLETED: "the image is complete since",
    Outcome.DELETED: "the image was deleted since",
    Outcome.SUPERSEDED: "a newer event of the image has come through since",
}


def archive_file(context: Context, action: str) -> Path:
    """Where a safety copy goes when the operator names no file: a new file each time."""
    stamp = datetime.fromtimestamp(context.now(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    return data_home(context.environ) / "archives" / context.deployment.name / f"{action}-{stamp}.jsonl"


def messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def ago(context: Context) -> Callable[[Any], str]:
    now = context.now()
    return lambda at: age(now - datetime.fromisoformat(str(at)).timestamp())
