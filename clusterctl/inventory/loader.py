"""Reading an inventory: the files and what lies beside them, to a ``Cluster``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from clusterctl.cluster.host_settings import HostSettings
from clusterctl.cluster.model import Cluster, Host, Settings
from clusterctl.errors import InputError
from clusterctl.inventory import kubespray, rules
from clusterctl.inventory.document import Node, decrypted, leaves
from clusterctl.inventory.findings import Diagnostics, Place
from clusterctl.inventory.formats import read_tree
from clusterctl.inventory.groups import Tree, Variables, add_dynamic_groups
from clusterctl.inventory.hosts import HostReader
from clusterctl.inventory.names import ALIASES, SSH_PASSWORDS, SUDO_PASSWORDS, near_cluster
from clusterctl.inventory.roles import assign, node_names
from clusterctl.inventory.secrets import Secret
from clusterctl.inventory.settings import descend, merged, read_host_settings, read_settings, read_versions, refuse_cluster_wide
from clusterctl.inventory.sources import Sources
from clusterctl.inventory.vars_files import VarsFiles

Provenance = Mapping[str, Node | None]
"""The variable ``cluster`` of each host, merged, with the places of its values."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The result of reading: the cluster, the files it came from, the variables that mean nothing here, and remarks.

    ``written``: names of hosts as they stand in the inventory; ``sudo_passwords``, ``ssh_passwords``: decrypted ones; by host.
    ``settings``: the variable ``cluster`` of all hosts; ``decrypted``: values of settings, labels and taints that ansible-vault
    decrypted.
    """

    cluster: Cluster
    files: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    provenance: Provenance = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    sudo_passwords: Mapping[str, Secret] = field(default_factory=dict)
    ssh_passwords: Mapping[str, Secret] = field(default_factory=dict)
    settings: Node | None = None
    decrypted: Sequence[Node] = ()


def read(given: Path | Sources) -> Inventory:
    """Read an inventory whole; raises InputError, or Problems made of them."""
    sources = Sources.of(given)
    findings = Diagnostics(decrypt=sources.passwords.decrypt)
    tree, start = read_tree(sources, findings)
    add_dynamic_groups(tree, findings)
    reader = _Reader(tree, VarsFiles(sources.folders, findings), findings)
    hosts = reader.hosts(start)
    cluster_node = reader.cluster_variable()
    settings = read_settings(cluster_node, findings)
    versions = read_versions(settings, cluster_node, findings) if settings else None
    if not tree.host_places and not findings.problems:
        findings.refuse(start, "no hosts", "put machines in the groups control_plane and workers", code="inventory.no-hosts")
    findings.raise_problems()
    if settings is None or versions is None:
        raise InputError("the settings cannot be used", where=str(sources), code="inventory.value")
    cluster = Cluster(hosts=tuple(hosts), versions=versions, settings=settings, base=sources.folders[0].absolute())
    if settings.kubernetes and settings.kubernetes != versions.kubernetes:
        findings.note(f"Kubernetes {settings.kubernetes} means {versions.kubernetes}, the patch release that is pinned here;"
                      " a cluster that runs another patch of it keeps that one")
    reader.check_rules(cluster, cluster_node, start)
    if note := rules.even_members(len(cluster.etcd_members))[0]:
        findings.note(note)
    if findings.sealed:
        findings.note(f"{findings.sealed} values or files of ansible-vault were not read, as no vault password is given")
    findings.raise_problems()
    return Inventory(cluster, tuple(findings.files), tuple(sorted(findings.ignored)), tuple(findings.notes),
                     reader.provenance, reader.written, reader.sudo_passwords, reader.ssh_passwords, cluster_node,
                     [*decrypted(cluster_node), *reader.decrypted])


class _Own(NamedTuple):
    """The settings of a host and the variable ``cluster`` that they were read from; no settings where something is wrong."""

    node: Node | None
    settings: HostSettings | None


class _Reader:
    """Reads the hosts and settings of a tree of groups and the files beside it."""

    def __init__(self, tree: Tree, files: VarsFiles, findings: Diagnostics) -> None:
        self.tree, self.files, self.findings = tree, files, findings
        self.provenance: dict[str, Node | None] = {}
        self.written: dict[str, str] = {}
        self.sudo_passwords: dict[str, Secret] = {}
        self.ssh_passwords: dict[str, Secret] = {}
        self.decrypted: list[Node] = []
        self._first = ""
        self._foreign: dict[str, dict[int, Node]] = {}
        self._known: dict[tuple[int, ...], _Own] = {}

    def hosts(self, start: Place) -> list[Host]:
        """Return the hosts that have a role, and remember their names in the inventory and their passwords."""
        roles = assign(self.tree, start, self.findings)
        self._first = next((host for host in roles if "control_plane" in roles[host]), next(iter(roles), ""))
        hosts = []
        for host, name in node_names(self.tree, roles, self.findings).items():
            variables = host_variables(self.tree, self.files, host)
            for variable in kubespray.TRANSLATIONS.keys() & variables.keys():
                self._foreign.setdefault(variable, {})[id(variables[variable])] = variables[variable]
            reader = HostReader((host, name), self.tree.host_places[host], variables, self.findings)
            found = reader.host(roles[host], self.files.folders[0])
            own = self._settings(host, variables)
            self.written[name], self.provenance[name] = host, own.node
            for passwords, known in ((self.sudo_passwords, SUDO_PASSWORDS), (self.ssh_passwords, SSH_PASSWORDS)):
                if (password := reader.password(*known)) is not None:
                    passwords[name] = password
            names = (name for what in ("labels", "taints") for name in ALIASES[what])
            secrets = [secret for name in names for secret in decrypted(variables.get(name))]
            self.decrypted += [*secrets, *decrypted(own.node)]
            if found is not None and own.settings is not None:
                settings = own.settings.with_decrypted(one.written for one in secrets) if secrets else own.settings
                groups = frozenset(group.name for group in self.tree.groups_of(host))
                hosts.append(_with_settings(found.model_copy(update={"groups": groups, "written": host}), settings))
        return hosts

    def _settings(self, host: str, variables: Variables) -> _Own:
        """Return a host's settings: one object for all hosts with the same values."""
        nodes = _clusters(host_layers(self.tree, self.files, host))
        translated = [variables[name] for name in kubespray.TRANSLATIONS if name in variables]
        stack = tuple(map(id, (*nodes, *translated)))
        if stack not in self._known:
            explicit = merged(nodes)
            below = kubespray.translate(variables, explicit, self.findings, of_host=True)
            node = merged([*([below] if below else []), *nodes])
            self._known[stack] = _Own(node, read_host_settings(node, self.findings))
        return self._known[stack]

    def cluster_variable(self) -> Node | None:
        """Return the variable ``cluster`` of all hosts. Of other groups and of hosts, cluster-wide settings are refused.

        kubespray's variables count as the first control plane has them: a cluster has one network.
        """
        hosts = self.written.values()  # Files of machines that are left alone are not read.
        for group in {group.name: group for host in hosts for group in self.tree.groups_of(host)}.values():
            self._check_part(group.variables)
            self._check_part(self.files.of("group_vars", group.name))
        for host in hosts:
            self._check_part(self.tree.host_variables[host])
            self._check_part(self.files.of("host_vars", host))
        layers = (self.tree.groups["all"].variables, self.files.of("group_vars", "all"))
        nodes = _clusters(layers)
        self._refuse_misspelt({**layers[0], **layers[1]}, alone=not nodes)
        variables = host_variables(self.tree, self.files, self._first) if self._first else {}
        kubespray.note_others(variables, self._foreign, merged(nodes), self.findings)
        below = kubespray.translate(variables, merged(nodes), self.findings)
        return merged([*([below] if below else []), *nodes])

    def _check_part(self, variables: Variables) -> None:
        if node := variables.get("cluster"):
            refuse_cluster_wide(node, self.findings)
        self._refuse_misspelt(variables)

    def _refuse_misspelt(self, variables: Variables, *, alone: bool = False) -> None:
        """Refuse maps that are nearly called ``cluster``: where the settings are ``alone`` any, else one of known settings."""
        for name, node in variables.items():
            if near_cluster(name) and name != "cluster" and isinstance(node.value, dict) and (
                    alone or (node.value and node.value.keys() <= Settings.model_fields.keys())):
                self.findings.refuse(node.key, f"{node.path}: has no meaning (did you mean 'cluster'?)",
                                     "rename it" + (", or add cluster: {}" if alone else ""), code="inventory.cluster-misspelt")

    def check_rules(self, cluster: Cluster, settings_node: Node | None, start: Place) -> None:
        for about, message, hint, code, host in (*rules.broken(cluster), *rules.missing_files(cluster)):
            source = self.provenance.get(host) or settings_node
            if isinstance(about, str):
                self.findings.refuse(self.tree.host_places[self.written[about]], message, hint, code=code)
            elif about and source is not None:
                node, _ = descend(source, about)
                if any(leaf.secret for leaf in leaves(node)):
                    message, hint = "the decrypted value does not fit", ""
                self.findings.refuse(node.place, f"{node.path}: {message}", hint, code=code)
            else:
                self.findings.refuse(start, message, hint, code=code)


