"""Groups, hosts and variables, by Ansible's rules: who is in which group, and which of many values counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from clusterctl.errors import InputError
from clusterctl.inventory import values
from clusterctl.inventory.document import Node
from clusterctl.inventory.findings import Diagnostics, Place, did_you_mean
from clusterctl.inventory.names import GROUP_KEYS

MOST_HOSTS = 5000  # as many nodes as Kubernetes allows
MOST_MENTIONS = 40 * MOST_HOSTS
_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])+):([0-9]{1,9})")
_RANGE = re.compile(r"\[([0-9A-Za-z]*):([0-9A-Za-z]+)(?::([0-9]+))?\]")

Variables = dict[str, Node]


@dataclass(slots=True)
class Group:
    """One group, gathered from all the places that speak of it."""

    name: str
    place: Place
    children: dict[str, Place] = field(default_factory=dict)
    variables: Variables = field(default_factory=dict)
    depth: int = 1
    priority: int = 1


@dataclass(slots=True)
class Tree:
    """All groups and hosts of an inventory, under the names that are written there."""

    groups: dict[str, Group] = field(default_factory=dict)
    host_variables: dict[str, Variables] = field(default_factory=dict)
    host_places: dict[str, Place] = field(default_factory=dict)
    parents: dict[str, dict[str, None]] = field(default_factory=dict)
    mentions: int = 0
    named: dict[str, set[str]] = field(default_factory=dict)
    """The groups that name a host."""
    _groups_of: dict[str, list[Group]] = field(default_factory=dict)

    def group(self, name: str, place: Place) -> Group:
        return self.groups.setdefault(name, Group(name, place))

    def groups_of(self, host: str) -> list[Group]:
        """The groups of a host from the weakest to the strongest, without ``all``: Ansible's depth, priority, name."""
        if host not in self._groups_of:
            found = set(self.named[host])
            pending = list(found)
            while pending:
                above = self.parents.get(pending.pop(), {}).keys() - found
                found |= above
                pending += above
            self.count(len(found), self.host_places[host])
            others = found - {"all", "ungrouped"} or {"ungrouped"}
            chosen = (self.groups[name] for name in others)
            self._groups_of[host] = sorted(chosen, key=lambda group: (group.depth, group.priority, group.name))
        return self._groups_of[host]

    def forget_groups(self) -> None:
        """Forget the groups of hosts: groups were added."""
        self._groups_of.clear()

    def count(self, mentions: int, place: Place) -> None:
        """A range is a few bytes and thousands of hosts: what all groups hold together is bounded, too."""
        self.mentions += mentions
        if self.mentions > MOST_MENTIONS:
            raise InputError(f"all groups together hold more than {MOST_MENTIONS} hosts", where=str(place),
                             hint="name each host in fewer groups, or split the inventory by clusters",
                             code="inventory.too-many-hosts")


def read_groups(tree: Tree, root: Node, findings: Diagnostics) -> None:
    """Add the groups of an inventory in YAML to a tree; top-level keys are groups."""
    for name, node in _map(root, findings).items():
        if name.startswith("x-") and isinstance(node.value, dict) and not node.value.keys() & {*GROUP_KEYS}:
            continue  # Anchors stand there, and Ansible only warns.
        if name == "plugin" and isinstance(node.value, str):
            findings.refuse(node.key, f"is for Ansible's inventory plugin {node.shown}, which clusterctl does not run",
                            "ansible-inventory -i FILE --list > inventory.json", code="inventory.plugin")
            return
        if name == "cluster" and isinstance(node.value, dict) and not set(node.value) <= set(GROUP_KEYS):
            _refuse_misplaced(node, findings)
        else:
            _read_group(tree, name, node, findings)


def _refuse_misplaced(node: Node, findings: Diagnostics) -> None:
    findings.refuse(node.key, f"{node.path}: the settings belong in all.vars or group_vars/all",
                    "write them as all: {vars: {cluster: ...}}", code="inventory.cluster-misplaced")


def _map(node: Node, findings: Diagnostics) -> dict[str, Node]:
    """The entries of a map; nothing at all counts as an empty one."""
    if isinstance(node.value, dict):
        return node.value
    if node.value is not None:
        findings.refuse(node.place, f"{node.path or 'the inventory'}: a map is wanted, not {node.kind}")
    return {}


def _read_group(tree: Tree, name: str, node: Node, findings: Diagnostics) -> None:
    group = tree.group(name, node.key)
    for key, value in _map(node, findings).items():
        if key == "cluster":
            _refuse_misplaced(value, findings)
            continue
        if key not in GROUP_KEYS:
            wanted = ", ".join(GROUP_KEYS)
            findings.refuse(value.key, f"{value.path}: unknown key{did_you_mean(key, GROUP_KEYS)}; a group has {wanted}")
            continue
        if key != "vars" and isinstance(value.value, str):  # Ansible takes one name for a map of it.
            value = replace(value, value={value.value: replace(value, value=None, key=value.place)})
        for inner, item in _map(value, findings).items():
            _read_entry(tree, group, key, (inner, item), findings)


def _read_entry(tree: Tree, group: Group, key: str, entry: tuple[str, Node], findings: Diagnostics) -> None:
    name, node = entry
    if key == "vars":
        group.variables[name] = node
    elif key == "children":
        if add_child(tree, group, name, node.key, findings):
            _read_group(tree, name, node, findings)
    else:
        add_hosts(tree, group, name, (node.key, _map(node, findings)), findings)


