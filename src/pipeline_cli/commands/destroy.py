import typer

from pipeline_cli import deployment as deployments
from pipeline_cli.cli import App
from pipeline_cli.commands.deploy import CHANGES, apply
from pipeline_cli.context import Context
from pipeline_cli.deployment import Deployment
from pipeline_cli.errors import ConfigurationError, NotFoundError, UsageError
from pipeline_cli.output import Column

app = App()

_LOSSES = (Column("resource", "Resource"), Column("count", "Count", right=True), Column("what", "What is lost"))


@app.command()
def destroy(
    ctx: typer.Context,
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be lost; change nothing."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    state: str = typer.Option(None, metavar="s3://BUCKET/PREFIX", help="Where the state is, on another machine."),
) -> None:
    """Take a deployment away from AWS.

    With every image, thumbnail and item in it: nothing of it can be brought back.

    Asks for the deployment's name. A table with deletion protection stops it before anything is changed.

    \b
    imgpipe -d image-pipeline-dev destroy --dry-run
    imgpipe -d image-pipeline-dev destroy
    """
    from pipeline_cli.pipeline.deploying import deploy as deploying
    from pipeline_cli.pipeline.deploying import destroy as destroying
    from pipeline_cli.pipeline.deploying import terraform

    context: Context = ctx.obj
    name = context.options.deployment or context.deployment.name
    workplace = deploying.Workplace.of(name, context.environ)
    where = workplace.state() if state is None else deploying.State.parse(state)
    variables = workplace.variables()
    if not variables and where is not None:
        variables = deploying.load_variables(context.account_clients().s3, where, name)
    if not variables:
        raise NotFoundError(
            f"{name} was not deployed from this machine.",
            "Where its state is in S3: imgpipe -d NAME destroy --state s3://BUCKET/PREFIX",
        )
    tool = terraform.find(workplace.folder, context.tool_environ)
    workplace.prepare(variables, where)
    region = str(variables["aws_region"])
    clients = context.account_clients(region)
    backend = None
    if where is not None:
        backend = where.backend(name, deploying.bucket_region(clients.s3, where.bucket) or region)
    tool.init(backend)
    deployed = _deployed(name, tool.outputs())
    account = clients.sts.get_caller_identity()["Account"]
    context.note(f"Deployment {name}, account {account}, {region}")
    if deployed is not None:
        context.out.rows(destroying.losses(clients.s3, clients.dynamodb, clients.sqs, deployed), _LOSSES)
        if destroying.is_protected(clients.dynamodb, deployed.table):
            raise ConfigurationError(
                f"The table {deployed.table} has deletion protection, and nothing was changed.",
                f"Turn it off first: imgpipe -d {name} deploy --var table_deletion_protection=false",
                code="PROTECTED",
            )
    changes = tool.plan(destroy=True)
    if dry_run:
        context.out.rows(changes, CHANGES)
        return
    _ask_for(context, name, yes=yes)
    if deployed is not None:
        destroying.stop_notifications(clients.s3, deployed.upload_bucket)
        for bucket in (deployed.upload_bucket, deployed.thumbnail_bucket):
            removed = destroying.empty(clients.s3, bucket, lambda count: context.note(f"  {count} removed"))
            context.note(f"Emptied {bucket}: {removed} versions and delete markers.")
    if changes:
        # The plan from before would still hold, but objects that came meanwhile are gone with the buckets now.
        tool.plan(destroy=True)
        apply(context, tool, len(changes))
    if where is not None:
        deploying.forget_variables(clients.s3, where, name)
    workplace.remove()
    deployments.forget(name, context.environ)
    context.note(f"Deployment {name} is gone.")


def _deployed(name: str, document: dict[str, object]) -> Deployment | None:
    """What is left of a deployment; None when an earlier destroy got as far as the outputs."""
    return Deployment(name, "terraform", deployments.values(document, "terraform output")) if document else None


def _ask_for(context: Context, name: str, *, yes: bool) -> None:
    """Asks for the name: a y is typed too easily."""
    if yes:
        return
    if not (context.stdin.isatty() and context.stderr.isatty()):
        raise UsageError(f"Destroy {name}? Nobody is there to answer.", "Add --yes to go ahead.", code="NOT_CONFIRMED")
    context.stderr.write(f"All of this will be lost. Type {name} to destroy it: ")
    context.stderr.flush()
    if context.stdin.readline().strip() != name:
        raise UsageError("Nothing was changed.", code="NOT_CONFIRMED")
