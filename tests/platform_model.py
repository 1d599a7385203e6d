"""What AWS does around the two handlers, step by step and in an order that the test chooses.

S3 sends each event one to three times, in any order. Invocations run side by side: each call to AWS is a step, and
between two steps anything else may happen. A call may fail before or after it took effect, and an invocation may be
killed. Lambda tries a failed invocation twice more, then writes its record to the image DLQ. The queue delivers in
any order, sometimes twice; what the writer hands back is delivered again. At the end the DLQs are redriven.
"""

import json
import random
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

import db_writer.batch
from db_writer import handler as writer
from db_writer.retrying import Retrying
from fake_aws import Clock, FakeDynamoDB, FakeS3, FakeSqs, answer_error
from handler_world import THUMBNAILS, UPLOADS, plain, record
from image_processor import handler as processor
from pipeline_contract.identity import image_id

MAX_STEPS = 20_000  # a run takes some hundreds
CONTEXT = types.SimpleNamespace(aws_request_id="request", get_remaining_time_in_millis=lambda: 10_000)
METADATA, IMAGE_DLQ, METADATA_DLQ = "metadata", "image-dlq", "metadata-dlq"


class KilledError(BaseException):
    """The end of a process: no handler catches it."""


class Invocation(threading.Thread):
    """A handler's run that stops before every call to AWS until it is told to go on."""

    def __init__(self, run: Callable[[], Any], finished: Callable[[Any, BaseException | None], None]) -> None:
        super().__init__(daemon=True)
        self._run, self._finished = run, finished
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False
        self.pace = 1.0
        self.fate: BaseException | None = None
        self.start()
        self._paused.acquire()

    def run(self) -> None:
        result, error = None, None
        self.wait()
        try:
            self._raise_fate()
            result = self._run()
        except (Exception, KilledError) as caught:  # noqa: BLE001
            error = caught
        self.over = True
        self._finished(result, error)
        self._paused.release()

    def wait(self) -> None:
        self._paused.release()
        self._go.acquire()

    def before_call(self) -> None:
        self.wait()
        self._raise_fate()

    def _raise_fate(self) -> None:
        fate, self.fate = self.fate, None
        if fate is not None:
            raise fate

    def step(self, fate: BaseException | None = None) -> None:
        self.fate = fate
        self._go.release()
        self._paused.acquire()


