"""``trust``: accept a machine's host key on purpose."""

from __future__ import annotations

import paramiko

from clusterctl.errors import InputError, Refused, Unreachable
from clusterctl.model import Host
from clusterctl.storage import StateFolder
from clusterctl.transport import fingerprint, offered_key


def offered(host: Host) -> paramiko.PKey:
    """The key that a machine offers; nothing of ours is sent to it. Raises Unreachable."""
    try:
        return offered_key(host)
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise Unreachable(f"cannot be reached: {error or type(error).__name__}", where=host.name) from None


def accept(state: StateFolder, host: Host, key: paramiko.PKey, expected: str | None) -> None:
    """Write the key down for this cluster. Raises Refused where it is not the expected one, InputError where the inventory pins another."""
    if expected is not None and expected != fingerprint(key):
        raise Refused(f"it offers {fingerprint(key)}, not {expected}; nothing was accepted", where=host.name,
                      hint="look at the machine's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    if host.ssh.host_key is not None:
        raise InputError("the inventory pins its host key", where=host.name, hint=f"change clusterctl_host_key there to: {key.get_name()} {key.get_base64()}")
    state.prepare()
    name = host.ssh.address if host.ssh.port == 22 else f"[{host.ssh.address}]:{host.ssh.port}"
    lines = [line for line in (state.read("known_hosts") or b"").decode().splitlines() if line.split(" ")[:1] != [name]]
    state.write("known_hosts", "\n".join([*lines, f"{name} {key.get_name()} {key.get_base64()}", ""]).encode())
