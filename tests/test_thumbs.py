"""`imgpipe thumbs`: the table and the buckets, joined; and what is missing between them."""

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deployed import THUMBNAILS, UPLOADS, Deployed, Terminal, deployed
from pipeline_cli.commands import thumbs
from pipeline_cli.errors import ExitCode
from pipeline_cli.pipeline.thumbnails import Stored, file_name
from pipeline_contract.identity import image_id

HOUR = timedelta(hours=1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Deployed]:
    with deployed(tmp_path) as made:
        yield made


@pytest.mark.parametrize("limit", ["50", "0"])
def test_a_list_joins_image_and_thumbnail(world: Deployed, limit: str) -> None:
    """Asked for one by one (50) and out of a listing of the bucket (0), the answer is the same."""
    there = world.put_item("a b/é.jpg")
    world.put_thumbnail(there, b"12345")
    lost = world.put_item("lost.jpg", ago=HOUR)
    world.put_failed("bad.jpg", ago=2 * HOUR)
    assert world.json("thumbs", "list", "--limit", limit) == [
        {
            "key": "a b/é.jpg",
            "imageId": there["imageId"],
            "thumbnailKey": there["thumbnailKey"],
            "width": 200,
            "height": 150,
            "bytes": 5,
            "present": True,
            "uploadDate": there["uploadDate"],
        },
        {
            "key": "lost.jpg",
            "imageId": lost["imageId"],
            "thumbnailKey": lost["thumbnailKey"],
            "width": 200,
            "height": 150,
            "bytes": None,
            "present": False,
            "uploadDate": lost["uploadDate"],
        },
    ]


def test_none_is_no_error(world: Deployed) -> None:
    assert world.run("thumbs", "list", "--output", "json")[:2] == (0, "[]\n")
    code, out, _ = world.run("thumbs", "list", "--output", "table")
    assert (code, out) == (0, "No thumbnails.\n")


