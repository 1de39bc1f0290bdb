"""Issue and read certificates with the X.509 library. Its import takes long: a run that issues nothing does without it."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clusterctl.pki.private import key_pem, private

if TYPE_CHECKING:
    from clusterctl.pki import CertificateSpec

AUTHORITY_DAYS = 3650
BACKDATE = timedelta(minutes=10)
"""Certificates are valid from a little earlier on: clocks differ."""


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


def create(common_name: str) -> tuple[bytes, bytes]:
    """A new certificate authority (ECDSA P-256): (certificate, key) PEM."""
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
    return certificate.public_bytes(Encoding.PEM), key_pem(key)


def issue(authority: bytes, authority_key: bytes, spec: CertificateSpec, now: datetime) -> tuple[bytes, bytes]:
    """A new key and its certificate, by the authority of these PEM: (certificate, key) PEM."""
    issuer, issuer_key = x509.load_pem_x509_certificate(authority), private(authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(now + timedelta(days=spec.days), issuer.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(spec.common_name, spec.organizations))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    certificate = _extensions(builder, spec).sign(issuer_key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM), key_pem(key)


def signed(authority: bytes, pem: bytes) -> bool:
    """Whether an authority signed a certificate. Raises ValueError where it is none."""
    issuer, certificate = x509.load_pem_x509_certificate(authority), x509.load_pem_x509_certificate(pem)
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, Exception):  # noqa: B014 - InvalidSignature is an Exception of its own
        return False
    return True


def read(pem: bytes) -> dict[str, str]:
    """Subject, names, usages and both ends (ISO 8601) of a certificate. Raises ValueError where it is none."""
    certificate = x509.load_pem_x509_certificate(pem)
    subject = certificate.subject
    common = "".join(str(item.value) for item in subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    organizations = sorted(str(item.value) for item in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return {
        "subject": "/".join((f"CN={common}", *(f"O={name}" for name in organizations))),
        "names": ",".join(sorted(_alternative_names(certificate))),
        "usages": _usages(certificate),
        "begins": certificate.not_valid_before_utc.isoformat(timespec="seconds"),
        "ends": certificate.not_valid_after_utc.isoformat(timespec="seconds"),
    }


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
