"""Values that an API server encrypted before it stored them (provider secretbox)."""

from __future__ import annotations

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

PREFIX = b"k8s:enc:"
SECRETBOX = PREFIX + b"secretbox:v1:"


def opens(key: bytes, value: bytes) -> bool:
    """Return whether a stored value was encrypted with this key. It is authenticated: another key never opens it."""
    if not value.startswith(SECRETBOX):
        return False
    _, _, box = value.removeprefix(SECRETBOX).partition(b":")
    try:
        SecretBox(key).decrypt(box)
    except (CryptoError, ValueError, TypeError):
        return False
    return True
