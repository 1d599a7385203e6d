"""Starting and stopping the local pipeline, and every way in which that can go wrong."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from local_pipeline import IMGPIPE, PATIENCE, LocalPipeline, eventually
from test_local_pipeline import jpeg

from pipeline_cli.local import supervisor

pytestmark = [pytest.mark.emulator, pytest.mark.slow]


def command_lines() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def processes_of(pipeline: LocalPipeline) -> list[str]:
    """Command lines that name its folder: supervisor and functions; and of the emulator, which was started by one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(pipeline.folder) in arguments or f"TMPDIR={pipeline.folder}" in environ:
            found.append(arguments)
    return found


def nothing_is_left(pipeline: LocalPipeline) -> bool:
    return not processes_of(pipeline) and not (pipeline.folder / "tmp").exists()


@pytest.fixture
def up(stopped_pipeline: LocalPipeline) -> LocalPipeline:
    stopped_pipeline.run("local", "up", "--detach", "--port", 0)
    return stopped_pipeline


def test_up_status_down(up: LocalPipeline) -> None:
    status = up.json("local", "status")
    assert status["running"] is True
    assert status["endpointUrl"] == f"http://127.0.0.1:{up.process['port']}"
    assert up.json("outputs")["name_prefix"]["value"] == "imgpipe-local"
    up.run("local", "down")
    assert nothing_is_left(up)
    stopped = up.run("local", "status", "--output", "json", check=False)
    assert (stopped.returncode, json.loads(stopped.stdout)["running"]) == (6, False)
    refused = up.run("-d", "local", "outputs", check=False)
    assert refused.returncode == 3
    assert "imgpipe local up" in refused.stderr
    assert "was not running" in up.run("local", "down").stderr


def test_it_listens_on_this_machine_alone(up: LocalPipeline) -> None:
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    port = f"{up.process['port']:04X}"
    assert [address for address in listening if address.endswith(f":{port}")] == [f"0100007F:{port}"]


def test_a_second_up_is_refused_and_changes_nothing(up: LocalPipeline) -> None:
    before = up.process
    second = up.run("local", "up", "--detach", "--port", 0, check=False)
    assert second.returncode != 0
    assert second.stderr.startswith("imgpipe: The local pipeline is already running")
    assert "imgpipe local status" in second.stderr
    assert up.process == before
    assert up.json("local", "status")["running"] is True


def test_a_tail_ends_with_the_pipeline_and_says_so(up: LocalPipeline) -> None:
    tail = subprocess.Popen(
        [IMGPIPE, "logs", "--follow", "--output", "jsonl"], env=up.environ, stderr=subprocess.PIPE, text=True
    )
    up.run("local", "down")
    _, err = tail.communicate(timeout=PATIENCE)
    assert (tail.returncode, json.loads(err.splitlines()[-1])["error"]["code"]) == (3, "LOCAL_DOWN"), err


def test_two_homes_cannot_share_a_data_folder(up: LocalPipeline, tmp_path: Path) -> None:
    other = LocalPipeline(tmp_path / "other")
    refused = other.run("local", "up", "--detach", "--port", 0, "--data", up.folder / "data", check=False)
    assert refused.returncode != 0
    assert "--data" in refused.stderr
    assert nothing_is_left(other)


def test_a_busy_port_is_named_and_a_way_out(stopped_pipeline: LocalPipeline) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for detach in (["--detach"], []):
            refused = stopped_pipeline.run("local", "up", *detach, "--port", port, check=False)
            assert refused.returncode != 0
            assert f"Port {port}" in refused.stderr
            assert "--port 0" in refused.stderr
    assert nothing_is_left(stopped_pipeline)


def test_a_process_file_of_another_process_is_not_believed(stopped_pipeline: LocalPipeline) -> None:
    stopped_pipeline.folder.mkdir(parents=True)
    stale = {
        "pid": os.getpid(),  # alive, and not the one that wrote this
        "started": "1",
        "emulator_pid": os.getpid(),
        "port": 1,
        "data": "",
        "since": 0.0,
    }
    (stopped_pipeline.folder / "process.json").write_text(json.dumps(stale))
    assert stopped_pipeline.run("local", "status", check=False).returncode == 6
    stopped_pipeline.run("local", "down")
    stopped_pipeline.run("local", "up", "--detach", "--port", 0)
    assert stopped_pipeline.process["pid"] != os.getpid()


@pytest.mark.parametrize("who", ["emulator_pid", "pid"])
def test_killed_it_leaves_nothing_and_keeps_what_was_stored(up: LocalPipeline, who: str) -> None:
    up.put("kept.jpg", jpeg())
    up.put("broken.jpg", b"no image")
    eventually(lambda: len(up.items()) == 2, "two items")
    eventually(lambda: up.dead_letters(), "a failure")
    time.sleep(6)  # a few seconds: what the documentation promises to keep
    before = up.items()
    os.kill(up.process[who], signal.SIGKILL)
    eventually(lambda: not processes_of(up), "every process has ended")
    up.run("local", "up", "--detach", "--port", 0)
    assert up.items() == before
    assert len(up.dead_letters()) == 1
    bucket = up.outputs["upload_bucket_name"]
    assert up.clients.s3.get_object(Bucket=bucket, Key="kept.jpg")["Body"].read() == jpeg()
    # And the stack works on, on another port.
    up.put("after.jpg", jpeg())
    eventually(lambda: "after.jpg" in up.items(), "an item after the crash")


