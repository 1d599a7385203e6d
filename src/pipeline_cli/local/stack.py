"""The pipeline's resources in the emulator: what `terraform/` creates on AWS, without roles and policies, in seconds.

Everything here can be run again on what is already there.
"""

import base64
import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline_cli.pipeline.packaging import code_zip
from pipeline_contract import item
from pipeline_contract.codec import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from pipeline_cli.aws import Clients

THUMBNAIL_SIZE = 200  # as Terraform's variable thumbnail_size
LOG_RETENTION_DAYS = 365
UPLOAD_DAY_SHARDS = 1
RUNTIME = "python3.13"  # runs on the Python of this machine, whatever this says
MAX_RECEIVES = 5
RETENTION_SECONDS = 345_600  # four days
DLQ_RETENTION_SECONDS = 1_209_600  # 14 days, the longest there is
BATCH_SIZE = 10
BATCH_WINDOW_SECONDS = 1
WRITER_TIMEOUT_SECONDS = 30
# AWS: at least six times the function's timeout, plus the batching window.
VISIBILITY_SECONDS = 6 * WRITER_TIMEOUT_SECONDS + BATCH_WINDOW_SECONDS
EVENTS = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*")


@dataclass(frozen=True, slots=True)
class Names:
    """What Terraform calls the resources of a deployment with the prefix `prefix`."""

    prefix: str
    account: str
    region: str

    @property
    def upload_bucket(self) -> str:
        return f"{self.prefix}-uploads-{self.account}"

    @property
    def thumbnail_bucket(self) -> str:
        return f"{self.prefix}-thumbnails-{self.account}"

    @property
    def table(self) -> str:
        return f"{self.prefix}-images"

    @property
    def processor(self) -> str:
        return f"{self.prefix}-image-processor"

    @property
    def writer(self) -> str:
        return f"{self.prefix}-db-writer"

    def queue(self, suffix: str) -> str:
        return f"{self.prefix}-{suffix}"

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


def create_stack(clients: "Clients", *, prefix: str, account: str, region: str) -> dict[str, str]:
    """Create or update every resource; returns the outputs by their Terraform names."""
    names = Names(prefix, account, region)
    _buckets(clients, names)
    queues = _queues(clients, names)
    _table(clients, names)
    _functions(clients, names, queues)
    _event_source(clients, names)
    _notification(clients, names)
    topic = _alarms(clients, names)
    return {
        "upload_bucket_name": names.upload_bucket,
        "upload_bucket_arn": f"arn:aws:s3:::{names.upload_bucket}",
        "thumbnail_bucket_name": names.thumbnail_bucket,
        "metadata_queue_url": queues["metadata"],
        "dlq_url": queues["metadata-dlq"],
        "image_dlq_url": queues["image-dlq"],
        "dynamodb_table_name": names.table,
        "image_processor_function_name": names.processor,
        "db_writer_function_name": names.writer,
        "alarm_topic_arn": topic,
        "upload_day_shards": str(UPLOAD_DAY_SHARDS),
        "aws_region": region,
        "name_prefix": prefix,
    }


def _buckets(clients: "Clients", names: Names) -> None:
    for bucket in (names.upload_bucket, names.thumbnail_bucket):
        clients.s3.create_bucket(Bucket=bucket)
        clients.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        clients.s3.put_public_access_block(
            Bucket=bucket,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )


def _queues(clients: "Clients", names: Names) -> dict[str, str]:
    """Queue URLs by the suffix of the queue's name."""
    size = {"MaximumMessageSize": str(MAX_MESSAGE_BYTES)}
    dead_letters = {**size, "MessageRetentionPeriod": str(DLQ_RETENTION_SECONDS)}
    redrive = {
        "deadLetterTargetArn": names.arn("sqs", names.queue("metadata-dlq")),
        "maxReceiveCount": MAX_RECEIVES,
    }
    attributes: dict[str, Any] = {
        "image-dlq": dead_letters,
        "metadata-dlq": dead_letters,
        "metadata": {
            **size,
            "VisibilityTimeout": str(VISIBILITY_SECONDS),
            "MessageRetentionPeriod": str(RETENTION_SECONDS),
            "ReceiveMessageWaitTimeSeconds": "20",
            "RedrivePolicy": json.dumps(redrive),
        },
    }
    urls = {}
    for suffix, wanted in attributes.items():
        # Without attributes: a queue that is there with others would be refused.
        urls[suffix] = clients.sqs.create_queue(QueueName=names.queue(suffix))["QueueUrl"]
        clients.sqs.set_queue_attributes(QueueUrl=urls[suffix], Attributes=wanted)
    return urls


def _table(clients: "Clients", names: Names) -> None:
    indexes = {
        item.UPLOAD_DATE_INDEX: ("uploadDay", "uploadDate"),
        item.FORMAT_INDEX: ("formatMonth", "uploadDate"),
        item.STATUS_INDEX: ("attention", "updatedAt"),
    }
    attributes = sorted({item.KEY, *(name for keys in indexes.values() for name in keys)})
    try:
        clients.dynamodb.create_table(
            TableName=names.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in attributes],
            KeySchema=[{"AttributeName": item.KEY, "KeyType": "HASH"}],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": index,
                    "KeySchema": [
                        {"AttributeName": partition, "KeyType": "HASH"},
                        {"AttributeName": order, "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }
                for index, (partition, order) in indexes.items()
            ],
        )
    except clients.dynamodb.exceptions.ResourceInUseException:
        return
    clients.dynamodb.update_time_to_live(
        TableName=names.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
    )


