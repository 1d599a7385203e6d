"""`imgpipe deploy` applies the whole stack, once, in an emulator that enforces IAM; what is then there is looked at.

One test after the other, in this order: the last one destroys.
"""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from PIL import Image

import terraform_tools
from enforcing_emulator import environment as emulator_environment
from pipeline_cli.aws import Clients
from pipeline_cli.local.stack import create_stack
from pipeline_cli.pipeline import packaging
from pipeline_contract.events import Source
from pipeline_contract.failures import FailureCode, PipelineError
from pipeline_contract.messages import Error, MetadataMessage, Op, Trace
from stack_description import described

pytestmark = [pytest.mark.terraform, pytest.mark.emulator, pytest.mark.slow]

NAME = "image-pipeline-dev"  # as Terraform's defaults have it
PATIENCE = 120.0  # seconds; the machine may be busy
SERVICES = ("s3", "sqs", "dynamodb", "lambda", "iam", "logs", "ssm", "sns", "cloudwatch", "kms")


@dataclass
class World:
    """The emulator, a user's home, and the deployment in it."""

    environ: dict[str, str]
    folder: Path
    aws: dict[str, Any]
    outputs: dict[str, str]

    def imgpipe(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "pipeline_cli", *arguments]
        return subprocess.run(command, env=self.environ, cwd=self.folder, capture_output=True, text=True, check=False)

    def terraform(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        module = self.folder / "home/data/deployments" / NAME
        return terraform_tools.terraform(module, self.environ, *arguments)

    def put(self, key: str, data: bytes) -> None:
        self.aws["s3"].put_object(Bucket=self.outputs["upload_bucket_name"], Key=key, Body=data)

    def item(self, key: str) -> dict[str, Any] | None:
        source = Source(self.outputs["upload_bucket_name"], key)
        answer = self.aws["dynamodb"].get_item(
            TableName=self.outputs["dynamodb_table_name"], Key={"imageId": {"S": source.image_id}}
        )
        found: dict[str, Any] | None = answer.get("Item")
        return found

    def wait_for_item(self, key: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if (found := self.item(key)) is not None:
                return found
            time.sleep(0.2)
        raise AssertionError(f"no item of {key} within {PATIENCE} s")

    def invoke(self, function: str, event: Any) -> tuple[bool, Any]:
        """Whether the function ended without an error, and its answer."""
        answer = self.aws["lambda"].invoke(FunctionName=function, Payload=json.dumps(event).encode())
        return "FunctionError" not in answer, json.loads(answer["Payload"].read())


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((640, 480), 50).convert("RGB").save(out, "JPEG")
    return out.getvalue()


@contextlib.contextmanager
def enforcing_emulator(folder: Path) -> Iterator[dict[str, str]]:
    """The emulator over HTTPS with IAM enforced; gives what a client needs to know of it in its environment."""
    folder.mkdir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt")),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"),
        ],
        check=True,
        capture_output=True,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).with_name("enforcing_emulator.py")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(script), str(port), str(folder)],
            env=emulator_environment(port, folder),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}",
            "AWS_CA_BUNDLE": str(folder / "server.crt"),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The stack, applied by `imgpipe deploy` with zips for this machine's Python and state in a new S3 bucket."""
    folder = tmp_path_factory.mktemp("world")
    terraform_tools.initialised(tmp_path_factory.mktemp("probe"))  # skips where Terraform or its provider is not
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here to make the emulator's certificate")
    host = f"{sys.version_info.major}.{sys.version_info.minor}"
    arch = packaging.host_arch()
    list(packaging.build(folder / "zips", arch=arch, runtime=host))
    with enforcing_emulator(folder / "emulator") as aws:
        environ = {**terraform_tools.environment(folder), **aws, "IMGPIPE_HOME": str(folder / "home")}
        settings = {
            "endpoint_url": aws["AWS_ENDPOINT_URL"],
            "verify": aws["AWS_CA_BUNDLE"],
            "region_name": "us-east-1",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
        }
        clients = {service: boto3.client(service, **settings) for service in SERVICES}
        made = World(environ, folder, clients, {})
        result = made.imgpipe(
            "deploy",
            "--yes",
            *("--var", f"architecture={arch}"),
            *("--zips", str(folder / "zips")),
            *("--state", "s3://terraform-state-of-tests/imgpipe"),
        )
        assert result.returncode == 0, result.stderr
        outputs = made.imgpipe("outputs", "--output", "json")
        made.outputs = {name: entry["value"] for name, entry in json.loads(outputs.stdout).items()}
        assert "Deployed." in result.stderr
        yield made


def test_the_state_is_in_s3_and_private(world: World) -> None:
    s3 = world.aws["s3"]
    bucket = "terraform-state-of-tests"
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    state = json.loads(s3.get_object(Bucket=bucket, Key=f"imgpipe/{NAME}/terraform.tfstate")["Body"].read())
    assert state["outputs"]["upload_bucket_name"]["value"] == world.outputs["upload_bucket_name"]
    assert not list((world.folder / "home/data/deployments" / NAME).glob("*.tfstate"))


