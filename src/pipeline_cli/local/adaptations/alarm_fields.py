"""CloudWatch: an alarm is described as it was put, metric math and all, in the protocol that Terraform speaks too.

ministack drops the `Metrics` of an alarm, and answers DescribeAlarms of the Query protocol with half of its fields: a
Terraform plan then never comes to rest.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from pipeline_cli.local.adaptations.original import original

_BOOLEANS = ("ReturnData", "ActionsEnabled")
_INTEGERS = ("Period", "MaxRecords")
# What a metric math alarm has not, and ministack gives defaults for.
_SINGLE_METRIC = ("MetricName", "Namespace", "Statistic", "ExtendedStatistic", "Period", "Unit")


def apply() -> None:
    from ministack.services import cloudwatch

    put = original("services.cloudwatch", "_put_metric_alarm", "953a67ff4bb1")
    describe = original("services.cloudwatch", "_describe_alarms", "ab8f092ff9ae")

    def put_metric_alarm(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        answer = put(params, data, is_cbor, is_json)
        if answer[0] == 200:
            given = data if is_cbor or is_json else nested(_plain(params))
            alarm = cloudwatch._alarms[given["AlarmName"]]
            complete(alarm, given)
            cloudwatch._evaluate_alarm(alarm)
        return answer

    def describe_alarms(params: Any, data: Any, is_cbor: bool, is_json: bool = False) -> Any:
        if is_cbor or is_json:
            return describe(params, data, is_cbor, is_json)
        status, _, body = describe({}, nested(_plain(params)), False, True)
        if status != 200:
            return describe(params, data, is_cbor, is_json)
        xml = to_xml({"DescribeAlarmsResult": json.loads(body)})
        return cloudwatch._xml(status, "DescribeAlarmsResponse", xml)

    cloudwatch._put_metric_alarm = put_metric_alarm
    cloudwatch._describe_alarms = describe_alarms


def complete(alarm: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put into a stored alarm what ministack leaves out of it, and take out what nobody gave."""
    alarm["InsufficientDataActions"] = given.get("InsufficientDataActions") or []
    if given.get("Metrics"):
        alarm["Metrics"] = [{"ReturnData": True, **query} for query in given["Metrics"]]
        for name in _SINGLE_METRIC:
            alarm.pop(name, None)
    for name in [name for name, value in alarm.items() if value is None]:
        del alarm[name]


def nested(parameters: Mapping[str, str]) -> dict[str, Any]:
    """The structure that Query parameters spell: `Dimensions.member.1.Name=x` is `{"Dimensions": [{"Name": "x"}]}`."""
    root: dict[str, Any] = {}
    for name, value in parameters.items():
        node = root
        *way, last = name.split(".")
        for step in way:
            node = node.setdefault(step, {})
        node[last] = _typed(last, value)
    return {name: _lists(value) for name, value in root.items()}


def _typed(name: str, value: str) -> Any:
    if name in _BOOLEANS:
        return value == "true"
    return int(value) if name in _INTEGERS else value


def _lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if set(node) == {"member"}:
        return [_lists(node["member"][number]) for number in sorted(node["member"], key=int)]
    return {name: _lists(value) for name, value in node.items()}


def to_xml(node: Any, name: str = "") -> str:
    """The Query protocol's answer: lists of `member`, moments in ISO 8601, and nothing for what is not there."""
    if isinstance(node, Mapping):
        return "".join(f"<{key}>{to_xml(value, key)}</{key}>" for key, value in node.items() if value is not None)
    if isinstance(node, list):
        return "".join(f"<member>{to_xml(each)}</member>" for each in node)
    if name.endswith("Timestamp"):
        return datetime.fromtimestamp(node, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return str(node).lower() if isinstance(node, bool) else escape(str(node))


def _plain(params: Mapping[str, Any]) -> dict[str, str]:
    """ministack's parameters, each of them a list or text, as text."""
    return {name: value[0] if isinstance(value, list) else value for name, value in params.items()}
