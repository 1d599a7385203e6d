"""The Terraform module on its own: well-formed, its promises kept under a mocked provider, nothing that checkov finds.

What it makes of AWS is in test_deploy_for_real.py.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from terraform_tools import MODULE, ROOT, initialised, terraform

pytestmark = [pytest.mark.terraform, pytest.mark.slow]
CHECKOV = "3.3.30"
Module = tuple[Path, dict[str, str]]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Module:
    return initialised(tmp_path_factory.mktemp("module"))


def test_it_is_formatted(module: Module) -> None:
    result = terraform(*module, "fmt", "-check", "-recursive", "-diff")
    assert result.returncode == 0, result.stdout


def test_it_is_valid(module: Module) -> None:
    result = terraform(*module, "validate")
    assert result.returncode == 0, result.stderr


def test_its_promises_hold(module: Module) -> None:
    """terraform/tests: under a mocked provider, without AWS."""
    result = terraform(*module, "test")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"Success! [1-9]\d passed, 0 failed", result.stdout), result.stdout


def test_a_promise_that_is_broken_is_noticed(module: Module) -> None:
    """A test that cannot fail proves nothing: here the queue forgets the batch window."""
    folder, environ = module
    head, *runs = re.split(r"^(?=run )", (folder / "tests/stack.tftest.hcl").read_text(), flags=re.MULTILINE)
    (promise,) = (run for run in runs if run.startswith('run "visibility_follows_the_writers_timeout"'))
    queues = folder / "queues.tf"
    whole = queues.read_text()
    broken = whole.replace("6 * var.db_writer_timeout + var.metadata_batch_window", "6 * var.db_writer_timeout")
    assert broken != whole
    alone = folder / "tests/alone.tftest.hcl"
    alone.write_text(head + promise)
    queues.write_text(broken)
    try:
        result = terraform(folder, environ, "test", "-filter=tests/alone.tftest.hcl")
    finally:
        queues.write_text(whole)
        alone.unlink()
    assert result.returncode != 0
    assert "not 6 x 45 + 7" in result.stdout + result.stderr


def test_without_zips_it_names_the_command(module: Module, tmp_path: Path) -> None:
    folder, environ = module
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    # Nothing answers there: the plan has to stop before it asks AWS anything that matters, or say both.
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    override = folder / "offline_override.tf"
    override.write_text(
        'provider "aws" {\n  skip_credentials_validation = true\n  skip_requesting_account_id = true\n}\n'
        'data "aws_caller_identity" "current" {\n  count = 0\n}\nlocals {\n  account_id = "123456789012"\n}\n'
    )
    try:
        result = terraform(
            folder, {**environ, **credentials, **nowhere}, "plan", "-input=false", f"-var=lambda_zip_dir={tmp_path}"
        )
    finally:
        override.unlink()
    said = " ".join(re.sub(r"[\u2577\u2502\u2575]", " ", result.stderr).split())
    assert result.returncode != 0
    assert f"imgpipe build --arch arm64 --out {tmp_path}" in said


def test_versions_are_pinned_for_both_majors() -> None:
    text = (MODULE / "versions.tf").read_text()
    assert '">= 5.100, < 7.0"' in text
    assert not (MODULE / ".terraform.lock.hcl").exists(), "it would hold the hashes of one platform"


def test_every_variable_and_output_says_what_it_is() -> None:
    for name in ("variables.tf", "outputs.tf"):
        blocks = re.findall(
            r'^(?:variable|output) "(\w+)" \{\n(.*?)^\}', (MODULE / name).read_text(), re.MULTILINE | re.DOTALL
        )
        assert blocks
        assert [block for block, body in blocks if "description = " not in re.sub(r" +=", " =", body)] == []


def test_the_example_names_variables_that_exist() -> None:
    known = set(re.findall(r'^variable "(\w+)"', (MODULE / "variables.tf").read_text(), re.MULTILINE))
    example = (MODULE / "terraform.tfvars.example").read_text()
    assert set(re.findall(r"^#? ?(\w+) +=", example, re.MULTILINE)) <= known


def test_every_waiver_has_its_reason() -> None:
    waivers = [
        line.strip() for file in MODULE.glob("*.tf") for line in file.read_text().splitlines() if "checkov:skip" in line
    ]
    assert waivers
    for waiver in waivers:
        assert re.fullmatch(r"#checkov:skip=CKV2?_AWS_\d+:.{20,}\.", waiver), waiver


def test_checkov_finds_nothing() -> None:
    """checkov brings some hundred packages: it has an environment of its own."""
    home = ROOT / f".venv-checkov-{CHECKOV}"
    program = home / "bin" / "checkov"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        python = str(home / "bin/python")
        install = [python, "-m", "pip", "install"]
        if uv := shutil.which("uv"):  # ten times as fast
            install = [uv, "pip", "install", "--python", python]
        subprocess.run([*install, "--quiet", f"checkov=={CHECKOV}"], check=True)
    result = subprocess.run(
        [str(program), "-d", str(MODULE), "--framework", "terraform", "--skip-download", "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(result.stdout)
    failed = [f"{check['check_id']} {check['resource']}" for check in report["results"]["failed_checks"]]
    assert failed == []
    assert report["summary"]["passed"] > 100