def test_a_second_plan_changes_nothing(world: World) -> None:
    plan = world.terraform("plan", "-input=false", "-detailed-exitcode")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    again = world.imgpipe("deploy", "--plan", "--zips", str(world.folder / "zips"), "--output", "json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == []


def test_the_outputs_are_those_that_terraform_prints_and_ssm_holds(world: World, tmp_path: Path) -> None:
    document = json.loads(world.terraform("output", "-json").stdout)
    assert {name: entry["value"] for name, entry in document.items() if entry["value"] is not None} == world.outputs
    held = world.aws["ssm"].get_parameter(Name=f"/imgpipe/{NAME}/outputs")["Parameter"]["Value"]
    assert {name: entry["value"] for name, entry in json.loads(held).items()} == world.outputs
    # A machine that knows nothing but its credentials and the name.
    stranger = {**world.environ, "IMGPIPE_HOME": str(tmp_path / "another home")}
    command = [sys.executable, "-m", "pipeline_cli", "-d", NAME, "outputs", "image_dlq_url"]
    result = subprocess.run(command, env=stranger, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == world.outputs["image_dlq_url"], result.stderr
    # What people used to write down.
    text = tmp_path / "outputs.txt"
    text.write_text(world.terraform("output").stdout)
    stranger["IMGPIPE_OUTPUTS"] = str(text)
    command = [sys.executable, "-m", "pipeline_cli", "outputs", "--output", "json"]
    result = subprocess.run(command, env=stranger, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert {name: entry["value"] for name, entry in json.loads(result.stdout).items()} == world.outputs


def test_an_image_becomes_an_item_and_a_corrupt_one_a_dead_letter(world: World, tmp_path: Path) -> None:
    """With IAM enforced: the policies allow what the functions do."""
    good, corrupt = tmp_path / "good photo.jpg", tmp_path / "corrupt.jpg"
    good.write_bytes(jpeg())
    corrupt.write_bytes(jpeg()[:2000])
    result = world.imgpipe("upload", str(good), str(corrupt))
    assert result.returncode == 0, result.stderr
    item = world.wait_for_item("good photo.jpg")
    assert item["status"]["S"] == "COMPLETED"
    thumbnail = world.aws["s3"].get_object(Bucket=world.outputs["thumbnail_bucket_name"], Key=item["thumbnailKey"]["S"])
    with Image.open(io.BytesIO(thumbnail["Body"].read())) as image:
        assert max(image.size) == 200
    assert world.wait_for_item("corrupt.jpg")["errorCode"]["S"] == "TRUNCATED"
    listed = world.imgpipe("dlq", "list", "--output", "json")
    assert [(entry["key"], entry["code"]) for entry in json.loads(listed.stdout)] == [("corrupt.jpg", "TRUNCATED")]


def test_every_permission_is_needed(world: World) -> None:
    """Each statement of a function's policy is taken away in turn, and the function must then fail.

    Not TakeMetadata, WriteLogs and Trace: the emulator itself polls, logs and traces.
    """
    processor, writer = world.outputs["image_processor_function_name"], world.outputs["db_writer_function_name"]
    world.put("needed.jpg", jpeg())
    world.wait_for_item("needed.jpg")
    without = {
        (processor, "ReadUploads"): upload_event(world, "needed.jpg"),
        (processor, "ListBuckets"): upload_event(world, "never-there.jpg"),
        (processor, "KeepThumbnails"): upload_event(world, "needed.jpg"),
        (processor, "SendMetadataAndFailures"): upload_event(world, "needed.jpg"),
        (writer, "SendFailures"): {"Records": [{"messageId": "m-1", "body": "no metadata", "attributes": {}}]},
        (writer, "WriteItems"): {"Records": [{"messageId": "m-2", "body": failed_message(world), "attributes": {}}]},
    }
    for (function, statement), event in without.items():
        ok, answer = world.invoke(function, event)
        assert works(ok, answer), f"{function} with all its permissions: {answer}"
        with taken_away(world, function, statement):
            ok, answer = world.invoke(function, event)
            assert not works(ok, answer), f"{function} works without {statement}: it should not have it"
    sids = {sid for function in (processor, writer) for sid in policy(world, function)}
    assert sids == {sid for _, sid in without} | {"TakeMetadata", "WriteLogs", "Trace"}


def works(ok: bool, answer: Any) -> bool:
    return ok and not answer.get("batchItemFailures")


def upload_event(world: World, key: str) -> dict[str, Any]:
    bucket = {"name": world.outputs["upload_bucket_name"]}
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "Records": [
            {"eventName": "ObjectCreated:Put", "eventTime": now, "s3": {"bucket": bucket, "object": {"key": key}}}
        ]
    }


def failed_message(world: World) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    source = Source(world.outputs["upload_bucket_name"], "gone.jpg", event_time=now)
    error = Error.of(PipelineError(FailureCode.CORRUPT, "made up"))
    return MetadataMessage(Op.FAIL, source, Trace("request", "test"), error=error, observed_at=now).to_json()


def policy(world: World, function: str) -> dict[str, Any]:
    document = world.aws["iam"].get_role_policy(RoleName=function, PolicyName="pipeline")["PolicyDocument"]
    document = document if isinstance(document, dict) else json.loads(document)
    return {statement["Sid"]: statement for statement in document["Statement"]}


@contextlib.contextmanager
def taken_away(world: World, function: str, sid: str) -> Iterator[None]:
    whole = policy(world, function)

    def put(statements: list[Any]) -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        world.aws["iam"].put_role_policy(RoleName=function, PolicyName="pipeline", PolicyDocument=document)

    put([statement for name, statement in whole.items() if name != sid])
    try:
        yield
    finally:
        put(list(whole.values()))


def test_plain_http_is_refused_by_every_bucket_and_queue(world: World) -> None:
    """As written down; the emulator has no plain port to try."""
    s3, sqs = world.aws["s3"], world.aws["sqs"]
    buckets = [world.outputs[name] for name in ("upload_bucket_name", "thumbnail_bucket_name")]
    queues = [world.outputs[name] for name in ("metadata_queue_url", "dlq_url", "image_dlq_url")]
    documents = [s3.get_bucket_policy(Bucket=bucket)["Policy"] for bucket in buckets]
    for queue in queues:
        answer = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["Policy"])
        documents.append(answer["Attributes"]["Policy"])
    for document in documents:
        (statement,) = json.loads(document)["Statement"]
        assert statement["Effect"] == "Deny"
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# Pages of the AWS console; limits that are not set; HEIC, which is there when this machine's Python has it.
NOT_LOCAL_OUTPUTS = {"dashboard_url", "logs_url", "max_pixels", "max_bytes", "heic"}


def test_the_local_stack_is_the_same(world: World) -> None:
    prefix = "twin"
    account = world.outputs["upload_bucket_name"].rpartition("-")[2]
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    for function in ("image-processor", "db-writer"):  # the emulator, when it enforces IAM, wants them to exist
        world.aws["iam"].create_role(
            RoleName=f"{prefix}-{function}",
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        )
    clients = Clients(profile=None, region="us-east-1")
    for service, client in world.aws.items():
        clients.__dict__["lambda_" if service == "lambda" else service] = client
    twin = create_stack(clients, prefix=prefix, account=account, region="us-east-1")
    assert set(world.outputs) - NOT_LOCAL_OUTPUTS - set(twin) == set(), "outputs that the local stack lacks"
    applied = described(world.aws, world.outputs, NAME)
    local = described(world.aws, twin, prefix)
    assert set(applied) == set(local)
    for part, description in applied.items():
        assert local[part] == description, part


def test_a_protected_table_stops_the_destruction_before_it_begins(world: World) -> None:
    table = world.outputs["dynamodb_table_name"]
    world.aws["dynamodb"].update_table(TableName=table, DeletionProtectionEnabled=True)
    result = world.imgpipe("-d", NAME, "destroy", "--yes")
    assert result.returncode == 3
    assert "deletion protection" in result.stderr
    assert "table_deletion_protection=false" in result.stderr
    assert world.aws["s3"].list_objects_v2(Bucket=world.outputs["upload_bucket_name"])["KeyCount"] > 0
    world.aws["dynamodb"].update_table(TableName=table, DeletionProtectionEnabled=False)


def test_destroy_leaves_nothing(world: World) -> None:
    asked = world.imgpipe("-d", NAME, "destroy")
    assert asked.returncode == 2, "nobody was there to type the name"
    result = world.imgpipe("-d", NAME, "destroy", "--yes")
    assert result.returncode == 0, result.stderr
    assert remains(world) == []
    assert list((world.folder / "home/data/deployments").iterdir()) == []
    gone = world.imgpipe("-d", NAME, "outputs")
    assert gone.returncode == 3


def remains(world: World) -> list[str]:
    """The names of whatever is still there of the deployment; keys that wait for their deletion aside."""
    aws = world.aws
    names = [
        *(bucket["Name"] for bucket in aws["s3"].list_buckets()["Buckets"]),
        *aws["sqs"].list_queues().get("QueueUrls", []),
        *aws["dynamodb"].list_tables()["TableNames"],
        *(function["FunctionName"] for function in aws["lambda"].list_functions()["Functions"]),
        *(mapping["EventSourceArn"] for mapping in aws["lambda"].list_event_source_mappings()["EventSourceMappings"]),
        *(group["logGroupName"] for group in aws["logs"].describe_log_groups()["logGroups"]),
        *(role["RoleName"] for role in aws["iam"].list_roles()["Roles"]),
        *(topic["TopicArn"] for topic in aws["sns"].list_topics()["Topics"]),
        *(alarm["AlarmName"] for alarm in aws["cloudwatch"].describe_alarms()["MetricAlarms"]),
        *(board["DashboardName"] for board in aws["cloudwatch"].list_dashboards()["DashboardEntries"]),
        *(parameter["Name"] for parameter in aws["ssm"].describe_parameters()["Parameters"]),
        *(alias["AliasName"] for alias in aws["kms"].list_aliases()["Aliases"]),
    ]
    return [name for name in names if NAME in name]
