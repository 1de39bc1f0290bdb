"""Host patterns, as Ansible has them: names, groups, globs, ``~regular expressions``, subscripts, ``!`` and ``&``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

from clusterctl.cluster.model import Cluster, Host
from clusterctl.errors import InputError
from clusterctl.inventory.findings import did_you_mean
from clusterctl.inventory.names import ROLE_GROUPS

_PART = re.compile(r"(?:[^,:\[\]]|\[[^\]]*\])+")
_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?[0-9]+)|([0-9]+)[:-]([0-9]*))\]")


def select(cluster: Cluster, pattern: str, where: str) -> tuple[Host, ...]:
    """Return the hosts of a pattern, in the inventory's order of each part. ``where``: the option, for messages.

    Parts are separated by ``,`` or ``:``. Those with ``&`` and ``!`` apply last, in this order, to all hosts where there is no
    other part (docs.ansible.com, "Patterns: targeting hosts and groups"). Raises InputError for a part that matches no host and
    where no host is left.
    """
    parts = [part.strip() for part in _PART.findall(pattern) if part.strip()]
    positive = [part for part in parts if part[0] not in "!&"] or ["all"]
    chosen = {host.name: host for part in positive for host in _match(cluster, part, where)}
    for part in parts:
        if part[0] == "&":
            common = {host.name for host in _match(cluster, part[1:], where)}
            chosen = {name: host for name, host in chosen.items() if name in common}
    for part in parts:
        if part[0] == "!":
            for host in _match(cluster, part[1:], where):
                chosen.pop(host.name, None)
    if not parts or not chosen:
        raise InputError(f"{pattern!r} leaves no host", where=where, code="hosts.none-selected",
                         hint=f"hosts: {', '.join(host.name for host in cluster.hosts)}")
    return tuple(chosen.values())


def groups_of(host: Host) -> frozenset[str]:
    """Return the groups of a host: those of the inventory, and those of its roles under each of their names."""
    roles = {name for name, role in ROLE_GROUPS.items() if role in host.roles}
    return host.groups | roles | {"all"} | ({"k8s_cluster"} if host.is_node else set())


def _match(cluster: Cluster, part: str, where: str) -> Sequence[Host]:
    name, subscript = part, slice(None)
    # A regular expression has sets of characters, and no subscript.
    if not part.startswith("~") and (found := _SUBSCRIPT.fullmatch(part)):
        name, subscript = found[1], _subscript(found[2], found[3], found[4])
    matches = _matcher(name, where)
    hosts = [host for host in cluster.hosts if any(map(matches, {host.name, host.written, *groups_of(host)}))][subscript]
    if not hosts:
        groups = sorted(frozenset().union(*map(groups_of, cluster.hosts)))
        known = [host.name for host in cluster.hosts]
        raise InputError(f"no host or group matches {part!r}{did_you_mean(part, [*known, *groups])}", where=where,
                         code="hosts.no-match", hint=f"groups: {', '.join(groups)}; hosts: {', '.join(known)}")
    return hosts


def _subscript(index: str | None, first: str | None, last: str | None) -> slice:
    """The hosts of ``[1]``, ``[-1]``, ``[0:2]`` (both ends count) and ``[2:]``."""
    if index is not None:
        start = int(index)
        return slice(start, start + 1 or None)
    return slice(int(first or 0), int(last) + 1 if last else None)


def _matcher(name: str, where: str) -> Callable[[str], bool]:
    if not name.startswith("~"):
        return lambda candidate: fnmatch.fnmatchcase(candidate, name)
    try:
        expression = re.compile(name[1:])
    except re.error as error:
        raise InputError(f"{name!r} is not a regular expression: {error}", where=where, code="hosts.malformed-pattern") from None
    return lambda candidate: bool(expression.match(candidate))
