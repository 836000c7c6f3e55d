"""The backend of protection level HSM: keys in tokens, addressed by slot name and CKA_ID."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, final

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from vaultd.backends.base import Lane, Material, Operation, OpKind, Revealed, TokenKey
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.pkcs11.slot import BadInput, Request
from vaultd.backends.pkcs11.uses import PARTIAL_KEY_WRAP, USES
from vaultd.backends.primitives.der import write_public
from vaultd.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable, VaultdError
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.backends.base import Handle
    from vaultd.backends.pkcs11.slot import TokenSlot
    from vaultd.backends.pkcs11.uses import TokenUse
    from vaultd.backends.software import SoftwareBackend

_OBJECT_ID_BYTES: Final = 16
_PARTIAL: Final = "multiples of 8 bytes"
_PROOF: Final = b"proof of a key.."  # of a length that every key wrap takes
_OUR_OWN: Final = ("vaultd root key", "vaultd envelope key")
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "EC_P256_SHA256": ec.SECP256R1(),
    "EC_P384_SHA384": ec.SECP384R1(),
    "EC_P521_SHA512": ec.SECP521R1(),
    "EC_SECP256K1_SHA256": ec.SECP256K1(),
    "ECDH_P256": ec.SECP256R1(),
    "ECDH_P384": ec.SECP384R1(),
}


@final
class TokenHandle:
    """A key in a token.  Nothing of it is here but its address."""

    __slots__ = ("_algorithm", "_cost", "_object_id", "_use", "slot")
    inline: bool = False
    in_turns: bool = False

    def __init__(self, slot: TokenSlot, object_id: bytes, algorithm: str, use: TokenUse) -> None:
        self.slot = slot
        self._object_id = object_id
        self._algorithm = algorithm
        self._use = use
        self._cost = {verb: f"{algorithm}/{verb.name}" for verb in Verb}

    def perform(self, operation: Operation) -> bytes:
        """Refuse: a token is asked through `use`, never on the caller's thread."""
        raise TypeError("a token's key is not used in this process")

    def request(self, operation: Operation) -> tuple[Request, tuple[Verb, tuple[bytes, ...]]]:
        """What to ask of the worker, and what the answer is to be read with.  Raises InvalidArgument."""
        asked = self._use.ask(operation)
        verb, arguments = asked
        return Request(self._cost[verb], verb, (self._object_id, self._algorithm, *arguments)), asked

    def answer(self, operation: Operation, asked: Any, outcome: Any) -> bytes | VaultdError:
        """What the caller gets for what the worker said."""
        if isinstance(outcome, VaultdError):
            return self._use.bad_input(operation) if isinstance(outcome, BadInput) else outcome
        try:
            return self._use.answer(operation, asked, bytes(outcome))
        except VaultdError as error:
            return error


