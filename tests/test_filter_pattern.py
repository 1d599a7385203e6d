"""CloudWatch Logs filter patterns, by the examples of their documentation."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_cli.local.filter_pattern import compile_pattern

LINES = (
    "[ERROR 400] BAD REQUEST",
    "[ERROR 401] UNAUTHORIZED REQUEST",
    "[ERROR 419] MISSING ARGUMENTS",
    "[WARN] all is well",
)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", [0, 1, 2, 3]),
        ("ERROR", [0, 1, 2]),
        ("error", []),
        ("ERROR REQUEST", [0, 1]),
        ('"BAD REQUEST"', [0]),
        ("?UNAUTHORIZED ?ARGUMENTS", [1, 2]),
        ("ERROR -ARGUMENTS", [0, 1]),
        ('ERROR -"BAD REQUEST"', [1, 2]),
        ("%4[01]\\d%", [0, 1, 2]),
        ("%^.WARN%", [3]),
    ],
)
def test_terms(pattern: str, found: list[int]) -> None:
    matches = compile_pattern(pattern)
    assert [number for number, line in enumerate(LINES) if matches(line)] == found


EVENT = {
    "level": "ERROR",
    "key": 'two "words" é.jpg',
    "ms": {"render": 120.5, "send": 3},
    "tags": ["a", {"b": "c"}],
    "nothing": None,
    "yes": True,
    "ip": "123.123.1.2",
    "odd.name": "x",
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.level = "ERROR" }', True),
        ("{ $.level = ERROR }", True),
        ('{ $.level = "error" }', False),
        ('{ $.level != "ERROR" }', False),
        ('{ $.absent != "ERROR" }', False),
        ("{ $.ip = 123.123.* }", True),
        ('{ $.level = "ERR*" }', True),
        ('{ $.level = "E?ROR" }', False),
        ('{ $.key = "two \\"words\\" é.jpg" }', True),
        ("{ $.ms.render > 120 }", True),
        ("{ $.ms.render >= 120.5 && $.ms.send <= 3 }", True),
        ("{ $.ms.render < 100 || $.ms.send = 3 }", True),
        ("{ ($.ms.render < 100 || $.ms.send = 3) && $.level = INFO }", False),
        ("{ $.ms.render < 100 || $.ms.send = 3 && $.level = INFO }", False),
        ('{ $.tags[0] = "a" }', True),
        ('{ $.tags[1].b = "c" }', True),
        ('{ $.tags[9] = "a" }', False),
        ("{ $['odd.name'] = x }", True),
        ("{ $.nothing IS NULL }", True),
        ("{ $.level IS NULL }", False),
        ("{ $.absent NOT EXISTS }", True),
        ("{ $.level NOT EXISTS }", False),
        ("{ $.yes IS TRUE }", True),
        ("{ $.yes IS FALSE }", False),
        ("{ $.key = %two.*é% }", True),
        ("{ $.level = 1 }", False),
    ],
)
def test_conditions_on_json(pattern: str, expected: bool) -> None:
    assert compile_pattern(pattern)(json.dumps(EVENT)) is expected


@pytest.mark.parametrize("message", ["", "no json", "1", '"ERROR"', "null"])
def test_a_line_that_is_no_json_object_meets_no_condition(message: str) -> None:
    assert compile_pattern("{ $.level NOT EXISTS }")(message) is False


@pytest.mark.parametrize(
    "pattern",
    [
        "[a, b]",
        "{ $.level = ",
        "{ level = ERROR }",
        "{ $.level }",
        "{ $.level = }",
        "{ ($.level = ERROR }",
        "{ $.level = ERROR $.key = x }",
        "{ $.level IS MAYBE }",
        "{ $.level > abc }",
        "{ }",
        "%(%",
        "{ $.key = %(% }",
    ],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_pattern(pattern)


@given(st.text(), st.text())
def test_any_text_is_a_pattern_or_refused(pattern: str, message: str) -> None:
    try:
        matches = compile_pattern(pattern)
    except ValueError:
        return
    assert matches(message) in (True, False)
