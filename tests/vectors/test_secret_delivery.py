"""A sealed payload of docs/formats.md, opened by HPKE as RFC 9180 has it, with nothing of the server's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from vaultd.engine.secret_payloads import delivery_info

FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"
VECTOR = json.loads((Path(__file__).parent / "compat" / "secret-delivery-v1.json").read_text())
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def raw(field: str) -> bytes:
    return bytes.fromhex(VECTOR[field])


def info_of(*parts: bytes) -> bytes:
    """Written from docs/formats.md, not from the code."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (b"vaultd secret delivery v1", *parts))


def test_the_vector_opens_with_the_recipients_key():
    key = X25519PrivateKey.from_private_bytes(raw("recipient_private_key"))
    info = info_of(VECTOR["name"].encode(), VECTOR["version"].encode(), raw("context"))
    assert info == raw("info") == delivery_info(VECTOR["name"], VECTOR["version"], raw("context"))
    assert SUITE.decrypt(raw("sealed_payload"), key, info) == raw("payload")
    assert len(raw("sealed_payload")) == 32 + len(raw("payload")) + 16


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_it_opens_for_no_other_name_version_or_context(changed):
    key = X25519PrivateKey.from_private_bytes(raw("recipient_private_key"))
    parts = [VECTOR["name"].encode(), VECTOR["version"].encode(), raw("context")]
    parts[changed] += b"x"
    with pytest.raises(InvalidTag):
        SUITE.decrypt(raw("sealed_payload"), key, info_of(*parts))


def test_the_documentation_has_the_vector():
    text = FORMATS.read_text()
    assert all(str(value) in text for value in VECTOR.values())
