"""Log events as people read them."""

from collections.abc import Iterable
from typing import Any

from pipeline_cli.context import Context
from pipeline_cli.output import escape, to_json
from pipeline_cli.pipeline.log_events import LogEvent

_STYLES = {"ERROR": "red", "CRITICAL": "bold red", "FATAL": "bold red", "WARNING": "yellow", "WARN": "yellow"}
# What the line shows already, or what says little to people: ids, and the metrics that ride on the line (EMF).
_SAID = {"level", "event", "requestId", "imageId", "messageId", "bucket", "eventName", "sequencer"}
_SAID |= {"_aws", "FunctionName", "Processed", "Failed", "Code", "Bytes", "DecodeMs"}
_PLATFORM = ("START RequestId", "END RequestId", "REPORT RequestId", "INIT_START")


def print_lines(context: Context, events: Iterable[LogEvent]) -> int:
    """One line per event, and the day where it changes; returns how many events there were."""
    from rich.text import Text

    console, count, day = context.out.console, 0, None
    for event in events:
        count += 1
        if event.time.date() != day:
            day = event.time.date()
            console.print(Text(f"{day} UTC", style="dim"))
        line = Text()
        line.append(f"{event.time:%H:%M:%S}.{event.time.microsecond // 1000:03d} ", style="dim")
        line.append(f"{event.function:<9} ", style="cyan" if event.function == "processor" else "magenta")
        if event.level:
            line.append(f"{event.level:<5} ", style=_STYLES.get(event.level, ""))
        line.append(escape(summary(event)), style="dim" if event.message.startswith(_PLATFORM) else "")
        console.print(line, soft_wrap=True)
    return count


def summary(event: LogEvent) -> str:
    """The line in a few words: the outcome, the key, the message of a JSON line, and its further fields."""
    if not event.fields:
        return event.message.replace("\t", "  ")
    rest = {name: value for name, value in event.fields.items() if name not in _SAID and value is not None}
    said = [str(rest.pop(name)) for name in ("outcome", "code", "key", "message", "msg") if name in rest]
    if event.key is None and event.image_id is not None:
        said.append(event.image_id)
    return " ".join([*said, *(f"{name}={_short(value)}" for name, value in rest.items())]).strip()


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + " ".join(f"{name} {_short(item)}" for name, item in value.items()) + ")"
    return value if isinstance(value, str) else to_json(value)
