"""What an exception of an AWS client means: a `FailureCode`.

Exceptions are known by the names of their classes, so that botocore is not needed to talk about them.
"""

from collections.abc import Mapping
from typing import Any

from pipeline_contract.failures import FailureCode, PipelineError

_THROTTLES = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "OverLimit",
        "PriorRequestNotComplete",
        "TransactionInProgressException",
        "SlowDown",
        "KmsThrottled",
    }
)
_DENIALS = frozenset(
    {
        "403",
        "AccessDenied",
        "AccessDeniedException",
        "AllAccessDisabled",
        "AuthorizationError",
        "ExpiredToken",
        "ExpiredTokenException",
        "Forbidden",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_MISSING = {
    "NoSuchBucket": FailureCode.NO_SUCH_BUCKET,
    "ResourceNotFoundException": FailureCode.TABLE_MISSING,
    "QueueDoesNotExist": FailureCode.QUEUE_MISSING,
    "AWS.SimpleQueueService.NonExistentQueue": FailureCode.QUEUE_MISSING,
}
_BY_CLASS = {
    "ConnectTimeoutError": FailureCode.TIMEOUT,
    "ReadTimeoutError": FailureCode.TIMEOUT,
    "NoCredentialsError": FailureCode.ACCESS_DENIED,
    "PartialCredentialsError": FailureCode.ACCESS_DENIED,
    "CredentialRetrievalError": FailureCode.ACCESS_DENIED,
    "HTTPClientError": FailureCode.NETWORK,
    "ConnectionError": FailureCode.NETWORK,
    "ResponseStreamingError": FailureCode.NETWORK,
    "IncompleteReadError": FailureCode.NETWORK,
    "FlexibleChecksumError": FailureCode.NETWORK,
    "HTTPError": FailureCode.NETWORK,  # urllib3's base, met while a body is read
    "TimeoutError": FailureCode.TIMEOUT,
    "MemoryError": FailureCode.OUT_OF_MEMORY,
    "ImportError": FailureCode.IMPORT_ERROR,
}
_MAX_MESSAGE = 300


def error_code(error: BaseException) -> str | None:
    """The code of an AWS answer (`NoSuchKey`, or the HTTP status where a HEAD has no body), None for other errors."""
    response = getattr(error, "response", None)
    if not isinstance(response, Mapping) or not isinstance(response.get("Error"), Mapping):
        return None
    return str(response["Error"].get("Code") or http_status(error) or "") or None


def http_status(error: BaseException) -> int | None:
    """The HTTP status of an AWS answer, None for other errors."""
    response: Any = getattr(error, "response", None)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, Mapping) else None
    return status if isinstance(status, int) else None


def failure_code(error: BaseException) -> FailureCode:
    """The reason behind an exception; UNEXPECTED where it is none that an AWS call is known to raise."""
    if isinstance(error, PipelineError):
        return error.code
    code = error_code(error)
    if code is None:
        return next(
            (_BY_CLASS[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in _BY_CLASS),
            FailureCode.UNEXPECTED,
        )
    return _code_of_answer(code, http_status(error) or 0, str(error).lower())


def _code_of_answer(code: str, status: int, text: str) -> FailureCode:
    name = code.rsplit(".", 1)[-1]
    if name in _THROTTLES or status == 429:
        return FailureCode.THROTTLED
    if code.lower().startswith("kms") or (name in _DENIALS and "kms" in text):
        return FailureCode.KMS_DENIED
    if name in _DENIALS or status in (401, 403):
        return FailureCode.ACCESS_DENIED
    if code in _MISSING:
        return _MISSING[code]
    if name in ("RequestTimeout", "RequestTimeoutException") or status in (408, 504):
        return FailureCode.TIMEOUT
    if status >= 500 or name in ("InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable"):
        return FailureCode.SERVICE_ERROR
    return FailureCode.UNEXPECTED


def pipeline_error(error: BaseException, action: str) -> PipelineError:
    """The `PipelineError` for an exception met while doing `action` ("read s3://bucket/key")."""
    if isinstance(error, PipelineError):
        return error
    return PipelineError(failure_code(error), f"cannot {action}: {type(error).__name__}: {error}"[:_MAX_MESSAGE])
