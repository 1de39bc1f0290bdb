"""What tests of downloads share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from artifact_web import IMPATIENT, Web

from clusterctl.artifacts.store import Location, Store


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key of the cache's records is the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


@pytest.fixture
def store(web: Web, tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", Location(url=web.url), patience=IMPATIENT, upstream="http://127.0.0.1:9")
