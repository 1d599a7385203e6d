"""Making the stores agree again: image_processor is invoked for what is missing, as S3 would have invoked it.

Nothing else is told of an image: the handler looks at the object itself, so a repair that comes late, twice or in vain
does no harm. Only objects of the upload bucket are ever named, so what the pipeline puts out is never taken in.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline_cli.errors import ImgpipeError
from pipeline_cli.pipeline.dead_letters.messages import record_of
from pipeline_cli.pipeline.invocations import invoke
from pipeline_cli.pipeline.metadata import get_many
from pipeline_cli.pipeline.reconciling.accounting import Disagreement, Repair
from pipeline_cli.pipeline.reconciling.checkpoint import Work
from pipeline_cli.pipeline.reconciling.listings import Stores
from pipeline_contract.events import Source

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

_AT_ONCE = 8
_BATCH = 100
INVOKED = (Repair.PROCESS, Repair.REPROCESS, Repair.REMOVE)

# AWS's prices for us-east-1 in US dollars, as far as they are public: other regions differ by some tens of percent.
_PER_INVOCATION = 0.20e-6
_PER_GB_SECOND = 16.6667e-6
_PER_S3_READ = 0.4e-6  # GET, HEAD
_PER_S3_WRITE = 5e-6  # PUT, LIST
_PER_SQS_REQUEST = 0.4e-6
_PER_WRITE_UNIT = 0.625e-6  # DynamoDB on demand, an item of up to 1 KB
_WRITE_UNITS = 2 * 3  # an item of up to 2 KB, in the table and two indexes
_SQS_REQUESTS = 1.3  # one to send; receiving and deleting go by the batch
_SECONDS_PER_IMAGE = 0.5  # of image_processor with its default memory, for a photograph of 12 megapixels
_WRITER_GB_SECONDS = 0.25 * 0.01
_DEFAULT_MEMORY_MB = 1769


class LoopError(ImgpipeError):
    """A repair would have made an output of the pipeline its input."""

    code = "OUTPUT_AS_INPUT"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What repairs will take: `seconds` at the rate that is kept to, `usd` roughly, storage not counted."""

    invocations: int
    thumbnails_deleted: int
    seconds: float
    usd: float


@dataclass(frozen=True, slots=True)
class Repaired:
    """What repairs came to; `reason` is why the first that failed did."""

    sent: int
    failed: int
    reason: str | None = None


def record_for(found: Disagreement, stores: Stores) -> dict[str, Any] | None:
    """The S3 event record that repairs it; None when there is nothing to tell image_processor.

    LoopError for anything that is not in the upload bucket.
    """
    if found.source is None:
        return None
    return s3_record(found.source, stores, reprocess=found.finding.repair is Repair.REPROCESS)


def s3_record(source: Source, stores: Stores, *, reprocess: bool) -> dict[str, Any]:
    """The S3 event record that has image_processor look at an object again."""
    if source.bucket != stores.upload_bucket or stores.upload_bucket == stores.thumbnail_bucket:
        raise LoopError(
            f"s3://{source.bucket}/{source.key} is not in the upload bucket {stores.upload_bucket}.",
            "Check the deployment: imgpipe outputs",
        )
    record = record_of(source)
    return {**record, "reprocess": True} if reprocess else record


def memory_of(lambda_: "LambdaClient", function: str) -> int:
    """MB that a function has."""
    return lambda_.get_function_configuration(FunctionName=function).get("MemorySize", _DEFAULT_MEMORY_MB)


def estimate(invocations: int, thumbnails: int, memory_mb: int, rate: float) -> Estimate:
    """What so many invocations and deleted thumbnails cost."""
    each = (
        _PER_INVOCATION * 1.1  # and a tenth of one of db_writer
        + _PER_GB_SECOND * (_SECONDS_PER_IMAGE * memory_mb / 1024 + _WRITER_GB_SECONDS)
        + 3 * _PER_S3_READ
        + 2 * _PER_S3_WRITE  # a put that finds a thumbnail is made again
        + _SQS_REQUESTS * _PER_SQS_REQUEST
        + _WRITE_UNITS * _PER_WRITE_UNIT
    )
    # Deleting an object costs nothing.
    return Estimate(invocations, thumbnails, (invocations + thumbnails) / rate, invocations * each)


def carry_out(
    work: Iterable[Work],
    lambda_: "LambdaClient",
    function: str,
    stores: Stores,
    *,
    most: int,
    rate: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
    done: Callable[[Sequence[Work]], None],
) -> Repaired:
    """Carries out repairs, at most `most`, at most `rate` a second; `done` is told of those that were accepted.

    Stops when a whole batch was refused: the next one would be too.
    """
    sent = failed = 0
    reason: str | None = None
    step = max(1, min(_BATCH, int(rate)))
    source = iter(work)
    with ThreadPoolExecutor(_AT_ONCE, "repairing") as pool:
        while sent + failed < most and (batch := list(islice(source, min(step, most - sent - failed)))):
            began = monotonic()
            orphans = [one for one in batch if one.repair is Repair.DELETE_THUMBNAIL]
            known = get_many(stores.dynamodb, stores.table, [one.image_id for one in orphans]) if orphans else {}
            outcomes = list(pool.map(lambda one: _carry_out(one, lambda_, function, stores, known), batch))  # noqa: B023
            accepted = [one for one, why in zip(batch, outcomes, strict=True) if why is None]
            done(accepted)
            sent += len(accepted)
            failed += len(batch) - len(accepted)
            reason = reason or next((why for why in outcomes if why is not None), None)
            if not accepted:
                break
            sleep(max(0.0, len(batch) / rate - (monotonic() - began)))
    return Repaired(sent, failed, reason)


def _carry_out(
    work: Work, lambda_: "LambdaClient", function: str, stores: Stores, known: Mapping[str, Any]
) -> str | None:
    """None when it was accepted, else why not."""
    if work.record is not None:
        return invoke(lambda_, function, [work.record])
    if work.image_id in known:
        return None  # an item has come: the thumbnail is no orphan any more
    return _delete(stores, work.thumbnails)


def _delete(stores: Stores, keys: Iterable[str]) -> str | None:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        for key in keys:
            stores.s3.delete_object(Bucket=stores.thumbnail_bucket, Key=key)
    except (ClientError, BotoCoreError) as error:
        return str(error)
    return None


def pending(take: Callable[[int, int], list[Work]]) -> Iterator[Work]:
    """The work that `take(after, limit)` gives, in bites."""
    after = 0
    while batch := take(after, _BATCH):
        yield from batch
        after = batch[-1].number
