"""The cluster's certificates: authorities, what they issue, and whether what a machine holds is still right.

Names, organisations and usages follow kubernetes.io/docs/setup/best-practices/certificates and kubeadm's certlist.go.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal

from clusterctl.errors import InputError
from clusterctl.local.storage import StateFolder
from clusterctl.pki.private import new_key, private

AuthorityName = Literal["kubernetes", "etcd", "front-proxy"]

AUTHORITIES: Mapping[AuthorityName, str] = {"kubernetes": "kubernetes", "etcd": "etcd-ca", "front-proxy": "front-proxy-ca"}
"""The authorities and their common names."""

ENCRYPTION_KEY_BYTES = 32
"""The length of a key of the secretbox provider (k8s.io/apiserver, pkg/server/options/encryptionconfig)."""
RENEW_BELOW_DAYS = 30
CLIENT_LEFT = timedelta(hours=12)
"""How long what clusterctl proves itself with must still be valid when a run begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSpec:
    """The specification of a certificate. ``days`` is its lifetime."""

    authority: AuthorityName
    common_name: str
    organizations: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    server: bool = False
    client: bool = False
    days: int = 365

    @property
    def subject(self) -> str:
        return "/".join((f"CN={self.common_name}", *(f"O={name}" for name in sorted(self.organizations))))

    @property
    def names(self) -> str:
        return ",".join(sorted({*self.dns, *self.addresses}))

    @property
    def usages(self) -> str:
        return ",".join(name for name, wanted in (("server", self.server), ("client", self.client)) if wanted)


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its key (ECDSA P-256), both PEM."""

    pem: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Authority({self.fingerprint})"

    @classmethod
    def create(cls, common_name: str) -> Authority:
        from clusterctl.pki import certificates

        return cls(*certificates.create(common_name))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the DER, hexadecimal."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem.decode())).hexdigest()

    @property
    def ends(self) -> datetime:
        return datetime.fromisoformat(describe(self.pem.decode())["ends"])

    def issue(self, spec: CertificateSpec, now: datetime | None = None) -> tuple[bytes, bytes]:
        """Return a new key and its certificate: (certificate PEM, key PEM). ``now``: the time of issue, in whole seconds."""
        from clusterctl.pki import certificates

        return certificates.issue(self.pem, self.key, spec, now or datetime.now(UTC))

    def end_of(self, spec: CertificateSpec, now: datetime) -> str:
        """Return when a certificate that is issued ``now`` ends (ISO 8601): no certificate outlives its authority."""
        return min(now + timedelta(days=spec.days), self.ends).isoformat(timespec="seconds")

    def signed(self, pem: str) -> bool | None:
        """Whether this authority signed a certificate; None where it is none."""
        from clusterctl.pki import certificates

        try:
            return certificates.signed(self.pem, pem.encode())
        except ValueError:
            return None

    def describe(self, pem: str, note: str = "", sha256: str = "") -> dict[str, str]:
        """Return what ``describe`` does, and the ``issuer``: the fingerprint of this authority, or that it is another one.

        ``note``, ``sha256``: the note of a certificate and the digest of its file; where they agree, no X.509 is read.
        """
        said = read_note(note, sha256 or hashlib.sha256(pem.encode()).hexdigest())
        if said is not None:
            issuer = said.pop("issuer")
            return {**_with_validity(said), "issuer": issuer if issuer == self.fingerprint else "another authority"}
        issuers = {None: "unreadable", True: self.fingerprint, False: "another authority"}
        return {**describe(pem), "issuer": issuers[self.signed(pem)]}

    def note(self, pem: bytes) -> str:
        """Return what a certificate of this authority says, as JSON, to be kept beside it. Its digest comes with it."""
        from clusterctl.pki import certificates

        return json.dumps({**certificates.read(pem), "issuer": self.fingerprint, "sha256": hashlib.sha256(pem).hexdigest()})


NOTED = frozenset(("subject", "names", "usages", "begins", "ends", "issuer", "sha256"))


def read_note(text: str, sha256: str) -> dict[str, str] | None:
    """Return what a note says of the certificate with this digest; None where it is of another one, or no note."""
    try:
        said = json.loads(text)
        found = {str(name): str(value) for name, value in said.items()}
        datetime.fromisoformat(found["begins"]), datetime.fromisoformat(found["ends"])
    except (ValueError, AttributeError, KeyError, RecursionError):
        return None
    return found if found.keys() == NOTED and found.pop("sha256") == sha256 else None


def describe(pem: str) -> dict[str, str]:
    """Subject, names, usages and lifetime of a certificate in the words of ``CertificateSpec``; empty where it is none."""
    from clusterctl.pki import certificates

    try:
        return _with_validity(certificates.read(pem.encode()))
    except ValueError:
        return {}


def _with_validity(said: Mapping[str, str]) -> dict[str, str]:
    """Replace the begin of a certificate's lifetime by whether enough of it is left."""
    begins, ends = datetime.fromisoformat(said["begins"]), datetime.fromisoformat(said["ends"])
    left = ends - datetime.now(UTC)
    enough = left >= min(timedelta(days=RENEW_BELOW_DAYS), (ends - begins) / 3)
    shown = {name: value for name, value in said.items() if name != "begins"}
    return {**shown, "validity": "long enough" if enough else f"ends in {left.days} days"}


