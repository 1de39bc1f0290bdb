"""The control groups of a lab: one of the same name in every hierarchy of this host, and one in it per machine.

They bound what a machine may use, keep the kubelets of several machines apart, and are how ``down`` finds every process.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from clusterctl.lab.host import LabError

UNIFIED = "cgroup2"


def hierarchies() -> dict[Path, str]:
    """Mount points of this host's cgroup hierarchies, each with its file system: ``cgroup`` or ``cgroup2``."""
    found: dict[Path, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind in ("cgroup", UNIFIED):
            found[Path(before.split()[4])] = kind
    return found


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise LabError(f"cannot write {value!r} to {path}: {error.strerror}", where="lab",
                       code="lab.cgroup-unwritable") from error


class Cgroup:
    """A control group by its path below each hierarchy, as ``cctl-lab`` or ``cctl-lab/cp-1``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def directories(self) -> list[Path]:
        """Where it exists now, in each hierarchy."""
        return [root / self.path for root in hierarchies() if (root / self.path).is_dir()]

    def create(self, *, memory: int | None = None) -> None:
        """Make it (and its parents) in every hierarchy; ``memory`` is a limit in bytes. Raises :class:`LabError`."""
        for root, kind in hierarchies().items():
            parent = root
            for part in Path(self.path).parts:
                if kind == UNIFIED:
                    self._delegate(parent)
                directory = parent / part
                directory.mkdir(exist_ok=True)
                self._inherit(parent, directory)
                parent = directory
            for name in ("memory.limit_in_bytes", "memory.max"):
                if memory is not None and (parent / name).exists():
                    _write(parent / name, str(memory))

    @staticmethod
    def _delegate(parent: Path) -> None:
        controllers = (parent / "cgroup.controllers").read_text().split()
        if controllers:
            _write(parent / "cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))

    @staticmethod
    def _inherit(parent: Path, directory: Path) -> None:
        # A v1 cpuset takes no process before it knows its processors and its memory nodes.
        if not (directory / "cpuset.sched_load_balance").exists():
            return
        for name in ("cpuset.cpus", "cpuset.mems"):
            _write(directory / name, (parent / name).read_text().strip())
        _write(directory / "cgroup.clone_children", "1")

    def pids(self) -> set[int]:
        """Every process in it and below it, in any hierarchy."""
        found: set[int] = set()
        for top in self.directories():
            for directory, _, files in os.walk(top):
                if "cgroup.procs" in files:
                    found.update(_pids(Path(directory) / "cgroup.procs"))
        return found - {0}

    def kill(self, *, deadline: float = 30) -> None:
        """SIGKILL until nothing is left; raises :class:`LabError` naming what is left after ``deadline`` seconds."""
        end = time.monotonic() + deadline
        while pids := self.pids() - {os.getpid()}:
            self._thaw_below()  # a frozen process does not die
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > end:
                raise LabError(f"processes of {self.path} outlive SIGKILL: {', '.join(map(str, sorted(pids)))}", where="lab",
                               code="lab.processes-left")
            time.sleep(0.02)

    def remove(self, *, deadline: float = 10) -> None:
        """Take it away, children first; raises :class:`LabError` if it is still in use after ``deadline`` seconds."""
        end = time.monotonic() + deadline
        for top in self.directories():
            while top.exists():
                for directory, _, _ in os.walk(top, topdown=False):
                    _rmdir(Path(directory))
                if not top.exists():
                    break
                if time.monotonic() > end:
                    raise LabError(f"the control group {top} is still in use", where="lab", code="lab.cgroup-in-use")
                time.sleep(0.02)

    def _freezers(self) -> list[tuple[Path, str, str]]:
        found = []
        for top in self.directories():
            for name, frozen, thawed in (("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")):
                if (top / name).exists():
                    found.append((top / name, frozen, thawed))
        # Where both exist, the v1 freezer alone: it is the one that the machine's own software uses.
        return [entry for entry in found if entry[0].name == "freezer.state"] or found

    def freeze(self, *, deadline: float = 10) -> None:
        """Stop every process in it where it stands; returns once all have stopped. Raises :class:`LabError`."""
        for file, frozen, _ in self._freezers():
            _write(file, frozen)
        end = time.monotonic() + deadline
        while not self.frozen():
            if time.monotonic() > end:
                raise LabError(f"{self.path} is not frozen after {deadline:g} s", where="lab", code="lab.not-frozen")
            time.sleep(0.02)

    def thaw(self) -> None:
        """Let them go on."""
        for file, _, thawed in self._freezers():
            _write(file, thawed)

    def _thaw_below(self) -> None:
        for top in self.directories():
            for directory, _, files in os.walk(top):
                for name, thawed in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                    if name in files:
                        _try_to_write(Path(directory) / name, thawed)

    def frozen(self) -> bool:
        """Whether it is frozen as a whole."""
        return any(file.read_text().strip() == frozen for file, frozen, _ in self._freezers())


def _try_to_write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError:  # removed in between
        return


def _pids(file: Path) -> set[int]:
    try:
        return {int(word) for word in file.read_text().split()}
    except OSError:  # removed in between
        return set()


def _rmdir(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return
