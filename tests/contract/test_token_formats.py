"""What docs/formats.md says of tokens, byte by byte, with keys of a token that the test knows."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_public_key

import softhsm
from vaultd.backends.pkcs11.backend import HsmBackend
from vaultd.backends.pkcs11.envelope import EnvelopeBackend
from vaultd.backends.pkcs11.root_key import Pkcs11RootKey
from vaultd.backends.software import SoftwareBackend
from vaultd.secret import Secret

KEY = os.urandom(32)


@pytest.fixture
async def hsm(tmp_path):
    software = SoftwareBackend()
    backend = HsmBackend([await softhsm.open_slot(tmp_path)], software)
    yield backend
    await backend.close()
    await software.close()


async def test_reference_is_slot_and_id_and_an_envelope_is_gcm_under_the_key_that_it_names(hsm):
    wrapping = await hsm.import_material("AES_256_GCM", Secret(KEY), "known")
    slot, _, object_id = wrapping.reference.decode().partition("/")
    assert (slot, object_id) == ("main", wrapping.attestation["object_id"])
    material = await EnvelopeBackend(hsm, hsm._software).generate("ED25519", "", wrapping.reference)
    assert material.reference == wrapping.reference
    wrapped = material.secret.expose("read as docs/formats.md says")
    opened = AESGCM(KEY).decrypt(wrapped[:12], wrapped[12:], b"vaultd envelope v1 ED25519")
    public = ed25519.Ed25519PrivateKey.from_private_bytes(opened).public_key()
    assert public == load_der_public_key(material.public_key)


async def test_ring_is_wrapped_by_gcm_under_the_key_whose_id_is_the_ref(hsm):
    known = await hsm.import_material("AES_256_GCM", Secret(KEY), "known")
    ref = str(known.attestation["object_id"])
    wrapped = await Pkcs11RootKey(hsm._home).wrap(ref, Secret(b"the ring"), b"aad")
    bound = b"vaultd/root-key/wrap/v1" + len(ref).to_bytes(2, "big") + ref.encode() + b"aad"
    assert wrapped[:1] == b"\x02"
    assert AESGCM(KEY).decrypt(wrapped[1:13], wrapped[13:], bound) == b"the ring"