class Pki:
    """All key material of a cluster that lives on this side, in the state folder. ``service_account_key``: PEM."""

    CLIENTS: Mapping[AuthorityName, CertificateSpec] = {
        "kubernetes": CertificateSpec(authority="kubernetes", common_name="clusterctl", organizations=("system:masters",),
                                      client=True, days=1),
        "etcd": CertificateSpec(authority="etcd", common_name="clusterctl", client=True, days=1),
    }
    """clusterctl's own client certificates, by authority."""

    def __init__(self, authorities: Mapping[AuthorityName, Authority], service_account_key: bytes, encryption_key: bytes,
                 folder: StateFolder | None = None) -> None:
        self.authorities = authorities
        self.service_account_key = service_account_key
        self.encryption_key = encryption_key
        self._folder = folder
        self._clients: dict[AuthorityName, tuple[bytes, bytes]] = {}
        self._making = threading.Lock()

    @classmethod
    def create(cls) -> Pki:
        authorities = {name: Authority.create(common) for name, common in AUTHORITIES.items()}
        return cls(authorities, new_key(), secrets.token_bytes(ENCRYPTION_KEY_BYTES))

    @classmethod
    def load(cls, folder: StateFolder) -> Pki | None:
        """Load the keys of a state folder; None where it has none. Raises InputError where some are missing."""
        names = [*(f"pki/{name}.{kind}" for name in AUTHORITIES for kind in ("crt", "key")), "pki/sa.key", "pki/encryption.key"]
        found = {name: content for name in names if (content := folder.read(name)) is not None}
        if not found:
            return None
        if missing := [name for name in names if name not in found]:
            raise InputError(
                f"the cluster's keys are incomplete: {', '.join(missing)} missing",
                where=str(folder.path),
                hint="restore the folder from its backup; without its keys the cluster cannot be changed",
                code="pki.incomplete",
            )
        made = cls({name: Authority(found[f"pki/{name}.crt"], found[f"pki/{name}.key"]) for name in AUTHORITIES},
                   found["pki/sa.key"], b"", folder)
        try:
            made.encryption_key = base64.b64decode(found["pki/encryption.key"])
            made._refuse_damaged(folder.path / "pki")
        except ValueError as error:
            raise InputError(f"the cluster's keys are damaged: {error}", where=str(folder.path), code="pki.damaged",
                             hint="restore the folder from its backup") from error
        return made

    def _refuse_damaged(self, folder: Path) -> None:
        """Raises ValueError where a key does not belong to its certificate, or is none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for name, authority in self.authorities.items():
            private(authority.key)
            try:
                # OpenSSL compares the pair: importing the X.509 library would take longer than all of this.
                context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key", password="")
            except ssl.SSLError:
                raise ValueError(f"pki/{name}.key is not the key of pki/{name}.crt") from None
        private(self.service_account_key)
        if len(self.encryption_key) != ENCRYPTION_KEY_BYTES:
            raise ValueError(f"pki/encryption.key has {len(self.encryption_key)} bytes, not {ENCRYPTION_KEY_BYTES}")

    def save(self, folder: StateFolder) -> None:
        """Write all of it, the first time whole or not at all."""
        folder.prepare()
        files = {
            f"{name}.{kind}": content
            for name, authority in self.authorities.items()
            for kind, content in (("crt", authority.pem), ("key", authority.key))
        }
        files |= {"sa.key": self.service_account_key, "encryption.key": base64.b64encode(self.encryption_key)}
        folder.write_all("pki", files)
        self._folder = folder

    def client_certificate(self, name: AuthorityName) -> tuple[bytes, bytes]:
        """Return clusterctl's own client certificate, valid for one day: (certificate, key) in PEM.

        It is kept beside the authority's key, which could make any other. Raises Refused where others may read it.
        """
        with self._making:
            if name not in self._clients:
                self._clients[name] = self._kept_client(name) or self._new_client(name)
            return self._clients[name]

    def _kept_client(self, name: AuthorityName) -> tuple[bytes, bytes] | None:
        """Return the pair that was kept with its note, if it is whole, of this authority and long enough valid."""
        text = (self._folder.read(f"pki/client-{name}.pem") if self._folder else None) or b""
        note, _, pair = text.partition(b"\n")
        certificate, mark, key = pair.partition(b"-----BEGIN PRIVATE KEY-----")
        said = read_note(note.decode(errors="replace"), hashlib.sha256(certificate).hexdigest())
        good = (mark and key.endswith(b"-----END PRIVATE KEY-----\n") and said
                and (said["subject"], said["issuer"]) == (self.CLIENTS[name].subject, self.authorities[name].fingerprint)
                and datetime.fromisoformat(said["ends"]) - datetime.now(UTC) >= CLIENT_LEFT)
        return (certificate, mark + key) if good else None

    def _new_client(self, name: AuthorityName) -> tuple[bytes, bytes]:
        certificate, key = self.authorities[name].issue(self.CLIENTS[name])
        if self._folder is not None:
            with contextlib.suppress(OSError):
                note = self.authorities[name].note(certificate).encode()
                self._folder.write(f"pki/client-{name}.pem", note + b"\n" + certificate + key)
        return certificate, key

    @property
    def service_account_public(self) -> bytes:
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_pem_private_key(self.service_account_key, password=None).public_key()
        return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def identity(self) -> str:
        """Which cluster this is: derived from its CA, so that two clusters of one name differ."""
        return hashlib.sha256(self.authorities["kubernetes"].pem).hexdigest()[:32]
