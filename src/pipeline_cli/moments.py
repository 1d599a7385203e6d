"""Points in time as an operator types them: `2h`, `30m`, `1d12h`, `2026-10-03`, `2026-10-03T12:34:56+02:00`."""

import re
from datetime import UTC, datetime, timedelta

from pipeline_cli.errors import UsageError

_AGO = re.compile(r"(?:(\d{1,5})w)?(?:(\d{1,5})d)?(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?")
HELP = "2h, 30m, 1d12h ago, or an ISO 8601 time (UTC where it names no offset)."


def moment(text: str, now: float) -> datetime:
    """The moment that `text` names, seen from `now` (seconds since 1970); UsageError when it names none."""
    try:
        if text.lower() == "now":
            return datetime.fromtimestamp(now, UTC)
        match = _AGO.fullmatch(text.strip().lower().removesuffix(" ago").replace(" ", ""))
        if match and any(match.groups()):
            weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
            return datetime.fromtimestamp(now, UTC) - timedelta(
                weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds
            )
        read = datetime.fromisoformat(text.strip())
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no point in time.", f"Give {HELP}") from error


def duration(text: str) -> float:
    """Seconds: `90`, `90s`, `15m`, `2h`, `7d`; UsageError when it is none."""
    match = _AGO.fullmatch(text.strip().lower())
    if match and any(match.groups()):
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    raise UsageError(f"{text!r} is no length of time.", "Give seconds, or 30m, 2h, 7d.")


def age(seconds: float) -> str:
    """A length of time in its two largest units, for people: `3d 4h`, `12m`, `8s`."""
    rest = max(0, int(seconds))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"
