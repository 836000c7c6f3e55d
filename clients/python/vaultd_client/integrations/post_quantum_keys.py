"""ML-DSA keys (FIPS 204) of `cryptography` whose private part is in the vault; for releases of it that have ML-DSA."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric import mldsa

from vaultd_client.integrations.private_keys import Buffer, RemoteKey


class _Signer(RemoteKey):
    def sign(self, data: Buffer, context: Buffer | None = None) -> bytes:
        """A hedged signature of at most 64 KiB; raises UnsupportedAlgorithm for a context."""
        if context:
            self._refuse("a context")
        return self._vault.sign(self._name, bytes(data)).signature

    def sign_mu(self, *_mu: Any) -> NoReturn:
        """Raises UnsupportedAlgorithm."""
        self._refuse("a message representative that was computed elsewhere")


class RemoteMLDSA44PrivateKey(_Signer, mldsa.MLDSA44PrivateKey):
    """An ML-DSA-44 key."""


class RemoteMLDSA65PrivateKey(_Signer, mldsa.MLDSA65PrivateKey):
    """An ML-DSA-65 key."""


class RemoteMLDSA87PrivateKey(_Signer, mldsa.MLDSA87PrivateKey):
    """An ML-DSA-87 key."""


CLASSES: Final[dict[type[Any], type[RemoteKey]]] = {
    mldsa.MLDSA44PublicKey: RemoteMLDSA44PrivateKey,
    mldsa.MLDSA65PublicKey: RemoteMLDSA65PrivateKey,
    mldsa.MLDSA87PublicKey: RemoteMLDSA87PrivateKey,
}
