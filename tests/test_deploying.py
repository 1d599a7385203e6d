"""Deploying and destroying, part by part, without Terraform: variables, state, plans, emptying, questions."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from pipeline_cli import deployment as deployments
from pipeline_cli.app import run
from pipeline_cli.commands import deploy as deploy_command
from pipeline_cli.commands import destroy as destroy_command
from pipeline_cli.context import Context
from pipeline_cli.deployment import Deployment
from pipeline_cli.errors import ConfigurationError, ImgpipeError, UsageError
from pipeline_cli.pipeline.deploying import deploy as deploying
from pipeline_cli.pipeline.deploying import destroy as destroying
from pipeline_cli.pipeline.deploying import terraform
from terraform_tools import program

OUTPUTS = {
    "aws_region": "eu-central-1",
    "upload_bucket_name": "uploads",
    "thumbnail_bucket_name": "thumbs",
    "dynamodb_table_name": "images",
    "dashboard_url": "https://console/dashboard",
    "logs_url": "https://console/logs",
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"IMGPIPE_HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}


@pytest.fixture
def s3() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("s3", region_name="us-east-1")


# Variables and state


def test_variables_are_what_terraform_takes() -> None:
    pairs = ["thumbnail_size=320", "extra_thumbnail_sizes=[400, 800]", "max_pixels=null", 'tags={"team": "a=b"}']
    assert deploying.parse_variables(pairs) == {
        "thumbnail_size": "320",
        "extra_thumbnail_sizes": [400, 800],
        "max_pixels": None,
        "tags": {"team": "a=b"},
    }


@pytest.mark.parametrize("pair", ["thumbnail_size", "thumbnailsize=3", "lambda_zip_dir=/x", "tags={a}"])
def test_variables_that_cannot_be_meant(pair: str) -> None:
    with pytest.raises(UsageError):
        deploying.parse_variables([pair])


def test_defaults_are_those_of_the_module() -> None:
    """Three of them are known before Terraform runs; they must not drift."""
    text = (deploying.source_folder("terraform") / "variables.tf").read_text()
    for name, value in deploying._DEFAULTS.items():
        block = text.split(f'variable "{name}" {{')[1].split("\n}")[0]
        assert f'= "{value}"' in block
    assert deploying.name_prefix({"environment": "prod"}) == "image-pipeline-prod"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("s3://team-states", "prod/terraform.tfstate"),
        ("s3://team-states/", "prod/terraform.tfstate"),
        ("s3://team-states/a/b/", "a/b/prod/terraform.tfstate"),
    ],
)
def test_state_in_s3_is_locked_and_encrypted(text: str, key: str) -> None:
    state = deploying.State.parse(text)
    assert state.backend("prod", "eu-central-1") == {
        "bucket": "team-states",
        "key": key,
        "region": "eu-central-1",
        "encrypt": "true",
        "use_lockfile": "true",
    }
    assert deploying.State.parse(str(state)) == state


@pytest.mark.parametrize("text", ["team-states", "s3://", "s3://Upper/x", "https://states/x", "s3:///x"])
def test_what_is_no_s3_address(text: str) -> None:
    with pytest.raises(UsageError):
        deploying.State.parse(text)


@pytest.mark.parametrize("name", ["local", "", "../x", "Prod", "a b", "a/b"])
def test_names_that_are_none(name: str, environ: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        deploying.Workplace.of(name, environ)


def test_a_new_release_replaces_the_module_and_keeps_the_state(environ: dict[str, str]) -> None:
    place = deploying.Workplace.of("prod", environ)
    assert place.is_new()
    place.prepare({"aws_region": "eu-central-1"}, deploying.State("team-states", "x"))
    (place.folder / "terraform.tfstate").write_text("{}")
    (place.folder / "gone_in_this_release.tf").write_text("")
    (place.folder / ".terraform.lock.hcl").write_text("")
    place.prepare({"aws_region": "eu-central-1", "lambda_zip_dir": "/x"}, None)
    assert (place.folder / "terraform.tfstate").exists()
    module = {file.name for file in deploying.source_folder("terraform").glob("*.tf")}
    assert {file.name for file in place.folder.glob("*.tf")} == module
    assert not (place.folder / ".terraform.lock.hcl").exists()
    assert place.is_new(), "a plan alone must not be remembered"
    place.remember({"aws_region": "eu-central-1", "lambda_zip_dir": "/x"}, deploying.State("team-states", "x"))
    assert place.variables() == {"aws_region": "eu-central-1"}
    assert place.state() == deploying.State("team-states", "x")


def test_the_state_bucket_is_made_private_versioned_and_tls_only(s3: Any) -> None:
    assert deploying.bucket_region(s3, "team-states") is None
    deploying.make_state_bucket(s3, "team-states", "us-east-1")
    assert deploying.bucket_region(s3, "team-states") == "us-east-1"
    assert s3.get_bucket_versioning(Bucket="team-states")["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket="team-states")["PublicAccessBlockConfiguration"].values())
    (statement,) = json.loads(s3.get_bucket_policy(Bucket="team-states")["Policy"])["Statement"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_variables_travel_beside_the_state(s3: Any) -> None:
    state = deploying.State("team-states", "team")
    assert deploying.load_variables(s3, state, "prod") == {}
    s3.create_bucket(Bucket="team-states")  # moto takes a TLS-only policy for a ban on everything
    assert deploying.load_variables(s3, state, "prod") == {}
    deploying.save_variables(s3, state, "prod", {"environment": "prod", "lambda_zip_dir": "/on/this/machine"})
    assert deploying.load_variables(s3, state, "prod") == {"environment": "prod"}
    deploying.forget_variables(s3, state, "prod")
    assert deploying.load_variables(s3, state, "prod") == {}


def test_which_deployment_is_meant(environ: dict[str, str]) -> None:
    def name(*, chosen: str | None = None, **given: str) -> str:
        context = Context(environ=environ)
        context.options.deployment = chosen
        return deploy_command._name(context, given)

    assert name() == "image-pipeline-dev"
    assert name(environment="prod") == "image-pipeline-prod"
    deployments.use("local", environ)
    assert name() == "image-pipeline-dev"
    deployments.use("pictures", environ)
    assert name() == "pictures"
    assert name(thumbnail_size="320") == "pictures"
    assert name(environment="prod") == "image-pipeline-prod", "another one than that in use"
    environ["IMGPIPE_DEPLOYMENT"] = "here"
    assert name(environment="prod") == "here"
    assert name(chosen="there") == "there"


# Terraform's words


def test_a_plan_says_what_changes() -> None:
    def resource(address: str, actions: list[str], before: Any, after: Any, **more: Any) -> dict[str, Any]:
        return {
            "address": address,
            "mode": "managed",
            "change": {"actions": actions, "before": before, "after": after, **more},
        }

    before, after = {"name": "c", "memory": 1}, {"name": "c", "memory": 2}
    plan = {
        "resource_changes": [
            resource("a.same", ["no-op"], {"name": "x"}, {"name": "x"}),
            resource("a.new", ["create"], None, {"name": "new"}),
            resource("a.changed", ["update"], before, after, after_unknown={"hash": True}),
            resource("a.replaced", ["delete", "create"], {"bucket": "old"}, {"bucket": "new"}),
            resource("a.gone", ["delete"], {"function_name": "f"}, None),
            {**resource("data.a", ["read"], None, {}), "mode": "data"},
        ]
    }
    assert terraform.changes(plan) == (
        terraform.Change("create", "a.new", "new", ()),
        terraform.Change("update", "a.changed", "c", ("hash", "memory")),
        terraform.Change("replace", "a.replaced", "new", ("bucket",)),
        terraform.Change("delete", "a.gone", "f", ()),
    )


@pytest.mark.parametrize("said", ['{"terraform_version": "1.10.5"}', "nonsense", '{"terraform_version": "0.14.0"}'])
def test_an_old_terraform_is_refused(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    program(tmp_path, f"print({said!r})")
    with pytest.raises(ConfigurationError, match=r"1\.11"):
        terraform.find(tmp_path / "work", {**environ, "PATH": str(tmp_path)})


def test_without_terraform_it_says_where_to_get_it(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        terraform.find(tmp_path / "work", {**environ, "PATH": str(tmp_path)})
    assert "developer.hashicorp.com" in caught.value.hint


def test_a_failure_is_told_in_terraforms_own_words(tmp_path: Path, environ: dict[str, str]) -> None:
    program(
        tmp_path,
        """
        if command == "version":
            print('{"terraform_version": "1.11.4"}')
        else:
            print("a provider's own noise")
            print(json.dumps({"type": "apply_complete", "hook": {"action": "read", "resource": {"addr": "data.x"}}}))
            print(json.dumps({"type": "apply_complete", "hook": {"action": "create", "elapsed_seconds": 2,
                                                                  "resource": {"addr": "aws_x.y"}}}))
            print(json.dumps({"type": "diagnostic", "@level": "error", "diagnostic":
                              {"summary": "AccessDenied", "detail": "may not make z", "address": "aws_x.z"}}))
            sys.exit(1)
        """,
    )
    tool = terraform.find(tmp_path / "work", {**environ, "PATH": str(tmp_path)})
    done: list[terraform.Progress] = []
    with pytest.raises(ImgpipeError, match=r"aws_x\.z: AccessDenied: may not make z") as caught:
        collect(tool.apply(), done)
    assert caught.value.code == "TERRAFORM_FAILED"
    assert done == [terraform.Progress("create", "aws_x.y", 2.0)], "what came before the failure counts"


def collect(progress: Iterator[terraform.Progress], into: list[terraform.Progress]) -> None:
    for one in progress:
        into.append(one)  # noqa: PERF402  # each as it comes: the iterator raises in the end


def test_ctrl_c_lets_terraform_write_its_state(tmp_path: Path) -> None:
    """Killed in the middle, Terraform would forget what it has just made."""
    program(
        tmp_path,
        f"""
        if command == "version":
            print('{{"terraform_version": "1.11.4"}}')
            sys.exit()
        def finish(*_):
            time.sleep(1.5)
            open({str(tmp_path / "state")!r}, "w").write("written")
            sys.exit(1)
        signal.signal(signal.SIGINT, finish)
        open({str(tmp_path / "started")!r}, "w").close()
        time.sleep(120)
        """,
    )
    script = f"""
