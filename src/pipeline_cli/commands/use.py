import typer

from pipeline_cli import deployment as deployments
from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.output import Column

app = App()


@app.command()
def use(
    ctx: typer.Context,
    name: str = typer.Argument(None, metavar="[NAME]", help="The deployment to use from now on."),
) -> None:
    """Choose the deployment that commands talk to.

    Without a name, list those known on this machine.

    -d and IMGPIPE_DEPLOYMENT go before it.

    \b
    imgpipe use
    imgpipe use local
    """
    context: Context = ctx.obj
    if name:
        deployments.forget_cached(context.environ)
        found = deployments.named(name, environ=context.environ, parameters=context.parameters)
        deployments.use(name, context.environ)
        context.note(f"Commands talk to {found.describe()} from now on.")
        return
    chosen = deployments.used(context.environ)
    known = {deployments.LOCAL: "this machine", **deployments.registered(context.environ)}
    context.out.rows(
        ({"name": one, "used": one == chosen, "outputs": where} for one, where in known.items()),
        (
            Column("name", "Deployment"),
            Column("used", "Used", show=lambda used: "*" if used else ""),
            Column("outputs", "Outputs"),
        ),
    )
