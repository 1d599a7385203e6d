"""The only place that makes AWS sessions and clients, on first need."""

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline_cli import __version__

if TYPE_CHECKING:
    from botocore.config import Config
    from botocore.session import Session
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

_SERVICES = ("cloudwatch", "dynamodb", "lambda", "logs", "s3", "sns", "sqs", "ssm", "sts")
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
    def session(self) -> "Session":
        # botocore makes the same clients as boto3, which adds resources and transfers and 50 ms of start-up.
        from botocore.session import Session

        # The user's AWS_PROFILE says nothing about the emulator, and may name one that is not there.
        own = {"profile": (None, None, None, None)} if self.endpoint_url else None
        session = Session(session_vars=own, profile=self._profile)
        loader = session.get_component("data_loader")
        # To see that a service is there, botocore's loader looks into the folders of all 400, twice for each client.
        loader.list_available_services = lambda type_name: list(_SERVICES)  # noqa: ARG005
        loader.file_loader = _plain_file_loader()
        if self._region:
            session.set_config_variable("region", self._region)
        if self.endpoint_url:
            session.set_credentials(*LOCAL_CREDENTIALS)
        return session

    @cached_property
    def s3(self) -> "S3Client":
        client: S3Client = self._client("s3")
        return client

    @cached_property
    def sqs(self) -> "SQSClient":
        client: SQSClient = self._client("sqs")
        return client

    @cached_property
    def dynamodb(self) -> "DynamoDBClient":
        client: DynamoDBClient = self._client("dynamodb")
        return client

    @cached_property
    def logs(self) -> "CloudWatchLogsClient":
        client: CloudWatchLogsClient = self._client("logs")
        return client

    @cached_property
    def lambda_(self) -> "LambdaClient":
        client: LambdaClient = self._client("lambda")
        return client

    @cached_property
    def cloudwatch(self) -> "CloudWatchClient":
        client: CloudWatchClient = self._client("cloudwatch")
        return client

    @cached_property
    def sns(self) -> "SNSClient":
        client: SNSClient = self._client("sns")
        return client

    @cached_property
    def sts(self) -> "STSClient":
        client: STSClient = self._client("sts")
        return client

    @cached_property
    def ssm(self) -> "SSMClient":
        client: SSMClient = self._client("ssm")
        return client

    def _client(self, service: str) -> Any:
        return self.session.create_client(service, endpoint_url=self.endpoint_url, config=self._config)

    @cached_property
    def _config(self) -> "Config":
        from botocore.config import Config

        return Config(
            # An emulator that does not answer was stopped: waiting for it would only hide that.
            retries={"mode": "standard", "max_attempts": 3 if self.endpoint_url else 5},
            max_pool_connections=50,
            user_agent_extra=f"imgpipe/{__version__}",
            proxies={} if self.endpoint_url else None,  # the emulator is on this machine
        )


def _plain_file_loader() -> Any:
    """Reads botocore's models into dicts, which keep their order, in half the time of its OrderedDicts."""
    from botocore.loaders import JSONFileLoader

    class PlainFileLoader(JSONFileLoader):
        def _load_file(self, full_path: str, open_method: Any) -> Any:
            try:
                with open_method(full_path, "rb") as file:
                    return json.loads(file.read())
            except FileNotFoundError:  # one of the endings that a model may have
                return None

    return PlainFileLoader()
