"""What the tests of compiled programs share: one pretended machine for each shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell_box import SHELLS, Box


@pytest.fixture(params=SHELLS)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Box:
    """A pretended machine, under each shell in turn."""
    return Box(tmp_path, request.param)


@pytest.fixture
def dash(tmp_path: Path) -> Box:
    """A pretended machine with the shell of Debian, for what does not depend on the shell."""
    return Box(tmp_path, "dash")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Programs set owners, which only root may."""
    for item in items:
        if item.path.parent == Path(__file__).parent and {"box", "dash", "tmp_path"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.lab)
