"""What the local pipeline is doing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline_cli.local.instance import Home


@dataclass(frozen=True, slots=True)
class LocalStatus:
    running: bool
    endpoint_url: str | None
    since: datetime | None
    pid: int | None
    data: str
    log: str


def status(environ: Mapping[str, str]) -> LocalStatus:
    """Whether the local pipeline runs, and where its things are."""
    home = Home.of(environ)
    running = home.running()
    if running is None:
        return LocalStatus(False, None, None, None, str(home.data), str(home.log))
    since = datetime.fromtimestamp(running.since, UTC)
    return LocalStatus(True, running.endpoint_url, since, running.pid, running.data, str(home.log))
