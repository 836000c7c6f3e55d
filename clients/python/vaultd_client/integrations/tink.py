"""A KMS client of Tink: keys of a vault as remote AEADs, by URIs `vaultd://vaults/VAULT/keys/KEY`.

tink.register_kms_client(VaultdKmsClient(vault))
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import tink
from tink import aead

from vaultd_client.errors import UsageError, VaultdError

if TYPE_CHECKING:
    from vaultd_client.sync import Client

SCHEME: Final = "vaultd://"
_KEY: Final = re.compile(r"vaults/[a-z0-9-]{1,63}/keys/[a-z0-9-]{1,63}")


class VaultdKmsClient(tink.KmsClient):  # type: ignore[misc]  # Tink has no types
    """Gives Tink the keys of a vault.

    Tink stores key URIs in keysets, so they name the key and not the address of a server, which the client knows.  Where a
    program uses several vaultds, `deployment` tells them apart: with "eu", the URIs are `vaultd://eu/vaults/VAULT/keys/KEY`.
    """

    def __init__(self, vault: Client, *, deployment: str = "") -> None:
        if "/" in deployment or deployment == "vaults":
            raise ValueError("a deployment is one segment of a URI, and not `vaults`")
        self._vault = vault
        self._prefix = f"{SCHEME}{deployment}/" if deployment else SCHEME

    def does_support(self, key_uri: str) -> bool:
        """Whether the URI is one of this deployment."""
        return key_uri.startswith(f"{self._prefix}vaults/")

    def get_aead(self, key_uri: str) -> aead.Aead:
        """The remote AEAD of a key; nothing is called yet.  Raises TinkError for what is no URI of a key."""
        name = key_uri.removeprefix(self._prefix)
        if not self.does_support(key_uri) or not _KEY.fullmatch(name):
            raise tink.TinkError(
                f"a key URI is {self._prefix}vaults/VAULT/keys/KEY, without a version: ciphertexts name theirs"
            )
        return RemoteAead(self._vault, name)


class RemoteAead(aead.Aead):  # type: ignore[misc]  # Tink has no types
    """Encrypts and decrypts in the vault, at most 64 KiB; safe to share by threads.

    Encrypts with the primary version of the moment, and decrypts what any version of the key made, as long as it is enabled.
    """

    def __init__(self, vault: Client, name: str) -> None:
        self._vault = vault
        self._name = name

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Raises TinkError, with the server's reason."""
        try:
            return self._vault.encrypt(self._name, plaintext, associated_data).ciphertext
        except (VaultdError, UsageError) as error:
            raise tink.TinkError(f"{self._name} did not encrypt: {error}") from error

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Raises TinkError, with the server's reason: DECRYPTION_FAILED for all that does not open."""
        try:
            return self._vault.decrypt(self._name, ciphertext, associated_data).plaintext
        except (VaultdError, UsageError) as error:
            raise tink.TinkError(f"{self._name} did not decrypt: {error}") from error
