"""How the pipeline is: what counts as a problem, and what does not."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline_cli.pipeline.dead_letters.queues import Queue
from pipeline_cli.pipeline.queries import Criteria
from pipeline_cli.pipeline.watching import health
from pipeline_cli.pipeline.watching.health import Depth, Function, Health, Parts, look
from pipeline_contract.failures import Stage
from pipeline_contract.item import Status

NOW = 1_790_000_000.0
PARTS = Parts(
    table="images",
    metadata_queue_url="metadata",
    dead_letter_queues=(Queue(Stage.IMAGE_PROCESSOR, "image-dlq"), Queue(Stage.DB_WRITER, "metadata-dlq")),
    processor_function="processor",
    writer_function="writer",
    name_prefix="imgpipe",
    shards=4,
)


@dataclass
class World:
    """All four services, as far as they are asked. Depths are waiting, in flight, delayed."""

    depths: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    functions: dict[str, dict[str, str]] = field(default_factory=dict)
    mappings: list[dict[str, str]] = field(default_factory=lambda: [{"State": "Enabled"}])
    alarms: list[dict[str, str]] = field(default_factory=list)

    def get_queue_attributes(self, *, QueueUrl: str, AttributeNames: list[str]) -> Any:  # noqa: N803
        depths = self.depths.get(QueueUrl, (0, 0, 0))
        assert len(AttributeNames) == 3
        return {"Attributes": dict(zip(AttributeNames, map(str, depths), strict=True))}

    def get_function_configuration(self, *, FunctionName: str) -> Any:  # noqa: N803
        return self.functions.get(FunctionName, {})

    def list_event_source_mappings(self, *, FunctionName: str) -> Any:  # noqa: N803
        assert FunctionName == "writer"
        return {"EventSourceMappings": self.mappings}

    def get_paginator(self, operation: str) -> "World":
        assert operation == "describe_alarms"
        return self

    def paginate(self, *, AlarmNamePrefix: str) -> Any:  # noqa: N803
        assert AlarmNamePrefix == "imgpipe-"  # not those of imgpipe2
        return [{"MetricAlarms": [alarm]} for alarm in self.alarms] + [{}]

    def look(self) -> Health:
        client: Any = self
        return look(client, client, client, client, PARTS, now=NOW)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    def count(_: Any, table: str, __: Any, criteria: Criteria, ___: Any) -> int:
        assert table == "images"
        if criteria.status is Status.FAILED:
            return 2
        assert criteria.since == datetime.fromtimestamp(NOW, UTC) - timedelta(hours=1)
        return 40

    monkeypatch.setattr(health.metadata, "count", count)
    return World()


def test_all_is_well(world: World) -> None:
    """Work that waits is no problem, nor are images that failed and whose dead letters were dealt with."""
    world.depths["metadata"] = (7, 3, 1)
    found = world.look()
    assert found.queues == (Depth("metadata", 7, 3, 1), Depth("image-dlq", 0, 0, 0), Depth("metadata-dlq", 0, 0, 0))
    assert (found.uploaded_last_hour, found.needs_attention) == (40, 2)
    assert found.functions == (
        Function("processor", "Active", "Successful"),
        Function("writer", "Active", "Successful"),
    )
    assert (found.writer_mapping, found.alarms_ringing, found.problems) == ("Enabled", (), ())


@pytest.mark.parametrize(
    ("queue", "depths", "expected"),
    [
        ("image-dlq", (2, 0, 0), ("2 in image-dlq: imgpipe dlq list",)),
        ("metadata-dlq", (0, 1, 0), ("1 in metadata-dlq: imgpipe dlq list",)),  # somebody reads it: it is still there
        ("metadata-dlq", (3, 1, 0), ("4 in metadata-dlq: imgpipe dlq list",)),
    ],
)
def test_dead_letters(world: World, queue: str, depths: tuple[int, int, int], expected: tuple[str, ...]) -> None:
    world.depths[queue] = depths
    assert world.look().problems == expected


@pytest.mark.parametrize(
    ("state", "update", "fine"),
    [
        ("Active", "Successful", True),
        ("Active", "InProgress", True),
        ("Inactive", "Successful", True),
        ("Active", "Failed", False),
        ("Failed", "Successful", False),
        ("Pending", "Successful", False),
    ],
)
def test_functions(world: World, state: str, update: str, fine: bool) -> None:
    world.functions["processor"] = {"State": state, "LastUpdateStatus": update}
    assert world.look().problems == (() if fine else (f"processor is {state}, {update}: imgpipe doctor",))


@pytest.mark.parametrize(
    ("mappings", "state", "fine"),
    [
        ([{"State": "Updating"}], "Updating", True),
        ([{"State": "Disabled"}], "Disabled", False),
        ([], "missing", False),
    ],
)
def test_the_feeding_of_the_writer(world: World, mappings: list[dict[str, str]], state: str, fine: bool) -> None:
    world.mappings = mappings
    found = world.look()
    assert found.writer_mapping == state
    assert found.problems == (
        () if fine else (f"db_writer is not fed: its event source mapping is {state}: imgpipe doctor",)
    )


def test_alarms_of_all_pages(world: World) -> None:
    world.alarms = [
        {"AlarmName": "imgpipe-image-dlq", "StateValue": "ALARM"},
        {"AlarmName": "imgpipe-errors", "StateValue": "OK"},
        {"AlarmName": "imgpipe-age", "StateValue": "ALARM"},
    ]
    found = world.look()
    assert found.alarms_ringing == ("imgpipe-image-dlq", "imgpipe-age")
    assert found.problems == ("alarm imgpipe-image-dlq rings", "alarm imgpipe-age rings")
