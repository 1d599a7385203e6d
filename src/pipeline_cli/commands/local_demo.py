"""`imgpipe local demo`: a pipeline of its own, images through it, and what the other commands show of that."""

import io
import shlex
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from pipeline_cli.context import Context
from pipeline_cli.deployment import LOCAL
from pipeline_cli.errors import SomeFailedError, from_aws
from pipeline_cli.output import Column, Format, escape

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline_cli.local.stages import Stages

LOOK_SECONDS = 0.25
ALARM_SECONDS = 20.0  # locally an alarm takes a second or two
_STATES = {"ALARM": "bold red", "OK": "green", "INSUFFICIENT_DATA": "yellow"}
_ALARMS = (
    Column("name", "Alarm"),
    Column("state", "State", style=lambda state: _STATES.get(str(state), "")),
    Column("reason", "Reason"),
)
_NEXT = """
Next:
  imgpipe local up --detach                 keep a pipeline running, with data that stays
  imgpipe use local                         and talk to it from now on
  imgpipe upload YOUR-PHOTOS --wait
  imgpipe thumbs get KEY
  imgpipe deploy                            the same pipeline on AWS
"""


def demo(
    ctx: typer.Context,
    photos: Path | None = typer.Argument(
        None, metavar="[PHOTOS]", exists=True, help="A folder; else images drawn here."
    ),
) -> None:
    """See the pipeline work, on this machine: a stack is started, images go through it, and all of it is shown.

    It stands beside a local pipeline that is running, and leaves nothing behind.

    \b
    imgpipe local demo
    imgpipe local demo ~/Pictures/2026
    """
    from pipeline_cli.local import starting
    from pipeline_cli.local.instance import Home, stop
    from pipeline_cli.local.samples import make_samples

    context: Context = ctx.obj
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="imgpipe-demo-") as folder:
        own = _own(context, Path(folder), context.stdout)
        home = Home.of(own.environ)
        if photos is None:
            photos = Path(folder) / "photos"
            made = make_samples(photos)
            context.note(f"Drew {len(made)} images, two of them broken.")
        context.note("Starting an emulator of AWS, and the whole stack in it ...")
        try:
            running, _ = starting.start_or_stop(home, home.data, 0)
            context.note(f"It runs at {running.endpoint_url} ({time.monotonic() - began:.1f} s).")
            _upload(own, photos)
            _look_around(own)
        finally:
            stop(home)
    context.note(f"Stopped, and nothing is left of it ({time.monotonic() - began:.1f} s).")
    context.out.console.print(_NEXT.rstrip("\n"), soft_wrap=True)


def _own(context: Context, folder: Path, stdout: TextIO) -> Context:
    """The same terminal, and a home and deployment of the demonstration's own."""
    environ = {name: value for name, value in context.environ.items() if name != "IMGPIPE_OUTPUTS"}
    own = Context(
        environ=environ | {"IMGPIPE_HOME": str(folder)},
        stdin=context.stdin,
        stdout=stdout,
        stderr=context.stderr,
        now=context.now,
        sleep=context.sleep,
    )
    own.options.deployment = LOCAL
    own.options.output = context.options.output or Format.TABLE
    own.options.quiet = context.options.quiet
    return own


def _run(context: Context, *args: str) -> None:
    """Run another command of imgpipe, as its user would."""
    module = import_module(f"pipeline_cli.commands.{args[0]}")
    command = typer.main.get_command(module.app)
    command.main(args=list(args[1:]), prog_name=f"imgpipe {args[0]}", standalone_mode=False, obj=context)


def _show(context: Context, *args: str, title: str) -> None:
    """What the command is for, the command, and what it says."""
    _title(context, title, f"imgpipe {shlex.join(args)}")
    _run(context, *args)


def _title(context: Context, title: str, command: str = "") -> None:
    from rich.text import Text

    console = context.out.console
    console.print()
    console.print(Text(title, style="bold"))
    if command:
        console.print(Text(f"$ {escape(command)}", style="cyan"), soft_wrap=True)


