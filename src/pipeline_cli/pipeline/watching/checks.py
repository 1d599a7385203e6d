"""What `imgpipe doctor` looks at: whether the parts of a deployment are there, on, and wired to each other.

Each check only reads. What AWS does not let us see is `unknown`, never `fail`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline_contract.item import FORMAT_INDEX, STATUS_INDEX, UPLOAD_DATE_INDEX

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

DEPLOY = "imgpipe deploy"


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `fix` is what to do about it, as a command where there is one."""

    check: str
    verdict: Verdict
    detail: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Clients:
    s3: "S3Client"
    sqs: "SQSClient"
    dynamodb: "DynamoDBClient"
    lambda_: "LambdaClient"
    cloudwatch: "CloudWatchClient"
    logs: "CloudWatchLogsClient"
    sns: "SNSClient"
    sts: "STSClient"


@dataclass(frozen=True, slots=True)
class Names:
    """What the deployment says that its parts are called."""

    upload_bucket: str
    thumbnail_bucket: str
    table: str
    metadata_queue_url: str
    metadata_dlq_url: str
    image_dlq_url: str
    processor: str
    writer: str
    prefix: str
    alarm_topic_arn: str | None


Findings = Iterator[Check]


def examine(clients: Clients, names: Names) -> Iterator[Check]:
    """Every check, one after the other; a check that AWS does not answer is unknown."""
    checks: tuple[tuple[str, Callable[[Clients, Names], Findings]], ...] = (
        ("credentials", _credentials),
        ("buckets", _buckets),
        ("upload event", _notification),
        ("invoke permission", _permission),
        ("image_processor", _processor),
        ("retries of image_processor", _destination),
        ("db_writer", _writer),
        ("feed of db_writer", _mapping),
        ("metadata queue", _metadata_queue),
        ("dead letters", _dead_letters),
        ("table", _table),
        ("alarms", _alarms),
        ("logs", _logs),
    )
    for name, check in checks:
        yield from _guarded(name, check, clients, names)


def _guarded(name: str, check: Callable[[Clients, Names], Findings], clients: Clients, names: Names) -> Findings:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = list(check(clients, names))
        failed = any(one.verdict is Verdict.FAIL for one in found)
        yield from (one for one in found if not (failed and one.verdict is Verdict.OK))
    except ClientError as error:
        said = error.response.get("Error", {})
        code = str(said.get("Code", ""))
        if code in _GONE:
            yield Check(
                name, Verdict.FAIL, f"{error.operation_name}: {said.get('Message') or 'it is not there'}", DEPLOY
            )
        else:
            yield Check(name, Verdict.UNKNOWN, f"{error.operation_name}: {code} {said.get('Message', '')}".strip())
    except BotoCoreError as error:
        yield Check(name, Verdict.UNKNOWN, str(error))


_GONE = {
    "404",
    "NoSuchBucket",
    "ResourceNotFoundException",
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
    "NotFound",
    "NotFoundException",
}


def _credentials(clients: Clients, _names: Names) -> Findings:
    who = clients.sts.get_caller_identity()
    yield Check("credentials", Verdict.OK, str(who["Arn"]))


def _buckets(clients: Clients, names: Names) -> Findings:
    for bucket in (names.upload_bucket, names.thumbnail_bucket):
        clients.s3.head_bucket(Bucket=bucket)
    versioning = clients.s3.get_bucket_versioning(Bucket=names.upload_bucket).get("Status", "off")
    yield Check("buckets", Verdict.OK, f"both are there; versioning of uploads is {versioning}")


