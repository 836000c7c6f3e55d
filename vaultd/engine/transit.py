"""Transit cryptography: choose the version, check its state, use it, say which one it was.

Every use is three parts: a plan (which handle does what), the backend's work, and a finish (what the caller gets).  Single
calls and batches share plans and finishes; they differ only in how the work is handed to the backend.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from vaultd.backends.base import Operation, OpKind
from vaultd.engine.algorithms import Algorithm, Purpose
from vaultd.engine.catalog import FORMAT, HEADER_BYTES, LoadedKey, LoadedVersion
from vaultd.engine.turns import ITEMS_PER_LOOK, BulkLane
from vaultd.errors import (
    DecryptionFailed,
    FailedPrecondition,
    InvalidArgument,
    InvalidSignature,
    NotFound,
    VaultdError,
)
from vaultd.names import KeyRef

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vaultd.backends.base import Backend, Handle
    from vaultd.engine.catalog import KeyCatalog
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Ledger

_SIGN_MESSAGE: Final = OpKind.SIGN_MESSAGE
_SIGN_DIGEST: Final = OpKind.SIGN_DIGEST
_DECRYPT: Final = OpKind.DECRYPT
_MAC: Final = OpKind.MAC
_VERIFY_MAC: Final = OpKind.VERIFY_MAC
_FOR_SIGNING: Final = Purpose.SIGN
_FOR_MACS: Final = Purpose.MAC
_ENCRYPT: Final = OpKind.ENCRYPT  # a member looked up on its enum costs as much as a tenth of an encryption
_new_operation: Final = tuple.__new__  # half the price of Operation(...), of which a batch makes thousands
BYTES_PER_LOOK: Final = 256 * 1024
"""Input of a batch between two looks at the clock, if that comes before `ITEMS_PER_LOOK` items."""
LONG_PER_LOOK: Final = 8
"""Operations that are done in turns and take tens of microseconds, between two looks."""


class EncryptItem(NamedTuple):
    ref: KeyRef
    plaintext: bytes
    associated_data: bytes = b""


class DecryptItem(NamedTuple):
    ref: KeyRef
    ciphertext: bytes
    associated_data: bytes = b""


class ReEncryptItem(NamedTuple):
    source: KeyRef
    ciphertext: bytes
    source_associated_data: bytes
    destination: KeyRef
    destination_associated_data: bytes


class SignItem(NamedTuple):
    ref: KeyRef
    data: bytes
    is_digest: bool = False
    p1363: bool = False


class VerifyItem(NamedTuple):
    ref: KeyRef
    data: bytes
    signature: bytes
    is_digest: bool = False
    p1363: bool = False


class MacItem(NamedTuple):
    ref: KeyRef
    data: bytes


class VerifyMacItem(NamedTuple):
    ref: KeyRef
    data: bytes
    mac: bytes


class WrapItem(NamedTuple):
    ref: KeyRef
    data: bytes


class KemItem(NamedTuple):
    ref: KeyRef
    data: bytes = b""


Answer = tuple[Any, LoadedVersion]
"""What a use gave (bytes, or the verdict of a verification), and the version that gave it.  Bare, since batches make many."""


class ReEncrypted(NamedTuple):
    ciphertext: bytes
    version: LoadedVersion
    source: LoadedVersion


class DataKey(NamedTuple):
    plaintext: bytes
    wrapped: bytes


class Inspected(NamedTuple):
    """What a ciphertext's header says."""

    version_name: str
    algorithm: Algorithm
    needs_reencrypt: bool
    below_minimum: bool


Plan = tuple[LoadedVersion, bool, OpKind, bytes, bytes]
"""Version, whether its private or symmetric part is used, what is done, and the operation's data and context."""


class _Use(NamedTuple):
    """One kind of use.  `finish` turns the backend's bytes into the caller's; `verdict`: a wrong signature is an answer."""

    plan: Callable[[Transit, LoadedKey, Any], Plan]
    finish: Callable[[Any, LoadedVersion, bytes], Any] | None = None
    verdict: bool = False


def _wrong_purpose(loaded: LoadedKey, call: str) -> FailedPrecondition:
    purpose = loaded.purpose.value
    return FailedPrecondition("WRONG_PURPOSE", f"the key's purpose is {purpose}, which does not permit {call}")


