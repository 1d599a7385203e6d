"""One line of JSON per image: a log record and, in the same line, CloudWatch's embedded metrics.

CloudWatch makes metrics of a line with an `_aws` object ("Embedded metric format specification"); the other fields
stay searchable. Few dimensions: each combination of values is a metric that costs.
"""

import json
import sys
from typing import Any, TextIO

NAMESPACE = "imgpipe"


def image_line(
    *,
    function: str,
    timestamp_ms: int,
    outcome: str,
    code: str | None,
    fields: dict[str, Any],
    size: int | None,
    decode_ms: float | None,
    stages: dict[str, float],
) -> dict[str, Any]:
    """The line of one image. `outcome` is one of processing.Outcome, or ERROR for what will be tried again."""
    metrics = [{"Name": "Processed", "Unit": "Count"}]
    line: dict[str, Any] = {
        "level": "ERROR" if outcome == "ERROR" else "WARN" if code else "INFO",
        "event": "image",
        "outcome": outcome,
        "code": code,
        **fields,
        "ms": {name: round(value, 1) for name, value in stages.items()},
        "FunctionName": function,
        "Processed": 1,
    }
    if size is not None:
        line["Bytes"] = size
        metrics.append({"Name": "Bytes", "Unit": "Bytes"})
    if decode_ms is not None:
        line["DecodeMs"] = round(decode_ms, 1)
        metrics.append({"Name": "DecodeMs", "Unit": "Milliseconds"})
    directives: list[dict[str, Any]] = [
        {"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": metrics},
        {"Namespace": NAMESPACE, "Dimensions": [["FunctionName", "outcome"]], "Metrics": metrics[:1]},
    ]
    if code is not None:
        line["Failed"] = 1
        directives.append(
            {
                "Namespace": NAMESPACE,
                "Dimensions": [["FunctionName"], ["FunctionName", "code"]],
                "Metrics": [{"Name": "Failed", "Unit": "Count"}],
            }
        )
    line["_aws"] = {"Timestamp": timestamp_ms, "CloudWatchMetrics": directives}
    return {name: value for name, value in line.items() if value is not None}


def write(line: dict[str, Any], stream: TextIO | None = None) -> None:
    """Raw, not through `logging`: a prefix would hide the metrics. ASCII, so that a key cannot forge a line."""
    out = sys.stdout if stream is None else stream
    out.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")
    out.flush()
