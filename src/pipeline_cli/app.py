"""The root of imgpipe: finds the command, and is the one place where an error becomes a message and an exit code."""

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import typer

from pipeline_cli import __version__
from pipeline_cli.cli import App, Group
from pipeline_cli.context import Context
from pipeline_cli.deployment import forget_cached
from pipeline_cli.errors import ConfigurationError, ExitCode, ImgpipeError, from_aws
from pipeline_cli.output import Format, escape, to_json

# What --help says of each, in its order: feed, look, repair, set up. It is written down here so that --help need not
# import every command; each is a module of `commands`, imported when it is asked for.
COMMANDS = {
    "upload": "Upload images.",
    "thumbs": "See and fetch thumbnails.",
    "meta": "Read what is known of images.",
    "logs": "Print the log lines of both functions in order of time.",
    "dlq": "See and repair what failed: the dead-letter queues.",
    "trace": "Show where an image is and how it got there.",
    "status": "Show how the pipeline is: queues, failures, alarms.",
    "doctor": "Check that everything is there, on, and wired together.",
    "presign": "Print an address that opens an original to anybody for a while.",
    "reconcile": "Compare buckets and table, and account for every upload.",
    "reprocess": "Process chosen images once more.",
    "outputs": "Print the names and URLs that a deployment is made of.",
    "use": "Choose the deployment that commands talk to.",
    "open": "Open a page of the AWS console in the browser.",
    "build": "Make the zips of both functions, without Docker.",
    "deploy": "Put the pipeline on AWS, or bring it up to date.",
    "destroy": "Take a deployment away from AWS.",
    "local": "Run the pipeline on this machine, without AWS.",
}


class Root(Group):
    """The group of all commands, each imported on first need so that start-up stays instant."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # Typer's signature
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  # Typer's signature
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pipeline_cli.commands.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # Typer's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = App(cls=Root, name="imgpipe", no_args_is_help=True, add_completion=True)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"imgpipe {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Feed, watch and repair an image pipeline on AWS.

    \b
    imgpipe local demo              see it work, on this machine
    imgpipe upload ./photos --wait  upload, and wait for what becomes of each
    imgpipe dlq list                what failed, and why
    """


def run(args: Sequence[str], context: Context | None = None) -> int:
    """Runs one command line; returns the exit code. Every error ends here."""
    context = context or Context()
    try:
        result = typer.main.get_command(app).main(
            args=list(args), prog_name="imgpipe", standalone_mode=False, obj=context
        )
    except ImgpipeError as error:
        return _report(context, error.code, error.message, error.hint, error.exit_code)
    except typer.TyperException as error:
        return _usage(context, args, error)
    except typer.Abort:
        return _report(context, "INTERRUPTED", "Interrupted.", "", ExitCode.INTERRUPTED)
    except SystemExit:  # Typer ends so when the reader has gone: `imgpipe ... | head` has what it wanted
        return ExitCode.DONE
    except Exception as error:  # noqa: BLE001  # the boundary: nothing gets past it
        known = from_aws(error)
        if known is not None:
            if known.code == "NETWORK" and context.endpoint_url:
                known = ConfigurationError(
                    f"The local pipeline does not answer at {context.endpoint_url}: it was stopped, or is stopping.",
                    "Start it: imgpipe local up --detach",
                    code="LOCAL_DOWN",
                )
            elif known.exit_code is ExitCode.CONFIGURATION:
                forget_cached(context.environ)  # what SSM said may be of a deployment that is gone
            return _report(context, known.code, known.message, known.hint, known.exit_code)
        return _bug(context, error)
    if result == ExitCode.INTERRUPTED:
        return _report(context, "INTERRUPTED", "Interrupted.", "", ExitCode.INTERRUPTED)
    return int(result or 0)


def _usage(context: Context, args: Sequence[str], error: Any) -> int:
    if "--output" in args and {"json", "jsonl"} & set(args):
        context.options.output = Format.JSON
    command = error.ctx.command_path if getattr(error, "ctx", None) else "imgpipe"
    return _report(context, "USAGE", error.format_message(), f"See: {command} --help", ExitCode.USAGE)


def _report(context: Context, code: str, message: str, hint: str, exit_code: ExitCode) -> int:
    if context.options.output in (Format.JSON, Format.JSONL):
        context.stderr.write(to_json({"error": {"code": code, "message": message, "hint": hint}}) + "\n")
    else:
        context.stderr.write(f"imgpipe: {escape(message)}\n")
        if hint:
            context.stderr.write(f"  {escape(hint)}\n")
    return exit_code


def _bug(context: Context, error: Exception) -> int:
    message = f"This is a bug: {type(error).__name__}: {error}"
    if context.options.verbose:
        import traceback

        traceback.print_exception(error, file=context.stderr)
    return _report(context, "BUG", message, "Run it again with -v and report what it says.", ExitCode.FAILED)


def main() -> NoReturn:
    # Start-up makes hundreds of thousands of objects that stay. Looking through them for garbage every 700 of them is
    # a tenth of the time of a short command.
    gc.set_threshold(50_000)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`| head`): nothing is wrong, and Python must not complain about it at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if "awscrt" in sys.modules:
        # Taking apart awscrt's threads and hundreds of modules costs a tenth of a second, and none of it outlives us.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