def test_missing_and_stale_come_from_the_buckets(world: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    fine, stale = world.put_item("fine.jpg"), world.put_item("stale.jpg")
    world.put_failed("bad.jpg")
    for item in (fine, stale):
        world.put_thumbnail(item)
    for key in ("fine.jpg", "stale.jpg", "bad.jpg", "new.png", "notes.txt"):
        world.s3.put_object(Bucket=UPLOADS, Key=key, Body=b"x")
    world.put_thumbnail(fine)  # after its image; the other is older than its own

    def listed(*_: Any, **__: Any) -> Iterator[Stored]:
        for item, days in ((fine, 1), (stale, -1)):
            at = world.s3.head_object(Bucket=UPLOADS, Key=item["originalKey"])["LastModified"]
            yield Stored(item["thumbnailKey"], item["imageId"], None, 9, at + timedelta(days=days))

    monkeypatch.setattr(thumbs.thumbnails, "stored", listed)
    missing = world.json("thumbs", "list", "--missing")
    assert [(row["key"], row["status"], row["errorCode"]) for row in missing] == [
        ("bad.jpg", "FAILED", "CORRUPT"),
        ("new.png", None, None),
    ]
    assert [row["key"] for row in world.json("thumbs", "list", "--stale")] == ["stale.jpg"]
    both = {row["key"] for row in world.json("thumbs", "list", "--missing", "--stale")}
    assert both == {"bad.jpg", "new.png", "stale.jpg"}


def test_get_writes_files_named_after_the_images(
    world: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("a/beach.jpg", "b.png"):
        world.put_thumbnail(world.put_item(key), key.encode())
    further = f"thumbnails/{image_id(UPLOADS, 'b.png')}_800.jpg"
    world.s3.put_object(Bucket=THUMBNAILS, Key=further, Body=b"800")
    assert world.run("thumbs", "get", "a/beach.jpg")[:2] == (0, "beach.jpg.thumb.jpg\n")
    assert (tmp_path / "beach.jpg.thumb.jpg").read_bytes() == b"a/beach.jpg"
    (tmp_path / "to").mkdir()
    assert world.run("thumbs", "get", "a/beach.jpg", "b.png", "--to", "to")[0] == 0
    assert sorted(file.name for file in (tmp_path / "to").iterdir()) == ["b.png.thumb.jpg", "beach.jpg.thumb.jpg"]
    assert world.run("thumbs", "get", "b.png", "--size", "800", "--to", "x.jpg")[0] == 0
    assert (tmp_path / "x.jpg").read_bytes() == b"800"
    assert world.run("thumbs", "get", "b.png", "--size", "900")[0] == ExitCode.NOT_FOUND
    assert world.run("thumbs", "get", "none.jpg")[0] == ExitCode.NOT_FOUND
    assert world.run("thumbs", "get", "b.png", "b.png", "--to", "x.jpg")[0] == ExitCode.USAGE
    assert world.run("thumbs", "get", "b.png", "b.png", "--to", "new")[0] == 0
    assert len(list((tmp_path / "new").iterdir())) == 2  # two images of one name do not overwrite each other
    assert world.run("thumbs", "get", "b.png", "--to", "one/")[0] == 0
    assert len(list((tmp_path / "one").iterdir())) == 1


def test_bytes_go_to_a_pipe_and_never_to_a_terminal(world: Deployed) -> None:
    world.put_thumbnail(world.put_item("a.jpg"), b"\xff\xd8\x00")
    raw = io.BytesIO()
    pipe = io.TextIOWrapper(raw, write_through=True)
    context_out = world.run("thumbs", "get", "a.jpg", "--to", "-", stdout=_Keeping(pipe))
    assert context_out[0] == 0
    assert raw.getvalue() == b"\xff\xd8\x00"
    assert world.run("thumbs", "get", "a.jpg", "--to", "-", stdout=Terminal())[0] == ExitCode.USAGE


class _Keeping(io.StringIO):
    """A stdout over a pipe."""

    def __init__(self, pipe: io.TextIOWrapper) -> None:
        super().__init__()
        self.buffer = pipe.buffer


def test_addresses_are_signed_for_a_bounded_time(world: Deployed) -> None:
    item = world.put_item("a b.jpg")
    world.put_thumbnail(item)
    world.s3.put_object(Bucket=UPLOADS, Key="a b.jpg", Body=b"x")
    for command in (("thumbs", "url"), ("presign",)):
        for reference in ("a b.jpg", item["imageId"]):
            code, out, _ = world.run(*command, reference, "--expires", "15m")
            assert (code, "X-Amz-Expires=900" in out or "Expires=" in out) == (0, True)
        assert world.run(*command, "a b.jpg", "--expires", "8d")[0] == ExitCode.USAGE
        assert world.run(*command, "nothing.jpg")[0] == ExitCode.NOT_FOUND


@pytest.mark.parametrize("key", ["../../etc/passwd", "a/..", ".ssh", "C:\\x\\y.jpg", "a\x1b[31m.jpg", "a/", "é.jpg"])
def test_a_key_cannot_choose_where_its_file_lies(key: str) -> None:
    from datetime import UTC, datetime

    name = file_name(key, Stored("thumbnails/x.jpg", "x", None, 1, datetime.now(UTC)))
    assert "/" not in name
    assert "\\" not in name
    assert not name.startswith(".")
    assert name.isprintable()
    assert name.endswith(".thumb.jpg")


def test_a_thumbnail_is_shown_in_a_terminal_and_nowhere_else(world: Deployed) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), (255, 0, 0)).save(buffer, "JPEG", quality=95)
    world.put_thumbnail(world.put_item("a.jpg"), buffer.getvalue())
    code, out, err = world.run("thumbs", "show", "a.jpg", stdout=Terminal())
    assert code == 0, err
    assert out.count("\u2580") == 40 * 10
    assert out.splitlines()[-1].startswith("a.jpg")
    assert world.run("thumbs", "show", "a.jpg")[0] == ExitCode.USAGE


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(50), b"\xff\xd8\xff\xe0" + bytes(20)])
def test_what_is_no_thumbnail_is_not_shown(world: Deployed, data: bytes) -> None:
    world.put_thumbnail(world.put_item("a.jpg"), data)
    code, _, err = world.run("thumbs", "show", "a.jpg", stdout=Terminal())
    assert (code, "cannot be shown" in err) == (ExitCode.FAILED, True)
