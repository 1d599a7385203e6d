"""Imports point down: app -> commands -> pipeline -> contract, local beside pipeline; Lambdas know the contract."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = {"aws", "cli", "context", "deployment", "errors", "output", "paths"}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def layer(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "pipeline_contract":
        return "contract"
    if parts[0] != "pipeline_cli" or len(parts) == 1:
        return None
    if parts[1] in CORE:
        return "core"
    return parts[1] if parts[1] in ("app", "commands", "pipeline", "local") else None


ALLOWED = {
    "contract": {"contract"},
    "core": {"contract", "core"},
    "pipeline": {"contract", "core", "pipeline"},
    "local": {"contract", "core", "pipeline", "local"},
    "commands": {"contract", "core", "pipeline", "local", "commands"},
    "app": {"contract", "core"},
}
# A pipeline module takes clients and returns results: it never parses, renders or makes clients.
NOT_FOR_PIPELINE = {
    "pipeline_cli.cli",
    "pipeline_cli.context",
    "pipeline_cli.output",
    "pipeline_cli.aws",
    "typer",
    "rich",
}


def modules() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("file", modules(), ids=lambda file: file.relative_to(ROOT / "src").as_posix())
def test_imports_point_down(file: Path) -> None:
    relative = file.relative_to(ROOT / "src").with_suffix("")
    own = layer(".".join(relative.parts))
    if own is None:
        return
    for name in imports(file):
        target = layer(name)
        assert target is None or target in ALLOWED[own], f"{own} imports {name}"
        if own == "pipeline":
            assert not any(name == bad or name.startswith(f"{bad}.") for bad in NOT_FOR_PIPELINE), f"imports {name}"


def test_the_contract_is_standard_library_only() -> None:
    import sys

    for file in (ROOT / "src/pipeline_contract").glob("*.py"):
        for name in imports(file):
            top = name.split(".")[0]
            assert top == "pipeline_contract" or top in sys.stdlib_module_names, f"{file.name} imports {name}"


def test_lambdas_never_import_the_command_line_tool() -> None:
    for file in (ROOT / "lambdas").rglob("*.py"):
        assert not any(name.split(".")[0] in ("pipeline_cli", "typer", "rich") for name in imports(file)), file
