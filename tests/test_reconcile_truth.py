"""Any history with lost events and any damage by hand: one repair, and the stores say what the bucket says."""

import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db_writer import handler as writer
from fake_aws import FakeDynamoDB, FakeS3
from handler_world import THUMBNAILS, UPLOADS, jpeg
from image_processor import handler as processor
from pipeline_cli.pipeline.reconciling import reconcile
from pipeline_cli.pipeline.reconciling.accounting import Finding, Repair
from pipeline_cli.pipeline.reconciling.checkpoint import Checkpoint
from pipeline_cli.pipeline.reconciling.listings import Stores
from pipeline_cli.pipeline.reconciling.reconcile import Progress, Queues, Report
from pipeline_cli.pipeline.reconciling.repair import INVOKED, carry_out, pending
from pipeline_contract.identity import image_id
from platform_model import CONTEXT, METADATA, Platform

KEYS = ["a.jpg", "ä/☃ b.png", "c.jpg"]
CONTENTS = {
    "red": jpeg("red", (20, 10)),
    "blue": jpeg("blue", (10, 20)),
    "corrupt": jpeg("red", (20, 10))[:150],
}
FOREVER = 4e9  # seconds since 1970: everything is settled


class ListedS3(FakeS3):
    """With the listings that reconciling needs."""

    def list_objects_v2(
        self,
        *,
        Bucket: str,  # noqa: N803
        Prefix: str = "",  # noqa: N803
    ) -> dict[str, Any]:
        found = [(key, self.current(Bucket, key)) for key in sorted(self.buckets[Bucket]) if key.startswith(Prefix)]
        entries = [
            {"Key": key, "Size": len(one.data or b""), "LastModified": one.modified} for key, one in found if one
        ]
        return {"Contents": entries} if entries else {}

    def list_object_versions(self, *, Bucket: str) -> dict[str, Any]:  # noqa: N803
        answer: dict[str, Any] = {"Versions": [], "DeleteMarkers": []}
        for key, versions in self.buckets[Bucket].items():
            for one in versions:
                entry = {"Key": key, "VersionId": one.version_id, "LastModified": one.modified}
                entry["IsLatest"] = one is versions[-1]
                if one.data is None:
                    answer["DeleteMarkers"].append(entry)
                else:
                    answer["Versions"].append({**entry, "ETag": f'"{one.e_tag}"'})
        return answer

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, **request: Any) -> Any:
        yield self.list_objects_v2(**request)


class ListedDynamoDB(FakeDynamoDB):
    def scan(self, *, Segment: int, **_: Any) -> dict[str, Any]:  # noqa: N803
        return {"Items": list(self.items.values()) if Segment == 0 else []}

    def batch_get_item(self, *, RequestItems: Any) -> dict[str, Any]:  # noqa: N803
        ((table, wanted),) = RequestItems.items()
        ids = [one["imageId"]["S"] for one in wanted["Keys"]]
        return {"Responses": {table: [self.items[one] for one in ids if one in self.items]}}