import os
from pathlib import Path
from pipeline_cli.pipeline.deploying import terraform
tool = terraform.find(Path({str(tmp_path / "work")!r}), {{**os.environ, "PATH": {str(tmp_path)!r}}})
list(tool.apply())
"""
    process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    assert (tmp_path / "state").read_text() == "written"


# Destroying


def test_a_versioned_bucket_is_emptied_to_the_last_marker(s3: Any) -> None:
    s3.create_bucket(Bucket="uploads")
    s3.put_bucket_versioning(Bucket="uploads", VersioningConfiguration={"Status": "Enabled"})
    for number in range(25):
        s3.put_object(Bucket="uploads", Key=f"{number % 10}", Body=b"x")
    s3.delete_object(Bucket="uploads", Key="3")
    s3.create_multipart_upload(Bucket="uploads", Key="half")
    seen: list[int] = []
    assert destroying.empty(s3, "uploads", seen.append) == 26
    assert seen[-1] == 26
    s3.delete_bucket(Bucket="uploads")
    assert destroying.empty(s3, "uploads") == 0, "a bucket that is gone is empty"


def test_emptying_goes_by_thousands(s3: Any) -> None:
    class Counting:
        """Listing as S3 pages it; what is asked to be deleted."""

        exceptions = s3.exceptions

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def get_paginator(self, name: str) -> Any:
            return self if name == "list_object_versions" else s3.get_paginator(name)

        def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
            for page in range(20):
                yield {"Versions": [{"Key": f"{page}-{n}", "VersionId": "v"} for n in range(destroying.BATCH)]}

        def delete_objects(self, Delete: dict[str, Any], **_: Any) -> dict[str, Any]:  # noqa: N803
            self.sizes.append(len(Delete["Objects"]))
            return {}

    s3.create_bucket(Bucket="uploads")
    client = Counting()
    assert destroying.empty(client, "uploads") == 20_000  # type: ignore[arg-type]
    assert client.sizes == [1000] * 20


def test_an_object_that_stays_is_an_error(s3: Any) -> None:
    class Refusing:
        exceptions = s3.exceptions

        def get_paginator(self, _name: str) -> Any:
            return self

        def paginate(self, **_: Any) -> list[dict[str, Any]]:
            return [{"Versions": [{"Key": "locked", "VersionId": "v"}]}]

        def delete_objects(self, **_: Any) -> dict[str, Any]:
            return {"Errors": [{"Code": "AccessDenied", "Message": "object lock", "Key": "locked"}]}

    with pytest.raises(ImgpipeError, match="object lock"):
        destroying.empty(Refusing(), "uploads")  # type: ignore[arg-type]


def test_what_would_be_lost_is_counted() -> None:
    with mock_aws():
        region = "us-east-1"
        s3, sqs, dynamodb = (boto3.client(name, region_name=region) for name in ("s3", "sqs", "dynamodb"))
        for bucket in ("uploads", "thumbs"):
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket="uploads", Key="a", Body=b"x")
        urls = {name: sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("m", "dlq", "image-dlq")}
        sqs.send_message(QueueUrl=urls["dlq"], MessageBody="x")
        dynamodb.create_table(
            TableName="images",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "imageId", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "imageId", "KeyType": "HASH"}],
            DeletionProtectionEnabled=True,
        )
        outputs = {
            **OUTPUTS, "metadata_queue_url": urls["m"], "dlq_url": urls["dlq"], "image_dlq_url": urls["image-dlq"]
        }  # fmt: skip
        lost = destroying.losses(s3, dynamodb, sqs, Deployment("x", "test", outputs))
        assert {(loss.resource, loss.count) for loss in lost} == {
            ("uploads", 1), ("thumbs", 0), ("images", 0), ("m", 0), ("dlq", 1), ("image-dlq", 0),
        }  # fmt: skip
        assert destroying.is_protected(dynamodb, "images")
        assert not destroying.is_protected(dynamodb, "no-such-table")


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "destroyed"), [("prod\n", True), ("y\n", False), ("\n", False), ("prods\n", False)])
def test_destruction_wants_the_name_typed(typed: str, destroyed: bool) -> None:
    context = Context(stdin=Terminal(typed), stderr=Terminal())
    if destroyed:
        destroy_command._ask_for(context, "prod", yes=False)
        return
    with pytest.raises(UsageError, match="Nothing was changed"):
        destroy_command._ask_for(context, "prod", yes=False)


def test_destruction_without_a_terminal_wants_yes() -> None:
    context = Context(stdin=io.StringIO("prod\n"), stderr=io.StringIO())
    destroy_command._ask_for(context, "prod", yes=True)
    with pytest.raises(UsageError) as caught:
        destroy_command._ask_for(context, "prod", yes=False)
    assert "--yes" in caught.value.hint


def test_what_was_not_deployed_from_here_is_not_destroyed(tmp_path: Path, environ: dict[str, str]) -> None:
    program(tmp_path, 'print(\'{"terraform_version": "1.11.4"}\')')
    stderr = io.StringIO()
    context = Context(environ={**environ, "PATH": str(tmp_path)}, stdin=io.StringIO(), stderr=stderr)
    assert run(["-d", "somebody-elses", "destroy", "--yes"], context) == 4
    assert "--state" in stderr.getvalue()
