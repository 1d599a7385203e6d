import shlex
from datetime import timedelta

import typer

from pipeline_cli.cli import App
from pipeline_cli.commands.dlq_common import groups, queues
from pipeline_cli.context import Context
from pipeline_cli.errors import NotFoundError
from pipeline_cli.moments import moment
from pipeline_cli.output import Column, Format, escape
from pipeline_cli.pipeline import journey
from pipeline_cli.pipeline.references import reference

app = App()

_OUTCOMES = {"COMPLETED": "green", "FAILED": "red", "DEAD_LETTERED": "red", "IN_FLIGHT": "yellow"}
COLUMNS = (
    Column("time", "Time (UTC)", show=lambda time: str(time)[5:23].replace("T", " "), whole=True),
    Column("where", "Where", whole=True),
    Column("what", "What"),
    Column("detail", "Detail"),
)


@app.command()
def trace(
    ctx: typer.Context,
    image: str = typer.Argument(..., metavar="KEY|ID", help="Key, image id, s3:// address or thumbnail key."),
    since: str = typer.Option(None, metavar="TIME", help="Look for log lines from then on. [default: the upload]"),
) -> None:
    """Show where an image is and how it got there.

    Its object, log lines, dead letters, thumbnails and item, as one timeline.

    Says what is missing when the way is not complete.

    \b
    imgpipe trace photos/beach.jpg
    imgpipe trace photos/beach.jpg --output json
    """
    context: Context = ctx.obj
    deployment, clients = context.deployment, context.clients
    places = journey.Places(deployment.table, deployment.thumbnail_bucket, queues(context), groups(context))
    found = journey.find(
        clients.s3,
        clients.dynamodb,
        clients.sqs,
        clients.logs,
        places,
        reference(image, deployment.upload_bucket),
        now=context.now(),
        since=moment(since, context.now()) if since else None,
    )
    if not found.known and not found.unseen:
        raise NotFoundError(
            f"Nothing is known of {image}.", "It was never uploaded here, or long ago. See: imgpipe meta query"
        )
    made = journey.journey(found, context.now())
    if context.out.format in (Format.JSON, Format.JSONL):
        context.out.record(made)
        return
    if context.out.format is Format.TABLE:
        from rich.text import Text

        outcome = (made.outcome, _OUTCOMES.get(made.outcome, ""))
        head = Text.assemble(escape(made.key or ""), "  ", outcome, (f"  {made.image_id}", "dim"))
        context.out.console.print(head)
    context.out.rows(made.steps, COLUMNS)
    if made.earlier is not None:
        # The item was made after the upload: a while before, so that the whole of it is in.
        start = (made.earlier - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S")
        context.note(
            f"It has an earlier history, since {made.earlier:%Y-%m-%d %H:%M} UTC: "
            f"imgpipe trace {shlex.quote(image)} --since {start}"
        )
    for place in made.unseen:
        context.note(f"Could not look at the {place}")
    if made.gap:
        context.note(f"{made.outcome}: {made.gap}")
    if made.hint:
        context.note(f"Next: {made.hint}")