def _with_prefix(item: EncryptItem, version: LoadedVersion, outcome: bytes) -> bytes:
    del item
    return version.prefix + outcome


def _valid(item: Any, version: LoadedVersion, outcome: bytes) -> bool:
    del item, version, outcome
    return True


def _encoded_signature(item: SignItem, version: LoadedVersion, outcome: bytes) -> bytes:
    if not item[3]:  # p1363
        return outcome
    size = version.version.algorithm.ec_coordinate_bytes
    r, s = decode_dss_signature(outcome)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


class Transit:
    """Uses keys for callers.  Raises NotFound, FailedPrecondition (state, purpose, expiry), InvalidArgument, Unavailable."""

    def __init__(self, catalog: KeyCatalog, ledger: Ledger, clock: Clock, lane: BulkLane | None = None) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._clock = clock
        self._lane = lane or BulkLane()

    # -- one item, many items -------------------------------------------------------------------------------------------

    async def _one(self, use: _Use, item: Any, deadline: float | None) -> Answer:
        """Plan, do and finish one item.  Inline work never leaves the event loop."""
        plan, finish, verdict = use
        ref = item[0]
        loaded = self._catalog.cached(ref)
        if loaded is None or loaded.key.delete_us is not None:
            loaded = await self._catalog.load(ref)
        version, private, kind, data, context = plan(self, loaded, item)
        budget = version.budget
        if budget is not None and kind is _ENCRYPT and not budget.spend_many(1):
            await budget.ready(1)
            budget.spend()
        handle = version.handle if private else version.load_public()
        if handle is None:
            handle = await version.load(self._ledger)
        self._ledger.require_unsealed()  # after the last await: once sealed, no use of a key begins
        version.usage.note(1, len(data), self._clock.now_us())
        operation = _new_operation(Operation, (kind, data, context))
        try:
            if handle.inline:
                outcome = handle.perform(operation)
            else:
                backend = version.backend if private else version.software
                outcome = await backend.use(handle, operation, deadline)
        except InvalidSignature:
            if verdict:
                return False, version
            raise
        return (outcome if finish is None else finish(item, version, outcome)), version

    async def _many(self, use: _Use, items: Sequence[Any], deadline: float | None) -> list[Answer | VaultdError]:
        """Like _one for each item; an item's error takes its place in the answer.  Queued work goes out in one go.

        What holds between two turns of the event loop (the key of a name, the seal) is looked up once a turn.
        """
        answers: list[Any] = [None] * len(items)
        queued: dict[Backend, list[tuple[int, LoadedVersion, Handle, Operation]]] = {}
        absent: dict[KeyRef, VaultdError] = {}  # thousands of items may name one key that is not there
        plan_of, finish, verdict = use
        ledger, cached, now_us = self._ledger, self._catalog.cached, self._clock.now_us()
        lane, next_look, size, ref, loaded = self._lane, ITEMS_PER_LOOK, 0, None, None
        ledger.require_unsealed()
        for at, item in enumerate(items):
            if at >= next_look or size >= BYTES_PER_LOOK:
                next_look, size = at + ITEMS_PER_LOOK, 0
                if lane.over():
                    ref = None
                    await lane.next_turn()
                    ledger.require_unsealed()
            try:
                if item[0] is not ref:
                    ref = item[0]
                    loaded = cached(ref)
                if loaded is None or loaded.key.delete_us is not None:
                    missing = absent.get(item[0])
                    if missing is not None:
                        answers[at] = missing
                        continue
                    loaded, ref = await self._load(item[0], absent), None
                version, private, kind, data, context = plan_of(self, loaded, item)
                budget = version.budget
                if budget is not None and kind is _ENCRYPT and not budget.spend_many(1):
                    ref = None
                    await budget.ready(1)
                    budget.spend()
                handle = version.handle if private else version.load_public()
                if handle is None:
                    ref = None
                    handle = await version.load(ledger)
                if ref is None:
                    ledger.require_unsealed()
                size += len(data)
                version.usage.note(1, len(data), now_us)
                operation = _new_operation(Operation, (kind, data, context))
                if handle.in_turns:
                    if not handle.inline:
                        size += BYTES_PER_LOOK // LONG_PER_LOOK
                    outcome = handle.perform(operation)
                    answers[at] = (outcome if finish is None else finish(item, version, outcome)), version
                else:
                    backend = version.backend if private else version.software
                    queued.setdefault(backend, []).append((at, version, handle, operation))
            except VaultdError as error:
                # Without its traceback: that holds this frame, and thousands of such circles stop the loop when they are
                # collected.
                error.__context__ = error.__traceback__ = None
                answers[at] = (False, version) if verdict and isinstance(error, InvalidSignature) else error
        for backend, work in queued.items():
            try:
                outcomes = await backend.use_many([(handle, operation) for _, _, handle, operation in work], deadline)
            except VaultdError as error:
                outcomes = [error] * len(work)
            for (at, version, _, _), done in zip(work, outcomes, strict=True):
                if isinstance(done, VaultdError):
                    wrong = verdict and isinstance(done, InvalidSignature)
                    answers[at] = (False, version) if wrong else done
                else:
                    answers[at] = (done if finish is None else finish(items[at], version, done)), version
        return answers

    async def _load(self, ref: KeyRef, absent: dict[KeyRef, VaultdError]) -> LoadedKey:
        """Load the key of an item; that there is none is noted for the items after it."""
        try:
            return await self._catalog.load(ref)
        except NotFound as error:
            absent[ref] = error
            raise

    def encrypt_now(self, items: Sequence[EncryptItem]) -> list[Answer] | None:
        """Encrypt all, or none: they are under one symmetric key that is in memory, and no more than goes between two looks.

        What a plan would say of each holds for all of them, since nothing is awaited.  Raises Unavailable when sealed.
        """
        ref = items[0][0]
        version = self._at_hand(ref)
        if version is None or version.bulk is None or not version.version.algorithm.self_describing:
            return None
        size = 0
        for other, plaintext, _ in items:
            if other is not ref:
                return None
            size += len(plaintext)
        self._ledger.require_unsealed()
        budget = version.budget
        if size >= BYTES_PER_LOOK or (budget is not None and not budget.spend_many(len(items))):
            return None
        version.usage.note(len(items), size, self._clock.now_us())
        header, prefix = version.header, version.prefix
        messages = [(plaintext, header + more if more else header) for _, plaintext, more in items]
        return [(prefix + sealed, version) for sealed in version.bulk.encrypt_many(messages)]

    def sign_now(self, items: Sequence[SignItem]) -> list[Answer] | None:
        """Sign all, or none: they are messages under one key that is in memory, and whose batches are done in turns.

        As `encrypt_now`.
        """
        version, size = self._plain_signer(items)
        if version is None or version.handle is None or not version.handle.in_turns or size >= BYTES_PER_LOOK:
            return None
        self._ledger.require_unsealed()
        version.usage.note(len(items), size, self._clock.now_us())
        perform = version.handle.perform
        return [(perform(_new_operation(Operation, (_SIGN_MESSAGE, data, b""))), version) for _, data, _, _ in items]

    async def _sign_many(self, items: Sequence[SignItem], deadline: float | None) -> list[Answer | VaultdError]:
        """Like `_many`; one plan for all, where they are messages under one key that is in memory and its backend queues."""
        version, size = self._plain_signer(items)
        if version is None or version.handle is None or version.handle.in_turns:
            return await self._many(_SIGN_USE, items, deadline)
        handle, lane = version.handle, self._lane
        work: list[tuple[Handle, Operation]] = []
        for start in range(0, len(items), ITEMS_PER_LOOK):
            if start and lane.over():
                await lane.next_turn()
            for _, data, _, _ in items[start : start + ITEMS_PER_LOOK]:
                work.append((handle, _new_operation(Operation, (_SIGN_MESSAGE, data, b""))))
        if self._at_hand(items[0][0]) is not version:  # disabled, destroyed or rotated between two turns
            return await self._many(_SIGN_USE, items, deadline)
        self._ledger.require_unsealed()
        version.usage.note(len(items), size, self._clock.now_us())
        try:
            outcomes = await version.backend.use_many(work, deadline)
        except VaultdError as error:
            return [error] * len(items)
        return [outcome if isinstance(outcome, VaultdError) else (outcome, version) for outcome in outcomes]

    def _plain_signer(self, items: Sequence[SignItem]) -> tuple[LoadedVersion | None, int]:
        """The one version that signs all of these messages as they are, if it is in memory, and the bytes of them."""
        ref, size = items[0][0], 0
        version = self._at_hand(ref)
        if version is None or version.version.algorithm.purpose is not Purpose.SIGN:
            return None, 0
        for other, data, is_digest, p1363 in items:
            if other is not ref or is_digest or p1363:
                return None, 0
            size += len(data)
        return version, size

    async def _encrypt_many(self, items: Sequence[EncryptItem], deadline: float | None) -> list[Answer | VaultdError]:
        """Like `_many`, for the use of which most is asked: what can be encrypted at once is, in runs."""
        answers: list[Any] = [None] * len(items)
        others: list[int] = []
        lane, count, start = self._lane, len(items), 0
        self._ledger.require_unsealed()
        while start < count:
            if start and lane.over():
                await lane.next_turn()
                self._ledger.require_unsealed()
            ref, stop, size = items[start][0], start, 0
            last = min(start + ITEMS_PER_LOOK, count)
            while stop < last and items[stop][0] is ref:
                size += len(items[stop][1])
                if size >= BYTES_PER_LOOK and stop > start:
                    break
                stop += 1
            done = self.encrypt_now(items[start:stop])
            if done is None:
                others.extend(range(start, stop))
            else:
                answers[start:stop] = done
            start = stop
        if others:
            for at, answer in zip(
                others, await self._many(_ENCRYPT_USE, [items[at] for at in others], deadline), strict=True
            ):
                answers[at] = answer
        return answers

    def _at_hand(self, ref: KeyRef) -> LoadedVersion | None:
        """The version that protects something new for this name, if its key is in memory and may do so."""
        loaded = self._catalog.cached(ref)
        if loaded is None or loaded.key.delete_us is not None:
            return None
        if loaded.expire_us is not None and self._clock.now_us() >= loaded.expire_us:
            return None
        version = loaded.versions.get(ref.version) if ref.version else loaded.primary
        return None if version is None or version.unusable else version

    def _refuse_expired(self, loaded: LoadedKey) -> None:
        if loaded.expire_us is not None and self._clock.now_us() >= loaded.expire_us:
            raise FailedPrecondition(
                "KEY_EXPIRED",
                "the key's expire_time has passed: it protects nothing new; create another key, or update it",
            )

    # -- plans ----------------------------------------------------------------------------------------------------------

    def _plan_encrypt(self, loaded: LoadedKey, item: EncryptItem) -> Plan:
        ref, plaintext, associated_data = item
        if loaded.expire_us is not None:
            self._refuse_expired(loaded)
        version = loaded.usable[ref.version]
        if loaded.self_describing:
            context = version.header + associated_data if associated_data else version.header
            return version, True, _ENCRYPT, plaintext, context
        if loaded.purpose not in {Purpose.ASYMMETRIC_DECRYPT, Purpose.HPKE}:
            raise _wrong_purpose(loaded, "Encrypt")
        algorithm = loaded.key.algorithm
        if len(plaintext) > algorithm.max_input_bytes:
            raise InvalidArgument(
                "PLAINTEXT_TOO_LONG",
                f"{algorithm.name} encrypts at most {algorithm.max_input_bytes} bytes; encrypt a data key instead",
                field="plaintext",
            )
        return version, False, _ENCRYPT, plaintext, associated_data

    def _plan_decrypt(self, loaded: LoadedKey, item: DecryptItem) -> Plan:
        ref, ciphertext, associated_data = item
        if loaded.self_describing:
            version = loaded.by_header[ciphertext[:HEADER_BYTES]]
            if version is None or (ref.version and ref.version != version.version.number):
                raise DecryptionFailed
            if version.unusable:
                raise version.refusal()
            context = version.header + associated_data if associated_data else version.header
            return version, True, _DECRYPT, ciphertext[HEADER_BYTES:], context
        if loaded.purpose not in {Purpose.ASYMMETRIC_DECRYPT, Purpose.HPKE}:
            raise _wrong_purpose(loaded, "Decrypt")
        version = loaded.usable[ref.version]
        return version, True, _DECRYPT, ciphertext, associated_data

    def _plan_sign(self, loaded: LoadedKey, item: SignItem) -> Plan:
        ref, data, is_digest, p1363 = item
        if loaded.purpose is not _FOR_SIGNING:
            raise _wrong_purpose(loaded, "Sign")
        if loaded.expire_us is not None:
            self._refuse_expired(loaded)
        if is_digest:
            _check_digest(loaded.key.algorithm, data, is_digest)
        if p1363:
            _check_encoding(loaded.key.algorithm, p1363)
        return loaded.usable[ref.version], True, _SIGN_DIGEST if is_digest else _SIGN_MESSAGE, data, b""

    def _plan_verify(self, loaded: LoadedKey, item: VerifyItem) -> Plan:
        ref, data, signature, is_digest, p1363 = item
        if loaded.purpose is not _FOR_SIGNING:
            raise _wrong_purpose(loaded, "Verify")
        algorithm = loaded.key.algorithm
        _check_digest(algorithm, data, is_digest)
        _check_encoding(algorithm, p1363)
        if p1363:
            size = algorithm.ec_coordinate_bytes
            r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            # A length that is not exactly two coordinates is no signature; b"" never verifies.
            signature = encode_dss_signature(r, s) if len(signature) == 2 * size else b""
        kind = OpKind.VERIFY_DIGEST if is_digest else OpKind.VERIFY_MESSAGE
        return loaded.usable[ref.version], False, kind, data, signature

    def _plan_mac(self, loaded: LoadedKey, item: MacItem) -> Plan:
        ref, data = item
        if loaded.purpose is not _FOR_MACS:
            raise _wrong_purpose(loaded, "GenerateMac")
        if loaded.expire_us is not None:
            self._refuse_expired(loaded)
        return loaded.usable[ref.version], True, _MAC, data, b""

    def _plan_verify_mac(self, loaded: LoadedKey, item: VerifyMacItem) -> Plan:
        ref, data, mac = item
        if loaded.purpose is not _FOR_MACS:
            raise _wrong_purpose(loaded, "VerifyMac")
        return loaded.usable[ref.version], True, _VERIFY_MAC, data, mac

    def _plan_wrap(self, loaded: LoadedKey, item: WrapItem) -> Plan:
        if loaded.purpose is not Purpose.WRAP:
            raise _wrong_purpose(loaded, "WrapKey")
        self._refuse_expired(loaded)
        return loaded.usable[item.ref.version], True, OpKind.WRAP, item.data, b""

    def _plan_unwrap(self, loaded: LoadedKey, item: WrapItem) -> Plan:
        if loaded.purpose is not Purpose.WRAP:
            raise _wrong_purpose(loaded, "UnwrapKey")
        return loaded.usable[item.ref.version], True, OpKind.UNWRAP, item.data, b""

    def _plan_encapsulate(self, loaded: LoadedKey, item: KemItem) -> Plan:
        if loaded.purpose is not Purpose.KEM:
            raise _wrong_purpose(loaded, "Encapsulate")
        self._refuse_expired(loaded)
        return loaded.usable[item.ref.version], False, OpKind.ENCAPSULATE, b"", b""

    def _plan_decapsulate(self, loaded: LoadedKey, item: KemItem) -> Plan:
        if loaded.purpose is not Purpose.KEM:
            raise _wrong_purpose(loaded, "Decapsulate")
        return loaded.usable[item.ref.version], True, OpKind.DECAPSULATE, item.data, b""

    def _plan_derive(self, loaded: LoadedKey, item: KemItem) -> Plan:
        if loaded.purpose is not Purpose.KEY_AGREEMENT:
            raise _wrong_purpose(loaded, "DeriveSharedSecret")
        self._refuse_expired(loaded)
        return loaded.usable[item.ref.version], True, OpKind.DERIVE, item.data, b""

    # -- what services call ---------------------------------------------------------------------------------------------

    def encrypt(self, item: EncryptItem, deadline: float | None) -> Awaitable[Answer]:
        """Encrypt under the named or primary version."""
        return self._one(_ENCRYPT_USE, item, deadline)

    def encrypt_many(self, items: Sequence[EncryptItem], deadline: float | None) -> Awaitable[list[Any]]:
        """One Answer or VaultdError per item, in order; so for every `_many` below."""
        return self._encrypt_many(items, deadline)

    def decrypt(self, item: DecryptItem, deadline: float | None) -> Awaitable[Answer]:
        """Decrypt with the version that the ciphertext names."""
        return self._one(_DECRYPT_USE, item, deadline)

    def decrypt_many(self, items: Sequence[DecryptItem], deadline: float | None) -> Awaitable[list[Any]]:
        return self._many(_DECRYPT_USE, items, deadline)

    async def reencrypt(self, item: ReEncryptItem, deadline: float | None) -> ReEncrypted:
        """Decrypt and encrypt; the plaintext stays in here."""
        (outcome,) = await self.reencrypt_many([item], deadline)
        if isinstance(outcome, VaultdError):
            raise outcome
        return outcome  # type: ignore[no-any-return]  # the list holds ReEncrypted or VaultdError

    async def reencrypt_many(self, items: Sequence[ReEncryptItem], deadline: float | None) -> list[Any]:
        answers: list[Any] = await self.decrypt_many(
            [DecryptItem(item.source, item.ciphertext, item.source_associated_data) for item in items], deadline
        )
        opened = [at for at, answer in enumerate(answers) if not isinstance(answer, VaultdError)]
        sealed = await self.encrypt_many(
            [
                EncryptItem(items[at].destination, answers[at][0], items[at].destination_associated_data)
                for at in opened
            ],
            deadline,
        )
        for at, outcome in zip(opened, sealed, strict=True):
            if isinstance(outcome, VaultdError):
                answers[at] = outcome
            else:
                answers[at] = ReEncrypted(outcome[0], outcome[1], answers[at][1])
        return answers

    def sign(self, item: SignItem, deadline: float | None) -> Awaitable[Answer]:
        """Sign a message or a digest."""
        return self._one(_SIGN_USE, item, deadline)

    def sign_many(self, items: Sequence[SignItem], deadline: float | None) -> Awaitable[list[Any]]:
        return self._sign_many(items, deadline)

    def verify(self, item: VerifyItem, deadline: float | None) -> Awaitable[Answer]:
        """Verify; the answer's value is the verdict."""
        return self._one(_VERIFY_USE, item, deadline)

    def verify_many(self, items: Sequence[VerifyItem], deadline: float | None) -> Awaitable[list[Any]]:
        return self._many(_VERIFY_USE, items, deadline)

    def generate_mac(self, item: MacItem, deadline: float | None) -> Awaitable[Answer]:
        """Authenticate data."""
        return self._one(_MAC_USE, item, deadline)

    def generate_mac_many(self, items: Sequence[MacItem], deadline: float | None) -> Awaitable[list[Any]]:
        return self._many(_MAC_USE, items, deadline)

    def verify_mac(self, item: VerifyMacItem, deadline: float | None) -> Awaitable[Answer]:
        """Check a code; the answer's value is the verdict."""
        return self._one(_VERIFY_MAC_USE, item, deadline)

    def verify_mac_many(self, items: Sequence[VerifyMacItem], deadline: float | None) -> Awaitable[list[Any]]:
        return self._many(_VERIFY_MAC_USE, items, deadline)

    def wrap(self, item: WrapItem, deadline: float | None) -> Awaitable[Answer]:
        """Wrap key material."""
        return self._one(_WRAP_USE, item, deadline)

    def wrap_many(self, items: Sequence[WrapItem], deadline: float | None) -> Awaitable[list[Any]]:
        return self._many(_WRAP_USE, items, deadline)

    def unwrap(self, item: WrapItem, deadline: float | None) -> Awaitable[Answer]:
        """Unwrap key material."""
        return self._one(_UNWRAP_USE, item, deadline)

    def unwrap_many(self, items: Sequence[WrapItem], deadline: float | None) -> Awaitable[list[Any]]:
        return self._many(_UNWRAP_USE, items, deadline)

    async def generate_data_keys(
        self, ref: KeyRef, length: int, count: int, associated_data: bytes, deadline: float | None
    ) -> tuple[list[DataKey], LoadedVersion]:
        """Fresh keys, each with its wrapping; `decrypt` opens the wrapping.  All or none."""
        loaded = await self._catalog.load(ref)
        if loaded.purpose is not Purpose.ENCRYPT_DECRYPT:
            raise _wrong_purpose(loaded, "GenerateDataKey")
        # One version for all of them, even when a rotation comes in between.
        fixed = KeyRef(ref.vault, ref.key, loaded.usable[ref.version].version.number)
        plaintexts = [os.urandom(length) for _ in range(count)]
        answers = await self.encrypt_many([EncryptItem(fixed, key, associated_data) for key in plaintexts], deadline)
        keys = []
        for plaintext, answer in zip(plaintexts, answers, strict=True):
            if isinstance(answer, VaultdError):
                raise answer
            keys.append(DataKey(plaintext, answer[0]))
        return keys, loaded.versions[fixed.version]

    async def encapsulate(self, ref: KeyRef, deadline: float | None) -> tuple[bytes, bytes, LoadedVersion]:
        """(ciphertext, shared secret of 32 bytes, version)."""
        value, version = await self._one(_ENCAPSULATE_USE, KemItem(ref), deadline)
        return value[32:], value[:32], version

    def decapsulate(self, ref: KeyRef, ciphertext: bytes, deadline: float | None) -> Awaitable[Answer]:
        """The shared secret; ML-KEM rejects implicitly (FIPS 203)."""
        return self._one(_DECAPSULATE_USE, KemItem(ref, ciphertext), deadline)

    def derive(self, ref: KeyRef, peer_public_key: bytes, deadline: float | None) -> Awaitable[Answer]:
        """The raw shared secret with a peer."""
        return self._one(_DERIVE_USE, KemItem(ref, peer_public_key), deadline)

    async def newest(self, ref: KeyRef, ciphertext: bytes) -> str:
        """The version that a ciphertext is on, if that is the one which Encrypt would use now; else an empty string.

        Read off the header: whether the ciphertext opens is not looked at.
        """
        try:
            loaded = await self._catalog.load(ref)
            version = loaded.usable[ref.version]
        except VaultdError:
            return ""
        own = loaded.key.algorithm.self_describing and len(ciphertext) > HEADER_BYTES
        return version.name if own and ciphertext.startswith(version.header) else ""

    async def inspect(self, ref: KeyRef, ciphertext: bytes) -> Inspected:
        """Read a ciphertext's header; no key is used."""
        loaded = await self._catalog.load(ref)
        if not loaded.key.algorithm.self_describing:
            raise _wrong_purpose(loaded, "InspectCiphertext: its ciphertexts carry no header")
        number = int.from_bytes(ciphertext[17:HEADER_BYTES], "big")
        version = loaded.versions.get(number)
        if ciphertext[:17] != FORMAT + loaded.key.uid or len(ciphertext) < HEADER_BYTES or version is None:
            raise InvalidArgument("NOT_OF_THIS_KEY", "the ciphertext was not made by this key", field="ciphertext")
        stale = number != loaded.key.primary
        return Inspected(version.name, loaded.key.algorithm, stale, version.below_minimum)


