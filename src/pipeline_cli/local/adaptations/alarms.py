"""CloudWatch: an alarm looks at its own metric and dimensions, or at a sum of several, and knows missing data.

ministack mixes the queues of all dimensions, evaluates no metric math, and leaves an alarm as it is when its data end.
Figures of a queue count as they were last seen: an alarm fires and clears within seconds of what it speaks of, not
within the minutes that a real one takes.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
"""

import ast
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_cli.local.adaptations.original import original

_GAUGES = "AWS/SQS"
_COMPARISONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}


def apply() -> None:
    from ministack.services import cloudwatch

    original("services.cloudwatch", "_evaluate_alarm", "a0b0acd3d432")
    original("services.cloudwatch", "_calc_stats", "889e1bfc89dc")
    original("services.cloudwatch", "_record_history", "c5890b06e5c8")
    original("services.cloudwatch", "_dispatch_alarm_actions", "fcf47c0d1e6e")
    original("services.cloudwatch", "_evaluate_parent_alarms", "24a65a9e43d5")
    cloudwatch._evaluate_alarm = evaluate_alarm


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of an alarm: its statistic over `period` seconds."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: str
    period: int


Points = Sequence[Mapping[str, Any]]  # ministack's: Timestamp, Value


def metrics_of(alarm: Mapping[str, Any]) -> tuple[dict[str, Metric], str]:
    """The metrics of an alarm by their ids, and the expression over the ids that is compared."""
    if not alarm.get("Metrics"):
        statistic = alarm.get("ExtendedStatistic") or alarm.get("Statistic") or "Average"
        return {"m": _metric(alarm, statistic, alarm["Period"])}, "m"
    metrics, expression = {}, ""
    for query in alarm["Metrics"]:
        if stat := query.get("MetricStat"):
            metrics[query["Id"]] = _metric(stat["Metric"], stat["Stat"], stat["Period"])
        if query.get("ReturnData", True):
            expression = query.get("Expression") or query["Id"]
    return metrics, expression


def _metric(named: Mapping[str, Any], statistic: str, period: Any) -> Metric:
    dimensions = {each["Name"]: each["Value"] for each in named.get("Dimensions") or []}
    return Metric(named["Namespace"], named["MetricName"], dimensions, statistic, int(period))


def next_state(alarm: Mapping[str, Any], points: Callable[[Metric], Points], now: float) -> tuple[str, str]:
    """The state that an alarm has now, and why."""
    metrics, expression = metrics_of(alarm)
    period = max(metric.period for metric in metrics.values())
    count = int(alarm.get("EvaluationPeriods") or 1)
    if alarm["ComparisonOperator"] not in _COMPARISONS:
        return alarm["StateValue"], f"{alarm['ComparisonOperator']} is not evaluated here"
    compare, words = _COMPARISONS[alarm["ComparisonOperator"]]
    values = []
    for ago in range(count):
        window = {name: _value(metric, points(metric), now - ago * period) for name, metric in metrics.items()}
        values.append(calculate(expression, window))
    threshold = float(alarm["Threshold"])
    missing = alarm.get("TreatMissingData") or "missing"
    breaching = [missing == "breaching" if value is None else compare(value, threshold) for value in values]
    newest = next((f"{value:g}" for value in values if value is not None), "missing data")
    if sum(breaching) >= int(alarm.get("DatapointsToAlarm") or count):
        return "ALARM", f"Threshold crossed: {newest} is {words} {threshold:g}"
    if all(value is None for value in values):
        states = {"ignore": alarm["StateValue"], "missing": "INSUFFICIENT_DATA"}
        return states.get(missing, "OK"), "No datapoints were received"
    return "OK", f"Threshold not crossed: {newest} is not {words} {threshold:g}"


def _value(metric: Metric, points: Points, end: float) -> float | None:
    """The statistic of a metric over the period that ends at `end`; None when there is no data."""
    from ministack.services import cloudwatch

    if metric.namespace == _GAUGES:
        known = [point for point in points if point["Timestamp"] <= end]
        return float(known[-1]["Value"]) if known else None
    within = [point for point in points if end - metric.period < point["Timestamp"] <= end]
    if not within:
        return None
    value = cloudwatch._stat_value(cloudwatch._calc_stats(within), metric.statistic, within)
    return None if value is None else float(value)


_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def calculate(expression: str, values: Mapping[str, float | None]) -> float | None:
    """CloudWatch metric math as far as alarms here use it: + - * /, comparisons and IF(condition, then, else).

    None when one of the values that it needs is missing. ValueError for what it does not know.
    """
    return _calculate(ast.parse(expression, mode="eval").body, values)


def _calculate(node: ast.expr, values: Mapping[str, float | None]) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            one, other = _calculate(left, values), _calculate(right, values)
            if one is None or other is None or (isinstance(op, ast.Div) and other == 0):
                return None
            return _ARITHMETIC[type(op)](one, other)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _ORDER:
            one, other = _calculate(left, values), _calculate(right, values)
            return None if one is None or other is None else float(_ORDER[type(op)](one, other))
        case ast.Call(func=ast.Name(id="IF"), args=[condition, then, otherwise]):
            chosen = _calculate(condition, values)
            return None if chosen is None else _calculate(then if chosen else otherwise, values)
    raise ValueError(f"metric math that is not known here: {ast.unparse(node)}")


def evaluate_alarm(alarm: dict[str, Any]) -> None:
    """Stands in for ministack's `_evaluate_alarm`."""
    from ministack.services import cloudwatch

    if not (alarm.get("Metrics") or alarm.get("MetricName")):
        return

    def points(metric: Metric) -> Points:
        key = (metric.namespace, metric.name, cloudwatch._dims_key(dict(metric.dimensions)))
        return cloudwatch._metrics.get(key) or ()

    before = alarm["StateValue"]
    now, reason = next_state(alarm, points, time.time())
    if now == before:
        return
    alarm.update(StateValue=now, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
    cloudwatch._record_history(alarm["AlarmName"], before, now, reason)
    cloudwatch._dispatch_alarm_actions(alarm, before, now, reason)
    cloudwatch._evaluate_parent_alarms(alarm)
