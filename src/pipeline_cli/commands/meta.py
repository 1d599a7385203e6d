from typing import Any

import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import NotFoundError, UsageError
from pipeline_cli.moments import HELP as MOMENT
from pipeline_cli.moments import moment
from pipeline_cli.output import Column, size
from pipeline_cli.pipeline import metadata, queries
from pipeline_cli.pipeline.expressions import HELP as WHERE
from pipeline_cli.pipeline.expressions import check_field
from pipeline_cli.pipeline.references import reference
from pipeline_contract.item import Status

app = App(
    no_args_is_help=True,
    help="""Read what is known of images.

    \b
    imgpipe meta get photos/beach.jpg
    imgpipe meta query --since 2h
    """,
)

DEFAULT_LIMIT = 50

_STYLES = {"COMPLETED": "green", "FAILED": "red", "DELETED": "dim"}
COLUMNS = (
    Column("originalKey", "Image"),
    Column("status", "Status", whole=True, style=lambda status: _STYLES.get(str(status), "")),
    Column("format", "Format", whole=True),
    Column("width", "Width", right=True),
    Column("height", "Height", right=True),
    Column("fileSize", "Size", right=True, show=size, whole=True, wide=True),
    Column("uploadDate", "Uploaded (UTC)", show=lambda date: str(date or "")[:16].replace("T", " "), whole=True),
)


@app.command()
def get(
    ctx: typer.Context,
    images: list[str] = typer.Argument(..., metavar="KEY|ID...", help="Key, image id or s3:// address."),
) -> None:
    """Print everything that is known of an image.

    \b
    imgpipe meta get photos/beach.jpg
    imgpipe meta get photos/beach.jpg --output json
    imgpipe meta get a.jpg b.jpg --output jsonl
    """
    context: Context = ctx.obj
    wanted = [reference(image, context.deployment.upload_bucket) for image in images]
    dynamodb, table = context.clients.dynamodb, context.deployment.table
    if len(wanted) == 1:
        found = metadata.get(dynamodb, table, wanted[0].image_id)
        items = {} if found is None else {wanted[0].image_id: found}
    else:
        items = metadata.get_many(dynamodb, table, [one.image_id for one in wanted])
    for one in wanted:
        if one.image_id in items:
            context.out.record(items[one.image_id])
    if missing := [one.label for one in wanted if one.image_id not in items]:
        raise NotFoundError(
            f"There is no item of {', '.join(missing)}.",
            f"See what became of it: imgpipe trace {missing[0]}",
        )


@app.command()
def query(
    ctx: typer.Context,
    since: str = typer.Option(None, metavar="TIME", help=f"Uploaded at or after: {MOMENT}"),
    until: str = typer.Option(None, metavar="TIME", help="Uploaded at or before."),
    status: Status = typer.Option(None, case_sensitive=False, help="What became of it."),
    image_format: str = typer.Option(None, "--format", metavar="NAME", help="JPEG, PNG, WEBP ..."),
    camera: str = typer.Option(None, metavar="TEXT", help="Part of the camera's maker and model, or a glob."),
    name: str = typer.Option(None, metavar="GLOB", help="A glob that the key or its last part fits."),
    min_width: int = typer.Option(None, metavar="PX"),
    max_width: int = typer.Option(None, metavar="PX"),
    min_height: int = typer.Option(None, metavar="PX"),
    max_height: int = typer.Option(None, metavar="PX"),
    min_size: int = typer.Option(None, metavar="BYTES"),
    max_size: int = typer.Option(None, metavar="BYTES"),
    where: str = typer.Option(None, metavar="EXPR", help=WHERE),
    limit: int = typer.Option(DEFAULT_LIMIT, "-n", "--limit", min=0, help="At most so many; 0 is all."),
    count: bool = typer.Option(False, "--count", help="Print how many there are (of all, not of --limit)."),
    columns: str = typer.Option(
        None, metavar="A,B,...", help="The fields to print; dots reach inside (exif.available)."
    ),
    explain: bool = typer.Option(False, "--explain", help="Run it, and print which index, how many reads, what cost."),
    scan: bool = typer.Option(False, "--scan", help="Read the whole table: finds deleted images too, and costs."),
) -> None:
    """Find images, newest first. Without options, the newest 50.

    Reads an index by Query, never the whole table unless --scan asks for it.

    \b
    imgpipe meta query --since 2h
    imgpipe meta query --status failed --columns originalKey,errorCode,error
    imgpipe meta query --format png --min-width 4000 --output csv > big.csv
    imgpipe meta query --where "width > 2 and like(originalKey, '2026/*')" --count
    imgpipe meta query --camera canon --since 30d --explain
    """
    context: Context = ctx.obj
    now = context.now()
    shown = _columns(columns)
    criteria = queries.Criteria(
        since=moment(since, now) if since else None,
        until=moment(until, now) if until else None,
        status=status,
        format=image_format,
        camera=camera,
        name=name,
        min_width=min_width,
        max_width=max_width,
        min_height=min_height,
        max_height=max_height,
        min_bytes=min_size,
        max_bytes=max_size,
        where=queries.item_condition(where) if where else None,
        limit=limit or None,
    )
    plan = queries.plan(criteria, now, shards=context.deployment.upload_day_shards, scan=scan)
    cost = metadata.Cost()
    dynamodb, table = context.clients.dynamodb, context.deployment.table
    if count:
        matched = metadata.count(dynamodb, table, plan, criteria, cost)
        if not explain:
            context.out.line(str(matched))
            return
    else:
        items = metadata.run(dynamodb, table, plan, criteria, cost)
        if not explain:
            rows = (_only(item, shown) for item in items) if columns else items
            matched = context.out.rows(rows, shown, empty="No images.")
            _say_where_it_stopped(context, plan, matched, limit)
            return
        matched = sum(1 for _ in items)
    context.out.record(metadata.explanation(plan, cost, matched))


def _say_where_it_stopped(context: Context, plan: queries.Plan, matched: int, limit: int) -> None:
    if limit and matched == limit:
        context.note(f"The newest {limit}; more with --limit, all with --limit 0.")
    elif plan.searched_back_to:
        context.note(f"Looked back to {plan.searched_back_to}; further with --since.")


def _columns(chosen: str | None) -> tuple[Column, ...]:
    if chosen is None:
        return COLUMNS
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    if not names:
        raise UsageError("--columns names no field.", "As in --columns originalKey,width,exif.available")
    for name in names:
        check_field(name, "--columns", queries.ITEM_FIELDS, queries.FREE_FIELDS)
    known = {column.name: column for column in COLUMNS}
    return tuple(known.get(name, Column(name, name)) for name in names)


def _only(item: dict[str, Any], columns: tuple[Column, ...]) -> dict[str, Any]:
    """The chosen fields alone, so that JSON carries them and no more."""
    chosen: dict[str, Any] = {}
    for column in columns:
        value: Any = item
        into = chosen
        *outer, last = column.name.split(".")
        for part in outer:
            value = value.get(part) if isinstance(value, dict) else None
            into = into.setdefault(part, {})
        into[last] = value.get(last) if isinstance(value, dict) else None
    return chosen
