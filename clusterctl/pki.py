"""The cluster's certificates: authorities, what they issue, and whether what a machine holds is still right.

Names, organisations and usages follow kubernetes.io/docs/setup/best-practices/certificates and kubeadm's certlist.go.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clusterctl.errors import InputError
from clusterctl.storage import StateFolder

AuthorityName = Literal["kubernetes", "etcd", "front-proxy"]

AUTHORITIES: Mapping[AuthorityName, str] = {"kubernetes": "kubernetes", "etcd": "etcd-ca", "front-proxy": "front-proxy-ca"}
"""The authorities and their common names."""

AUTHORITY_DAYS = 3650
RENEW_BELOW_DAYS = 30
BACKDATE = timedelta(minutes=10)
"""Certificates are valid from a little earlier on: clocks differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSpec:
    """What a certificate is to say. ``days`` is its lifetime."""

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


def _extensions(builder: x509.CertificateBuilder, spec: CertificateSpec) -> x509.CertificateBuilder:
    usages = [
        oid
        for oid, wanted in ((ExtendedKeyUsageOID.SERVER_AUTH, spec.server), (ExtendedKeyUsageOID.CLIENT_AUTH, spec.client))
        if wanted
    ]
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(spec.dns)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in dict.fromkeys(spec.addresses)]
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False) if names else builder


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str, organizations: tuple[str, ...] = ()) -> x509.Name:
    return x509.Name(
        [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM (PKCS 8), unencrypted."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@dataclass(frozen=True)
class Authority:
    """A certificate authority with its key (ECDSA P-256)."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, common_name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name, now = _name(common_name), datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @cached_property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the DER, hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def issue(self, spec: CertificateSpec) -> tuple[bytes, bytes]:
        """A new key and its certificate: (certificate PEM, key PEM)."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        ends = min(now + timedelta(days=spec.days), self.certificate.not_valid_after_utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(spec.common_name, spec.organizations))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        certificate = _extensions(builder, spec).sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), key_pem(key)

    def issue_administrator(self) -> tuple[bytes, bytes]:
        """A certificate for this run alone, of a member of system:masters: (certificate, key) PEM, never written anywhere."""
        return self.issue(CertificateSpec(authority="kubernetes", common_name="clusterctl", organizations=("system:masters",),
                                          client=True, days=1))

    def signed_pem(self, pem: str) -> bool | None:
        """Whether this authority signed a certificate; None where it is none."""
        try:
            return self.signed(x509.load_pem_x509_certificate(pem.encode()))
        except ValueError:
            return None

    def signed(self, certificate: x509.Certificate) -> bool:
        """Whether this authority signed a certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, Exception):  # noqa: B014 - InvalidSignature is an Exception of its own
            return False
        return True


def describe(pem: str) -> dict[str, str]:
    """Subject, names, usages and lifetime of a certificate in the words of ``CertificateSpec``; empty where it is none."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return {}
    subject = certificate.subject
    common = "".join(str(item.value) for item in subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    organizations = sorted(str(item.value) for item in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return {
        "subject": "/".join((f"CN={common}", *(f"O={name}" for name in organizations))),
        "names": ",".join(sorted(_alternative_names(certificate))),
        "usages": _usages(certificate),
        "ends": certificate.not_valid_after_utc.isoformat(timespec="seconds"),
        "validity": "long enough" if left >= _renew_below(certificate) else f"ends in {left.days} days",
    }


def _renew_below(certificate: x509.Certificate) -> timedelta:
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return min(timedelta(days=RENEW_BELOW_DAYS), lifetime / 3)


def _alternative_names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name) for name in (*names.get_values_for_type(x509.DNSName), *names.get_values_for_type(x509.IPAddress))}


def _usages(certificate: x509.Certificate) -> str:
    try:
        usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return ""
    table = (("server", ExtendedKeyUsageOID.SERVER_AUTH), ("client", ExtendedKeyUsageOID.CLIENT_AUTH))
    return ",".join(name for name, oid in table if oid in usages)


class Pki:
    """All key material of a cluster that lives on this side, in the state folder."""

    def __init__(
        self,
        authorities: Mapping[AuthorityName, Authority],
        service_account_key: ec.EllipticCurvePrivateKey,
        encryption_key: bytes,
    ) -> None:
        self.authorities = authorities
        self.service_account_key = service_account_key
        self.encryption_key = encryption_key

    @classmethod
    def create(cls) -> Pki:
        return cls(
            {name: Authority.create(common) for name, common in AUTHORITIES.items()},
            ec.generate_private_key(ec.SECP256R1()),
            secrets.token_bytes(32),
        )

    @classmethod
    def load(cls, folder: StateFolder) -> Pki | None:
        """What the folder holds; None where it holds nothing. Raises InputError where it holds only a part."""
        names = [*(f"pki/{name}.{kind}" for name in AUTHORITIES for kind in ("crt", "key")), "pki/sa.key", "pki/encryption.key"]
        found = {name: folder.read(name) for name in names}
        missing = [name for name, content in found.items() if content is None]
        if len(missing) == len(names):
            return None
        if missing:
            raise InputError(
                f"the cluster's keys are incomplete: {', '.join(missing)} missing",
                where=str(folder.path),
                hint="restore the folder from its backup; without its keys the cluster cannot be changed",
            )
        try:
            return cls(
                {name: _authority(found[f"pki/{name}.crt"] or b"", found[f"pki/{name}.key"] or b"") for name in AUTHORITIES},
                _private(found["pki/sa.key"] or b""),
                base64.b64decode(found["pki/encryption.key"] or b""),
            )
        except ValueError as error:
            raise InputError(
                "the cluster's keys are damaged", where=str(folder.path), hint="restore the folder from its backup"
            ) from error

    def save(self, folder: StateFolder) -> None:
        """Write all of it, the first time whole or not at all."""
        folder.prepare()
        files = {
            f"{name}.{kind}": content
            for name, authority in self.authorities.items()
            for kind, content in (("crt", authority.pem), ("key", key_pem(authority.key)))
        }
        files |= {"sa.key": key_pem(self.service_account_key), "encryption.key": base64.b64encode(self.encryption_key)}
        folder.write_all("pki", files)

    @property
    def service_account_public(self) -> bytes:
        return self.service_account_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def identity(self) -> str:
        """Which cluster this is: derived from its CA, so that two clusters of one name differ."""
        return hashlib.sha256(self.authorities["kubernetes"].pem).hexdigest()[:32]


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")
    return key


def _authority(certificate: bytes, key: bytes) -> Authority:
    return Authority(x509.load_pem_x509_certificate(certificate), _private(key))
