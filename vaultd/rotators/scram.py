"""SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677), in the form that PostgreSQL stores.

Computed here, so that a password is in no statement and in no log of the server.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import b64encode
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vaultd.secret import Secret

SALT_BYTES: Final = 16
DEFAULT_ITERATIONS: Final = 4096
"""PostgreSQL's own, and the least that RFC 7677 allows: what counts is that the password is random and long."""


def is_plain(password: bytes) -> bool:
    """Whether SASLprep (RFC 4013) leaves the password as it is: printable ASCII does not change."""
    return bool(password) and all(0x20 <= byte < 0x7F for byte in password)


def scram_verifier(password: Secret, iterations: int = DEFAULT_ITERATIONS, salt: bytes | None = None) -> str:
    """`SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`; raises ValueError for what SASLprep would have to change."""
    raw = password.expose("derive the SCRAM verifier")
    if not is_plain(raw):
        raise ValueError("the password must be printable ASCII")
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", raw, salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    keys = f"{b64encode(stored_key).decode()}:{b64encode(server_key).decode()}"
    return f"SCRAM-SHA-256${iterations}:{b64encode(salt).decode()}${keys}"
