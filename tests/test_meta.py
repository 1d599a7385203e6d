"""`imgpipe meta`: the right index by Query alone, nothing cut, nothing scanned unasked."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import failures
from deployed import NOW, Deployed, deployed
from pipeline_cli.errors import ExitCode, UsageError
from pipeline_cli.pipeline.dead_letters.messages import dead_letter
from pipeline_cli.pipeline.dead_letters.queues import FIELDS, fields_of
from pipeline_cli.pipeline.expressions import expression
from pipeline_cli.pipeline.queries import ITEM_FIELDS, Criteria, plan
from pipeline_contract.failures import Stage
from pipeline_contract.identity import image_id
from pipeline_contract.item import Status
from pipeline_contract.times import format_time

HOURS, DAYS = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Deployed]:
    with deployed(tmp_path) as made:
        yield made


def keys(rows: list[dict[str, Any]]) -> list[str]:
    return [row["originalKey"] for row in rows]


def test_a_bare_query_is_the_newest_fifty_across_days(world: Deployed) -> None:
    for number in range(60):
        world.put_item(f"{number}.jpg", ago=number * 12 * HOURS)
    code, out, err = world.run("meta", "query", "--output", "json")
    assert (code, keys(json.loads(out))) == (0, [f"{number}.jpg" for number in range(50)])
    assert "The newest 50" in err
    assert keys(world.json("meta", "query", "--limit", "0")) == [f"{number}.jpg" for number in range(60)]


def test_a_table_without_images_is_no_error_and_says_how_far_it_looked(world: Deployed) -> None:
    world.put_item("old.jpg", ago=100 * DAYS)
    assert world.run("meta", "query", "--output", "jsonl")[:2] == (0, "")
    assert "Looked back to 2026-07-2" in world.run("meta", "query")[2]
    assert keys(world.json("meta", "query", "--since", "101d")) == ["old.jpg"]


def test_pages_are_followed(world: Deployed) -> None:
    for number in range(12):
        world.put_item(f"{number:02}.jpg", ago=number * timedelta(minutes=1), exif={"fields": {"x": "y" * 300_000}})
    assert keys(world.json("meta", "query")) == [f"{number:02}.jpg" for number in range(12)]
    assert world.run("meta", "query", "--count")[1] == "12\n"
    assert world.json("meta", "query", "--explain", "--since", "1h")["queries"] >= 4


def test_shards_of_a_day_are_merged(world: Deployed) -> None:
    for number in range(9):
        world.put_item(f"{number}.jpg", ago=number * HOURS / 4, shard=number % 3)
    file = Path(world.environ["IMGPIPE_OUTPUTS"])
    document = json.loads(file.read_text()) | {"upload_day_shards": {"value": "3"}}
    file.write_text(json.dumps(document))
    assert keys(world.json("meta", "query", "--limit", "7")) == [f"{number}.jpg" for number in range(7)]


FILTERS = [
    (["--format", "png"], ["b.png"]),
    (["--format", "jpg", "--min-width", "5000"], ["big.jpg"]),
    (["--status", "failed"], ["bad.jpg"]),
    (["--status", "FAILED", "--name", "*.png"], []),
    (["--status", "completed", "--name", "b*"], ["b.png", "big.jpg"]),
    (["--camera", "canon"], ["big.jpg"]),
    (["--camera", "*EOS*"], ["big.jpg"]),
    (["--name", "2026/*"], ["2026/c.jpg"]),
    (["--since", "90m"], ["2026/c.jpg", "b.png"]),
    (["--since", "2026-10-20T09:30:00", "--until", "2h"], ["big.jpg"]),
    (["--max-size", "100"], ["2026/c.jpg"]),
    (["--where", "width > 3000 and format in ['JPEG']"], ["2026/c.jpg", "big.jpg"]),
    (["--where", "like(originalKey, '*/*') or exif.model == 'EOS R5'"], ["2026/c.jpg", "big.jpg"]),
    (["--where", "not width"], ["bad.jpg"]),
]


def test_what_is_asked_for_is_found(world: Deployed) -> None:
    world.put_item("2026/c.jpg", fileSize=100)
    world.put_item("b.png", ago=HOURS, format="PNG", width=10)
    canon = {"available": True, "fields": 2, "make": "Canon", "model": "EOS R5"}
    world.put_item("big.jpg", ago=2 * HOURS, width=8000, exif=canon)
    world.put_failed("bad.jpg", ago=3 * HOURS)
    for arguments, expected in FILTERS:
        assert keys(world.json("meta", "query", *arguments)) == expected, arguments
        assert world.run("meta", "query", *arguments, "--count")[1] == f"{len(expected)}\n", arguments


def test_no_query_scans_unless_told_to(world: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.client import BaseClient

    called: list[str] = []
    real = BaseClient._make_api_call

    def counted(self: Any, operation: str, arguments: Any) -> Any:
        called.append(operation)
        return real(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", counted)
    for arguments, _ in (*FILTERS[:4], ([], [])):
        world.json("meta", "query", *arguments)
    assert set(called) == {"Query"}
    world.put_item("gone.jpg", status="DELETED", uploadDay=None, formatMonth=None)
    code, _, err = world.run("meta", "query", "--status", "deleted")
    assert (code, "--scan" in err) == (ExitCode.USAGE, True)
    assert keys(world.json("meta", "query", "--status", "deleted", "--scan")) == ["gone.jpg"]


def test_it_explains_itself(world: Deployed) -> None:
    world.put_item("a.jpg")
    world.put_item("b.jpg", ago=HOURS, width=1)
    said = world.json("meta", "query", "--since", "1d", "--min-width", "2", "--explain")
    assert said == {
        "access": "query",
        "index": "UploadDateIndex",
        "keyCondition": "uploadDay in 2026-10-19 .. 2026-10-21 and uploadDate >= 2026-10-19T12:00:00.000Z",
        "partitions": 3,
        "filteredBy": ["width"],
        "queries": 3,
        "itemsRead": 2,
        "itemsMatched": 1,
        "readCapacityUnits": said["readCapacityUnits"],
        "searchedBackTo": None,
    }
    assert said["readCapacityUnits"] > 0


def test_columns_choose_what_is_printed(world: Deployed) -> None:
    world.put_item("a.jpg", exif={"available": True})
    arguments = ("meta", "query", "--columns", "originalKey,exif.available,exif.nothing,error")
    exif = {"available": True, "nothing": None}
    assert world.json(*arguments) == [{"originalKey": "a.jpg", "exif": exif, "error": None}]
    assert (
        world.run(*arguments, "--output", "csv")[1] == "originalKey,exif.available,exif.nothing,error\na.jpg,true,,\n"
    )


def test_what_no_image_can_have_is_refused_with_the_nearest_names(world: Deployed) -> None:
    for arguments, said in {
        ("--columns", "orginalKey"): "There is: originalKey",
        ("--columns", "width.inner"): "Dots reach into: exif",
        ("--where", "widht > 3"): "There is: width",
        ("--where", "not (like(filename, 'x') or width > 3)"): "There is: fileName",
        ("--where", "format == JPEG"): "A text is quoted: 'JPEG'",
        ("--format", "jpgg"): "There is: JPEG, PNG",
    }.items():
        for more in ((), ("--count",)):
            code, out, err = world.run("meta", "query", *arguments, *more)
            assert (code, out, said in err) == (ExitCode.USAGE, "", True), err
    code, _, err = world.run("dlq", "list", "--where", "attempt > 2")
    assert (code, "There is: attempts" in err) == (ExitCode.USAGE, True)
    code, _, err = world.run("reprocess", "--where", "widht > 3", "--dry-run")
    assert (code, "There is: width" in err) == (ExitCode.USAGE, True)


def test_the_fields_of_items_are_those_that_the_writer_writes(world: Deployed) -> None:
    assert world.put_item("a.jpg", exif={"a": 1}).keys() | world.put_failed("b.jpg").keys() <= ITEM_FIELDS
    letter = dead_letter(failures.received(failures.image_failure()), Stage.IMAGE_PROCESSOR)
    assert tuple(fields_of(letter)) == FIELDS


def test_get_finds_by_key_id_address_and_thumbnail(world: Deployed) -> None:
    item = world.put_item("a b/é.jpg")
    name = image_id("p-uploads", "a b/é.jpg")
    for reference in ("a b/é.jpg", name, "s3://p-uploads/a b/é.jpg", f"thumbnails/{name}.jpg"):
        assert world.json("meta", "get", reference) == item
    code, out, err = world.run("meta", "get", name, "nothing.jpg", "--output", "jsonl")
    assert (code, json.loads(out)) == (ExitCode.NOT_FOUND, item)
    assert json.loads(err)["error"]["hint"] == "See what became of it: imgpipe trace nothing.jpg"


def test_what_cannot_be_read_is_a_usage_error(world: Deployed) -> None:
    for arguments in (
        ["--since", "yesterday-ish"],
        ["--since", "1h", "--until", "2h"],
        ["--where", "__import__('os')"],
        ["--where", "width >"],
        ["--since", "1900-01-01"],
        ["--columns", ","],
    ):
        assert world.run("meta", "query", *arguments)[0] == ExitCode.USAGE, arguments


@given(
    st.timedeltas(timedelta(), timedelta(days=1000)),
    st.timedeltas(timedelta(), timedelta(days=400)),
    st.timedeltas(timedelta(), timedelta(days=400)),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_plan_reads_every_partition_of_its_range(
    ago: timedelta, length: timedelta, inside: timedelta, shards: int, by_format: bool
) -> None:
    since = NOW - ago
    until = since + length
    made = plan(Criteria(since, until, format="png" if by_format else None), NOW.timestamp(), shards=shards)
    date = format_time(min(until, since + inside))
    wanted = {f"PNG#{date[:7]}"} if by_format else {date[:10] + (f"#{n}" if n else "") for n in range(shards)}
    assert wanted <= {partition for group in made.partitions for partition in group}
    assert (made.since or "") <= date <= (made.until or "")
    assert list(made.partitions) == sorted(made.partitions, reverse=True)


def test_failed_images_are_found_by_their_index_whatever_their_format() -> None:
    made = plan(Criteria(status=Status.FAILED, format="JPEG"), NOW.timestamp())
    assert (made.index, made.partitions, made.filtered_by) == ("StatusIndex", (("FAILED",),), ("format",))


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_a_usage_error(text: str) -> None:
    try:
        read = expression(text)
    except UsageError:
        return
    read.matches({"a": 1})


@pytest.mark.parametrize(
    "text",
    [
        "().__class__",
        "a.b()",
        "open('x')",
        "[x for x in a]",
        "lambda: 1",
        "a + 1",
        "f'{a}'",
        "a[0]",
        "9**9**9",
        "(a:=1)",
    ],
)
def test_an_expression_knows_no_more_than_comparisons(text: str) -> None:
    with pytest.raises(UsageError):
        expression(text)


def test_what_is_missing_compares_as_false() -> None:
    row = {"width": 5, "name": "x", "tags": None}
    for text, expected in {
        "missing > 3": False,
        "width > 'a'": False,
        "missing == None": True,
        "missing is null": True,
        "'x' in name": True,
        "'x' in tags": False,
        "1 < width <= 5": True,
        "name.deeper == 1": False,
        "width == -5": False,
        "not (width == 5)": False,
    }.items():
        assert expression(text).matches(row) is expected, text