def _functions(clients: "Clients", names: Names, queues: Mapping[str, str]) -> None:
    processor = {
        "THUMBNAIL_BUCKET": names.thumbnail_bucket,
        "THUMBNAIL_SIZE": str(THUMBNAIL_SIZE),
        "THUMBNAIL_FORMAT": "JPEG",
        "GPS_POLICY": "none",
        "METADATA_QUEUE": queues["metadata"],
        "IMAGE_DLQ": queues["image-dlq"],
    }
    writer = {
        "DYNAMODB_TABLE": names.table,
        "METADATA_DLQ": queues["metadata-dlq"],
        "METADATA_MAX_RECEIVES": str(MAX_RECEIVES),
        "UPLOAD_DAY_SHARDS": str(UPLOAD_DAY_SHARDS),
    }
    _function(clients, names, names.processor, "image_processor", processor, timeout=60, memory=1769)
    _function(clients, names, names.writer, "db_writer", writer, timeout=WRITER_TIMEOUT_SECONDS, memory=256)
    clients.lambda_.put_function_event_invoke_config(
        FunctionName=names.processor,
        MaximumRetryAttempts=2,
        MaximumEventAgeInSeconds=21_600,
        DestinationConfig={"OnFailure": {"Destination": names.arn("sqs", names.queue("image-dlq"))}},
    )


def _function(
    clients: "Clients",
    names: Names,
    function: str,
    package: str,
    environment: Mapping[str, str],
    *,
    timeout: int,
    memory: int,
) -> None:
    code = code_zip(package)
    settings: dict[str, Any] = {
        "FunctionName": function,
        "Runtime": RUNTIME,
        "Handler": f"{package}.handler.lambda_handler",
        "Role": f"arn:aws:iam::{names.account}:role/{function}",
        "Timeout": timeout,
        "MemorySize": memory,
        "Environment": {"Variables": dict(environment)},
    }
    try:
        there = clients.lambda_.get_function_configuration(FunctionName=function)
    except clients.lambda_.exceptions.ResourceNotFoundException:
        clients.lambda_.create_function(**settings, Code={"ZipFile": code})
    else:
        clients.lambda_.update_function_configuration(**settings)
        if there["CodeSha256"] != base64.b64encode(hashlib.sha256(code).digest()).decode():
            clients.lambda_.update_function_code(FunctionName=function, ZipFile=code)
    log_group = f"/aws/lambda/{function}"
    with contextlib.suppress(clients.logs.exceptions.ResourceAlreadyExistsException):
        clients.logs.create_log_group(logGroupName=log_group)
    clients.logs.put_retention_policy(logGroupName=log_group, retentionInDays=LOG_RETENTION_DAYS)


def _event_source(clients: "Clients", names: Names) -> None:
    source = names.arn("sqs", names.queue("metadata"))
    settings: dict[str, Any] = {
        "FunctionName": names.writer,
        "BatchSize": BATCH_SIZE,
        "MaximumBatchingWindowInSeconds": BATCH_WINDOW_SECONDS,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": 10},
    }
    there = clients.lambda_.list_event_source_mappings(EventSourceArn=source)["EventSourceMappings"]
    if there:
        clients.lambda_.update_event_source_mapping(UUID=there[0]["UUID"], Enabled=True, **settings)
    else:
        clients.lambda_.create_event_source_mapping(EventSourceArn=source, **settings)


def _notification(clients: "Clients", names: Names) -> None:
    with contextlib.suppress(clients.lambda_.exceptions.ResourceConflictException):
        clients.lambda_.add_permission(
            FunctionName=names.processor,
            StatementId="AllowUploadBucket",
            Action="lambda:InvokeFunction",
            Principal="s3.amazonaws.com",
            SourceArn=f"arn:aws:s3:::{names.upload_bucket}",
            SourceAccount=names.account,
        )
    uploads: Any = {
        "Id": "image-processor",
        "LambdaFunctionArn": names.arn("lambda", f"function:{names.processor}"),
        "Events": list(EVENTS),
    }
    clients.s3.put_bucket_notification_configuration(
        Bucket=names.upload_bucket, NotificationConfiguration={"LambdaFunctionConfigurations": [uploads]}
    )


def _alarms(clients: "Clients", names: Names) -> str:
    """The topic's ARN; an alarm for each dead-letter queue notifies it. The other alarms exist on AWS alone."""
    topic = clients.sns.create_topic(Name=f"{names.prefix}-alarms")["TopicArn"]
    for suffix in ("image-dlq", "metadata-dlq"):
        queue = names.queue(suffix)
        depths = {"visible": "ApproximateNumberOfMessagesVisible", "taken": "ApproximateNumberOfMessagesNotVisible"}
        metrics: list[Any] = [
            {
                "Id": name,
                "ReturnData": False,
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/SQS",
                        "MetricName": metric,
                        "Dimensions": [{"Name": "QueueName", "Value": queue}],
                    },
                    "Period": 60,
                    "Stat": "Maximum",
                },
            }
            for name, metric in depths.items()
        ]
        clients.cloudwatch.put_metric_alarm(
            AlarmName=f"{queue}-not-empty",
            AlarmDescription="Images failed for good: imgpipe dlq list, then imgpipe dlq redrive.",
            Metrics=[*metrics, {"Id": "value", "Label": f"{suffix}-not-empty", "Expression": "visible + taken"}],
            EvaluationPeriods=1,
            DatapointsToAlarm=1,
            Threshold=1,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            TreatMissingData="notBreaching",
            AlarmActions=[topic],
            OKActions=[topic],
        )
    return topic
