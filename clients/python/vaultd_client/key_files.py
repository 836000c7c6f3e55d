"""Key material in files: read as ImportKeyVersion wants it, written so that others can read it."""

from __future__ import annotations

import base64
import binascii
import os
import sys
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES: Final = 64 * 1024
SYMMETRIC: Final = frozenset(
    {
        *("AES_128_GCM", "AES_256_GCM", "XAES_256_GCM", "AES_256_GCM_SIV", "CHACHA20_POLY1305", "AES_256_SIV"),
        *("AES_256_KWP", "HMAC_SHA256", "HMAC_SHA384", "HMAC_SHA512", "AES_256_CMAC"),
    }
)
"""Algorithms whose material is raw bytes."""


class KeyFileError(ValueError):
    """A file does not hold what it should; the text says what to do."""


def read_bytes(path: Path) -> bytes:
    """A file, or standard input for `-`.  Raises KeyFileError, OSError."""
    content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if str(path) == "-" else path.read_bytes()[: MAX_FILE_BYTES + 1]
    if not 0 < len(content) <= MAX_FILE_BYTES:
        raise KeyFileError(f"{path} is empty, or too large for a key")
    return content


def decode_material(content: bytes, encoding: str, algorithm: str, passphrase: bytes | None) -> bytes:
    """Raw bytes, or PKCS#8 DER for a key pair, of a file's content.  Raises KeyFileError.

    `encoding` is `auto` (PEM where it begins like one, else binary), `hex` or `base64`; private keys may be PKCS#8, PKCS#1 or
    SEC1, in PEM or DER, and encrypted.
    """
    if content.lstrip().startswith(b"-----BEGIN"):
        if algorithm in SYMMETRIC:
            raise KeyFileError(f"{algorithm} takes raw bytes, and the file is PEM")
        return _pkcs8(content, passphrase, pem=True)
    material = _decode(content, encoding)
    if algorithm in SYMMETRIC or material[:1] != b"\x30":
        return material
    try:
        return _pkcs8(material, passphrase, pem=False)
    except KeyFileError:
        if passphrase is not None:
            raise
        return material  # a seed may begin like DER; the server knows its length


def _decode(content: bytes, encoding: str) -> bytes:
    try:
        if encoding == "hex":
            return binascii.unhexlify(b"".join(content.split()))
        if encoding == "base64":
            return base64.b64decode(b"".join(content.split()), validate=True)
    except (ValueError, binascii.Error):
        raise KeyFileError(f"the file is not {encoding}") from None
    return content


def _pkcs8(content: bytes, passphrase: bytes | None, *, pem: bool) -> bytes:
    load = load_pem_private_key if pem else load_der_private_key
    try:
        key = load(content, passphrase)
    except TypeError:
        wanted = (
            "is encrypted: say --passphrase-file"
            if passphrase is None
            else "is not encrypted: leave out the passphrase"
        )
        raise KeyFileError(f"the private key {wanted}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError("the file is no private key that can be read, or the passphrase is wrong") from None
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def encode_material(material: bytes, algorithm: str) -> bytes:
    """What an exported key looks like in a file: PEM of PKCS#8, or raw bytes where the algorithm has none."""
    if algorithm in SYMMETRIC or algorithm == "HPKE_MLKEM768_X25519":
        return material
    return load_der_private_key(material, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_private(path: Path, content: bytes) -> None:
    """Write a new file, 0600; standard output for `-`.  Raises KeyFileError when the file exists, OSError."""
    if str(path) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path} exists: choose another name") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
