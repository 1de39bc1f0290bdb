"""How machines are reached: what the inventory sets, completed by ~/.ssh/config and /etc/ssh/ssh_config as ssh does."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import paramiko

from clusterctl.errors import InputError
from clusterctl.model import Ssh
from clusterctl.sockets import hops, ssh_options

_SYSTEM = "/etc/ssh/ssh_config"
_DEEPEST = 8
"""Jump hosts that may follow from each other's own ProxyJump."""


@dataclass(frozen=True, slots=True)
class Way:
    """How one machine or jump host is reached. ``ssh``: with everything that ssh_config adds.

    ``keys``: key files that are named for it; ``before``: the jump hosts, the nearest to us first; ``proxy``: the command whose
    stdin and stdout lead to the first of all of them.
    """

    ssh: Ssh
    keys: tuple[Path, ...] = ()
    before: tuple[Way, ...] = ()
    proxy: str | None = None

    @property
    def name(self) -> str:
        return f"{self.ssh.user}@{self.ssh.address}:{self.ssh.port}"


def resolve(ssh: Ssh) -> Way:
    """Return the way to a machine. What the inventory sets wins over ssh_config. Raises InputError."""
    return _resolve(ssh, default=None, seen=())


def names_user(ssh: Ssh) -> bool:
    """Whether the inventory or ssh_config names the user to log in as. Raises InputError."""
    return "user" in ssh.model_fields_set or "user" in _lookup(ssh)


def own_jump(ssh: Ssh) -> str | None:
    """Return the jump hosts that inventory and ssh_config name for a machine. Raises InputError."""
    return _jump_and_proxy(ssh, _lookup(ssh))[0]


def _resolve(ssh: Ssh, *, default: Way | None, seen: tuple[str, ...]) -> Way:
    """``default``: the machine behind a jump host, whose user and key it has where nothing else is named."""
    found = _lookup(ssh)
    given = ssh.model_fields_set
    update: dict[str, Any] = {"address": found.get("hostname", ssh.address)}
    if "port" not in given and str(found.get("port", "")).isdigit():
        update["port"] = int(found["port"])
    if "user" not in given:
        update["user"] = found.get("user") or (default.ssh.user if default else getpass.getuser())
        if update["user"] != ssh.user:
            update["become"] = update["user"] != "root"
    named = () if ssh.private_key else tuple(map(Path, found.get("identityfile", ())))
    keys = (ssh.private_key,) if ssh.private_key else tuple(path for path in named if path.exists())
    whole = ssh.model_copy(update=update)
    way = Way(whole, keys or (default.keys if default else ()))
    jump, proxy = _jump_and_proxy(ssh, found)
    if proxy is not None or jump is None or ssh.address in seen:
        return Way(whole, way.keys, proxy=proxy)
    if len(seen) >= _DEEPEST:
        raise InputError(f"jump hosts lead to each other: {', '.join(seen)}", where="ProxyJump",
                         hint="look at ProxyJump in ~/.ssh/config; ssh -G HOST shows it", code="ssh.jump-loop")
    return _through(way, jump, (*seen, ssh.address))


def _through(way: Way, jump: str, seen: tuple[str, ...]) -> Way:
    """Only the first jump host is reached by a way of its own: the others come after it."""
    first, *rest = hops(jump)
    limits = {"connect_timeout": way.ssh.connect_timeout, "network_namespace": way.ssh.network_namespace}
    nearest = _resolve(first.model_copy(update=limits), default=way, seen=seen)
    others = [_resolve(one.model_copy(update={**limits, "common_args": ("-J", "none")}), default=way, seen=seen) for one in rest]
    return Way(way.ssh, way.keys, before=(*nearest.before, Way(nearest.ssh, nearest.keys), *others), proxy=nearest.proxy)


def _jump_and_proxy(ssh: Ssh, found: Mapping[str, Any]) -> tuple[str | None, str | None]:
    options = ssh_options(ssh.common_args)
    jump, proxy = options.get("proxyjump"), options.get("proxycommand")
    if jump is None and proxy is None:
        jump, proxy = found.get("proxyjump"), found.get("proxycommand")
    return None if jump == "none" else jump, None if proxy == "none" else proxy


def _lookup(ssh: Ssh) -> Mapping[str, Any]:
    """Return what ssh_config has of a host; nothing for the lab's, which are in network namespaces of this machine."""
    if ssh.network_namespace is not None:
        return {}
    try:
        return dict(_config(os.path.expanduser("~/.ssh/config")).lookup(ssh.address))
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise InputError(f"cannot be read: {error}", where="~/.ssh/config or /etc/ssh/ssh_config",
                         hint="correct the line that is named; ssh -G HOST says the same") from None


@lru_cache(maxsize=4)
def _config(path: str) -> paramiko.SSHConfig:
    """Read the user's file and then the system's: the first value counts."""
    config = paramiko.SSHConfig()
    for name in (path, _SYSTEM):
        if Path(name).is_file():
            with open(name, encoding="utf-8", errors="replace") as file:
                config.parse(file)
    return config
