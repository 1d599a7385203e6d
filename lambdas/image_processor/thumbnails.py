"""The stored thumbnails of one image: put so that an older event never replaces a newer one's, removed by prefix.

Each carries the sequencer of the event it was made for in its S3 metadata.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from image_processor.source import is_absent
from pipeline_contract.aws_failures import error_code, http_status, pipeline_error
from pipeline_contract.failures import FailureCode, PipelineError
from pipeline_contract.identity import thumbnail_prefix

_SEQUENCER, _E_TAG = "source-sequencer", "source-etag"
_ATTEMPTS = 8  # at a key that others write at the same moment


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a thumbnail says of its source."""

    image_id: str
    sequencer: str | None
    e_tag: str
    content_sha256: str

    def metadata(self) -> dict[str, str]:
        """S3 user metadata: ASCII only, which a raw key is not."""
        stamp = {
            "image-id": self.image_id,
            _E_TAG: self.e_tag,
            "source-sha256": self.content_sha256,
            _SEQUENCER: self.sequencer,
        }
        return {name: value for name, value in stamp.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Put:
    """How a put ended: refused because a newer event's thumbnail is there, or done, over another or not."""

    stored: bool
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class ThumbnailStore:
    s3: Any
    bucket: str

    def put(self, key: str, data: bytes, content_type: str, stamp: Stamp) -> Put:
        """Store a thumbnail unless one of a newer event of the same image is there.

        First try: only if nothing is there. Else: only if what is there is still what was compared with.
        """
        if self._put(key, data, content_type, stamp, {"IfNoneMatch": "*"}):
            return Put(stored=True)
        for _ in range(_ATTEMPTS):
            there = self._head(key)
            if there is None:
                condition = {"IfNoneMatch": "*"}
            elif _is_newer(there["Metadata"].get(_SEQUENCER), stamp.sequencer):
                return Put(stored=False)
            else:
                condition = {"IfMatch": there["ETag"]}
            if self._put(key, data, content_type, stamp, condition):
                return Put(stored=True, replaced=there is not None)
        raise PipelineError(FailureCode.SERVICE_ERROR, f"{key} keeps changing while it is written")

    def made_for(self, key: str, sequencer: str | None, e_tag: str | None = None) -> bool:
        """Whether a stored thumbnail was made for the event with this sequencer, and of the object with this eTag."""
        there = self._head(key)
        if there is None or sequencer is None or there["Metadata"].get(_SEQUENCER) != sequencer:
            return False
        return e_tag is None or there["Metadata"].get(_E_TAG) == e_tag

    def remove(self, image_id: str, keep: Callable[[str], bool]) -> int:
        """Remove every thumbnail of an image whose key is not to be kept; how many were removed."""
        keys = [key for key in self._keys(image_id) if not keep(key)]
        for key in keys:
            with self._described(f"remove {key}"):
                self.s3.delete_object(Bucket=self.bucket, Key=key)
        return len(keys)

    def _keys(self, image_id: str) -> list[str]:
        """One page: an image has a handful of thumbnails."""
        with self._described(f"list the thumbnails of {image_id}"):
            page = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=thumbnail_prefix(image_id))
        return [entry["Key"] for entry in page.get("Contents", ())]

    def _head(self, key: str) -> Any:
        with self._described(f"look at {key}"):
            try:
                return self.s3.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if is_absent(error):
                    return None
                raise

    def _put(self, key: str, data: bytes, content_type: str, stamp: Stamp, condition: dict[str, str]) -> bool:
        """False when the condition did not hold."""
        with self._described(f"put {key}"):
            try:
                self.s3.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=data,
                    ContentType=content_type,
                    Metadata=stamp.metadata(),
                    **condition,
                )
            except ClientError as error:
                # 409: another conditional write of the key was under way. 404: If-Match, and it is gone meanwhile.
                if http_status(error) in (409, 412) or error_code(error) == "NoSuchKey":
                    return False
                raise
        return True

    @contextmanager
    def _described(self, action: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise pipeline_error(error, f"{action} in s3://{self.bucket}") from error


def _is_newer(there: str | None, mine: str | None) -> bool:
    return there is not None and mine is not None and there > mine
