"""Which images are to be processed once more, although nothing is missing: after a change of size or format."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline_cli.pipeline.reconciling.accounting import Repair, own_event
from pipeline_cli.pipeline.reconciling.checkpoint import Work
from pipeline_cli.pipeline.reconciling.listings import Stores, item_state
from pipeline_cli.pipeline.reconciling.repair import s3_record
from pipeline_contract.events import Source
from pipeline_contract.item import KEY, Status

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """What thumbnails a function makes: the sides of their boxes in pixels, and their format."""

    pixels: frozenset[int]
    format: str

    def outdated(self, item: Item) -> bool:
        """Whether an image was completed with other thumbnails."""
        made = {(one.get("pixels"), one.get("format")) for one in item.get("thumbnails") or ()}
        return item.get("status") == Status.COMPLETED and made != {(side, self.format) for side in self.pixels}


@dataclass(frozen=True, slots=True)
class Function:
    """What matters here of image_processor's configuration."""

    memory_mb: int
    thumbnails: Thumbnails


def function_of(lambda_: "LambdaClient", name: str) -> Function:
    """How image_processor is configured."""
    answer = lambda_.get_function_configuration(FunctionName=name)
    environment = answer.get("Environment", {}).get("Variables", {})
    sides = (environment.get("THUMBNAIL_SIZE") or "200", *environment.get("EXTRA_THUMBNAIL_SIZES", "").split(","))
    pixels = frozenset(int(side) for side in sides if side.strip())
    return Function(answer["MemorySize"], Thumbnails(pixels, environment.get("THUMBNAIL_FORMAT", "JPEG").upper()))


def work_of(items: Iterable[Item], stores: Stores, wanted: Callable[[Item], bool]) -> Iterator[Work]:
    """What has image_processor make the wanted images again: only those of the upload bucket that are not deleted."""
    for item in items:
        state = item_state(item)
        if state.status is Status.DELETED or state.bucket != stores.upload_bucket or not state.key or not wanted(item):
            continue
        source = Source(state.bucket, state.key, state.version_id, state.e_tag, event_name="ObjectCreated:Put")
        record = s3_record(own_event(state, source), stores, reprocess=True)
        yield Work(0, Repair.REPROCESS, item[KEY], state.key, (), record)
