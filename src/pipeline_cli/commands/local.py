from pathlib import Path

import typer

from pipeline_cli.cli import App
from pipeline_cli.commands.local_demo import demo
from pipeline_cli.context import Context
from pipeline_cli.errors import ExitCode

app = App(
    no_args_is_help=True,
    help="""Run the pipeline on this machine, without AWS.

    \b
    imgpipe local demo
    imgpipe local up --detach
    imgpipe -d local upload photo.jpg --wait
    imgpipe local down
    """,
)


@app.command()
def up(
    ctx: typer.Context,
    detach: bool = typer.Option(False, "--detach", help="Run in the background, until imgpipe local down."),
    port: int = typer.Option(None, min=0, max=65535, help="Port on 127.0.0.1; 0 lets the system choose."),
    data: Path = typer.Option(None, metavar="DIR", help="Where objects, items and messages are kept."),
) -> None:
    """Start the pipeline on this machine: an emulator of AWS on 127.0.0.1, and the whole stack in it.

    It is then the deployment `local`. What is stored survives a stop and a crash. Needs imgpipe[local].

    \b
    imgpipe local up                     in the foreground; Ctrl-C stops it
    imgpipe local up --detach
    imgpipe -d local upload photo.jpg --wait
    """
    from pipeline_cli.local import starting
    from pipeline_cli.local.instance import Home, LocalError, Running
    from pipeline_cli.local.supervisor import supervise

    context: Context = ctx.obj
    home = Home.of(context.environ)
    folder = (data or home.data).expanduser().absolute()
    wanted = starting.DEFAULT_PORT if port is None else port
    if home.running() is None:
        context.note("Starting the emulator and the stack ...")
    began = context.now()

    def say(running: Running) -> None:
        context.note(f"The pipeline runs at {running.endpoint_url} ({context.now() - began:.1f} s).")
        context.note(f"  Data {folder}, log {home.log}")
        context.note("  Next: imgpipe -d local upload photo.jpg --wait")

    if detach:
        running, _ = starting.start_or_stop(home, folder, wanted)
        say(running)
        context.note("  Stop it: imgpipe local down")
        return

    def ready(running: Running) -> None:
        starting.bring_up(home, running)
        say(running)
        context.note("  Ctrl-C stops it.")

    try:
        code = supervise(home, folder, wanted, ready)
    except KeyboardInterrupt:
        context.note("Stopped. What it stored is kept.")
        raise
    if code:
        raise LocalError(f"The emulator ended unexpectedly (exit code {code}).", f"See {home.log}", code="LOCAL_DIED")
    context.note("Stopped. What it stored is kept.")


@app.command()
def down(ctx: typer.Context) -> None:
    """Stop the local pipeline. What it stored is kept.

    \b
    imgpipe local down
    """
    from pipeline_cli.local.instance import Home, stop

    context: Context = ctx.obj
    stopped = stop(Home.of(context.environ))
    context.note("The local pipeline was not running." if stopped is None else "Stopped. What it stored is kept.")


@app.command()
def status(ctx: typer.Context) -> None:
    """Say whether the local pipeline runs, and where. Exit code 6 when it does not.

    \b
    imgpipe local status
    imgpipe local status --output json
    """
    from pipeline_cli.local.status import status as find_status

    context: Context = ctx.obj
    found = find_status(context.environ)
    context.out.record(found)
    if not found.running:
        context.note("Start it: imgpipe local up --detach")
        raise typer.Exit(ExitCode.UNHEALTHY)


app.command()(demo)
