"""Private keys: ECDSA P-256, as PEM."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM (PKCS 8), unencrypted."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A key out of its PEM. Raises ValueError where it is none."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")
    return key


def new_key() -> bytes:
    """A new private key, PEM."""
    return key_pem(ec.generate_private_key(ec.SECP256R1()))
