"""What the wheel carries along: the sources of both functions and the Terraform module, and zips made of them."""

import io
import zipfile
from pathlib import Path

import pipeline_cli
import pipeline_contract

FUNCTIONS = ("image_processor", "db_writer")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment: the same input makes the same bytes


def source_folder(name: str) -> Path:
    """`lambdas` or `terraform`: inside the installed package, or in the checkout that it came from."""
    installed = Path(pipeline_cli.__file__).parent / "_data" / name
    if installed.is_dir():
        return installed
    return Path(pipeline_cli.__file__).parents[2] / name


def code_zip(function: str) -> bytes:
    """A zip of a function's own code and the contract, without libraries: for a host that has them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in (source_folder("lambdas") / function, Path(pipeline_contract.__file__).parent):
            for file in sorted(package.rglob("*.py")):
                info = zipfile.ZipInfo(file.relative_to(package.parent).as_posix(), _EPOCH)
                info.external_attr = 0o644 << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, file.read_bytes())
    return buffer.getvalue()
