"""The real Tink with keys of a real vault as its KMS."""

from __future__ import annotations

import io

import pytest
import tink
from tink import _kms_clients, aead, cleartext_keyset_handle

from clients.sdk_rig import VAULT, server_in_a_thread, sync_client
from vaultd_client import Client
from vaultd_client.integrations.tink import VaultdKmsClient

KEY = "vaultd://vaults/default/keys/kek"
DEK = aead.aead_key_templates.AES256_GCM
SECRET = b"4111 1111 1111 1111"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_in_a_thread(tmp_path_factory.mktemp("tink")) as server, sync_client(server, "admin") as admin:
        for key_id in ("kek", "withdrawn"):
            admin.create_key(VAULT, key_id, {"purpose": "KEY_PURPOSE_ENCRYPT_DECRYPT"})
        yield server


@pytest.fixture(scope="module")
def admin(server):
    with sync_client(server, "admin") as admin:
        yield admin


@pytest.fixture(scope="module")
def kms(server):
    aead.register()
    with sync_client(server) as vault:
        yield VaultdKmsClient(vault)


@pytest.fixture
def registered(kms):
    tink.register_kms_client(kms)
    yield
    _kms_clients.reset_kms_clients()


def test_an_envelope_opens_after_its_key_was_rotated(kms, admin):
    envelope = aead.KmsEnvelopeAead(DEK, kms.get_aead(KEY))
    before = envelope.encrypt(SECRET, b"order 17")
    version = admin.rotate_key(f"{VAULT}/keys/kek").name
    after = envelope.encrypt(SECRET, b"order 17")
    for ciphertext in (before, after):
        assert envelope.decrypt(ciphertext, b"order 17") == SECRET
        with pytest.raises(tink.TinkError):
            envelope.decrypt(ciphertext, b"order 18")
    length = int.from_bytes(after[:4], "big")
    assert admin.inspect_ciphertext(f"{VAULT}/keys/kek", after[4 : 4 + length]).key_version == version
    damaged = bytearray(after)
    damaged[length] ^= 1
    with pytest.raises(tink.TinkError, match="DECRYPTION_FAILED"):
        envelope.decrypt(bytes(damaged), b"order 17")


@pytest.mark.usefixtures("registered")
def test_a_keyset_whose_key_is_in_the_vault_is_found_by_its_uri(admin):
    """The keyset says only where the key is, so it may be kept in the clear."""
    handle = tink.new_keyset_handle(aead.aead_key_templates.create_kms_envelope_aead_key_template(KEY, DEK))
    text = io.StringIO()
    cleartext_keyset_handle.write(tink.JsonKeysetWriter(text), handle)
    sealed = handle.primitive(aead.Aead).encrypt(SECRET, b"aad")
    admin.rotate_key(f"{VAULT}/keys/kek")
    again = cleartext_keyset_handle.read(tink.JsonKeysetReader(text.getvalue()))
    assert again.primitive(aead.Aead).decrypt(sealed, b"aad") == SECRET


@pytest.mark.usefixtures("registered")
def test_a_keyset_encrypted_by_the_vault_is_read_after_rotation_and_only_with_its_associated_data(kms, admin):
    handle = tink.new_keyset_handle(DEK)
    sealed = handle.primitive(aead.Aead).encrypt(SECRET, b"")
    remote = tink.kms_client_from_uri(KEY).get_aead(KEY)
    stored = io.StringIO()
    handle.write_with_associated_data(tink.JsonKeysetWriter(stored), remote, b"orders")
    admin.rotate_key(f"{VAULT}/keys/kek")

    def read(associated_data: bytes) -> tink.KeysetHandle:
        reader = tink.JsonKeysetReader(stored.getvalue())
        return tink.read_keyset_handle_with_associated_data(reader, remote, associated_data)

    assert read(b"orders").primitive(aead.Aead).decrypt(sealed, b"") == SECRET
    with pytest.raises(tink.TinkError, match="DECRYPTION_FAILED"):
        read(b"invoices")


def test_what_the_server_refuses_is_a_tink_error_with_its_reason_and_without_the_data(kms, admin, server):
    remote = kms.get_aead("vaultd://vaults/default/keys/withdrawn")
    sealed = remote.encrypt(SECRET, b"aad")
    admin.disable_key_version(f"{VAULT}/keys/withdrawn/versions/1")
    errors = []
    for act in (lambda: remote.decrypt(sealed, b"aad"), lambda: remote.encrypt(SECRET, b"aad")):
        with pytest.raises(tink.TinkError) as refused:
            act()
        errors.append(str(refused.value))
    assert all("KEY_VERSION_DISABLED" in text and SECRET.decode() not in text for text in errors)
    with pytest.raises(tink.TinkError, match="did not encrypt: PERMISSION_DENIED"):
        kms.get_aead("vaultd://vaults/elsewhere/keys/kek").encrypt(SECRET, b"")
    with pytest.raises(tink.TinkError, match="did not encrypt"):
        kms.get_aead(KEY).encrypt(bytes(65_537), b"")
    gone = Client("127.0.0.1:1", ca=server.directory / "tls/ca.crt", token=lambda: "t", timeout_s=0.2)
    with gone, pytest.raises(tink.TinkError, match=r"UNREACHABLE|DEADLINE_EXCEEDED"):
        VaultdKmsClient(gone).get_aead(KEY).encrypt(SECRET, b"")
    with pytest.raises(tink.TinkError, match="closed"):
        VaultdKmsClient(gone).get_aead(KEY).encrypt(SECRET, b"")


@pytest.mark.parametrize(
    "uri",
    [
        "vaultd://vaults/default/keys/kek/versions/1",
        "vaultd://vaults/default/secrets/db",
        "vaultd://vaults/default/keys/",
        "vaultd://vaults/default/keys/kek\n",
        "gcp-kms://vaults/default/keys/kek",
        "vaultd://eu/vaults/default/keys/kek",
    ],
)
def test_what_is_no_uri_of_a_key_is_refused(kms, uri):
    with pytest.raises(tink.TinkError, match="a key URI is vaultd://vaults/VAULT/keys/KEY"):
        kms.get_aead(uri)


def test_deployments_are_told_apart_by_the_uri(kms):
    with Client("127.0.0.1:1", token=lambda: "t") as vault:
        eu = VaultdKmsClient(vault, deployment="eu")
        supported = [
            (kms.does_support(uri), eu.does_support(uri)) for uri in (KEY, KEY.replace("//", "//eu/"), "aws-kms://x")
        ]
        assert supported == [(True, False), (False, True), (False, False)]
        for name in ("vaults", "eu/west"):
            with pytest.raises(ValueError, match="one segment"):
                VaultdKmsClient(vault, deployment=name)