def _notification(clients: Clients, names: Names) -> Findings:
    answer: Mapping[str, Any] = clients.s3.get_bucket_notification_configuration(Bucket=names.upload_bucket)
    ours = [
        one
        for one in answer.get("LambdaFunctionConfigurations", [])
        if _function_of(one["LambdaFunctionArn"]) == names.processor
    ]
    if not ours:
        others = [one["LambdaFunctionArn"] for one in answer.get("LambdaFunctionConfigurations", [])]
        detail = f"the bucket tells {', '.join(others)} instead" if others else "the bucket tells nobody of uploads"
        yield Check(
            "upload event",
            Verdict.FAIL,
            f"{detail}; images uploaded meanwhile wait for a repair",
            f"{DEPLOY}, then imgpipe reconcile --repair",
        )
        return
    events = {event for one in ours for event in one["Events"]}
    for needed, what in (("s3:ObjectCreated:", "uploads"), ("s3:ObjectRemoved:", "deletions")):
        if not any(event.startswith(needed) for event in events):
            yield Check("upload event", Verdict.FAIL, f"the processor is not told of {what}", DEPLOY)
    if not any(event.startswith("s3:LifecycleExpiration:") for event in events):
        yield Check("upload event", Verdict.WARN, "the processor is not told of expired objects", DEPLOY)
    for one in ours:
        if rules := one.get("Filter", {}).get("Key", {}).get("FilterRules"):
            shown = ", ".join(f"{rule['Name']} {rule['Value']}" for rule in rules)
            yield Check("upload event", Verdict.WARN, f"only keys with {shown} are processed", DEPLOY)
    yield Check("upload event", Verdict.OK, ", ".join(sorted(events)))


def _permission(clients: Clients, names: Names) -> Findings:
    policy = json.loads(clients.lambda_.get_policy(FunctionName=names.processor)["Policy"])
    for statement in policy.get("Statement", []):
        text = json.dumps(statement)
        if statement.get("Effect") == "Allow" and "s3.amazonaws.com" in text and _allows(statement, names):
            yield Check("invoke permission", Verdict.OK, f"S3 may invoke {names.processor} for {names.upload_bucket}")
            return
    yield Check("invoke permission", Verdict.FAIL, f"S3 may not invoke {names.processor}", DEPLOY)


def _allows(statement: Mapping[str, Any], names: Names) -> bool:
    condition = json.dumps(statement.get("Condition", {}))
    return "SourceArn" not in condition or f":::{names.upload_bucket}" in condition


def _processor(clients: Clients, names: Names) -> Findings:
    expected = {
        "THUMBNAIL_BUCKET": names.thumbnail_bucket,
        "METADATA_QUEUE": names.metadata_queue_url,
        "IMAGE_DLQ": names.image_dlq_url,
    }
    yield from _function(clients, "image_processor", names.processor, expected)


def _writer(clients: Clients, names: Names) -> Findings:
    expected = {"DYNAMODB_TABLE": names.table, "METADATA_DLQ": names.metadata_dlq_url}
    yield from _function(clients, "db_writer", names.writer, expected)


def _function(clients: Clients, name: str, function: str, expected: Mapping[str, str]) -> Findings:
    found: Mapping[str, Any] = clients.lambda_.get_function_configuration(FunctionName=function)
    state, update = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
    if state not in ("Active", "Inactive") or update == "Failed":
        reason = found.get("StateReason") or found.get("LastUpdateStatusReason") or ""
        yield Check(name, Verdict.FAIL, f"{function} is {state}, last update {update} {reason}".rstrip(), DEPLOY)
        return
    environment = found.get("Environment", {}).get("Variables", {})
    for variable, value in expected.items():
        if _last(environment.get(variable, "")) != _last(value):
            detail = f"{variable} of {function} is {environment.get(variable)!r}, not {value!r}"
            yield Check(name, Verdict.FAIL, detail, DEPLOY)
            return
    shape = f"{found.get('Runtime')}, {found.get('MemorySize')} MB, {found.get('Timeout')} s"
    yield Check(name, Verdict.OK, f"{function} is {state}: {shape}")


