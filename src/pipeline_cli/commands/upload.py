import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import ExitCode, SomeFailedError, WaitTimeoutError, from_aws
from pipeline_cli.output import Column, Format, size, to_json

if TYPE_CHECKING:
    from pipeline_cli.commands.upload_progress import Progress
    from pipeline_cli.pipeline.outcomes import Waiter
    from pipeline_cli.pipeline.uploading.records import Upload
    from pipeline_cli.pipeline.uploading.selection import LocalFile, Selection, Unusable
    from pipeline_cli.pipeline.uploading.summary import Summary, Tally

app = App()

_COLUMNS = (
    Column("action", "Action"),
    Column("outcome", "Outcome"),
    Column("key", "Key"),
    Column("path", "File"),
    Column("size", "Size", right=True, show=size),
    Column("imageId", "Image"),
    Column("checksum", "Checksum"),
    Column("code", "Code"),
    Column("reason", "Reason"),
)
_FOR_PEOPLE = tuple(column for column in _COLUMNS if column.name not in ("path", "imageId", "checksum"))
_FEW = 20  # so many files are shown one by one, and so many failures named in a note


@app.command()
def upload(
    ctx: typer.Context,
    paths: list[str] = typer.Argument(..., metavar="PATH...", help="Files, folders, globs, or - for a list on stdin."),
    prefix: str = typer.Option("", metavar="P", help="Put it before every key, as a folder."),
    include: list[str] = typer.Option([], metavar="GLOB", help="Take only what matches; may be repeated."),
    exclude: list[str] = typer.Option([], metavar="GLOB", help="Leave out what matches; may be repeated."),
    hidden: bool = typer.Option(False, "--hidden", help="Take hidden files and folders too."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would happen; send nothing."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Send everything, whatever is there already."),
    no_preflight: bool = typer.Option(False, "--no-preflight", help="Send what the pipeline would refuse."),
    wait: bool = typer.Option(False, "--wait", help="Wait until the pipeline is done with every image."),
    timeout: float = typer.Option(600, metavar="S", min=0, help="Seconds to --wait once all is sent."),
    concurrency: int = typer.Option(64, metavar="N", min=1, max=1000, help="Requests at once, at most."),
    manifest: Path = typer.Option(None, metavar="FILE", help="Write one JSON line per file."),
    read_timeout: float = typer.Option(60, metavar="S", min=0.1, help="Repeat a request when nothing moves so long."),
) -> None:
    """Upload images. A file whose content is there already is not sent again.

    Keys are relative to the folder that is named. Includes and excludes have no order.

    \b
    imgpipe upload photo.jpg
    imgpipe upload ./photos --prefix 2026/ --wait
    imgpipe upload ./photos --exclude "*.mov" --dry-run
    find . -newer last -print0 | imgpipe upload -
    """
    from pipeline_cli.commands.upload_progress import progress
    from pipeline_cli.pipeline.uploading.preflight import Limits
    from pipeline_cli.pipeline.uploading.records import Rules
    from pipeline_cli.pipeline.uploading.selection import STDIN, Selection, normal_prefix, select
    from pipeline_cli.pipeline.uploading.summary import Tally
    from pipeline_cli.pipeline.uploading.uploads import uploader

    context: Context = ctx.obj
    bucket = context.deployment.upload_bucket
    selection = Selection(paths, prefix, include, exclude, hidden)
    files = select(selection, context.stdin.buffer if STDIN in paths else None)
    if not dry_run:
        context.announce(f"Uploading to s3://{bucket}/{normal_prefix(prefix)}")
        files = _warned(context, selection, files)
    sending = uploader(
        context.clients.s3,
        context.clients.session.get_credentials(),
        bucket,
        Rules(
            limits=None if no_preflight else Limits.of(context.deployment.outputs),
            overwrite=overwrite,
            dry_run=dry_run,
            concurrency=concurrency,
            read_timeout=read_timeout,
        ),
        ca_bundle=context.clients.session.get_config_variable("ca_bundle"),
    )
    waiter = _waiter(context, bucket) if wait and not dry_run else None
    tally = Tally()
    started = time.monotonic()
    with ExitStack() as stack:
        written = stack.enter_context(manifest.open("w", encoding="utf-8", buffering=1)) if manifest else None
        display = stack.enter_context(progress(context, sending.meter, _counter(selection)))
        results = _counted(sending.run(files), tally, display, started)
        if waiter is not None:
            results = _followed(waiter, results, timeout, tally, display)
        if written is not None:
            results = _written(results, written)
        try:
            _show(context, _until_interrupted(results, tally), everything=dry_run)
        except KeyboardInterrupt:
            tally.interrupted = True
    summary = tally.summary(
        dry_run=dry_run,
        latencies=waiter.latencies if waiter else None,
        left_out=selection.left_out,
    )
    _finish(context, summary, waited=waiter is not None)


