"""A dynamic inventory: a program that prints Ansible's JSON when called with ``--list``."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from clusterctl.cluster.host_settings import HostSettings
from clusterctl.errors import InputError
from clusterctl.inventory.command import run
from clusterctl.inventory.document import MOST_OF_A_LISTING, Node, bare
from clusterctl.inventory.findings import Diagnostics, did_you_mean
from clusterctl.inventory.groups import Group, Tree, add_child, add_host
from clusterctl.inventory.names import GROUP_KEYS, near_cluster

DEADLINE = 60.0


def is_program(path: Path) -> bool:
    """Return whether a file is to be run: it may be executed, and is a script or an ELF program.

    On some file systems, and in archives from them, each file has the executable bit.
    """
    if not os.path.isfile(path) or not os.access(path, os.X_OK):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        return True  # Executable and not readable: it can only be run.
    return head.startswith(b"#!") or head == b"\x7fELF"


def run_program(path: Path, deadline: float = DEADLINE) -> bytes:
    """Return what the program prints when it is called with ``--list``. Raises InputError."""
    program = path.absolute()
    return run([str(program), "--list"], what=f"{path} --list", deadline=deadline, most_bytes=MOST_OF_A_LISTING,
               cwd=program.parent)


def read_listing(tree: Tree, root: Node, entries: dict[str, Node], findings: Diagnostics) -> None:
    """Add the groups of what ``ansible-inventory --list`` or a program prints to a tree. Raises InputError."""
    meta = entries.get("_meta")
    hostvars = _entries(meta, findings).get("hostvars") if meta else None
    if hostvars is None:
        raise InputError("_meta.hostvars is missing, which holds the variables of all hosts", where=str(root.place),
                         hint='print {"_meta": {"hostvars": {}}, ...} where hosts have no variables',
                         code="inventory.no-hostvars")
    variables = {host: _entries(node, findings) for host, node in _entries(hostvars, findings).items()}
    _hoist_settings(tree.groups["all"], variables)
    for name, node in entries.items():
        if name != "_meta":
            _read_group(tree, tree.group(name, node.key), (node, variables), findings)
    for host, entries in variables.items():
        if host not in tree.host_places:
            findings.note(f"_meta.hostvars speaks of {host}, which is in no group")
            findings.ignored.update(entries)


def _hoist_settings(everything: Group, variables: dict[str, dict[str, Node]]) -> None:
    """Make the variable ``cluster``, and one that is nearly called so, one of all hosts where each has the same.

    Ansible lists groups' variables with each host.
    """
    for name in {name for entries in variables.values() for name in entries if near_cluster(name)}:
        found = [entries.get(name) for entries in variables.values()]
        first = found[0]
        if first is not None and all(node is not None and bare(node) == bare(first) for node in found):
            for entries in variables.values():
                del entries[name]
            everything.variables[name] = first
        else:
            _hoist_keys(everything, name, variables)


def _hoist_keys(everything: Group, name: str, variables: dict[str, dict[str, Node]]) -> None:
    """Move settings of the whole cluster to ``all``, where all hosts that list them agree.

    In Ansible's listing, a group's map replaces the one of ``all``, so that some hosts lack them.
    """
    maps = [node.value for entries in variables.values()
            if (node := entries.get(name)) is not None and isinstance(node.value, dict)]
    found: dict[str, Node] = {}
    for key in sorted({key for one in maps for key in one} - HostSettings.model_fields.keys()):
        first, *others = (one[key] for one in maps if key in one)
        if all(bare(node) == bare(first) for node in others):
            found[key] = first
    if not found:
        return
    for entries in variables.values():
        if (node := entries.get(name)) is not None and isinstance(node.value, dict):
            entries[name] = replace(node, value={key: value for key, value in node.value.items() if key not in found})
            everything.variables.setdefault(name, replace(node, value=found))


def _read_group(tree: Tree, group: Group, entry: tuple[Node, dict[str, dict[str, Node]]], findings: Diagnostics) -> None:
    node, variables = entry
    parts = {"hosts": node} if isinstance(node.value, list) else _entries(node, findings)
    for key, value in parts.items():
        if key not in GROUP_KEYS:
            findings.refuse(value.key, f"{value.path}: unknown key{did_you_mean(key, GROUP_KEYS)}")
    for host in _names(parts.get("hosts"), findings):
        add_host(tree, group, str(host.value), (host.place, variables.get(str(host.value), {})))
    for child in _names(parts.get("children"), findings):
        add_child(tree, group, str(child.value), child.place, findings)
    if (settings := parts.get("vars")) is not None:
        group.variables.update(_entries(settings, findings))


def _entries(node: Node, findings: Diagnostics) -> dict[str, Node]:
    if isinstance(node.value, dict):
        return node.value
    if node.value is not None:
        findings.refuse(node.place, f"{node.path}: a map is wanted, not {node.kind}")
    return {}


def _names(node: Node | None, findings: Diagnostics) -> list[Node]:
    if node is None or node.value is None:
        return []
    if not isinstance(node.value, list) or not all(isinstance(item.value, str) for item in node.value):
        findings.refuse(node.place, f"{node.path}: a list of names is wanted")
        return []
    return node.value
