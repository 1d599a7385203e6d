"""The only place that renders. stdout carries data: a table for people, JSON, JSON lines, CSV or TSV for programs.

What came from outside (object keys, EXIF, log lines) is never trusted: control, escape and bidirectional characters
are shown escaped, and CSV cells that a spreadsheet would run are quoted.
"""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TextIO

from pipeline_cli.errors import UsageError
from pipeline_contract.codec import camel

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


WIDE = 110  # columns of a terminal from which on a table shows everything


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"


# C0, DEL, C1, lone surrogates, line and paragraph separators, and what changes the direction of text.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_JSON_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def escape(text: str) -> str:
    r"""Text that is safe on a terminal: `\x1b`, `\n` and `\u202e` are spelled out."""
    return _UNSAFE.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    character = match[0]
    short = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character)
    if short:
        return short
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def plain(value: Any) -> Any:
    """What JSON can hold of a result: dataclasses become objects with camelCase names, moments UTC text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {camel(field.name): plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.hex()
    return value


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that is safe on a terminal, with text as it is (so that it can be searched for)."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    return _JSON_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of a list: `name` is the field of the row (dots reach inside) and the header of CSV and TSV.

    A table keeps the cells of a `whole` column in one line, and leaves a `wide` column out of a narrow terminal.
    """

    name: str
    title: str
    right: bool = False
    show: Callable[[Any], str] | None = None  # how a table shows the value to people
    style: Callable[[Any], str] | str = ""
    whole: bool = False
    wide: bool = False


def size(value: Any) -> str:
    """Bytes, as people read them."""
    if value is None:
        return ""
    number = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


class Renderer:
    """Writes results to stdout in the format asked for: by default a table on a terminal, TSV in a pipe."""

    def __init__(self, stream: TextIO, chosen: Format | None, *, color: bool | None = None) -> None:
        """`color` None lets the terminal decide."""
        self._stream = stream
        self._color = color
        self.interactive = stream.isatty()
        self.format = chosen or (Format.TABLE if self.interactive else Format.TSV)

    def rows(self, rows: Iterable[Any], columns: Sequence[Column], *, empty: str = "") -> int:
        """A list of results, written as it comes where the format allows; returns how many there were.

        JSON and JSON lines carry every field of a row, the others the columns. `empty` is what a table says of none.
        """
        match self.format:
            case Format.JSON:
                return self._json_array(rows)
            case Format.JSONL:
                return self._each(to_json(row) for row in rows)
            case Format.CSV:
                return self._each(self._csv(columns, rows)) - 1
            case Format.TSV:
                return self._each(self._tsv(columns, rows)) - 1
            case Format.TABLE:
                return self._table(rows, columns, empty)

    def record(self, record: Any, *, title: str = "") -> None:
        """One result: a table of names and values, or one JSON object; CSV and TSV have a row per field."""
        if self.format in (Format.JSON, Format.JSONL):
            self.line(to_json(record, indent=2 if self.format is Format.JSON else None))
            return
        if self.format is not Format.TABLE:
            pairs = [{"field": name, "value": value} for name, value in _flat(plain(record))]
            self.rows(pairs, (Column("field", "Field"), Column("value", "Value")))
            return
        self.console.print(self.grid(record, title=title))

    def grid(self, record: Any, *, title: str = "") -> "Table":
        """One result as a table of names and values, for what draws it again and again."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False, title=title or None, title_justify="left")
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in _flat(plain(record)):
            table.add_row(Text(escape(name)), Text(_cell(value)))
        return table

    def line(self, text: str) -> None:
        """One line of data, as it is: the caller has made it safe."""
        self._stream.write(text + "\n")

    def separate(self) -> None:
        """An empty line between two records, where people read."""
        if self.format is Format.TABLE:
            self._stream.write("\n")

    def binary(self, data: bytes) -> None:
        """Bytes of a file, for a pipe; UsageError on a terminal."""
        if self.interactive:
            raise UsageError("A terminal cannot show the bytes of a file.", "Send them on: ... | file -")
        self._stream.flush()
        self._stream.buffer.write(data)
        self._stream.buffer.flush()

    def flush(self) -> None:
        self._stream.flush()

    @property
    def console(self) -> "Console":
        """Rich on stdout, for what only people read (Format.TABLE)."""
        from rich.console import Console

        return Console(
            file=self._stream,
            force_terminal=True if self._color else None,
            no_color=True if self._color is False else None,
            highlight=False,
            markup=False,
            emoji=False,
            # Off a terminal nothing is cut or folded: a key must stay one greppable piece.
            width=None if self.interactive else 10_000,
            soft_wrap=not self.interactive,
        )

    def _each(self, lines: Iterable[str]) -> int:
        count = 0
        for text in lines:
            self._stream.write(text + "\n")
            count += 1
        self._stream.flush()
        return count

    def _json_array(self, rows: Iterable[Any]) -> int:
        count = 0
        for count, row in enumerate(rows, 1):
            self._stream.write(("[" if count == 1 else ",") + "\n  " + to_json(row))
        self._stream.write("\n]\n" if count else "[]\n")
        self._stream.flush()
        return count

    def _csv(self, columns: Sequence[Column], rows: Iterable[Any]) -> Iterator[str]:
        shown = escape if self.interactive else str  # a program gets the text as it is
        yield _csv_line([column.name for column in columns])
        for row in rows:
            yield _csv_line([_no_formula(shown(_raw(_field(row, column.name)))) for column in columns])

    def _tsv(self, columns: Sequence[Column], rows: Iterable[Any]) -> Iterator[str]:
        yield "\t".join(column.name for column in columns)
        for row in rows:
            yield "\t".join(escape(_raw(_field(row, column.name))) for column in columns)

    def _table(self, rows: Iterable[Any], columns: Sequence[Column], empty: str) -> int:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD if self.interactive else None, pad_edge=False)
        columns = [column for column in columns if not column.wide or self.console.width >= WIDE]
        for column in columns:
            justify: Literal["left", "right"] = "right" if column.right else "left"
            table.add_column(column.title, justify=justify, overflow="fold", no_wrap=column.whole)
        count = 0
        for row in rows:
            count += 1
            cells = []
            for column in columns:
                value = _field(row, column.name)
                text = _cell(value) if column.show is None else escape(column.show(value))
                style = column.style if isinstance(column.style, str) else column.style(value)
                cells.append(Text(text, style=style))
            table.add_row(*cells)
        if count:
            self.console.print(table)
        elif empty:
            self._stream.write(empty + "\n")
        self._stream.flush()
        return count


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()


def _no_formula(text: str) -> str:
    """A cell that a spreadsheet takes for text (OWASP, "CSV Injection")."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _field(row: Any, name: str) -> Any:
    value = row if isinstance(row, Mapping) else plain(row)
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return plain(value)


def _raw(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return to_json(value)
    return str(value)


def _cell(value: Any) -> str:
    return escape(_raw(value))


def _flat(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
