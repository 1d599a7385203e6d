"""One line of JSON per image or message: a log record and, in the same line, CloudWatch's embedded metrics.

CloudWatch makes metrics of a line with an `_aws` object ("Embedded metric format specification"); its other fields
stay searchable. Few dimensions, because each combination of values is a metric that costs: the function, and the
failure code for what failed.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any, TextIO

NAMESPACE = "ImagePipeline"

_UNITS = {"Processed": "Count", "Failed": "Count", "Bytes": "Bytes", "DecodeMs": "Milliseconds"}


def metric_line(
    function: str, timestamp_ms: int, fields: Mapping[str, Any], metrics: Mapping[str, float | None], code: str | None
) -> dict[str, Any]:
    """The line with `fields` (those that are None left out) and the metrics of `_UNITS` that have a value.

    `code` is the reason of a failure, which also counts as `Failed`.
    """
    values = {name: value for name, value in {**metrics, "Failed": 1 if code else None}.items() if value is not None}
    general = [{"Name": name, "Unit": _UNITS[name]} for name in values]
    directives = [{"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": general}]
    if code:
        failed = [{"Name": "Failed", "Unit": "Count"}]
        directives.append({"Namespace": NAMESPACE, "Dimensions": [["FunctionName", "Code"]], "Metrics": failed})
    return {
        **{name: value for name, value in fields.items() if value is not None},
        **({"code": code, "Code": code} if code else {}),
        **values,
        "FunctionName": function,
        "_aws": {"Timestamp": timestamp_ms, "CloudWatchMetrics": directives},
    }


def write(line: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """One write, raw, not through `logging`, whose prefix would hide the metrics. ASCII: no key can forge a line."""
    out = sys.stdout if stream is None else stream
    out.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")
    out.flush()
