"""How commands are put together with Typer: the global options on every one of them, plain help, no surprises."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline_cli.output import Format

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _store(ctx: Any, option: Any, value: Any) -> None:
    """Keeps a global option wherever it stands on the command line; what is not given changes nothing."""
    if value is not None and value is not False and ctx.obj is not None:
        setattr(ctx.obj.options, option.name, Format(value) if option.name == "output" else value)


def _described(
    deployment: str = typer.Option(None, "-d", "--deployment", metavar="NAME", help="The deployment to talk to."),
    profile: str = typer.Option(None, metavar="NAME", help="AWS profile, as AWS_PROFILE."),
    region: str = typer.Option(None, metavar="REGION", help="AWS region, as AWS_REGION."),
    output: Format = typer.Option(None, help="Format of the results on stdout."),
    quiet: bool = typer.Option(False, "-q", "--quiet", help="No progress and no notes on stderr."),
    verbose: bool = typer.Option(False, "-v", "--verbose", help="Say more on stderr."),
) -> None:
    """The global options, for Typer to read."""


def _global_options() -> list[Any]:
    reader = typer.Typer(add_completion=False)
    reader.command()(_described)
    options = [*typer.main.get_command(reader).params]
    for option in options:
        option.expose_value = False
        option.callback = _store
    return options


_GLOBAL_OPTIONS = _global_options()


class Command(TyperCommand):
    """A command that takes the global options too, so that they may stand before or behind its name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_GLOBAL_OPTIONS)


class Group(TyperGroup):
    """A noun; it takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_GLOBAL_OPTIONS)


class App(typer.Typer):
    """A Typer app as every command file makes one."""

    def __init__(self, *, cls: type[TyperGroup] = Group, **settings: Any) -> None:
        super().__init__(
            cls=cls,
            rich_markup_mode=None,  # Rich help doubles the time of --help
            add_completion=settings.pop("add_completion", False),
            pretty_exceptions_enable=False,  # a traceback is a bug report, never an answer
            context_settings=SETTINGS,
            **settings,
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        settings.setdefault("cls", Command)
        settings.setdefault("context_settings", SETTINGS)
        return super().command(name, **settings)
