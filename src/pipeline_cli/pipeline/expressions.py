"""`--where`: a small expression over the fields of a row, evaluated without ever running code.

Python's own parser reads it; only the operators below are known. A field is a name, dots reach inside
(`exif.model`); one that is missing is None, and ordering anything with None is false.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    """A condition that was read; `matches` tells whether a row fulfils it."""

    text: str
    _evaluate: _Evaluate

    def matches(self, row: _Row) -> bool:
        return bool(self._evaluate(row))


def expression(text: str) -> Expression:
    """Reads a condition; UsageError names what it does not know."""
    if len(text) > MAX_LENGTH:
        raise UsageError(f"--where is longer than {MAX_LENGTH} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return Expression(text, _node(tree.body))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"--where cannot be read: {text}", HELP) from error


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
