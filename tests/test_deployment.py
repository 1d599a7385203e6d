import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_cli import deployment as deployments
from pipeline_cli.errors import ConfigurationError
from pipeline_cli.paths import config_home, data_home


def document(prefix: str) -> dict[str, Any]:
    return {"name_prefix": {"value": prefix}, "upload_bucket_name": {"value": f"{prefix}-uploads", "type": "string"}}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"IMGPIPE_HOME": str(tmp_path / "home")}


def test_the_nearest_word_wins(tmp_path: Path, environ: dict[str, str]) -> None:
    """-d, IMGPIPE_OUTPUTS, IMGPIPE_DEPLOYMENT, imgpipe use, terraform/ from here upward."""
    below = tmp_path / "project/a/b"
    below.mkdir(parents=True)
    (tmp_path / "project/terraform").mkdir()
    (tmp_path / "project/terraform/terraform.tfstate").write_text(json.dumps({"outputs": document("found")}))
    for name in ("flag", "variable", "chosen"):
        deployments.register(name, document(name), environ)
    file = tmp_path / "given.json"
    file.write_text(json.dumps(document("given")))

    def found(name: str | None = None) -> str:
        return deployments.find(name, environ=environ, directory=below).outputs["name_prefix"]

    assert found() == "found"
    deployments.use("chosen", environ)
    assert found() == "chosen"
    environ["IMGPIPE_DEPLOYMENT"] = "variable"
    assert found() == "variable"
    environ["IMGPIPE_OUTPUTS"] = str(file)
    assert found() == "given"
    assert found("flag") == "flag"


def test_none_found_names_the_ways_to_name_one(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        deployments.find(None, environ=environ, directory=tmp_path)
    for way in (
        "-d NAME",
        "IMGPIPE_DEPLOYMENT",
        "imgpipe use",
        "IMGPIPE_OUTPUTS",
        "imgpipe deploy",
        "imgpipe local up",
    ):
        assert way in caught.value.hint


def test_an_outputs_document_that_cannot_be_read_says_how_to_write_one(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file, expected in {
        "nope": "is not there",
        "binary": "is no text",
        ".": "cannot be read: Is a directory",
    }.items():
        environ["IMGPIPE_OUTPUTS"] = str(tmp_path / file)
        with pytest.raises(ConfigurationError, match=expected) as caught:
            deployments.find(None, environ=environ, directory=tmp_path)
        assert "Errno" not in caught.value.message
        assert "terraform output -json > FILE" in caught.value.hint


def test_an_unknown_name_lists_the_known(tmp_path: Path, environ: dict[str, str]) -> None:
    deployments.register("prod", document("prod"), environ)
    with pytest.raises(ConfigurationError) as caught:
        deployments.named("pord", environ=environ)
    assert "local, prod" in caught.value.hint


def test_local_says_when_it_is_down(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="not running") as caught:
        deployments.named("local", environ=environ)
    assert "imgpipe local up" in caught.value.hint


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '{"a": 1'])
def test_a_file_that_is_no_outputs_document(tmp_path: Path, text: str) -> None:
    file = tmp_path / "outputs.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError):
        deployments.from_file(file)


def test_folders_follow_xdg_unless_told_otherwise(tmp_path: Path) -> None:
    assert config_home({"IMGPIPE_HOME": str(tmp_path)}) == tmp_path / "config"
    assert data_home({"XDG_DATA_HOME": "/x"}) == Path("/x/imgpipe")
    assert data_home({"XDG_DATA_HOME": "relative"}) == Path.home() / ".local/share/imgpipe"
