"""`--where`: a small expression over the fields of a row, evaluated without ever running code.

Python's own parser reads it; only the operators below are known. A field is a name, dots reach inside
(`exif.model`); one that is missing is None, and ordering anything with None is false.
"""

import ast
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from pipeline_cli.errors import UsageError

MAX_LENGTH = 1000
HELP = "A condition on fields: \"width > 4000 and format in ['JPEG', 'PNG']\", \"like(originalKey, '2026/*')\"."

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
    ast.Is: lambda left, right: left is right,
    ast.IsNot: lambda left, right: left is not right,
}
_NAMES = {"true": True, "false": False, "null": None}

_Row = Mapping[str, Any]
_Evaluate = Callable[[_Row], Any]


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition that was read; `matches` tells whether a row fulfils it. `fields` are the names that it asks for."""

    text: str
    _evaluate: _Evaluate
    fields: tuple[str, ...] = ()

    def matches(self, row: _Row) -> bool:
        return bool(self._evaluate(row))


def expression(text: str, known: Collection[str] = (), free: Collection[str] = ()) -> Expression:
    """Reads a condition; UsageError names what it does not know.

    `known` and `free` are those of `check_field`; without `known` any field will do.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"--where is longer than {MAX_LENGTH} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        read = Expression(text, _node(tree.body), tuple(_fields(tree.body)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"--where cannot be read: {text}", HELP) from error
    if known:
        for name in read.fields:
            check_field(name, "--where", known, free)
    return read


def check_field(name: str, option: str, known: Collection[str], free: Collection[str] = ()) -> None:
    """UsageError for a field that no row can have, with the nearest that there are.

    `known` are the fields of a row; dots reach inside those that are `free`, where any name may be (EXIF).
    """
    outer, dot, _ = name.partition(".")
    if outer not in known:
        spelled = {one.lower(): one for one in known}
        near = get_close_matches(outer.lower(), sorted(spelled), 3)
        names = [spelled[one] for one in near] or sorted(known)
        quoted = f" A text is quoted: '{name}'." if option == "--where" else ""
        raise UsageError(f"{option}: there is no field {outer}.", f"There is: {', '.join(names)}.{quoted}")
    if dot and outer not in free:
        inside = ", ".join(sorted(free)) or "none"
        raise UsageError(f"{option}: {outer} has nothing inside it ({name}).", f"Dots reach into: {inside}.")


def _fields(node: ast.expr) -> Iterator[str]:
    """The fields of a condition, dotted. The name of the function `like` is none."""
    match node:
        case ast.Name(id=name) if name not in _NAMES:
            yield name
        case ast.Attribute():
            yield ".".join(_path(node))
        case ast.Call(args=[subject, *_]):
            yield from _fields(subject)
        case _:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    yield from _fields(child)


def _node(node: ast.expr) -> _Evaluate:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            parts = [_node(value) for value in values]
            return lambda row: all(part(row) for part in parts)
        case ast.BoolOp(values=values):
            parts = [_node(value) for value in values]
            return lambda row: any(part(row) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _node(operand)
            return lambda row: not inner(row)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda _row: -number
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            return _comparison(left, ops, comparators)
        case ast.Constant(value=str() | int() | float() | bool() | None as value):
            return lambda _row: value
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            items = [_node(element) for element in elements]
            return lambda row: [item(row) for item in items]
        case ast.Name(id=name) if name in _NAMES:
            return lambda _row: _NAMES[name]
        case ast.Name() | ast.Attribute():
            path = _path(node)
            return lambda row: _field(row, path)
        case ast.Call(func=ast.Name(id="like"), args=[subject, ast.Constant(value=str() as pattern)], keywords=[]):
            text = _node(subject)
            return lambda row: isinstance(found := text(row), str) and fnmatchcase(found, pattern)
    raise UsageError(f"--where does not know {ast.unparse(node)!r:.80}.", HELP)


def _comparison(left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr]) -> _Evaluate:
    operands = [_node(operand) for operand in (left, *comparators)]
    tests = [_COMPARE[type(op)] for op in ops]

    def holds(row: _Row) -> bool:
        values = [operand(row) for operand in operands]
        try:
            return all(test(values[index], values[index + 1]) for index, test in enumerate(tests))
        except TypeError:  # None < 3, 'a' < 3, 3 in None: not comparable, so not fulfilled
            return False

    return holds


def _path(node: ast.expr) -> tuple[str, ...]:
    match node:
        case ast.Name(id=name):
            return (name,)
        case ast.Attribute(value=value, attr=name):
            return (*_path(value), name)
    raise UsageError(f"--where does not know {ast.unparse(node)!r:.80}.", HELP)


def _field(row: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(row, Mapping):
            return None
        row = row.get(name)
    return row
