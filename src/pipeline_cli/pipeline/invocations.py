"""Invoking image_processor as S3 does: asynchronously, with S3 event records."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


def invoke(lambda_: "LambdaClient", function: str, records: Sequence[Mapping[str, Any]]) -> str | None:
    """None when Lambda has taken the records, else why it has not."""
    from botocore.exceptions import BotoCoreError, ClientError

    payload = json.dumps({"Records": list(records)}, separators=(",", ":")).encode()
    try:
        answer = lambda_.invoke(FunctionName=function, InvocationType="Event", Payload=payload)
    except (ClientError, BotoCoreError) as error:
        return str(error)
    status = answer["StatusCode"]
    return None if status == 202 else f"Lambda answered {status}"
