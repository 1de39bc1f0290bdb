"""Names for labs of a test run, and a look at what a lab has left on this host."""

from __future__ import annotations

import os
from pathlib import Path

from clusterctl.lab.cgroup import hierarchies
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
