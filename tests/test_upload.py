"""`imgpipe upload` against a real S3 server: what arrives, what is left alone, and what is said of it."""

import base64
import contextlib
import fcntl
import json
import os
import pty
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from awscrt.checksums import crc64nvme
from moto.server import ThreadedMotoServer

from upload_files import command, jpeg, run

BUCKET = "uploads"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps({"upload_bucket_name": {"value": BUCKET}, "aws_region": {"value": "us-east-1"}}))
    monkeypatch.setenv("IMGPIPE_OUTPUTS", str(outputs))
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield boto3.client("s3")
    bucket = boto3.resource("s3").Bucket(BUCKET)
    bucket.object_versions.delete()
    bucket.delete()


def keys(s3: Any) -> list[str]:
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a/1.jpg", "a/2.jpg", "ä ö+ü%20/日本 ☃.jpg"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(jpeg(name))
    return folder


def test_a_folder_arrives_under_its_relative_paths(s3: Any, photos: Path) -> None:
    done = run("upload", str(photos), "--prefix", "2026", "--output", "jsonl")
    assert done.code == 0, done.stderr
    assert keys(s3) == ["2026/a/1.jpg", "2026/a/2.jpg", "2026/b.jpg", "2026/ä ö+ü%20/日本 ☃.jpg"]
    for row in done.rows:
        stored = s3.get_object(Bucket=BUCKET, Key=row["key"], ChecksumMode="ENABLED")
        body = stored["Body"].read()
        assert body == Path(row["path"]).read_bytes()
        assert row["checksum"] == "CRC64NVME:" + base64.b64encode(crc64nvme(body).to_bytes(8, "big")).decode()
        assert stored["ChecksumCRC64NVME"] == row["checksum"].removeprefix("CRC64NVME:")
        assert stored["ETag"] == f'"{row["eTag"]}"'
        assert stored["ContentType"] == "image/jpeg"


def test_unchanged_files_are_not_sent_again_and_changed_ones_are_replaced(s3: Any, photos: Path) -> None:
    assert run("upload", str(photos)).code == 0
    before = s3.head_object(Bucket=BUCKET, Key="b.jpg")["LastModified"]
    (photos / "a/1.jpg").write_bytes(jpeg("another one"))
    time.sleep(1.1)  # S3 tells seconds: what was stored in the one in which a run starts may be another writer's
    done = run("upload", str(photos), "--output", "jsonl")
    assert {row["key"]: row["action"] for row in done.rows} == {
        "a/1.jpg": "replace",
        "a/2.jpg": "unchanged",
        "b.jpg": "unchanged",
        "ä ö+ü%20/日本 ☃.jpg": "unchanged",
    }
    assert s3.head_object(Bucket=BUCKET, Key="b.jpg")["LastModified"] == before
    assert s3.get_object(Bucket=BUCKET, Key="a/1.jpg")["Body"].read() == jpeg("another one")


def test_one_file_is_compared_too_without_a_listing(s3: Any, photos: Path) -> None:
    actions = [run("upload", str(photos / "b.jpg"), "--output", "jsonl").rows[0]["action"] for _ in range(2)]
    (photos / "b.jpg").write_bytes(jpeg("changed"))
    actions.append(run("upload", str(photos / "b.jpg"), "--output", "jsonl").rows[0]["action"])
    assert actions == ["upload", "unchanged", "replace"]
    assert s3.get_object(Bucket=BUCKET, Key="b.jpg")["Body"].read() == jpeg("changed")


def test_a_dry_run_says_what_the_run_then_does(s3: Any, photos: Path) -> None:
    assert run("upload", str(photos / "a"), "--prefix", "a").code == 0
    (photos / "a/2.jpg").write_bytes(jpeg("changed"))
    (photos / "empty.png").write_bytes(b"")
    time.sleep(1.1)  # as above
    before = keys(s3)
    planned = run("upload", str(photos), "--dry-run", "--output", "jsonl")
    assert keys(s3) == before
    done = run("upload", str(photos), "--output", "jsonl")
    assert planned.code == done.code == 1
    assert {row["key"]: (row["action"], row["code"]) for row in planned.rows} == {
        row["key"]: (row["action"], row["code"]) for row in done.rows
    }
    assert {row["action"] for row in done.rows} == {"upload", "replace", "unchanged", "refused"}


