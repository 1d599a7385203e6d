"""Frozen dataclasses to JSON objects and back, by their annotations.

Names turn from snake_case to camelCase. Absent means None: a None is not written, and only a field that may be None
may be missing. Decoding trusts nothing: an unknown field, a wrong type, a number that is not finite or a text beyond
its bounds is MESSAGE_MALFORMED, with the path of the field.
"""

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Hashable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from pipeline_contract.failures import FailureCode, PipelineError

T = TypeVar("T")

MAX_MESSAGE_BYTES = 256 * 1024  # what SQS takes for sure in every region, and async Lambda took before 2026
MAX_TEXT = 4096
MAX_DEPTH = 6


def malformed(message: str) -> PipelineError:
    return PipelineError(FailureCode.MESSAGE_MALFORMED, message)


def dumps(value: Any) -> str:
    """Compact JSON; NaN and infinities, which JSON does not know, raise ValueError."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def loads_object(body: str) -> dict[str, Any]:
    """A JSON object, or MESSAGE_MALFORMED."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise malformed(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise malformed(f"not a JSON object but {type(value).__name__}")
    return value


def _refuse_constant(name: str) -> typing.NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def encode(value: Any) -> Any:
    """A dataclass (or anything inside one) as what `json.dumps` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            camel(field.name): encode(item)
            for field in dataclasses.fields(value)
            if (item := getattr(value, field.name)) is not None
        }
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def decode(cls: type[T], value: Any, path: str = "") -> T:
    """The dataclass that `value`, decoded JSON, describes; MESSAGE_MALFORMED where it does not."""
    if not isinstance(value, Mapping):
        raise malformed(f"{path or 'message'} is not an object")
    fields = _fields(typing.cast("Hashable", cls))
    for name in value:
        if name not in fields:
            raise malformed(f"unknown field {_at(path, str(name)):.120}")
    arguments = {}
    for name, (attribute, annotation, optional) in fields.items():
        item = value.get(name)
        if item is None:
            if not optional:
                raise malformed(f"{_at(path, name)} is missing")
            continue
        arguments[attribute] = _decode_value(annotation, item, _at(path, name))
    return cls(**arguments)


def camel(name: str) -> str:
    head, *rest = name.rstrip("_").split("_")
    return head + "".join(part.capitalize() for part in rest)


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@functools.cache
def _fields(cls: Hashable) -> dict[str, tuple[str, Any, bool]]:
    hints = typing.get_type_hints(cls)
    described = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # a dataclass, which functools.cache knows only as Hashable
        annotation, nullable = _without_none(hints[field.name])
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        described[camel(field.name)] = (field.name, annotation, nullable or has_default)
    return described


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        kept = [part for part in typing.get_args(annotation) if part is not types.NoneType]
        if len(kept) == 1 and len(kept) < len(typing.get_args(annotation)):
            return kept[0], True
    return annotation, False


def _decode_value(annotation: Any, value: Any, path: str) -> Any:
    if annotation is Any:
        return value
    if dataclasses.is_dataclass(annotation):
        return decode(typing.cast("type[Any]", annotation), value, path)
    origin = typing.get_origin(annotation)
    if origin is tuple:
        if not isinstance(value, list):
            raise malformed(f"{path} is not a list")
        inner = typing.get_args(annotation)[0]
        return tuple(_decode_value(inner, item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise malformed(f"{path} is not an object")
        _check_plain(value, path)
        return value
    if annotation is bool:
        if not isinstance(value, bool):
            raise malformed(f"{path} is not true or false")
        return value
    if annotation in (int, float):
        return _number(annotation, value, path)
    return _text(annotation, value, path)


def _number(annotation: type, value: Any, path: str) -> int | float:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if annotation is int and (not whole or not -(2**53) <= value <= 2**53):
        raise malformed(f"{path} is not a whole number")
    if not whole and not (isinstance(value, float) and math.isfinite(value)):
        raise malformed(f"{path} is not a finite number")
    return typing.cast("int | float", value)


def _text(annotation: Any, value: Any, path: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise malformed(f"{path} is not a text of at most {MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise malformed(f"{path} is not valid Unicode") from error
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        try:
            return annotation(value)
        except ValueError as error:
            raise malformed(f"{path} is {value!r:.60}, which is none of {', '.join(annotation)}") from error
    return value


def _check_plain(value: Any, path: str, depth: int = 0) -> None:
    """Only finite numbers, valid text, booleans, lists and objects, none too deep: what DynamoDB can hold."""
    if depth > MAX_DEPTH:
        raise malformed(f"{path} is nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _text(str, key, path)
            if item is not None:
                _check_plain(item, _at(path, key), depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int | float):
        _number(float if isinstance(value, float) else int, value, path)
    else:
        _text(str, value, path)
