import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline_cli import app
from pipeline_cli.context import Context
from pipeline_cli.errors import ConfigurationError, ExitCode, ImgpipeError, from_aws

OUTPUTS = {"upload_bucket_name": {"value": "up"}, "aws_region": {"value": "eu-west-1"}, "name_prefix": {"value": "p"}}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*args: str, stdout: io.StringIO | None = None, **settings: Any) -> tuple[int, str, str]:
    out, err = stdout or io.StringIO(), io.StringIO()
    code = app.run(args, Context(stdout=out, stderr=err, **settings))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def outputs_file(tmp_path: Path) -> Path:
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(OUTPUTS))
    return file


def test_every_command_has_help_with_an_example() -> None:
    code, _, _ = run("--help")
    assert code == ExitCode.DONE
    for name in app.COMMANDS:
        result = subprocess.run(
            [sys.executable, "-m", "pipeline_cli", name, "--help"], capture_output=True, text=True, check=True
        )
        assert "imgpipe " in result.stdout.split("Usage:")[1].split("\n", 2)[2], f"{name} --help shows no example"


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    group = typer.main.get_command(app.app)
    for name, said in app.COMMANDS.items():
        assert group.get_command(None, name).get_short_help_str(1000) == said


def test_help_lists_the_commands_without_importing_them() -> None:
    script = "import sys; from pipeline_cli import app; app.run(['--help']); print([*sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in app.COMMANDS)
    assert "pipeline_cli.app" in done.stderr
    assert "pipeline_cli.commands" not in done.stderr


def test_an_unknown_option_is_a_usage_error_with_the_way_to_help() -> None:
    code, out, err = run("outputs", "--nope")
    assert (code, out) == (ExitCode.USAGE, "")
    assert "See: imgpipe outputs --help" in err


def test_global_options_may_stand_before_or_behind(outputs_file: Path) -> None:
    environ = {"IMGPIPE_OUTPUTS": str(outputs_file)}
    before = run("--output", "json", "outputs", environ=environ)
    behind = run("outputs", "--output", "json", environ=environ)
    assert before == behind
    assert json.loads(before[1]) == OUTPUTS


def test_an_error_is_one_json_line_when_json_was_asked_for() -> None:
    code, out, err = run("outputs", "--output", "json", environ={"IMGPIPE_HOME": "/nonexistent"})
    assert (code, out) == (ExitCode.CONFIGURATION, "")
    error = json.loads(err)["error"]
    assert error["code"] == "NO_DEPLOYMENT"
    assert set(error) == {"code", "message", "hint"}
    assert "imgpipe local up" in error["hint"]
    assert json.loads(run("outputs", "--nope", "--output", "json")[2])["error"]["code"] == "USAGE"


def test_a_bug_says_so(monkeypatch: pytest.MonkeyPatch, outputs_file: Path) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("pipeline_cli.output.Renderer.rows", broken)
    code, _, err = run("outputs", environ={"IMGPIPE_OUTPUTS": str(outputs_file)})
    assert code == ExitCode.FAILED
    assert "This is a bug: KeyError" in err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, outputs_file: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline_cli.output.Renderer.rows", interrupted)
    code, _, err = run("outputs", environ={"IMGPIPE_OUTPUTS": str(outputs_file)})
    assert (code, err) == (ExitCode.INTERRUPTED, "imgpipe: Interrupted.\n")


def test_a_closed_pipe_ends_quietly(outputs_file: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "pipeline_cli", "outputs"],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "IMGPIPE_OUTPUTS": str(outputs_file)},
    )  # fmt: skip
    os.close(write)
    assert process.stderr == ""


def test_outputs_prints_one_bare_value(outputs_file: Path) -> None:
    environ = {"IMGPIPE_OUTPUTS": str(outputs_file)}
    assert run("outputs", "upload_bucket_name", environ=environ) == (0, "up\n", "")
    code, out, err = run("outputs", "nope", environ=environ)
    assert (code, out) == (ExitCode.NOT_FOUND, "")
    assert "has no output nope" in err
    assert "aws_region, name_prefix, upload_bucket_name" in err


def test_a_table_is_for_terminals_only(outputs_file: Path) -> None:
    environ = {"IMGPIPE_OUTPUTS": str(outputs_file), "NO_COLOR": "1"}
    assert "─" in run("outputs", stdout=Terminal(), environ=environ)[1]
    assert run("outputs", environ=environ)[1].startswith("name\tvalue\n")


def test_questions_need_somebody_to_answer() -> None:
    with pytest.raises(ImgpipeError) as caught:
        Context(stdin=io.StringIO("y\n"), stderr=io.StringIO()).confirm("Delete?", yes=False)
    assert caught.value.exit_code is ExitCode.USAGE
    Context(stdin=Terminal("y\n"), stderr=Terminal()).confirm("Delete?", yes=False)
    with pytest.raises(ImgpipeError, match="Nothing was changed"):
        Context(stdin=Terminal("\n"), stderr=Terminal()).confirm("Delete?", yes=False)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("AccessDenied", ConfigurationError), ("NoSuchBucket", ConfigurationError), ("ExpiredToken", ConfigurationError),
     ("InternalError", ImgpipeError)],
)  # fmt: skip
def test_aws_errors_become_ours(code: str, kind: type[ImgpipeError]) -> None:
    from botocore.exceptions import ClientError

    error = from_aws(ClientError({"Error": {"Code": code, "Message": "why"}}, "GetObject"))
    assert type(error) is kind
    assert error.code == code
    assert "GetObject" in error.message


def test_no_credentials_says_what_to_do() -> None:
    from botocore.exceptions import NoCredentialsError

    error = from_aws(NoCredentialsError())
    assert error is not None
    assert error.exit_code is ExitCode.CONFIGURATION


def test_nothing_heavy_is_imported_before_a_command_needs_it() -> None:
    """--help and --version stay instant: boto3, Rich, Pillow and awscrt wait until they are used."""
    script = (
        "import sys\nfrom pipeline_cli.app import run, COMMANDS\n"
        "run(['--help'])\n"
        "for name in COMMANDS: run([name, '--help'])\n"
        "print([m for m in ('boto3', 'botocore', 'rich', 'PIL', 'awscrt', 'pydantic') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_models_are_read_as_botocore_reads_them() -> None:
    """Into plain dicts, which takes half the time; of the same content, and in the same order."""
    from botocore.loaders import create_loader

    from pipeline_cli.aws import Clients

    ours = Clients(profile=None, region="eu-central-1").session.get_component("data_loader")
    theirs = create_loader()
    for model in (ours.load_service_model("s3", "service-2"), ours.load_data("endpoints")):
        assert type(model) is dict
    assert json.dumps(ours.load_service_model("s3", "service-2")) == json.dumps(
        theirs.load_service_model("s3", "service-2")
    )
    assert json.dumps(ours.load_data("endpoints")) == json.dumps(theirs.load_data("endpoints"))
