"""The zips that `imgpipe build` makes: whole, lean, for the right machine, and the same each time."""

import hashlib
import io
import json
import struct
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline_cli.app import run
from pipeline_cli.context import Context
from pipeline_cli.errors import ConfigurationError, ImgpipeError, UsageError
from pipeline_cli.pipeline import packaging

HOST = f"{sys.version_info.major}.{sys.version_info.minor}"
pytestmark = [
    pytest.mark.slow,  # wheels come from the package index
    pytest.mark.skipif(
        sys.version_info >= (3, 14), reason="the requirements name the wheels of Python 3.11 to 3.13 alone"
    ),
]


@pytest.fixture(scope="module")
def host_zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, packaging.BuiltZip]:
    """The zips for this machine's Python, whose bytecode this Python makes."""
    out = tmp_path_factory.mktemp("host")
    built = packaging.build(out, arch=packaging.host_arch(), runtime=HOST)
    return {one.function: one for one in built}


def names(zipped: packaging.BuiltZip) -> set[str]:
    with zipfile.ZipFile(zipped.path) as archive:
        return set(archive.namelist())


def test_the_same_sources_make_the_same_bytes(tmp_path: Path, host_zips: dict[str, packaging.BuiltZip]) -> None:
    again = packaging.build(tmp_path, arch=packaging.host_arch(), runtime=HOST)
    for one in again:
        assert Path(one.path).read_bytes() == Path(host_zips[one.function].path).read_bytes()
        assert one.sha256 == hashlib.sha256(Path(one.path).read_bytes()).hexdigest()


def test_a_zip_holds_the_handler_the_contract_and_no_more_than_it_needs(
    host_zips: dict[str, packaging.BuiltZip],
) -> None:
    processor, writer = names(host_zips["image_processor"]), names(host_zips["db_writer"])
    assert {"image_processor/rendering.py", "pipeline_contract/messages.py", "PIL/JpegImagePlugin.py"} <= processor
    assert "pipeline_contract/messages.py" in writer
    assert {name.split("/")[0] for name in writer} == {"db_writer", "pipeline_contract"}
    unused = ("_imagingft", "_imagingtk", "EpsImagePlugin", "PdfImagePlugin", "libfreetype", "libharfbuzz", ".pyi")
    assert [name for name in processor if any(part in name for part in unused)] == []
    assert any(name.startswith("pillow-") and "licenses" in name for name in processor), "the licence must travel along"


def test_bytecode_is_used_without_a_look_at_its_source(host_zips: dict[str, packaging.BuiltZip]) -> None:
    """PEP 552: the flags after the magic number are 1 for a hash, 3 for one that is checked."""
    for zipped in host_zips.values():
        assert zipped.compiled_by is not None
        inside = names(zipped)
        with zipfile.ZipFile(zipped.path) as archive:
            for source in (name for name in inside if name.endswith(".py")):
                folder, _, file = source.rpartition("/")
                compiled = f"{folder}/__pycache__/{file[:-3]}.{sys.implementation.cache_tag}.pyc"
                assert compiled in inside, source
                assert struct.unpack("<I", archive.read(compiled)[4:8])[0] == 1, compiled


@pytest.mark.parametrize(("arch", "machine"), [("arm64", 183), ("x86_64", 62)])  # ELF e_machine
def test_libraries_are_those_of_the_functions_processor(tmp_path: Path, arch: str, machine: int) -> None:
    built = {one.function: one for one in packaging.build(tmp_path, arch=arch)}
    processor = built["image_processor"]
    assert Path(processor.path).name == f"image_processor-{arch}.zip"
    with zipfile.ZipFile(processor.path) as archive:
        libraries = [info for info in archive.infolist() if ".so" in info.filename]
        assert any("cpython-313" in info.filename for info in libraries)
        for info in libraries:
            assert struct.unpack("<H", archive.read(info)[18:20])[0] == machine, info.filename
            assert info.external_attr >> 16 == 0o755
    assert processor.bytes_ < 7_000_000
    assert {part.name for part in processor.parts} == {"image_processor", "isal", "pillow", "pipeline_contract"}
    assert sum(part.bytes_ for part in processor.parts) == processor.unpacked_bytes


def test_heic_is_added_on_request(tmp_path: Path, host_zips: dict[str, packaging.BuiltZip]) -> None:
    built = {one.function: one for one in packaging.build(tmp_path, arch="arm64", heic=True)}
    assert "pillow_heif" in {part.name for part in built["image_processor"].parts}
    assert {Path(one.path).name for one in built.values()} == {"image_processor-heic-arm64.zip", "db_writer-arm64.zip"}
    assert "pillow_heif" not in {part.name for part in host_zips["image_processor"].parts}


def test_a_wheel_of_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = tmp_path / "lambdas"
    for function in packaging.FUNCTIONS:
        (sources / function).mkdir(parents=True)
        (sources / function / "handler.py").touch()
    (sources / "image_processor/requirements.txt").write_text(f"pillow==13.0.0 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(packaging, "source_folder", lambda name: tmp_path / name)
    with pytest.raises(ImgpipeError) as caught:
        list(packaging.build(tmp_path / "out", arch="arm64"))
    assert caught.value.code == "BUILD_FAILED"
    assert list((tmp_path / "out").iterdir()) == []


def test_without_a_matching_interpreter_there_is_no_bytecode(tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path), "UV_PYTHON_INSTALL_DIR": str(tmp_path)}
    assert packaging.find_interpreter("3.99", nowhere) is None
    assert packaging.find_interpreter(HOST, nowhere) == sys.executable


def test_without_pip_and_uv_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match="pip nor uv"):
        list(packaging.build(tmp_path, arch="arm64", environ={"PATH": str(tmp_path)}))


@pytest.mark.parametrize(("arch", "runtime"), [("arm", "3.13"), ("x86_64", "3"), ("x86_64", "3.13.0")])
def test_unknown_targets_are_refused(tmp_path: Path, arch: str, runtime: str) -> None:
    with pytest.raises(UsageError):
        list(packaging.build(tmp_path, arch=arch, runtime=runtime))


def test_the_command_says_what_is_inside(tmp_path: Path) -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    context = Context(stdout=stdout, stderr=stderr)
    code = run(["build", "--out", str(tmp_path), "--arch", "x86_64", "--output", "json"], context)
    assert code == 0, stderr.getvalue()
    printed = json.loads(stdout.getvalue())
    assert [one["function"] for one in printed] == list(packaging.FUNCTIONS)
    for one in printed:
        assert Path(one["path"]).stat().st_size == one["bytes"]
        assert one["runtime"] == "python3.13"
        assert one["parts"]
