"""Where the pipeline is: which deployment a command talks to, and the names of its resources.

Every source yields the same document, in the shape of `terraform output -json`:
`{"upload_bucket_name": {"value": "..."}, ...}`.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_cli.errors import ConfigurationError, ExitCode, from_aws
from pipeline_cli.paths import cache_home, config_home, data_home

LOCAL = "local"
CACHED_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """One pipeline. `outputs` holds the values of its outputs document, `source` says where that was found."""

    name: str
    source: str
    outputs: Mapping[str, str]
    endpoint_url: str | None = None  # the emulator's

    @property
    def region(self) -> str | None:
        return self.outputs.get("aws_region")

    @property
    def upload_bucket(self) -> str:
        return self.output("upload_bucket_name")

    @property
    def thumbnail_bucket(self) -> str:
        return self.output("thumbnail_bucket_name")

    @property
    def metadata_queue_url(self) -> str:
        return self.output("metadata_queue_url")

    @property
    def metadata_dlq_url(self) -> str:
        return self.output("dlq_url")

    @property
    def image_dlq_url(self) -> str:
        return self.output("image_dlq_url")

    @property
    def table(self) -> str:
        return self.output("dynamodb_table_name")

    @property
    def processor_function(self) -> str:
        return self.output("image_processor_function_name")

    @property
    def writer_function(self) -> str:
        return self.output("db_writer_function_name")

    @property
    def alarm_topic_arn(self) -> str:
        return self.output("alarm_topic_arn")

    @property
    def name_prefix(self) -> str:
        return self.output("name_prefix")

    @property
    def upload_day_shards(self) -> int:
        """Into how many partitions UploadDateIndex spreads a day (Terraform variable of this name)."""
        return int(self.outputs.get("upload_day_shards", "1"))

    def log_group(self, function: str) -> str:
        return f"/aws/lambda/{function}"

    def describe(self) -> str:
        """The deployment in a few words: what a command that changes something says."""
        where = self.endpoint_url or self.region
        return f"deployment {self.name}, {where}" if where else f"deployment {self.name}"

    def output(self, name: str) -> str:
        """One output by its Terraform name; ConfigurationError when the deployment has none of it."""
        value = self.outputs.get(name)
        if not value:
            raise ConfigurationError(
                f"Deployment {self.name} has no output {name} ({self.source}).",
                "Deploy it again with this release: imgpipe deploy",
                code="OUTPUT_MISSING",
            )
        return value


@dataclass(frozen=True, slots=True)
class Parameters:
    """The outputs documents that deployments keep in SSM, as `/imgpipe/<name_prefix>/outputs`.

    `read` gives a parameter's value, None where there is none. Answers are kept for ten minutes, by `scope`: the same
    name may be another deployment in another account or region.
    """

    read: Callable[[str], str | None]
    scope: str
    now: Callable[[], float]
    environ: Mapping[str, str]

    def find(self, name: str) -> Deployment | None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            return None  # no name of a parameter
        source = f"/imgpipe/{name}/outputs"
        digest = hashlib.sha256(f"{self.scope}\0{name}".encode()).hexdigest()[:16]
        file = _cache(self.environ) / f"{digest}.json"
        text = _fresh(file, self.now())
        if text is None:
            text = self.read(source)
            if text is None:
                return None
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        try:
            return Deployment(name, source, values(json.loads(text), source))
        except ValueError as error:
            raise ConfigurationError(f"{source} is not JSON: {error}", code="OUTPUTS_UNREADABLE") from error


def forget_cached(environ: Mapping[str, str]) -> None:
    """What SSM said is asked again: something that it named was not there."""
    shutil.rmtree(_cache(environ), ignore_errors=True)


def _cache(environ: Mapping[str, str]) -> Path:
    return cache_home(environ) / "deployments"


def find(
    name: str | None,
    *,
    environ: Mapping[str, str] = os.environ,
    directory: Path,
    parameters: Parameters | None = None,
) -> Deployment:
    """The deployment to talk to: `name` (-d), IMGPIPE_OUTPUTS, IMGPIPE_DEPLOYMENT, `imgpipe use`, or a `terraform/`
    folder from `directory` upward, in this order.

    ConfigurationError when there is none, or when the one named cannot be read.
    """
    if name:
        return named(name, environ=environ, parameters=parameters)
    if outputs := environ.get("IMGPIPE_OUTPUTS"):
        return from_file(Path(outputs))
    if chosen := environ.get("IMGPIPE_DEPLOYMENT") or used(environ):
        return named(chosen, environ=environ, parameters=parameters)
    for folder in (directory, *directory.parents):
        if (found := _from_terraform(folder / "terraform", environ)) is not None:
            return found
    raise ConfigurationError(
        "No deployment was found.",
        "Name one with -d NAME or IMGPIPE_DEPLOYMENT, choose one for good with imgpipe use NAME, "
        "give its outputs with IMGPIPE_OUTPUTS=FILE, make one with imgpipe deploy, "
        "or try the pipeline on this machine: imgpipe local up --detach && imgpipe use local",
        code="NO_DEPLOYMENT",
    )


def named(name: str, *, environ: Mapping[str, str], parameters: Parameters | None = None) -> Deployment:
    """A deployment by its name: `local`, one that this machine knows, or one that the account's SSM knows."""
    if name == LOCAL:
        return local(environ)
    record = registered(environ).get(name)
    if record is not None:
        return from_file(Path(record), name=name)
    known = ", ".join([LOCAL, *registered(environ)])
    if parameters is not None:
        try:
            found = parameters.find(name)
        except Exception as error:
            why = from_aws(error)
            if why is None or why.exit_code is not ExitCode.CONFIGURATION:
                raise
            raise ConfigurationError(
                f"This machine knows no deployment {name}, and AWS could not be asked: {why.message}",
                f"Known on this machine: {known}. {why.hint}",
                code="NO_DEPLOYMENT",
            ) from error
        if found is not None:
            return found
    asked = "" if parameters is None else f" The AWS account has no parameter /imgpipe/{name}/outputs either."
    raise ConfigurationError(
        f"There is no deployment {name}.{asked}",
        f"Known on this machine: {known}. See: imgpipe use",
        code="NO_DEPLOYMENT",
    )