def _check_digest(algorithm: Algorithm, data: bytes, is_digest: bool) -> None:
    if not is_digest:
        return
    if not algorithm.digest_bytes:
        raise InvalidArgument("DIGEST_NOT_SUPPORTED", f"{algorithm.name} signs messages, not digests", field="digest")
    if len(data) != algorithm.digest_bytes:
        raise InvalidArgument(
            "DIGEST_LENGTH", f"{algorithm.name} takes digests of {algorithm.digest_bytes} bytes", field="digest"
        )


def _check_encoding(algorithm: Algorithm, p1363: bool) -> None:
    if p1363 and not algorithm.ec_coordinate_bytes:
        raise InvalidArgument("ENCODING_NOT_SUPPORTED", "P1363 is for ECDSA keys only", field="signature_encoding")


_ENCRYPT_USE: Final = _Use(Transit._plan_encrypt, _with_prefix)
_DECRYPT_USE: Final = _Use(Transit._plan_decrypt)
_SIGN_USE: Final = _Use(Transit._plan_sign, _encoded_signature)
_VERIFY_USE: Final = _Use(Transit._plan_verify, _valid, verdict=True)
_MAC_USE: Final = _Use(Transit._plan_mac)
_VERIFY_MAC_USE: Final = _Use(Transit._plan_verify_mac, _valid, verdict=True)
_WRAP_USE: Final = _Use(Transit._plan_wrap)
_UNWRAP_USE: Final = _Use(Transit._plan_unwrap)
_ENCAPSULATE_USE: Final = _Use(Transit._plan_encapsulate)
_DECAPSULATE_USE: Final = _Use(Transit._plan_decapsulate)
_DERIVE_USE: Final = _Use(Transit._plan_derive)