@dataclass
class Pipeline:
    """The handlers, run at once; and reconciling over what they left."""

    platform: Platform
    s3: ListedS3
    dynamodb: ListedDynamoDB

    @classmethod
    def of(cls, patch: pytest.MonkeyPatch) -> "Pipeline":
        platform = Platform(random.Random(0))
        s3 = ListedS3(platform.clock, lambda _: None, frozenset({UPLOADS}), {UPLOADS: {}, THUMBNAILS: {}})
        dynamodb = ListedDynamoDB(lambda _: None)
        platform.s3, platform.dynamodb = s3, dynamodb
        platform.install(patch)
        return cls(platform, s3, dynamodb)

    def deliver(self, record: dict[str, Any], *, written: bool = True) -> None:
        processor.lambda_handler({"Records": [record]}, CONTEXT)
        queue = self.platform.sqs.queues[METADATA]
        while queue:
            body = queue.pop(0)
            if written:
                message = {"messageId": "m", "body": body, "attributes": {"ApproximateReceiveCount": "1"}}
                assert writer.lambda_handler({"Records": [message]}, CONTEXT) == {"batchItemFailures": []}

    # What Lambda and SQS show of them

    def invoke(self, *, FunctionName: str, InvocationType: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        (record,) = json.loads(Payload)["Records"]
        self.deliver(record)
        return {"StatusCode": 202}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {"Attributes": {}}

    def reconcile(self, *, repair: bool = False) -> tuple[Report, list[Finding]]:
        stores: Any = Stores(self.s3, self.dynamodb, UPLOADS, THUMBNAILS, "images")  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder, Checkpoint.open(Path(folder) / "run", {}, FOREVER) as checkpoint:
            report = reconcile.compare(
                stores,
                Queues(self, METADATA, ()),  # type: ignore[arg-type]
                checkpoint,
                now=lambda: FOREVER,
                grace=0,
                progress=Progress(lambda *_: None, lambda _: None),
            )
            findings = list(checkpoint.findings())
            if repair:
                repairs = (*INVOKED, Repair.DELETE_THUMBNAIL)
                done = carry_out(
                    pending(lambda after, limit: checkpoint.work(repairs, after, limit)),
                    self,  # type: ignore[arg-type]
                    "processor",
                    stores,
                    most=100,
                    rate=100,
                    monotonic=lambda: 0.0,
                    sleep=lambda _: None,
                    done=lambda work: checkpoint.done(one.number for one in work),
                )
                assert (done.sent, done.failed) == (len(findings), 0)
            return report, findings

    def agrees(self) -> None:
        """The table and the thumbnails say what the bucket says."""
        expected = set()
        for key in KEYS:
            current = self.s3.current(UPLOADS, key)
            item = self.dynamodb.items.get(image_id(UPLOADS, key))
            status = None if item is None else item["status"]["S"]
            if current is None:
                assert status in (None, "DELETED"), key
                continue
            assert item is not None
            assert item["eTag"]["S"] == current.e_tag
            assert status == ("FAILED" if current.data == CONTENTS["corrupt"] else "COMPLETED"), key
            if status == "COMPLETED":
                expected.add(f"thumbnails/{image_id(UPLOADS, key)}.jpg")
                stored = self.s3.current(THUMBNAILS, f"thumbnails/{image_id(UPLOADS, key)}.jpg")
                assert stored is not None
                assert stored.metadata["source-etag"] == current.e_tag
        assert {key for key in self.s3.buckets[THUMBNAILS] if self.s3.current(THUMBNAILS, key)} == expected


Fate = st.sampled_from(["delivered", "lost", "late", "unwritten"])
STEPS = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(KEYS), st.sampled_from(sorted(CONTENTS)), Fate),
    st.tuples(st.just("delete"), st.sampled_from(KEYS), st.booleans(), Fate),
    st.tuples(st.just("remove version"), st.sampled_from(KEYS), st.integers(0, 3), Fate),
    st.tuples(st.just("drop item"), st.sampled_from(KEYS), st.none(), st.none()),
    st.tuples(st.just("drop thumbnail"), st.sampled_from(KEYS), st.none(), st.none()),
    st.tuples(st.just("spoil thumbnail"), st.sampled_from(KEYS), st.none(), st.none()),
    st.tuples(st.just("extra thumbnail"), st.sampled_from(KEYS), st.none(), st.none()),
)


@settings(max_examples=80)
@given(st.lists(STEPS, max_size=12), st.randoms(use_true_random=False))
def test_one_repair_makes_all_agree(steps: list[Any], order: random.Random) -> None:
    with pytest.MonkeyPatch.context() as patch:
        here = Pipeline.of(patch)
        late: list[dict[str, Any]] = []
        for what, key, content, fate in steps:
            identity = image_id(UPLOADS, key)
            thumbnail = f"thumbnails/{identity}.jpg"
            match what:
                case "create":
                    here.platform.create(key, CONTENTS[content])
                case "delete":
                    here.platform.delete(key, lifecycle=content)
                case "remove version":
                    here.platform.remove_version(key, content)
                case "drop item":
                    here.dynamodb.items.pop(identity, None)
                case "drop thumbnail":
                    here.s3.buckets[THUMBNAILS].pop(thumbnail, None)
                case "spoil thumbnail":
                    here.s3.put_object(Bucket=THUMBNAILS, Key=thumbnail, Body=b"spoilt")
                case "extra thumbnail":
                    here.s3.put_object(Bucket=THUMBNAILS, Key=f"thumbnails/{identity}_400.webp", Body=b"extra")
            # S3 sends an event up to three times; here, once, or never.
            records = {json.dumps(record) for record, _ in here.platform.events}
            here.platform.events.clear()
            for record in sorted(records):
                if fate == "late":
                    late.append(json.loads(record))
                elif fate != "lost":
                    here.deliver(json.loads(record), written=fate == "delivered")
        uploads = json.dumps(here.s3.list_object_versions(Bucket=UPLOADS), default=str)

        _, found = here.reconcile(repair=True)
        assert len({one.image_id for one in found}) == len(found)  # an image is processed once at most
        report, left = here.reconcile()
        assert left == []
        assert report.accounting.balanced
        here.agrees()
        assert json.dumps(here.s3.list_object_versions(Bucket=UPLOADS), default=str) == uploads

        order.shuffle(late)  # what was only late changes nothing any more
        for record in late:
            here.deliver(record)
        _, left = here.reconcile()
        assert left == []
        here.agrees()
