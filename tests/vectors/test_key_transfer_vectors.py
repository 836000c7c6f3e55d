"""Wrapped keys and backups of keys as released versions made them: read as docs/formats.md says, and by the code.

Entries of the files in `compat/` are added and never changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_private_key

from vaultd.backends.base import Material
from vaultd.backends.software import SoftwareBackend
from vaultd.engine.algorithms import ProtectionLevel
from vaultd.engine.key_backups import KeyBackups, _load, check_value
from vaultd.engine.key_wrapping import KeyWrapping, WrappingMethod
from vaultd.engine.sealing import KeyRing, Sealer
from vaultd.secret import Secret

COMPAT = Path(__file__).parent / "compat"
WRAPPED = json.loads((COMPAT / "wrapped-keys-v1.json").read_text())
BACKUPS = json.loads((COMPAT / "key-backups-v1.json").read_text())


def raw(vector, field: str) -> bytes:
    return bytes.fromhex(vector[field])


def expand(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(key)


def open_as_documented(vector) -> bytes:
    private, blob = raw(vector, "private_key"), raw(vector, "wrapped_key")
    info = f"vaultd key {vector['use']} v1 {vector['name']}".encode()
    if vector["method"].startswith("RSA"):
        key = load_der_private_key(private, None)
        size = key.key_size // 8
        kek = key.decrypt(blob[:size], OAEP(MGF1(SHA256()), SHA256(), None))
        return aes_key_unwrap_with_padding(kek, blob[size:])
    if vector["method"] == "HPKE_X25519":
        suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
        return suite.decrypt(blob, X25519PrivateKey.from_private_bytes(private), info)
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    mlkem, x25519 = private[:64], private[64:]
    pair = MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(mlkem), X25519PrivateKey.from_private_bytes(x25519)
    )
    return suite.decrypt(blob, pair, info)


@pytest.mark.parametrize("vector", WRAPPED, ids=lambda vector: f"{vector['method']}-{vector['use']}")
async def test_a_wrapped_key_of_a_released_version_opens(vector):
    assert open_as_documented(vector) == raw(vector, "material")
    backend = SoftwareBackend(threads=1)
    pair = Material(Secret(raw(vector, "private_key")), b"", raw(vector, "public_key"))
    info = f"vaultd key {vector['use']} v1 {vector['name']}".encode()
    opened = await KeyWrapping(backend).unwrap(WrappingMethod(vector["method"]), pair, raw(vector, "wrapped_key"), info)
    assert opened.expose("test") == raw(vector, "material")
    await backend.close()


def test_every_wrapping_method_has_a_vector():
    assert {vector["method"] for vector in WRAPPED} == {method.value for method in WrappingMethod}


@pytest.mark.parametrize("vector", BACKUPS, ids=lambda vector: json.loads(vector["plaintext"])["key"]["algorithm"])
async def test_a_backup_of_a_released_version_opens_and_its_material_is_right(vector):
    blob = raw(vector, "backup")
    backup_key = expand(raw(vector, "digest_key"), b"vaultd key backups v1")
    assert blob[:4] == b"VKB1"
    aead = AESGCMSIV(expand(backup_key, b"vaultd key backup v1" + blob[4:36]))
    assert aead.decrypt(blob[36:48], blob[48:], blob[:36]).decode() == vector["plaintext"]
    sealer = Sealer(KeyRing(1, Secret(raw(vector, "digest_key")), {1: Secret(bytes(32))}))
    opened = _load(sealer.open_backup(blob))
    assert opened.key.name == "vaults/default/keys/k"
    (kept,) = opened.versions
    backend = SoftwareBackend(threads=1)
    check = await KeyBackups(None, {ProtectionLevel.SOFTWARE: backend}, None)._check(kept)
    assert check == kept.check
    revealed = await backend.reveal(opened.key.algorithm.name, Material(kept.secret, b"", kept.version.public_key))
    assert check_value(opened.key.algorithm.name, revealed.secret) == check
    await backend.close()
