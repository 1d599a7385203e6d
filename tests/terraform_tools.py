"""Terraform and its AWS provider, wherever this machine has them; tests that need them skip with the reason."""

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE = ROOT / "terraform"


def mirror(environ: Mapping[str, str] = os.environ) -> Path | None:
    """A folder that holds `registry.terraform.io/hashicorp/aws`.

    Looked for in IMGPIPE_TERRAFORM_MIRROR, in the folders that Terraform itself looks in, and where images for
    continuous integration put one.
    """
    return next(
        (folder for folder in _mirrors(environ) if (folder / "registry.terraform.io/hashicorp/aws").is_dir()), None
    )


def _mirrors(environ: Mapping[str, str]) -> Iterator[Path]:
    if named := environ.get("IMGPIPE_TERRAFORM_MIRROR"):
        yield Path(named)
    home = Path.home()
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    yield from (home / ".terraform.d/plugins", data / "terraform/plugins")
    yield from (Path("/usr/local/share/terraform/plugins"), Path("/usr/share/terraform/plugins"))
    yield from (folder.parent for folder in sorted(Path("/opt").glob("*/registry.terraform.io")))


def environment(folder: Path) -> dict[str, str]:
    """The environment for Terraform: its own CLI configuration, in `folder`, and nothing of this machine's AWS."""
    config = folder / "terraform.rc"
    found = mirror()
    if found is None:
        config.write_text("")
    else:
        config.write_text(
            "provider_installation {\n"
            f'  filesystem_mirror {{\n    path    = "{found}"\n    include = ["registry.terraform.io/*/*"]\n  }}\n'
            '  direct {\n    exclude = ["registry.terraform.io/*/*"]\n  }\n}\n'
        )
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "IMGPIPE_", "TF_"))}
    return ours | {"TF_CLI_CONFIG_FILE": str(config), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}


def initialised(folder: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the module with its provider, and the environment to run Terraform in it; skips where it cannot be."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    module = folder / "terraform"
    shutil.copytree(MODULE, module, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "build"))
    environ = environment(folder)
    init = terraform(module, environ, "init", "-backend=false")
    if init.returncode and mirror() is None:
        pytest.skip(f"the AWS provider is not here and cannot be fetched: {init.stderr.strip()[-300:]}")
    assert init.returncode == 0, init.stdout + init.stderr
    return module, environ


def terraform(module: Path, environ: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["terraform", arguments[0], "-no-color", *arguments[1:]]
    return subprocess.run(command, cwd=module, env=dict(environ), capture_output=True, text=True, check=False)


def program(folder: Path, body: str) -> Path:
    """A `terraform` that says what a test wants."""
    file = folder / "terraform"
    script = f"#!{sys.executable}\nimport json, sys, time, signal, os\ncommand = sys.argv[1]\n" + textwrap.dedent(body)
    file.write_text(script)
    file.chmod(0o755)
    return file