def _destination(clients: Clients, names: Names) -> Findings:
    from botocore.exceptions import ClientError

    name = "retries of image_processor"
    try:
        found: Mapping[str, Any] = clients.lambda_.get_function_event_invoke_config(FunctionName=names.processor)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "ResourceNotFoundException":
            raise
        found = {}
    target = found.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", "")
    if _last(target) != _last(names.image_dlq_url):
        detail = f"events that fail for good go to {target or 'nowhere'}, not to the image dead-letter queue"
        yield Check(name, Verdict.FAIL, f"{detail}: they are lost", DEPLOY)
        return
    retries = found.get("MaximumRetryAttempts", 2)
    if retries == 0:
        yield Check(name, Verdict.WARN, "a throttle or a fault of the network is not tried again", DEPLOY)
    yield Check(name, Verdict.OK, f"{retries} retries, then {_last(target)}")


def _mapping(clients: Clients, names: Names) -> Findings:
    name = "feed of db_writer"
    mappings: list[Mapping[str, Any]] = [
        one
        for one in clients.lambda_.list_event_source_mappings(FunctionName=names.writer)["EventSourceMappings"]
        if _last(one.get("EventSourceArn", "")) == _last(names.metadata_queue_url)
    ]
    if not mappings:
        yield Check(name, Verdict.FAIL, "nothing takes messages from the metadata queue", DEPLOY)
        return
    found = mappings[0]
    state = found.get("State", "Enabled")
    if state not in ("Enabled", "Updating", "Enabling"):
        reason = found.get("StateTransitionReason", "")
        fix = f"aws lambda update-event-source-mapping --uuid {found.get('UUID')} --enabled"
        yield Check(name, Verdict.FAIL, f"the event source mapping is {state} {reason}".rstrip(), fix)
    if "ReportBatchItemFailures" not in found.get("FunctionResponseTypes", []):
        detail = "without ReportBatchItemFailures one bad message brings its whole batch back"
        yield Check(name, Verdict.FAIL, detail, DEPLOY)
    result = str(found.get("LastProcessingResult", "") or "")
    if "PROBLEM" in result.upper():
        yield Check(name, Verdict.FAIL, f"the last batch: {result}", "imgpipe logs writer --errors --since 1h")
    yield Check(name, Verdict.OK, f"{state}, batches of {found.get('BatchSize')}")


def _metadata_queue(clients: Clients, names: Names) -> Findings:
    name = "metadata queue"
    queue = _attributes(clients, names.metadata_queue_url)
    dead = _attributes(clients, names.metadata_dlq_url)
    policy = json.loads(queue.get("RedrivePolicy", "{}"))
    if _last(policy.get("deadLetterTargetArn", "")) != _last(names.metadata_dlq_url):
        yield Check(name, Verdict.FAIL, "messages that cannot be written go to no dead-letter queue", DEPLOY)
    timeout = clients.lambda_.get_function_configuration(FunctionName=names.writer).get("Timeout", 3)
    hidden = int(queue.get("VisibilityTimeout", "30"))
    # Lambda, "Configuring a queue to use with Lambda": at least six times the function's timeout.
    if hidden < 6 * timeout:
        detail = f"messages are hidden for {hidden} s, less than six times db_writer's timeout of {timeout} s"
        yield Check(name, Verdict.WARN, f"{detail}: some are written twice", DEPLOY)
    # A message keeps its age when it moves to the dead-letter queue.
    keeps, dead_keeps = int(queue.get("MessageRetentionPeriod", "345600")), int(dead.get("MessageRetentionPeriod", "0"))
    if dead_keeps <= keeps:
        detail = "the dead-letter queue keeps messages no longer than the queue does: old ones vanish at once"
        yield Check(name, Verdict.FAIL, detail, DEPLOY)
    receives = policy.get("maxReceiveCount")
    yield Check(name, Verdict.OK, f"hidden for {hidden} s, {receives} receives, kept for {keeps // 86400} days")


def _dead_letters(clients: Clients, names: Names) -> Findings:
    for url in (names.image_dlq_url, names.metadata_dlq_url):
        attributes = _attributes(clients, url)
        held = int(attributes.get("ApproximateNumberOfMessages", "0"))
        if held:
            yield Check("dead letters", Verdict.WARN, f"{held} in {_last(url)}", "imgpipe dlq list --group")
        else:
            yield Check("dead letters", Verdict.OK, f"none in {_last(url)}")


