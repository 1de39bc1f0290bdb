"""How machines are reached: what the inventory sets, completed by ~/.ssh/config and /etc/ssh/ssh_config as ssh does."""

from __future__ import annotations

import getpass
import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clusterctl.cluster.model import Ssh
from clusterctl.errors import InputError
from clusterctl.ssh.config_files import Evaluation
from clusterctl.ssh.sockets import hops
from clusterctl.ssh.ssh_options import parse

log = logging.getLogger("clusterctl.ssh")

_SYSTEM = "/etc/ssh/ssh_config"
_KNOWN_HOSTS = {"userknownhostsfile": "~/.ssh/known_hosts"}
_DEEPEST = 8
"""Jump hosts that may follow from each other's own ProxyJump."""


@dataclass(frozen=True, slots=True)
class Way:
    """How one machine or jump host is reached. ``ssh``: with everything that ssh_config adds.

    ``keys``: key files that are named for it, with ``certificates`` of them; ``known_hosts``: the user's files of host keys, in
    which it has its address or ``host_key_alias``; ``before``: the jump hosts, the nearest to this computer first; ``proxy``: the
    command whose stdin and stdout lead to the first of all of them.
    """

    ssh: Ssh
    keys: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    known_hosts: tuple[Path, ...] = ()
    host_key_alias: str | None = None
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
    return _jump_and_proxy(_lookup(ssh))[0]


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
    way = Way(ssh.model_copy(update=update), keys or (default.keys if default else ()), host_key_alias=found.get("hostkeyalias"),
              certificates=_paths(found, "certificatefile"), known_hosts=_paths({**_KNOWN_HOSTS, **found}, "userknownhostsfile"))
    jump, proxy = _jump_and_proxy(found)
    if proxy is not None or jump is None or ssh.address in seen:
        return replace(way, proxy=proxy)
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
    before = (*nearest.before, replace(nearest, before=(), proxy=None), *others)
    return replace(way, before=before, proxy=nearest.proxy)


def _jump_and_proxy(found: Mapping[str, Any]) -> tuple[str | None, str | None]:
    jump, proxy = found.get("proxyjump"), found.get("proxycommand")
    return None if jump == "none" else jump, None if proxy == "none" else proxy


def _paths(found: Mapping[str, Any], name: str) -> tuple[Path, ...]:
    """The existing files of an option, which are a list or words with spaces between."""
    value = found.get(name, ())
    words = value.split() if isinstance(value, str) else value
    paths = (Path(os.path.expanduser(word)) for word in words)
    return tuple(path for path in paths if path.exists())


def _lookup(ssh: Ssh) -> Mapping[str, Any]:
    """Return the inventory's arguments and the options that ssh_config has for a host. The former hold, as on ssh's command line.

    Files are not read for the lab's machines, which are in network namespaces of this computer.
    """
    given: dict[str, Any] = dict(parse(ssh.common_args).honoured)
    keys = {"identityfile": [given.pop("identityfile")]} if "identityfile" in given else {}
    if ssh.network_namespace is not None:
        return {**given, **keys}
    evaluation = Evaluation(ssh.address, ssh.user if "user" in ssh.model_fields_set else None, given)
    try:
        found = evaluation.read(Path(os.path.expanduser("~/.ssh/config")), Path(_SYSTEM))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise InputError(f"cannot be read: {error}", where="~/.ssh/config or /etc/ssh/ssh_config",
                         hint="correct the line that is named; ssh -G HOST says the same", code="ssh.config-unreadable") from None
    log.debug("%s: ssh_config: ignored: %s", ssh.address, ", ".join(sorted(evaluation.ignored)) or "none")
    return {**found, **keys}
