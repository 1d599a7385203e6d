"""Alarms of the emulator: metric math, periods, missing data, and what the Query protocol says of them."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_cli.local.adaptations import alarm_fields, alarms
from pipeline_cli.local.adaptations.alarms import calculate, next_state


def dead_letter_alarm(**changes: Any) -> dict[str, Any]:
    depth = {"Namespace": "AWS/SQS", "Dimensions": [{"Name": "QueueName", "Value": "q"}]}
    stat = {"Period": 60, "Stat": "Maximum"}
    return {
        "AlarmName": "a",
        "StateValue": "OK",
        "Metrics": [
            {
                "Id": "visible",
                "ReturnData": False,
                "MetricStat": {"Metric": {**depth, "MetricName": "Visible"}, **stat},
            },
            {"Id": "taken", "ReturnData": False, "MetricStat": {"Metric": {**depth, "MetricName": "Taken"}, **stat}},
            {"Id": "sum", "Expression": "visible + taken", "ReturnData": True},
        ],
        "EvaluationPeriods": 1,
        "DatapointsToAlarm": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "TreatMissingData": "notBreaching",
        **changes,
    }


def points(**values: list[tuple[float, float]]) -> Callable[[alarms.Metric], alarms.Points]:
    def of(metric: alarms.Metric) -> alarms.Points:
        if dict(metric.dimensions) != {"QueueName": "q"}:
            return ()
        return [{"Timestamp": at, "Value": value} for at, value in values.get(metric.name, [])]

    return of


def test_an_alarm_follows_the_newest_figure_of_its_own_queue() -> None:
    alarm = dead_letter_alarm()
    assert next_state(alarm, points(), 100.0)[0] == "OK"
    assert next_state(alarm, points(Visible=[(90, 1)], Taken=[(90, 0)]), 100.0)[0] == "ALARM"
    assert next_state(alarm, points(Visible=[(90, 0)], Taken=[(90, 2)]), 100.0)[0] == "ALARM"
    assert next_state(alarm, points(Visible=[(90, 5), (95, 0)], Taken=[(90, 0)]), 100.0)[0] == "OK"
    other = dead_letter_alarm()
    for query in other["Metrics"][:2]:
        query["MetricStat"]["Metric"]["Dimensions"] = [{"Name": "QueueName", "Value": "another"}]
    assert next_state(other, points(Visible=[(90, 9)], Taken=[(90, 9)]), 100.0)[0] == "OK"


@pytest.mark.parametrize(
    ("missing", "state"),
    [("missing", "INSUFFICIENT_DATA"), ("notBreaching", "OK"), ("breaching", "ALARM"), ("ignore", "ALARM")],
)
def test_missing_data_is_treated_as_the_alarm_says(missing: str, state: str) -> None:
    alarm = dead_letter_alarm(TreatMissingData=missing, StateValue="ALARM")
    assert next_state(alarm, points(), 100.0)[0] == state


def test_an_alarm_over_several_periods_needs_so_many_of_them() -> None:
    alarm = {
        **dead_letter_alarm(),
        "Metrics": None,
        "Namespace": "AWS/Lambda",
        "MetricName": "Errors",
        "Dimensions": [{"Name": "QueueName", "Value": "q"}],
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": 3,
        "DatapointsToAlarm": 2,
        "Threshold": 3.0,
    }
    assert next_state(alarm, points(Errors=[(170, 2), (171, 1), (115, 3)]), 180.0)[0] == "ALARM"
    assert next_state(alarm, points(Errors=[(170, 2), (171, 1), (115, 2)]), 180.0)[0] == "OK"


@pytest.mark.parametrize(
    ("expression", "values", "expected"),
    [
        ("visible + taken", {"visible": 2.0, "taken": 3.0}, 5.0),
        ("visible + taken", {"visible": 2.0, "taken": None}, None),
        ("IF(calls > 0, 100 * errors / calls, 0)", {"calls": 20.0, "errors": 1.0}, 5.0),
        ("IF(calls > 0, 100 * errors / calls, 0)", {"calls": 0.0, "errors": 0.0}, 0.0),
        ("IF(calls > 0, 100 * errors / calls, 0)", {"calls": None, "errors": None}, None),
        ("1 / errors", {"errors": 0.0}, None),
    ],
)
def test_metric_math(expression: str, values: dict[str, float | None], expected: float | None) -> None:
    assert calculate(expression, values) == expected


def test_metric_math_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="not known"):
        calculate("__import__('os')", {})


# Alarms in the Query protocol

_NAMES = st.text("abcXYZ09", min_size=1, max_size=5)
_TREES = st.recursive(
    st.text("ab<&>\"' é", min_size=1),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(_NAMES, inner, min_size=1, max_size=3),
    max_leaves=8,
)


def parameters(node: Any, name: str = "") -> dict[str, str]:
    if isinstance(node, dict):
        parts = [parameters(value, f"{name}.{key}" if name else key) for key, value in node.items()]
    elif isinstance(node, list):
        parts = [parameters(value, f"{name}.member.{number}") for number, value in enumerate(node, 1)]
    else:
        return {name: str(node)}
    return {key: value for part in parts for key, value in part.items()}


@given(st.dictionaries(_NAMES, _TREES, min_size=1, max_size=4))
def test_query_parameters_become_the_structure_that_they_spell(request: dict[str, Any]) -> None:
    assert alarm_fields.nested(parameters(request)) == request


def test_an_alarm_is_described_in_xml_with_all_that_was_put() -> None:
    described = {"MetricAlarms": [dead_letter_alarm(StateUpdatedTimestamp=0, ActionsEnabled=True, AlarmName="a<b")]}
    xml = alarm_fields.to_xml(described)
    for part in (
        "<AlarmName>a&lt;b</AlarmName>",
        "<Expression>visible + taken</Expression>",
        "<StateUpdatedTimestamp>1970-01-01T00:00:00Z</StateUpdatedTimestamp>",
        "<ActionsEnabled>true</ActionsEnabled>",
        "<Dimensions><member><Name>QueueName</Name><Value>q</Value></member></Dimensions>",
    ):
        assert part in xml
