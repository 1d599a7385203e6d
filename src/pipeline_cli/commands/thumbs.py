from pathlib import Path
from typing import Any

import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import NotFoundError, UsageError
from pipeline_cli.moments import HELP as MOMENT
from pipeline_cli.moments import duration, moment
from pipeline_cli.output import Column, escape, plain, size
from pipeline_cli.pipeline import metadata, presigning, previews, queries, thumbnails
from pipeline_cli.pipeline.references import ImageReference, reference
from pipeline_cli.pipeline.thumbnails import Stored
from pipeline_contract.item import Status

app = App(
    no_args_is_help=True,
    help="""See and fetch thumbnails.

    \b
    imgpipe thumbs list
    imgpipe thumbs get photos/beach.jpg
    """,
)

DEFAULT_LIMIT = 50
LONG = 1000  # from so many on, listing the bucket is cheaper than asking for each


def _yes_or_no(value: Any) -> str:
    return "yes" if value else "NO"


def _day_and_time(date: Any) -> str:
    return str(date)[:19].replace("T", " ") if date else "missing"


COLUMNS = (
    Column("key", "Image", show=lambda key: str(key or "?")),
    Column("width", "Width", right=True, wide=True),
    Column("height", "Height", right=True, wide=True),
    Column("bytes", "Size", right=True, show=size, whole=True),
    Column("present", "Stored", show=_yes_or_no, style=lambda present: "" if present else "red"),
    Column("thumbnailKey", "Thumbnail"),
)
GAP_COLUMNS = (
    Column("key", "Image"),
    Column("uploaded", "Uploaded (UTC)", show=_day_and_time, whole=True),
    Column("thumbnailMade", "Thumbnail made", show=_day_and_time, whole=True, wide=True),
    Column("status", "Status", show=lambda status: str(status or "none")),
    Column("errorCode", "Reason"),
)


@app.command("list")
def list_(
    ctx: typer.Context,
    since: str = typer.Option(None, metavar="TIME", help=f"Of images uploaded at or after: {MOMENT}"),
    until: str = typer.Option(None, metavar="TIME", help="Of images uploaded at or before."),
    name: str = typer.Option(None, metavar="GLOB", help="A glob that the key or its last part fits."),
    limit: int = typer.Option(DEFAULT_LIMIT, "-n", "--limit", min=0, help="At most so many; 0 is all."),
    missing: bool = typer.Option(False, "--missing", help="Uploaded images that have no thumbnail, and why."),
    stale: bool = typer.Option(False, "--stale", help="Images that are newer than their thumbnail."),
) -> None:
    """List thumbnails with their images, newest first.

    \b
    imgpipe thumbs list
    imgpipe thumbs list --since 1h --output json
    imgpipe thumbs list --missing --stale
    """
    context: Context = ctx.obj
    if missing or stale:
        _list_gaps(context, missing=missing, stale=stale)
        return
    now = context.now()
    criteria = queries.Criteria(
        since=moment(since, now) if since else None,
        until=moment(until, now) if until else None,
        status=Status.COMPLETED,
        name=name,
        limit=limit or None,
    )
    deployment, clients = context.deployment, context.clients
    plan = queries.plan(criteria, now, shards=deployment.upload_day_shards)
    items = metadata.run(clients.dynamodb, deployment.table, plan, criteria, metadata.Cost())
    rows = thumbnails.join(clients.s3, deployment.thumbnail_bucket, items, long=not 0 < limit <= LONG)
    shown = context.out.rows(rows, COLUMNS, empty="No thumbnails.")
    if limit and shown == limit:
        context.note(f"The newest {limit}; all with --limit 0.")


def _list_gaps(context: Context, *, missing: bool, stale: bool) -> None:
    deployment, clients = context.deployment, context.clients
    found = list(
        thumbnails.gaps(clients.s3, deployment.upload_bucket, deployment.thumbnail_bucket, missing=missing, stale=stale)
    )
    items = metadata.get_many(clients.dynamodb, deployment.table, [gap.image_id for gap in found])
    rows = []
    for gap in found:
        item = items.get(gap.image_id, {})
        rows.append({**plain(gap), "status": item.get("status"), "errorCode": item.get("errorCode")})
    context.out.rows(rows, GAP_COLUMNS, empty="Every image has its thumbnail.")


