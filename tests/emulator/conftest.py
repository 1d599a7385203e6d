"""The real imgpipe against the real emulator: one local pipeline for the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_pipeline import LocalPipeline


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPipeline]:
    """A running local pipeline on a free port, for all tests that do not stop it."""
    local = LocalPipeline(tmp_path_factory.mktemp("pipeline"))
    local.run("local", "up", "--detach", "--port", 0)
    yield local
    local.run("local", "down")


@pytest.fixture
def stopped_pipeline(tmp_path: Path) -> Iterator[LocalPipeline]:
    """A local pipeline of the test's own, not started; whatever the test leaves running is stopped."""
    local = LocalPipeline(tmp_path / "home")
    yield local
    local.run("local", "down")