class HsmBackend:
    """Keys in the tokens of one or more slots.  New ones are made in the first slot; each serves those that it holds.

    Public parts are used in software.  `software` is not closed here.
    """

    protection_level: str = "HSM"

    def __init__(self, slots: Sequence[TokenSlot], software: SoftwareBackend) -> None:
        self._slots = {slot.settings.name: slot for slot in slots}
        self._home = slots[0]
        self._software = software

    def unsupported(self, algorithm: str) -> str | None:
        """Say why a new key of the algorithm cannot be made here; raises Unavailable until the token was reached once."""
        return self._lacks(self._home, algorithm)

    @staticmethod
    def _lacks(slot: TokenSlot, algorithm: str) -> str | None:
        if algorithm not in USES:
            return "the algorithm is not one that vaultd does in PKCS#11 tokens; use protection level SOFTWARE or HSM_ENVELOPE"
        if slot.lacking is None:
            raise slot.unavailable()
        reason = slot.lacking.get(algorithm)
        return None if reason in {None, _PARTIAL} else reason

    def reserve(self) -> bytes:
        """Choose a fresh CKA_ID in the first slot."""
        return _reference(self._home, os.urandom(_OBJECT_ID_BYTES))

    async def generate(self, algorithm: str, label: str, reference: bytes = b"") -> Material:
        """Make a key that never leaves the token, and prove that it works before it is returned.

        Making it again with the same reference replaces what is there: a retry leaves one object.
        """
        self._require(algorithm)
        reference = reference or self.reserve()
        slot, object_id = self._locate(reference)
        request = Request(f"{algorithm}/GENERATE", Verb.GENERATE, (object_id, algorithm, label))
        made = await slot.ask(request, None, Lane.KEY_GENERATION)
        public_key = _public_key(algorithm, made["public"]) if "public" in made else b""
        material = Material(None, reference, public_key, _attestation(slot, made))
        await self._prove(algorithm, material)
        return material

    async def import_material(self, algorithm: str, secret: Secret, label: str, reference: bytes = b"") -> Material:
        """Check material in software, then let the token unwrap it under a key that serves once."""
        self._require(algorithm)
        checked = await self._software.import_material(algorithm, secret, label)
        if checked.secret is None:
            raise TypeError("software material without bytes")
        kek = os.urandom(32)
        wrapped = checked.secret.expose("created in the token that takes it in")
        if not algorithm.startswith("ED"):
            wrapped = aes_key_wrap_with_padding(kek, wrapped)
        reference = reference or self.reserve()
        slot, object_id = self._locate(reference)
        request = Request(f"{algorithm}/IMPORT", Verb.IMPORT, (object_id, algorithm, label, kek, wrapped))
        try:
            made = await slot.ask(request, None, Lane.KEY_GENERATION)
        except BadInput:
            raise FailedPrecondition("HSM_REFUSED", "the token does not take this material in") from None
        material = Material(None, reference, checked.public_key, _attestation(slot, made))
        await self._prove(algorithm, material)
        return material

    async def adopt(self, algorithm: str, source: TokenKey) -> Material:
        """Take over a key that the token holds; it is proved to be of the algorithm by using it."""
        slot = self._slots.get(source.slot) if source.slot else self._home
        if slot is None:
            raise FailedPrecondition(
                "HSM_SLOT_UNKNOWN", "no HSM slot of this name is configured", field="token_key.slot"
            )
        reason = self._lacks(slot, algorithm)
        if reason is not None:
            raise FailedPrecondition("ALGORITHM_UNAVAILABLE", reason, field="key.algorithm")
        request = Request("FIND", Verb.FIND, (source.object_id, algorithm, source.label))
        found = await slot.ask(request, None, Lane.KEY_GENERATION)
        if found is None:
            raise NotFound(
                "TOKEN_KEY_NOT_FOUND", "the token shows no such key; `pkcs11-tool -O --login` lists what it has"
            )
        attestation = _attestation(slot, found)
        if str(attestation["object_label"]).startswith(_OUR_OWN):
            raise FailedPrecondition("HSM_REFUSED", "the token's key is one that vaultd itself lives by")
        if "bits" in found and found["bits"] != _symmetric_bits(algorithm):
            raise FailedPrecondition("HSM_REFUSED", "the token's key is of another length than the algorithm's")
        public_key = _public_key(algorithm, found["public"]) if "public" in found else b""
        if public_key:
            self._software.load_public(algorithm, public_key)  # raises unless size and curve are the algorithm's
        material = Material(None, _reference(slot, bytes(found["object_id"])), public_key, attestation)
        await self._prove(algorithm, material)
        return material

    async def reveal(self, algorithm: str, material: Material) -> Revealed:
        """Refuse: what is in a token was made so that it cannot leave."""
        del algorithm, material
        raise FailedPrecondition(
            "HSM_KEY_NOT_EXPORTABLE",
            "the key is in an HSM token, which does not give it away, whatever `exportable` says; keep a copy of the token by "
            "the means of its maker, or import the key into another token from where it was made",
        )

    async def load(self, algorithm: str, material: Material) -> TokenHandle:
        """Make a handle.  The token is not asked: its first use finds the object."""
        use = USES.get(algorithm)
        if use is None:
            raise InvalidArgument("UNSUPPORTED_ALGORITHM", "no such algorithm is done in PKCS#11 tokens")
        slot, object_id = self._locate(material.reference)
        if slot.lacking is not None and slot.lacking.get(algorithm) == _PARTIAL:
            use = PARTIAL_KEY_WRAP
        return TokenHandle(slot, object_id, algorithm, use)

    def load_public(self, algorithm: str, public_key: bytes) -> Handle:
        """Make a handle for the public part, in software."""
        return self._software.load_public(algorithm, public_key)

    async def use(
        self, handle: Handle, operation: Operation, deadline: float | None, lane: Lane = Lane.ONLINE
    ) -> bytes:
        """Do one operation in the token, or in software with a public part."""
        if not isinstance(handle, TokenHandle):
            return await self._software.use(handle, operation, deadline, lane)
        request, asked = handle.request(operation)
        uses = Lane.BATCH if lane is Lane.KEY_GENERATION else lane
        (outcome,) = await handle.slot.submit((request,), deadline, uses)
        answer = handle.answer(operation, asked, outcome)
        if isinstance(answer, VaultdError):
            raise answer
        return answer

    async def use_many(
        self, work: Sequence[tuple[Handle, Operation]], deadline: float | None
    ) -> list[bytes | VaultdError]:
        """Do many operations, a submission a slot; one outcome each, in order.  Slots fail by themselves."""
        outcomes: list[bytes | VaultdError] = [b""] * len(work)
        in_software: list[int] = []
        asked_of: dict[TokenSlot, list[tuple[int, TokenHandle, Operation, Any, Request]]] = {}
        for index, (handle, operation) in enumerate(work):
            if not isinstance(handle, TokenHandle):
                in_software.append(index)
                continue
            try:
                request, asked = handle.request(operation)
            except VaultdError as error:
                outcomes[index] = error
                continue
            asked_of.setdefault(handle.slot, []).append((index, handle, operation, asked, request))
        pending = []
        for slot, items in asked_of.items():
            try:
                pending.append((items, slot.submit([request for *_, request in items], deadline, Lane.BATCH)))
            except VaultdError as error:
                if len(items) == len(work):
                    raise
                # A token that does not answer is no reason to refuse what is for others.
                for index, *_ in items:
                    outcomes[index] = error
        if in_software:
            done = await self._software.use_many([work[index] for index in in_software], deadline)
            for index, outcome in zip(in_software, done, strict=True):
                outcomes[index] = outcome
        for items, future in pending:
            for (index, handle, operation, asked, _), result in zip(items, await future, strict=True):
                outcomes[index] = handle.answer(operation, asked, result)
        return outcomes

    async def destroy(self, material: Material) -> None:
        """Destroy the objects in the token.  Idempotent: objects that are gone are no error."""
        if material.reference:
            slot, object_id = self._locate(material.reference)
            await slot.ask(Request("DESTROY", Verb.DESTROY, (object_id,)), None, Lane.KEY_GENERATION)

    async def random_bytes(self, length: int) -> bytes:
        """Random bytes of the first slot's token."""
        if length == 0:
            return b""
        return bytes(await self._home.ask(Request("RANDOM", Verb.RANDOM, (length,)), None, Lane.ONLINE))

    async def close(self) -> None:
        """End the workers; what is under way fails with Unavailable.  Idempotent."""
        for slot in self._slots.values():
            await slot.close()

    def _require(self, algorithm: str) -> None:
        unknown = self._software.unsupported(algorithm)
        if unknown is not None:
            raise InvalidArgument("UNSUPPORTED_ALGORITHM", unknown)
        reason = self.unsupported(algorithm)
        if reason is not None:
            raise FailedPrecondition("ALGORITHM_UNAVAILABLE", reason, field="key.algorithm")

    def _locate(self, reference: bytes) -> tuple[TokenSlot, bytes]:
        name, _, object_id = reference.decode("ascii").rpartition("/")
        slot = self._slots.get(name)
        if slot is None:
            raise Unavailable(
                "HSM_SLOT_UNKNOWN", "the key is in an HSM slot that this server's configuration does not name"
            )
        return slot, bytes.fromhex(object_id)

    async def _prove(self, algorithm: str, material: Material) -> None:
        """Use a new key once: one that does not do what it is for, or what its public part says, is never handed out."""
        handle = await self.load(algorithm, material)
        try:
            sound = await (
                self._agrees_with_public(algorithm, handle, material.public_key)
                if material.public_key
                else self._opens_what_it_makes(algorithm, handle)
            )
        except InvalidArgument:  # of data that is right: what it made does not open, or does not verify
            sound = False
        if not sound:
            raise FailedPrecondition(
                "HSM_REFUSED", "the token's key does not do what the algorithm or its public key says"
            )

    async def _opens_what_it_makes(self, algorithm: str, handle: TokenHandle) -> bool:
        if algorithm.endswith("_GCM"):
            make, undo = OpKind.ENCRYPT, OpKind.DECRYPT
        elif algorithm == "AES_256_KWP":
            make, undo = OpKind.WRAP, OpKind.UNWRAP
        else:
            return bool(await self.use(handle, Operation(OpKind.MAC, _PROOF), None))
        return (
            await self.use(handle, Operation(undo, await self.use(handle, Operation(make, _PROOF), None)), None)
            == _PROOF
        )

    async def _agrees_with_public(self, algorithm: str, handle: TokenHandle, public_key: bytes) -> bool:
        if algorithm.startswith("ECDH"):
            passing = ec.generate_private_key(_CURVES[algorithm])
            mine = await self.use(handle, Operation(OpKind.DERIVE, write_public(passing.public_key())), None)
            from_public = await self._software.load(
                algorithm, (await self._software.import_material(algorithm, Secret(_pkcs8(passing)), ""))
            )
            return mine == await self._software.use(from_public, Operation(OpKind.DERIVE, public_key), None)
        public = self.load_public(algorithm, public_key)
        if "OAEP" in algorithm:
            sealed = await self._software.use(public, Operation(OpKind.ENCRYPT, _PROOF), None)
            return await self.use(handle, Operation(OpKind.DECRYPT, sealed), None) == _PROOF
        signature = await self.use(handle, Operation(OpKind.SIGN_MESSAGE, _PROOF), None)
        return await self._software.use(public, Operation(OpKind.VERIFY_MESSAGE, _PROOF, signature), None) == b""


