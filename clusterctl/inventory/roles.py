"""The roles of hosts by the groups they are in, and the names by which nodes know them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from clusterctl.cluster.model import DNS_NAME, Role
from clusterctl.inventory import values
from clusterctl.inventory.findings import Diagnostics, Place, distance
from clusterctl.inventory.groups import Tree
from clusterctl.inventory.names import FOREIGN_GROUPS, FORMER_GROUPS, ROLE_GROUPS

Roles = Mapping[str, set[Role]]
"""The roles of each host that has one, by its name in the inventory."""
LONGEST_NAME = 64 - len("system:node:")
_MOST_NAMES = 20
_GROUPS_OF: dict[Role, str] = {"control_plane": "control_plane", "etcd": "etcd", "worker": "workers"}
"""The name of each role's group."""
_CERTAIN: dict[str, Role] = {**ROLE_GROUPS, **FORMER_GROUPS}
_OTHERS = frozenset((*_CERTAIN, *FOREIGN_GROUPS, "all", "ungrouped", "k8s_cluster", "k8s-cluster", "k3s_cluster", "calico_rr",
                     "calico-rr", "bastion"))


def assign(tree: Tree, start: Place, findings: Diagnostics) -> Roles:
    """Return the roles of each host that has one; the others are left alone, with a note."""
    members: dict[str, list[str]] = {}
    for host in tree.host_places:
        for group in tree.groups_of(host):
            members.setdefault(group.name, []).append(host)
    found: dict[str, set[Role]] = {}
    for name, role in _role_groups(members, findings).items():
        for host in members.get(name, ()):
            found.setdefault(host, set()).add(role)
    if not any("etcd" in roles for roles in found.values()):
        for roles in found.values():
            if "control_plane" in roles:
                roles.add("etcd")
    _refuse_near_misses(tree, members, found, findings)
    _note_others(tree, found, start, findings)
    return {host: found[host] for host in tree.host_places if host in found}


def _role_groups(members: Mapping[str, Iterable[str]], findings: Diagnostics) -> dict[str, Role]:
    """Return the role of each group. Other tools' ambiguous names count only without an unambiguous control plane group."""
    used = {name: role for name, role in _CERTAIN.items() if name in members}
    for name, role in used.items():
        if name in FORMER_GROUPS:
            findings.note(f"group {name} is read as {_GROUPS_OF[role]} (a name of kubespray's and kubeasz's)")
    given = set(used.values())
    for name, role in FOREIGN_GROUPS.items():
        if name not in members:
            continue
        if role in given or "control_plane" in given:
            known = ", ".join(used)
            findings.note(f"group {name} has no meaning here beside {known}; for nodes of the cluster it is {_GROUPS_OF[role]}")
        else:
            findings.note(f"group {name} is read as {_GROUPS_OF[role]}")
            used = {**used, name: role}
    return used


def _refuse_near_misses(tree: Tree, members: Mapping[str, list[str]], found: Roles, findings: Diagnostics) -> None:
    """Refuse a group that is nearly called as a role's, unless its hosts have the role anyway."""
    for name, hosts in members.items():
        meant = _meant(name)
        lost = [host for host in hosts if meant and _CERTAIN[meant] not in found.get(host, ())]
        if lost:
            findings.refuse(tree.groups[name].place, f"group {name} has no meaning (did you mean {meant!r}?); not in {meant}: "
                            f"{_listed(lost)}", f"rename it to {meant}, or to a name less like it",
                            code="inventory.group-misspelt")


def _meant(name: str) -> str:
    """The role's group that a name is nearly; empty where it is none, or means something else."""
    if name in _OTHERS:
        return ""
    plain = _plain(name)
    near = [(distance(plain, _plain(known)), known) for known in ROLE_GROUPS]
    least, known = min(near)
    return known if least <= (1 if len(known) < 8 else 2) else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").removesuffix("s")


def _note_others(tree: Tree, found: Roles, start: Place, findings: Diagnostics) -> None:
    others = [host for host in tree.host_places if host not in found]
    bastions = [host for host in others if [group.name for group in tree.groups_of(host)] == ["bastion"]]
    for name in bastions:
        findings.note(f"{name} is kubespray's bastion and is ignored; here it is named in ansible_ssh_common_args: -J HOST")
    if tree.host_places and not found:
        groups = dict.fromkeys(group.name for host in others for group in tree.groups_of(host)
                               if group.name != "ungrouped")
        named = f" (groups: {_listed(list(groups))})" if groups else ""
        findings.refuse(start, f"no host is in the group control_plane, etcd or workers{named}", "put machines in these groups",
                        code="inventory.no-roles")
    elif left := [host for host in others if host not in bastions]:
        findings.note(f"in no group of the cluster, and left alone: {_listed(left)}")


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def node_names(tree: Tree, hosts: Iterable[str], findings: Diagnostics) -> dict[str, str]:
    """Return the names of nodes by those in the inventory: lower case, '-' for '_', and a name for an address."""
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    renamed: list[str] = []
    for host, name in _named(hosts):
        if not name or len(name) > LONGEST_NAME or not DNS_NAME.fullmatch(name):
            findings.refuse(tree.host_places[host], f"{host[:254]!r} is not a host name (RFC 1123: letters, digits, "
                            f"'-' and '.', at most {LONGEST_NAME}, as many as its certificate has place for)"
                            f"{values.ipv6_note(host)}", "name the machine so, and give its address as ansible_host",
                            code="inventory.host-name")
            continue
        if (other := taken.setdefault(name, host)) != host:
            findings.refuse(tree.host_places[host], f"hosts {other} and {host} are both called {name} as nodes",
                            "rename one of them", code="inventory.host-name-twice")
            continue
        names[host] = name
        if name != host:
            renamed.append(f"{host} is {name}")
    if renamed:
        findings.note(f"names of nodes: {_listed(renamed)}")
    return names


def _named(hosts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for host in hosts:
        try:
            address = ipaddress.IPv4Address(host)
        except ValueError:
            yield host, host.lower().replace("_", "-")
        else:
            yield host, f"node-{str(address).replace('.', '-')}"
