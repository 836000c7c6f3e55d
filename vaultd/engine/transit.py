"""Transit cryptography: choose the version, check its state, use it, say which one it was.

Every use is three parts: a plan (which handle does what), the backend's work, and a finish (what the caller gets).  Single
calls and batches share plans and finishes; they differ only in how the work is handed to the backend.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from vaultd.backends.base import Operation, OpKind
from vaultd.engine.algorithms import Algorithm, Purpose
from vaultd.engine.catalog import FORMAT, HEADER_BYTES, LoadedKey, LoadedVersion
from vaultd.errors import DecryptionFailed, FailedPrecondition, InvalidArgument, InvalidSignature, VaultdError
from vaultd.names import KeyRef

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.backends.base import Handle
    from vaultd.engine.catalog import KeyCatalog
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Ledger

FAIRNESS_ITEMS: Final = 250
"""Inline items of a batch between two turns of the event loop."""


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


class Answer(NamedTuple):
    """What a use gave (bytes, or the verdict of a verification), and the version that gave it."""

    value: Any
    version: LoadedVersion


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


class Plan(NamedTuple):
    """One use, ready for the backend."""

    version: LoadedVersion
    private: bool
    operation: Operation
    finish: Callable[[Plan, bytes | VaultdError], Answer]


def _wrong_purpose(loaded: LoadedKey, call: str) -> FailedPrecondition:
    purpose = loaded.purpose.value
    return FailedPrecondition("WRONG_PURPOSE", f"the key's purpose is {purpose}, which does not permit {call}")


def _value(plan: Plan, outcome: bytes | VaultdError) -> Answer:
    if isinstance(outcome, VaultdError):
        raise outcome
    return Answer(outcome, plan.version)


def _with_header(plan: Plan, outcome: bytes | VaultdError) -> Answer:
    if isinstance(outcome, VaultdError):
        raise outcome
    return Answer(plan.version.header + outcome, plan.version)


def _verdict(plan: Plan, outcome: bytes | VaultdError) -> Answer:
    if isinstance(outcome, InvalidSignature):
        return Answer(False, plan.version)
    if isinstance(outcome, VaultdError):
        raise outcome
    return Answer(True, plan.version)


def _p1363(plan: Plan, outcome: bytes | VaultdError) -> Answer:
    if isinstance(outcome, VaultdError):
        raise outcome
    size = plan.version.version.algorithm.ec_coordinate_bytes
    r, s = decode_dss_signature(outcome)
    return Answer(r.to_bytes(size, "big") + s.to_bytes(size, "big"), plan.version)


class Transit:
    """Uses keys for callers.  Raises NotFound, FailedPrecondition (state, purpose, expiry), InvalidArgument, Unavailable."""

    def __init__(self, catalog: KeyCatalog, ledger: Ledger, clock: Clock) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._clock = clock

    # -- one item, many items -------------------------------------------------------------------------------------------

    async def _one(
        self, plan_of: Callable[[LoadedKey, Any], Plan], item: Any, ref: KeyRef, deadline: float | None
    ) -> Answer:
        """Plan, do and finish one item.  Inline work never leaves the event loop."""
        plan = await self._plan(plan_of, item, ref)
        version = plan.version
        handle: Handle | None
        if plan.private:
            handle = version.handle
            if handle is None:
                handle = await version.load(self._ledger)
            backend = version.backend
        else:
            handle, backend = version.load_public(), version.software
        self._ledger.sealer  # noqa: B018  # sealed meanwhile: no use of a key may begin
        version.usage.note(len(plan.operation.data), self._clock.now_us())
        try:
            outcome: bytes | VaultdError = (
                handle.perform(plan.operation) if handle.inline else await backend.use(handle, plan.operation, deadline)
            )
        except VaultdError as error:
            outcome = error
        return plan.finish(plan, outcome)

    async def _plan(self, plan_of: Callable[[LoadedKey, Any], Plan], item: Any, ref: KeyRef) -> Plan:
        loaded = self._catalog.cached(ref)
        if loaded is None or loaded.key.delete_us is not None:
            loaded = await self._catalog.load(ref)
        plan = plan_of(loaded, item)
        budget = plan.version.budget
        if budget is not None and plan.operation.kind is OpKind.ENCRYPT:
            if budget.left <= 0:
                await budget.ready(1)
            budget.spend()
        return plan

    async def _many(
        self, plan_of: Callable[[LoadedKey, Any], Plan], items: Sequence[Any], deadline: float | None
    ) -> list[Any]:
        """Like _one for each item; an item's error takes its place in the answer.  Queued work goes out in one go."""
        answers: list[Any] = [None] * len(items)
        queued: dict[Any, list[tuple[int, Plan, Handle]]] = {}
        now_us = self._clock.now_us()
        for at, item in enumerate(items):
            if at % FAIRNESS_ITEMS == FAIRNESS_ITEMS - 1:
                await asyncio.sleep(0)
            try:
                plan = await self._plan(plan_of, item, item[0])
                version = plan.version
                if plan.private:
                    handle = version.handle or await version.load(self._ledger)
                    backend = version.backend
                else:
                    handle, backend = version.load_public(), version.software
                self._ledger.sealer  # noqa: B018  # sealed meanwhile: no use of a key may begin
                version.usage.note(len(plan.operation.data), now_us)
                if handle.inline:
                    answers[at] = self._inline(plan, handle)
                else:
                    queued.setdefault(backend, []).append((at, plan, handle))
            except VaultdError as error:
                answers[at] = error
        for backend, work in queued.items():
            outcomes = await backend.use_many([(handle, plan.operation) for _, plan, handle in work], deadline)
            for (at, plan, _), outcome in zip(work, outcomes, strict=True):
                try:
                    answers[at] = plan.finish(plan, outcome)
                except VaultdError as error:
                    answers[at] = error
        return answers

    @staticmethod
    def _inline(plan: Plan, handle: Handle) -> Answer:
        try:
            outcome: bytes | VaultdError = handle.perform(plan.operation)
        except VaultdError as error:
            outcome = error
        return plan.finish(plan, outcome)

    def _refuse_expired(self, loaded: LoadedKey) -> None:
        if loaded.expire_us is not None and self._clock.now_us() >= loaded.expire_us:
            raise FailedPrecondition(
                "KEY_EXPIRED",
                "the key's expire_time has passed: it protects nothing new; create another key, or update it",
            )

    # -- plans ----------------------------------------------------------------------------------------------------------

    def _plan_encrypt(self, loaded: LoadedKey, item: EncryptItem) -> Plan:
        if loaded.expire_us is not None:
            self._refuse_expired(loaded)
        algorithm = loaded.key.algorithm
        version = loaded.select(item.ref.version)
        if algorithm.self_describing:
            context = version.header + item.associated_data
            return Plan(version, True, Operation(OpKind.ENCRYPT, item.plaintext, context), _with_header)
        if loaded.purpose not in {Purpose.ASYMMETRIC_DECRYPT, Purpose.HPKE}:
            raise _wrong_purpose(loaded, "Encrypt")
        if len(item.plaintext) > algorithm.max_input_bytes:
            raise InvalidArgument(
                "PLAINTEXT_TOO_LONG",
                f"{algorithm.name} encrypts at most {algorithm.max_input_bytes} bytes; encrypt a data key instead",
                field="plaintext",
            )
        return Plan(version, False, Operation(OpKind.ENCRYPT, item.plaintext, item.associated_data), _value)

    def _plan_decrypt(self, loaded: LoadedKey, item: DecryptItem) -> Plan:
        ref, ciphertext, associated_data = item
        if loaded.key.algorithm.self_describing:
            header = ciphertext[:HEADER_BYTES]
            number = int.from_bytes(header[17:], "big")
            if (
                len(header) < HEADER_BYTES
                or header[:1] != FORMAT
                or header[1:17] != loaded.key.uid
                or number not in loaded.versions
                or (ref.version and ref.version != number)
            ):
                raise DecryptionFailed
            version = loaded.select(number)
            operation = Operation(OpKind.DECRYPT, ciphertext[HEADER_BYTES:], version.header + associated_data)
            return Plan(version, True, operation, _value)
        if loaded.purpose not in {Purpose.ASYMMETRIC_DECRYPT, Purpose.HPKE}:
            raise _wrong_purpose(loaded, "Decrypt")
        version = loaded.select(ref.version)
        return Plan(version, True, Operation(OpKind.DECRYPT, ciphertext, associated_data), _value)

    def _plan_sign(self, loaded: LoadedKey, item: SignItem) -> Plan:
        if loaded.purpose is not Purpose.SIGN:
            raise _wrong_purpose(loaded, "Sign")
        self._refuse_expired(loaded)
        algorithm = loaded.key.algorithm
        _check_digest(algorithm, item.data, item.is_digest)
        finish = _p1363 if _wants_p1363(algorithm, item.p1363) else _value
        kind = OpKind.SIGN_DIGEST if item.is_digest else OpKind.SIGN_MESSAGE
        return Plan(loaded.select(item.ref.version), True, Operation(kind, item.data), finish)

    def _plan_verify(self, loaded: LoadedKey, item: VerifyItem) -> Plan:
        if loaded.purpose is not Purpose.SIGN:
            raise _wrong_purpose(loaded, "Verify")
        algorithm = loaded.key.algorithm
        _check_digest(algorithm, item.data, item.is_digest)
        signature = item.signature
        if _wants_p1363(algorithm, item.p1363):
            size = algorithm.ec_coordinate_bytes
            r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            # A length that is not exactly two coordinates is no signature; b"" never verifies.
            signature = encode_dss_signature(r, s) if len(signature) == 2 * size else b""
        kind = OpKind.VERIFY_DIGEST if item.is_digest else OpKind.VERIFY_MESSAGE
        return Plan(loaded.select(item.ref.version), False, Operation(kind, item.data, signature), _verdict)

    def _plan_mac(self, loaded: LoadedKey, item: MacItem) -> Plan:
        if loaded.purpose is not Purpose.MAC:
            raise _wrong_purpose(loaded, "GenerateMac")
        self._refuse_expired(loaded)
        return Plan(loaded.select(item.ref.version), True, Operation(OpKind.MAC, item.data), _value)

    def _plan_verify_mac(self, loaded: LoadedKey, item: VerifyMacItem) -> Plan:
        if loaded.purpose is not Purpose.MAC:
            raise _wrong_purpose(loaded, "VerifyMac")
        return Plan(loaded.select(item.ref.version), True, Operation(OpKind.VERIFY_MAC, item.data, item.mac), _verdict)

    def _plan_wrap(self, loaded: LoadedKey, item: WrapItem) -> Plan:
        if loaded.purpose is not Purpose.WRAP:
            raise _wrong_purpose(loaded, "WrapKey")
        self._refuse_expired(loaded)
        return Plan(loaded.select(item.ref.version), True, Operation(OpKind.WRAP, item.data), _value)

    def _plan_unwrap(self, loaded: LoadedKey, item: WrapItem) -> Plan:
        if loaded.purpose is not Purpose.WRAP:
            raise _wrong_purpose(loaded, "UnwrapKey")
        return Plan(loaded.select(item.ref.version), True, Operation(OpKind.UNWRAP, item.data), _value)

    def _plan_encapsulate(self, loaded: LoadedKey, item: KemItem) -> Plan:
        if loaded.purpose is not Purpose.KEM:
            raise _wrong_purpose(loaded, "Encapsulate")
        self._refuse_expired(loaded)
        return Plan(loaded.select(item.ref.version), False, Operation(OpKind.ENCAPSULATE, b""), _value)

    def _plan_decapsulate(self, loaded: LoadedKey, item: KemItem) -> Plan:
        if loaded.purpose is not Purpose.KEM:
            raise _wrong_purpose(loaded, "Decapsulate")
        return Plan(loaded.select(item.ref.version), True, Operation(OpKind.DECAPSULATE, item.data), _value)

    def _plan_derive(self, loaded: LoadedKey, item: KemItem) -> Plan:
        if loaded.purpose is not Purpose.KEY_AGREEMENT:
            raise _wrong_purpose(loaded, "DeriveSharedSecret")
        self._refuse_expired(loaded)
        return Plan(loaded.select(item.ref.version), True, Operation(OpKind.DERIVE, item.data), _value)

    # -- what services call ---------------------------------------------------------------------------------------------

    async def encrypt(self, item: EncryptItem, deadline: float | None) -> Answer:
        """Encrypt under the named or primary version."""
        return await self._one(self._plan_encrypt, item, item.ref, deadline)

    async def encrypt_many(self, items: Sequence[EncryptItem], deadline: float | None) -> list[Any]:
        """One Answer or VaultdError per item, in order; so for every `_many` below."""
        return await self._many(self._plan_encrypt, items, deadline)

    async def decrypt(self, item: DecryptItem, deadline: float | None) -> Answer:
        """Decrypt with the version that the ciphertext names."""
        return await self._one(self._plan_decrypt, item, item.ref, deadline)

    async def decrypt_many(self, items: Sequence[DecryptItem], deadline: float | None) -> list[Any]:
        return await self._many(self._plan_decrypt, items, deadline)

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
                EncryptItem(items[at].destination, answers[at].value, items[at].destination_associated_data)
                for at in opened
            ],
            deadline,
        )
        for at, outcome in zip(opened, sealed, strict=True):
            if isinstance(outcome, VaultdError):
                answers[at] = outcome
            else:
                answers[at] = ReEncrypted(outcome.value, outcome.version, answers[at].version)
        return answers

    async def sign(self, item: SignItem, deadline: float | None) -> Answer:
        """Sign a message or a digest."""
        return await self._one(self._plan_sign, item, item.ref, deadline)

    async def sign_many(self, items: Sequence[SignItem], deadline: float | None) -> list[Any]:
        return await self._many(self._plan_sign, items, deadline)

    async def verify(self, item: VerifyItem, deadline: float | None) -> Answer:
        """Verify; the answer's value is the verdict."""
        return await self._one(self._plan_verify, item, item.ref, deadline)

    async def verify_many(self, items: Sequence[VerifyItem], deadline: float | None) -> list[Any]:
        return await self._many(self._plan_verify, items, deadline)

    async def generate_mac(self, item: MacItem, deadline: float | None) -> Answer:
        """Authenticate data."""
        return await self._one(self._plan_mac, item, item.ref, deadline)

    async def generate_mac_many(self, items: Sequence[MacItem], deadline: float | None) -> list[Any]:
        return await self._many(self._plan_mac, items, deadline)

    async def verify_mac(self, item: VerifyMacItem, deadline: float | None) -> Answer:
        """Check a code; the answer's value is the verdict."""
        return await self._one(self._plan_verify_mac, item, item.ref, deadline)

    async def verify_mac_many(self, items: Sequence[VerifyMacItem], deadline: float | None) -> list[Any]:
        return await self._many(self._plan_verify_mac, items, deadline)

    async def wrap(self, item: WrapItem, deadline: float | None) -> Answer:
        """Wrap key material."""
        return await self._one(self._plan_wrap, item, item.ref, deadline)

    async def wrap_many(self, items: Sequence[WrapItem], deadline: float | None) -> list[Any]:
        return await self._many(self._plan_wrap, items, deadline)

    async def unwrap(self, item: WrapItem, deadline: float | None) -> Answer:
        """Unwrap key material."""
        return await self._one(self._plan_unwrap, item, item.ref, deadline)

    async def unwrap_many(self, items: Sequence[WrapItem], deadline: float | None) -> list[Any]:
        return await self._many(self._plan_unwrap, items, deadline)

    async def generate_data_keys(
        self, ref: KeyRef, length: int, count: int, associated_data: bytes, deadline: float | None
    ) -> tuple[list[DataKey], LoadedVersion]:
        """Fresh keys, each with its wrapping; `decrypt` opens the wrapping.  All or none."""
        loaded = await self._catalog.load(ref)
        if loaded.purpose is not Purpose.ENCRYPT_DECRYPT:
            raise _wrong_purpose(loaded, "GenerateDataKey")
        # One version for all of them, even when a rotation comes in between.
        fixed = KeyRef(ref.vault, ref.key, loaded.select(ref.version).version.number)
        plaintexts = [os.urandom(length) for _ in range(count)]
        answers = await self.encrypt_many([EncryptItem(fixed, key, associated_data) for key in plaintexts], deadline)
        for answer in answers:
            if isinstance(answer, VaultdError):
                raise answer
        keys = [DataKey(plaintext, answer.value) for plaintext, answer in zip(plaintexts, answers, strict=True)]
        return keys, answers[0].version

    async def encapsulate(self, ref: KeyRef, deadline: float | None) -> tuple[bytes, bytes, LoadedVersion]:
        """(ciphertext, shared secret of 32 bytes, version)."""
        answer = await self._one(self._plan_encapsulate, KemItem(ref), ref, deadline)
        return answer.value[32:], answer.value[:32], answer.version

    async def decapsulate(self, ref: KeyRef, ciphertext: bytes, deadline: float | None) -> Answer:
        """The shared secret; ML-KEM rejects implicitly (FIPS 203)."""
        return await self._one(self._plan_decapsulate, KemItem(ref, ciphertext), ref, deadline)

    async def derive(self, ref: KeyRef, peer_public_key: bytes, deadline: float | None) -> Answer:
        """The raw shared secret with a peer."""
        return await self._one(self._plan_derive, KemItem(ref, peer_public_key), ref, deadline)

    async def inspect(self, ref: KeyRef, ciphertext: bytes) -> Inspected:
        """Read a ciphertext's header; no key is used."""
        loaded = await self._catalog.load(ref)
        if not loaded.key.algorithm.self_describing:
            raise _wrong_purpose(loaded, "InspectCiphertext: its ciphertexts carry no header")
        number = int.from_bytes(ciphertext[17:HEADER_BYTES], "big")
        version = loaded.versions.get(number)
        if ciphertext[:17] != FORMAT + loaded.key.uid or len(ciphertext) < HEADER_BYTES or version is None:
            raise InvalidArgument("NOT_OF_THIS_KEY", "the ciphertext was not made by this key", field="ciphertext")
        return Inspected(version.name, loaded.key.algorithm, number != loaded.key.primary)


def _check_digest(algorithm: Algorithm, data: bytes, is_digest: bool) -> None:
    if not is_digest:
        return
    if not algorithm.digest_bytes:
        raise InvalidArgument("DIGEST_NOT_SUPPORTED", f"{algorithm.name} signs messages, not digests", field="digest")
    if len(data) != algorithm.digest_bytes:
        raise InvalidArgument(
            "DIGEST_LENGTH", f"{algorithm.name} takes digests of {algorithm.digest_bytes} bytes", field="digest"
        )


def _wants_p1363(algorithm: Algorithm, asked: bool) -> bool:
    if asked and not algorithm.ec_coordinate_bytes:
        raise InvalidArgument("ENCODING_NOT_SUPPORTED", "P1363 is for ECDSA keys only", field="signature_encoding")
    return asked
