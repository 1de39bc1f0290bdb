"""ansible-vault's encryption: AES-256 in counter mode with an HMAC, keys derived from a password by PBKDF2."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_ROUNDS = 10000


def decrypt(password: bytes, salt: bytes, code: bytes, ciphertext: bytes) -> bytes | None:
    """Return the text; None where the password is wrong, which the HMAC shows."""
    keys = hashlib.pbkdf2_hmac("sha256", password, salt, _ROUNDS, 80)
    check = hmac.HMAC(keys[32:64], hashes.SHA256())
    check.update(ciphertext)
    try:
        check.verify(code)
    except InvalidSignature:
        return None
    decryptor = Cipher(algorithms.AES(keys[:32]), modes.CTR(keys[64:])).decryptor()
    unpadder = padding.PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()