def _table(clients: Clients, names: Names) -> Findings:
    found: Mapping[str, Any] = clients.dynamodb.describe_table(TableName=names.table)["Table"]
    if found["TableStatus"] not in ("ACTIVE", "UPDATING"):
        yield Check("table", Verdict.FAIL, f"{names.table} is {found['TableStatus']}", DEPLOY)
    indexes = {one["IndexName"]: one.get("IndexStatus", "ACTIVE") for one in found.get("GlobalSecondaryIndexes", [])}
    for index in (UPLOAD_DATE_INDEX, FORMAT_INDEX, STATUS_INDEX):
        if indexes.get(index) != "ACTIVE":
            detail = f"index {index} is {indexes.get(index, 'missing')}: imgpipe meta query cannot use it"
            yield Check("table", Verdict.FAIL, detail, DEPLOY)
    ttl: Mapping[str, Any] = clients.dynamodb.describe_time_to_live(TableName=names.table)
    if ttl.get("TimeToLiveDescription", {}).get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
        yield Check("table", Verdict.WARN, "tombstones of deleted images never expire: time to live is off", DEPLOY)
    yield Check("table", Verdict.OK, f"{names.table} is {found['TableStatus']}, indexes {', '.join(sorted(indexes))}")


def _alarms(clients: Clients, names: Names) -> Findings:
    answer = clients.cloudwatch.describe_alarms(AlarmNamePrefix=f"{names.prefix}-")
    alarms = {alarm["AlarmName"]: alarm for alarm in answer["MetricAlarms"]}
    for queue in (names.image_dlq_url, names.metadata_dlq_url):
        if f"{_last(queue)}-not-empty" not in alarms:
            yield Check("alarms", Verdict.WARN, f"no alarm watches {_last(queue)} (enable_monitoring)", DEPLOY)
    ringing = [name for name, alarm in alarms.items() if alarm.get("StateValue") == "ALARM"]
    for name in ringing:
        yield Check("alarms", Verdict.WARN, f"{name} rings", "imgpipe status")
    if names.alarm_topic_arn:
        told = clients.sns.list_subscriptions_by_topic(TopicArn=names.alarm_topic_arn)["Subscriptions"]
        if not told:
            fix = f"aws sns subscribe --topic-arn {names.alarm_topic_arn} --protocol email --notification-endpoint YOU"
            yield Check("alarms", Verdict.WARN, "nobody is told when an alarm rings: the topic has no subscriber", fix)
    if not ringing:
        yield Check("alarms", Verdict.OK, f"{len(alarms)} alarms, none rings")


def _logs(clients: Clients, names: Names) -> Findings:
    for function in (names.processor, names.writer):
        group = f"/aws/lambda/{function}"
        found = clients.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
        ours = [one for one in found if one["logGroupName"] == group]
        if not ours:
            yield Check("logs", Verdict.WARN, f"{group} does not exist yet", DEPLOY)
        elif "retentionInDays" not in ours[0]:
            yield Check("logs", Verdict.WARN, f"{group} is kept for ever, and paid for", DEPLOY)
        else:
            yield Check("logs", Verdict.OK, f"{group} is kept for {ours[0]['retentionInDays']} days")


def _attributes(clients: Clients, url: str) -> Mapping[str, str]:
    answer: Mapping[str, Any] = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return dict(answer["Attributes"])


def _last(name: str) -> str:
    """What a URL and an ARN of a queue have in common: the name."""
    return name.rsplit("/", 1)[-1].rsplit(":", 1)[-1]


def _function_of(arn: str) -> str:
    """`arn:aws:lambda:region:account:function:name[:qualifier]` to its name."""
    return arn.split(":")[6] if arn.count(":") >= 6 else arn
