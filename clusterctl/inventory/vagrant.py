"""An inventory of the machines that Vagrant raised, from what ``vagrant ssh-config`` and the machines themselves say."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from clusterctl.errors import InputError
from clusterctl.inventory.document import Node, parse, read_bytes
from clusterctl.inventory.findings import Diagnostics, did_you_mean
from clusterctl.inventory.settings import plain
from clusterctl.local.storage import write_whole

NETWORK_VARIABLE = "CLUSTERCTL_VAGRANT_NETWORK"
CONFIG_KEYS = ("box", "provider", "driver", "network", "control_plane", "etcd", "workers", "cluster")
_GROUPS = {"cp": "control_plane", "etcd": "etcd", "w": "workers"}
_NAME = re.compile(r"(cp|etcd|w)-[1-9][0-9]?")
_HOST_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/=]{60,80}")


@dataclass(frozen=True, slots=True)
class Machine:
    """One ``Host`` block of ``vagrant ssh-config``."""

    name: str
    options: Mapping[str, str]

    @property
    def group(self) -> str:
        return _GROUPS[self.name.partition("-")[0]]


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The public host key and the address in the cluster's network that a machine reported."""

    host_key: str
    address: str


def generate(ssh_config: str, config: Path, facts: Path, mirror: Path | None = None) -> str:
    """Return the inventory as YAML.

    ``facts`` holds NAME.facts for each machine: its public host key, then its addresses. ``mirror``: used where the configuration
    names none.
    """
    network, cluster = read_config(config)
    if mirror is not None and isinstance(cluster, dict) and "mirror" not in (artifacts := cluster.get("artifacts") or {}):
        cluster = {**cluster, "artifacts": {**artifacts, "mirror": str(mirror)}}
    groups: dict[str, dict[str, dict[str, object]]] = {}
    for machine in read_machines(ssh_config):
        found = read_facts(facts / f"{machine.name}.facts", network)
        groups.setdefault(machine.group, {})[machine.name] = _variables(machine, found)
    children = {group: {"hosts": groups[group]} for group in ("control_plane", "etcd", "workers") if group in groups}
    tree = {"all": {"vars": {"cluster": cluster}, "children": children}}
    return "# Written by vagrant/apply from what Vagrant made; changes here are lost.\n" + yaml.safe_dump(tree, sort_keys=False)


def _variables(machine: Machine, facts: MachineFacts) -> dict[str, object]:
    options = machine.options
    variables: dict[str, object] = {
        "ansible_host": options["hostname"],
        "ansible_port": int(options["port"]),
        "ansible_user": options["user"],
        "ansible_ssh_private_key_file": options["identityfile"],
        "clusterctl_address": facts.address,
        "clusterctl_host_key": facts.host_key,
    }
    if options["user"] != "root":
        variables["ansible_become"] = True
    if "proxycommand" in options:
        variables["ansible_ssh_common_args"] = shlex.join(("-o", f"ProxyCommand={options['proxycommand']}"))
    return variables


def read_machines(ssh_config: str) -> list[Machine]:
    """The machines of an ``ssh-config``; of several keys the first counts."""
    blocks: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(ssh_config.splitlines(), 1):
        word, _, rest = line.strip().partition(" ")
        value = rest.strip()
        if not word or word.startswith("#"):
            continue
        if word.lower() == "host":
            blocks.append((value, {}))
        elif not blocks:
            raise InputError(f"{word!r} stands before the first Host", where=f"ssh-config:{number}", code="vagrant.ssh-config",
                             hint="vagrant ssh-config")
        else:
            blocks[-1][1].setdefault(word.lower(), _unquoted(value, word))
    if not blocks:
        raise InputError("names no machine; are they up?", where="ssh-config", hint="vagrant up", code="vagrant.no-machines")
    return [_machine(name, options) for name, options in blocks]


def _unquoted(value: str, word: str) -> str:
    """OpenSSH's quotes around file names; a ProxyCommand is a command line and keeps its own."""
    if word.lower() != "proxycommand" and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def _machine(name: str, options: dict[str, str]) -> Machine:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no machine of this Vagrantfile (cp-N, etcd-N, w-N)", where="ssh-config",
                         code="vagrant.unknown-machine")
    missing = [key for key in ("hostname", "port", "user", "identityfile") if not options.get(key)]
    if missing or not re.fullmatch("[0-9]{1,5}", options["port"]) or not 1 <= int(options["port"]) <= 65535:
        raise InputError(f"{name}: {', '.join(missing) or 'port'} is missing or wrong", where="ssh-config",
                         code="vagrant.ssh-config")
    return Machine(name, options)


def read_facts(path: Path, network: ipaddress.IPv4Network) -> MachineFacts:
    """The host key and the one address inside the private network."""
    lines = read_bytes(path).decode("utf-8", "replace").split("\n")
    key = _HOST_KEY.match(lines[0])
    if key is None:
        raise InputError("the first line is no ssh-ed25519 public key", where=str(path), code="vagrant.host-key")
    addresses = [word for word in " ".join(lines[1:]).split() if _is_in(word, network)]
    if len(addresses) != 1:
        raise InputError(f"{len(addresses) or 'no'} addresses in {network}", where=str(path),
                         hint=f"does {NETWORK_VARIABLE} say now what it said at `vagrant up`?", code="vagrant.addresses")
    return MachineFacts(key.group(), addresses[0])


def _is_in(word: str, network: ipaddress.IPv4Network) -> bool:
    try:
        return ipaddress.IPv4Address(word) in network
    except ValueError:
        return False


def read_config(path: Path) -> tuple[ipaddress.IPv4Network, object]:
    """The machines' network and the cluster's settings; the rest of the file is the Vagrantfile's business."""
    findings = Diagnostics()
    root = parse(read_bytes(path), str(path), findings)
    entries = _config_entries(root, str(path), findings)
    findings.raise_problems()
    settings = plain(entries["cluster"], findings) if "cluster" in entries else {"name": "vagrant"}
    findings.raise_problems()
    written = os.environ.get(NETWORK_VARIABLE) or (entries["network"].written if "network" in entries else "192.168.60.0/24")
    try:
        return ipaddress.IPv4Network(written), settings
    except ValueError:
        where = NETWORK_VARIABLE if os.environ.get(NETWORK_VARIABLE) else str(entries["network"].place)
        raise InputError(f"{written!r} is not an IPv4 network", where=where, code="vagrant.network") from None


def _config_entries(root: Node | None, file: str, findings: Diagnostics) -> Mapping[str, Node]:
    if root is None:
        return {}
    if not isinstance(root.value, dict):
        raise InputError("is not a map", where=file, code="vagrant.config")
    for key, node in root.value.items():
        if key not in CONFIG_KEYS:
            findings.refuse(node.key, f"unknown key {key!r}{did_you_mean(key, CONFIG_KEYS)}; known are {', '.join(CONFIG_KEYS)}")
    return root.value


def write_inventory(path: Path, text: str) -> None:
    """Put the inventory in place whole or not at all."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path), code="vagrant.not-written") from None
