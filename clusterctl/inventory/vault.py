"""ansible-vault: where its passwords come from, and what they decrypt (formats 1.1 and 1.2, AES256)."""

from __future__ import annotations

import getpass
import warnings
from binascii import unhexlify
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clusterctl.errors import InputError

if TYPE_CHECKING:
    from clusterctl.inventory.findings import Diagnostics

HEADER = b"$ANSIBLE_VAULT;"
_DEADLINE = 60.0
_MOST_BYTES = 65536
PROMPT = "prompt"


class Passwords:
    """The passwords that are given, by label; files are read when something encrypted is met."""

    def __init__(self, files: Iterable[str | Path] = (), ids: Iterable[str] = (), *, ask: bool = False) -> None:
        named = [label.rpartition("@") for label in ids]
        self._given: list[tuple[str, str | bytes]] = [(label or "default", source) for label, _, source in named]
        self._given += [*(("default", str(file)) for file in files), *[("default", PROMPT)] * ask]
        self._known: dict[bytes, bytes] = {}

    def ask(self) -> None:
        """Ask for those that are to be asked for. Raises InputError where there is no terminal, EOFError."""
        self._given = [(label, _ask(label) if source == PROMPT else source) for label, source in self._given]

    @cached_property
    def _passwords(self) -> list[tuple[str, bytes]]:
        return [(label, _read(Path(source).expanduser(), label) if isinstance(source, str) else source)
                for label, source in self._given]

    def decrypt(self, content: bytes, where: str) -> bytes | None:
        """Return what is inside, None without passwords; one with its label is tried first, as in Ansible. Raises InputError."""
        if not self._given:
            return None
        if content not in self._known:
            from clusterctl.pki.vault import decrypt

            label, parts = _parts(content, where)
            for _, password in sorted(self._passwords, key=lambda one: one[0] != label):
                if (opened := decrypt(password, *parts)) is not None:
                    self._known[content] = opened
                    break
            else:
                raise InputError("none of the vault passwords that are given decrypts it", where=where,
                                 hint=f"give the password that it was encrypted with (vault id {label})",
                                 code="inventory.vault-wrong-password")
        return self._known[content]


def opened(content: bytes, where: str, findings: Diagnostics) -> bytes:
    """Return an inventory's content, decrypted where it is encrypted. Raises InputError."""
    if not content.startswith(HEADER):
        return content
    if (inside := findings.decrypt(content, where)) is None:
        from clusterctl.inventory.document import VAULT_HINT

        raise InputError("is encrypted with ansible-vault, and no vault password is given", where=where, hint=VAULT_HINT,
                         code="inventory.vaulted")
    return inside


def _parts(content: bytes, where: str) -> tuple[str, tuple[bytes, bytes, bytes]]:
    """The label, and the salt, HMAC and ciphertext."""
    header, _, body = content.strip().partition(b"\n")
    words = header.decode("ascii", "replace").strip().split(";")
    try:
        if words[1:3] not in (["1.1", "AES256"], ["1.2", "AES256"]):
            raise ValueError
        salt, code, ciphertext = (unhexlify(part) for part in unhexlify(b"".join(body.split())).split(b"\n", 2))
    except ValueError:
        raise InputError("is not what ansible-vault writes (format 1.1 or 1.2 with AES256)", where=where,
                         hint="was a part of it lost?", code="inventory.vault-format") from None
    return words[3] if len(words) > 3 else "default", (salt, code, ciphertext)


def _read(path: Path, label: str) -> bytes:
    """The password in a file, or what a program prints; one whose name ends in ``-client`` gets the label, as in Ansible."""
    from clusterctl.inventory.command import run
    from clusterctl.inventory.document import read_bytes
    from clusterctl.inventory.dynamic import is_program

    if is_program(path):
        labelled = ["--vault-id", label] if path.stem.endswith("-client") and label != "default" else []
        words = [str(path.absolute()), *labelled]
        content = run(words, what=str(path), deadline=_DEADLINE, most_bytes=_MOST_BYTES).strip(b"\r\n")
    else:
        content = read_bytes(path).strip()
    if not content:
        raise InputError("holds no vault password", where=str(path), code="inventory.vault-no-password")
    return content


def _ask(label: str) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"vault password ({label}): ").encode()
    except (getpass.GetPassWarning, OSError):
        raise InputError("there is no terminal to ask on", where="vault password", code="inventory.vault-no-terminal",
                         hint="give --vault-password-file FILE") from None
