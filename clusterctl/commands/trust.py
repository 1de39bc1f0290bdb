"""``trust``: accept a machine's host key on purpose."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from clusterctl.cluster.model import Cluster, Host
from clusterctl.engine import fleet
from clusterctl.errors import ClusterctlError, InputError, Refused
from clusterctl.local.storage import StateFolder
from clusterctl.ssh.host_keys import expected as expected_keys
from clusterctl.ssh.host_keys import known_as
from clusterctl.ssh.ssh_config import resolve
from clusterctl.ssh.transport import HostKey, bastions, fingerprint, is_vouched_for, offered_key


def find(cluster: Cluster, name: str) -> Host:
    """A host of the inventory by its name, or a bastion on the way to one by its address. Raises InputError."""
    known = {host.name: host for host in (*bastions_of(cluster), *cluster.hosts)}
    if name not in known:
        raise InputError(f"the inventory has no host or bastion {name!r}", code="inventory.no-host",
                         hint=f"it has {', '.join(known)}")
    if known[name].ssh.local:
        raise InputError("is this computer itself: no SSH, no host key", where=name, code="trust.local", hint="leave it out")
    return known[name]


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine whose host key is not known yet, and the key that it offers."""

    host: Host
    key: HostKey


def unknown(state: StateFolder, hosts: Iterable[Host], passphrase: Callable[[], str | None], *,
            forks: int) -> tuple[list[Offer], list[ClusterctlError]]:
    """Ask all machines whose keys are neither pinned nor known, nor certified by a known authority, for them.

    Return the offers, and why others made none.
    """
    known_hosts = state.path / "known_hosts"
    asked = {host.name: host for host in hosts
             if host.ssh.host_key is None and not host.ssh.local and not expected_keys(resolve(host.ssh), known_hosts)}

    def ask(host: Host) -> HostKey | None:
        key = offered(state, host, passphrase)
        return None if is_vouched_for(host, key, known_hosts) else key

    answers = fleet.each(asked.values(), ask, limit=forks)
    return [Offer(asked[name], key) for name, key in answers.results.items() if key], list(answers.errors.values())


def bastions_of(cluster: Cluster) -> list[Host]:
    """Return the bastions on the ways to all hosts, each once, those nearest to this computer first."""
    return list({bastion.name: bastion for host in cluster.hosts for bastion in bastions(host)}.values())


def refuse_malformed(expected: str) -> None:
    """Raises InputError for what is no fingerprint of a key."""
    if not re.fullmatch("SHA256:[A-Za-z0-9+/]{43}", expected):
        raise InputError(f"{expected!r} is not a fingerprint", where="--fingerprint", code="trust.malformed-fingerprint",
                         hint="it is SHA256: and 43 characters: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")


def offered(state: StateFolder, host: Host, passphrase: Callable[[], str | None]) -> HostKey:
    """The key that a machine offers; the bastions before it must be trusted already. Raises Unreachable, InputError."""
    return offered_key(host, state.path / "known_hosts", passphrase)


def accept(state: StateFolder, host: Host, key: HostKey, expected: str | None) -> None:
    """Write the key down for this cluster. Raises Refused for an unexpected one, InputError where the inventory pins one."""
    if expected is not None and expected != fingerprint(key):
        raise Refused(
            f"it offers {fingerprint(key)}, not {expected}; nothing was accepted",
            where=host.name,
            hint="look at the machine's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
            code="trust.fingerprint-mismatch",
        )
    if host.ssh.host_key is not None:
        raise InputError(
            "the inventory pins its host key",
            where=host.name,
            hint=f"change clusterctl_host_key there to: {key.get_name()} {key.get_base64()}",
            code="trust.pinned",
        )
    state.prepare()
    name = known_as(resolve(host.ssh).ssh)
    lines = [line for line in (state.read("known_hosts") or b"").splitlines() if line.split(b" ")[:1] != [name.encode()]]
    state.write("known_hosts", b"\n".join([*lines, f"{name} {key.get_name()} {key.get_base64()}".encode(), b""]))
