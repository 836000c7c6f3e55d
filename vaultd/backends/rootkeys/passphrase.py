"""A root key derived from what the operator types at unseal."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from vaultd import failpoints
from vaultd.backends.rootkeys.base import (
    KEY_BYTES,
    SALT_BYTES,
    RootKey,
    derive,
    mismatch,
    missing,
    still_in_use,
    unwrap_with,
    wrap_with,
)
from vaultd.errors import InvalidArgument
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_PASSPHRASE_BYTES = 12
MAX_PASSPHRASE_BYTES = 1024

_CHECK_INFO = b"vaultd/root-key/passphrase-check/v1"


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """The price of one guess.

    Bounded, since an edited row must not cost the server its memory or the key its strength.
    """

    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 64 * 1024

    def __post_init__(self) -> None:
        if not (2 <= self.iterations <= 16 and 1 <= self.lanes <= 16 and 19 * 1024 <= self.memory_kib <= 512 * 1024):
            raise ValueError("Argon2id cost out of bounds: iterations 2-16, lanes 1-16, memory 19-512 MiB")


class PassphraseRootKey:
    """A root key derived from a passphrase by Argon2id.

    The ref holds everything but the passphrase, so the ring's row is all there is to keep:

        argon2id:v=1,t=<iterations>,p=<lanes>,m=<KiB>,salt=<32 hex digits>,check=<16 hex digits>

    `check` is 8 bytes of HKDF over the derived key: it tells a wrong passphrase from a damaged ring, and tells a
    guesser nothing that the wrapped ring beside it does not.  Derived keys stay in memory from create, unwrap or
    prepare_next until `forget` or `retire`, so that the ring can be wrapped anew while unsealed.  A retired ref that no
    row holds any more is a key that nothing is wrapped with.
    """

    kind = "passphrase"
    needs_passphrase = True

    _FORMAT = re.compile(
        r"argon2id:v=1,t=(?P<t>[1-9][0-9]{0,3}),p=(?P<p>[1-9][0-9]{0,3}),m=(?P<m>[1-9][0-9]{0,9}),"
        r"salt=(?P<salt>[0-9a-f]{32}),check=(?P<check>[0-9a-f]{16})"
    )

    def __init__(self, cost: Argon2Cost | None = None) -> None:
        self._cost = cost or Argon2Cost()
        self._keys: dict[str, RootKey] = {}
        self._in_use: str | None = None
        self._one_at_a_time = asyncio.Lock()  # each derivation takes all of `memory_kib`
        self._forgotten = 0

    async def create(self, passphrase: Secret | None) -> str:
        """Derive a key with a fresh salt.  Nothing is stored here: the key is durable once the ref is."""
        self._in_use = ref = await self._derive_new(passphrase)
        failpoints.hit("root_key.created")
        return ref

    async def wrap(self, ref: str, plaintext: Secret, aad: bytes) -> bytes:
        """See RootKeyProvider.  Needs a key in memory."""
        key = self._keys.get(ref)
        if key is None:
            raise missing("the root key is not in memory: unseal with the passphrase first")
        return wrap_with(key, plaintext, aad)

    async def unwrap(self, ref: str, wrapped: bytes, aad: bytes, passphrase: Secret | None) -> Secret:
        """See RootKeyProvider.  Without a passphrase, the key in memory is used (reading back after a rotation)."""
        if passphrase is None and ref in self._keys:
            plaintext = unwrap_with(self._keys[ref], wrapped, aad)
            self._in_use = ref
            return plaintext
        if passphrase is None:
            raise _passphrase_required()
        cost, salt, check = self._parse_ref(ref)
        if len(passphrase) > MAX_PASSPHRASE_BYTES:
            raise _wrong_passphrase()
        epoch = self._forgotten
        key = await self._derive(passphrase, cost, salt)
        if not hmac.compare_digest(_check_value(key), check):
            raise _wrong_passphrase()
        root_key = RootKey(ref, key)
        plaintext = unwrap_with(root_key, wrapped, aad)
        self._remember(root_key, epoch)
        self._in_use = ref
        return plaintext

    async def prepare_next(self, passphrase: Secret | None) -> str:
        """Derive a key with a fresh salt from the old passphrase or a new one."""
        ref = await self._derive_new(passphrase)
        failpoints.hit("root_key.prepared")
        return ref

    async def retire(self, ref: str) -> None:
        """Drop one key from memory."""
        if ref in self._keys and (ref == self._in_use or len(self._keys) == 1):
            raise still_in_use()
        self._keys.pop(ref, None)
        failpoints.hit("root_key.retired")

    def forget(self) -> None:
        """Drop every key from memory, at seal.  Derivations under way do not bring one back."""
        self._keys.clear()
        self._forgotten += 1

    def hand_over(self) -> dict[str, Secret]:
        """Every key in memory by its ref, for another process of the same server."""
        return {ref: root_key.key for ref, root_key in self._keys.items()}

    def take_over(self, keys: Mapping[str, Secret]) -> None:
        """Keep keys of another process; those that are neither its nor in use go."""
        kept = {ref: root_key for ref, root_key in self._keys.items() if ref == self._in_use}
        self._keys = kept | {ref: RootKey(ref, key) for ref, key in keys.items()}

    async def _derive_new(self, passphrase: Secret | None) -> str:
        if passphrase is None:
            raise _passphrase_required()
        if not MIN_PASSPHRASE_BYTES <= len(passphrase) <= MAX_PASSPHRASE_BYTES:
            raise InvalidArgument(
                "PASSPHRASE_LENGTH",
                f"the passphrase must have {MIN_PASSPHRASE_BYTES} to {MAX_PASSPHRASE_BYTES} bytes",
                field="passphrase",
            )
        epoch = self._forgotten
        salt = os.urandom(SALT_BYTES)
        cost = self._cost
        key = await self._derive(passphrase, cost, salt)
        ref = (
            f"argon2id:v=1,t={cost.iterations},p={cost.lanes},m={cost.memory_kib},"
            f"salt={salt.hex()},check={_check_value(key).hex()}"
        )
        self._remember(RootKey(ref, key), epoch)
        return ref

    async def _derive(self, passphrase: Secret, cost: Argon2Cost, salt: bytes) -> Secret:
        async with self._one_at_a_time:
            return await asyncio.to_thread(_argon2id, passphrase, cost, salt)

    def _remember(self, key: RootKey, epoch: int) -> None:
        if epoch == self._forgotten:
            self._keys[key.ref] = key

    def _parse_ref(self, ref: str) -> tuple[Argon2Cost, bytes, bytes]:
        match = self._FORMAT.fullmatch(ref)
        if match is None:
            raise mismatch("the key ring names a root key that is not of a passphrase")
        try:
            cost = Argon2Cost(iterations=int(match["t"]), lanes=int(match["p"]), memory_kib=int(match["m"]))
        except ValueError as e:
            raise mismatch("the key ring names Argon2id parameters that vaultd never writes") from e
        return cost, bytes.fromhex(match["salt"]), bytes.fromhex(match["check"])


def _check_value(key: Secret) -> bytes:
    return derive(key, _CHECK_INFO, 8)


def _argon2id(passphrase: Secret, cost: Argon2Cost, salt: bytes) -> Secret:
    kdf = Argon2id(
        salt=salt, length=KEY_BYTES, iterations=cost.iterations, lanes=cost.lanes, memory_cost=cost.memory_kib
    )
    return Secret(kdf.derive(passphrase.expose("Argon2id of the passphrase")))


def _wrong_passphrase() -> InvalidArgument:
    return InvalidArgument("WRONG_PASSPHRASE", "the passphrase is not the one of this vault", field="passphrase")


def _passphrase_required() -> InvalidArgument:
    return InvalidArgument("PASSPHRASE_REQUIRED", "this vault needs its passphrase", field="passphrase")
