"""SSH host certificates: machines that a certificate authority of known_hosts vouches for, and keys that are revoked there."""

from __future__ import annotations

import base64
import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import paramiko

from clusterctl.errors import AccessRefused
from clusterctl.ssh.ssh_config import Way

_HOST = 2
_FIELDS = {"ssh-ed25519": 1, "ssh-rsa": 2, "ecdsa-sha2-nistp256": 2, "ecdsa-sha2-nistp384": 2, "ecdsa-sha2-nistp521": 2}
"""How many fields the public keys have that certificates are of (PROTOCOL.certkeys of OpenSSH)."""
_SUFFIX = "-cert-v01@openssh.com"
_FOREVER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Marked:
    """The marked lines of known_hosts (``@cert-authority``, ``@revoked``) that apply to one machine.

    ``names``: of the machine, without its port; ``authorities`` and ``revoked``: public keys as SSH encodes them.
    """

    names: tuple[str, ...]
    authorities: frozenset[bytes]
    revoked: frozenset[bytes]

    def refuse_revoked(self, key: paramiko.PKey) -> None:
        """Raises AccessRefused where a host key or the authority of its certificate is revoked."""
        blob = key.public_blob.key_blob if key.public_blob else b""
        if self.revoked and {key.asbytes(), _read(blob).authority if blob else b""} & self.revoked:
            raise AccessRefused("its host key is revoked by a @revoked line of known_hosts; nothing was sent to it",
                                code="ssh.host-key-revoked", hint="give the machine a new host key, or take the line out")

    def vouch_for(self, key: paramiko.PKey) -> bool:
        """Return whether an authority vouches for a host key; False without authority or certificate. Raises AccessRefused."""
        if not self.authorities or not key.public_blob:
            return False
        found = _read(key.public_blob.key_blob)
        if wrong := self._flaw(found):
            raise _bad_certificate("ssh.host-certificate-wrong", wrong,
                                   "ssh-keygen -L -f /etc/ssh/ssh_host_ed25519_key-cert.pub on its console shows it")
        if not found.after <= time.time() < found.before:
            raise _bad_certificate("ssh.host-certificate-expired", f"is valid from {_date(found.after)} to {_date(found.before)}",
                                   "renew it, or correct the clock of this computer")
        return True

    def _flaw(self, found: _Certificate) -> str:
        """Return what is wrong with a certificate, whatever the time; empty where nothing is."""
        if found.authority not in self.authorities:
            return "is not signed by an authority of known_hosts that is for this machine"
        if not _is_signed(found):
            return "has a wrong signature"
        if found.kind != _HOST:
            return "is not a host's"
        if found.critical:
            return "has critical options, of which none is defined for hosts"
        if found.principals and not any(_fits(name, one) for name in self.names for one in found.principals):
            return f"is for {', '.join(found.principals)}, and not for {' or '.join(self.names)}"
        return ""


def marked(name: str, way: Way, known_hosts: Path | None) -> Marked:
    """Return what known_hosts marks for a machine. ``name``: its name in the inventory; ``known_hosts``: the cluster's own."""
    names = tuple(dict.fromkeys((way.host_key_alias or way.ssh.address, name.removeprefix("bastion "))))
    sought = {name.lower() for name in (*names, f"[{names[0]}]:{way.ssh.port}")}
    found: dict[str, set[bytes]] = {"@cert-authority": set(), "@revoked": set()}
    for path in (*([known_hosts] if known_hosts else ()), *way.known_hosts):
        with contextlib.suppress(OSError):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                words = line.split()
                if len(words) < 4 or words[0] not in found:
                    continue
                with contextlib.suppress(ValueError):
                    if _matches(sought, words[1].split(",")):
                        found[words[0]].add(base64.b64decode(words[3], validate=True))
    return Marked(names, frozenset(found["@cert-authority"]), frozenset(found["@revoked"]))


def _matches(names: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether one of a machine's names is of a list of patterns; a negated one excludes it (PATTERNS in ssh_config(5))."""
    found = {pattern.startswith("!") for pattern in patterns for name in names if _fits(name, pattern.removeprefix("!"))}
    return found == {False}


def _fits(name: str, pattern: str) -> bool:
    if pattern.startswith("|1|"):
        return paramiko.HostKeys.hash_host(name, pattern) == pattern
    expression = re.escape(pattern.lower()).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name.lower()) is not None


@dataclass(frozen=True, slots=True)
class _Certificate:
    """The fields that count. ``after`` and ``before``: seconds since 1970; ``signed``: what the signature is over."""

    kind: int
    principals: tuple[str, ...]
    after: int
    before: int
    critical: bytes
    authority: bytes
    signature: bytes
    signed: bytes


def _read(blob: bytes) -> _Certificate:
    """Return a certificate's fields. Raises AccessRefused for what is none."""
    try:
        rest = paramiko.Message(blob)
        fields = _FIELDS[rest.get_text().removesuffix(_SUFFIX)]
        for _ in range(1 + fields):
            rest.get_string()
        rest.get_int64()
        kind, _ = rest.get_int(), rest.get_string()
        names, principals = paramiko.Message(rest.get_string()), []
        while names.get_remainder():
            principals.append(names.get_text())
        after, before = rest.get_int64(), rest.get_int64()
        critical, _, _ = rest.get_string(), rest.get_string(), rest.get_string()
        authority, signature = rest.get_string(), rest.get_string()
    except (KeyError, ValueError, paramiko.SSHException):
        raise _bad_certificate("ssh.host-certificate-wrong", "is malformed", "ssh-keygen -L -f CERTIFICATE shows it") from None
    return _Certificate(kind, tuple(principals), after, before, critical, authority, signature, blob[:-4 - len(signature)])


def _is_signed(found: _Certificate) -> bool:
    with contextlib.suppress(Exception):  # A bad key or signature makes paramiko raise nearly anything.
        kind = paramiko.Message(found.authority).get_text()
        key = paramiko.PKey.from_type_string(kind, found.authority)
        return bool(key.verify_ssh_sig(found.signed, paramiko.Message(found.signature)))
    return False


def _bad_certificate(code: str, message: str, hint: str) -> AccessRefused:
    return AccessRefused(f"its host certificate {message}; nothing was sent to it", hint=hint, code=code)


def _date(seconds: int) -> str:
    if seconds == _FOREVER:
        return "forever"
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    return str(seconds)
