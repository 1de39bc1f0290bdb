"""Host keys: which one a machine must prove to have, before anything is sent to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import paramiko

from clusterctl.cluster.model import Ssh
from clusterctl.errors import AccessRefused, InputError
from clusterctl.ssh.host_certificates import Marked
from clusterctl.ssh.ssh_config import Way

HostKey = paramiko.PKey


def fingerprint(key: paramiko.PKey) -> str:
    """``SHA256:...`` as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


class Pinned(paramiko.MissingHostKeyPolicy):
    """Accepts just the key that the inventory or known_hosts names, itself or by an authority; before any authentication byte."""

    def __init__(self, name: str, pin: str | None, marked: Marked) -> None:
        self.name, self.pin, self.marked = name, pin, marked

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        pin = self.pin
        self.marked.refuse_revoked(key)
        if pin is None and self.marked.vouch_for(key):
            return
        offered = {fingerprint(key), f"{key.get_name()} {key.get_base64()}"}
        if pin is not None and " ".join(pin.split()[:2]) in offered:
            return
        what = "is not known" if pin is None else f"has changed (pinned {short(pin)})"
        raise AccessRefused(
            f"its host key {fingerprint(key)} {what}; nothing was sent to it", where=self.name,
            hint=f"compare with 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' on its console, then: clusterctl trust "
                 f"{self.name.removeprefix('bastion ')} --fingerprint {fingerprint(key)}",
            code="ssh.host-key-unknown" if pin is None else "ssh.host-key-changed")


def short(pin: str) -> str:
    """The fingerprint of a pin, however it is spelled."""
    words = pin.split()
    if len(words) < 2:
        return pin
    digest = hashlib.sha256(base64.b64decode(words[1] + "==", validate=False)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def known_as(ssh: Ssh) -> str:
    """How known_hosts names a machine."""
    return ssh.address if ssh.port == 22 else f"[{ssh.address}]:{ssh.port}"


def expect(client: paramiko.SSHClient, way: Way, known_hosts: Path | None, marked: Marked) -> None:
    """Ask the machine for the kind of key that is pinned, or known; a fingerprint does not tell its kind.

    Raises InputError, and AccessRefused where a key is revoked.
    """
    for kind, key in expected(way, known_hosts).items():
        marked.refuse_revoked(key)
        client.get_host_keys().add(known_as(way.ssh), kind, key)


def prefers_certificate(marked: Marked, way: Way, known_hosts: Path | None) -> bool:
    """Whether a machine is asked for a certificate first: an authority may vouch for it, and no key of it is pinned or known."""
    return bool(marked.authorities) and way.ssh.host_key is None and not expected(way, known_hosts)


def expected(way: Way, known_hosts: Path | None) -> Mapping[str, paramiko.PKey]:
    """Return the keys that are pinned or known of a machine, by their kinds. Raises InputError.

    A key that was accepted for this cluster takes precedence over the user's own files, of which the first that has one counts.
    """
    name = known_as(way.ssh)
    if way.ssh.host_key is not None:
        return _keys(f"{name} {way.ssh.host_key}".encode(), name) or {}
    if known_hosts and (found := _known(known_hosts, name, ours=True)):
        return found
    users = (_known(path, way.host_key_alias or name, ours=False) for path in way.known_hosts)
    return next(filter(None, users), {})


def _known(path: Path, name: str, *, ours: bool) -> Mapping[str, paramiko.PKey]:
    """The keys that a known_hosts has of a machine. A bad line is skipped in the user's own, as ssh does."""
    found: dict[str, paramiko.PKey] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        if ours and not isinstance(error, FileNotFoundError):
            raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="ssh.known-hosts-unreadable",
                             hint="make it this user's own") from None
        return found
    for number, line in enumerate(lines, 1):
        keys = _keys(line, name)
        if keys is None and ours:
            raise InputError("is no host key", where=f"{path}:{number}", code="ssh.known-hosts-malformed",
                             hint="take the line out, then: clusterctl trust HOST")
        found = {**(keys or {}), **found}
    return found


def _keys(line: bytes, name: str) -> Mapping[str, paramiko.PKey] | None:
    """The key that a line of known_hosts has of a machine, by its kind; None where the line is none."""
    words = line.decode(errors="replace").split()
    if not words or words[0].startswith(("#", "@")):
        return {}
    with contextlib.suppress(Exception):  # A bad key makes paramiko raise nearly anything.
        entry = paramiko.hostkeys.HostKeyEntry.from_line(" ".join(words))
        if entry is not None and entry.key is not None:
            hashed = (one for one in entry.hostnames or () if one.startswith("|1|"))
            mine = name in (entry.hostnames or ()) or any(paramiko.HostKeys.hash_host(name, one) == one for one in hashed)
            return {entry.key.get_name(): entry.key} if mine else {}
    return None