def test_what_the_pipeline_would_refuse_is_not_sent(s3: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "fine.jpg").write_bytes(jpeg("fine"))
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02")
    (folder / "notes.txt").write_text("the pipeline ignores this")
    done = run("upload", str(folder), "--output", "json")
    assert done.code == 1
    summary = json.loads(done.stdout)
    assert {failure["key"]: failure["code"] for failure in summary["failures"]} == {
        "text.jpg": "NOT_AN_IMAGE",
        "empty.png": "EMPTY_OBJECT",
        "huge.png": "PIXEL_LIMIT",
    }
    assert keys(s3) == ["fine.jpg", "notes.txt"]
    assert run("upload", str(folder), "--no-preflight").code == 0
    assert len(keys(s3)) == 5


def test_what_is_left_out_is_counted(s3: Any, photos: Path) -> None:
    (photos / ".hidden.jpg").write_bytes(jpeg("hidden"))
    (photos / "clip.mov").write_bytes(b"film")
    (photos / "notes.txt").write_text("no image")
    (photos / "a/again").symlink_to(photos)
    os.mkfifo(photos / "pipe.jpg")
    done = run("upload", str(photos), "--exclude", "*.mov", "--output", "json")
    assert done.code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["leftOut"] == {"hidden": 1, "byPattern": 1, "linkLoops": 1, "notFiles": 1}
    assert summary["notImages"] == 1
    assert "Left out: 1 hidden (--hidden takes them), 1 by --include or --exclude, 1 links in a circle" in done.stderr


def test_a_name_that_is_no_utf8_is_shown_all_the_same(s3: Any, photos: Path) -> None:
    (photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg("latin-1"))
    code, drawn = on_a_terminal("upload", str(photos))
    assert code == 1
    assert "NAME_NOT_UTF8" in drawn
    assert "\\xe9.jpg" in drawn


def test_the_manifest_has_a_line_per_file(s3: Any, photos: Path, tmp_path: Path) -> None:
    assert run("upload", str(photos), "-q", "--manifest", str(tmp_path / "m.jsonl")).code == 0
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == keys(s3)
    assert all(line["imageId"] and line["checksum"] and line["action"] == "upload" for line in lines)


def test_a_missing_bucket_is_one_clear_error(
    s3: Any, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outputs = tmp_path / "other.json"
    outputs.write_text(json.dumps({"upload_bucket_name": {"value": "no-such-bucket"}}))
    monkeypatch.setenv("IMGPIPE_OUTPUTS", str(outputs))
    for path in (photos, photos / "b.jpg"):
        done = run("upload", str(path))
        assert done.code == 3
        assert "bucket" in done.stderr


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Runs imgpipe on a pseudo-terminal of 80 columns; returns its exit code and everything it drew."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover  # the child
        os.execv(sys.executable, command(*arguments))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    drawn = b""
    with contextlib.suppress(OSError):  # EIO: the terminal's other side was closed
        while data := os.read(terminal, 65536):
            drawn += data
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), drawn.decode()


def test_a_terminal_gets_a_live_line_and_the_result(s3: Any, photos: Path) -> None:
    code, drawn = on_a_terminal("upload", str(photos))
    assert code == 0
    assert "\x1b[?25l" in drawn  # something moved
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h")  # and the cursor is back
    assert "4 files: 4 uploaded" in drawn
    assert "b.jpg" in drawn
    code, drawn = on_a_terminal("upload", "-q", str(photos), "--output", "json")
    assert code == 0
    assert "\x1b" not in drawn


def test_elsewhere_nothing_moves(s3: Any, photos: Path) -> None:
    done = run("upload", str(photos))
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("4 files: 4 uploaded")
