"""How the pipeline is right now: what waits, what failed, which alarms ring, whether its parts are on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline_cli.pipeline import metadata, queries
from pipeline_cli.pipeline.dead_letters.queues import Queue, counts
from pipeline_cli.pipeline.queries import Criteria
from pipeline_contract.failures import Stage
from pipeline_contract.item import Status

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_sqs import SQSClient

RECENT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Depth:
    """Messages in a queue, as SQS counts them: approximately."""

    queue: str
    waiting: int
    in_flight: int
    delayed: int


@dataclass(frozen=True, slots=True)
class Function:
    """`state` and `last_update` are Lambda's: Active, Successful and others."""

    name: str
    state: str
    last_update: str


@dataclass(frozen=True, slots=True)
class Health:
    """A moment of the pipeline. `problems` is empty when all is well."""

    at: datetime
    queues: tuple[Depth, ...]
    uploaded_last_hour: int
    needs_attention: int
    functions: tuple[Function, ...]
    writer_mapping: str  # State of the event source mapping: Enabled, Disabled ...; `missing`
    alarms_ringing: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """The names of what is looked at."""

    table: str
    metadata_queue_url: str
    dead_letter_queues: Sequence[Queue]
    processor_function: str
    writer_function: str
    name_prefix: str
    shards: int


def look(
    sqs: "SQSClient",
    dynamodb: "DynamoDBClient",
    lambda_: "LambdaClient",
    cloudwatch: "CloudWatchClient",
    parts: Parts,
    *,
    now: float,
) -> Health:
    """Looks at everything side by side."""
    names = (parts.processor_function, parts.writer_function)
    with ThreadPoolExecutor(8) as pool:
        depths = pool.map(lambda one: _depth(sqs, *one), _queues(parts))
        uploaded = pool.submit(_count, dynamodb, parts, Criteria(since=datetime.fromtimestamp(now, UTC) - RECENT), now)
        attention = pool.submit(_count, dynamodb, parts, Criteria(status=Status.FAILED), now)
        functions = pool.map(lambda name: _function(lambda_, name), names)
        mapping = pool.submit(writer_mapping_state, lambda_, parts.writer_function)
        alarms = pool.submit(_ringing, cloudwatch, parts.name_prefix)
        found = Health(
            at=datetime.fromtimestamp(now, UTC),
            queues=tuple(depths),
            uploaded_last_hour=uploaded.result(),
            needs_attention=attention.result(),
            functions=tuple(functions),
            writer_mapping=mapping.result(),
            alarms_ringing=alarms.result(),
            problems=(),
        )
    return _judged(found)


def _judged(health: Health) -> Health:
    problems = [
        f"{depth.waiting + depth.in_flight} in {depth.queue}: imgpipe dlq list"
        for depth in health.queues
        if depth.queue != "metadata" and depth.waiting + depth.in_flight
    ]
    problems += [
        f"{function.name} is {function.state}, {function.last_update}: imgpipe doctor"
        for function in health.functions
        # Inactive is a function that nobody called for weeks; Lambda wakes it with the next event.
        if function.state not in ("Active", "Inactive") or function.last_update == "Failed"
    ]
    if health.writer_mapping not in ("Enabled", "Updating", "Enabling"):
        problems.append(f"db_writer is not fed: its event source mapping is {health.writer_mapping}: imgpipe doctor")
    problems += [f"alarm {name} rings" for name in health.alarms_ringing]
    return replace(health, problems=tuple(problems))


def _queues(parts: Parts) -> list[tuple[str, str]]:
    suffix = {Stage.IMAGE_PROCESSOR: "image-dlq", Stage.DB_WRITER: "metadata-dlq"}
    return [
        ("metadata", parts.metadata_queue_url),
        *((suffix[queue.stage], queue.url) for queue in parts.dead_letter_queues),
    ]


def _depth(sqs: "SQSClient", name: str, url: str) -> Depth:
    return Depth(name, *counts(sqs, Queue(Stage.DB_WRITER, url)))


def _count(dynamodb: "DynamoDBClient", parts: Parts, criteria: Criteria, now: float) -> int:
    plan = queries.plan(criteria, now, shards=parts.shards)
    return metadata.count(dynamodb, parts.table, plan, criteria, metadata.Cost())


def _function(lambda_: "LambdaClient", name: str) -> Function:
    answer = lambda_.get_function_configuration(FunctionName=name)
    return Function(name, answer.get("State", "Active"), answer.get("LastUpdateStatus", "Successful"))


def writer_mapping_state(lambda_: "LambdaClient", function: str) -> str:
    """The state of the mapping that feeds a function; `missing` when there is none."""
    mappings = lambda_.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    return mappings[0].get("State", "Enabled") if mappings else "missing"


def _ringing(cloudwatch: "CloudWatchClient", prefix: str) -> tuple[str, ...]:
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{prefix}-")
    return tuple(
        alarm["AlarmName"]
        for page in pages
        for alarm in page.get("MetricAlarms", [])
        if alarm.get("StateValue") == "ALARM"
    )