def local(environ: Mapping[str, str]) -> Deployment:
    """The pipeline that `imgpipe local up` runs on this machine."""
    folder = data_home(environ) / LOCAL
    try:
        endpoint = json.loads((folder / "endpoint.json").read_text())["endpoint_url"]
    except FileNotFoundError as error:
        raise ConfigurationError(
            "The local pipeline is not running.", "Start it: imgpipe local up --detach", code="LOCAL_DOWN"
        ) from error
    return from_file(folder / "outputs.json", name=LOCAL, endpoint_url=endpoint)


def used(environ: Mapping[str, str]) -> str | None:
    """The deployment that `imgpipe use` chose."""
    try:
        return (config_home(environ) / "use").read_text().strip() or None
    except FileNotFoundError:
        return None


def use(name: str, environ: Mapping[str, str]) -> None:
    """Makes `name` the deployment of this user from now on."""
    file = config_home(environ) / "use"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(name + "\n")


def registered(environ: Mapping[str, str]) -> dict[str, str]:
    """The deployments known on this machine: name to the file of its outputs document."""
    folder = config_home(environ) / "deployments"
    return {file.stem: str(file) for file in sorted(folder.glob("*.json"))}


def register(name: str, document: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Remembers a deployment under its name."""
    file = config_home(environ) / "deployments" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2) + "\n")


def forget(name: str, environ: Mapping[str, str]) -> None:
    """The deployment is gone."""
    (config_home(environ) / "deployments" / f"{name}.json").unlink(missing_ok=True)
    if used(environ) == name:
        (config_home(environ) / "use").unlink(missing_ok=True)
    forget_cached(environ)


def from_file(file: Path, *, name: str = "", endpoint_url: str | None = None) -> Deployment:
    """The deployment that an outputs document describes."""
    try:
        text = file.read_text()
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"The outputs document {file} is not there.",
            "Write it with: terraform output -json > FILE, or imgpipe -d NAME outputs --output json > FILE; "
            "IMGPIPE_OUTPUTS names it",
            code="OUTPUTS_UNREADABLE",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{file} is no text, and so no outputs document.",
            "Write it with: terraform output -json > FILE",
            code="OUTPUTS_UNREADABLE",
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"The outputs document {file} cannot be read: {error.strerror}.",
            "IMGPIPE_OUTPUTS names the file that terraform output -json > FILE writes",
            code="OUTPUTS_UNREADABLE",
        ) from error
    try:
        document = _from_text(text) or json.loads(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{file} is not JSON: {error}",
            "Write it with: terraform output -json > outputs.json",
            code="OUTPUTS_UNREADABLE",
        ) from error
    outputs = values(document, str(file))
    return Deployment(name or outputs.get("name_prefix") or file.stem, str(file), outputs, endpoint_url)


def values(document: Any, source: str) -> dict[str, str]:
    """The plain values of an outputs document; ConfigurationError when it is none."""
    if not isinstance(document, Mapping) or not document:
        raise ConfigurationError(
            f"{source} is not an outputs document.",
            "It has the shape of: terraform output -json",
            code="OUTPUTS_UNREADABLE",
        )
    return {
        name: str(entry["value"])
        for name, entry in document.items()
        if isinstance(entry, Mapping) and entry.get("value") is not None
    }


def _from_text(text: str) -> dict[str, Any]:
    """The document in what `terraform output` prints without -json: `name = "value"` on each line; empty if it is not.

    Outputs that are no text are left out: imgpipe has none.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    matches = [re.fullmatch(r'(\w+)\s*=\s*(?:"(.*)"|(.*))', line) for line in lines]
    # HCL escapes as JSON does, and $ and % of a template by doubling them.
    return {
        match[1]: {"value": json.loads(f'"{match[2]}"').replace("$${", "${").replace("%%{", "%{")}
        for match in matches
        if match is not None and match[2] is not None
    }


def _from_terraform(folder: Path, environ: Mapping[str, str]) -> Deployment | None:
    """A Terraform folder: the outputs lie in its state file, which is faster than terraform, unless the state is
    elsewhere."""
    state = folder / "terraform.tfstate"
    if state.is_file():
        document = json.loads(state.read_text()).get("outputs")
    elif (folder / ".terraform/terraform.tfstate").is_file():  # says which backend has the state
        document = _backend_outputs(folder, environ)
    else:
        return None
    if not document:
        return None
    outputs = values(document, str(folder))
    return Deployment(outputs.get("name_prefix") or folder.parent.name, str(folder), outputs)


def _backend_outputs(folder: Path, environ: Mapping[str, str]) -> Any:
    """What Terraform says of state that is not in its folder; kept for ten minutes, as it takes seconds."""
    file = _cache(environ) / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.json"
    if (cached := _fresh(file, time.time())) is not None:
        return json.loads(cached)
    command = ["terraform", f"-chdir={folder}", "output", "-json", "-no-color"]
    import subprocess  # most runs read no Terraform state

    try:
        result = subprocess.run(command, env=dict(environ), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{folder} keeps its state elsewhere, and terraform is not here to ask.",
            "Install Terraform, or name the deployment: -d NAME",
            code="NO_TERRAFORM",
        ) from error
    if result.returncode:
        said = " ".join(result.stderr.split())
        raise ConfigurationError(f"terraform output in {folder} failed: {said}", code="TERRAFORM_FAILED")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(result.stdout)
    return json.loads(result.stdout)


def _fresh(file: Path, now: float) -> str | None:
    """What is remembered in a file of the cache, unless it is too old."""
    try:
        return file.read_text() if 0 <= now - file.stat().st_mtime < CACHED_SECONDS else None
    except FileNotFoundError:
        return None
