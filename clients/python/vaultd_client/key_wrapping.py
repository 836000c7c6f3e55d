"""Wraps key material for an import job, and unwraps what was exported.  Nothing here speaks to a server.

RSA methods: RSA-OAEP (SHA-256, MGF1-SHA-256, no label) of a fresh AES-256 key, then the material under that key with RFC 5649,
which PKCS#11 calls CKM_RSA_AES_KEY_WRAP.  HPKE methods: RFC 9180, base mode, one shot.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from vaultd_client.v1 import key_transfer_pb2 as pb

if TYPE_CHECKING:
    from vaultd_client.v1.key_transfer_pb2 import ExportKeyVersionResponse, ImportJob

KEK_BYTES: Final = 32
MLKEM768_PUBLIC_BYTES: Final = 1184
_OAEP: Final = OAEP(MGF1(SHA256()), SHA256(), None)
_X25519: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_HYBRID: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

PrivateKey = RSAPrivateKey | X25519PrivateKey | MLKEM768X25519PrivateKey
"""A recipient's key: RSA of 3072 or 4096 bits, or one of HPKE."""


class WrappingError(ValueError):
    """The material cannot be wrapped to this job, or the wrapping does not open with this key."""


def import_info(job_name: str) -> bytes:
    """HPKE's `info` of what is wrapped for a job."""
    return b"vaultd key import v1 " + job_name.encode("ascii")


def export_info(version_name: str) -> bytes:
    """HPKE's `info` of an exported version."""
    return b"vaultd key export v1 " + version_name.encode("ascii")


def wrap_for_import(job: ImportJob, material: bytes) -> bytes:
    """The `wrapped_key` of ImportKeyVersion: `material` is raw bytes, or PKCS#8 DER of a key pair.  Raises WrappingError."""
    info = import_info(job.name)
    if job.wrapping_method == pb.WRAPPING_METHOD_HPKE_MLKEM768_X25519:
        raw = job.public_key_raw
        try:
            mlkem = MLKEM768PublicKey.from_public_bytes(raw[:MLKEM768_PUBLIC_BYTES])
            hybrid = MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(raw[MLKEM768_PUBLIC_BYTES:]))
        except ValueError:
            raise WrappingError("the job's public key is not sound") from None
        return _HYBRID.encrypt(material, hybrid, info)
    try:
        key = load_pem_public_key(job.public_key_pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise WrappingError("the job's public key is not sound") from None
    if job.wrapping_method == pb.WRAPPING_METHOD_HPKE_X25519 and isinstance(key, X25519PublicKey):
        return _X25519.encrypt(material, key, info)
    if not isinstance(key, RSAPublicKey):
        raise WrappingError("the job's wrapping method is not known to this client, or its key is of another kind")
    kek = os.urandom(KEK_BYTES)
    return key.encrypt(kek, _OAEP) + aes_key_wrap_with_padding(kek, material)


def unwrap_exported(exported: ExportKeyVersionResponse, private_key: PrivateKey) -> bytes:
    """The material of an exported version: raw bytes, or PKCS#8 DER of a key pair.  Raises WrappingError."""
    blob, info = exported.wrapped_key, export_info(exported.key_version)
    try:
        if isinstance(private_key, RSAPrivateKey):
            size = private_key.key_size // 8
            return aes_key_unwrap_with_padding(private_key.decrypt(blob[:size], _OAEP), blob[size:])
        suite = _X25519 if isinstance(private_key, X25519PrivateKey) else _HYBRID
        return suite.decrypt(blob, private_key, info)
    except (InvalidTag, InvalidUnwrap, ValueError):
        raise WrappingError("the wrapping does not open with this key") from None


class Recipient:
    """A fresh HPKE_MLKEM768_X25519 key pair to export to: it lives as long as this object."""

    def __init__(self) -> None:
        mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
        self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public_key_raw = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def open(self, exported: ExportKeyVersionResponse) -> bytes:
        """The material; raises WrappingError."""
        return unwrap_exported(exported, self._private)
