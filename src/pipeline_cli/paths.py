"""Where imgpipe keeps things: settings, deployments and local data, caches.

`IMGPIPE_HOME` puts them all into one folder; else the XDG base directories hold them.
"""

import os
from collections.abc import Mapping
from pathlib import Path


def config_home(environ: Mapping[str, str] = os.environ) -> Path:
    """What the operator chose and would miss."""
    return _home(environ, "config", "XDG_CONFIG_HOME", ".config")


def data_home(environ: Mapping[str, str] = os.environ) -> Path:
    """What imgpipe made: deployments' folders, local data."""
    return _home(environ, "data", "XDG_DATA_HOME", ".local/share")


def cache_home(environ: Mapping[str, str] = os.environ) -> Path:
    """What can be made again."""
    return _home(environ, "cache", "XDG_CACHE_HOME", ".cache")


def _home(environ: Mapping[str, str], own: str, variable: str, default: str) -> Path:
    if home := environ.get("IMGPIPE_HOME"):
        return Path(home).expanduser().absolute() / own
    base = environ.get(variable, "")
    # XDG: "All paths must be absolute. If an implementation encounters a relative path, it should ignore it."
    root = Path(base) if base.startswith("/") else Path.home() / default
    return root / "imgpipe"
