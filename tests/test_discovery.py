"""Finding a deployment: SSM and its cache, a terraform folder, the text of `terraform output`; pages of the console."""

import io
import json
import os
import time
from pathlib import Path

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from pipeline_cli import deployment as deployments
from pipeline_cli.app import run
from pipeline_cli.commands.open import Page, console_address
from pipeline_cli.context import Context
from pipeline_cli.deployment import Deployment, Parameters
from pipeline_cli.errors import ConfigurationError
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


class Ssm:
    """Parameters, and how often they were asked for."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.asked: list[str] = []

    def read(self, name: str) -> str | None:
        self.asked.append(name)
        return self.values.get(name.split("/")[2])


def parameters(ssm: Ssm, environ: dict[str, str], *, scope: str = "me", now: float | None = None) -> Parameters:
    return Parameters(ssm.read, scope, lambda: time.time() if now is None else now, environ)


def test_an_account_knows_its_deployments(environ: dict[str, str], tmp_path: Path) -> None:
    ssm = Ssm(prod=json.dumps({name: {"value": value} for name, value in OUTPUTS.items()}))
    found = deployments.find("prod", environ=environ, directory=tmp_path, parameters=parameters(ssm, environ))
    assert (found.name, found.source, dict(found.outputs)) == ("prod", "/imgpipe/prod/outputs", OUTPUTS)
    deployments.named("prod", environ=environ, parameters=parameters(ssm, environ))
    assert ssm.asked == ["/imgpipe/prod/outputs"], "the second time it is remembered"


def test_what_is_remembered_ages_and_belongs_to_one_account(environ: dict[str, str]) -> None:
    ssm = Ssm(prod=json.dumps({"name_prefix": {"value": "x"}}))
    parameters(ssm, environ).find("prod")
    parameters(ssm, environ, now=time.time() + deployments.CACHED_SECONDS + 1).find("prod")
    assert len(ssm.asked) == 2, "too old"
    parameters(ssm, environ, scope="somebody else").find("prod")
    assert len(ssm.asked) == 3, "another account"
    deployments.forget_cached(environ)
    parameters(ssm, environ).find("prod")
    assert len(ssm.asked) == 4, "forgotten"


def test_a_name_that_nobody_knows(environ: dict[str, str], tmp_path: Path) -> None:
    ssm = Ssm()
    with pytest.raises(ConfigurationError, match="/imgpipe/pord/outputs either"):
        deployments.find("pord", environ=environ, directory=tmp_path, parameters=parameters(ssm, environ))
    with pytest.raises(ConfigurationError):
        deployments.find("../x", environ=environ, directory=tmp_path, parameters=parameters(ssm, environ))
    assert ssm.asked == ["/imgpipe/pord/outputs"], "what cannot be a name is not asked for"


def test_a_resource_that_is_gone_makes_the_parameter_be_read_again() -> None:
    """The deployment moved while its names were remembered: the first command fails, the next one knows."""
    with mock_aws():
        ssm = boto3.client("ssm", region_name="us-east-1")

        def publish(prefix: str) -> None:
            document = {**OUTPUTS, "aws_region": "us-east-1", "name_prefix": prefix, "dynamodb_table_name": prefix}
            value = json.dumps({name: {"value": value} for name, value in document.items()})
            ssm.put_parameter(Name="/imgpipe/moved/outputs", Type="String", Value=value, Overwrite=True)

        def imgpipe(*arguments: str) -> tuple[int, str]:
            stdout, stderr = io.StringIO(), io.StringIO()
            return run(["-d", "moved", *arguments], Context(stdout=stdout, stderr=stderr)), stdout.getvalue().strip()

        publish("old")
        assert imgpipe("outputs", "name_prefix") == (0, "old")
        publish("new")
        assert imgpipe("outputs", "name_prefix") == (0, "old")
        assert imgpipe("meta", "get", "photo.jpg")[0] == 3, "the table is not there"
        assert imgpipe("outputs", "name_prefix") == (0, "new")


def test_a_terraform_folder_whose_state_is_elsewhere(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path / "terraform"
    (folder / ".terraform").mkdir(parents=True)
    (folder / ".terraform/terraform.tfstate").write_text('{"backend": {"type": "s3"}}')
    (tmp_path / "bin").mkdir()
    asked = tmp_path / "asked"
    program(
        tmp_path / "bin",
        f"""
        open({str(asked)!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
        print(json.dumps({{"name_prefix": {{"value": "elsewhere", "type": "string"}}}}))
        """,
    )
    environ["PATH"] = str(tmp_path / "bin")
    for _ in range(2):
        assert deployments.find(None, environ=environ, directory=tmp_path).name == "elsewhere"
    assert asked.read_text().splitlines() == [f"-chdir={folder} output -json -no-color"], (
        "the second time from the cache"
    )
    program(tmp_path / "bin", "sys.exit('no credentials')")
    deployments.forget_cached(environ)
    with pytest.raises(ConfigurationError, match="no credentials"):
        deployments.find(None, environ=environ, directory=tmp_path)
    environ["PATH"] = str(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match="terraform is not here"):
        deployments.find(None, environ=environ, directory=tmp_path)


def test_forgetting_a_deployment_forgets_the_choice_of_it(environ: dict[str, str]) -> None:
    deployments.register("prod", {"name_prefix": {"value": "prod"}}, environ)
    deployments.use("prod", environ)
    deployments.forget("prod", environ)
    assert deployments.registered(environ) == {}
    assert deployments.used(environ) is None
    deployments.forget("prod", environ)


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)


@given(st.dictionaries(NAMES, st.text(max_size=40), min_size=1, max_size=5))
def test_the_text_of_terraform_output_is_read(values: dict[str, str]) -> None:
    """`terraform output` writes texts as HCL does: as JSON, but for `${` and `%{`, whose first sign it doubles."""

    def hcl(value: str) -> str:
        return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")

    text = "".join(f"{name} = {hcl(value)}\n" for name, value in values.items()) + "absent = tostring(null)\n"
    assert {name: entry["value"] for name, entry in deployments._from_text(text).items()} == values


@pytest.mark.parametrize(
    ("page", "address"),
    [
        (Page.DASHBOARD, "https://console/dashboard"),
        (Page.LOGS, "https://console/logs"),
        (Page.UPLOADS, "https://eu-central-1.console.aws.amazon.com/s3/buckets/uploads?region=eu-central-1"),
        (
            Page.TABLE,
            "https://eu-central-1.console.aws.amazon.com/dynamodbv2/home?region=eu-central-1#item-explorer?table=images",
        ),
    ],
)
def test_pages_of_the_console(page: Page, address: str) -> None:
    assert console_address(Deployment("x", "test", OUTPUTS), page) == address


def test_the_local_pipeline_has_no_console() -> None:
    local = Deployment("local", "test", OUTPUTS, endpoint_url="http://127.0.0.1:1")
    with pytest.raises(ConfigurationError):
        console_address(local, Page.DASHBOARD)


def test_in_a_pipe_the_address_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps({name: {"value": value} for name, value in OUTPUTS.items()}))
    monkeypatch.setenv("IMGPIPE_OUTPUTS", str(file))
    stdout = io.StringIO()
    assert run(["open", "dashboard"], Context(stdout=stdout)) == 0
    assert stdout.getvalue() == "https://console/dashboard\n"
