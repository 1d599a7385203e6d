"""Times as the pipeline writes them: UTC with milliseconds, `2026-10-03T12:34:56.789Z`. They sort as text."""

from datetime import UTC, datetime
from typing import Any

from pipeline_contract.failures import FailureCode, PipelineError


def format_time(moment: datetime) -> str:
    """A time-zone-aware moment as the pipeline writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    return format_time(datetime.now(UTC))


def parse_time(value: Any) -> str:
    """Any ISO 8601 time with an offset, as the pipeline writes it; MESSAGE_MALFORMED when it is none."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise PipelineError(FailureCode.MESSAGE_MALFORMED, f"not an ISO 8601 time: {value!r:.60}") from error
    if moment.tzinfo is None:
        raise PipelineError(FailureCode.MESSAGE_MALFORMED, f"a time without its offset: {value!r:.60}")
    try:
        return format_time(moment)
    except OverflowError as error:
        raise PipelineError(FailureCode.MESSAGE_MALFORMED, f"a time out of range: {value!r:.60}") from error
