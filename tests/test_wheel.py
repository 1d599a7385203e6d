"""`pip install imgpipe` is all an operator needs: the wheel carries the functions and the Terraform module."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = """
import sys, zipfile, io
import pipeline_cli
from pipeline_cli.pipeline.packaging import FUNCTIONS, code_zip, source_folder
assert pipeline_cli.__file__.startswith(sys.argv[1]), pipeline_cli.__file__
assert (source_folder("terraform") / "main.tf").is_file()
for function in FUNCTIONS:
    names = zipfile.ZipFile(io.BytesIO(code_zip(function))).namelist()
    assert f"{function}/handler.py" in names and "pipeline_contract/messages.py" in names, names
"""


@pytest.mark.slow
def test_the_wheel_carries_what_a_deployment_needs(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("imgpipe-*.whl")
    target = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    environ = {**os.environ, "PYTHONPATH": str(target)}
    subprocess.run([sys.executable, "-c", SCRIPT, str(target)], check=True, cwd=tmp_path, env=environ)
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline_cli", "--version"],
        check=True, cwd=tmp_path, env=environ, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.stdout.startswith("imgpipe ")


@pytest.mark.slow
def test_the_wheel_carries_nothing_that_terraform_left_behind(tmp_path: Path) -> None:
    """State names an account's resources, variables may hold addresses, and a provider has 700 MB."""
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__")
    for name in ("src", "lambdas", "terraform"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    left = [".terraform/providers/aws", ".terraform.lock.hcl", "terraform.tfstate", "terraform.tfstate.backup"]
    left += ["terraform.tfvars", "build/image_processor-arm64.zip"]
    for name in left:
        (source / "terraform" / name).parent.mkdir(parents=True, exist_ok=True)
        (source / "terraform" / name).touch()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source)], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("imgpipe-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if "/terraform/" in name}
    module = {file.name for file in (ROOT / "terraform").glob("*.tf")} | {"terraform.tfvars.example"}
    assert carried == {f"pipeline_cli/_data/terraform/{name}" for name in module}
