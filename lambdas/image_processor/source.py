"""Looking at the object that an event speaks of. What S3 shows now decides, not what the event says."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipeline_contract.aws_failures import error_code, http_status, pipeline_error
from pipeline_contract.failures import FailureCode, PipelineError
from pipeline_contract.times import format_time


@dataclass(frozen=True, slots=True)
class Look:
    """The current object of a key as S3 describes it. `e_tag` without quotes, `size` in bytes."""

    e_tag: str
    size: int
    version_id: str | None = None
    content_type: str | None = None
    last_modified: str | None = None


class SupersededError(Exception):
    """The key holds another object than the one asked for."""


def look(s3: Any, bucket: str, key: str) -> Look | None:
    """What is current under a key, None when nothing is."""
    with _described(f"look at s3://{bucket}/{key}"):
        try:
            return _look(s3.head_object(Bucket=bucket, Key=key))
        except ClientError as error:
            if is_absent(error):
                return None
            raise


@dataclass(frozen=True, slots=True)
class OpenObject:
    """A current object, its bytes not read yet."""

    look: Look
    _body: Any
    _name: str

    def read(self, max_bytes: int) -> bytes:
        """All bytes; BYTE_LIMIT beyond `max_bytes`, whatever the length was said to be."""
        if self.look.size > max_bytes:
            raise PipelineError(FailureCode.BYTE_LIMIT, f"the object has {self.look.size} bytes, over {max_bytes}")
        with _described(f"read {self._name}"):
            data: bytes = self._body.read(max_bytes + 1)
            if len(data) <= max_bytes:
                self._body.read()  # the end of the stream, where botocore compares length and checksum
        if len(data) > max_bytes:
            raise PipelineError(FailureCode.BYTE_LIMIT, f"the object has over {max_bytes} bytes")
        return data


@contextmanager
def opened(s3: Any, bucket: str, key: str, e_tag: str | None) -> Iterator[OpenObject | None]:
    """The current object of a key, None when there is none.

    SupersededError when `e_tag` is given and the current object has another.
    """
    name = f"s3://{bucket}/{key}"
    condition = {} if e_tag is None else {"IfMatch": f'"{e_tag}"'}
    with _described(f"read {name}"):
        try:
            answer = s3.get_object(Bucket=bucket, Key=key, **condition)
        except ClientError as error:
            if http_status(error) == 412:
                raise SupersededError from error
            if not is_absent(error):
                raise
            answer = None
    if answer is None:
        yield None
        return
    with closing(answer["Body"]) as body:
        yield OpenObject(_look(answer), body, name)


def is_absent(error: ClientError) -> bool:
    """Whether an answer says that the key holds no object; a missing bucket is something else."""
    return http_status(error) == 404 and error_code(error) != "NoSuchBucket"


def _look(answer: Mapping[str, Any]) -> Look:
    modified = answer.get("LastModified")
    return Look(
        e_tag=answer["ETag"].strip('"'),
        size=answer["ContentLength"],
        version_id=answer.get("VersionId"),
        content_type=answer.get("ContentType"),
        last_modified=None if modified is None else format_time(modified),
    )


@contextmanager
def _described(action: str) -> Iterator[None]:
    """Failures of AWS calls as `PipelineError`s that say what was being done."""
    try:
        yield
    except (BotoCoreError, ClientError, OSError) as error:
        raise pipeline_error(error, action) from error
