"""What can go wrong, as the operator meets it: an exit code, what happened, and the next command to type."""

import sys
from enum import IntEnum


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1  # some items failed, or a bug
    USAGE = 2
    CONFIGURATION = 3  # configuration or credentials
    NOT_FOUND = 4
    TIMED_OUT = 5
    UNHEALTHY = 6
    INTERRUPTED = 130


class ImgpipeError(Exception):
    """Something the operator can act on. `code` is for scripts, `message` and `hint` for people."""

    exit_code = ExitCode.FAILED
    code = "FAILED"

    def __init__(self, message: str, hint: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).code


class SomeFailedError(ImgpipeError):
    """The command did its work, and some of the items failed."""

    code = "SOME_FAILED"


class UsageError(ImgpipeError):
    exit_code = ExitCode.USAGE
    code = "USAGE"


class ConfigurationError(ImgpipeError):
    exit_code = ExitCode.CONFIGURATION
    code = "CONFIGURATION"


class NotFoundError(ImgpipeError):
    exit_code = ExitCode.NOT_FOUND
    code = "NOT_FOUND"


class WaitTimeoutError(ImgpipeError):
    exit_code = ExitCode.TIMED_OUT
    code = "TIMED_OUT"


class UnhealthyError(ImgpipeError):
    exit_code = ExitCode.UNHEALTHY
    code = "UNHEALTHY"


_NOT_THERE = {
    "NoSuchBucket": "The bucket",
    "ResourceNotFoundException": "A resource of the deployment",
    "AWS.SimpleQueueService.NonExistentQueue": "The queue",
    "QueueDoesNotExist": "The queue",
    "ParameterNotFound": "The SSM parameter",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403", "AuthorizationError"}
_BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "InvalidSignatureException",
}


def from_aws(error: Exception) -> ImgpipeError | None:
    """The error that a botocore exception means to an operator; None when it is no botocore exception."""
    if "botocore" not in sys.modules:  # importing it here would slow down every error by a tenth of a second
        return None
    from botocore import exceptions as aws

    if isinstance(error, aws.ClientError):
        return _from_answer(error)
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.TokenRetrievalError):
        return ConfigurationError(
            "No AWS credentials were found.",
            "Sign in (aws sso login, aws configure) or name a profile: imgpipe --profile NAME ...",
            code="NO_CREDENTIALS",
        )
    if isinstance(error, aws.ProfileNotFound | aws.NoRegionError | aws.CredentialRetrievalError):
        return ConfigurationError(f"{error}", "Check --profile, --region and AWS_PROFILE, AWS_REGION.")
    if isinstance(error, aws.ConnectionError | aws.HTTPClientError):
        return ImgpipeError(
            f"AWS was not reached: {error}",
            "Check the network; for the local pipeline: imgpipe local status",
            code="NETWORK",
        )
    if isinstance(error, aws.BotoCoreError):
        return ImgpipeError(f"The AWS SDK refused: {error}", code=type(error).__name__)
    return None


def _from_answer(error: "object") -> ImgpipeError:
    from botocore.exceptions import ClientError

    assert isinstance(error, ClientError)  # noqa: S101  # for mypy: botocore is imported late
    code = error.response.get("Error", {}).get("Code", "Unknown")
    said = error.response.get("Error", {}).get("Message", "")
    what = f"{error.operation_name}: {said or code}"
    if code in _NOT_THERE:
        return ConfigurationError(
            f"{_NOT_THERE[code]} is not there ({what}).",
            "The deployment may be gone or another one: imgpipe outputs, imgpipe -d NAME ...",
            code=code,
        )
    if code in _DENIED:
        return ConfigurationError(f"AWS denied {what}", "Use credentials that may do this: --profile NAME", code=code)
    if code in _BAD_CREDENTIALS:
        return ConfigurationError(f"AWS refused the credentials ({what}).", "Sign in again: aws sso login", code=code)
    return ImgpipeError(f"AWS answered {code} to {what}", code=code)
