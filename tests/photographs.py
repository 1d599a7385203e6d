"""Real photographs, where there are any: `$IMGPIPE_PHOTOS`, or `../shared/photos` beside the checkout."""

import os
from pathlib import Path

# Read at import: each test's own environment has no IMGPIPE_ variables.
FOLDER = Path(os.environ.get("IMGPIPE_PHOTOS") or Path(__file__).resolve().parents[2] / "shared" / "photos")


def photographs(*suffixes: str) -> list[Path]:
    """The files with one of these suffixes, all without any; none where the folder is not there."""
    if not FOLDER.is_dir():
        return []
    return sorted(path for path in FOLDER.iterdir() if path.is_file() and (not suffixes or path.suffix in suffixes))
