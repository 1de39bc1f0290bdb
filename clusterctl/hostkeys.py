"""Host keys: which one a machine must prove to have, before anything is sent to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib

import paramiko

from clusterctl.errors import Unreachable
from clusterctl.model import Ssh

HostKey = paramiko.PKey


def fingerprint(key: paramiko.PKey) -> str:
    """``SHA256:...`` as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


class Pinned(paramiko.MissingHostKeyPolicy):
    """Accepts just the key that the inventory or our own known_hosts names; before any authentication byte."""

    def __init__(self, name: str, pin: str | None) -> None:
        self.name, self.pin = name, pin

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        pin = self.pin
        offered = {fingerprint(key), f"{key.get_name()} {key.get_base64()}"}
        if pin is not None and " ".join(pin.split()[:2]) in offered:
            return
        what = "is not known" if pin is None else f"has changed (pinned {short(pin)})"
        raise Unreachable(
            f"its host key {fingerprint(key)} {what}; nothing was sent to it", where=self.name,
            hint=f"compare with 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' on its console, then: clusterctl trust "
                 f"{self.name.removeprefix('bastion ')} --fingerprint {fingerprint(key)}")


def short(pin: str) -> str:
    """The fingerprint of a pin, however it is spelled."""
    words = pin.split()
    if len(words) < 2:
        return pin
    digest = hashlib.sha256(base64.b64decode(words[1] + "==", validate=False)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def expect(client: paramiko.SSHClient, ssh: Ssh) -> None:
    """Ask the machine for the kind of key that is pinned; a fingerprint does not tell its kind."""
    kind, _, rest = (ssh.host_key or "").partition(" ")
    if rest:
        name = ssh.address if ssh.port == 22 else f"[{ssh.address}]:{ssh.port}"
        with contextlib.suppress(paramiko.SSHException, ValueError):
            entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{name} {kind} {rest.split()[0]}")
            if entry is not None and entry.key is not None:
                client.get_host_keys().add(name, kind, entry.key)
