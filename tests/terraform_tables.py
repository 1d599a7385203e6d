"""The tables of variables and outputs in docs/deploying.md, from the module: `python tests/terraform_tables.py`."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "deploying.md"


def tables() -> dict[str, str]:
    """The tables by their names."""
    variables = ["| Variable | What it is | Type | Default |", "|---|---|---|---|"]
    for name, body in _blocks("variable", "variables.tf"):
        kind, default = _field(body, "type"), _field(body, "default")
        variables.append(f"| `{name}` | {_text(body)} | {kind} | `{default}` |")
    outputs = ["| Output | What it is |", "|---|---|"]
    outputs += [f"| `{name}` | {_text(body)} |" for name, body in _blocks("output", "outputs.tf")]
    return {"variables": "\n".join(variables), "outputs": "\n".join(outputs)}


def with_tables(page: str) -> str:
    """The page with its tables as the module has them."""
    for name, table in tables().items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        page, found = re.subn(
            pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page, flags=re.DOTALL
        )
        assert found == 1, f"the page has no place for {name}"
    return page


def _blocks(kind: str, file: str) -> list[tuple[str, str]]:
    text = (ROOT / "terraform" / file).read_text()
    return re.findall(rf'^{kind} "(\w+)" \{{\n(.*?)^\}}', text, re.MULTILINE | re.DOTALL)


def _field(body: str, name: str) -> str:
    match = re.search(rf"^  {name} += (.+)$", body, re.MULTILINE)
    assert match is not None, body
    return match[1].strip('"')


def _text(body: str) -> str:
    return _field(body, "description").replace("|", r"\|").replace('\\"', '"')


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
