"""The keys that we log in with: files, the user's own and those of ssh-agent, in the order in which ssh offers them."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko

from clusterctl.errors import AccessRefused, InputError
from clusterctl.ssh.host_keys import fingerprint

log = logging.getLogger("clusterctl.ssh")

_OWN = ("id_rsa", "id_ecdsa", "id_ed25519")
_KINDS = (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey)
_MAGIC = b"openssh-key-v1\0"


class Keys:
    """Logs in with a public key, or else with a password where one is given.

    ``named``: key files, which come first; then ssh-agent's, and without any the user's own.
    ``certificates``: files that certify one of the keys (CertificateFile of ssh_config), beside KEY-cert.pub.
    """

    def __init__(self, name: str, user: str, named: Sequence[Path], passphrase: Callable[[], str | None],
                 certificates: Sequence[Path] = (), password: Callable[[], str | None] = lambda: None) -> None:
        self.name, self.user, self.named, self.certificates = name, user, named, certificates
        self._passphrase, self._password = passphrase, password
        self._locked: list[Path] = []

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Offer one key after the other, then the password. Raises AuthenticationException, AccessRefused."""
        password = self._password()
        try:
            offered = self._offer_keys(transport)
        except paramiko.BadAuthenticationType:
            if password is None:
                raise
            offered = []
        if offered is None:
            return []
        if password is not None and transport.is_active():
            # Also by keyboard-interactive, where sshd asks for a password that way (PAM).
            transport.auth_password(self.user, password)
            return []
        if self._locked:
            raise paramiko.PasswordRequiredException(f"{self._locked[0]} needs a passphrase")
        raise paramiko.AuthenticationException(f"refused {', '.join(offered)}" if offered else "there is no key to offer")

    def _offer_keys(self, transport: paramiko.Transport) -> list[str] | None:
        """Return the keys that were refused; None where one was accepted."""
        offered = []
        with contextlib.closing(_Agent()) as agent:
            for where, key in self._sources(agent.keys):
                shown = f"{key.get_name()} {fingerprint(key)} ({where})"
                try:
                    if left := transport.auth_publickey(self.user, key):
                        raise paramiko.AuthenticationException(f"it wants {' and '.join(left)} as well")
                except paramiko.BadAuthenticationType:
                    raise
                except (paramiko.SSHException, OSError) as error:
                    log.debug("%s: %s as %s: %s", self.name, shown, self.user, error)
                    offered.append(shown)
                    if not transport.is_active():
                        break
                else:
                    log.debug("%s: %s as %s: accepted", self.name, shown, self.user)
                    return None
        return offered

    def _sources(self, agents: Sequence[paramiko.PKey]) -> Iterator[tuple[str, paramiko.PKey]]:
        left = {key.asbytes(): key for key in agents}
        for path in self.named:
            key, public = self._load(path), _public(path)
            if key is not None:
                left.pop(key.asbytes(), None)
                yield str(path), key
            elif public is not None and public in left:
                yield f"{path}, from ssh-agent", left.pop(public)
            else:
                _refuse_fido(path, public)
                self._locked.append(path)
        yield from (("ssh-agent", key) for key in left.values())
        if not self.named:
            folder = Path(os.path.expanduser("~/.ssh"))
            yield from ((str(folder / name), key) for name in _OWN
                        if (folder / name).is_file() and (key := self._load(folder / name)) is not None)

    def _load(self, path: Path) -> paramiko.PKey | None:
        """Load a private key with its certificate; None where it is encrypted and no passphrase fits, or of an unknown kind."""
        for kind in _KINDS:
            with contextlib.suppress(Exception):  # A key of another kind makes paramiko raise nearly anything.
                key: Any = kind.from_private_key_file(str(path), password=self._passphrase())
                for certificate in (Path(f"{path}-cert.pub"), *self.certificates):
                    if certificate.is_file() and _certifies(certificate, key):
                        key.load_certificate(str(certificate))
                        break
                return key  # type: ignore[no-any-return]
        return None


def _certifies(certificate: Path, key: paramiko.PKey) -> bool:
    """Whether a certificate is of a key: after its type and a nonce it has the key's fields (PROTOCOL.certkeys of OpenSSH)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        rest = base64.b64decode(certificate.read_text(encoding="ascii").split()[1])
        for _ in range(2):
            rest = rest[4 + int.from_bytes(rest[:4], "big"):]
        own = key.asbytes()
        return rest.startswith(own[4 + int.from_bytes(own[:4], "big"):])
    return False


class _Agent:
    """ssh-agent's keys; none where it cannot be asked."""

    def __init__(self) -> None:
        self._agent: paramiko.Agent | None = None
        self.keys: Sequence[paramiko.PKey] = ()
        with contextlib.suppress(paramiko.SSHException, OSError):
            self._agent = paramiko.Agent()
            self.keys = self._agent.get_keys()

    def close(self) -> None:
        if self._agent is not None:
            self._agent.close()


def refuse_unreadable(name: str, paths: Sequence[Path]) -> None:
    """Raises InputError for a key that is no readable regular file, before any machine is contacted."""
    for path in paths:
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # To open a FIFO would wait for its writer.
                raise InputError(f"ansible_ssh_private_key_file {path} is not a regular file", where=name,
                                 hint="name the file of the private key", code="ssh.key-not-a-file")
            path.open().close()
        except OSError as error:
            raise InputError(f"ansible_ssh_private_key_file {path} cannot be read: {error.strerror}", where=name,
                             hint="no machine was contacted; correct the variable or provide the key",
                             code="ssh.key-unreadable") from None


def _refuse_fido(path: Path, public: bytes | None) -> None:
    """Raises AccessRefused for a FIDO key: the file has no private key, and only ssh-agent speaks with the device."""
    kind = public[4:4 + int.from_bytes(public[:4], "big")] if public else b""
    if kind.startswith(b"sk-"):
        raise AccessRefused(f"{path} is a FIDO key ({kind.decode(errors='replace')}), which only ssh-agent can use",
                            hint=f"ssh-add {path}, or name another key", code="ssh.fido-key")


def _public(path: Path) -> bytes | None:
    """Return the public half of a key file as ssh sends it; it is not encrypted in OpenSSH's format. None where it is not known.

    The format: PROTOCOL.key of OpenSSH.
    """
    with contextlib.suppress(OSError, ValueError, struct.error, IndexError):
        lines = path.read_text(encoding="ascii").split("\n")
        if "OPENSSH PRIVATE KEY" in lines[0]:
            data = base64.b64decode("".join(line for line in lines if line and not line.startswith("-----")))
            if data.startswith(_MAGIC):
                rest = data[len(_MAGIC):]
                for _ in range(3):
                    rest = rest[4 + struct.unpack(">I", rest[:4])[0]:]
                length = struct.unpack(">I", rest[4:8])[0]
                return rest[8:8 + length]
    with contextlib.suppress(OSError, ValueError, IndexError):
        return base64.b64decode(Path(f"{path}.pub").read_text(encoding="ascii").split()[1])
    return None
