import csv
import io
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_cli.output import Column, Format, Renderer, escape, size, to_json

COLUMNS = (Column("key", "Key"), Column("bytes", "Size", right=True, show=size), Column("exif.make", "Make"))
ROWS = [{"key": "a é.jpg", "bytes": 1234567, "exif": {"make": "Canon"}}, {"key": "=1+1", "bytes": Decimal(5)}]
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rendered(chosen: Format | None, rows: object = ROWS, *, terminal: bool = False, **more: str) -> str:
    stream = Terminal() if terminal else io.StringIO()
    Renderer(stream, chosen).rows(rows, COLUMNS, **more)  # type: ignore[arg-type]
    return stream.getvalue()


def test_a_pipe_gets_tab_separated_values_with_a_header() -> None:
    assert rendered(None) == "key\tbytes\texif.make\na é.jpg\t1234567\tCanon\n=1+1\t5\t\n"


def test_a_piped_table_is_never_cut_or_folded() -> None:
    key = "x" * 3000
    assert key in rendered(Format.TABLE, [{"key": key, "bytes": 1}])


def test_json_is_one_array_with_every_field() -> None:
    assert json.loads(rendered(Format.JSON)) == [
        {"key": "a é.jpg", "bytes": 1234567, "exif": {"make": "Canon"}},
        {"key": "=1+1", "bytes": 5},
    ]
    assert json.loads(rendered(Format.JSON, [])) == []


def test_jsonl_is_an_object_a_line() -> None:
    assert [json.loads(line)["key"] for line in rendered(Format.JSONL).splitlines()] == ["a é.jpg", "=1+1"]


def test_csv_cells_cannot_be_formulas_but_numbers_stay_numbers() -> None:
    text = rendered(
        Format.CSV, [{"key": "=cmd()", "bytes": -5}, {"key": "@x", "bytes": 1}, {"key": "a,b\n", "bytes": 1}]
    )
    assert [row[:2] for row in csv.reader(io.StringIO(text))][1:] == [["'=cmd()", "-5"], ["'@x", "1"], ["a,b\n", "1"]]


def test_an_empty_list_says_so_to_people_only() -> None:
    assert rendered(Format.TABLE, [], empty="No images.") == "No images.\n"
    assert rendered(Format.TSV, [], empty="No images.") == "key\tbytes\texif.make\n"


@given(st.text(st.characters()))
@pytest.mark.parametrize("chosen", [Format.TABLE, Format.JSON, Format.JSONL, Format.TSV])
def test_nothing_from_outside_reaches_a_terminal_raw(chosen: Format, key: str) -> None:
    text = rendered(chosen, [{"key": key, "bytes": 1}])
    assert not DANGEROUS.search(text)
    if chosen in (Format.JSON, Format.JSONL):
        value = json.loads(text)
        assert (value[0] if isinstance(value, list) else value)["key"] == key


def test_csv_is_raw_in_a_pipe_and_safe_on_a_terminal() -> None:
    assert "\x1b" in rendered(Format.CSV, [{"key": "a\x1b[2J", "bytes": 1}])
    assert "\x1b" not in rendered(Format.CSV, [{"key": "a\x1b[2J", "bytes": 1}], terminal=True)


@given(st.text(st.characters()))
def test_escaping_twice_changes_nothing(text: str) -> None:
    assert escape(escape(text)) == escape(text)


def test_a_record_is_names_and_values() -> None:
    stream = io.StringIO()
    Renderer(stream, Format.TSV).record({"a": 1, "b": {"c": "x\x1b[31m"}})
    assert stream.getvalue() == "field\tvalue\na\t1\nb.c\tx\\x1b[31m\n"


def test_nan_never_becomes_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json({"a": float("nan")})


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345, "12 kB"), (5_400_000_000, "5.4 GB")]
)
def test_sizes_are_short(number: int, text: str) -> None:
    assert size(number) == text


def test_one_file_renders() -> None:
    """`print` and Rich tables live in output.py alone; ruff's T20 keeps print out."""
    source = Path(__file__).parents[1] / "src/pipeline_cli"
    users = {
        file.relative_to(source).as_posix()
        for file in source.rglob("*.py")
        if "rich.table" in file.read_text(encoding="utf-8")
    }
    # Both draw live bars on stderr, with a grid.
    assert users - {"commands/upload_progress.py", "commands/local_demo.py"} == {"output.py"}
