"""What a root-key provider promises, the wrapping that all of them share, and their errors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vaultd.errors import DataLoss, FailedPrecondition
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY_BYTES = 32
SALT_BYTES = 16

_WRAP_FORMAT = b"\x01"
_WRAP_INFO = b"vaultd/root-key/wrap/v1"
_NONCE_BYTES = 12
_TAG_BYTES = 16


class RootKeyProvider(Protocol):
    """Wraps the key ring.  Methods may raise Unavailable when the place of the key cannot be reached.

    Rotation: `prepare_next`, wrap the ring with the new ref, commit and read it back, then `retire` the old ref.  A
    crash anywhere in between leaves the root key of the committed ring usable.  Other root keys at the same place may be
    of another vault or of a backup: nothing but `retire` of their ref takes one away.
    """

    kind: str
    """`file`, `passphrase`, `credential` or `pkcs11`."""
    needs_passphrase: bool
    """Whether create, unwrap and prepare_next want a passphrase; the others ignore it."""

    async def create(self, passphrase: Secret | None) -> str:
        """Give a new vault its root key, durable before return; return its ref.  Every existing key is kept."""
        ...

    async def wrap(self, ref: str, plaintext: Secret, aad: bytes) -> bytes:
        """Encrypt and bind to ref and aad.  Raises FailedPrecondition ROOT_KEY_MISSING."""
        ...

    async def unwrap(self, ref: str, wrapped: bytes, aad: bytes, passphrase: Secret | None) -> Secret:
        """Decrypt what `wrap` gave for the same ref and aad.

        Raises DataLoss ROOT_KEY_MISMATCH, InvalidArgument WRONG_PASSPHRASE or FailedPrecondition ROOT_KEY_MISSING.
        """
        ...

    async def prepare_next(self, passphrase: Secret | None) -> str:
        """Make a fresh root key beside the old one, durable before return; return its ref.

        After a crash it may be called again: a key left over is not in the way.
        """
        ...

    async def retire(self, ref: str) -> None:
        """Forget the root key `ref`, which a rotation replaced, and no other.  Idempotent: an absent one is no error.

        Raises FailedPrecondition ROOT_KEY_NOT_ROTATED, and forgets nothing, for the last one or the one in use.
        """
        ...


@dataclass(frozen=True, slots=True)
class RootKey:
    ref: str
    key: Secret


def new_root_key() -> RootKey:
    return RootKey(os.urandom(8).hex(), Secret(os.urandom(KEY_BYTES)))


def find_key(keys: Sequence[RootKey], ref: str) -> RootKey:
    for key in keys:
        if key.ref == ref:
            return key
    raise missing("the root key that the key ring names is not there: restore its key file or credential")


def wrap_with(key: RootKey, plaintext: Secret, aad: bytes) -> bytes:
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(_NONCE_BYTES)
    cipher = AESGCM(derive(key.key, _WRAP_INFO, KEY_BYTES, salt))
    sealed = cipher.encrypt(nonce, plaintext.expose("sealed under the root key"), bound(key.ref, aad))
    return _WRAP_FORMAT + salt + nonce + sealed


def unwrap_with(key: RootKey, wrapped: bytes, aad: bytes) -> Secret:
    header_bytes = len(_WRAP_FORMAT) + SALT_BYTES + _NONCE_BYTES
    if len(wrapped) < header_bytes + _TAG_BYTES or not wrapped.startswith(_WRAP_FORMAT):
        raise mismatch("the wrapped key ring is damaged or of a newer vaultd")
    salt = wrapped[len(_WRAP_FORMAT) : len(_WRAP_FORMAT) + SALT_BYTES]
    nonce = wrapped[len(_WRAP_FORMAT) + SALT_BYTES : header_bytes]
    cipher = AESGCM(derive(key.key, _WRAP_INFO, KEY_BYTES, salt))
    try:
        return Secret(cipher.decrypt(nonce, wrapped[header_bytes:], bound(key.ref, aad)))
    except InvalidTag as e:
        raise mismatch("the key ring does not open with the root key that it names") from e


def bound(ref: str, aad: bytes) -> bytes:
    name = ref.encode()
    return _WRAP_INFO + len(name).to_bytes(2, "big") + name + aad


def derive(key: Secret, info: bytes, length: int, salt: bytes | None = None) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(key.expose("HKDF of the root key"))


def missing(text: str) -> FailedPrecondition:
    return FailedPrecondition("ROOT_KEY_MISSING", text)


def file_mode(text: str) -> FailedPrecondition:
    return FailedPrecondition("ROOT_KEY_FILE_MODE", text)


def still_in_use() -> FailedPrecondition:
    return FailedPrecondition("ROOT_KEY_NOT_ROTATED", "the root key in use is not retired: rotate it first")


def mismatch(text: str) -> DataLoss:
    return DataLoss("ROOT_KEY_MISMATCH", text)


def file_invalid(text: str) -> DataLoss:
    return DataLoss("ROOT_KEY_FILE_INVALID", f"the root key file or credential cannot be used: {text}")
