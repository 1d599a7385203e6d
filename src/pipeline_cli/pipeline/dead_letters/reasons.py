"""Why a message died, from the log of the function that it died in, where the message itself does not tell."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline_cli.pipeline.dead_letters.messages import DeadLetter
from pipeline_cli.pipeline.log_events import Group, LogEvent, about
from pipeline_contract.failures import FailureCode, parse_error_text

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

BEFORE = 15 * 60.0  # seconds of log read before a failure; afterwards as many
SEARCHED = 50  # letters at most: each is a search in the log


def unexplained(letter: DeadLetter) -> bool:
    return letter.image_id is not None and letter.code in (None, FailureCode.UNEXPECTED)


def lines_about(
    logs: "CloudWatchLogsClient", groups: Sequence[Group], letter: DeadLetter, *, now: float
) -> list[LogEvent]:
    """The log lines about the image of a dead letter, around its failure."""
    if letter.image_id is None:
        return []
    failed = letter.failed_at.timestamp()
    # A raw metadata body has the time when it was first sent: what happened to it is later.
    until = now if letter.code is None else min(now, failed + BEFORE)
    return list(about(logs, groups, letter.image_id, since=failed - BEFORE, until=until))


def explained(letter: DeadLetter, lines: Sequence[LogEvent]) -> DeadLetter:
    """The letter with the reason that the last failing line gives; as it was when none does."""
    for line in reversed(lines):
        if not line.failed:
            continue
        code = FailureCode(line.code) if line.code and line.code in FailureCode.__members__ else None
        said = str(line.fields.get("message") or line.message)
        if code is None and (known := parse_error_text(said)):
            code, said = known
        if code is None and "Task timed out after" in said:
            code = FailureCode.TIMEOUT
        return replace(
            letter,
            code=code or letter.code,
            class_=code.failure_class if code else letter.class_,
            message=f"{said} (log)",
            hint=code.hint if code else letter.hint,
            request_id=line.request_id or letter.request_id,
        )
    return letter


def explain_all(
    logs: "CloudWatchLogsClient", groups: Sequence[Group], letters: Sequence[DeadLetter], *, now: float
) -> list[DeadLetter]:
    """The letters, those that do not tell their reason with the one that the log tells; the newest SEARCHED of them."""
    searched = {letter.message_id for letter in [one for one in letters if unexplained(one)][-SEARCHED:]}
    return [
        explained(letter, lines_about(logs, groups, letter, now=now)) if letter.message_id in searched else letter
        for letter in letters
    ]
