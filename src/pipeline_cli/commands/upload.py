import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.errors import ExitCode, SomeFailedError
from pipeline_cli.output import Column, Format, escape, size, to_json

if TYPE_CHECKING:
    from pipeline_cli.pipeline.upload_summary import Summary, Tally
    from pipeline_cli.pipeline.uploads import Upload

app = App()

_COLUMNS = (
    Column("action", "Action"),
    Column("key", "Key"),
    Column("path", "File"),
    Column("size", "Size", right=True, show=size),
    Column("imageId", "Image"),
    Column("checksum", "Checksum"),
    Column("outcome", "Outcome"),
    Column("code", "Code"),
    Column("reason", "Reason"),
)
_PLANNED = tuple(column for column in _COLUMNS if column.name in ("action", "key", "size", "code", "reason"))


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
    concurrency: int = typer.Option(64, metavar="N", min=1, max=1000, help="Requests at once, at most."),
    manifest: Path = typer.Option(None, metavar="FILE", help="Write one JSON line per file."),
    read_timeout: float = typer.Option(60, metavar="S", min=0.1, help="Give a request up when nothing moves so long."),
) -> None:
    """Upload images. A file whose content is there already is not sent again.

    \b
    imgpipe upload photo.jpg
    imgpipe upload ./photos --prefix 2026/
    imgpipe upload ./photos --exclude "*.mov" --dry-run
    find . -newer last -print0 | imgpipe upload -
    """
    from pipeline_cli.pipeline.preflight import Limits
    from pipeline_cli.pipeline.selection import Selection, normal_prefix, select
    from pipeline_cli.pipeline.upload_summary import Tally
    from pipeline_cli.pipeline.uploads import Rules, uploader

    context: Context = ctx.obj
    bucket = context.deployment.upload_bucket
    files = select(Selection(paths, prefix, include, exclude, hidden), context.stdin.buffer)
    if not dry_run:
        context.announce(f"Uploading to s3://{bucket}/{normal_prefix(prefix)}")
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
        ca_bundle=context.environ.get("AWS_CA_BUNDLE"),
    )
    tally = Tally()
    started = time.monotonic()
    interrupted = False
    with contextlib.ExitStack() as stack:
        results: Iterator[Upload] = _counted(sending.run(files), tally)
        if manifest:
            results = _written(results, stack.enter_context(manifest.open("w", encoding="utf-8")))
        try:
            _show(context, results, dry_run=dry_run)
        except KeyboardInterrupt:
            interrupted = True
    summary = tally.summary(seconds=time.monotonic() - started, dry_run=dry_run, interrupted=interrupted)
    _finish(context, summary)


def _counted(results: "Iterator[Upload]", tally: "Tally") -> "Iterator[Upload]":
    for done in results:
        tally.add(done)
        yield done


def _written(results: "Iterator[Upload]", manifest: TextIO) -> "Iterator[Upload]":
    for done in results:
        manifest.write(to_json(done) + "\n")
        yield done


def _show(context: Context, results: "Iterator[Upload]", *, dry_run: bool) -> None:
    match context.out.format:
        case Format.JSON:
            for _ in results:
                pass
        case Format.TABLE:
            shown = results if dry_run else (done for done in results if done.code)
            context.out.rows(shown, _PLANNED)
        case _:
            context.out.rows(results, _COLUMNS)


def _finish(context: Context, summary: "Summary") -> None:
    rate = f"{size(summary.bytes_sent)} in {summary.seconds:.1f} s" if summary.bytes_sent else ""
    context.note(summary.sentence() + (f" ({rate})" if rate else ""))
    if context.out.format is Format.JSON:
        context.out.record(summary)
    if summary.interrupted:
        context.note("Run the same command again: only the rest is sent.")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if summary.not_done:
        first = summary.failures[0]
        raise SomeFailedError(
            f"{summary.not_done:,} of {summary.files:,} files were not uploaded, the first: "
            f"{escape(first.key or first.path)}: {first.code}: {first.reason}",
            "Files that the pipeline would refuse can be sent all the same: --no-preflight" if summary.refused else "",
        )
