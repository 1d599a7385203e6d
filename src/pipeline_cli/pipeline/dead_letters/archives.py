"""A safety copy of dead letters: a file of JSON lines, on the disk before anything is deleted from a queue."""

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline_cli.errors import UsageError
from pipeline_cli.pipeline.dead_letters.messages import DeadLetter
from pipeline_contract.failures import Stage
from pipeline_contract.times import format_time

SCHEMA = "imgpipe.archive/1"


@dataclass(frozen=True, slots=True)
class Archive:
    """A file that messages are appended to; made with the first of them, readable by its owner alone."""

    file: Path
    now: float

    def write(self, letters: Sequence[DeadLetter], action: str) -> None:
        """Appends messages and waits until the disk has them."""
        if not letters:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(self._line(letter, action), allow_nan=False) + "\n" for letter in letters)
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())

    def _line(self, letter: DeadLetter, action: str) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "archivedAt": format_time(datetime.fromtimestamp(self.now, UTC)),
            "action": action,
            "queue": letter.queue,
            "messageId": letter.message_id,
            "imageId": letter.image_id,
            "key": letter.key,
            "code": letter.code,
            "body": letter.raw.get("Body", ""),
            "attributes": dict(letter.raw.get("Attributes") or {}),
            "messageAttributes": _portable(letter.raw.get("MessageAttributes") or {}),
        }


@dataclass(frozen=True, slots=True)
class Archived:
    """A message of an archive. `raw` has the shape that `ReceiveMessage` gives."""

    queue: Stage
    raw: Mapping[str, Any]


def load(file: Path) -> Iterator[Archived]:
    """The messages of an archive; UsageError names the line that is none."""
    try:
        with file.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield _read(line, f"{file}, line {number}")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is no text, and so no archive.") from error
    except OSError as error:
        raise UsageError(f"The archive {file} cannot be read: {error.strerror}.") from error


def _read(line: str, where: str) -> Archived:
    try:
        value = json.loads(line)
        raw = {
            "MessageId": str(value["messageId"]),
            "Body": _text(value["body"]),
            "Attributes": dict(value["attributes"]),
            "MessageAttributes": _received(value["messageAttributes"]),
        }
        return Archived(_queue(value), raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{where}: not a line of an archive ({error}).") from error


def _queue(value: Mapping[str, Any]) -> Stage:
    if value["schema"] != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    return Stage(value["queue"])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("body is not text")
    return value


def _portable(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: {
            part: base64.b64encode(value).decode() if isinstance(value, bytes) else value
            for part, value in attribute.items()
        }
        for name, attribute in attributes.items()
    }


def _received(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: {part: base64.b64decode(value) if part == "BinaryValue" else value for part, value in attribute.items()}
        for name, attribute in attributes.items()
    }
