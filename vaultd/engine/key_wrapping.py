"""Key material on its way in or out: wrapped to a public key.

RSA-OAEP of a fresh AES-256 key, and behind it the material wrapped by that key with KWP (what PKCS#11 calls
CKM_RSA_AES_KEY_WRAP); or HPKE in one shot.  The cryptography is that of the software backend's algorithms.
"""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING, Final

from vaultd.backends.base import Material, Operation, OpKind
from vaultd.errors import DecryptionFailed, InvalidArgument
from vaultd.secret import Secret

if TYPE_CHECKING:
    from vaultd.backends.base import Backend, Handle

_KEK_BYTES: Final = 32
_KWP: Final = "AES_256_KWP"
_SHORTEST_KWP_BYTES: Final = 16


class WrappingMethod(Enum):
    """How material is wrapped; each fixes every parameter."""

    RSA_OAEP_3072_SHA256_AES_256_KWP = "RSA_OAEP_3072_SHA256_AES_256_KWP"
    RSA_OAEP_4096_SHA256_AES_256_KWP = "RSA_OAEP_4096_SHA256_AES_256_KWP"
    HPKE_X25519 = "HPKE_X25519"
    HPKE_MLKEM768_X25519 = "HPKE_MLKEM768_X25519"

    @property
    def algorithm(self) -> str:
        """The algorithm of the key pair."""
        return self.value.removesuffix("_AES_256_KWP")

    @property
    def modulus_bytes(self) -> int:
        """Length of what comes before the KWP; 0 for HPKE."""
        return int(self.value.split("_")[2]) // 8 if self.value.startswith("RSA") else 0


class KeyWrapping:
    """Makes key pairs, wraps and unwraps.  `software` is the backend that computes."""

    def __init__(self, software: Backend) -> None:
        self._software = software

    async def generate(self, method: WrappingMethod) -> Material:
        """Make a key pair to wrap to."""
        return await self._software.generate(method.algorithm, "")

    async def unwrap(self, method: WrappingMethod, pair: Material, blob: bytes, info: bytes) -> Secret:
        """Take material out.  Raises InvalidArgument, UNWRAP_FAILED, with one text for whatever is wrong."""
        handle = await self._software.load(method.algorithm, pair)
        size = method.modulus_bytes
        try:
            if not size:
                return Secret(await self._software.use(handle, Operation(OpKind.DECRYPT, blob, info), None))
            if len(blob) < size + _SHORTEST_KWP_BYTES:
                raise _unwrap_failed()
            kek = await self._key_of(handle, blob[:size])
            unwrapping = await self._software.load(_KWP, Material(Secret(kek), b"", b""))
            return Secret(unwrapping.perform(Operation(OpKind.UNWRAP, blob[size:])))
        except DecryptionFailed:
            raise _unwrap_failed() from None

    async def _key_of(self, handle: Handle, sealed: bytes) -> bytes:
        # A wrong OAEP padding goes on with a random key, so that neither answer nor time tells it from a wrong KWP (Manger).
        instead = os.urandom(_KEK_BYTES)
        try:
            kek = await self._software.use(handle, Operation(OpKind.DECRYPT, sealed), None)
        except DecryptionFailed:
            return instead
        return kek if len(kek) == _KEK_BYTES else instead

    async def wrap(self, method: WrappingMethod, public_key: bytes, material: Secret, info: bytes) -> bytes:
        """Wrap material to a public key: DER SubjectPublicKeyInfo, bare for HPKE_MLKEM768_X25519.

        Raises InvalidArgument, PUBLIC_KEY_MISMATCH, for a key that is not one of the method.
        """
        try:
            handle = self._software.load_public(method.algorithm, public_key)
        except InvalidArgument as error:
            raise InvalidArgument(
                "PUBLIC_KEY_MISMATCH",
                f"{method.value} wraps to another kind of key: {error.text}",
                field="public_key_pem",
            ) from None
        exposed = material.expose("wrapped to the recipient's public key")
        if not method.modulus_bytes:
            return await self._software.use(handle, Operation(OpKind.ENCRYPT, exposed, info), None)
        kek = os.urandom(_KEK_BYTES)
        wrapping = await self._software.load(_KWP, Material(Secret(kek), b"", b""))
        sealed = await self._software.use(handle, Operation(OpKind.ENCRYPT, kek), None)
        return sealed + wrapping.perform(Operation(OpKind.WRAP, exposed))


def _unwrap_failed() -> InvalidArgument:
    return InvalidArgument(
        "UNWRAP_FAILED",
        "the wrapped key does not open with this import job's key: wrap it anew, by the job's method, to the public key of "
        "GetImportJob (docs/import-export.md)",
        field="wrapped_key",
    )
