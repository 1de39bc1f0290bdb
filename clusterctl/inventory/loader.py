"""Reading an inventory: the file and what lies beside it, to a ``Cluster``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from clusterctl.errors import InputError
from clusterctl.host_settings import HostSettings
from clusterctl.inventory import rules
from clusterctl.inventory.document import Node, parse, read_bytes
from clusterctl.inventory.dynamic import is_program, read_dynamic, read_listing
from clusterctl.inventory.findings import Findings, Place, did_you_mean
from clusterctl.inventory.groups import Tree, Variables, read_groups
from clusterctl.inventory.hosts import HostReader
from clusterctl.inventory.names import ROLE_GROUPS
from clusterctl.inventory.settings import (
    descend,
    merged,
    read_host_settings,
    read_settings,
    read_versions,
    refuse_cluster_wide,
)
from clusterctl.inventory.vars_files import VarsFiles
from clusterctl.model import Cluster, Host, Role

Sources = Mapping[str, Node | None]
"""The variable ``cluster`` of each host, merged, with the places of its values."""

_role_meant = cache(lambda group: did_you_mean(group, ROLE_GROUPS))


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was understood: the cluster, the files it came from, the variables that mean nothing here, and remarks."""

    cluster: Cluster
    files: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    sources: Sources = field(default_factory=dict)


def read(path: Path) -> Inventory:
    """Read an inventory whole; raises InputError, or Problems made of them."""
    findings = Findings(files=[str(path)])
    tree, start = _read_tree(path, findings)
    files = VarsFiles(path.parent, findings)
    cluster_node = _cluster_variable(tree, files, findings)
    settings = read_settings(cluster_node, findings)
    sources, own = _host_settings(tree, files, findings)
    hosts = _hosts(tree, files, own, path.parent, findings)
    versions = read_versions(settings, cluster_node, findings) if settings else None
    if not tree.host_places and not findings.problems:
        findings.refuse(start, "no hosts", "put machines in the groups control_plane and workers")
    findings.raise_problems()
    if settings is None or versions is None:
        raise InputError("the settings cannot be used", where=str(path))
    cluster = Cluster(hosts=hosts, versions=versions, settings=settings, base=path.parent.absolute())
    if settings.kubernetes and settings.kubernetes != versions.kubernetes:
        findings.note(f"Kubernetes {settings.kubernetes} means {versions.kubernetes}, the patch release that is pinned here;"
                      " a cluster that runs another patch of it keeps that one")
    _check_rules(cluster, tree, (cluster_node, start, sources), findings)
    if note := rules.even_members(len(cluster.etcd_members))[0]:
        findings.note(note)
    findings.raise_problems()
    return Inventory(cluster, tuple(findings.files), tuple(sorted(findings.ignored)), tuple(findings.notes),
                     sources)


def _read_tree(path: Path, findings: Findings) -> tuple[Tree, Place]:
    if os.path.isdir(path):
        found = [name for name in ("hosts.yaml", "hosts.yml", "inventory.yaml") if os.path.isfile(path / name)]
        raise InputError("is a directory; one inventory file is wanted", where=str(path), code="inventory.folder",
                         hint=" or ".join(f"-i {path / name}" for name in found) or "name the file in it")
    if is_program(path):
        return read_dynamic(path, findings)
    root = parse(read_bytes(path), str(path), findings)
    if root is None:
        raise InputError("is empty", where=str(path), hint="see inventories/single.yaml for the smallest inventory")
    if isinstance(root.value, dict) and "_meta" in root.value:
        return read_listing(root, root.value, findings), root.place
    return read_groups(root, findings), root.place


def _cluster_variable(tree: Tree, files: VarsFiles, findings: Findings) -> Node | None:
    """Return the variable ``cluster`` of all hosts. Of other groups and of hosts, cluster-wide settings are refused."""
    for name, group in tree.groups.items():
        if name != "all":
            _check_part(group.variables, findings)
            _check_part(files.of("group_vars", name), findings)
    for host, variables in tree.host_variables.items():
        _check_part(variables, findings)
        _check_part(files.of("host_vars", host), findings)
    return merged(_clusters((tree.groups["all"].variables, files.of("group_vars", "all"))))


def _check_part(variables: Variables, findings: Findings) -> None:
    if node := variables.get("cluster"):
        refuse_cluster_wide(node, findings)


