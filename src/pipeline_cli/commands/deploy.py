from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipeline_cli import deployment as deployments
from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import ConfigurationError, UnhealthyError, UsageError
from pipeline_cli.output import Column

if TYPE_CHECKING:
    from pipeline_cli.aws import Clients
    from pipeline_cli.pipeline.deploying.deploy import State, Workplace
    from pipeline_cli.pipeline.deploying.terraform import Change, Terraform

app = App()

_COLORS = {"create": "green", "update": "yellow", "replace": "bold red", "delete": "bold red"}
CHANGES = (
    Column("action", "Change", style=lambda row: _COLORS.get(row["action"], "")),
    Column("address", "Resource"),
    Column("name", "Name"),
    Column("fields", "What", show=lambda fields: ", ".join(fields or ())),
)


@app.command()
def deploy(
    ctx: typer.Context,
    var: list[str] = typer.Option([], "--var", metavar="NAME=VALUE", help="A variable of the stack; may be repeated."),
    plan: bool = typer.Option(False, "--plan", help="Say what would change; change nothing."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    state: str = typer.Option(None, metavar="s3://BUCKET/PREFIX", help="Keep Terraform's state in S3, for a team."),
    zips: Path = typer.Option(None, metavar="FOLDER", help="Zips that imgpipe build made; without it, they are built."),
) -> None:
    """Put the pipeline on AWS, or bring it up to date.

    Builds, plans, asks, applies, checks.

    Variables and the place of the state are remembered. -d names the deployment; without it, the variables
    project_name and environment do, or imgpipe use (image-pipeline-dev at first). docs/deploying.md has all variables.
    Needs Terraform 1.11.

    \b
    imgpipe deploy --plan
    imgpipe deploy --var environment=prod --var 'alarm_emails=["images@example.com"]'
    imgpipe deploy -d prod --state s3://my-terraform-state/imgpipe --yes
    """
    from pipeline_cli.pipeline.deploying import deploy as deploying
    from pipeline_cli.pipeline.deploying import terraform

    context: Context = ctx.obj
    given = deploying.parse_variables(var)
    workplace = deploying.Workplace.of(_name(context, given), context.environ)
    tool = terraform.find(workplace.folder, context.tool_environ)
    where = workplace.state() if state is None else deploying.State.parse(state)
    if plan and where != workplace.state() and not workplace.is_new():
        raise UsageError("--state would move the state, and --plan changes nothing.", "Leave one of them out.")
    region = _region(context, given, workplace)
    clients = context.account_clients(region)
    account = clients.sts.get_caller_identity()["Account"]
    earlier = workplace.variables()
    backend = None
    if where is not None:
        backend = where.backend(workplace.name, _state_region(context, clients, where, region, plan=plan, yes=yes))
        earlier = earlier or deploying.load_variables(clients.s3, where, workplace.name)
    variables = {"aws_region": region, **earlier, **given}
    variables["lambda_zip_dir"] = str(_zips(context, workplace, variables, zips))
    workplace.prepare(variables, where)
    context.note(
        f"Deployment {workplace.name}, account {account}, {variables['aws_region']}; "
        f"state in {where or workplace.folder}"
    )
    tool.init(backend)
    changes = tool.plan()
    context.out.rows(changes, CHANGES)
    if plan:
        context.note(_summary(changes) or "Nothing would change.")
        return
    if changes:
        context.confirm(f"{_summary(changes)} in account {account}. Go ahead?", yes=yes)
    else:
        context.note("Nothing has to change.")
    workplace.remember(variables, where)
    if where is not None:
        deploying.save_variables(clients.s3, where, workplace.name, variables)
    if changes:
        apply(context, tool, len(changes))
    _remember(context, workplace, tool)
    _check(context, workplace)


def _name(context: Context, given: Mapping[str, Any]) -> str:
    """The deployment: as it is called, as its variables call it, the one in use, or the default."""
    from pipeline_cli.pipeline.deploying import deploy as deploying

    if name := context.options.deployment or context.environ.get("IMGPIPE_DEPLOYMENT"):
        return name
    used = deployments.used(context.environ)
    if used in (None, deployments.LOCAL) or given.keys() & {"project_name", "environment"}:
        return deploying.name_prefix(given)
    return str(used)


def _region(context: Context, given: Mapping[str, Any], workplace: "Workplace") -> str:
    """The region of the deployment; a deployment does not move."""
    region = given.get("aws_region") or workplace.variables().get("aws_region") or context.options.region
    region = region or context.account_clients().session.get_config_variable("region")
    if not region:
        raise ConfigurationError("No AWS region is set.", "Name it: imgpipe --region eu-central-1 deploy")
    return str(region)


def _state_region(context: Context, clients: "Clients", state: "State", region: str, *, plan: bool, yes: bool) -> str:
    """The region of the state's bucket, which is made where there is none."""
    from pipeline_cli.pipeline.deploying import deploy as deploying

    found = deploying.bucket_region(clients.s3, state.bucket)
    if found is not None:
        return found
    if plan:
        raise UsageError(
            f"There is no bucket {state.bucket}, and --plan changes nothing.",
            "Leave --state out to look at the plan, or leave --plan out to make the bucket.",
        )
    context.confirm(f"There is no bucket {state.bucket}. Make it, private and versioned, in {region}?", yes=yes)
    deploying.make_state_bucket(clients.s3, state.bucket, region)
    context.note(f"Made the bucket {state.bucket}.")
    return region


def _zips(context: Context, workplace: "Workplace", variables: Mapping[str, Any], given: Path | None) -> Path:
    """The folder of the zips: the one given, or one into which they are built now."""
    from pipeline_cli.pipeline import packaging
    from pipeline_cli.pipeline.deploying import deploy as deploying

    arch, heic = deploying.architecture(variables), deploying.heic(variables)
    if given is not None:
        for function in packaging.FUNCTIONS:
            name = packaging.zip_name(function, arch, heic=heic)
            if not (given / name).is_file():
                build = f"imgpipe build --arch {arch}{' --heic' if heic else ''} --out {given}"
                raise UsageError(f"There is no {name} in {given}.", f"Make it: {build}")
        return given.absolute()
    context.note(f"Building the functions for {arch} ...")
    for built in packaging.build(workplace.zips, arch=arch, heic=heic, environ=context.environ):
        context.note(f"  {built.path} ({built.bytes_ / 1e6:.1f} MB)")
    return workplace.zips


def apply(context: Context, tool: "Terraform", total: int) -> None:
    """Carries out the plan and tells what is done."""
    for done, progress in enumerate(tool.apply(), 1):
        context.note(f"  {done}/{total} {progress.action} {progress.address} ({progress.seconds:.0f} s)")


def _summary(changes: "tuple[Change, ...]") -> str:
    counts = {action: sum(change.action == action for change in changes) for action in _COLORS}
    return ", ".join(f"{count} to {action}" for action, count in counts.items() if count)


def _remember(context: Context, workplace: "Workplace", tool: "Terraform") -> None:
    deployments.register(workplace.name, tool.outputs(), context.environ)
    if deployments.used(context.environ) is None:
        deployments.use(workplace.name, context.environ)


def _check(context: Context, workplace: "Workplace") -> None:
    from pipeline_cli.pipeline.deploying import deploy as deploying

    deployed = deployments.named(workplace.name, environ=context.environ)
    clients = context.account_clients(deployed.region)
    failed = []
    for check in deploying.verify(clients.lambda_, clients.s3, deployed):
        context.note(f"  {'ok' if check.ok else 'FAILED'}  {check.name}{'' if check.ok else ': ' + check.detail}")
        if not check.ok:
            failed.append(check)
    if failed:
        raise UnhealthyError(
            f"Deployed, but {failed[0].name}: {failed[0].detail}",
            f"See: imgpipe -d {workplace.name} logs all --errors",
            code="DEPLOYED_UNHEALTHY",
        )
    context.note(f"Deployed. Try it: imgpipe -d {workplace.name} upload photo.jpg --wait")
