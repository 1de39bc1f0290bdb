"""An inventory of our own that means the same as one of others: ``inventory --convert``."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

import yaml

from clusterctl.cluster.model import Cluster, Host, Ssh
from clusterctl.inventory.document import Node
from clusterctl.inventory.findings import Diagnostics
from clusterctl.inventory.names import ROLE_GROUPS

_OF_ONE = ("ansible_connection", "ansible_host", "clusterctl_address", "clusterctl_host_key", "cluster")
"""Variables of hosts that are not moved to all of them."""
_ROLES = {"control_plane": "control_plane", "etcd": "etcd", "workers": "worker"}


def refuse_decrypted(nodes: Iterable[Node]) -> None:
    """Refuse to write values of ansible-vault in clear. Raises InputError, or Problems made of them."""
    findings = Diagnostics()
    for node in nodes:
        findings.refuse(node.place, f"{node.path}: was decrypted, and would be written in clear",
                        "convert without it, and add it to the new inventory by hand", code="inventory.convert-secret")
    findings.raise_problems()


def convert(cluster: Cluster) -> str:
    """Return the YAML of an inventory with the same hosts and settings, without variables that mean nothing here.

    Each host has its variables where it is named first, those that all share are in ``all.vars``; other groups are kept, as
    patterns may name them.
    """
    written: set[str] = set()
    variables = {host.name: _variables(host, cluster) for host in cluster.hosts}
    first = next(iter(variables.values()), {})
    shared = {name: value for name, value in first.items()
              if name not in _OF_ONE and len(variables) > 1 and all(one.get(name) == value for one in variables.values())}

    def hosts(members: list[Host]) -> dict[str, object]:
        entries = {host.name: {} if host.name in written else {
            name: value for name, value in variables[host.name].items() if name not in shared} for host in members}
        written.update(entries)
        return {"hosts": entries}

    members = {group: [host for host in cluster.hosts if role in host.roles] for group, role in _ROLES.items()}
    if members["etcd"] == members["control_plane"]:
        del members["etcd"]
    own = sorted(frozenset().union(*(host.groups for host in cluster.hosts)) - set(ROLE_GROUPS) - {"k8s_cluster", "ungrouped"})
    members |= {group: [host for host in cluster.hosts if group in host.groups] for group in own}
    children = {group: hosts(found) for group, found in members.items() if found}
    settings = cluster.settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    common = {**shared, **({"cluster": settings} if settings else {})}
    tree = {"all": {**({"vars": common} if common else {}), "children": children}}
    return yaml.safe_dump(tree, sort_keys=False, width=120, allow_unicode=True)


def _variables(host: Host, cluster: Cluster) -> dict[str, object]:
    ssh, kubelet = host.ssh, host.settings.kubelet
    labels = {key: value for key, value in host.labels.items() if kubelet.labels.get(key) != value}
    taints = [taint for taint in host.taints if taint not in kubelet.taints]
    timeout = ssh.connect_timeout if ssh.connect_timeout != Ssh.model_fields["connect_timeout"].default else None
    settings = _difference(host.settings.model_dump(mode="json"), cluster.settings.model_dump(mode="json"))
    found = {
        "ansible_connection": "local" if ssh.local else None,
        "ansible_host": ssh.address if ssh.address != host.name else None,
        "ansible_port": ssh.port if "port" in ssh.model_fields_set else None,
        "ansible_user": ssh.user if "user" in ssh.model_fields_set else None,
        "ansible_ssh_private_key_file": str(ssh.private_key) if ssh.private_key else None,
        "ansible_ssh_common_args": shlex.join(ssh.common_args) or None,
        "ansible_ssh_timeout": int(timeout) if timeout else None,
        "clusterctl_address": str(host.address) if str(host.address) != ssh.address else None,
        "clusterctl_host_key": ssh.host_key,
        "clusterctl_network_namespace": ssh.network_namespace,
        "clusterctl_labels": labels or None,
        "clusterctl_taints": [f"{taint.key}={taint.value}:{taint.effect}".replace("=:", ":") for taint in taints] or None,
        "cluster": settings or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _without_nothing(item: object) -> object:
    return {key: value for key, value in item.items() if value is not None} if isinstance(item, Mapping) else item


def _difference(own: Mapping[str, object], common: Mapping[str, object]) -> dict[str, object]:
    """Return the values that differ from those of all hosts, key by key, as they are merged when they are read."""
    found: dict[str, object] = {}
    for key, value in own.items():
        other = common.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if inner := _difference(value, other):
                found[key] = inner
        elif value != other:
            items = value if isinstance(value, list) else ()
            found[key] = [_without_nothing(item) for item in items] if items else value
    return found
