"""What the wheel carries along: the sources of both functions and the Terraform module, and zips made of them.

Lambda zips are made without Docker: pip (or uv) fetches the wheels of the function's platform, by the hashes in the
function's requirements, and what the handlers never load is left out. The same sources and the same tools make the
same bytes.
"""

import hashlib
import importlib.util
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pipeline_cli
import pipeline_contract
from pipeline_cli.errors import ConfigurationError, ImgpipeError, UsageError

FUNCTIONS = ("image_processor", "db_writer")
RUNTIME = "3.13"  # as terraform/functions.tf has it
MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}  # as Lambda and as wheels call them
MAX_ZIP_BYTES = 50 * 1024**2  # Lambda: a zip that is uploaded directly
MAX_UNPACKED_BYTES = 250 * 1024**2  # Lambda: a zip's contents
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first moment: the same input makes the same bytes

# What no handler loads, by the name inside the zip: formats outside the allow-list, drawing, fonts, windows, and what
# only a type checker or an installer reads. Licences stay.
_UNUSED = (
    "bin/*",
    ".lock",
    "*.pyi",
    "*/py.typed",
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.dist-info/top_level.txt",
    "*.dist-info/WHEEL",
    "*.dist-info/sboms/*",
    "PIL/_imagingft.*",
    "PIL/_imagingmath.*",
    "PIL/_imagingmorph.*",
    "PIL/_imagingtk.*",
    "PIL/_tkinter_finder.py",
    "PIL/__main__.py",
    "PIL/ContainerIO.py",
    "PIL/GdImageFile.py",
    "PIL/ImageDraw*.py",
    "PIL/ImageFont.py",
    "PIL/ImageGrab.py",
    "PIL/ImageMath.py",
    "PIL/ImageMorph.py",
    "PIL/ImageQt.py",
    "PIL/ImageShow.py",
    "PIL/ImageText.py",
    "PIL/ImageTk.py",
    "PIL/ImageWin.py",
    "PIL/*FontFile.py",
    "PIL/PSDraw.py",
    "PIL/PdfParser.py",
    "PIL/TarIO.py",
    "PIL/WalImageFile.py",
    "PIL/features.py",
    "PIL/report.py",
    "isal/igzip.py",
    "isal/igzip_threaded.py",
    # Libraries of _imagingft alone.
    "pillow.libs/libbrotli*",
    "pillow.libs/libfreetype*",
    "pillow.libs/libharfbuzz*",
    "pillow.libs/libpng*",
)
_PLUGIN = "PIL/*ImagePlugin.py"
# A JPEG of several pictures is opened by Mpo.
_USED_PLUGINS = frozenset(
    f"PIL/{name}ImagePlugin.py" for name in ("Avif", "Bmp", "Gif", "Jpeg", "Mpo", "Png", "Tiff", "WebP")
)


@dataclass(frozen=True, slots=True)
class Part:
    """A package inside a zip; `bytes_` are unpacked, its bytecode included."""

    name: str
    files: int
    bytes_: int


@dataclass(frozen=True, slots=True)
class BuiltZip:
    """A zip for Lambda. `compiled_by` is the interpreter that made its bytecode; None: it holds sources alone."""

    function: str
    path: str
    arch: str
    runtime: str
    bytes_: int
    unpacked_bytes: int
    sha256: str
    compiled_by: str | None
    parts: tuple[Part, ...]


def source_folder(name: str) -> Path:
    """`lambdas` or `terraform`: inside the installed package, or in the checkout that it came from."""
    installed = Path(pipeline_cli.__file__).parent / "_data" / name
    if installed.is_dir():
        return installed
    return Path(pipeline_cli.__file__).parents[2] / name


def zip_name(function: str, arch: str, *, heic: bool = False) -> str:
    """The name says what is inside, so that a function never gets a zip that was built for another."""
    return f"{function}{'-heic' if heic and _has_heic(function) else ''}-{arch}.zip"


def _has_heic(function: str) -> bool:
    return (source_folder("lambdas") / function / "requirements-heic.txt").is_file()


def host_arch() -> str:
    """This machine's processor as Lambda calls it."""
    return "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"


