"""The conditional write: of two states of an item the newer one stays, whatever the order in which they come.

With sequencers, S3's own order decides. Where a state has none (a lifecycle event, a replayed listing) the times do:
the event's on one side, that of the look at the bucket on the other.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from db_writer.items import Write
from pipeline_contract.aws_failures import error_code
from pipeline_contract.failures import FailureCode, PipelineError
from pipeline_contract.item import KEY, Status


class WriteOutcome(StrEnum):
    """What a write did. All three are successes."""

    WRITTEN = "WRITTEN"
    DUPLICATE = "DUPLICATE"  # the item is of this very event
    STALE = "STALE"  # the item is of a newer one


@dataclass(frozen=True, slots=True)
class Condition:
    expression: str
    names: dict[str, str]
    values: dict[str, dict[str, Any]]


def condition(write: Write) -> Condition:
    """When `write` may replace what is there."""
    clauses = [f"attribute_not_exists({KEY})"]
    names: dict[str, str] = {}
    values: dict[str, dict[str, Any]] = {}
    repairs = write.status is not Status.FAILED
    if write.only_if_absent:
        return Condition(clauses[0], names, values)
    values[":at"] = {"S": write.as_of}
    if write.sequencer is None:
        clauses.append("attribute_not_exists(asOf) OR asOf < :at")
    else:
        values[":sequencer"] = {"S": write.sequencer}
        clauses += [
            "sequencer < :sequencer",
            "(attribute_not_exists(sequencer) AND (attribute_not_exists(asOf) OR asOf < :at))",
        ]
        if repairs:
            # FAILED is repaired by its own event (a redrive), an equal state only when an operator asked for it.
            failed = "" if write.reprocess else " AND #status = :failed"
            clauses.append(f"(sequencer = :sequencer{failed})")
            if write.e_tag is not None:
                clauses.append("(attribute_not_exists(sequencer) AND #status = :failed AND eTag = :etag)")
                values[":etag"] = {"S": write.e_tag}
            if not write.reprocess or write.e_tag is not None:
                names["#status"] = "status"  # a reserved word
                values[":failed"] = {"S": Status.FAILED}
    return Condition(" OR ".join(clauses), names, values)


def settles(done: Write, other: Write) -> bool:
    """Whether, once `done` was written or refused, `other` would surely be refused. `done` has the higher rank."""
    if done.sequencer is None or other.sequencer is None:
        return False
    if other.sequencer != done.sequencer:
        return other.sequencer < done.sequencer
    return not other.reprocess or done.reprocess


def update(dynamodb: Any, table: str, write: Write) -> WriteOutcome:
    """Put the state if it is the newer one: one round trip, `createdAt` kept."""
    only_if = condition(write)
    sets = [f"#{index} = :{index}" for index in range(len(write.attributes))]
    names = {f"#{index}": name for index, name in enumerate(write.attributes)}
    values = {f":{index}": value for index, value in enumerate(write.attributes.values())}
    removes = {f"#r{index}": name for index, name in enumerate(sorted(write.removed))}
    created = "createdAt = if_not_exists(createdAt, :created)"
    expression = f"SET {', '.join([*sets, created])}" + (f" REMOVE {', '.join(removes)}" if removes else "")
    try:
        dynamodb.update_item(
            TableName=table,
            Key={KEY: {"S": write.image_id}},
            UpdateExpression=expression,
            ConditionExpression=only_if.expression,
            ExpressionAttributeNames=names | removes | only_if.names,
            ExpressionAttributeValues=values | only_if.values | {":created": write.attributes["updatedAt"]},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ClientError as error:
        code = error_code(error)
        if code == "ConditionalCheckFailedException":
            return _refused(write, error.response.get("Item"))
        if code == "ValidationException":
            raise _refusal(error) from error
        raise
    return WriteOutcome.WRITTEN


def _refused(write: Write, there: Any) -> WriteOutcome:
    there = there or {}
    same = (
        there.get("sequencer", {}).get("S") == write.sequencer
        if write.sequencer is not None
        else there.get("asOf", {}).get("S") == write.as_of
    )
    return WriteOutcome.DUPLICATE if same or write.only_if_absent else WriteOutcome.STALE


def _refusal(error: ClientError) -> PipelineError:
    """Asking again gives the same answer: what is wrong is the item."""
    message = str(error)
    large = "size" in message.lower() and "exceeded" in message.lower()
    code = FailureCode.ITEM_TOO_LARGE if large else FailureCode.MESSAGE_MALFORMED
    return PipelineError(code, f"DynamoDB refuses the item: {message}"[:300])
