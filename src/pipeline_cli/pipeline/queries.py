"""Which images are asked for, and which index answers that by Query alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from pipeline_cli.errors import UsageError
from pipeline_cli.pipeline.expressions import Expression, expression
from pipeline_contract.item import (
    ATTRIBUTES,
    FORMAT_INDEX,
    KEY,
    STATUS_INDEX,
    UPLOAD_DATE_INDEX,
    Status,
    format_month,
    upload_day,
)
from pipeline_contract.kinds import MIME_TYPES
from pipeline_contract.times import format_time

# How far a query without --since walks back. An empty partition costs half a read unit, so this is cents a million.
LOOK_BACK_DAYS = 90
LOOK_BACK_MONTHS = 24
MAX_PARTITIONS = 20_000
_FORMATS = {"JPG": "JPEG", "TIF": "TIFF", "HEIC": "HEIF"}
ITEM_FIELDS = ATTRIBUTES | {KEY, "createdAt"}
FREE_FIELDS = ("exif",)  # whatever an image's EXIF says


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is asked for; None is anything. Sizes in pixels, `*_bytes` in bytes, `limit` None is all."""

    since: datetime | None = None
    until: datetime | None = None
    status: Status | None = None
    format: str | None = None
    camera: str | None = None
    name: str | None = None
    min_width: int | None = None
    max_width: int | None = None
    min_height: int | None = None
    max_height: int | None = None
    min_bytes: int | None = None
    max_bytes: int | None = None
    where: Expression | None = None
    limit: int | None = None

    @property
    def image_format(self) -> str | None:
        """The format as items spell it."""
        return None if self.format is None else _FORMATS.get(self.format.upper(), self.format.upper())

    def matches(self, item: Mapping[str, Any]) -> bool:
        return all(test(item) for _, test in self._tests())

    def tested_fields(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._tests())

    def _tests(self) -> list[tuple[str, Callable[[Mapping[str, Any]], bool]]]:
        tests: list[tuple[str, Callable[[Mapping[str, Any]], bool]]] = []
        if self.since or self.until:
            low = format_time(self.since) if self.since else ""
            high = format_time(self.until) if self.until else "~"
            tests.append(("uploadDate", lambda item: low <= str(item.get("uploadDate") or "") <= high))
        if self.status:
            tests.append(("status", lambda item: item.get("status") == self.status))
        if self.format:
            tests.append(("format", lambda item: item.get("format") == self.image_format))
        if self.camera:
            tests.append(("camera", self._camera_fits))
        if self.name:
            tests.append(("name", self._name_fits))
        for label, low_bound, high_bound in (
            ("width", self.min_width, self.max_width),
            ("height", self.min_height, self.max_height),
            ("fileSize", self.min_bytes, self.max_bytes),
        ):
            if low_bound is not None or high_bound is not None:
                tests.append((label, _between(label, low_bound, high_bound)))
        if self.where:
            tests.append(("where", self.where.matches))
        return tests

    def _camera_fits(self, item: Mapping[str, Any]) -> bool:
        wanted = (self.camera or "").lower()
        known = camera(item).lower()
        return fnmatchcase(known, wanted) if any(sign in wanted for sign in "*?[") else wanted in known

    def _name_fits(self, item: Mapping[str, Any]) -> bool:
        key, pattern = str(item.get("originalKey") or ""), self.name or ""
        return fnmatchcase(key, pattern) or fnmatchcase(key.rsplit("/", 1)[-1], pattern)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a query is answered. `index` None is a scan.

    `partitions` are groups, newest first; the partitions of one group (shards of a day) are merged by `sort_key`.
    `filtered_by` names what the index cannot decide and is checked on each item that it returns.
    """

    index: str | None
    partition_key: str = ""
    sort_key: str = ""
    partitions: tuple[tuple[str, ...], ...] = ()
    since: str | None = None
    until: str | None = None
    filtered_by: tuple[str, ...] = ()
    searched_back_to: str | None = None

    @property
    def key_condition(self) -> str | None:
        if self.index is None:
            return None
        first, last = self.partitions[-1][0], self.partitions[0][-1]
        text = f"{self.partition_key} = {first}" if first == last else f"{self.partition_key} in {first} .. {last}"
        if self.since:
            text += f" and {self.sort_key} >= {self.since}"
        if self.until:
            text += f" and {self.sort_key} <= {self.until}"
        return text


def item_condition(text: str) -> Expression:
    """A condition on items; UsageError names the field that none can have."""
    return expression(text, ITEM_FIELDS, FREE_FIELDS)


def plan(criteria: Criteria, now: float, *, shards: int = 1, scan: bool = False) -> Plan:
    """The index that answers with the fewest reads; UsageError where only a scan would and none was asked for."""
    tested = criteria.tested_fields()
    if criteria.format and criteria.image_format not in MIME_TYPES:
        raise UsageError(
            f"--format: the pipeline makes nothing of {criteria.format}.",
            f"There is: {', '.join(MIME_TYPES)}. Of what another program wrote: --where \"format == 'NAME'\"",
        )
    if scan:
        return Plan(None, filtered_by=tested)
    if criteria.status is Status.DELETED:
        raise UsageError(
            "No index holds deleted images: finding them reads the whole table.",
            "If that is what you want: imgpipe meta query --status DELETED --scan",
            code="SCAN_NEEDED",
        )
    if criteria.since and criteria.until and criteria.since > criteria.until:
        raise UsageError("--since is later than --until.")
    present = datetime.fromtimestamp(now, UTC)
    since = format_time(criteria.since) if criteria.since else None
    until = format_time(criteria.until) if criteria.until else None
    # Processing cannot come before the upload, so an image uploaded since is updated since.
    if criteria.status is Status.FAILED:
        rest = tuple(name for name in tested if name != "status")
        return Plan(STATUS_INDEX, "attention", "updatedAt", ((Status.FAILED,),), since=since, filtered_by=rest)
    # A clock may be ahead of ours: tomorrow is looked at too.
    last = criteria.until or present + timedelta(days=1)
    if criteria.format:
        first = criteria.since or _months_back(last, LOOK_BACK_MONTHS)
        months = _months(first, last, criteria.image_format or "")
        index, partition_key, partitions, decided = FORMAT_INDEX, "formatMonth", months, {"uploadDate", "format"}
    else:
        first = criteria.since or last - timedelta(days=LOOK_BACK_DAYS)
        days = _days(first, last, shards)
        index, partition_key, partitions, decided = UPLOAD_DATE_INDEX, "uploadDay", days, {"uploadDate"}
    return Plan(
        index,
        partition_key,
        "uploadDate",
        partitions,
        since,
        until,
        tuple(name for name in tested if name not in decided),
        None if criteria.since else first.date().isoformat(),
    )


def camera(item: Mapping[str, Any]) -> str:
    """Maker and model of the camera, in one text; empty when the EXIF does not tell."""
    exif = item.get("exif")
    if not isinstance(exif, Mapping):
        return ""
    maker, model = (str(exif.get(name) or "").strip() for name in ("make", "model"))
    return model if model.lower().startswith(maker.lower()) else f"{maker} {model}".strip()


def _between(name: str, low: int | None, high: int | None) -> Callable[[Mapping[str, Any]], bool]:
    def test(item: Mapping[str, Any]) -> bool:
        value = item.get(name)
        return isinstance(value, int | float) and (low is None or value >= low) and (high is None or value <= high)

    return test


def _days(first: datetime, last: datetime, shards: int) -> tuple[tuple[str, ...], ...]:
    count = (last.date() - first.date()).days + 1
    _bounded(count * shards)
    days = ((last - timedelta(days=back)).strftime("%Y-%m-%d") for back in range(count))
    return tuple(tuple(upload_day(day, shard) for shard in range(shards)) for day in days)


def _months(first: datetime, last: datetime, image_format: str) -> tuple[tuple[str, ...], ...]:
    count = (last.year - first.year) * 12 + last.month - first.month + 1
    _bounded(count)
    return tuple((format_month(image_format, format_time(_months_back(last, back))),) for back in range(count))


def _months_back(moment: datetime, months: int) -> datetime:
    """The first moment of the month that lies so many months before."""
    number = moment.year * 12 + moment.month - 1 - months
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def _bounded(partitions: int) -> None:
    if partitions > MAX_PARTITIONS:
        raise UsageError(
            f"That range has {partitions} partitions; a query reads at most {MAX_PARTITIONS}.", "Give a later --since."
        )
