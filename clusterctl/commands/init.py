"""``init``: look at machines and propose an inventory of them."""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterctl.cluster.model import DNS_LABEL, Host, Ssh
from clusterctl.engine import fleet
from clusterctl.engine.observe import look
from clusterctl.errors import AccessRefused, InputError
from clusterctl.inventory.rules import even_members
from clusterctl.session.opening import Options
from clusterctl.shell.facts import Facts
from clusterctl.ssh.host_keys import expected, fingerprint
from clusterctl.ssh.login import Login
from clusterctl.ssh.sockets import hops
from clusterctl.ssh.ssh_config import resolve
from clusterctl.ssh.transport import HostKey, Transport, is_vouched_for, offered_key

UNKNOWN_ADDRESS = ipaddress.IPv4Address(0)
"""Of a machine that was not asked yet."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/@+=-]*")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A machine that was asked: its host, named and with its address in the machines' network, its key and its facts."""

    host: Host
    key: HostKey
    facts: Facts


def parse(words: Sequence[str]) -> list[Host]:
    """Return hosts for ``[USER@]ADDRESS[:PORT]`` or names of ssh_config. Raises InputError."""
    hosts = []
    for word in words:
        try:
            [ssh] = hops(word)
        except (InputError, ValueError):
            raise InputError(f"{word!r} is not [USER@]ADDRESS[:PORT]", where="HOST", code="init.malformed-host",
                             hint="for instance admin@10.0.0.11") from None
        port = f"-{ssh.port}" if "port" in ssh.model_fields_set else ""
        hosts.append(Host(name=_name(ssh.address + port), address=UNKNOWN_ADDRESS, roles=frozenset(), ssh=ssh))
    doubles = [name for name, count in Counter(host.name for host in hosts).items() if count > 1]
    if doubles:
        raise InputError(f"{doubles[0]} is named twice", where="HOST", code="init.host-repeated", hint="name each machine once")
    return hosts


def control_plane_count(hosts: int, wanted: int | None) -> int:
    """Return how many control planes to propose: ``wanted``, else three of four or more machines, else one. Raises InputError."""
    count = wanted if wanted is not None else 3 if hosts > 3 else 1
    why, hint = even_members(count)
    if not 1 <= count <= hosts:
        why, hint = f"{count} control planes of {hosts} machines", f"1 to {hosts}"
    if why:
        raise InputError(why, where="--control-planes", code="init.control-planes", hint=hint)
    return count


def offers(hosts: Sequence[Host]) -> Mapping[str, HostKey]:
    """Return the host key of each machine, by name. Raises Unreachable, and AccessRefused where another key is known of one."""

    def ask(host: Host) -> HostKey:
        key = offered_key(host)
        known = expected(resolve(host.ssh), None)
        if known and key not in known.values():
            raise AccessRefused(f"its host key has changed: ~/.ssh/known_hosts has another one than {fingerprint(key)}",
                                where=host.name, code="ssh.host-key-changed",
                                hint=f"if it was reinstalled: ssh-keygen -R {host.ssh.address}")
        return key

    return fleet.each(hosts, ask, limit=20).or_raise()


def is_known(host: Host, key: HostKey) -> bool:
    """Return whether known_hosts has a key of the machine, or an authority that vouches for it. Raises AccessRefused."""
    return bool(expected(resolve(host.ssh), None)) or is_vouched_for(host, key)


def observe(hosts: Sequence[Host], keys: Mapping[str, HostKey], options: Options) -> list[Candidate]:
    """Log in to each machine, pinned to its key, and ask for its facts. Raises Unreachable, AccessRefused."""

    def ask(host: Host) -> Candidate:
        key = keys[host.name]
        pinned = _with_ssh(host, host_key=f"{key.get_name()} {key.get_base64()}")
        login = Login(None, options.passphrase, options.ssh_password)
        transport = Transport(pinned, sudo_password=options.sudo_password, login=login, operation="init")
        try:
            facts = look(transport, forwarding=False).facts
        finally:
            transport.close()
            login.close()
        return Candidate(pinned.model_copy(update={"address": _address(transport.way.ssh.address, facts)}), key, facts)

    found = fleet.each(hosts, ask, limit=20).or_raise()
    names = Counter(one.facts.hostname.partition(".")[0].lower() for one in found.values())
    return [_named(found[host.name], names) for host in hosts]


