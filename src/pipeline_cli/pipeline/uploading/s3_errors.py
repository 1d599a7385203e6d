"""What S3's error codes mean to an upload (Amazon S3 API Reference, "Error responses")."""

from pipeline_cli.errors import ConfigurationError
from pipeline_cli.pipeline.uploading.transfers import Answer

THROTTLED = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "ThrottlingException", "503", "429"}
WRONG_BYTES = {"BadDigest", "XAmzContentChecksumMismatch", "InvalidDigest", "IncompleteBody"}
_ABOUT_ALL = {
    "AccessDenied": "S3 denied the upload.",
    "NoSuchBucket": "The upload bucket is not there.",
    "InvalidAccessKeyId": "S3 refused the credentials.",
    "SignatureDoesNotMatch": "S3 refused the credentials.",
    "ExpiredToken": "The credentials have expired.",
    "InvalidToken": "S3 refused the credentials.",
    "AuthorizationHeaderMalformed": "The bucket is in another region.",
    "PermanentRedirect": "The bucket is in another region.",
    "RequestTimeTooSkewed": "The clock of this machine is wrong.",
}


def configuration_error(answer: Answer) -> ConfigurationError | None:
    """The error to end with when the answer is not about one file: no other would fare better."""
    code = answer.error or ""
    if code not in _ABOUT_ALL:
        return None
    hint = "Use credentials that may do this, or another deployment: --profile NAME, -d NAME"
    return ConfigurationError(f"{_ABOUT_ALL[code]} ({code}: {answer.message})", hint, code=code)
