"""What a test asks of a local pipeline that it drives with the real imgpipe."""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pipeline_cli.aws import Clients
from pipeline_contract.identity import image_id

IMGPIPE = Path(sys.executable).with_name("imgpipe")
PATIENCE = 120.0  # seconds: a limit for a broken pipeline on a loaded machine, not a measure of a good one

T = TypeVar("T")


@dataclass(frozen=True)
class LocalPipeline:
    """A local pipeline in a home of its own, and what a test asks of it."""

    home: Path

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "IMGPIPE_"))}
        return kept | {"IMGPIPE_HOME": str(self.home), "IMGPIPE_DEPLOYMENT": "local", "NO_COLOR": "1"}

    @property
    def folder(self) -> Path:
        return self.home / "data" / "local"

    def run(self, *args: object, check: bool = True, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run `imgpipe` with these arguments, and see that it exits with 0."""
        done = subprocess.run(
            [IMGPIPE, *map(str, args)],
            env=self.environ | settings.pop("environ", {}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            **settings,
        )
        if check:
            assert done.returncode == 0, f"imgpipe {args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: object) -> Any:
        return json.loads(self.run(*args, "--output", "json").stdout)

    @property
    def process(self) -> dict[str, Any]:
        """Who runs it: the supervisor's `pid`, the `emulator_pid`, the `port`."""
        return dict(json.loads((self.folder / "process.json").read_text()))

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        document = json.loads((self.folder / "outputs.json").read_text())
        return {name: entry["value"] for name, entry in document.items()}

    @property
    def clients(self) -> Clients:
        endpoint = json.loads((self.folder / "endpoint.json").read_text())
        return _clients(endpoint["region"], endpoint["endpoint_url"])

    def put(self, key: str, data: bytes, **settings: Any) -> str:
        """Upload bytes as another program would; the id of the image."""
        bucket = self.outputs["upload_bucket_name"]
        self.clients.s3.put_object(Bucket=bucket, Key=key, Body=data, **settings)
        return image_id(bucket, key)

    def items(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """Items of the table by their original keys."""
        pages = self.clients.dynamodb.get_paginator("scan").paginate(TableName=self.outputs["dynamodb_table_name"])
        rows = [
            {name: next(iter(value.values())) for name, value in row.items()} for page in pages for row in page["Items"]
        ]
        return {row["originalKey"]: row for row in rows if row.get("originalKey", "").startswith(prefix)}

    def dead_letters(self, output: str = "image_dlq_url") -> list[dict[str, Any]]:
        """What lies in a dead-letter queue, which keeps it."""
        sqs, url = self.clients.sqs, self.outputs[output]
        taken = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60).get(
            "Messages"
        ):
            taken += messages
        for message in taken:
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        return [json.loads(message["Body"]) for message in taken]

    def alarm(self, suffix: str) -> str:
        name = f"{self.outputs['name_prefix']}-{suffix}"
        return self.clients.cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"]


@functools.cache
def _clients(region: str, endpoint_url: str) -> Clients:
    return Clients(profile=None, region=region, endpoint_url=endpoint_url)


def eventually(look: Callable[[], T], what: str) -> T:
    """What `look` returns as soon as that is true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"this did not come about in {PATIENCE:.0f} s: {what}")