def _reference(slot: TokenSlot, object_id: bytes) -> bytes:
    return f"{slot.settings.name}/{object_id.hex()}".encode("ascii")


def _attestation(slot: TokenSlot, told: dict[str, Any]) -> dict[str, str | bool]:
    return {"slot": slot.settings.name, **told["attestation"]}


def _symmetric_bits(algorithm: str) -> int:
    if algorithm.startswith("HMAC_SHA"):
        return int(algorithm.removeprefix("HMAC_SHA"))
    return 128 if algorithm.startswith("AES_128") else 256


def _pkcs8(private: Any) -> bytes:
    encoded: bytes = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encoded


def _public_key(algorithm: str, parts: dict[str, bytes]) -> bytes:
    """SubjectPublicKeyInfo of what the token says the public key is.  Raises FailedPrecondition."""
    try:
        if "modulus" in parts:
            numbers = rsa.RSAPublicNumbers(
                int.from_bytes(parts["exponent"], "big"), int.from_bytes(parts["modulus"], "big")
            )
            return write_public(numbers.public_key())
        point = _bare_point(parts["point"])
        if algorithm == "ED25519":
            return write_public(ed25519.Ed25519PublicKey.from_public_bytes(point))
        if algorithm == "ED448":
            return write_public(ed448.Ed448PublicKey.from_public_bytes(point))
        return write_public(ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[algorithm], point))
    except (ValueError, KeyError):
        raise FailedPrecondition("HSM_REFUSED", "the token's public key is not one of this algorithm") from None


def _bare_point(attribute: bytes) -> bytes:
    """CKA_EC_POINT is an OCTET STRING around the point; some modules leave that out."""
    if len(attribute) > 2 and attribute[0] == 4:
        if attribute[1] < 0x80 and len(attribute) == 2 + attribute[1]:
            return attribute[2:]
        if attribute[1] == 0x81 and len(attribute) == 3 + attribute[2]:
            return attribute[3:]
    return attribute
