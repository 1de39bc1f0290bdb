"""Reading an inventory: the file and what lies beside it, to a ``Cluster``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusterctl.errors import InputError
from clusterctl.inventory import rules
from clusterctl.inventory.document import Node
from clusterctl.inventory.findings import Findings, Place
from clusterctl.inventory.formats import read_tree
from clusterctl.inventory.groups import Tree, Variables
from clusterctl.inventory.hosts import HostReader
from clusterctl.inventory.names import near_cluster
from clusterctl.inventory.roles import Roles, assign, node_names
from clusterctl.inventory.settings import descend, read_settings, read_versions
from clusterctl.inventory.sources import Sources
from clusterctl.inventory.vars_files import VarsFiles
from clusterctl.model import Cluster, Host
from clusterctl.secrets import Secret


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was understood: the cluster, the files it came from, the variables that mean nothing here, and remarks.

    ``written``: names of hosts as they stand in the inventory; ``sudo_passwords``: decrypted ones. Both by host.
    """

    cluster: Cluster
    files: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    written: Mapping[str, str] = field(default_factory=dict)
    sudo_passwords: Mapping[str, Secret] = field(default_factory=dict)


def read(given: Path | Sources) -> Inventory:
    """Read an inventory whole; raises InputError, or Problems made of them."""
    sources = Sources.of(given)
    findings = Findings(passwords=sources.passwords)
    tree, start = read_tree(sources, findings)
    files = VarsFiles(sources.folders, findings)
    roles = assign(tree, start, findings)
    cluster_node = _cluster_variable(tree, roles, files, findings)
    settings = read_settings(cluster_node, findings)
    hosts, written, passwords = _hosts(tree, roles, files, findings)
    versions = read_versions(settings, cluster_node, findings) if settings else None
    if not tree.host_places and not findings.problems:
        findings.refuse(start, "no hosts", "put machines in the groups control_plane and workers", code="inventory.no-hosts")
    findings.raise_problems()
    if settings is None or versions is None:
        raise InputError("the settings cannot be used", where=str(sources))
    cluster = Cluster(hosts=hosts, versions=versions, settings=settings, base=sources.folders[0].absolute())
    if settings.kubernetes and settings.kubernetes != versions.kubernetes:
        findings.note(f"Kubernetes {settings.kubernetes} means {versions.kubernetes}, the patch release that is pinned here;"
                      " a cluster that runs another patch of it keeps that one")
    places = {name: tree.host_places[host] for name, host in written.items()}
    _check_rules(cluster, places, (cluster_node, start), findings)
    if note := rules.even_members(len(cluster.etcd_members))[0]:
        findings.note(note)
    if findings.sealed:
        findings.note(f"{findings.sealed} values or files of ansible-vault were not read, as no vault password is given")
    findings.raise_problems()
    return Inventory(cluster, tuple(findings.files), tuple(sorted(findings.ignored)), tuple(findings.notes), written, passwords)


def _cluster_variable(tree: Tree, roles: Roles, files: VarsFiles, findings: Findings) -> Node | None:
    """The variable ``cluster``, which is one for all hosts: ``group_vars/all`` replaces ``all.vars`` as in Ansible."""
    for group in {group.name: group for host in roles for group in tree.groups_of(host)}.values():
        _refuse_cluster(group.variables, findings)
        _refuse_cluster(files.of("group_vars", group.name), findings)
    for host in roles:
        _refuse_cluster(tree.host_variables[host], findings)
        _refuse_cluster(files.of("host_vars", host), findings)
    found = files.of("group_vars", "all").get("cluster") or tree.groups["all"].variables.get("cluster")
    if found is None:
        _refuse_misspelt_cluster({**tree.groups["all"].variables, **files.of("group_vars", "all")}, findings)
    return found


def _refuse_misspelt_cluster(variables: Variables, findings: Findings) -> None:
    for name, node in variables.items():
        if near_cluster(name) and isinstance(node.value, dict):
            findings.refuse(node.key, f"{node.path}: has no meaning (did you mean 'cluster'?)", "rename it, or add cluster: {}",
                            code="inventory.cluster-misspelt")


def _refuse_cluster(variables: Variables, findings: Findings) -> None:
    if node := variables.get("cluster"):
        findings.refuse(node.key, f"{node.path}: the settings are for all hosts and belong in all.vars or group_vars/all")


def _hosts(tree: Tree, roles: Roles, files: VarsFiles,
           findings: Findings) -> tuple[tuple[Host, ...], dict[str, str], dict[str, Secret]]:
    """The hosts that have a role; their names in the inventory, and their sudo passwords, by name."""
    hosts, written, passwords = [], {}, {}
    for host, name in node_names(tree, roles, findings).items():
        reader = HostReader((host, name), tree.host_places[host], host_variables(tree, files, host), findings)
        found = reader.host(roles[host], files.folders[0])
        written[name] = host
        if (password := reader.sudo_password()) is not None:
            passwords[name] = password
        if found is not None:
            hosts.append(found)
    return tuple(hosts), written, passwords


def host_variables(tree: Tree, files: VarsFiles, host: str) -> Variables:
    """One host's variables. From weak to strong, as in Ansible: ``all`` and then its groups in the inventory, ``group_vars/all``,
    ``group_vars`` of its groups, the host in the inventory, ``host_vars``. A variable is replaced whole, never merged."""
    groups = tree.groups_of(host)
    weak_to_strong = [
        tree.groups["all"].variables,
        *(group.variables for group in groups),
        files.of("group_vars", "all"),
        *files.of_groups([group.name for group in groups]),
        tree.host_variables[host],
        files.of("host_vars", host),
    ]
    return {name: node for variables in weak_to_strong for name, node in variables.items()}


def _check_rules(cluster: Cluster, places: Mapping[str, Place], around: tuple[Node | None, Place], findings: Findings) -> None:
    settings_node, start = around
    for about, message, hint, code in rules.broken(cluster):
        if isinstance(about, str):
            findings.refuse(places[about], message, hint, code=code)
        elif about and settings_node is not None:
            node, _ = descend(settings_node, about)
            findings.refuse(node.place, f"{node.path}: {message}", hint, code=code)
        else:
            findings.refuse(start, message, hint, code=code)
