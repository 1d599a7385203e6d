"""An operator's day: something breaks, is found, mended and sent through again; and the tail sees all of it."""

import json
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_pipeline import IMGPIPE, PATIENCE, LocalPipeline, eventually

import failures
from pipeline_cli.errors import ExitCode
from upload_files import jpeg

pytestmark = pytest.mark.emulator


def test_what_a_missing_bucket_killed_is_redriven_and_completes(stopped_pipeline: LocalPipeline) -> None:
    pipeline = stopped_pipeline
    pipeline.run("local", "up", "--detach", "--port", 0)
    s3, bucket = pipeline.clients.s3, pipeline.outputs["thumbnail_bucket_name"]
    s3.delete_bucket(Bucket=bucket)
    keys = {f"a b/{number} é.jpg" for number in range(3)}
    for key in keys:
        pipeline.put(key, jpeg(key))
    letters = eventually(
        lambda: found if len(found := pipeline.json("dlq", "list")) == len(keys) else None, "a dead letter for each"
    )
    assert {(row["key"], row["shape"], row["class"], row["code"], row["attempts"]) for row in letters} == {
        (key, "invocation", "CONFIG", "NO_SUCH_BUCKET", 3) for key in keys
    }
    some = min(keys)
    traced = pipeline.json("trace", some)
    assert traced["outcome"] == "DEAD_LETTERED"
    assert traced["unseen"][0].startswith("thumbnail bucket: NoSuchBucket")
    assert traced["gap"].startswith("NO_SUCH_BUCKET: ")
    assert {step["where"] for step in traced["steps"]} == {"s3", "processor", "dlq"}
    assert pipeline.run("doctor", check=False).returncode == ExitCode.UNHEALTHY

    # Redriven before it is mended, everything comes back, and none is lost.
    early = pipeline.run("dlq", "redrive", "--yes", "--wait", "--timeout", "100s", "--output", "json", check=False)
    assert early.returncode == ExitCode.FAILED, early.stderr
    assert {(row["key"], row["outcome"]) for row in json.loads(early.stdout)} == {
        (key, "DEAD_LETTERED") for key in keys
    }
    again = pipeline.json("dlq", "list")
    assert {(row["key"], row["redrives"]) for row in again} == {(key, 1) for key in keys}

    s3.create_bucket(Bucket=bucket)
    done = pipeline.json("dlq", "redrive", "--yes", "--wait", "--timeout", "100s")
    assert {(row["key"], row["action"], row["outcome"]) for row in done} == {
        (key, "redriven", "COMPLETED") for key in keys
    }
    assert pipeline.json("dlq", "list") == []
    assert pipeline.json("trace", some)["outcome"] == "COMPLETED"
    assert {row["key"] for row in pipeline.json("thumbs", "list") if row["present"]} == keys

    s3.put_bucket_notification_configuration(
        Bucket=pipeline.outputs["upload_bucket_name"], NotificationConfiguration={}
    )
    said = pipeline.run("doctor", check=False)
    assert said.returncode == ExitCode.UNHEALTHY
    assert "the bucket tells nobody of uploads" in said.stderr


def test_sqs_moves_the_writers_letters_back_by_itself(pipeline: LocalPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "BUCKET", pipeline.outputs["upload_bucket_name"])
    keys = [f"native/{number}.jpg" for number in range(12)]
    sqs, url = pipeline.clients.sqs, pipeline.outputs["dlq_url"]
    for key in keys:
        sqs.send_message(QueueUrl=url, MessageBody=failures.writer_failure(key))
    # Without a target SQS does not know where messages belong that were sent to a dead-letter queue.
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.start_message_move_task(SourceArn=arn)
    (task,) = sqs.list_message_move_tasks(SourceArn=arn)["Results"]
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")

    refused = pipeline.run("dlq", "redrive", "--native", "--yes", "--key", "native/*", check=False)
    assert refused.returncode == ExitCode.USAGE
    assert pipeline.json("dlq", "redrive", "--native", "--yes", "--rate", "50")["taskHandle"]
    eventually(lambda: len(pipeline.items("native/")) == len(keys), "an item for each")
    assert pipeline.json("dlq", "list", "--key", "native/*") == []


def test_a_probe_goes_through_and_leaves_nothing(pipeline: LocalPipeline) -> None:
    found = pipeline.json("doctor", "--probe", "--timeout", "100s")
    assert [check["verdict"] for check in found if check["check"] == "probe"] == ["ok", "ok"]
    assert {check["verdict"] for check in found} <= {"ok", "warn"}
    versions = pipeline.clients.s3.list_object_versions(
        Bucket=pipeline.outputs["upload_bucket_name"], Prefix="imgpipe-probe/"
    )
    assert not versions.get("Versions")
    assert not versions.get("DeleteMarkers")


def test_a_tail_sees_every_image_exactly_once_while_they_come(pipeline: LocalPipeline) -> None:
    tail = subprocess.Popen(
        [IMGPIPE, "logs", "--since", "1s", "--until-idle", "8", "--output", "jsonl"],
        env=pipeline.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ThreadPoolExecutor(8) as pool:
        keys = [f"tail/{number}.jpg" for number in range(40)]
        ids = set(pool.map(lambda key: pipeline.put(key, jpeg(key)), keys))
    out, err = tail.communicate(timeout=PATIENCE)
    assert tail.returncode == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    told = Counter((event["function"], event["imageId"]) for event in events if event["imageId"] in ids)
    assert told == Counter((function, image) for function in ("processor", "writer") for image in ids)
    assert len({event["eventId"] for event in events}) == len(events)
    assert f"{len(events)} events" in err


def test_a_reader_that_leaves_early_is_no_error(pipeline: LocalPipeline) -> None:
    pipeline.put("early.jpg", jpeg("early"))
    eventually(lambda: "early.jpg" in pipeline.items(), "an item")
    for command in ("logs --since 1h", "meta query --output jsonl", "logs --since 1h --follow --until-idle 1"):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {IMGPIPE} {command} | head -n 1; exit ${{PIPESTATUS[0]}}"],
            env=pipeline.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.stdout.count("\n") == 1
        assert "Traceback" not in done.stderr
        assert "Broken" not in done.stderr
