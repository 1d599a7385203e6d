"""What the emulator is adapted in: that ministack is still the one that was adapted, and what each adaptation does."""

import ast
import importlib
import inspect
import queue
import textwrap
import threading
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline_cli.local import adaptations
from pipeline_cli.local.adaptations import (
    async_invoke,
    batch_failures,
    busy_workers,
    error_type,
    log_end,
    original,
    quick_copies,
    version_keys,
)
from pipeline_cli.local.adaptations.async_invoke import Invocation, InvocationQueue, invocation_record
from pipeline_cli.local.adaptations.batch_failures import failed_messages

ministack = pytest.importorskip("ministack")


def adapted(module: ModuleType) -> list[tuple[str, str, str]]:
    """The calls of `original(module, name, fingerprint)` in an adaptation."""
    found = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "original":
            arguments = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            if len(arguments) == 3:
                found.append((str(arguments[0]), str(arguments[1]), str(arguments[2])))
    return found


@pytest.mark.parametrize("module", adaptations.ADAPTATIONS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_what_it_adapts_is_what_it_was_written_against(module: ModuleType) -> None:
    names = adapted(module) + [
        ("services.sqs", name, fingerprint) for name, fingerprint in getattr(module, "_LOCKED", {}).items()
    ]
    assert names, "an adaptation names what it adapts"
    for where, name, fingerprint in names:
        original.original(where, name, fingerprint)


def test_the_worker_script_still_reports_exceptions_as_adapted() -> None:
    from ministack.core import lambda_runtime

    assert lambda_runtime._PYTHON_WORKER_SCRIPT.count(error_type._SAID) == 1
    assert error_type._SAID not in error_type._SAID_HERE


def test_another_ministack_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "MINISTACK_VERSION", "0.0.1")
    with pytest.raises(original.AdaptationError, match=r"0\.0\.1 is needed"):
        original.require_version()


def test_a_changed_function_is_refused() -> None:
    with pytest.raises(original.AdaptationError, match="has changed"):
        original.original("services.sqs", "_dlq_sweep", "0" * 12)
    with pytest.raises(original.AdaptationError, match="has no function"):
        original.original("services.sqs", "_no_such", "0" * 12)


def test_the_pinned_version_is_the_one_in_pyproject() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'"ministack=={original.MINISTACK_VERSION}"' in text


# Asynchronous invocations


def invocation(number: int = 0) -> Invocation:
    return Invocation(str(number), "arn:aws:lambda:us-east-1:000000000000:function:f", {"n": number}, time.time())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_more_run_at_once_than_there_are_workers_and_none_is_lost() -> None:
    lock, running, most, done = threading.Lock(), set[str](), [0], list[str]()

    def attempt(one: Invocation) -> None:
        with lock:
            running.add(one.id)
            most[0] = max(most[0], len(running))
        time.sleep(0.002)
        with lock:
            running.discard(one.id)
            done.append(one.id)

    queue = InvocationQueue(attempt, workers=3)
    for number in range(100):
        queue.put(invocation(number))
    wait_for(lambda: len(done) == 100 and not queue.pending())
    assert most[0] <= 3
    assert sorted(done, key=int) == [str(number) for number in range(100)]


def test_what_is_put_back_runs_again_and_stays_pending_meanwhile() -> None:
    attempts: list[int] = []

    def attempt(one: Invocation) -> tuple[Invocation, float] | None:
        attempts.append(one.attempts)
        assert [entry["id"] for entry in queue.pending()] == ["7"]
        return None if len(attempts) == 3 else (Invocation(one.id, one.function_arn, one.event, 0.0, len(attempts)), 0)

    queue = InvocationQueue(attempt, workers=1)
    queue.put(invocation(7))
    wait_for(lambda: len(attempts) == 3 and not queue.pending())
    assert attempts == [0, 1, 2]


def test_pending_invocations_can_be_taken_up_again() -> None:
    seen: list[Invocation] = []
    queue = InvocationQueue(lambda one: seen.append(one), workers=1)
    before = invocation(3)
    stuck = InvocationQueue(lambda _: None, workers=0)
    stuck.put(before)
    for entry in stuck.pending():
        queue.put(Invocation(**entry))
    wait_for(lambda: bool(seen))
    assert seen == [before]


class FakeLambda:
    """ministack's Lambda service, as far as an attempt asks it."""

    def __init__(self, *results: dict[str, Any], retries: int | None = None) -> None:
        self.results = list(results)
        self.settings = {"MaximumRetryAttempts": retries, "MaximumEventAgeInSeconds": 60}
        self.failed: list[tuple[Invocation, str]] = []

    def run(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float] | None]:
        """Attempts until it is settled: attempts counted and delay of each."""
        from ministack.services import lambda_svc

        record = {"config": {"FunctionName": "f"}}
        monkeypatch.setattr(lambda_svc, "_get_func_record_for_ref", lambda _: (record, record["config"], "f"))
        monkeypatch.setattr(lambda_svc, "_event_invoke_config", lambda *_: self.settings)
        monkeypatch.setattr(lambda_svc, "_execute_function", lambda *_: self.results.pop(0))
        monkeypatch.setattr(lambda_svc, "_emit_lambda_metrics", lambda *_: None)
        monkeypatch.setattr(
            async_invoke, "_fail", lambda settings, one, result, condition: self.failed.append((one, condition))
        )
        seen: list[tuple[int, float] | None] = []
        current: tuple[Invocation, float] | None = (invocation(), 0.0)
        while current is not None:
            current = async_invoke._attempt(current[0])
            seen.append(None if current is None else (current[0].attempts, current[1]))
        return seen


