from collections import Counter
from collections.abc import Iterator

import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import UnhealthyError
from pipeline_cli.moments import duration
from pipeline_cli.output import Column, Format, escape
from pipeline_cli.pipeline.watching import checks, probe
from pipeline_cli.pipeline.watching.checks import Check, Verdict

app = App()

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "unknown": "dim"}
COLUMNS = (
    Column("verdict", "", style=lambda verdict: _STYLES[verdict], whole=True),
    Column("check", "Check"),
    Column("detail", "Finding"),
    Column("fix", "What to do"),
)


@app.command()
def doctor(
    ctx: typer.Context,
    with_probe: bool = typer.Option(False, "--probe", help="Send a small image through, and take it out again."),
    timeout: str = typer.Option("2m", metavar="TIME", help="How long --probe waits for each step."),
) -> None:
    """Check that everything is there, on, and wired together.

    Says what to do where it is not.

    Reads only, but for --probe. Exit code 6 when a check fails.

    \b
    imgpipe doctor
    imgpipe doctor --probe
    imgpipe doctor --output json
    """
    context: Context = ctx.obj
    found: list[Check] = []

    def findings() -> Iterator[Check]:
        for check in _checks(context, duration(timeout) if with_probe else None):
            found.append(check)
            yield check

    if context.out.format is Format.TABLE:
        context.out.rows(findings(), COLUMNS[:-1])
        for check in found:
            if check.fix:  # below the table, where a command stays in one piece
                context.out.line(f"{check.check}: {escape(check.fix)}")
    else:
        context.out.rows(findings(), COLUMNS)
    counted = Counter(check.verdict for check in found)
    context.note(", ".join(f"{counted[verdict]} {verdict}" for verdict in Verdict if counted[verdict]) + ".")
    if counted[Verdict.FAIL]:
        first = next(check for check in found if check.verdict is Verdict.FAIL)
        raise UnhealthyError(f"{first.check}: {first.detail}", first.fix or "")


def _checks(context: Context, timeout: float | None) -> Iterator[Check]:
    deployment, clients = context.deployment, context.clients
    names = checks.Names(
        deployment.upload_bucket,
        deployment.thumbnail_bucket,
        deployment.table,
        deployment.metadata_queue_url,
        deployment.metadata_dlq_url,
        deployment.image_dlq_url,
        deployment.processor_function,
        deployment.writer_function,
        deployment.name_prefix,
        deployment.outputs.get("alarm_topic_arn"),
    )
    yield from checks.examine(
        checks.Clients(
            clients.s3,
            clients.sqs,
            clients.dynamodb,
            clients.lambda_,
            clients.cloudwatch,
            clients.logs,
            clients.sns,
            clients.sts,
        ),
        names,
    )
    if timeout is not None:
        context.announce("Probing")
        places = probe.Places(names.upload_bucket, names.thumbnail_bucket, names.table)
        yield from probe.probe(
            clients.s3, clients.dynamodb, places, now=context.now, sleep=context.sleep, timeout=timeout
        )
