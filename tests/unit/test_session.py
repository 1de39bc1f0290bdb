"""What a verb opens, and what of it only those ask for that need it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clusterctl.commands.apply import check_early
from clusterctl.engine.engine import Events
from clusterctl.errors import Unreachable
from clusterctl.session.opening import Options
from clusterctl.session.session import session


def options(folder: Path, mirror: str) -> Options:
    (folder / "i.yaml").write_text(f"all: {{vars: {{cluster: {{artifacts: {{mirror: '{mirror}'}}}}}}}}\ncontrol_plane: {{hosts: {{a: {{ip: 192.0.2.1}}}}}}\n")
    return Options(inventory=folder / "i.yaml", state=folder / "state")


def test_a_mirror_that_is_down_hinders_only_who_needs_it(tmp_path: Path) -> None:
    with session(options(tmp_path, "http://127.0.0.1:9"), Events()) as opened:
        assert opened.cluster.hosts
        with pytest.raises(Unreachable, match="the mirror cannot be reached"):
            check_early(opened)


def test_the_mirror_is_asked_once(tmp_path: Path) -> None:
    """Also for what is foreseen."""
    (tmp_path / "catalog.json").write_text(json.dumps({}))
    with session(options(tmp_path, "."), Events()) as opened:
        assert replace(opened).catalog is opened.catalog is opened.catalog
