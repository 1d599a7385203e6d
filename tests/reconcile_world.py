"""A deployment in moto whose image function runs in this process: what `imgpipe reconcile` compares and repairs."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from handler_world import TABLE, THUMBNAILS, UPLOADS, World, world
from pipeline_cli import app
from pipeline_cli.context import Context


@dataclass
class Function:
    """The image function as a Lambda client shows it: an invocation is kept until it is `run`."""

    world: World
    waiting: list[dict[str, Any]] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    refuse: bool = False
    environment: dict[str, str] = field(default_factory=lambda: {"THUMBNAIL_SIZE": "100"})

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        return {"MemorySize": 1769, "Environment": {"Variables": self.environment}}

    def invoke(self, FunctionName: str, InvocationType: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        assert (FunctionName, InvocationType) == ("processor", "Event")
        if self.refuse:
            return {"StatusCode": 500}
        event = json.loads(Payload)
        self.waiting.append(event)
        self.seen += event["Records"]
        return {"StatusCode": 202}

    def run(self) -> None:
        """Everything that was asked for is done, and written."""
        waiting, self.waiting = self.waiting, []
        for event in waiting:
            self.world.process(*event["Records"])
        self.world.settle()


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)  # type: ignore[no-any-return]

    @property
    def found(self) -> dict[str | None, str]:
        """The kind of each finding by key."""
        return {one["key"]: one["kind"] for one in self.json["findings"]}


@dataclass
class Deployed:
    world: World
    function: Function
    environ: dict[str, str]

    def run(self, *args: str, **settings: Any) -> Result:
        out, err = io.StringIO(), io.StringIO()
        settings.setdefault("sleep", lambda _: None)
        code = app.run(args, Context(environ=self.environ, stdin=io.StringIO(), stdout=out, stderr=err, **settings))
        return Result(code, out.getvalue(), err.getvalue())

    def reconcile(self, *args: str) -> Result:
        return self.run("reconcile", "--grace", "0", "--output", "json", *args)

    def upload(self, key: str, **more: Any) -> None:
        """An object that went all the way."""
        self.world.process(self.world.put(key, **more))
        self.world.settle()


@contextmanager
def deployed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, versioned: bool = True) -> Iterator[Deployed]:
    with world(monkeypatch, versioned=versioned) as here:
        function = Function(here)
        monkeypatch.setattr("pipeline_cli.aws.Clients.lambda_", function)
        monkeypatch.setattr("pipeline_cli.pipeline.dead_letters.queues.LONG_POLL", 0)
        outputs = {
            "upload_bucket_name": UPLOADS,
            "thumbnail_bucket_name": THUMBNAILS,
            "dynamodb_table_name": TABLE,
            "metadata_queue_url": here.queues["metadata"],
            "dlq_url": here.queues["metadata-dlq"],
            "image_dlq_url": here.queues["image-dlq"],
            "image_processor_function_name": "processor",
            "db_writer_function_name": "writer",
            "aws_region": "us-east-1",
            "name_prefix": "test",
        }
        file = tmp_path / "outputs.json"
        file.write_text(json.dumps({name: {"value": value} for name, value in outputs.items()}))
        environ = {"IMGPIPE_OUTPUTS": str(file), "IMGPIPE_HOME": str(tmp_path / "home")}
        yield Deployed(here, function, environ)