def propose(candidates: Sequence[Candidate], control_planes: int) -> str:
    """Return the text of an inventory; the first machines are its control planes."""
    first, rest = candidates[:control_planes], candidates[control_planes:]
    lines = [
        "# Written by clusterctl init. Check addresses and roles, then: clusterctl plan -i FILE",
        "# All settings: clusterctl schema",
        "all:",
        "  vars:",
        "    cluster:",
        "      name: kubernetes  # cannot be changed later",
        "  children:",
        "    control_plane:  # API server, controller manager, scheduler and etcd",
        "      hosts:",
        *(line for one in first for line in _host_lines(one)),
        "    workers:" + ("" if rest else "  # no other machine: pods run on the control planes"),
        "      hosts:",
        *(line for one in rest for line in _host_lines(one)),
        *(f"        {one.host.name}: {{}}" for one in first if not rest),
    ]
    return "\n".join(lines) + "\n"


def _host_lines(one: Candidate) -> list[str]:
    facts, ssh = one.facts, one.host.ssh
    others = [address for address in _usable(facts) if address != str(one.host.address)]
    seen = [f"{facts.os} {facts.os_version}, {facts.arch}, {facts.cpus} CPUs, {facts.memory_mib} MiB",
            *([f"also has {', '.join(others[:3])}"] if others else []),
            *(["in a cluster already"] if facts.cluster else [])]
    given = {
        "ansible_host": ssh.address,
        **({"ansible_user": ssh.user} if "user" in ssh.model_fields_set else {}),
        **({"ansible_port": ssh.port} if "port" in ssh.model_fields_set else {}),
        **({"clusterctl_address": str(one.host.address)} if str(one.host.address) != ssh.address else {}),
        "clusterctl_host_key": ssh.host_key or "",
    }
    return [f"        {one.host.name}:  # {'; '.join(seen)}".replace("\n", " "),
            *(f"          {name}: {_scalar(value)}" for name, value in given.items())]


def _scalar(value: str | int) -> str:
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value)


def _with_ssh(host: Host, **update: object) -> Host:
    given = {name: getattr(host.ssh, name) for name in host.ssh.model_fields_set}
    return host.model_copy(update={"ssh": Ssh(**{**given, **update})})


def _named(one: Candidate, names: Counter[str]) -> Candidate:
    """Name a machine as itself does, where that is a name of its own."""
    own = one.facts.hostname.partition(".")[0].lower()
    fits = DNS_LABEL.fullmatch(own) and own != "localhost" and names[own] == 1
    return Candidate(one.host.model_copy(update={"name": own if fits else _name(str(one.host.address))}), one.key, one.facts)


def _name(address: str) -> str:
    label = re.sub(r"[^a-z0-9]+", "-", address.lower()).strip("-")[:50]
    return f"node-{label}" if label[:1].isdigit() else label or "node"


def _usable(facts: Facts) -> list[str]:
    """The machine's addresses that others could reach."""
    found = (ipaddress.IPv4Address(word) for word in dict.fromkeys(facts.addresses))
    return [str(address) for address in found if not (address.is_loopback or address.is_link_local)]


def _address(ssh_address: str, facts: Facts) -> ipaddress.IPv4Address:
    """The address of SSH where the machine itself has it, as one behind NAT has not; else its first private one, or its first."""
    usable = _usable(facts)
    private = [address for address in usable if ipaddress.IPv4Address(address).is_private]
    chosen = ssh_address if ssh_address in usable else next(iter((*private, *usable)), None)
    if chosen is None:
        raise InputError(f"has no IPv4 address that others could reach (it has {', '.join(facts.addresses) or 'none'})",
                         where=ssh_address, code="init.no-address", hint="give it one, then run this again")
    return ipaddress.IPv4Address(chosen)