class _Held(io.StringIO):
    """Text that waits until the live display is gone, made for the stream that it is meant for."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    def isatty(self) -> bool:
        return self._stream.isatty()


def _upload(context: Context, photos: Path) -> None:
    """Upload and wait, with the stages shown as images pass them; that some fail is a part of it."""
    args = ("upload", str(photos), "--no-preflight", "--wait")
    _title(context, "Upload, and wait for what becomes of each", f"imgpipe upload {shlex.quote(photos.name)} --wait")
    held = _Held(context.stdout)
    uploading = _own(context, Path(context.environ["IMGPIPE_HOME"]), held)
    uploading.options.quiet = True
    failed: SomeFailedError | None = None
    with _stages_shown(context):
        try:
            _run(uploading, *args)
        except SomeFailedError as error:
            failed = error
    context.stdout.write(held.getvalue())
    context.stdout.flush()
    if failed is not None:
        context.note(f"{failed.message} {failed.hint}")


@contextmanager
def _stages_shown(context: Context) -> Iterator[None]:
    """How many images have reached each stage, drawn again and again on a terminal; elsewhere a line now and then."""
    from pipeline_cli.local.stages import Stages, stages

    console = context.console
    live = console.is_terminal and context.environ.get("TERM") != "dumb"
    over = threading.Event()
    seen: list[Stages] = []

    def look() -> None:
        while True:
            last = over.is_set()
            try:
                now = stages(context.clients, context.deployment)
            except Exception as error:
                if from_aws(error) is None:
                    raise
                return  # the command that is being watched meets the same, and says so
            if now != (seen[-1] if seen else Stages()):
                seen.append(now)
                if not live:
                    context.note(f"  {_sentence(now)}")
            if last:
                return
            over.wait(LOOK_SECONDS)

    watcher = threading.Thread(target=look, daemon=True)
    if not live:
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
        return
    from rich.live import Live

    with Live(console=console, refresh_per_second=8, get_renderable=lambda: _bars(seen[-1] if seen else None)):
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _sentence(now: "Stages") -> str:
    return f"uploaded {now.uploaded}, thumbnails {now.thumbnails}, items {now.items}, dead letters {now.dead_letters}"


def _bars(now: "Stages | None") -> "RenderableType":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    if now is None:
        return grid
    total = max(now.uploaded, 1)
    for label, count, style in (
        ("Uploaded", now.uploaded, "cyan"),
        ("Thumbnails", now.thumbnails, "blue"),
        ("Items", now.items, "green"),
        ("Dead letters", now.dead_letters, "red"),
    ):
        bar = ProgressBar(total, count, width=40, complete_style=style, finished_style=style)
        grid.add_row(Text(f"{label:<13}"), bar, Text(f"{count:>4}"))
    return grid


def _look_around(context: Context) -> None:
    from pipeline_cli.pipeline import metadata, queries

    _show(context, "thumbs", "list", title="The thumbnails")
    query = ("meta", "query", "--min-width", "1500", "--columns", "originalKey,format,width,height,exif.model")
    _show(context, *query, title="A question about the images: which are at least 1500 pixels wide?")
    criteria = queries.Criteria(status=None, limit=1)
    plan = queries.plan(criteria, context.now())
    newest = next(
        metadata.run(context.clients.dynamodb, context.deployment.table, plan, criteria, metadata.Cost()), None
    )
    if newest is not None:
        _show(context, "logs", "--image", str(newest["originalKey"]), title="What the functions logged about one image")
    _show(context, "dlq", "list", title="What failed, and why")
    _title(context, "The alarm that tells the operator so")
    context.out.rows(_alarms(context), _ALARMS, empty="No alarms.")


def _alarms(context: Context) -> list[Any]:
    """The alarms, once one has fired if there is a dead letter to fire for."""
    from pipeline_cli.local.stages import stages
    from pipeline_cli.pipeline.watching.alarms import ALARM, alarms

    expected = stages(context.clients, context.deployment).dead_letters > 0
    deadline = time.monotonic() + ALARM_SECONDS
    while True:
        found = list(alarms(context.clients.cloudwatch, context.deployment.name_prefix))
        if not expected or any(alarm.state == ALARM for alarm in found) or time.monotonic() > deadline:
            return found
        context.sleep(LOOK_SECONDS)