def code_zip(function: str) -> bytes:
    """A zip of a function's own code and the contract, without libraries: for a host that has them."""
    return _zipped(_own_code(function))


def build(
    out: Path, *, arch: str, runtime: str = RUNTIME, heic: bool = False, environ: Mapping[str, str] = os.environ
) -> Iterator[BuiltZip]:
    """Makes the zips of both functions in `out`, for `arch` (arm64 or x86_64) and CPython `runtime` ("3.13").

    `heic` adds the decoder of HEIC images. UsageError for an unknown processor or runtime, ConfigurationError without
    pip and uv, ImgpipeError when a wheel cannot be had or a zip is larger than Lambda takes.
    """
    if arch not in MACHINES:
        raise UsageError(f"There is no processor {arch} in Lambda.", f"One of: {', '.join(MACHINES)}")
    if not re.fullmatch(r"3\.\d{1,2}", runtime):
        raise UsageError(f"{runtime} is no version of Python.", f"As in: --python {RUNTIME}")
    out.mkdir(parents=True, exist_ok=True)
    for function in FUNCTIONS:
        yield _build_one(function, out / zip_name(function, arch, heic=heic), arch, runtime, heic, environ)


def _build_one(function: str, path: Path, arch: str, runtime: str, heic: bool, environ: Mapping[str, str]) -> BuiltZip:
    with tempfile.TemporaryDirectory(prefix="imgpipe-build-") as temporary:
        folder = Path(temporary) / "zip"
        folder.mkdir()
        _write(_own_code(function), folder)
        for requirements in _requirements(function, heic):
            _install(requirements, folder, MACHINES[arch], runtime, environ)
        _leave_out_unused(folder)
        compiler = find_interpreter(runtime, environ)
        if compiler is not None:
            _compile(folder, compiler)
        contents = {file.relative_to(folder).as_posix(): file.read_bytes() for file in _files(folder)}
        modes = {name for name in contents if os.access(folder / name, os.X_OK) or ".so" in name}
    packed = _zipped(contents, executable=modes)
    unpacked = sum(map(len, contents.values()))
    if len(packed) > MAX_ZIP_BYTES or unpacked > MAX_UNPACKED_BYTES:
        raise ImgpipeError(
            f"The zip of {function} has {len(packed)} bytes, {unpacked} unpacked; Lambda takes {MAX_ZIP_BYTES} and "
            f"{MAX_UNPACKED_BYTES}.",
            code="ZIP_TOO_LARGE",
        )
    _replace(path, packed)
    return BuiltZip(
        function=function,
        path=str(path),
        arch=arch,
        runtime=f"python{runtime}",
        bytes_=len(packed),
        unpacked_bytes=unpacked,
        sha256=hashlib.sha256(packed).hexdigest(),
        compiled_by=compiler,
        parts=tuple(_parts(contents)),
    )


def _own_code(function: str) -> dict[str, bytes]:
    """The function's package and the contract: names inside the zip, and bytes."""
    packages = (source_folder("lambdas") / function, Path(pipeline_contract.__file__).parent)
    if not packages[0].is_dir():
        raise ImgpipeError(f"The sources of {function} are not in {packages[0].parent}.", code="BUILD_FAILED")
    return {
        file.relative_to(package.parent).as_posix(): file.read_bytes()
        for package in packages
        for file in sorted(package.rglob("*.py"))
    }


def _requirements(function: str, heic: bool) -> Iterator[Path]:
    folder = source_folder("lambdas") / function
    for name in ("requirements.txt", *(["requirements-heic.txt"] if heic else [])):
        if (folder / name).is_file():
            yield folder / name


