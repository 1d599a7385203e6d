"""`imgpipe upload --wait`: every file gets the outcome of this very upload, whatever lies about from earlier ones."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline_cli.pipeline.outcomes import Outcome, Waiter
from pipeline_cli.pipeline.uploading.lambda_capacity import Forecast
from pipeline_cli.pipeline.uploading.records import Action, Upload
from pipeline_contract.events import Source
from pipeline_contract.failures import FailureCode, Stage
from pipeline_contract.identity import image_id
from pipeline_contract.messages import FailureEntry
from pipeline_contract.times import format_time
from upload_files import command, jpeg, run

BUCKET, TABLE = "uploads", "images"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


class Pipeline:
    """A deployment on moto, whose functions are played by the test."""

    def __init__(self) -> None:
        self.s3, self.sqs = boto3.client("s3"), boto3.client("sqs")
        self.table: Any = boto3.resource("dynamodb").create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "imageId", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "imageId", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.s3.create_bucket(Bucket=BUCKET)
        self.image_dlq = self.sqs.create_queue(QueueName="image-dlq")["QueueUrl"]
        self.metadata_dlq = self.sqs.create_queue(QueueName="metadata-dlq")["QueueUrl"]

    def outputs(self) -> dict[str, Any]:
        names = {
            "upload_bucket_name": BUCKET,
            "dynamodb_table_name": TABLE,
            "image_dlq_url": self.image_dlq,
            "dlq_url": self.metadata_dlq,
            "aws_region": "us-east-1",
        }
        return {name: {"value": value} for name, value in names.items()}

    def item(self, key: str, status: str = "COMPLETED", *, age: float = 0.0, **attributes: Any) -> None:
        """Writes what db_writer would; `age` is how many seconds ago S3's event was."""
        event = datetime.now(UTC) - timedelta(seconds=age)
        self.table.put_item(
            Item={
                "imageId": image_id(BUCKET, key),
                "originalKey": key,
                "status": status,
                "eTag": self.e_tag(key),
                "asOf": format_time(event),
                "uploadDate": format_time(event),
                "processingDate": format_time(event + timedelta(milliseconds=250)),
                "updatedAt": format_time(event + timedelta(milliseconds=400)),
                **attributes,
            }
        )

    def e_tag(self, key: str) -> str:
        return str(self.s3.head_object(Bucket=BUCKET, Key=key)["ETag"]).strip('"')

    def record(self, key: str, e_tag: str | None = None) -> dict[str, Any]:
        return {
            "eventName": "ObjectCreated:Put",
            "eventTime": format_time(datetime.now(UTC)),
            "s3": {"bucket": {"name": BUCKET}, "object": {"key": key, "eTag": e_tag or self.e_tag(key)}},
        }

    def invocation_record(self, key: str, e_tag: str | None = None) -> None:
        """What Lambda writes when the retries of an asynchronous invoke are exhausted."""
        body = {
            "requestContext": {"condition": "RetriesExhausted", "approximateInvokeCount": 3, "requestId": "r"},
            "requestPayload": {"Records": [self.record(key, e_tag)]},
            "responsePayload": {"errorType": "PipelineError", "errorMessage": "THROTTLED: SQS was asked too often"},
            "timestamp": format_time(datetime.now(UTC)),
        }
        self.sqs.send_message(QueueUrl=self.image_dlq, MessageBody=json.dumps(body))

    def failure_entry(self, key: str, code: FailureCode) -> None:
        """What image_processor writes of a permanent failure; its FAILED item follows by the metadata queue."""
        source = Source(BUCKET, key, e_tag=self.e_tag(key))
        entry = FailureEntry(
            Stage.IMAGE_PROCESSOR, code.failure_class, code, "as told", format_time(datetime.now(UTC)), 1,
            self.record(key), source, source.image_id,
        )  # fmt: skip
        self.sqs.send_message(QueueUrl=self.image_dlq, MessageBody=entry.to_json())


@pytest.fixture
def pipeline(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Pipeline]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    pipeline = Pipeline()
    (tmp_path / "outputs.json").write_text(json.dumps(pipeline.outputs()))
    monkeypatch.setenv("IMGPIPE_OUTPUTS", str(tmp_path / "outputs.json"))
    yield pipeline
    pipeline.table.delete()
    for url in (pipeline.image_dlq, pipeline.metadata_dlq):
        pipeline.sqs.delete_queue(QueueUrl=url)
    bucket = boto3.resource("s3").Bucket(BUCKET)
    bucket.object_versions.delete()
    bucket.delete()


