from enum import StrEnum
from urllib.parse import quote

import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.deployment import Deployment
from pipeline_cli.errors import ConfigurationError

app = App()


class Page(StrEnum):
    DASHBOARD = "dashboard"
    LOGS = "logs"
    UPLOADS = "uploads"
    TABLE = "table"


@app.command("open")
def open_(ctx: typer.Context, page: Page = typer.Argument(..., help="What to look at.")) -> None:
    """Open a page of the AWS console in the browser. In a pipe, print its address instead.

    \b
    imgpipe open dashboard
    imgpipe open uploads | cat
    """
    context: Context = ctx.obj
    address = console_address(context.deployment, page)
    context.out.line(address)
    if context.out.interactive:
        typer.launch(address)


def console_address(deployment: Deployment, page: Page) -> str:
    """The page's address in the AWS console; ConfigurationError for a deployment that is not on AWS."""
    if deployment.endpoint_url is not None:
        raise ConfigurationError(
            "The local pipeline has no AWS console.",
            "See: imgpipe status, imgpipe logs, imgpipe thumbs list, imgpipe meta query",
            code="NO_CONSOLE",
        )
    region = deployment.output("aws_region")
    match page:
        case Page.DASHBOARD:
            return deployment.output("dashboard_url")
        case Page.LOGS:
            return deployment.output("logs_url")
        case Page.UPLOADS:
            return (
                f"https://{region}.console.aws.amazon.com/s3/buckets/{quote(deployment.upload_bucket)}?region={region}"
            )
        case Page.TABLE:
            table = quote(deployment.table)
            return (
                f"https://{region}.console.aws.amazon.com/dynamodbv2/home?region={region}#item-explorer?table={table}"
            )
