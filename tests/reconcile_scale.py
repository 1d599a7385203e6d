# ruff: noqa: N803  # the names are boto3's
"""`python reconcile_scale.py N FILE`: compares stores of N generated images; prints what it found and took as JSON.

The stores are made up while they are listed, so that the memory of this process is that of the comparison. Of ten
images one lacks its item and one its thumbnail.
"""

import json
import resource
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline_cli.pipeline.reconciling import reconcile
from pipeline_cli.pipeline.reconciling.checkpoint import Checkpoint
from pipeline_cli.pipeline.reconciling.listings import Stores
from pipeline_cli.pipeline.reconciling.reconcile import Progress, Queues, Report
from pipeline_contract.identity import image_id

UP, THUMBS, TABLE = "uploads", "thumbnails", "images"
OLD = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = 1000


def key(number: int) -> str:
    return f"2026/{number // PAGE:05}/{number:09}.jpg"


class Ids:
    """The ids of the images that have a thumbnail, sorted, in sixteen bytes each."""

    def __init__(self, count: int) -> None:
        ids = sorted(bytes.fromhex(image_id(UP, key(one)).replace("-", "")) for one in range(count) if one % 10 != 1)
        self._packed = b"".join(ids)

    def __len__(self) -> int:
        return len(self._packed) // 16

    def __getitem__(self, index: int) -> str:
        text = self._packed[16 * index : 16 * index + 16].hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Everything:
    """S3, DynamoDB and SQS."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.ids = Ids(count)
        self.numbers = range(count)
        self.lacking = {image_id(UP, key(one)): one for one in range(1, count, 10)}  # a thumbnail

    def list_objects_v2(
        self,
        Bucket: str,
        Prefix: str = "",
        StartAfter: str = "",
        Delimiter: str = "",
    ) -> dict[str, Any]:
        if Bucket == THUMBS:
            wanted = Prefix.removeprefix("thumbnails/")
            after = StartAfter.removeprefix("thumbnails/").removesuffix(".jpg")
            start = bisect_right(self.ids, after) if after else bisect_left(self.ids, wanted)  # type: ignore[type-var]
            found = []
            for index in range(start, min(start + PAGE, len(self.ids))):
                if not self.ids[index].startswith(wanted):
                    return {"Contents": found}
                found.append({"Key": f"thumbnails/{self.ids[index]}.jpg", "Size": 3, "LastModified": OLD})
            return {"Contents": found, "IsTruncated": start + PAGE < len(self.ids)}
        if not Delimiter:
            return {"IsTruncated": self.count > PAGE}
        folders = ["2026/"] if not Prefix else sorted({key(one)[:11] for one in range(0, self.count, PAGE)})[:1000]
        return {"CommonPrefixes": [{"Prefix": folder} for folder in folders]}

    def list_object_versions(self, Bucket: str, KeyMarker: str = "", VersionIdMarker: str = "") -> dict[str, Any]:
        start = bisect_right(self.numbers, KeyMarker, key=key)
        entries = [
            {"Key": key(one), "ETag": '"e"', "VersionId": "v", "LastModified": OLD, "IsLatest": True}
            for one in range(start, min(start + PAGE, self.count))
        ]
        answer: dict[str, Any] = {"Versions": entries, "IsTruncated": start + PAGE < self.count}
        if answer["IsTruncated"]:
            answer |= {"NextKeyMarker": entries[-1]["Key"], "NextVersionIdMarker": "v"}
        return answer

    def head_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        return {"ETag": '"e"', "LastModified": OLD, "VersionId": "v", "ContentType": "image/jpeg"}

    def get_paginator(self, name: str) -> Any:
        return self

    def paginate(self, **request: str) -> Iterator[dict[str, Any]]:
        yield self.list_objects_v2(**request)

    def scan(self, Segment: int, TotalSegments: int, ExclusiveStartKey: Any = None, **_: Any) -> dict[str, Any]:
        start = Segment if ExclusiveStartKey is None else int(ExclusiveStartKey["imageId"]["S"])
        stop = start + PAGE * TotalSegments
        items = [self.item(one) for one in range(start, min(stop, self.count), TotalSegments) if one % 10]
        return {"Items": items} | ({"LastEvaluatedKey": {"imageId": {"S": str(stop)}}} if stop < self.count else {})

    def item(self, number: int) -> dict[str, Any]:
        identity = image_id(UP, key(number))
        return {
            "imageId": {"S": identity},
            "status": {"S": "COMPLETED"},
            "bucket": {"S": UP},
            "originalKey": {"S": key(number)},
            "eTag": {"S": "e"},
            "sequencer": {"S": f"{number:032}"},
            "thumbnailKey": {"S": f"thumbnails/{identity}.jpg"},
        }

    def batch_get_item(self, RequestItems: Any) -> dict[str, Any]:
        wanted = [one["imageId"]["S"] for one in RequestItems[TABLE]["Keys"]]
        return {"Responses": {TABLE: [self.item(self.lacking[one]) for one in wanted if one in self.lacking]}}

    def receive_message(self, **_: Any) -> dict[str, Any]:
        return {}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        return {"Attributes": {}}


def compare(everything: Any, checkpoint: Checkpoint, progress: Progress) -> Report:
    stores = Stores(everything, everything, UP, THUMBS, TABLE)
    queues = Queues(everything, "queue", ())
    return reconcile.compare(stores, queues, checkpoint, now=time.time, grace=0, progress=progress)


def main(count: int, file: Path) -> None:
    everything = Everything(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    with Checkpoint.open(file, {}, time.time()) as checkpoint:
        report = compare(everything, checkpoint, Progress(lambda *_: None, lambda _: None))
    result = {
        "images": count,
        "seconds": round(time.monotonic() - began, 1),
        "grownKiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
        "fileKiB": file.stat().st_size // 1024,
        "uploads": report.accounting.uploads,
        "findings": report.total,
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
