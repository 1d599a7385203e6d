"""Files to upload, and the real command to upload them with."""

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

from PIL import Image


@cache
def _pixels() -> bytes:
    buffer = BytesIO()
    Image.linear_gradient("L").resize((64, 48)).save(buffer, "JPEG")
    return buffer.getvalue()


def jpeg(comment: str) -> bytes:
    """A small JPEG that differs from all others by its comment."""
    text = comment.encode()
    image = _pixels()
    return image[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + image[2:]


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """With --output jsonl."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline_cli", *arguments]


def run(*arguments: str, stdin: bytes = b"", timeout: float = 120) -> Done:
    """Runs the real imgpipe as its own process, in this one's environment."""
    done = subprocess.run(command(*arguments), input=stdin, capture_output=True, timeout=timeout, check=False)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
