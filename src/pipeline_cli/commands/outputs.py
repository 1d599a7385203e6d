import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import NotFoundError
from pipeline_cli.output import Column, Format

app = App()


@app.command()
def outputs(
    ctx: typer.Context,
    name: str = typer.Argument(None, metavar="[NAME]", help="One output; its bare value is printed."),
) -> None:
    """Print the names and URLs that a deployment is made of.

    With --output json, the document that IMGPIPE_OUTPUTS takes, as `terraform output -json` prints it.

    \b
    imgpipe outputs
    aws s3 cp photo.jpg s3://$(imgpipe outputs upload_bucket_name)/
    imgpipe outputs --output json > outputs.json
    """
    context: Context = ctx.obj
    deployment = context.deployment
    if name:
        if name not in deployment.outputs:
            raise NotFoundError(
                f"Deployment {deployment.name} has no output {name}.",
                f"It has: {', '.join(sorted(deployment.outputs))}",
            )
        context.out.line(deployment.output(name))
        return
    if context.out.format is Format.JSON:
        context.out.record({key: {"value": value} for key, value in deployment.outputs.items()})
        return
    context.out.rows(
        ({"name": key, "value": value} for key, value in deployment.outputs.items()),
        (Column("name", "Output"), Column("value", "Value")),
    )
