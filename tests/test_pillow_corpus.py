"""The images of Pillow's own tests: broken, odd and hostile ones, each of which ends in a thumbnail or in a code.

They come with Pillow's source distribution, which is downloaded once for this test and kept in pytest's cache;
`$IMGPIPE_PILLOW_SDIST` names one that is there already. Where neither can be had, the test is skipped.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import PIL
import pytest

from image_processor.decoders import open_image
from image_processor.settings import ImageSettings
from isolated import Outcome, rendered_apart
from pipeline_contract.failures import FailureClass, FailureCode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="watches forked children through /proc"),
]

# Read at import: each test's own environment has no IMGPIPE_ variables.
GIVEN = os.environ.get("IMGPIPE_PILLOW_SDIST")
MEMORY_MB = 400
CPU_SECONDS = 2


@pytest.fixture(scope="module")
def source(request: pytest.FixtureRequest) -> Path:
    if GIVEN:
        return Path(GIVEN)
    folder = request.config.cache.mkdir(f"pillow-{PIL.__version__}") if request.config.cache else None
    if folder is None:
        pytest.skip("pytest has no cache folder to keep Pillow's source in")
    if not list(folder.glob("*.tar.gz")):
        pip = [sys.executable, "-m", "pip"] if has_pip() else [shutil.which("pip3") or shutil.which("pip") or ""]
        if not pip[0]:
            pytest.skip("no pip to download Pillow's source with; name one in IMGPIPE_PILLOW_SDIST")
        command = [*pip, "download", "--quiet", "--no-deps", "--no-binary", "pillow", "--dest", str(folder)]
        done = subprocess.run([*command, f"pillow=={PIL.__version__}"], capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"Pillow's source cannot be downloaded: {done.stderr.strip().splitlines()[-1:]}")
    return next(folder.glob("*.tar.gz"))


def has_pip() -> bool:
    return subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def outcomes(source: Path) -> dict[str, Outcome]:
    for image_format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        with pytest.raises(Exception):  # noqa: B017, PT011  # loads the plugin here, not in each of the children
            open_image(b"", image_format)
    found = {}
    with tarfile.open(source) as archive:
        for member in archive:
            name = member.name.partition("/Tests/images/")[2]
            file = archive.extractfile(member) if name and member.isfile() else None
            if file is not None:
                found[name] = rendered_apart(file.read(), ImageSettings())
    return found


def test_each_ends_in_a_thumbnail_or_a_code(outcomes: dict[str, Outcome]) -> None:
    allowed = {"OK", *(code for code in FailureCode if code.failure_class is FailureClass.PERMANENT)}
    odd = {name: outcome for name, outcome in outcomes.items() if outcome.result not in allowed}
    assert odd == {}
    assert len(outcomes) > 1000


def test_none_takes_long_or_much(outcomes: dict[str, Outcome]) -> None:
    greedy = {
        name: outcome
        for name, outcome in outcomes.items()
        if outcome.cpu_seconds > CPU_SECONDS or outcome.memory_mb > MEMORY_MB
    }
    assert greedy == {}


def test_most_are_images(outcomes: dict[str, Outcome]) -> None:
    """So that the codes are not had by refusing everything."""
    results = Counter(outcome.result for outcome in outcomes.values())
    assert results["OK"] > 650
    assert results["CORRUPT"] + results["TRUNCATED"] < 50
