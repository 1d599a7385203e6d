"""Reading the images table: one item by its key, many by the index that fits, never a scan unasked.

GSIs are eventually consistent: an item may show a moment after it was written.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline_cli.pipeline.queries import Criteria, Plan
from pipeline_contract.item import KEY

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, Any]
MAX_AHEAD = 8  # partitions asked for at once while they turn out empty
BATCH_GET = 100  # DynamoDB, BatchGetItem


@dataclass(slots=True)
class Cost:
    """What a query took, counted while it runs. Read capacity units as DynamoDB reported them."""

    queries: int = 0
    items_read: int = 0
    read_capacity_units: float = 0.0

    def add(self, answer: Mapping[str, Any]) -> None:
        self.queries += 1
        self.items_read += answer.get("ScannedCount", 0)
        self.read_capacity_units += answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a query was answered."""

    access: str  # query | scan
    index: str | None
    key_condition: str | None
    partitions: int
    filtered_by: tuple[str, ...]
    queries: int
    items_read: int
    items_matched: int
    read_capacity_units: float
    searched_back_to: str | None = None  # where an unbounded query stopped to look


def get(dynamodb: "DynamoDBClient", table: str, image_id: str) -> Item | None:
    """The item of an image, read consistently; None when there is none."""
    answer = dynamodb.get_item(TableName=table, Key={KEY: {"S": image_id}}, ConsistentRead=True)
    return item_of(answer["Item"]) if answer.get("Item") else None


def get_many(dynamodb: "DynamoDBClient", table: str, image_ids: Sequence[str]) -> dict[str, Item]:
    """The items of many images by id; those that have none are left out."""
    found: dict[str, Item] = {}
    wanted = list(dict.fromkeys(image_ids))
    for start in range(0, len(wanted), BATCH_GET):
        request: Any = {table: {"Keys": [{KEY: {"S": one}} for one in wanted[start : start + BATCH_GET]]}}
        while request:
            answer = dynamodb.batch_get_item(RequestItems=request)
            for raw in answer["Responses"].get(table, []):
                item = item_of(raw)
                found[item[KEY]] = item
            request = answer.get("UnprocessedKeys")
    return found


def run(dynamodb: "DynamoDBClient", table: str, plan: Plan, criteria: Criteria, cost: Cost) -> Iterator[Item]:
    """The items that fit, as the plan reads them: newest first from an index, in no order from a scan.

    Reads a page when its first item is asked for, so what is not consumed is not paid for.
    """
    items = _scan(dynamodb, table, cost) if plan.index is None else _query_all(dynamodb, table, plan, criteria, cost)
    fitting = (item for item in items if criteria.matches(item))
    return islice(fitting, criteria.limit) if criteria.limit else fitting


def count(dynamodb: "DynamoDBClient", table: str, plan: Plan, criteria: Criteria, cost: Cost) -> int:
    """How many items fit. Where the index answers alone, DynamoDB counts and no item travels."""
    if plan.index is None or plan.filtered_by:
        return sum(1 for _ in run(dynamodb, table, plan, replace(criteria, limit=None), cost))
    total = 0
    for group in plan.partitions:
        for partition in group:
            request: dict[str, Any] = {**_request(table, plan, partition), "Select": "COUNT"}
            while True:
                answer: Any = dynamodb.query(**request)
                cost.add(answer)
                total += answer["Count"]
                if not answer.get("LastEvaluatedKey"):
                    break
                request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
    return total


def explanation(plan: Plan, cost: Cost, matched: int) -> Explanation:
    return Explanation(
        access="scan" if plan.index is None else "query",
        index=plan.index,
        key_condition=plan.key_condition,
        partitions=sum(len(group) for group in plan.partitions),
        filtered_by=plan.filtered_by,
        queries=cost.queries,
        items_read=cost.items_read,
        items_matched=matched,
        read_capacity_units=cost.read_capacity_units,
        searched_back_to=plan.searched_back_to,
    )


def item_of(raw: Mapping[str, Any]) -> Item:
    """A DynamoDB item as plain Python: numbers are int or float."""
    from boto3.dynamodb.types import TypeDeserializer

    read = TypeDeserializer().deserialize
    return {name: _plain(read(value)) for name, value in raw.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


@dataclass(slots=True)
class _Partition:
    """One partition of an index while it is read: the first page, then the others as they are needed."""

    dynamodb: "DynamoDBClient"
    request: dict[str, Any]
    cost: Cost
    page: list[Item] = field(default_factory=list)
    more: bool = True

    def fetch(self) -> Mapping[str, Any]:
        answer: Any = self.dynamodb.query(**self.request)
        self.page = [item_of(raw) for raw in answer["Items"]]
        self.more = bool(answer.get("LastEvaluatedKey"))
        self.request["ExclusiveStartKey"] = answer.get("LastEvaluatedKey")
        return answer  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Item]:
        yield from self.page
        while self.more:
            self.cost.add(self.fetch())
            yield from self.page


def _query_all(dynamodb: "DynamoDBClient", table: str, plan: Plan, criteria: Criteria, cost: Cost) -> Iterator[Item]:
    """Walks back through the partitions. One group (the shards of a day) at a time, more while they are empty."""
    page_size = None
    if criteria.limit:
        page_size = criteria.limit if not plan.filtered_by else max(100, 4 * criteria.limit)
    at, ahead = 0, 1
    with ThreadPoolExecutor(MAX_AHEAD) as pool:
        while at < len(plan.partitions):
            groups = [
                [_Partition(dynamodb, _request(table, plan, partition, page_size), cost) for partition in group]
                for group in plan.partitions[at : at + ahead]
            ]
            at += len(groups)
            for answer in pool.map(_Partition.fetch, [partition for group in groups for partition in group]):
                cost.add(answer)
            empty = True
            for group in groups:
                for item in heapq.merge(*group, key=lambda item: str(item.get(plan.sort_key, "")), reverse=True):
                    empty = False
                    yield item
            ahead = min(MAX_AHEAD, ahead * 2) if empty else 1


def _request(table: str, plan: Plan, partition: str, page_size: int | None = None) -> dict[str, Any]:
    names = {"#p": plan.partition_key}
    values = {":p": {"S": partition}}
    condition = "#p = :p"
    if plan.since or plan.until:
        names["#s"] = plan.sort_key
        if plan.since:
            values[":a"] = {"S": plan.since}
        if plan.until:
            values[":b"] = {"S": plan.until}
        both = plan.since and plan.until
        condition += " AND #s BETWEEN :a AND :b" if both else " AND #s >= :a" if plan.since else " AND #s <= :b"
    request: dict[str, Any] = {
        "TableName": table,
        "IndexName": plan.index,
        "KeyConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
        "ScanIndexForward": False,
        "ReturnConsumedCapacity": "TOTAL",
    }
    return request if page_size is None else {**request, "Limit": page_size}


def _scan(dynamodb: "DynamoDBClient", table: str, cost: Cost) -> Iterator[Item]:
    request: dict[str, Any] = {"TableName": table, "ReturnConsumedCapacity": "TOTAL"}
    while True:
        answer: Any = dynamodb.scan(**request)
        cost.add(answer)
        for raw in answer["Items"]:
            yield item_of(raw)
        if not answer.get("LastEvaluatedKey"):
            return
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