def saved(pipeline: LocalPipeline) -> float:
    """When the emulator last saved what it has to do."""
    file = pipeline.folder / "data/state/imgpipe-pending-invocations.json"
    return file.stat().st_mtime if file.exists() else 0.0


def test_accepted_work_is_done_after_a_crash(up: LocalPipeline) -> None:
    keys = {f"work/{number}.jpg" for number in range(150)}
    for key in sorted(keys):
        up.put(key, jpeg(1200, 900))
    # Two saves from here on: the second began after the last upload. Asking keeps them coming.
    for _ in range(2):
        before = saved(up)
        eventually(lambda before=before: up.items("work/") is not None and saved(up) != before, "the state is saved")
    done = len(up.items("work/"))
    os.kill(up.process["emulator_pid"], signal.SIGKILL)
    eventually(lambda: not processes_of(up), "every process has ended")
    up.run("local", "up", "--detach", "--port", 0)
    items = eventually(lambda: set(found := up.items("work/")) == keys and found, f"every item ({done} at the crash)")
    assert {item["status"] for item in items.values()} == {"COMPLETED"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_in_the_foreground_a_signal_stops_it(stopped_pipeline: LocalPipeline, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [IMGPIPE, "local", "up", "--port", "0"], env=stopped_pipeline.environ, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    guard = threading.Timer(PATIENCE, process.kill)
    guard.start()
    said = ""
    while "Ctrl-C stops it" not in said:
        line = process.stderr.readline()
        assert line, f"it ended early: {said}"
        said += line
    process.send_signal(number)
    rest = process.stderr.read()
    process.wait(PATIENCE)
    guard.cancel()
    assert process.returncode == (130 if number is signal.SIGINT else 0)
    assert "Stopped" in rest
    assert nothing_is_left(stopped_pipeline)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, supervisor.Stop)])
def test_a_signal_whose_exception_was_lost_still_stops_it(
    number: signal.Signals, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: lost.append(what.exc_type))

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            time.sleep(5)  # the exception ends this, and goes nowhere

    child = subprocess.Popen(["sleep", "600"])
    try:
        with supervisor._stop_signals() as told:
            Finalized()
            assert (lost, told) == ([error], [number])
            with pytest.raises(error):
                supervisor._wait(child, told)
    finally:
        child.kill()
        child.wait()


def test_in_the_foreground_a_killed_emulator_is_reported(stopped_pipeline: LocalPipeline) -> None:
    process = subprocess.Popen(
        [IMGPIPE, "local", "up", "--port", "0"], env=stopped_pipeline.environ, stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: (stopped_pipeline.folder / "endpoint.json").exists(), "it runs")
    os.kill(stopped_pipeline.process["emulator_pid"], signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "ended unexpectedly" in said
    assert nothing_is_left(stopped_pipeline)


def test_up_waits_for_an_emulator_that_has_lost_its_supervisor(up: LocalPipeline) -> None:
    before = up.process
    os.kill(before["pid"], signal.SIGKILL)
    up.run("local", "up", "--detach", "--port", 0)
    assert up.process["pid"] != before["pid"]
    assert len([line for line in processes_of(up) if "local.emulator" in line]) == 1


@pytest.mark.parametrize("command", [("up", "--detach", "--port", "0"), ("demo",)])
@pytest.mark.parametrize("after", [0.5, 1.5, 3.0])
def test_interrupted_while_it_starts_it_leaves_nothing(
    stopped_pipeline: LocalPipeline, tmp_path: Path, command: tuple[str, ...], after: float
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [IMGPIPE, "local", *command],
        env=stopped_pipeline.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    if process.returncode == 0:
        return  # it was quicker
    assert process.returncode in (130, -signal.SIGINT), said  # -SIGINT: before Python could say anything
    eventually(lambda: nothing_is_left(stopped_pipeline), "what had started has ended")
    eventually(lambda: not list(temporary.iterdir()), "its temporary files are gone")
    assert not [line for line in command_lines() if str(temporary) in line]


def test_the_users_own_aws_settings_do_not_reach_it(stopped_pipeline: LocalPipeline) -> None:
    stopped_pipeline.run(
        *("local", "up", "--detach", "--port", 0),
        environ={
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
            "AWS_PROFILE": "nobody",
            "AWS_REGION": "eu-west-3",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        },
    )
    stopped_pipeline.put("one.jpg", jpeg())
    eventually(lambda: stopped_pipeline.items().get("one.jpg"), "an item")
