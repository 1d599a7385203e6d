"""The commands of an operator, one after the other, against a running pipeline."""

import json
from pathlib import Path

import pytest
from local_pipeline import LocalPipeline

from photographs import photographs
from pipeline_cli.local.samples import make_samples

pytestmark = pytest.mark.emulator

BROKEN = {
    "broken/half a photo.jpg": "TRUNCATED",
    "broken/only claims to be one.jpg": "NOT_AN_IMAGE",
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder)
    return folder


@pytest.fixture(scope="module")
def uploaded(pipeline: LocalPipeline, samples: Path) -> dict[str, str]:
    """The samples, uploaded and waited for: the outcome of each by its key."""
    done = pipeline.run(
        *("upload", samples, "--no-preflight", "--wait", "--timeout", 100, "--output", "jsonl"), check=False
    )
    assert done.returncode == 1, done.stderr  # two are broken
    results = [json.loads(line) for line in done.stdout.splitlines()]
    return {result["key"]: result["outcome"] for result in results}


def test_every_upload_has_its_outcome(uploaded: dict[str, str], samples: Path) -> None:
    keys = {file.relative_to(samples).as_posix() for file in samples.rglob("*") if file.is_file()}
    assert set(uploaded) == keys
    assert {key for key, outcome in uploaded.items() if outcome != "COMPLETED"} == set(BROKEN)


def test_each_good_image_has_a_thumbnail(pipeline: LocalPipeline, uploaded: dict[str, str], tmp_path: Path) -> None:
    listed = {row["key"]: row for row in pipeline.json("thumbs", "list", "--limit", 0)}
    good = set(uploaded) - set(BROKEN)
    assert {key for key in good if listed[key]["present"]} == good
    pipeline.run("thumbs", "get", "🌅 sunrise.jpg", "--to", tmp_path / "thumbnail.jpg")
    assert (tmp_path / "thumbnail.jpg").read_bytes().startswith(b"\xff\xd8\xff")


def test_metadata_is_found_by_key_and_by_question(pipeline: LocalPipeline, uploaded: dict[str, str]) -> None:
    turned = pipeline.json("meta", "get", "upright phone photo.jpg")
    assert (turned["width"], turned["height"], turned["orientation"]) == (1200, 1600, 6)
    assert turned["exif"]["model"] == "iPhone 15"
    canon = pipeline.json("meta", "query", "--camera", "canon", "--limit", 0)
    assert {"alps.jpg", "🌅 sunrise.jpg", "2026/progressive.jpg"} <= {item["originalKey"] for item in canon}
    assert all("Canon" in item["exif"]["make"] for item in canon)
    assert uploaded["logo.png"] == "COMPLETED"


def test_the_log_tells_of_one_image_from_both_functions(pipeline: LocalPipeline, uploaded: dict[str, str]) -> None:
    lines = pipeline.json("logs", "--image", "café terrace.jpg")
    assert {line["function"] for line in lines} == {"processor", "writer"}
    assert any("COMPLETED" in line["message"] and line["key"] == "café terrace.jpg" for line in lines)
    assert uploaded["café terrace.jpg"] == "COMPLETED"


def test_dead_letters_are_listed_with_their_reasons(pipeline: LocalPipeline, uploaded: dict[str, str]) -> None:
    listed = {letter["key"]: letter["code"] for letter in pipeline.json("dlq", "list")}
    assert {key: listed.get(key) for key in BROKEN} == BROKEN
    assert {uploaded[key] for key in BROKEN} == {"FAILED"}


@pytest.mark.skipif(not photographs(), reason="no folder of photographs")
def test_real_photographs_all_complete(pipeline: LocalPipeline) -> None:
    folder = photographs()[0].parent
    summary = pipeline.json("upload", folder, "--prefix", "real/", "--wait", "--timeout", 100)
    assert summary["outcomes"] == {"COMPLETED": len(photographs())}


@pytest.mark.slow
def test_the_demonstration_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    temporary.mkdir()
    done = LocalPipeline(home).run("local", "demo", environ={"TMPDIR": str(temporary)})
    for expected in (
        *("alps.jpg", "🌅 sunrise.jpg", "café terrace.jpg", "thumbnails/", "NOT_AN_IMAGE", "TRUNCATED"),
        *("$ imgpipe thumbs list", "$ imgpipe meta query", "$ imgpipe logs --image", "$ imgpipe dlq list"),
        *("image-dlq-not-empty     ALARM", "metadata-dlq-not-empty  OK", "Next:", "iPhone 15"),
    ):
        assert expected in done.stdout
    assert "items 13, dead letters 2" in done.stderr
    assert "nothing is left" in done.stderr
    assert list(temporary.iterdir()) == []
    assert not home.exists()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [arguments for arguments in running if str(temporary).encode() in arguments]
