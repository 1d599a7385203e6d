"""CloudWatch Logs: FilterLogEvents in pages, with ids, and with the filter patterns that AWS knows.

ministack's has no nextToken, lets JSON patterns match everything, and compares terms without their case.
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
"""

import itertools
from bisect import bisect_left, bisect_right
from typing import Any

from pipeline_cli.local.adaptations.original import original
from pipeline_cli.local.filter_pattern import compile_pattern

MAX_EVENTS = 10_000

_numbers = itertools.count(1)


def apply() -> None:
    from ministack.services import cloudwatch_logs

    original("services.cloudwatch_logs", "_filter_log_events", "9b3d13c713b5")
    cloudwatch_logs._filter_log_events = filter_log_events


def filter_log_events(request: dict[str, Any]) -> Any:
    """Stands in for ministack's `_filter_log_events`."""
    from ministack.core.responses import error_response_json, json_response
    from ministack.services import cloudwatch_logs

    name = cloudwatch_logs._resolve_log_group_name(request)
    group = cloudwatch_logs._log_groups.get(name)
    if group is None:
        return error_response_json("ResourceNotFoundException", f"The specified log group does not exist: {name}")
    try:
        matches = compile_pattern(request.get("filterPattern") or "")
    except ValueError as error:
        return error_response_json("InvalidParameterException", f"Invalid filter pattern: {error}")
    after = request.get("nextToken")
    limit = min(int(request.get("limit") or MAX_EVENTS), MAX_EVENTS)
    with cloudwatch_logs._log_events_lock:
        events = in_order(group["streams"], request)
    if after:
        events = events[bisect_right(events, after, key=lambda entry: cursor(entry[1])) :]
    found = [{**event, "logStreamName": stream} for stream, event in events if matches(event["message"])]
    answer: dict[str, Any] = {"events": found[:limit], "searchedLogStreams": []}
    if len(found) > limit:
        answer["nextToken"] = cursor(found[limit - 1])
    return json_response(answer)


def in_order(streams: dict[str, Any], request: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The events between startTime and endTime (both included) of the streams asked for, oldest first."""
    names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix") or ""
    start, end = request.get("startTime"), request.get("endTime")
    events = []
    for name, stream in streams.items():
        if (names and name not in names) or not name.startswith(prefix):
            continue
        history = stream["events"]
        first = 0 if start is None else bisect_left(history, start, key=_timestamp)
        last = len(history) if end is None else bisect_right(history, end, key=_timestamp)
        for event in history[first:last]:
            if event.get("eventId") is None:
                event["eventId"] = f"{event['timestamp']:020d}{next(_numbers):036d}"
            events.append((name, event))
    return sorted(events, key=lambda entry: cursor(entry[1]))


def cursor(event: dict[str, Any]) -> str:
    """Where an event stands in the order: also the token of the page that begins behind it."""
    return f"{event['timestamp']:020d}/{event['eventId']}"


def _timestamp(event: dict[str, Any]) -> int:
    return int(event["timestamp"])
