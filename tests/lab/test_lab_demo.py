"""The demo's lab: of this clone's own, used again where it is up, raised anew where its machines are gone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_leftovers import own_name

from clusterctl.lab import Lab, remove_lab

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a clone as raises the demo's machines."""
    return made_clone(tmp_path / "clone")


def made_clone(path: Path) -> Path:
    (path / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "demo", path / "tools")
    shutil.copytree(ROOT / "inventories", path / "inventories")
    return path


def demo(clone: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run([clone / "tools" / "demo", *words], capture_output=True, text=True, timeout=300, check=False,
                          env={**os.environ, "CLUSTERCTL": str(ROOT / ".venv" / "bin" / "clusterctl")})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def name(host: None) -> Iterator[str]:
    given = own_name("d")
    try:
        yield given
    finally:
        remove_lab(given)


def test_each_clone_has_a_lab_name_of_its_own(clone: Path, tmp_path: Path) -> None:
    names = {demo(clone, "name"), demo(made_clone(tmp_path / "other"), "name")}
    assert len(names) == 2 and demo(clone, "name") in names
    assert all(len(one.strip()) <= 16 for one in names)


def test_the_demo_is_repeatable(clone: Path, tmp_path: Path, name: str) -> None:
    inventory = clone / ".clusterctl" / name / "inventory.yaml"
    demo(clone, "raise", name)
    first = inventory.read_text()

    Lab.open(name).kill("w-1")
    demo(clone, "raise", name)
    assert Lab.open(name).status("w-1") == "running" and inventory.read_text() == first, "what is there is used again"

    other = made_clone(tmp_path / "other")
    assert "lab down" in demo(other, "raise", name, code=1), "a lab of another clone stays"
    assert Lab.open(name).status("cp-1") == "running"

    remove_lab(name)
    (inventory.parent / ".clusterctl").mkdir()
    demo(clone, "raise", name)
    assert inventory.read_text() != first and not (inventory.parent / ".clusterctl").exists(), "keys of machines that are gone"

    demo(clone, "down", name)
    assert not inventory.parent.exists()
    demo(clone, "down", name)
