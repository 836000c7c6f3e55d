"""Root keys that are born in a token and never leave it: the vault unseals by itself where the token is."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from vaultd import failpoints
from vaultd.backends.base import Lane
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.pkcs11.slot import BadInput, Request
from vaultd.backends.rootkeys.base import bound, mismatch, missing, still_in_use
from vaultd.errors import FailedPrecondition, Unavailable
from vaultd.secret import Secret

if TYPE_CHECKING:
    from vaultd.backends.pkcs11.slot import TokenSlot

ROOT_LABEL: Final = "vaultd root key"
_ALGORITHM: Final = "AES_256_GCM"
_FORMAT: Final = b"\x02"
_NONCE_BYTES: Final = 12
_SHORTEST: Final = len(_FORMAT) + _NONCE_BYTES + 16
_PROOF: Final = b"proof of a root key"
_REF: Final = re.compile(r"[0-9a-f]{32}")


class Pkcs11RootKey:
    """A root key is an AES-256 key of the token; its ref is the key's CKA_ID in hex.  The slot is opened by others."""

    kind = "pkcs11"
    needs_passphrase = False

    def __init__(self, slot: TokenSlot) -> None:
        self._slot = slot
        self._in_use: str | None = None

    async def create(self, passphrase: Secret | None) -> str:
        """Make a key in the token."""
        del passphrase
        self._in_use = await self._make()
        failpoints.hit("root_key.created")
        return self._in_use

    async def wrap(self, ref: str, plaintext: Secret, aad: bytes) -> bytes:
        """Format byte, nonce, then what the token's AES-GCM gave; bound to ref and aad."""
        nonce = os.urandom(_NONCE_BYTES)
        data = plaintext.expose("sealed by the token")
        return _FORMAT + nonce + await self._use(Verb.ENCRYPT, ref, data, nonce, bound(ref, aad))

    async def unwrap(self, ref: str, wrapped: bytes, aad: bytes, passphrase: Secret | None) -> Secret:
        """See RootKeyProvider."""
        del passphrase
        if len(wrapped) < _SHORTEST or not wrapped.startswith(_FORMAT):
            raise mismatch("the wrapped key ring is damaged, or of another root key provider")
        nonce, data = wrapped[1 : 1 + _NONCE_BYTES], wrapped[1 + _NONCE_BYTES :]
        try:
            plaintext = await self._use(Verb.DECRYPT, ref, data, nonce, bound(ref, aad))
        except BadInput:
            raise mismatch("the key ring does not open with the root key that it names") from None
        self._in_use = ref
        return Secret(plaintext)

    async def prepare_next(self, passphrase: Secret | None) -> str:
        """Make a key beside the one in use; one that a crash left over stays until an operator destroys it."""
        del passphrase
        ref = await self._make()
        failpoints.hit("root_key.prepared")
        return ref

    async def retire(self, ref: str) -> None:
        """Destroy the key in the token.  Idempotent."""
        if ref == self._in_use:
            raise still_in_use()
        if _REF.fullmatch(ref):
            await self._ask(Request("DESTROY", Verb.DESTROY, (bytes.fromhex(ref),)), Lane.KEY_GENERATION)

    async def _make(self) -> str:
        lacking = self._slot.lacking
        if lacking is not None and _ALGORITHM in lacking:
            raise FailedPrecondition("HSM_REFUSED", f"the token cannot hold a root key: {lacking[_ALGORITHM]}")
        object_id = os.urandom(16)
        label = f"{ROOT_LABEL} {object_id.hex()[:8]}"
        request = Request("root/GENERATE", Verb.GENERATE, (object_id, _ALGORITHM, label))
        await self._ask(request, Lane.KEY_GENERATION)
        ref = object_id.hex()
        if not await self._opens_what_it_seals(ref):
            await self.retire(ref)
            raise FailedPrecondition("HSM_REFUSED", "the token's AES-GCM does not open what it sealed")
        return ref

    async def _opens_what_it_seals(self, ref: str) -> bool:
        """No ring is wrapped by a key that was not tried: some HSMs draw their own nonce, and do not say so."""
        nonce = os.urandom(_NONCE_BYTES)
        try:
            sealed = await self._use(Verb.ENCRYPT, ref, _PROOF, nonce, b"")
            return await self._use(Verb.DECRYPT, ref, sealed, nonce, b"") == _PROOF
        except BadInput:
            return False

    async def _use(self, verb: Verb, ref: str, *arguments: bytes) -> bytes:
        if not _REF.fullmatch(ref):
            raise missing("the root key that the key ring names is not one of a token: check root_key.provider")
        try:
            request = Request(f"root/{verb.name}", verb, (bytes.fromhex(ref), _ALGORITHM, *arguments))
            return bytes(await self._ask(request, Lane.ONLINE))
        except Unavailable as error:
            if error.reason != "HSM_KEY_MISSING":
                raise
            raise missing("the token does not show the root key that the key ring names: restore the token") from None

    async def _ask(self, request: Request, lane: Lane) -> Any:
        return await self._slot.ask(request, None, lane)