def upload_while(play: Callable[[], None], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Runs `imgpipe upload --wait`; when it waits, `play` is run beside it."""
    process = subprocess.Popen(
        command("upload", "--wait", "--output", "json", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stdout is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("Waiting"):
            break
    playing = threading.Thread(target=play)
    playing.start()
    out, rest = process.communicate(timeout=120)
    playing.join()
    return process.returncode, json.loads(out) if out else {}, said + rest


def photos(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(jpeg(name))
    return folder


def test_each_file_gets_its_own_outcome(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "fine.jpg", "broken.jpg", "exhausted.jpg", "newer.jpg", "deleted.jpg")
    (folder / "notes.txt").write_text("no image, and does not say so")

    def play() -> None:
        pipeline.item("fine.jpg")
        pipeline.failure_entry("broken.jpg", FailureCode.CORRUPT)
        pipeline.item("broken.jpg", "FAILED", errorCode="CORRUPT", error="the data is damaged", attention="FAILED")
        pipeline.invocation_record("exhausted.jpg")
        pipeline.s3.put_object(Bucket=BUCKET, Key="newer.jpg", Body=b"by somebody else")
        pipeline.item("newer.jpg")
        pipeline.item("deleted.jpg", "DELETED")
        pipeline.s3.delete_object(Bucket=BUCKET, Key="deleted.jpg")

    manifest = tmp_path / "m.jsonl"
    code, summary, said = upload_while(play, str(folder), "--manifest", str(manifest))
    lines = {line["key"]: line for line in map(json.loads, manifest.read_text().splitlines())}
    assert {key: line["outcome"] for key, line in lines.items()} == {
        "fine.jpg": "COMPLETED",
        "broken.jpg": "FAILED",
        "exhausted.jpg": "DEAD_LETTERED",
        "newer.jpg": "SUPERSEDED",
        "deleted.jpg": "DELETED",
        "notes.txt": "IGNORED",
    }, said
    assert code == 1
    assert {failure["key"]: (failure["code"], failure["reason"]) for failure in summary["failures"]} == {
        "broken.jpg": ("CORRUPT", "the data is damaged"),
        "exhausted.jpg": ("THROTTLED", "SQS was asked too often"),
    }
    assert "broken.jpg: FAILED: CORRUPT: the data is damaged" in said
    assert summary["latency"]["process"]["p50"] == 250
    assert summary["latency"]["write"]["p95"] == 150


def test_what_an_earlier_upload_left_is_not_taken_for_this_ones(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "again.jpg", "same.jpg", "buried.jpg")
    for name in ("again.jpg", "same.jpg", "buried.jpg"):
        body = (folder / name).read_bytes() if name == "same.jpg" else b"an earlier one"
        pipeline.s3.put_object(Bucket=BUCKET, Key=name, Body=body)
        pipeline.item(name, "FAILED", age=3600, error="an earlier failure", errorCode="CORRUPT")
    pipeline.invocation_record("buried.jpg")  # of the earlier content
    resumed = threading.Event()

    def play() -> None:
        assert not resumed.wait(4)  # long enough to have looked at items and dead letters
        for name in ("again.jpg", "same.jpg", "buried.jpg"):
            pipeline.item(name)

    code, summary, said = upload_while(play, str(folder), "--overwrite")
    assert code == 0, said
    assert summary["outcomes"] == {"COMPLETED": 3}


def test_unchanged_files_have_the_outcome_they_had(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "done.jpg", "failed.jpg")
    assert run("upload", str(folder)).code == 0
    pipeline.item("done.jpg", age=86400)
    pipeline.item("failed.jpg", "FAILED", age=86400, errorCode="TRUNCATED", error="cut short")
    done = run("upload", str(folder), "--wait", "--output", "json")
    assert done.code == 1
    summary = json.loads(done.stdout)
    assert (summary["unchanged"], summary["outcomes"]) == (2, {"COMPLETED": 1, "FAILED": 1})


def test_a_wait_that_ends_too_early_says_so(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", "slow.jpg", "fast.jpg")
    code, summary, said = upload_while(lambda: pipeline.item("fast.jpg"), str(folder), "--timeout", "8")
    assert code == 5, said
    assert summary["outcomes"] == {"COMPLETED": 1, "IN_FLIGHT": 1}
    assert [failure["key"] for failure in summary["failures"]] == ["slow.jpg"]


def test_versions_tell_uploads_of_the_same_bytes_apart(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    folder = photos(tmp_path / "p", "one.jpg")
    first = pipeline.s3.put_object(Bucket=BUCKET, Key="one.jpg", Body=(folder / "one.jpg").read_bytes())["VersionId"]
    pipeline.item("one.jpg", "FAILED", versionId=first, errorCode="CORRUPT", error="of the first version")

    def play() -> None:
        latest = pipeline.s3.head_object(Bucket=BUCKET, Key="one.jpg")["VersionId"]
        assert latest != first
        pipeline.item("one.jpg", versionId=latest)

    code, summary, said = upload_while(play, str(folder), "--overwrite")
    assert code == 0, said
    assert summary["outcomes"] == {"COMPLETED": 1}


def test_refused_and_failed_files_are_both_said_with_the_way_on(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", "bad.jpg")
    (folder / "text.jpg").write_text("no image")

    def play() -> None:
        pipeline.item("bad.jpg", "FAILED", errorCode="CORRUPT", error="broken")

    code, _, said = upload_while(play, str(folder), "--timeout", "30")
    assert code == 1
    assert "1 of 2 files were not uploaded. The pipeline failed on 1 images." in said
    assert "imgpipe dlq list" in said
    assert "--no-preflight" in said


class Table:
    """Images that come through one by one, by a clock that only sleeping moves."""

    def __init__(self, per_second: float) -> None:
        self.per_second, self.time, self.requests = per_second, 0.0, 0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def batch_get_item(self, RequestItems: Any) -> dict[str, Any]:  # noqa: N803  # boto3's name
        self.requests += 1
        ready = int(self.time * self.per_second)
        keys = [key["imageId"]["S"] for key in RequestItems["table"]["Keys"]]
        return {
            "Responses": {
                "table": [
                    {"imageId": {"S": key}, "status": {"S": "COMPLETED"}, "eTag": {"S": "e"}}
                    for key in keys
                    if int(key) < ready
                ]
            }
        }


def waiter(table: Table, sleep: Callable[[float], None]) -> Waiter:
    return Waiter(table, "table", None, BUCKET, list, now=table.now, sleep=sleep)  # type: ignore[arg-type]


def sent(count: int) -> list[Upload]:
    return [
        Upload(f"{n}.jpg", f"{n}.jpg", Action.UPLOAD, str(n), content_type="image/jpeg", e_tag="e")
        for n in range(count)
    ]


def test_thousands_are_asked_for_rarely_and_the_end_is_seen_soon() -> None:
    table = Table(per_second=40)
    done = list(waiter(table, table.sleep).run(sent(3000), timeout=600))
    assert {upload.outcome for upload in done} == {Outcome.COMPLETED}
    assert table.time < 3000 / 40 + 0.5
    assert table.requests < 300  # thirty would do if one knew when; every 0.2 s all that are left: thousands


def test_an_interrupted_wait_tells_of_all_that_was_sent() -> None:
    table = Table(per_second=40)

    def interrupted(seconds: float) -> None:
        table.sleep(seconds)
        if table.time > 2:
            raise KeyboardInterrupt

    told: list[Upload] = []
    with pytest.raises(KeyboardInterrupt):
        told.extend(waiter(table, interrupted).run(sent(300), timeout=600))
    assert sorted(int(upload.image_id or "") for upload in told) == list(range(300))
    assert {upload.outcome for upload in told} == {Outcome.COMPLETED, Outcome.IN_FLIGHT}


def test_nothing_moves_and_nothing_is_said_with_quiet(pipeline: Pipeline, tmp_path: Path) -> None:
    done = run("upload", "-q", str(photos(tmp_path / "p", "a.jpg")), "--output", "json")
    assert (done.code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("images", "concurrency", "too_long"),
    [(10_000, 10, False), (200_000, 10, False), (250_000, 10, True), (1_000_000, 1000, False), (1, 0, True)],
)
def test_a_batch_that_outlives_its_events_is_warned_about(images: int, concurrency: int, too_long: bool) -> None:
    expected = Forecast(images, concurrency)
    assert expected.too_long is too_long
    assert f"{images:,} images" in expected.warning()
