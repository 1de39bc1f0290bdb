"""What the lab's tests share: labs of their own names, and a look at what a lab has left on this host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterctl.errors import Refused
from clusterctl.lab import Lab, LabSpec, remove_lab
from clusterctl.lab.base import ensure_base
from clusterctl.lab.cgroup import hierarchies
from clusterctl.lab.host import check_host
from clusterctl.lab.state import labs_directory


def own_name(suffix: str) -> str:
    """A lab's name that no other run of the tests uses."""
    return f"t{os.getpid()}{suffix}"


def left_over(name: str) -> list[str]:
    """Whatever of a lab can be found on this host: namespaces, control groups, files, processes, mounts."""
    found = [str(path) for path in Path("/run/netns").glob(f"cctl-{name}*")]
    found += [str(path) for root in hierarchies() for path in root.glob(f"**/cctl-{name}*")]
    found += [str(path) for path in labs_directory().glob(f"*{name}*")]
    marks = [str(labs_directory() / name), f"cctl-{name}"]
    for process in Path("/proc").iterdir():
        # A process that has ended waits for process 1 to take note of that.
        if process.name.isdigit() and int(process.name) != os.getpid() and "State:\tZ" not in _read(process / "status"):
            for file in ("cmdline", "cgroup", "mountinfo"):
                text = _read(process / file)
                found += [f"{process}/{file}" for mark in marks if mark in text]
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@pytest.fixture(scope="session")
def host() -> None:
    """A host that can have labs, with the base in its cache."""
    try:
        check_host()
    except Refused as error:
        pytest.skip(str(error))
    ensure_base(print)


@pytest.fixture(scope="module")
def lab(host: None) -> Iterator[Lab]:
    """A lab of one control plane and two workers."""
    name = own_name("a")
    try:
        yield Lab.up(LabSpec(name=name, memory=2 << 30))
    finally:
        remove_lab(name)
