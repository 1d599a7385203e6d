"""What a stack is, as AWS describes it: to hold the local one against the one that Terraform applied."""

import json
import re
from collections.abc import Mapping
from typing import Any

# The local stack has neither roles nor TLS, and its functions hold code alone; the rest must not differ.
QUEUE_ATTRIBUTES = (
    "VisibilityTimeout",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "DelaySeconds",
    "MaximumMessageSize",
    "RedrivePolicy",
)
MAPPING_FIELDS = (
    "BatchSize",
    "MaximumBatchingWindowInSeconds",
    "FunctionResponseTypes",
    "ScalingConfig",
    "State",
    "EventSourceArn",
)
NOT_LOCAL_VARIABLES = {"PROCESSOR_VERSION"}  # of a zip


def described(aws: Mapping[str, Any], outputs: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """The parts of a stack as AWS describes them, with the prefix of their names replaced."""
    s3, sqs, dynamodb, lambda_ = (aws[name] for name in ("s3", "sqs", "dynamodb", "lambda"))
    parts: dict[str, Any] = {}
    for name in ("metadata_queue_url", "dlq_url", "image_dlq_url"):
        attributes = sqs.get_queue_attributes(QueueUrl=outputs[name], AttributeNames=["All"])["Attributes"]
        parts[name] = {key: attributes[key] for key in QUEUE_ATTRIBUTES if key in attributes}
        if "RedrivePolicy" in parts[name]:
            parts[name]["RedrivePolicy"] = json.loads(parts[name]["RedrivePolicy"])
            parts[name]["RedrivePolicy"]["maxReceiveCount"] = int(parts[name]["RedrivePolicy"]["maxReceiveCount"])
    notification = s3.get_bucket_notification_configuration(Bucket=outputs["upload_bucket_name"])
    (uploads,) = notification["LambdaFunctionConfigurations"]
    parts["notification"] = {**uploads, "Events": sorted(uploads["Events"])}
    for name in ("upload_bucket_name", "thumbnail_bucket_name"):
        parts[name] = {
            "versioning": s3.get_bucket_versioning(Bucket=outputs[name]).get("Status"),
            "public": s3.get_public_access_block(Bucket=outputs[name])["PublicAccessBlockConfiguration"],
        }
    (mapping,) = lambda_.list_event_source_mappings(FunctionName=outputs["db_writer_function_name"])[
        "EventSourceMappings"
    ]
    parts["mapping"] = {name: mapping.get(name) for name in MAPPING_FIELDS}
    table = dynamodb.describe_table(TableName=outputs["dynamodb_table_name"])["Table"]
    indexes = table["GlobalSecondaryIndexes"]
    parts["table"] = {
        "key": table["KeySchema"],
        "attributes": sorted(table["AttributeDefinitions"], key=lambda one: one["AttributeName"]),
        "indexes": {index["IndexName"]: [index["KeySchema"], index["Projection"]] for index in indexes},
        "billing": table["BillingModeSummary"]["BillingMode"],
        "ttl": dynamodb.describe_time_to_live(TableName=table["TableName"])["TimeToLiveDescription"],
    }
    for name in ("image_processor_function_name", "db_writer_function_name"):
        function = lambda_.get_function_configuration(FunctionName=outputs[name])
        variables = function["Environment"]["Variables"]
        parts[name] = {
            **{key: function[key] for key in ("Runtime", "Handler", "Timeout", "MemorySize")},
            "variables": {key: value for key, value in variables.items() if key not in NOT_LOCAL_VARIABLES},
        }
        groups = aws["logs"].describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{outputs[name]}")["logGroups"]
        parts[f"log group of {name}"] = [group.get("retentionInDays") for group in groups]
    invoked = lambda_.get_function_event_invoke_config(FunctionName=outputs["image_processor_function_name"])
    kept = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
    parts["asynchronous calls"] = {name: invoked[name] for name in kept}
    # `twin` and `image-pipeline-dev` become the same word.
    plain: dict[str, Any] = json.loads(re.sub(rf"\b{prefix}-", "PREFIX-", json.dumps(parts)))
    return plain