class SerialExecutor:
    """Different images side by side are different invocations here."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> "SerialExecutor":
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[[Any], Any], items: Any) -> list[Any]:
        return [function(item) for item in items]


@dataclass
class Platform:
    random: random.Random
    troubles: int = 0  # how many calls may fail or invocations be killed
    clock: Clock = field(default_factory=Clock)
    sequence: int = 0
    events: list[tuple[dict[str, Any], int]] = field(default_factory=list)  # with the attempts so far
    running: list[Invocation] = field(default_factory=list)
    dead: list[dict[str, Any]] = field(default_factory=list)  # records whose retries ran out
    repeats: tuple[int, ...] = (1, 1, 1, 1, 1, 2, 3)  # how often an event comes; a repetition also mends
    current: Invocation | None = None
    steps: int = 0
    fault: Callable[[str], BaseException | None] = lambda call: None

    def __post_init__(self) -> None:
        self.s3 = FakeS3(self.clock, self._before, frozenset({UPLOADS}), {UPLOADS: {}, THUMBNAILS: {}})
        self.sqs = FakeSqs(self._before, {METADATA: [], IMAGE_DLQ: [], METADATA_DLQ: []})
        self.dynamodb = FakeDynamoDB(self._before)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        clients = {"s3": self.s3, "sqs": self.sqs, "dynamodb": self.dynamodb}
        for module in (processor, writer):
            patch.setattr(module, "client", clients.__getitem__)
            patch.setattr(module, "write", lambda line: None)
        patch.setattr(processor, "_now", self.clock.text)
        patch.setattr(db_writer.batch, "_now", self.clock.text)
        patch.setattr(db_writer.batch, "ThreadPoolExecutor", SerialExecutor)
        patch.setattr(writer, "Retrying", lambda remaining: Retrying(remaining, sleep=lambda seconds: None))
        environment = {
            "THUMBNAIL_BUCKET": THUMBNAILS, "METADATA_QUEUE": METADATA, "IMAGE_DLQ": IMAGE_DLQ, "THUMBNAIL_SIZE": "16",
            "METADATA_DLQ": METADATA_DLQ, "DYNAMODB_TABLE": "images",
        }  # fmt: skip
        for module in (processor, writer):
            here = module.Deployment.from_environment(environment)
            patch.setattr(module, "deployment", lambda here=here: here)

    def _before(self, call: str) -> None:
        if self.current is not None and threading.current_thread() is self.current:
            self.current.before_call()
        error = self.fault(call)
        if error is not None:
            raise error

    # What users and S3 do

    def create(self, key: str, data: bytes) -> None:
        made = self.s3.put_object(Bucket=UPLOADS, Key=key, Body=data, ContentType="image/jpeg")
        self._send(key, "ObjectCreated:Put", made["VersionId"], made["ETag"].strip('"'))

    def delete(self, key: str, *, lifecycle: bool = False) -> None:
        made = self.s3.delete_object(Bucket=UPLOADS, Key=key)
        name = "LifecycleExpiration" if lifecycle else "ObjectRemoved"
        self._send(key, f"{name}:DeleteMarkerCreated", made["VersionId"], None, ordered=not lifecycle)

    def remove_version(self, key: str, which: int, *, lifecycle: bool = False) -> None:
        """A version, current or not, or a delete marker: then an older version may be current again."""
        versions = self.s3.buckets[UPLOADS].get(key)
        if versions:
            version = versions[which % len(versions)].version_id
            self.s3.delete_object(Bucket=UPLOADS, Key=key, VersionId=version)
            name = "LifecycleExpiration" if lifecycle else "ObjectRemoved"
            self._send(key, f"{name}:Delete", version, None, ordered=not lifecycle)

    def _send(self, key: str, name: str, version: str, e_tag: str | None, *, ordered: bool = True) -> None:
        self.sequence += 1
        # Sequencers grow, differ in length, and come in either case.
        sequencer = f"{self.sequence:06x}" + "8" * self.random.randrange(4)
        if self.random.random() < 0.5:
            sequencer = sequencer.upper()
        event = record(
            key, name, e_tag=e_tag, version_id=version, time=self.clock.text(), sequencer=sequencer if ordered else None
        )
        self.events += [(event, 0)] * self.random.choice(self.repeats)

    # What the platform does

    def busy(self) -> bool:
        return bool(self.events or self.running or self.sqs.queues[METADATA])

    def step(self) -> None:
        """One thing that may happen now."""
        choices: list[Callable[[], None]] = []
        if self.events and len(self.running) < 5:
            choices.append(self._invoke_processor)
        if self.sqs.queues[METADATA] and len(self.running) < 5:
            choices.append(self._invoke_writer)
        choices += [self._continue] * (2 * len(self.running))
        if choices:
            self.random.choice(choices)()

    def _continue(self) -> None:
        (chosen,) = self.random.choices(self.running, [invocation.pace for invocation in self.running])
        fate: BaseException | None = None
        if self.troubles > 0 and self.random.random() < 0.08:
            self.troubles -= 1
            fate = self.random.choice([KilledError(), answer_error("InternalError", 500)])
        self.advance(chosen, fate)

    def advance(self, invocation: Invocation, fate: BaseException | None = None) -> None:
        """The next call of an invocation, or its fate; nothing when it is over."""
        if invocation.over:
            return
        self.current = invocation
        invocation.step(fate)
        self.current = None
        if invocation.over:
            self.running.remove(invocation)

    def begin(self) -> Invocation:
        """The processor with the event that came last."""
        self._invoke_processor(len(self.events) - 1)
        return self.running[-1]

    def _start(self, invocation: Invocation) -> None:
        # Some are so slow that others come and go between two of their steps: that is when races are lost.
        invocation.pace = self.random.choice([0.005, 0.3, 1.0])
        self.running.append(invocation)

    def _invoke_processor(self, which: int | None = None) -> None:
        event, attempts = self.events.pop(self.random.randrange(len(self.events)) if which is None else which)

        def finished(_: Any, error: BaseException | None) -> None:
            if error is not None and attempts < 2:
                self.events.append((event, attempts + 1))
            elif error is not None:
                self.dead.append(event)

        self._start(Invocation(lambda: processor.lambda_handler({"Records": [event]}, CONTEXT), finished))

    def _invoke_writer(self) -> None:
        queue = self.sqs.queues[METADATA]
        self.random.shuffle(queue)
        batch = [queue.pop() for _ in range(min(len(queue), self.random.randrange(1, 5)))]
        records = [
            {"messageId": str(index), "body": body, "attributes": {"ApproximateReceiveCount": "1"}}
            for index, body in enumerate(batch)
        ]

        def finished(answer: Any, error: BaseException | None) -> None:
            failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]} if error is None else set("0123")
            again = [body for index, body in enumerate(batch) if str(index) in failed or self.random.random() < 0.1]
            queue.extend(again)

        self._start(Invocation(lambda: writer.lambda_handler({"Records": records}, CONTEXT), finished))

    def settle(self) -> None:
        """Until nothing happens any more; then redrive what is dead, and again."""
        while True:
            while self.busy():
                self.step()
                self.steps += 1
                assert self.steps < MAX_STEPS, "the same things fail again and again"
            if not self.dead:
                return
            self.troubles = 0
            self.events += [(event, 0) for event in self.dead]
            self.dead.clear()

    # What is left

    def item(self, key: str) -> dict[str, Any] | None:
        item = self.dynamodb.items.get(image_id(UPLOADS, key))
        return None if item is None else {name: plain(value) for name, value in item.items()}

    def thumbnails(self, key: str) -> list[dict[str, str]]:
        prefix = f"thumbnails/{image_id(UPLOADS, key)}"
        found = (self.s3.current(THUMBNAILS, name) for name in self.s3.buckets[THUMBNAILS] if name.startswith(prefix))
        return [version.metadata for version in found if version is not None]

    def reported(self, key: str) -> list[dict[str, Any]]:
        entries = [json.loads(body) for body in self.sqs.queues[IMAGE_DLQ]]
        return [entry for entry in entries if entry["source"]["key"] == key]
