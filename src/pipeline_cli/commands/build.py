from pathlib import Path

import typer

from pipeline_cli.cli import App
from pipeline_cli.context import Context
from pipeline_cli.output import Column, size
from pipeline_cli.pipeline import packaging

app = App()


@app.command()
def build(
    ctx: typer.Context,
    out: Path = typer.Option(Path("build"), metavar="FOLDER", help="Where to put the zips."),
    arch: str = typer.Option("arm64", help="The functions' processor: arm64 or x86_64."),
    python: str = typer.Option(packaging.RUNTIME, metavar="X.Y", help="The functions' version of Python."),
    heic: bool = typer.Option(False, "--heic", help="Add the decoder of HEIC, the format of phones (6 MB)."),
) -> None:
    """Make the zips of both functions, without Docker. `imgpipe deploy` does it by itself.

    \b
    imgpipe build
    imgpipe build --arch x86_64 --out terraform/build
    imgpipe build --heic --output json
    """
    context: Context = ctx.obj
    context.note(f"Building for python{python} on {arch}; the libraries come from the package index.")
    zips = list(packaging.build(out, arch=arch, runtime=python, heic=heic, environ=context.environ))
    context.out.rows(
        zips,
        (
            Column("path", "Zip"),
            Column("bytes", "Size", right=True, show=size),
            Column("unpackedBytes", "Unpacked", right=True, show=size),
            Column("parts", "Contents", show=_contents),
            Column("sha256", "SHA-256", show=lambda digest: str(digest)[:12]),
        ),
    )
    compiler = zips[0].compiled_by
    context.note(
        f"Bytecode by {compiler}."
        if compiler
        else f"No Python {python} was found here: the zips hold sources without bytecode, and start more slowly."
    )


def _contents(parts: list[dict[str, object]]) -> str:
    return ", ".join(f"{part['name']} {size(part['bytes'])}" for part in parts)