@app.command()
def get(
    ctx: typer.Context,
    images: list[str] = typer.Argument(..., metavar="KEY|ID...", help="Key, image id or s3:// address."),
    to_text: str = typer.Option(
        None, "--to", metavar="DIR/|FILE|-", help="Where it goes; - is stdout. [default: this folder]"
    ),
    pixels: int = typer.Option(None, "--size", metavar="PX", help="A further size, as the deployment makes them."),
) -> None:
    """Download thumbnails.

    \b
    imgpipe thumbs get photos/beach.jpg
    imgpipe thumbs get a.jpg b.jpg --to thumbs/
    imgpipe thumbs get a.jpg --to - | file -
    """
    context: Context = ctx.obj
    to = Path(to_text) if to_text else None
    folder = len(images) > 1 or (to is not None and (to_text.endswith("/") or to.is_dir()))
    if to is not None and folder and to != Path("-"):
        if to.exists() and not to.is_dir():
            raise UsageError(f"{to} is no folder.", "Name another one: --to thumbs/")
        to.mkdir(parents=True, exist_ok=True)
    written: set[Path] = set()
    for image in images:
        wanted, found = _find(context, image, pixels)
        data = thumbnails.fetch(context.clients.s3, context.deployment.thumbnail_bucket, found.thumbnail_key)
        if to == Path("-"):
            context.out.binary(data)
            continue
        name = thumbnails.file_name(wanted.key, found)
        file = Path(name) if to is None else to / name if to.is_dir() else to
        if file in written:  # images of two folders may have one name
            file = file.with_name(f"{wanted.image_id}-{file.name}")
        written.add(file)
        file.write_bytes(data)
        context.out.line(escape(str(file)))


@app.command()
def url(
    ctx: typer.Context,
    image: str = typer.Argument(..., metavar="KEY|ID", help="Key, image id or s3:// address."),
    expires: str = typer.Option("1h", metavar="TIME", help="How long the address works: 15m, 2h, at most 7d."),
    pixels: int = typer.Option(None, "--size", metavar="PX", help="A further size, as the deployment makes them."),
) -> None:
    """Print an address under which anybody can see a thumbnail for a while.

    \b
    imgpipe thumbs url photos/beach.jpg
    curl -o thumb.jpg "$(imgpipe thumbs url photos/beach.jpg --expires 15m)"
    """
    context: Context = ctx.obj
    _, found = _find(context, image, pixels)
    seconds = duration(expires)
    context.out.line(
        presigning.address(context.clients.s3, context.deployment.thumbnail_bucket, found.thumbnail_key, seconds)
    )


@app.command()
def show(
    ctx: typer.Context,
    images: list[str] = typer.Argument(..., metavar="KEY|ID...", help="Key, image id or s3:// address."),
    pixels: int = typer.Option(None, "--size", metavar="PX", help="A further size, as the deployment makes them."),
) -> None:
    """Show thumbnails in the terminal, in true colour.

    \b
    imgpipe thumbs show photos/beach.jpg
    imgpipe thumbs show a.jpg b.jpg
    """
    context: Context = ctx.obj
    if not context.out.interactive:
        raise UsageError("Only a terminal can show a thumbnail.", "Fetch it instead: imgpipe thumbs get KEY")
    console = context.out.console
    for image in images:
        wanted, found = _find(context, image, pixels)
        data = thumbnails.fetch(context.clients.s3, context.deployment.thumbnail_bucket, found.thumbnail_key)
        for line in previews.preview(data, columns=min(console.width, 100), rows=max(4, console.height - 3)):
            context.out.line(line)
        context.out.line(f"{escape(wanted.label)}  {size(found.bytes)}")


def _find(context: Context, image: str, pixels: int | None) -> tuple[ImageReference, Stored]:
    deployment = context.deployment
    wanted = reference(image, deployment.upload_bucket)
    found = thumbnails.of_image(context.clients.s3, deployment.thumbnail_bucket, wanted.image_id)
    for one in found:
        if one.pixels == pixels:
            return wanted, one
    if found:
        sizes = ", ".join(str(one.pixels) for one in found if one.pixels) or "none"
        raise NotFoundError(f"{wanted.label} has no thumbnail of that size.", f"Further sizes it has: {sizes}.")
    raise NotFoundError(f"{wanted.label} has no thumbnail.", f"See what became of it: imgpipe trace {image}")
