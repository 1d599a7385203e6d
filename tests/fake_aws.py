"""S3, SQS and DynamoDB in memory, as far as the handlers use them: fast enough for thousands of runs.

`test_ordering.py` runs the same sequences against moto, so that what is believed of AWS here is checked there.
Every call first asks `before`, where a test may take turns, fail the call or end the caller.
"""

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

START = datetime(2026, 10, 3, 12, tzinfo=UTC)


@dataclass
class Clock:
    """Every look at it is a millisecond later."""

    ticks: int = 0

    def moment(self) -> datetime:
        self.ticks += 1
        return START + timedelta(milliseconds=self.ticks)

    def text(self) -> str:
        return self.moment().isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer_error(code: str, status: int, **more: Any) -> ClientError:
    response = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return ClientError(response, "Call")  # type: ignore[arg-type]


@dataclass
class Version:
    version_id: str
    data: bytes | None  # None: a delete marker
    content_type: str
    modified: datetime
    metadata: dict[str, str]

    @property
    def e_tag(self) -> str:
        return hashlib.md5(self.data or b"").hexdigest()  # what S3 uses


@dataclass
class FakeS3:
    clock: Clock
    before: Callable[[str], None]
    versioned: frozenset[str]
    buckets: dict[str, dict[str, list[Version]]] = field(default_factory=dict)
    made: int = 0

    def current(self, bucket: str, key: str) -> Version | None:
        versions = self.buckets[bucket].get(key)
        return versions[-1] if versions and versions[-1].data is not None else None

    def get_object(self, *, Bucket: str, Key: str, IfMatch: str | None = None) -> dict[str, Any]:  # noqa: N803
        self.before("s3.get_object")
        found = self.current(Bucket, Key)
        if found is None:
            raise answer_error("NoSuchKey", 404)
        if IfMatch is not None and IfMatch.strip('"') != found.e_tag:
            raise answer_error("PreconditionFailed", 412)
        assert found.data is not None
        return {**self._described(found), "Body": io.BytesIO(found.data)}

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        self.before("s3.head_object")
        found = self.current(Bucket, Key)
        if found is None:
            raise answer_error("404", 404)
        return self._described(found)

    def put_object(
        self,
        *,
        Bucket: str,  # noqa: N803
        Key: str,  # noqa: N803
        Body: bytes,  # noqa: N803
        ContentType: str = "",  # noqa: N803
        Metadata: dict[str, str] | None = None,  # noqa: N803
        IfMatch: str | None = None,  # noqa: N803
        IfNoneMatch: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        self.before("s3.put_object")
        found = self.current(Bucket, Key)
        if IfNoneMatch == "*" and found is not None:
            raise answer_error("PreconditionFailed", 412)
        if IfMatch is not None and found is None:
            raise answer_error("NoSuchKey", 404)
        if IfMatch is not None and found is not None and IfMatch.strip('"') != found.e_tag:
            raise answer_error("PreconditionFailed", 412)
        return self._described(self._add(Bucket, Key, Body, ContentType, Metadata))

    def delete_object(self, *, Bucket: str, Key: str, VersionId: str | None = None) -> dict[str, Any]:  # noqa: N803
        self.before("s3.delete_object")
        versions = self.buckets[Bucket].get(Key, [])
        if VersionId is not None:
            versions[:] = [version for version in versions if version.version_id != VersionId]
            return {"VersionId": VersionId}
        if Bucket in self.versioned:
            return {"VersionId": self._add(Bucket, Key, None, "", None).version_id, "DeleteMarker": True}
        versions.clear()
        return {}

    def list_objects_v2(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:  # noqa: N803
        self.before("s3.list_objects_v2")
        keys = sorted(key for key in self.buckets[Bucket] if key.startswith(Prefix) and self.current(Bucket, key))
        return {"Contents": [{"Key": key} for key in keys]} if keys else {}

    def _add(
        self, bucket: str, key: str, data: bytes | None, content_type: str, metadata: dict[str, str] | None
    ) -> Version:
        self.made += 1
        version = Version(f"v{self.made}", data, content_type, self.clock.moment(), metadata or {})
        versions = self.buckets[bucket].setdefault(key, [])
        if bucket not in self.versioned:
            versions.clear()
        versions.append(version)
        return version

    @staticmethod
    def _described(version: Version) -> dict[str, Any]:
        return {
            "ETag": f'"{version.e_tag}"',
            "ContentLength": len(version.data or b""),
            "VersionId": version.version_id,
            "ContentType": version.content_type,
            "LastModified": version.modified,
            "Metadata": version.metadata,
        }


@dataclass
class FakeSqs:
    before: Callable[[str], None]
    queues: dict[str, list[str]] = field(default_factory=dict)

    def send_message(self, *, QueueUrl: str, MessageBody: str) -> dict[str, Any]:  # noqa: N803
        self.before(f"sqs.send_message {QueueUrl}")
        self.queues.setdefault(QueueUrl, []).append(MessageBody)
        return {}


@dataclass
class FakeDynamoDB:
    before: Callable[[str], None]
    items: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def update_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Key: dict[str, dict[str, str]],  # noqa: N803
        UpdateExpression: str,  # noqa: N803
        ConditionExpression: str,  # noqa: N803
        ExpressionAttributeNames: dict[str, str],  # noqa: N803
        ExpressionAttributeValues: dict[str, Any],  # noqa: N803
        ReturnValuesOnConditionCheckFailure: str,  # noqa: N803
    ) -> dict[str, Any]:
        self.before("dynamodb.update_item")
        names, values = ExpressionAttributeNames, ExpressionAttributeValues
        identity = Key["imageId"]["S"]
        item = self.items.get(identity, {})
        if not _Condition(ConditionExpression, names, values, item).holds():
            raise answer_error("ConditionalCheckFailedException", 400, **({"Item": item} if item else {}))
        sets, _, removes = UpdateExpression.removeprefix("SET ").partition(" REMOVE ")
        changed = {"imageId": Key["imageId"], **item}
        for assignment in re.split(r", (?![^(]*\))", sets):
            name, _, value = assignment.partition(" = ")
            if value.startswith("if_not_exists"):
                kept, value = re.findall(r"[#:\w]+", value)[1:]
                if names.get(kept, kept) in item:
                    continue
            changed[names.get(name, name)] = values[value]
        for name in filter(None, removes.split(", ")):
            changed.pop(names.get(name, name), None)
        self.items[identity] = changed
        return {}


class _Condition:
    """OR, AND, brackets, attribute_not_exists, = and < on attributes: a missing one makes a comparison false."""

    def __init__(self, text: str, names: dict[str, str], values: dict[str, Any], item: dict[str, Any]) -> None:
        self._tokens = re.findall(r"[#:\w]+|[()=<]", text)
        self._names, self._values, self._item = names, values, item

    def holds(self) -> bool:
        result = self._any()
        assert not self._tokens, f"left over: {self._tokens}"
        return result

    def _any(self) -> bool:
        return True in self._joined("OR", lambda: False not in self._joined("AND", self._term))

    def _joined(self, word: str, part: Callable[[], bool]) -> list[bool]:
        """Every part is read, whatever the first says."""
        parts = [part()]
        while self._tokens and self._tokens[0] == word:
            self._tokens.pop(0)
            parts.append(part())
        return parts

    def _term(self) -> bool:
        token = self._tokens.pop(0)
        if token == "(":
            result = self._any()
            assert self._tokens.pop(0) == ")"
            return result
        if token == "attribute_not_exists":
            _, name, _ = (self._tokens.pop(0) for _ in range(3))
            return self._names.get(name, name) not in self._item
        left, operator, right = self._value(token), self._tokens.pop(0), self._value(self._tokens.pop(0))
        if left is None or right is None:
            return False
        return bool(left == right if operator == "=" else left < right)

    def _value(self, token: str) -> Any:
        typed = self._values[token] if token.startswith(":") else self._item.get(self._names.get(token, token))
        return None if typed is None else typed["S"]
