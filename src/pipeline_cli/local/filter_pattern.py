"""CloudWatch Logs filter patterns, as far as logs of the pipeline are searched with them.

Terms (`ERROR`, `"two words"`, `?either ?or`, `-without`), regular expressions (`%^START%`) and conditions on JSON
(`{ $.level = "ERROR" && $.ms > 100 }`). Patterns for space-delimited fields (`[...]`) are refused.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

import json
import operator
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

Matcher = Callable[[str], bool]
_TERM = re.compile(r'\s*([-?]?)(?:"((?:[^"\\]|\\.)*)"|%([^%]*)%|(\S+))')
_TOKEN = re.compile(
    r"""\s*(?:(?P<sign>&&|\|\||!=|<=|>=|[()=<>])
    |(?P<path>\$(?:\.[\w-]+|\[(?:\d+|"[^"]*"|'[^']*')\])*)
    |"(?P<text>(?:[^"\\]|\\.)*)"
    |%(?P<pattern>[^%]*)%
    |(?P<word>[\w.*:/@+-]+))""",
    re.VERBOSE,
)
_STEP = re.compile(r"\.([\w-]+)|\[(\d+)\]|\[[\"']([^\"']*)[\"']\]")
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compile_pattern(pattern: str) -> Matcher:
    """What tells whether a message matches. ValueError for a pattern that is none, or not known here."""
    pattern = pattern.strip()
    if pattern.startswith("{"):
        if not pattern.endswith("}"):
            raise ValueError("a JSON pattern ends with }")
        return _Conditions(pattern[1:-1]).matcher()
    if pattern.startswith("["):
        raise ValueError("patterns for space-delimited fields are not known here")
    return _terms(pattern)


def _terms(pattern: str) -> Matcher:
    every: list[Matcher] = []
    some: list[Matcher] = []
    position = 0
    while match := _TERM.match(pattern, position):
        position = match.end()
        sign, quoted, expression, word = match.groups()
        if expression is not None:
            test = _searching(expression)
        else:
            test = _containing(_unescaped(quoted) if quoted is not None else word)
        if sign == "-":
            every.append(_lacking(test))
        else:
            (some if sign == "?" else every).append(test)
    return lambda message: all(test(message) for test in every) and (not some or any(test(message) for test in some))


def _searching(expression: str) -> Matcher:
    found = _regular(expression)
    return lambda message: bool(found.search(message))


def _regular(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise ValueError(f"not a regular expression: {expression!r}: {error}") from error


def _containing(term: str) -> Matcher:
    return lambda message: term in message


def _lacking(test: Matcher) -> Matcher:
    return lambda message: not test(message)


class _Conditions:
    """A parser of JSON conditions by recursive descent: or, and, one condition or parentheses."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    def matcher(self) -> Matcher:
        test = self._any()
        if self._next != len(self._tokens):
            raise ValueError(f"unexpected {self._tokens[self._next][1]!r} in a JSON pattern")

        def match(message: str) -> bool:
            try:
                document = json.loads(message)
            except ValueError:
                return False
            return isinstance(document, dict | list) and test(document)

        return match

    def _take(self, kind: str = "", value: str = "") -> tuple[str, str] | None:
        """The next token, when it is of this kind and value."""
        if self._next == len(self._tokens):
            return None
        token = self._tokens[self._next]
        if (kind and token[0] != kind) or (value and token[1].upper() != value):
            return None
        self._next += 1
        return token

    def _any(self) -> Callable[[Any], bool]:
        tests = [self._all()]
        while self._take("sign", "||"):
            tests.append(self._all())
        return lambda document: any(test(document) for test in tests)

    def _all(self) -> Callable[[Any], bool]:
        tests = [self._one()]
        while self._take("sign", "&&"):
            tests.append(self._one())
        return lambda document: all(test(document) for test in tests)

    def _one(self) -> Callable[[Any], bool]:
        if self._take("sign", "("):
            inner = self._any()
            if not self._take("sign", ")"):
                raise ValueError("a parenthesis is not closed")
            return inner
        path = self._take("path")
        if path is None:
            raise ValueError("a condition begins with a selector: $.name")
        steps = [one or two or three for one, two, three in _STEP.findall(path[1])]
        if self._take("word", "IS"):
            return self._is(steps)
        if self._take("word", "NOT") and self._take("word", "EXISTS"):
            return lambda document: _select(document, steps) is _ABSENT
        sign = self._take("sign")
        wanted = self._take()
        if sign is None or wanted is None:
            raise ValueError(f"a condition on {path[1]} lacks its comparison")
        return _comparison(steps, sign[1], wanted)

    def _is(self, steps: list[str]) -> Callable[[Any], bool]:
        values = {"NULL": None, "TRUE": True, "FALSE": False}
        word = self._take("word")
        if word is None or word[1].upper() not in values:
            raise ValueError("IS is followed by NULL, TRUE or FALSE")
        value = values[word[1].upper()]
        return lambda document: _select(document, steps) is value


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"not a JSON pattern from here: {text[position:]!r}")
        position = match.end()
        kind = match.lastgroup or ""
        yield kind, match[kind]


_ABSENT = object()


def _select(document: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return _ABSENT
    return document


def _comparison(steps: list[str], sign: str, wanted: tuple[str, str]) -> Callable[[Any], bool]:
    kind, text = wanted
    if kind == "pattern":
        found = _regular(text)
    if sign in _ORDER:
        number = float(text)
        return lambda document: _is_number(value := _select(document, steps)) and _ORDER[sign](value, number)
    if sign not in ("=", "!="):
        raise ValueError(f"{sign} is no comparison")

    def equal(value: Any) -> bool:
        if kind == "pattern":
            return isinstance(value, str) and bool(found.search(value))
        if _is_number(value):
            try:
                return kind == "word" and float(text) == value
            except ValueError:
                return False
        return isinstance(value, str) and fnmatchcase(value, _glob(_unescaped(text)))

    def test(document: Any) -> bool:
        value = _select(document, steps)
        return value is not _ABSENT and equal(value) is (sign == "=")

    return test


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _glob(text: str) -> str:
    """Only * stands for something; ? and [ are themselves."""
    return re.sub(r"[?\[]", r"[\g<0>]", text)