def add_child(tree: Tree, group: Group, child: str, place: Place, findings: Diagnostics) -> bool:
    """Put a group below another one; False where it cannot be there."""
    if child == "all":
        findings.refuse(place, f"all holds every group, and cannot be a child of {group.name}",
                        "name the groups or hosts that are meant")
    else:
        tree.group(child, place)
        group.children[child] = place
    return child in group.children


def add_hosts(tree: Tree, group: Group, pattern: str, entry: tuple[Place, Variables], findings: Diagnostics) -> None:
    """Put the hosts of a pattern in a group. ``name:22`` gives hosts that are new the variable ansible_port, as in Ansible."""
    place, variables = entry
    port = _PORT.fullmatch(pattern) if len(pattern) < 512 else None
    if port is not None:
        pattern = port[1]
        given = Node(int(port[2]), place, f"{pattern}.ansible_port", place, port[2])
    for count, host in enumerate(expand(pattern, place, findings), 1):
        if count > MOST_HOSTS:
            raise InputError(f"{pattern!r} stands for more than {MOST_HOSTS} hosts", where=str(place),
                             code="inventory.too-many-hosts")
        if port is not None and host not in tree.host_places:
            add_host(tree, group, host, (place, {"ansible_port": given}))
        add_host(tree, group, host, entry)


def add_host(tree: Tree, group: Group, host: str, entry: tuple[Place, Variables]) -> None:
    """Put a host in a group; a later mention of the same variable wins, as in Ansible."""
    place, variables = entry
    tree.count(1, place)
    tree.named.setdefault(host, set()).add(group.name)
    tree.host_places.setdefault(host, place)
    tree.host_variables.setdefault(host, {}).update(variables)
    if len(tree.host_places) > MOST_HOSTS:
        raise InputError(f"more than {MOST_HOSTS} hosts", where=str(place), code="inventory.too-many-hosts")


def expand(pattern: str, place: Place, findings: Diagnostics) -> Iterator[str]:
    """The names of a pattern with Ansible's ranges: ``w[1:3]``, ``w[01:03]``, ``w[a:c]``, ``w[0:10:2]``."""
    found = _RANGE.search(pattern)
    if found is None or len(pattern) > 253:
        if "[" in pattern:
            why = values.ipv6_note(pattern) or " has no range such as [1:3] in its brackets"
            findings.refuse(place, f"{pattern[:254]!r}{why}", code="inventory.range")
        else:
            yield pattern[:254]
        return
    head, tail = pattern[:found.start()], pattern[found.end():]
    try:
        words = _range_words(found.group(1) or "0", found.group(2), int(found.group(3) or 1))
    except ValueError as error:
        findings.refuse(place, f"{pattern!r}: the range {found.group()} {error}")
        return
    for word in words:
        yield from (head + word + rest for rest in expand(tail, place, findings))


def _range_words(begin: str, end: str, step: int) -> list[str]:
    if step < 1:
        raise ValueError("has no step")
    if begin.isdigit() and end.isdigit() and len(begin + end) <= 18:
        if begin[0] == "0" and len(begin) > 1 and len(begin) != len(end):
            raise ValueError("has zeros in front, but ends of different length")
        width = len(begin) if begin[0] == "0" and len(begin) > 1 else 0
        numbers = _numbers(int(begin), int(end), step)
        return [str(number).zfill(width) for number in numbers]
    if len(begin) == len(end) == 1 and begin.isalpha() and end.isalpha():
        return [chr(number) for number in _numbers(ord(begin), ord(end), step) if chr(number).isalpha()]
    raise ValueError("goes neither from number to number nor from letter to letter")


def _numbers(begin: int, end: int, step: int) -> range:
    if begin > end:
        raise ValueError("ends before it begins")
    if (end - begin) // step >= MOST_HOSTS:
        raise ValueError(f"has more than {MOST_HOSTS} hosts")
    return range(begin, end + 1, step)


def settle(tree: Tree, findings: Diagnostics) -> None:
    """How far each group is from ``all``, at most, and its priority; groups that contain themselves are refused."""
    for group in tree.groups.values():
        for child in group.children:
            tree.parents.setdefault(child, {})[group.name] = None
        if (node := group.variables.pop("ansible_group_priority", None)) is not None:
            group.priority = values.integer(node, findings, -999_999_999, 999_999_999) or 0
    try:
        order = [*TopologicalSorter(tree.parents).static_order()]
    except CycleError as error:
        circle = error.args[1]
        raise InputError(f"a group contains itself: {' > '.join(circle)}", where=str(tree.groups[circle[0]].place),
                         hint="take one of them out of the children of the one before it", code="inventory.group-cycle") from None
    tree.groups["all"].depth = 0
    for name in order:
        if above := tree.parents.get(name):
            tree.groups[name].depth = 1 + max(tree.groups[parent].depth for parent in above)


def add_dynamic_groups(tree: Tree, findings: Diagnostics) -> None:
    """Put kubespray's groups into ``k8s_cluster`` where an inventory does not.

    Its playbooks do so at run time (roles/dynamic_groups), so that group_vars/k8s_cluster counts without the group, too.
    """
    members = [tree.groups[name] for name in ("kube_control_plane", "kube_node", "calico_rr") if name in tree.groups]
    if members and "k8s_cluster" not in tree.groups:
        tree.group("k8s_cluster", members[0].place).children = {group.name: group.place for group in members}
        tree.forget_groups()
        settle(tree, findings)
