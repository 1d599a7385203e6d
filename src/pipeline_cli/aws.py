"""The only place that makes AWS sessions and clients, on first need."""

from functools import cached_property
from typing import TYPE_CHECKING

from pipeline_cli import __version__

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

LOCAL_CREDENTIALS = ("test", "test")  # what the emulator takes; no secret


class Clients:
    """The clients of one deployment, each made when it is first asked for.

    Profile, region, endpoint and credentials mean what botocore means by them. `endpoint_url` is given for the local
    deployment alone, and then the credentials are the emulator's.
    """

    def __init__(self, *, profile: str | None, region: str | None, endpoint_url: str | None = None) -> None:
        self._profile = profile
        self._region = region
        self.endpoint_url = endpoint_url

    @cached_property
    def session(self) -> "boto3.Session":
        import boto3

        if self.endpoint_url:
            key, secret = LOCAL_CREDENTIALS
            return boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=self._region)
        return boto3.Session(profile_name=self._profile, region_name=self._region)

    @cached_property
    def s3(self) -> "S3Client":
        return self.session.client("s3", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def sqs(self) -> "SQSClient":
        return self.session.client("sqs", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        return self.session.client("dynamodb", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def logs(self) -> "CloudWatchLogsClient":
        return self.session.client("logs", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def lambda_(self) -> "LambdaClient":
        return self.session.client("lambda", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def cloudwatch(self) -> "CloudWatchClient":
        return self.session.client("cloudwatch", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def sns(self) -> "SNSClient":
        return self.session.client("sns", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def sts(self) -> "STSClient":
        return self.session.client("sts", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def ssm(self) -> "SSMClient":
        return self.session.client("ssm", endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def _config(self) -> "Config":
        from botocore.config import Config

        return Config(
            retries={"mode": "standard", "max_attempts": 5},
            max_pool_connections=50,
            user_agent_extra=f"imgpipe/{__version__}",
        )
