"""The alarms of a deployment, and what they say now."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

ALARM = "ALARM"


@dataclass(frozen=True, slots=True)
class Alarm:
    """One metric alarm: `state` is OK, ALARM or INSUFFICIENT_DATA, since `updated`; `name` is without the prefix."""

    name: str
    state: str
    updated: datetime
    reason: str
    description: str


def alarms(cloudwatch: "CloudWatchClient", prefix: str) -> Iterator[Alarm]:
    """The metric alarms of the deployment whose resources have this name prefix."""
    begin = f"{prefix}-"
    for page in cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=begin, AlarmTypes=["MetricAlarm"]):
        for raw in page["MetricAlarms"]:
            yield Alarm(
                raw["AlarmName"].removeprefix(begin),
                raw["StateValue"],
                raw["StateUpdatedTimestamp"],
                raw.get("StateReason", ""),
                raw.get("AlarmDescription", ""),
            )
