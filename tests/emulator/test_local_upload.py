"""`imgpipe upload --wait` through the whole pipeline: real images in, the outcome of each out."""

import io
import json
import os
import time
from pathlib import Path

import pytest
from local_pipeline import LocalPipeline
from PIL import Image

pytestmark = pytest.mark.emulator


def image(path: Path, image_format: str, shade: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((320, 240), shade).convert("RGB").save(path, image_format)
    return path


def test_each_image_is_followed_to_its_end(pipeline: LocalPipeline, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    image(photos / "a.jpg", "JPEG")
    image(photos / "sub folder/ä 日本.png", "PNG")
    image(photos / "b.webp", "WEBP")
    whole = io.BytesIO()
    Image.effect_noise((640, 480), 90).save(whole, "JPEG")
    (photos / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (photos / "notes.txt").write_text("not an image")
    manifest = tmp_path / "manifest.jsonl"
    done = pipeline.run(
        "upload", photos, "--prefix", "followed", "--wait", "--output", "json", "--manifest", manifest, check=False
    )
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["outcomes"] == {"COMPLETED": 3, "FAILED": 1, "IGNORED": 1}
    (failure,) = summary["failures"]
    assert (failure["key"], failure["code"]) == ("followed/cut.jpg", "TRUNCATED")
    assert set(summary["latency"]) == {"upload", "process", "write", "total"}
    items = pipeline.items("followed/")
    lines = {line["key"]: line for line in map(json.loads, manifest.read_text().splitlines())}
    for key, item in items.items():
        assert (lines[key]["imageId"], lines[key]["eTag"]) == (item["imageId"], item["eTag"])
        assert lines[key]["outcome"] == item["status"]

    again = pipeline.run("upload", photos, "--prefix", "followed", "--wait", "--output", "json", check=False)
    summary = json.loads(again.stdout)
    assert (summary["unchanged"], summary["outcomes"]) == (5, {"COMPLETED": 3, "FAILED": 1, "IGNORED": 1})


def test_a_changed_image_is_replaced_and_followed(pipeline: LocalPipeline, tmp_path: Path) -> None:
    photo = image(tmp_path / "changing.jpg", "JPEG", 40)
    first = pipeline.json("upload", photo, "--wait")
    before = pipeline.items("changing.jpg")["changing.jpg"]
    image(photo, "JPEG", 200)
    time.sleep(1.1)  # S3 tells seconds: what was stored in the one in which a run starts may be another writer's
    second = pipeline.json("upload", photo, "--wait")
    after = pipeline.items("changing.jpg")["changing.jpg"]
    assert (first["uploaded"], second["replaced"], second["outcomes"]) == (1, 1, {"COMPLETED": 1})
    assert before["eTag"] != after["eTag"]
    assert before["imageId"] == after["imageId"]


def test_a_file_in_parts_arrives_whole(pipeline: LocalPipeline, tmp_path: Path) -> None:
    body = os.urandom(1 << 20) * 20
    (tmp_path / "large.bin").write_bytes(body)
    done = pipeline.json("upload", tmp_path / "large.bin", "--wait")
    assert done["outcomes"] == {"IGNORED": 1}
    bucket = pipeline.outputs["upload_bucket_name"]
    assert pipeline.clients.s3.get_object(Bucket=bucket, Key="large.bin")["Body"].read() == body
    assert pipeline.json("upload", tmp_path / "large.bin")["unchanged"] == 1