def _warned(
    context: Context, selection: "Selection", files: "Iterator[LocalFile | Unusable]"
) -> "Iterator[LocalFile | Unusable]":
    """The same files, after a warning where Lambda would not get through all of them in time."""
    from pipeline_cli.pipeline.uploading.lambda_capacity import LARGE_BATCH, forecast

    first = list(itertools.islice(files, LARGE_BATCH))
    function = context.deployment.outputs.get("image_processor_function_name")
    if len(first) == LARGE_BATCH and function:
        count = _counter(selection)
        try:
            expected = forecast(context.clients.lambda_, function, count() if count else LARGE_BATCH)
        except Exception as error:
            known = from_aws(error)
            if known is None:
                raise
            context.note(f"Lambda's concurrency is not known: {known.message}")
        else:
            if expected.too_long:
                context.note(expected.warning())
    return itertools.chain(first, files)


def _counter(selection: "Selection") -> Callable[[], int] | None:
    """How to count the files, unless they come from stdin."""
    from pipeline_cli.pipeline.uploading.selection import STDIN, count

    return None if STDIN in selection.paths else lambda: count(selection)


def _waiter(context: Context, bucket: str) -> "Waiter":
    from pipeline_cli.pipeline.dead_letters.burials import Burials
    from pipeline_cli.pipeline.dead_letters.queues import Queue
    from pipeline_cli.pipeline.outcomes import Waiter
    from pipeline_contract.failures import Stage

    queues = (
        Queue(Stage.IMAGE_PROCESSOR, context.deployment.image_dlq_url),
        Queue(Stage.DB_WRITER, context.deployment.metadata_dlq_url),
    )
    return Waiter(
        context.clients.dynamodb,
        context.deployment.table,
        context.clients.s3,
        bucket,
        Burials(context.clients.sqs, queues),
        now=context.now,
        sleep=context.sleep,
    )


def _until_interrupted(results: "Iterator[Upload]", tally: "Tally") -> "Iterator[Upload]":
    """Ends where Ctrl-C stops the work, so that what was done before is shown."""
    try:
        yield from results
    except KeyboardInterrupt:
        tally.interrupted = True


def _counted(results: "Iterator[Upload]", tally: "Tally", display: "Progress", started: float) -> "Iterator[Upload]":
    for done in results:
        tally.add(done)
        tally.seconds = time.monotonic() - started
        display.uploaded(done)
        yield done


def _followed(
    waiter: "Waiter", results: "Iterator[Upload]", timeout: float, tally: "Tally", display: "Progress"
) -> "Iterator[Upload]":
    def waiting(count: int) -> None:
        display.waiting_for(count, waiter.latencies)

    for done in waiter.run(results, timeout=timeout, on_waiting=waiting):
        tally.add_outcome(done)
        display.resolved(done)
        yield done


def _written(results: "Iterator[Upload]", manifest: TextIO) -> "Iterator[Upload]":
    for done in results:
        manifest.write(to_json(done) + "\n")
        yield done


def _show(context: Context, results: "Iterator[Upload]", *, everything: bool) -> None:
    """Programs are told of every file, people of a few, or of those that failed."""
    match context.out.format:
        case Format.JSON:
            for _ in results:
                pass
        case Format.TABLE:
            shown = results if everything else _few_or_failed(results)
            context.out.rows(map(_named, shown), _FOR_PEOPLE)
        case _:
            context.out.rows(results, _COLUMNS)


def _named(done: "Upload") -> "Upload":
    """With a printable form of its name where it has no key: the table must say which file it is about."""
    if done.key:
        return done
    return replace(done, key=os.fsencode(Path(done.path).name).decode("utf-8", "backslashreplace"))


def _few_or_failed(results: "Iterator[Upload]") -> "Iterator[Upload]":
    first = list(itertools.islice(results, _FEW + 1))
    if len(first) <= _FEW:
        yield from first
    else:
        yield from (done for done in itertools.chain(first, results) if done.code)


def _some_failed(summary: "Summary") -> SomeFailedError:
    said, hints = [], []
    if summary.not_done:
        said.append(f"{summary.not_done:,} of {summary.files:,} files were not uploaded.")
    if summary.gone_wrong:
        said.append(f"The pipeline failed on {summary.gone_wrong:,} images.")
        hints.append("See: imgpipe dlq list")
    if summary.refused:
        hints.append("What the pipeline would refuse can be sent all the same: --no-preflight")
    return SomeFailedError(" ".join(said), ". ".join(hints))


def _finish(context: Context, summary: "Summary", *, waited: bool) -> None:
    sent = f" ({size(summary.bytes_sent)} in {summary.seconds:.1f} s)" if summary.bytes_sent else ""
    context.note(summary.sentence() + sent)
    if left_out := summary.left_out_sentence():
        context.note(left_out)
    if summary.outcomes:
        context.note(summary.outcome_sentence())
    if context.out.format is Format.JSON:
        context.out.record(summary)
    if context.out.format is not Format.TABLE:
        for failure in summary.failures[:_FEW]:
            context.note(f"{failure.key or failure.path}: {failure.what}: {failure.code}: {failure.reason}")
    if summary.interrupted:
        context.note(summary.interrupted_sentence(waited=waited))
        context.note("Run the same command again: only the rest is sent.")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if summary.not_done or summary.gone_wrong:
        raise _some_failed(summary)
    if waited and summary.in_flight:
        raise WaitTimeoutError(
            f"{summary.in_flight:,} images are not through yet.",
            "Run the same command again to go on waiting, or see: imgpipe status",
        )