def _clusters(layers: Sequence[Variables]) -> list[Node]:
    return [variables["cluster"] for variables in layers if "cluster" in variables]


def _with_settings(host: Host, settings: HostSettings) -> Host:
    """Return a host with its settings; labels and taints of its own variables win over those of ``cluster.kubelet``."""
    labels, taints = host.labels, host.taints
    if host.is_node:
        labels = {**settings.kubelet.labels, **labels}
        taints = tuple({(taint.key, taint.effect): taint for taint in (*settings.kubelet.taints, *taints)}.values())
    return host.model_copy(update={"settings": settings, "labels": labels, "taints": taints})


def host_variables(tree: Tree, files: VarsFiles, host: str) -> Variables:
    """Return one host's variables. All but ``cluster`` are replaced whole, never merged."""
    return {name: node for variables in host_layers(tree, files, host) for name, node in variables.items()}


def host_layers(tree: Tree, files: VarsFiles, host: str) -> list[Variables]:
    """Return what a host's variables are made of, from weak to strong, as in Ansible.

    ``all`` and then its groups in the inventory, ``group_vars/all``, ``group_vars`` of its groups, the host in the inventory,
    ``host_vars``. A variable is replaced whole; only ``cluster`` is merged.
    """
    groups = tree.groups_of(host)
    return [
        tree.groups["all"].variables,
        *(group.variables for group in groups),
        files.of("group_vars", "all"),
        *files.of_groups([group.name for group in groups]),
        tree.host_variables[host],
        files.of("host_vars", host),
    ]
