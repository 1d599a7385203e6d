"""Deploying the pipeline on AWS: a folder for each deployment, its variables, its state, and a look at the result."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_cli.errors import UsageError
from pipeline_cli.paths import data_home
from pipeline_cli.pipeline.packaging import source_folder

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client

    from pipeline_cli.deployment import Deployment

VARIABLES_FILE = "imgpipe.auto.tfvars.json"
_SETTINGS_FILE = "deployment.json"
_BACKEND_FILE = "imgpipe_backend.tf"
_DEFAULTS = {"project_name": "image-pipeline", "environment": "dev", "architecture": "arm64"}  # as in variables.tf


@dataclass(frozen=True, slots=True)
class State:
    """Where Terraform's state lies: in an S3 bucket under a prefix, or in the deployment's folder (None)."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, text: str) -> "State":
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/*", text)
        if match is None:
            raise UsageError(f"--state {text} is not an S3 address.", "As in: --state s3://my-terraform-state/imgpipe")
        return cls(match[1], match[2] or "")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    def key(self, deployment: str, file: str) -> str:
        return "/".join(part for part in (self.prefix, deployment, file) if part)

    def backend(self, deployment: str, region: str) -> dict[str, str]:
        """What `terraform init` is told. The lock is a file beside the state; no table is needed."""
        return {
            "bucket": self.bucket,
            "key": self.key(deployment, "terraform.tfstate"),
            "region": region,
            "encrypt": "true",
            "use_lockfile": "true",
        }


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folder of one deployment: a copy of the module, its variables, its zips, and its state unless in S3."""

    name: str
    folder: Path

    @classmethod
    def of(cls, name: str, environ: Mapping[str, str]) -> "Workplace":
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
            raise UsageError(
                f"{name!r} is no name for a deployment.", "Use lower-case letters, digits and hyphens, as in: -d prod"
            )
        if name == "local":
            raise UsageError("local is the pipeline on this machine.", "Start it: imgpipe local up")
        return cls(name, data_home(environ) / "deployments" / name)

    @property
    def zips(self) -> Path:
        return self.folder / "build"

    def variables(self) -> dict[str, Any]:
        """The variables of the last deploy; none before the first."""
        found: dict[str, Any] = self._remembered().get("variables", {})
        return found

    def state(self) -> State | None:
        """Where the last deploy kept its state; None for this folder, or before the first."""
        text = self._remembered().get("state")
        return State.parse(text) if text else None

    def is_new(self) -> bool:
        """Whether nothing was deployed from here yet."""
        return not self._remembered()

    def prepare(self, variables: Mapping[str, Any], state: State | None) -> None:
        """Brings the module's present release and the variables into the folder; state in it stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.tf"):
            old.unlink()
        for file in source_folder("terraform").glob("*.tf"):
            shutil.copyfile(file, self.folder / file.name)
        # A lock file of another release may name another provider; the versions are pinned in versions.tf.
        (self.folder / ".terraform.lock.hcl").unlink(missing_ok=True)
        if state is not None:
            (self.folder / _BACKEND_FILE).write_text('terraform {\n  backend "s3" {}\n}\n')
        _write_json(self.folder / VARIABLES_FILE, dict(variables))

    def remember(self, variables: Mapping[str, Any], state: State | None) -> None:
        """What the next deploy and a destroy start from; written before the first change, so that none is orphaned."""
        kept = {name: value for name, value in variables.items() if name != "lambda_zip_dir"}
        settings = {"state": None if state is None else str(state), "variables": kept}
        _write_json(self.folder / _SETTINGS_FILE, settings)

    def _remembered(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / _SETTINGS_FILE).read_text())
        except FileNotFoundError:
            return {}
        return found

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def parse_variables(pairs: Iterable[str]) -> dict[str, Any]:
    """`name=value` pairs as Terraform's variables: lists, maps and null as JSON, anything else as text.

    UsageError for a name that the module does not have.
    """
    known = module_variables()
    variables: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"--var {pair} has no value.", "As in: --var thumbnail_size=320")
        if name not in known:
            raise UsageError(f"There is no variable {name}.", f"Known: {', '.join(known)}")
        variables[name] = _value(name, value)
    return variables


def module_variables() -> tuple[str, ...]:
    """The variables that the module has."""
    text = (source_folder("terraform") / "variables.tf").read_text()
    names = re.findall(r'^variable "(\w+)"', text, re.MULTILINE)
    return tuple(name for name in names if name != "lambda_zip_dir")


def name_prefix(variables: Mapping[str, Any]) -> str:
    """The first part of every resource's name, and of a deployment that was given no other."""
    return "{project_name}-{environment}".format_map({**_DEFAULTS, **variables})


def architecture(variables: Mapping[str, Any]) -> str:
    return str(variables.get("architecture") or _DEFAULTS["architecture"])


def heic(variables: Mapping[str, Any]) -> bool:
    return str(variables.get("heic", "")).lower() == "true"


def _value(name: str, text: str) -> Any:
    if text != "null" and not text.startswith(("[", "{")):
        return text  # Terraform makes numbers and booleans of it
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--var {name}: {text} is not JSON: {error}", f"As in: --var '{name}=[400, 800]'") from error


def bucket_region(s3: "S3Client", bucket: str) -> str | None:
    """Where a bucket is; None when there is none of the name."""
    from botocore.exceptions import ClientError

    try:
        answer = s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return None
        raise
    region: str = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region") or s3.meta.region_name
    return region


def make_state_bucket(s3: "S3Client", bucket: str, region: str) -> None:
    """A private, versioned, encrypted bucket for Terraform's state."""
    if region == "us-east-1":  # S3 refuses to hear the name of its first region
        s3.create_bucket(Bucket=bucket)
    else:
        location: Any = {"LocationConstraint": region}
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=location)
    s3.get_waiter("bucket_exists").wait(Bucket=bucket)
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    tls_only = {
        "Sid": "DenyPlainHttp",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [tls_only]}))


def save_variables(s3: "S3Client", state: State, name: str, variables: Mapping[str, Any]) -> None:
    """Keeps the variables beside the state, so that another machine deploys the same thing."""
    kept = {key: value for key, value in variables.items() if key != "lambda_zip_dir"}
    s3.put_object(Bucket=state.bucket, Key=state.key(name, VARIABLES_FILE), Body=json.dumps(kept, indent=2).encode())


def load_variables(s3: "S3Client", state: State, name: str) -> dict[str, Any]:
    """The variables that a deploy from any machine kept beside the state; none at the first deploy."""
    from botocore.exceptions import ClientError

    try:
        answer = s3.get_object(Bucket=state.bucket, Key=state.key(name, VARIABLES_FILE))
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket"):
            return {}
        raise
    found: dict[str, Any] = json.loads(answer["Body"].read())
    return found


def forget_variables(s3: "S3Client", state: State, name: str) -> None:
    """The deployment is gone; its empty state stays, with its history, in a versioned bucket."""
    s3.delete_object(Bucket=state.bucket, Key=state.key(name, VARIABLES_FILE))


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was looked at after a deploy. `detail` says what is wrong, or what was seen."""

    name: str
    ok: bool
    detail: str


def verify(lambda_: "LambdaClient", s3: "S3Client", deployment: "Deployment") -> Iterator[Check]:
    """Whether the deployed pipeline would work: functions answer, the queue feeds its function, uploads are told of."""
    # Events in which there is nothing to do: what S3 sends when a notification is made, and an empty batch.
    yield _answers(lambda_, deployment.processor_function, {"Service": "Amazon S3", "Event": "s3:TestEvent"})
    yield _answers(lambda_, deployment.writer_function, {"Records": []})
    mappings = lambda_.list_event_source_mappings(FunctionName=deployment.writer_function)["EventSourceMappings"]
    states = ", ".join(mapping["State"] for mapping in mappings) or "missing"
    # A new mapping needs up to a minute; Creating and Enabling end in Enabled.
    ok = any(mapping["State"] in ("Enabled", "Creating", "Enabling", "Updating") for mapping in mappings)
    yield Check("the metadata queue feeds the database writer", ok, states)
    told = s3.get_bucket_notification_configuration(Bucket=deployment.upload_bucket)
    targets = [entry["LambdaFunctionArn"] for entry in told.get("LambdaFunctionConfigurations", [])]
    ok = any(target.endswith(f":{deployment.processor_function}") for target in targets)
    yield Check("uploads call the image processor", ok, ", ".join(targets) or "no notification")


def _answers(lambda_: "LambdaClient", function: str, event: Mapping[str, Any]) -> Check:
    lambda_.get_waiter("function_active_v2").wait(FunctionName=function)
    answer = lambda_.invoke(FunctionName=function, Payload=json.dumps(event).encode())
    said = answer["Payload"].read().decode("utf-8", "replace")
    return Check(f"{function} answers", "FunctionError" not in answer, said[:500])


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n")
