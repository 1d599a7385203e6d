"""Many images: memory that does not grow, listings that are cut into ranges, runs that are interrupted everywhere."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline_cli.pipeline.reconciling import listings
from pipeline_cli.pipeline.reconciling.accounting import Kind
from pipeline_cli.pipeline.reconciling.checkpoint import Checkpoint, Phase
from pipeline_cli.pipeline.reconciling.reconcile import Progress
from reconcile_scale import PAGE, UP, Everything, compare, key

SCRIPT = Path(__file__).with_name("reconcile_scale.py")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """Held in memory, an image of these would take over a kilobyte: 80,000 more of them over 80 MB."""

    def grown(count: int) -> int:
        command = [sys.executable, str(SCRIPT), str(count), str(tmp_path / f"{count}.sqlite3")]
        result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert (result["uploads"], result["findings"]) == (count, count // 5)
        return int(result["grownKiB"])

    assert grown(100_000) < grown(20_000) + 24 * 1024


def test_a_run_that_is_interrupted_after_every_page_ends_as_one_that_was_not(tmp_path: Path) -> None:
    everything = Everything(5 * PAGE)
    quiet = Progress(lambda *_: None, lambda _: None)
    with Checkpoint.open(tmp_path / "whole.sqlite3", {}, 0.0) as checkpoint:
        whole = compare(everything, checkpoint, quiet)
        expected = list(checkpoint.findings())
    assert whole.findings[Kind.MISSING_ITEM] == whole.findings[Kind.MISSING_THUMBNAIL] == PAGE // 2

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    runs = 0
    while True:
        runs += 1
        with Checkpoint.open(tmp_path / "cut.sqlite3", {}, 0.0) as checkpoint:
            if checkpoint.phase is Phase.JUDGED:
                break
            with contextlib.suppress(KeyboardInterrupt):
                compare(everything, checkpoint, Progress(interrupt, interrupt))
    assert runs > 20
    with Checkpoint.open(tmp_path / "cut.sqlite3", {}, 0.0) as checkpoint:
        again = compare(everything, checkpoint, quiet)
        assert (again.accounting, again.findings) == (whole.accounting, whole.findings)
        assert list(checkpoint.findings()) == expected


def test_a_run_is_begun_anew_when_it_is_old_or_of_another_deployment(tmp_path: Path) -> None:
    file = tmp_path / "run.sqlite3"
    with Checkpoint.open(file, {"table": "a"}, 0.0) as checkpoint:
        checkpoint.phase = Phase.JUDGING
    for about, now, phase in (
        ({"table": "a"}, 3600.0, Phase.JUDGING),
        ({"table": "b"}, 3600.0, Phase.LISTING),
        ({"table": "b"}, 100_000.0, Phase.LISTING),
    ):
        with Checkpoint.open(file, about, now) as checkpoint:
            assert checkpoint.phase is phase
            checkpoint.phase = Phase.JUDGING
    with Checkpoint.open(file, {"table": "b"}, 100_000.0, anew=True) as checkpoint:
        assert checkpoint.phase is Phase.LISTING


class Bucket:
    """A bucket of these keys, as ListObjectsV2 and ListObjectVersions show it."""

    def __init__(self, keys: list[str], page: int = 3) -> None:
        self.keys = sorted(keys)
        self.page = page

    def list_objects_v2(self, Bucket: str, Prefix: str = "", Delimiter: str = "") -> dict[str, Any]:  # noqa: N803
        if not Delimiter:
            return {"IsTruncated": len(self.keys) > self.page}
        rest = [one.removeprefix(Prefix) for one in self.keys if one.startswith(Prefix)]
        folders = dict.fromkeys(Prefix + one.split("/")[0] + "/" for one in rest if "/" in one)
        return {"CommonPrefixes": [{"Prefix": folder} for folder in folders]}

    def list_object_versions(self, Bucket: str, KeyMarker: str = "", VersionIdMarker: str = "") -> dict[str, Any]:  # noqa: N803
        from reconcile_scale import OLD

        rest = [one for one in self.keys if one > KeyMarker]
        page = rest[: self.page]
        entries = [
            {"Key": one, "ETag": '"e"', "VersionId": "null", "LastModified": OLD, "IsLatest": True} for one in page
        ]
        more = len(rest) > self.page
        return {"Versions": entries, "IsTruncated": more} | ({"NextKeyMarker": page[-1]} if more else {})


@pytest.mark.parametrize(
    "keys",
    [
        ["a"],
        [f"{number}.jpg" for number in range(20)],
        [f"only/{number}.jpg" for number in range(20)],
        [f"{folder}/{number}.jpg" for folder in "abcdef" for number in range(4)] + ["a.jpg", "c", "zz", "d/"],
        [f"deep/er/{folder}/x.jpg" for folder in range(50)] + ["deep/er", "deep/zz", "0"],
        ["é/1", "é/2", "日/1", "日/2", "\U0001f600/1", "\uffee/1"],
    ],
)
def test_ranges_hold_every_key_once(keys: list[str]) -> None:
    stores: Any = type("Stores", (), {"s3": Bucket(keys), "upload_bucket": UP})
    ranges = listings.key_ranges(stores.s3, UP)
    assert len(ranges) <= 16
    found: list[str] = []
    for span in ranges:
        place: Any = None
        while True:
            rows, place = listings.version_page(stores, span, place)
            found += [row[1] for row in rows]
            if place is None:
                break
    assert sorted(found) == sorted(keys)


def test_a_large_bucket_is_listed_in_ranges() -> None:
    everything: Any = Everything(40 * PAGE)
    ranges = listings.key_ranges(everything, UP)
    assert len(ranges) > 8
    assert ranges[0][0] is ranges[-1][1] is None
    assert all(cut is not None and key(0) < cut < key(40 * PAGE) for _, cut in ranges[:-1])
