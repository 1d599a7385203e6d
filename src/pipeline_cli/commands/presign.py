import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import NotFoundError
from pipeline_cli.moments import duration
from pipeline_cli.pipeline import presigning
from pipeline_cli.pipeline.metadata import get
from pipeline_cli.pipeline.references import reference

app = App()


@app.command()
def presign(
    ctx: typer.Context,
    image: str = typer.Argument(..., metavar="KEY|ID", help="Key, image id or s3:// address."),
    expires: str = typer.Option("1h", metavar="TIME", help="How long the address works: 15m, 2h, at most 7d."),
) -> None:
    """Print an address that opens an original to anybody for a while.

    \b
    imgpipe presign photos/beach.jpg
    curl -o beach.jpg "$(imgpipe presign photos/beach.jpg --expires 15m)"
    """
    context: Context = ctx.obj
    wanted = reference(image, context.deployment.upload_bucket)
    bucket, key = wanted.bucket, wanted.key
    if bucket is None or key is None:  # an id does not tell the key; the item does
        item = get(context.clients.dynamodb, context.deployment.table, wanted.image_id) or {}
        bucket, key = item.get("bucket"), item.get("originalKey")
    if not bucket or not key or not presigning.exists(context.clients.s3, bucket, key):
        raise NotFoundError(f"There is no image {image}.", "See what is there: imgpipe meta query")
    context.out.line(presigning.address(context.clients.s3, bucket, key, duration(expires)))
