"""`imgpipe reconcile` and `reprocess` on the whole: real buckets, queues, functions, and damage done by hand."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_pipeline import LocalPipeline, eventually
from PIL import Image

from pipeline_cli.errors import ExitCode
from pipeline_contract.identity import image_id

pytestmark = pytest.mark.emulator

KEYS = [*(f"2026/{number:02}.jpg" for number in range(30)), "ä ö+ü%20/日本 ☃.jpg", "no extension"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPipeline]:
    """A pipeline of these tests' own: what others leave behind would be findings."""
    local = LocalPipeline(tmp_path_factory.mktemp("reconciled"))
    local.run("local", "up", "--detach", "--port", 0)
    yield local
    local.run("local", "down")


def jpeg(number: int, width: int = 300) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 200), (number % 256, 80, 120)).save(buffer, "JPEG")
    return buffer.getvalue()


def reconcile(pipeline: LocalPipeline, *args: object) -> tuple[int, dict[str, Any]]:
    done = pipeline.run("reconcile", "--grace", "0", "--output", "json", *args, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def agreed(pipeline: LocalPipeline) -> dict[str, Any]:
    """Waits until a comparison finds nothing; its result."""

    def look() -> dict[str, Any] | None:
        code, result = reconcile(pipeline)
        return result if code == ExitCode.DONE else None

    return eventually(look, "all stores agree") or {}


def listed(pipeline: LocalPipeline, bucket: str) -> dict[str, str]:
    """Version ids and eTags of everything that a bucket ever had."""
    versions = pipeline.clients.s3.list_object_versions(Bucket=pipeline.outputs[bucket])
    return {entry["VersionId"]: entry["Key"] for entry in versions.get("Versions", [])}


class Silenced:
    """The upload bucket tells nobody of what happens in it."""

    def __init__(self, pipeline: LocalPipeline) -> None:
        self._s3, self._bucket = pipeline.clients.s3, pipeline.outputs["upload_bucket_name"]

    def __enter__(self) -> None:
        answer: Any = self._s3.get_bucket_notification_configuration(Bucket=self._bucket)
        self._functions = answer["LambdaFunctionConfigurations"]
        self._set([])

    def __exit__(self, *_: object) -> None:
        self._set(self._functions)

    def _set(self, functions: list[Any]) -> None:
        self._s3.put_bucket_notification_configuration(
            Bucket=self._bucket, NotificationConfiguration={"LambdaFunctionConfigurations": functions}
        )


def test_a_bucket_filled_before_the_notification_existed_and_damage_by_hand(pipeline: LocalPipeline) -> None:
    s3, dynamodb, outputs = pipeline.clients.s3, pipeline.clients.dynamodb, pipeline.outputs
    uploads, thumbnails, table = (
        outputs[name] for name in ("upload_bucket_name", "thumbnail_bucket_name", "dynamodb_table_name")
    )
    with Silenced(pipeline):
        for number, key in enumerate(KEYS):
            pipeline.put(key, jpeg(number), ContentType="image/jpeg")
        pipeline.put("2026/00.jpg", jpeg(200), ContentType="image/jpeg")  # overwritten
        pipeline.put("2026/deleted.jpg", jpeg(1))
        s3.delete_object(Bucket=uploads, Key="2026/deleted.jpg")
        pipeline.put("corrupt.jpg", jpeg(1)[:300])
        pipeline.put("notes.txt", b"claims nothing", ContentType="text/plain")
        before = listed(pipeline, "upload_bucket_name")

        code, found = reconcile(pipeline)
        assert code == ExitCode.UNHEALTHY
        assert {one["key"]: one["kind"] for one in found["findings"]} == dict.fromkeys(
            [*KEYS, "corrupt.jpg"], "MISSING_ITEM"
        )
        code, done = reconcile(pipeline, "--repair", "--yes", "--rate", "100")
        assert (code, done["repaired"]["sent"], done["left"]) == (ExitCode.DONE, len(KEYS) + 1, 0)
        # The corrupt one's dead letter is there before its item, and accounts for it until then.
        eventually(lambda: set(pipeline.items()) == {*KEYS, "corrupt.jpg"}, "every image has its item")
        sums = agreed(pipeline)["accounting"]
        assert sums == sums | {
            "uploads": len(KEYS) + 4,
            "completed": len(KEYS),
            "failed": 1,
            "ignored": 1,
            "superseded": 1,
            "deleted": 1,
            "balanced": True,
        }

        for key in KEYS[:5]:
            dynamodb.delete_item(TableName=table, Key={"imageId": {"S": image_id(uploads, key)}})
        for key in KEYS[5:9]:
            s3.delete_object(Bucket=thumbnails, Key=f"thumbnails/{image_id(uploads, key)}.jpg")
        for key in KEYS[9:12]:
            s3.put_object(Bucket=thumbnails, Key=f"thumbnails/{image_id(uploads, key)}.jpg", Body=b"another")
        for key in KEYS[12:15]:
            s3.delete_object(Bucket=uploads, Key=key)
        for key in KEYS[15:18]:
            pipeline.put(key, jpeg(222), ContentType="image/jpeg")
        code, found = reconcile(pipeline)
        assert {one["key"]: one["kind"] for one in found["findings"]} == {
            **dict.fromkeys(KEYS[:5], "MISSING_ITEM"),
            **dict.fromkeys(KEYS[5:9], "MISSING_THUMBNAIL"),
            **dict.fromkeys(KEYS[9:12], "STALE_THUMBNAIL"),
            **dict.fromkeys(KEYS[12:15], "ORPHAN_ITEM"),
            **dict.fromkeys(KEYS[15:18], "STALE_ITEM"),
        }
        code, done = reconcile(pipeline, "--repair", "--yes", "--rate", "100")
        assert (code, done["repaired"]["sent"]) == (ExitCode.DONE, 18)
        sums = agreed(pipeline)["accounting"]
        assert (sums["completed"], sums["deleted"], sums["superseded"]) == (len(KEYS) - 3, 4, 4)

    after = listed(pipeline, "upload_bucket_name")
    assert before.items() <= after.items()
    assert sorted(set(after.values()) - set(before.values())) == []  # nothing that the pipeline made went in
    kept = s3.list_objects_v2(Bucket=thumbnails)["Contents"]
    assert {entry["Key"] for entry in kept} == {
        f"thumbnails/{image_id(uploads, key)}.jpg" for key in KEYS if key not in KEYS[12:15]
    }
    code, again = reconcile(pipeline, "--repair", "--yes")
    assert (code, again["repaired"]) == (ExitCode.DONE, None)


def test_after_a_change_of_size_images_are_made_again(pipeline: LocalPipeline) -> None:
    lambda_, name = pipeline.clients.lambda_, pipeline.outputs["image_processor_function_name"]
    pipeline.put("resized.jpg", jpeg(7))
    eventually(lambda: "resized.jpg" in pipeline.items(), "an item")
    variables = lambda_.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    lambda_.update_function_configuration(
        FunctionName=name, Environment={"Variables": variables | {"THUMBNAIL_SIZE": "64"}}
    )
    try:
        planned = pipeline.json("reprocess", "--outdated", "--dry-run")
        assert "resized.jpg" in {one["key"] for one in planned}
        done = pipeline.json("reprocess", "--outdated", "--yes", "--rate", "100")
        assert (done["selected"], done["sent"]) == (len(planned), len(planned))
        eventually(lambda: not pipeline.json("reprocess", "--outdated", "--dry-run"), "all thumbnails are small")
        assert pipeline.items()["resized.jpg"]["thumbnailSize"] == "64"
        agreed(pipeline)
    finally:
        lambda_.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


def test_an_interrupted_repair_goes_on_in_another_process(pipeline: LocalPipeline, tmp_path: Path) -> None:
    with Silenced(pipeline):
        for number in range(6):
            pipeline.put(f"resumed/{number}.jpg", jpeg(number))
    code, first = reconcile(pipeline, "--repair", "--yes", "--max", "4")
    assert (code, first["repaired"]["sent"], first["left"]) == (ExitCode.UNHEALTHY, 4, 2)
    code, second = reconcile(pipeline, "--repair", "--yes")
    assert (code, second["repaired"]["sent"], second["left"]) == (ExitCode.DONE, 2, 0)
    agreed(pipeline)
    assert len(pipeline.items("resumed/")) == 6