def _install(requirements: Path, folder: Path, machine: str, runtime: str, environ: Mapping[str, str]) -> None:
    """Unpacks the wheels that the requirements name, for another machine than this one.

    manylinux_2_28 is what Amazon Linux 2023 offers; the older manylinux2014 would silently choose an older Pillow.
    """
    common = ["--quiet", "--only-binary", ":all:", "--no-deps", "--require-hashes", "--python-version", runtime]
    target = ["--target", str(folder), "--requirement", str(requirements)]
    if importlib.util.find_spec("pip") is not None:
        tool = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", "--upgrade"]
        wanted = ["--platform", f"manylinux_2_28_{machine}", "--implementation", "cp"]
    elif uv := shutil.which("uv", path=environ.get("PATH")):
        tool, wanted = [uv, "pip", "install"], ["--python-platform", f"{machine}-manylinux_2_28"]
    else:
        raise ConfigurationError(
            "Neither pip nor uv is there to fetch the functions' libraries.",
            f"Install pip for {sys.executable}, or uv.",
            code="NO_PIP",
        )
    result = subprocess.run(
        [*tool, *common, *wanted, *target], env=dict(environ), capture_output=True, text=True, check=False
    )
    if result.returncode:
        said = result.stderr.strip() or result.stdout.strip()
        raise ImgpipeError(
            f"The libraries of {requirements.parent.name} for Python {runtime} on {machine} cannot be had: {said}",
            "Check the network and the package index (PIP_INDEX_URL).",
            code="BUILD_FAILED",
        )


def _leave_out_unused(folder: Path) -> None:
    for file in _files(folder):
        name = file.relative_to(folder).as_posix()
        unused_plugin = fnmatch(name, _PLUGIN) and name not in _USED_PLUGINS
        if unused_plugin or "__pycache__" in file.parts or any(fnmatch(name, pattern) for pattern in _UNUSED):
            file.unlink()


def find_interpreter(runtime: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """A CPython of this version on this machine, or None: bytecode of another version would be ignored."""
    for candidate in _candidates(runtime, environ):
        check = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
        try:
            said = subprocess.run([candidate, "-c", check], capture_output=True, text=True, check=False, timeout=60)
        except OSError:
            continue
        if said.returncode == 0 and said.stdout.split() == ["cpython", runtime]:
            return candidate
    return None


def _candidates(runtime: str, environ: Mapping[str, str]) -> Iterator[str]:
    yield sys.executable
    if found := shutil.which(f"python{runtime}", path=environ.get("PATH")):
        yield found
    pyenv = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    uv = Path(environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    for folder in (*pyenv.glob(f"versions/{runtime}*"), *uv.glob(f"cpython-{runtime}*")):
        yield str(folder / "bin" / f"python{runtime}")


def _compile(folder: Path, interpreter: str) -> None:
    """Bytecode that is used without a look at its source (PEP 552, unchecked-hash): Lambda cannot write any itself.

    A fixed hash seed keeps the order of sets in it, and so its bytes, the same.
    """
    options = ["--invalidation-mode", "unchecked-hash", "-q", "-j", "1", "-s", str(folder), "-p", "/var/task"]
    result = subprocess.run(
        [interpreter, "-I", "-m", "compileall", *options, str(folder)],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise ImgpipeError(f"{interpreter} cannot compile the functions: {result.stdout}", code="BUILD_FAILED")


def _parts(contents: Mapping[str, bytes]) -> Iterator[Part]:
    """What is inside, by package; the shared libraries of a wheel count with its package."""
    names = sorted({_part(name) for name in contents})
    for part in names:
        sizes = [len(data) for name, data in contents.items() if _part(name) == part]
        yield Part(part, len(sizes), sum(sizes))


def _part(name: str) -> str:
    top = name.split("/")[0]
    distribution = re.match(r"([A-Za-z0-9_]+)(?:-[^-]+)?\.(?:dist-info|libs)$", top)
    library = distribution[1].lower() if distribution else top.split(".")[0].lower()
    return {"pil": "pillow", "_pillow_heif": "pillow_heif"}.get(library, library)


def _zipped(contents: Mapping[str, bytes], executable: Iterable[str] = ()) -> bytes:
    marked = frozenset(executable)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(contents):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # Unix, whatever this machine is
            info.external_attr = (0o755 if name in marked else 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, contents[name])
    return buffer.getvalue()


def _write(contents: Mapping[str, bytes], folder: Path) -> None:
    for name, data in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all: an interrupted build leaves no half a zip for Terraform to take."""
    half = path.with_suffix(".part")
    half.write_bytes(data)
    half.replace(path)
