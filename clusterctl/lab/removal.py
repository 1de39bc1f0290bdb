"""Taking a lab away, whatever became of the process that made it: by what is found on this host, not by what was noted."""

from __future__ import annotations

from clusterctl.lab.cgroup import Cgroup, hierarchies
from clusterctl.lab.host import check_host, remove_tree
from clusterctl.lab.network import PREFIX, labs_with_namespaces, namespace_of, namespaces_of, remove_namespaces
from clusterctl.lab.state import check_name, labs_directory, lock_of, ranges_lock


def exists(name: str) -> bool:
    """Whether anything of a lab is on this host."""
    group = Cgroup(namespace_of(name))
    return bool(group.directories() or namespaces_of(name) or (labs_directory() / name).exists())


def remove_lab(name: str) -> bool:
    """Remove all of a lab: processes, mounts, control groups, namespaces, files. False if there was nothing.

    May be run again at any time. Raises :class:`clusterctl.lab.host.LabError` if something resists, and
    :class:`clusterctl.errors.Locked` while an ``up`` of the same lab is running.
    """
    check_host()
    check_name(name)
    with lock_of(name) as lock:
        found = exists(name)
        remove_parts(name)
        with ranges_lock() as ranges:
            ranges.remove()
        lock.remove()
    return found


def remove_parts(name: str) -> None:
    """As :func:`remove_lab`, for who holds the lock of the lab already."""
    group = Cgroup(namespace_of(name))
    group.kill()
    remove_namespaces(name)
    group.kill()
    group.remove()
    remove_tree(labs_directory() / name)


def labs_on_host() -> list[str]:
    """Names of all labs of which anything is left on this host."""
    names = labs_with_namespaces()
    if labs_directory().is_dir():
        names |= {path.name for path in labs_directory().iterdir() if path.is_dir()}
    for root in hierarchies():
        names |= {path.name.removeprefix(PREFIX) for path in root.glob(f"{PREFIX}*") if path.is_dir()}
    return sorted(names)