def _clusters(layers: Sequence[Variables]) -> list[Node]:
    return [variables["cluster"] for variables in layers if "cluster" in variables]


def _host_settings(tree: Tree, files: VarsFiles, findings: Findings) -> tuple[Sources, dict[str, HostSettings | None]]:
    """Return the variable ``cluster`` of each host, merged, and the settings in it: one object for hosts with the same values."""
    known: dict[tuple[int, ...], tuple[Node | None, HostSettings | None]] = {}
    sources: dict[str, Node | None] = {}
    settings: dict[str, HostSettings | None] = {}
    for host in tree.host_places:
        nodes = _clusters(_layers(tree, files, host))
        stack = tuple(map(id, nodes))
        if stack not in known:
            node = merged(nodes)
            known[stack] = node, read_host_settings(node, findings)
        sources[host], settings[host] = known[stack]
    return sources, settings


def _hosts(tree: Tree, files: VarsFiles, settings: Mapping[str, HostSettings | None], base: Path,
           findings: Findings) -> tuple[Host, ...]:
    roles = {name: _roles(tree, name) for name in tree.host_places}
    if not any("etcd" in found for found in roles.values()):
        for found in roles.values():
            if "control_plane" in found:
                found.add("etcd")
    hosts = []
    for name, place in tree.host_places.items():
        if [group.name for group in tree.groups_of(name)] == ["bastion"]:
            findings.note(f"{name} is kubespray's bastion and is ignored; here it is named in ansible_ssh_common_args: -J HOST")
            continue
        if not roles[name]:
            _refuse_idle(name, tree, place, findings)
        host = HostReader(name, place, host_variables(tree, files, name), findings).host(roles[name], base)
        own = settings[name]
        if host is not None and own is not None:
            groups = frozenset(group.name for group in tree.groups_of(name))
            hosts.append(_with_settings(host.model_copy(update={"groups": groups}), own))
    return tuple(hosts)


def _with_settings(host: Host, settings: HostSettings) -> Host:
    """Return a host with its settings; labels and taints of its own variables win over those of ``cluster.kubelet``."""
    labels, taints = host.labels, host.taints
    if host.is_node:
        labels = {**settings.kubelet.labels, **labels}
        taints = tuple({(taint.key, taint.effect): taint for taint in (*settings.kubelet.taints, *taints)}.values())
    return host.model_copy(update={"settings": settings, "labels": labels, "taints": taints})


def _roles(tree: Tree, host: str) -> set[Role]:
    return {ROLE_GROUPS[group.name] for group in tree.groups_of(host) if group.name in ROLE_GROUPS}


def _refuse_idle(host: str, tree: Tree, place: Place, findings: Findings) -> None:
    groups = [group.name for group in tree.groups_of(host)]
    meant = next(filter(None, map(_role_meant, groups)), "")
    where = f"only in {', '.join(groups)}" if groups else "in no group"
    findings.refuse(place, f"host {host} is {where}{meant}, and thus has nothing to do",
                    "put it in control_plane, etcd or workers, or take it out of the inventory")


def host_variables(tree: Tree, files: VarsFiles, host: str) -> Variables:
    """Return one host's variables. All but ``cluster`` are replaced whole, never merged."""
    return {name: node for variables in _layers(tree, files, host) for name, node in variables.items()}


def _layers(tree: Tree, files: VarsFiles, host: str) -> list[Variables]:
    """Return what a host's variables are made of. From weak to strong, as in Ansible: ``all`` and then its groups in the
    inventory, ``group_vars/all``, ``group_vars`` of its groups, the host in the inventory, ``host_vars``."""
    groups = tree.groups_of(host)
    return [
        tree.groups["all"].variables,
        *(group.variables for group in groups),
        files.of("group_vars", "all"),
        *(files.of("group_vars", group.name) for group in groups),
        tree.host_variables[host],
        files.of("host_vars", host),
    ]


def _check_rules(cluster: Cluster, tree: Tree, around: tuple[Node | None, Place, Sources], findings: Findings) -> None:
    settings_node, start, sources = around
    for about, message, hint, host in rules.broken(cluster):
        source = sources.get(host) or settings_node
        if isinstance(about, str):
            findings.refuse(tree.host_places[about], message, hint)
        elif about and source is not None:
            node, _ = descend(source, about)
            findings.refuse(node.place, f"{node.path}: {message}", hint)
        else:
            findings.refuse(start, message, hint)
