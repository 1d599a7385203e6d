"""Running Terraform in a folder, and what it says, read from its JSON."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_cli.errors import ConfigurationError, ImgpipeError

OLDEST = (1, 11)  # locks state in S3 by itself
PLAN_FILE = "imgpipe.tfplan"


@dataclass(frozen=True, slots=True)
class Change:
    """What a plan does to one resource. `action` is create, update, replace or delete; `fields` are those changed."""

    action: str
    address: str
    name: str | None
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """A resource that has been made, changed or destroyed."""

    action: str
    address: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Terraform:
    """Terraform in the folder of one deployment."""

    program: str
    folder: Path
    environ: Mapping[str, str]

    def init(self, backend: Mapping[str, str] | None = None) -> None:
        """`backend` configures the S3 backend; state that is already elsewhere moves there."""
        options = [f"-backend-config={name}={value}" for name, value in (backend or {}).items()]
        self._text("init", "-input=false", "-no-color", "-upgrade", "-migrate-state", "-force-copy", *options)

    def plan(self, *, destroy: bool = False) -> tuple[Change, ...]:
        """What an apply would do; it is kept in the folder for `apply`."""
        mode = ["-destroy"] if destroy else []
        for _ in self._events("plan", "-input=false", f"-out={PLAN_FILE}", *mode):
            pass
        return changes(json.loads(self._text("show", "-json", "-no-color", PLAN_FILE)))

    def apply(self) -> Iterator[Progress]:
        """Carries out the plan, resource by resource."""
        try:
            for event in self._events("apply", "-input=false", PLAN_FILE):
                if event.get("type") == "apply_complete":
                    hook = event["hook"]
                    if hook["action"] == "read":
                        continue
                    seconds = float(hook.get("elapsed_seconds", 0))
                    yield Progress(hook["action"], hook["resource"]["addr"], seconds)
        finally:
            (self.folder / PLAN_FILE).unlink(missing_ok=True)

    def outputs(self) -> dict[str, Any]:
        """The outputs document."""
        document: dict[str, Any] = json.loads(self._text("output", "-json", "-no-color"))
        return document

    def _text(self, *arguments: str) -> str:
        with _started(self, arguments) as process:
            stdout, stderr = process.communicate()
        if process.returncode:
            raise _failed(arguments[0], _without_frame(stderr or stdout))
        return stdout

    def _events(self, command: str, *arguments: str) -> Iterator[dict[str, Any]]:
        """Terraform's machine-readable lines; ImgpipeError with its own words when it fails."""
        errors = []
        with _started(self, (command, "-json", "-no-color", *arguments)) as process:
            assert process.stdout is not None  # noqa: S101  # it is a pipe
            for line in process.stdout:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # a provider may print what it likes
                if event.get("type") == "diagnostic" and event.get("@level") == "error":
                    errors.append(_diagnostic(event["diagnostic"]))
                yield event
            stderr = process.stderr.read() if process.stderr else ""
        if process.returncode:
            raise _failed(command, "\n".join(errors) or _without_frame(stderr))


def find(folder: Path, environ: Mapping[str, str]) -> Terraform:
    """Terraform on PATH, new enough; ConfigurationError when it is not there."""
    program = shutil.which("terraform", path=environ.get("PATH"))
    needed = ".".join(map(str, OLDEST))
    if program is None:
        raise ConfigurationError(
            "Terraform is not installed.",
            f"Install version {needed} or newer: https://developer.hashicorp.com/terraform/install",
            code="NO_TERRAFORM",
        )
    said = subprocess.run(
        [program, "version", "-json"], env=dict(environ), capture_output=True, text=True, check=False
    ).stdout
    version = re.search(r'"terraform_version":\s*"(\d+)\.(\d+)', said)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        found = f"{version[1]}.{version[2]}" if version else "an unknown version"
        raise ConfigurationError(
            f"{program} is Terraform {found}; {needed} or newer is needed.",
            "Install it: https://developer.hashicorp.com/terraform/install",
            code="NO_TERRAFORM",
        )
    folder.mkdir(parents=True, exist_ok=True)
    # Nobody is there to answer Terraform's own questions, and its hints speak of commands that nobody typed.
    return Terraform(program, folder, {**environ, "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"})


def changes(plan: Mapping[str, Any]) -> tuple[Change, ...]:
    """The changes in a plan's JSON, without what stays and what is only read."""
    found = []
    for resource in plan.get("resource_changes", ()):
        change = resource["change"]
        action = _action(change["actions"])
        if action is None or resource.get("mode") == "data":
            continue
        before, after = change.get("before") or {}, change.get("after") or {}
        unknown = change.get("after_unknown") or {}
        fields: tuple[str, ...] = ()
        if action in ("update", "replace"):
            names = sorted({*before, *after, *unknown})
            fields = tuple(name for name in names if unknown.get(name) or before.get(name) != after.get(name))
        shown = after or before
        name = shown.get("bucket") or shown.get("function_name") or shown.get("name") or shown.get("alarm_name")
        found.append(Change(action, resource["address"], name if isinstance(name, str) else None, fields))
    return tuple(found)


def _action(actions: Sequence[str]) -> str | None:
    match list(actions):
        case ["no-op"] | ["read"]:
            return None
        case [one]:
            return one
        case _:
            return "replace"


class _started:  # noqa: N801  # used like a function
    """A Terraform process that is always waited for.

    Ctrl-C reaches Terraform too, which then finishes what it has begun and writes its state. Killing it instead, as
    `subprocess.run` does, would lose track of resources that have just been made.
    """

    def __init__(self, terraform: Terraform, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [terraform.program, *arguments],
            cwd=terraform.folder,
            env=dict(terraform.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )

    def __enter__(self) -> subprocess.Popen[str]:
        return self._process

    def __exit__(self, *_: object) -> None:
        while self._process.returncode is None:
            try:
                self._process.communicate()
            except KeyboardInterrupt:
                continue  # Terraform has heard it as well; a second one makes it stop at once


def _diagnostic(diagnostic: Mapping[str, Any]) -> str:
    where = diagnostic.get("address")
    text = ": ".join(part for part in (diagnostic.get("summary"), diagnostic.get("detail")) if part)
    return f"{where}: {text}" if where else text


def _failed(command: str, said: str) -> ImgpipeError:
    return ImgpipeError(f"terraform {command} failed: {said}", "", code="TERRAFORM_FAILED")


def _without_frame(text: str) -> str:
    """Terraform draws boxes around its messages."""
    lines = (re.sub(r"^[\u2577\u2502\u2575] ?", "", line).strip() for line in text.splitlines())
    return " ".join(line for line in lines if line)
