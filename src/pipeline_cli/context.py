"""What a command is given: options, streams, clock, deployment and clients, each made on first need."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipeline_cli.aws import Clients
from pipeline_cli.deployment import Deployment, Parameters, find
from pipeline_cli.errors import UsageError
from pipeline_cli.output import Format, Renderer, escape

if TYPE_CHECKING:
    from rich.console import Console

# They choose the account, and so what a deployment's name means.
_ACCOUNT_VARIABLES = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")


@dataclass(slots=True)
class Options:
    """The global options, as far as the command line has been read."""

    deployment: str | None = None
    profile: str | None = None
    region: str | None = None
    output: Format | None = None
    quiet: bool = False
    verbose: bool = False


class Context:
    """One run of imgpipe: `ctx.obj` of every command."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] = os.environ,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.options = Options()
        self.environ = environ
        self.stdin = stdin or sys.stdin
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.now = now  # seconds since 1970
        self.sleep = sleep

    @cached_property
    def out(self) -> Renderer:
        """stdout: data."""
        return Renderer(self.stdout, self.options.output, color=_color(self.environ))

    @cached_property
    def console(self) -> "Console":
        """stderr: progress, notes and questions. Prints plain text: escape what came from outside."""
        from rich.console import Console

        color = _color(self.environ)
        return Console(
            file=self.stderr,
            force_terminal=True if color else None,
            no_color=True if color is False else None,
            quiet=self.options.quiet,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )

    @cached_property
    def deployment(self) -> Deployment:
        return find(self.options.deployment, environ=self.environ, directory=Path.cwd(), parameters=self.parameters)

    @property
    def endpoint_url(self) -> str | None:
        """The emulator's, once a command has found that it talks to one."""
        found: Deployment | None = self.__dict__.get("deployment")
        return None if found is None else found.endpoint_url

    @property
    def parameters(self) -> Parameters:
        """What deployments have written about themselves in the account of --profile and --region."""
        scope = (self.options.profile, self.options.region, *map(self.environ.get, _ACCOUNT_VARIABLES))
        return Parameters(self._parameter, "/".join(part or "" for part in scope), self.now, self.environ)

    @cached_property
    def clients(self) -> Clients:
        return Clients(
            profile=self.options.profile,
            region=self.options.region or self.deployment.region,
            endpoint_url=self.deployment.endpoint_url,
        )

    def account_clients(self, region: str | None = None) -> Clients:
        """Clients of an account, whatever deployments it holds."""
        # boto3 reads AWS_DEFAULT_REGION alone; AWS_REGION is what the other tools know.
        region = region or self.options.region or self.environ.get("AWS_REGION") or None
        return Clients(profile=self.options.profile, region=region)

    @property
    def tool_environ(self) -> dict[str, str]:
        """The environment of programs that talk to AWS themselves, so that they use the same account."""
        profile = {"AWS_PROFILE": self.options.profile} if self.options.profile else {}
        return {**self.environ, **profile}

    def _parameter(self, name: str) -> str | None:
        ssm = self.account_clients().ssm
        try:
            return ssm.get_parameter(Name=name)["Parameter"]["Value"]
        except ssm.exceptions.ParameterNotFound:
            return None

    def note(self, text: str) -> None:
        """A line on stderr, unless --quiet."""
        if not self.options.quiet:
            self.stderr.write(escape(text) + "\n")
            self.stderr.flush()

    def announce(self, doing: str) -> None:
        """Says which deployment a command that changes something talks to."""
        self.note(f"{doing} ({self.deployment.describe()})")

    def confirm(self, question: str, *, yes: bool) -> None:
        """Asks before something that cannot be undone; off a terminal only --yes will do."""
        if yes:
            return
        if not (self.stdin.isatty() and self.stderr.isatty()):
            raise UsageError(f"{question} Nobody is there to answer.", "Add --yes to go ahead.", code="NOT_CONFIRMED")
        self.stderr.write(f"{escape(question)} [y/N] ")
        self.stderr.flush()
        if self.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UsageError("Nothing was changed.", code="NOT_CONFIRMED")


def _color(environ: Mapping[str, str]) -> bool | None:
    """no-color.org and bixense.com/clicolors; None leaves it to the terminal."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return None
