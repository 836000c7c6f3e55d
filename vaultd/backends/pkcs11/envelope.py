"""The backend of protection level HSM_ENVELOPE: software keys whose material is stored only as wrapped by a token's key.

The token is asked when a key is made and when it is loaded; uses run at the speed of software.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultd.backends.base import Lane, Material, Operation, OpKind, Revealed, TokenKey
from vaultd.errors import DataLoss, DecryptionFailed, FailedPrecondition, InvalidArgument
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.backends.base import Handle
    from vaultd.backends.pkcs11.backend import HsmBackend
    from vaultd.backends.software import SoftwareBackend
    from vaultd.errors import VaultdError

_WRAPPING: Final = "AES_256_GCM"
_CONTEXT: Final = b"vaultd envelope v1 "


class EnvelopeBackend:
    """`reference` is that of the token's key; `secret` of a Material is nonce || ciphertext || tag under it.

    The associated data of a wrapping is the algorithm; the store binds it to its row.
    """

    protection_level: str = "HSM_ENVELOPE"

    def __init__(self, hsm: HsmBackend, software: SoftwareBackend) -> None:
        self._hsm = hsm
        self._software = software

    def unsupported(self, algorithm: str) -> str | None:
        """Say why the algorithm cannot be used here; raises Unavailable until the token was reached once."""
        return self._software.unsupported(algorithm) or self._hsm.unsupported(_WRAPPING)

    def reserve(self) -> bytes:
        """Nothing: a wrapping whose record was lost exists nowhere."""
        return b""

    async def generate(self, algorithm: str, label: str, reference: bytes = b"") -> Material:
        """Make a key in software and wrap it with the token's key `reference`."""
        return await self._wrap(algorithm, await self._software.generate(algorithm, label), reference)

    async def import_material(self, algorithm: str, secret: Secret, label: str, reference: bytes = b"") -> Material:
        """Take material in and wrap it with the token's key `reference`."""
        return await self._wrap(algorithm, await self._software.import_material(algorithm, secret, label), reference)

    async def adopt(self, algorithm: str, source: TokenKey) -> Material:
        """Refuse: a token's own keys are of protection level HSM."""
        return await self._software.adopt(algorithm, source)

    async def reveal(self, algorithm: str, material: Material) -> Revealed:
        """Let the token unwrap the material, and give it away.  Raises DataLoss when it does not open."""
        return await self._software.reveal(algorithm, await self._unwrap(algorithm, material))

    async def load(self, algorithm: str, material: Material) -> Handle:
        """Let the token unwrap the material, and load it in software.  Raises DataLoss when it does not open."""
        return await self._software.load(algorithm, await self._unwrap(algorithm, material))

    def load_public(self, algorithm: str, public_key: bytes) -> Handle:
        """Make a handle for the public part, in software."""
        return self._software.load_public(algorithm, public_key)

    async def use(
        self, handle: Handle, operation: Operation, deadline: float | None, lane: Lane = Lane.ONLINE
    ) -> bytes:
        """Do one operation in software."""
        return await self._software.use(handle, operation, deadline, lane)

    async def use_many(
        self, work: Sequence[tuple[Handle, Operation]], deadline: float | None
    ) -> list[bytes | VaultdError]:
        """Do many operations in software."""
        return await self._software.use_many(work, deadline)

    async def destroy(self, material: Material) -> None:
        """Do nothing: the wrapping goes with its row, and the token's key serves others."""
        del material

    async def random_bytes(self, length: int) -> bytes:
        """Random bytes from the operating system."""
        return await self._software.random_bytes(length)

    async def close(self) -> None:
        """Do nothing: the backends beneath are closed by themselves."""

    async def _unwrap(self, algorithm: str, material: Material) -> Material:
        if material.secret is None:
            raise InvalidArgument("MATERIAL_MISMATCH", "an envelope key has its wrapped material with it")
        wrapping = await self._hsm.load(_WRAPPING, Material(None, material.reference, b""))
        wrapped = material.secret.expose("unwrapped by the token's key")
        try:
            opened = await self._hsm.use(wrapping, Operation(OpKind.DECRYPT, wrapped, _bound(algorithm)), None)
        except DecryptionFailed:
            raise DataLoss(
                "ENVELOPE_MISMATCH",
                "a wrapped key does not open with the token's key that its row names; restore the token or a backup",
            ) from None
        return Material(Secret(opened), b"", material.public_key)

    async def _wrap(self, algorithm: str, made: Material, reference: bytes) -> Material:
        if made.secret is None or not reference:
            raise FailedPrecondition("ENVELOPE_KEY_MISSING", "there is no token's key to wrap with")
        wrapping = await self._hsm.load(_WRAPPING, Material(None, reference, b""))
        material = made.secret.expose("wrapped by the token's key")
        wrapped = await self._hsm.use(wrapping, Operation(OpKind.ENCRYPT, material, _bound(algorithm)), None)
        return Material(Secret(wrapped), reference, made.public_key)


def _bound(algorithm: str) -> bytes:
    return _CONTEXT + algorithm.encode("ascii")