def test_a_throttle_is_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    throttle = {"throttle": True, "error": True, "body": {}}
    function = FakeLambda(throttle, throttle, throttle, throttle, {"body": "ok"})
    assert function.run(monkeypatch) == [(0, async_invoke.THROTTLED_SECONDS)] * 4 + [None]
    assert function.failed == []


@pytest.mark.parametrize("retries", [None, 0, 1, 2])
def test_a_failure_is_tried_again_as_the_function_says(monkeypatch: pytest.MonkeyPatch, retries: int | None) -> None:
    expected = 2 if retries is None else retries
    function = FakeLambda(*({"error": True, "body": {}} for _ in range(expected + 1)), retries=retries)
    attempts = function.run(monkeypatch)
    assert [entry[0] for entry in attempts if entry] == list(range(1, expected + 1))
    [(failed, condition)] = function.failed
    assert (failed.attempts, condition) == (expected + 1, "RetriesExhausted")


def test_an_invocation_record_has_the_shape_of_lambdas() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    tried = Invocation("r", "arn:aws:lambda:us-east-1:000000000000:function:f", {"a": 1}, 0.0, 3)
    answer = {"errorMessage": "CORRUPT: x", "errorType": "PipelineError"}
    record = invocation_record(tried, {"error": True, "body": answer}, "RetriesExhausted", now)
    assert record == {
        "version": "1.0",
        "timestamp": "2026-01-02T03:04:05.000Z",
        "requestContext": {
            "requestId": "r",
            "functionArn": "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"a": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": answer,
    }
    throttled = invocation_record(tried, {"throttle": True, "error": True, "body": {}}, "EventAgeExceeded", now)
    assert "responsePayload" not in throttled


# Copies


def test_a_quick_copy_is_equal_and_independent() -> None:
    from ministack.core.responses import AccountRegionScopedDict

    store = AccountRegionScopedDict()
    store.set_scoped("1", "r", "t", {"items": defaultdict(dict, {"a": {"": {"n": [1, "x", b"y", None, {"s"}]}}})})
    made = quick_copies.deepcopy(store)
    assert list(made.all_items()) == list(store.all_items())
    made.get_scoped("1", "r", "t")["items"]["a"][""]["n"].append(2)
    assert store.get_scoped("1", "r", "t")["items"]["a"][""]["n"][-1] == {"s"}
    unpicklable = defaultdict(lambda: 0, {"a": [1]})
    other = quick_copies.deepcopy(unpicklable)
    other["a"].append(2)
    assert unpicklable == {"a": [1]}


# Partial batch responses


@pytest.mark.parametrize(
    ("response", "failed"),
    [
        (None, set()),
        ({}, set()),
        ("", set()),
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": None}, set()),
        ({"batchItemFailures": [{"itemIdentifier": "a"}]}, {"a"}),
        ('{"batchItemFailures": [{"itemIdentifier": "b"}]}', {"b"}),
        ({"batchItemFailures": [{"itemIdentifier": "unknown"}]}, None),
        ({"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "unknown"}]}, None),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, None),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, None),
        ({"batchItemFailures": [{"wrongName": "a"}]}, None),
        ({"batchItemFailures": ["a"]}, None),
        ({"batchItemFailures": {"itemIdentifier": "a"}}, None),
        ("no json", None),
        ([], None),
    ],
)
def test_a_partial_batch_response_is_read_as_aws_reads_it(response: Any, failed: set[str] | None) -> None:
    assert failed_messages(response, ["a", "b"]) == failed


def test_an_unknown_identifier_brings_the_whole_batch_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from ministack.services import lambda_svc, sqs

    deleted: list[set[str]] = []
    monkeypatch.setattr(sqs, "_delete_messages_for_esm", lambda url, handles: deleted.append(handles))
    monkeypatch.setattr(lambda_svc, "_emit_lambda_metrics", lambda *_: None)
    batch = [{"id": "a", "receipt_handle": "ra"}, {"id": "b", "receipt_handle": "rb"}]
    esm = {"UUID": "u", "FunctionName": "f", "FunctionResponseTypes": ["ReportBatchItemFailures"]}
    for identifier, expected in (("a", {"rb"}), ("unknown", set())):
        body = {"batchItemFailures": [{"itemIdentifier": identifier}]}
        monkeypatch.setattr(lambda_svc, "_execute_function", lambda *_, body=body: {"body": body})
        batch_failures.run_batch(esm, {}, {}, batch, "url", "queue")
        assert deleted[-1] == expected


# Execution environments


def worker(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker of ministack's, with the adapted script, whose handler is `handler(event, context)` of `code`."""
    from ministack.core import lambda_runtime

    monkeypatch.setattr(lambda_runtime, "_PYTHON_WORKER_SCRIPT", lambda_runtime._PYTHON_WORKER_SCRIPT)
    monkeypatch.setattr(lambda_runtime.Worker, "_drain_stderr_bounded", lambda_runtime.Worker._drain_stderr_bounded)
    monkeypatch.setattr(original, "original", lambda *_: None)
    log_end.apply()
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("function.py", textwrap.dedent(code))
    config = {
        "FunctionName": "f",
        "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f",
        "Runtime": "python3.13",
        "Handler": "function.handler",
        "Timeout": 30,
    }
    return lambda_runtime.Worker("f", config, archive.read_bytes())


def test_what_a_function_writes_is_its_own_invocations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        import sys

        def handler(event, context):
            print(event["line"])
            sys.stderr.write("no end of line")
            if event["line"] == "dies":
                import os
                os._exit(1)
            if event["line"] == "fails":
                raise ValueError("said")
            return event
    """
    function = worker(code, tmp_path, monkeypatch)
    take_line = queue.Queue.put

    def late(self: queue.Queue[str], line: str, *args: Any) -> None:
        time.sleep(0.2)  # longer than ministack waits
        take_line(self, line, *args)

    monkeypatch.setattr(function._stderr_queue.__class__, "put", late)
    try:
        for line in ("one", "two", "fails", "three", "dies", "four"):
            answer = function.invoke({"line": line}, "id")
            assert answer["status"] == ("error" if line in ("fails", "dies") else "ok")
            assert answer["log"].splitlines() == [line, "no end of line"]
    finally:
        function.kill()


def test_an_update_ends_idle_workers_at_once_and_busy_ones_with_their_invocation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    for module in (lambda_runtime, lambda_svc):
        for name in ("acquire_worker", "release_worker", "invalidate_worker"):
            monkeypatch.setattr(module, name, getattr(lambda_runtime, name))
    ended: list[Any] = []
    monkeypatch.setattr(lambda_runtime, "kill_workers", ended.extend)
    monkeypatch.setattr(lambda_runtime, "_workers", {})
    busy_workers.apply()

    def lease(function: str) -> Any:
        config = {"FunctionArn": f"arn:aws:lambda:us-east-1:000000000000:function:{function}"}
        return lambda_svc.acquire_worker(function, config, b"")[0]

    def elsewhere(function: str) -> Any:
        with ThreadPoolExecutor(1) as other:
            return other.submit(lease, function).result()

    other, busy, idle = elsewhere("g"), elsewhere("f"), elsewhere("f")
    lambda_svc.release_worker(idle)
    lambda_svc.invalidate_worker("f", qualifier="$LATEST", account="000000000000", region="us-east-1")
    assert ended == [idle]
    assert lease("f") not in (busy, idle)
    lambda_svc.release_worker(busy)
    assert ended == [idle, busy]
    own = lease("f")
    lambda_svc.invalidate_worker("f")  # as ministack does when a worker fails, and then forgets it
    assert own in ended
    assert other not in ended
    lambda_svc.release_worker(other)
    assert other not in ended


def test_versions_are_listed_whatever_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.handlers import decode_list_object_versions
    from botocore.parsers import create_parser
    from botocore.session import Session
    from ministack.services import s3

    keys = ["a\x1b[31m.jpg", "b\x00\x08\n.jpg", "c & <d>/%41 é+.jpg"]
    monkeypatch.setattr(s3, "_list_object_versions", s3._list_object_versions)
    stored = {"last_modified": "2026-10-03T12:00:00.000Z", "etag": '"e"', "size": 1}
    monkeypatch.setattr(s3, "_buckets", {"b": {"objects": dict.fromkeys(keys, stored)}})
    version_keys.apply()
    asked = {"encoding-type": ["url"], "prefix": [""]}
    status, _, body = s3._list_object_versions("b", asked)
    answer = {"status_code": status, "headers": {}, "body": body}
    shape = Session().get_service_model("s3").operation_model("ListObjectVersions").output_shape
    parsed = create_parser("rest-xml").parse(answer, shape)
    decode_list_object_versions(parsed, {"encoding_type_auto_set": True})
    assert [version["Key"] for version in parsed["Versions"]] == keys


def test_every_adaptation_is_applied() -> None:
    folder = Path(inspect.getfile(adaptations)).parent
    there = {file.stem for file in folder.glob("*.py")} - {"__init__", "original"}
    assert {module.__name__.rpartition(".")[2] for module in adaptations.ADAPTATIONS} == there
    for module in adaptations.ADAPTATIONS:
        assert callable(module.apply)
        assert importlib.import_module(module.__name__).__doc__
