"""CryptoService: message to engine call and back."""

from __future__ import annotations

from itertools import repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final

import google_crc32c

from vaultd.engine.transit import (
    LONG_PER_LOOK,
    DecryptItem,
    EncryptItem,
    MacItem,
    ReEncryptItem,
    SignItem,
    VerifyItem,
    VerifyMacItem,
    WrapItem,
)
from vaultd.engine.turns import ITEMS_PER_LOOK, BulkLane
from vaultd.errors import FailedPrecondition, InvalidArgument, VaultdError
from vaultd.names import KeyRef, parse_vault_name
from vaultd.names import parse_key_or_version_name as parse
from vaultd.services.convert import ALGORITHM_NUMBERS, LEVELS
from vaultd.services.crypto_stream import CryptoSession, ReEncryptSession
from vaultd.services.encoding import (
    VALUE,
    checksum_field,
    head,
    source_field,
    value_answer,
    verdict_answer,
    version_field,
)
from vaultd_client.v1 import crypto_pb2 as pb
from vaultd_client.v1 import resources_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from vaultd.backends.base import Backend
    from vaultd.engine.algorithms import ProtectionLevel
    from vaultd.engine.transit import Answer, ReEncrypted, Transit
    from vaultd.engine.vaults import Vaults
    from vaultd.services.context import Context
    from vaultd.services.encoding import Encoded

    RefOf = Callable[[str], KeyRef]
    Encode = Callable[[Sequence[Any], Sequence[Any]], "Outcomes"]
    EncodeOne = Callable[[Any, Any], "Encoded"]
    ItemsOf = Callable[[Sequence[Any], RefOf], list[Any]]
    Use = Callable[[Sequence[Any], float | None], Awaitable[list[Any]]]

DEFAULT_DATA_KEY_BYTES: Final = 32
_NOTHING: Final = (b"", "")
Outcomes = list["Encoded | VaultdError"]
"""Of each item of a batch: its encoded answer, or why it failed."""


class KeyRefs(dict[str, KeyRef]):
    """Names of one batch, each parsed once: most of its items name the same key.  Raises what parsing raises."""

    def __missing__(self, name: str) -> KeyRef:
        ref = self[name] = parse(name)
        return ref


_VALUE_OF: Final = itemgetter(0)
_NAME_OF: Final = attrgetter("name")
_PLAINTEXT_OF: Final = attrgetter("plaintext")
_AAD_OF: Final = attrgetter("associated_data")
_MESSAGE_OF: Final = attrgetter("message")
_ENCODING_OF: Final = attrgetter("signature_encoding")
_SIGN_INPUT: Final = pb.SignRequest.WhichOneof  # of the type, as `has_field` below
_VERIFY_INPUT: Final = pb.VerifyRequest.WhichOneof
_P1363: Final = resources_pb2.SIGNATURE_ENCODING_P1363


def _one_by_one(item_of: Callable[[Any, RefOf], Any]) -> ItemsOf:
    def items_of(requests: Sequence[Any], ref_of: RefOf) -> list[Any]:
        return [item_of(request, ref_of) for request in requests]

    return items_of


def _encrypt_item(request: pb.EncryptRequest, ref_of: RefOf) -> EncryptItem:
    return ref_of(request.name), request.plaintext, request.associated_data  # type: ignore[return-value]  # a third of its price


def _encrypt_items(requests: Sequence[pb.EncryptRequest], ref_of: RefOf) -> list[EncryptItem]:
    refs = map(ref_of, map(_NAME_OF, requests))
    return list(zip(refs, map(_PLAINTEXT_OF, requests), map(_AAD_OF, requests), strict=True))  # type: ignore[arg-type]  # as above


def _decrypt_item(request: pb.DecryptRequest, ref_of: RefOf) -> DecryptItem:
    return ref_of(request.name), request.ciphertext, request.associated_data  # type: ignore[return-value]  # as above


def _reencrypt_item(request: pb.ReEncryptRequest, ref_of: RefOf) -> ReEncryptItem:
    source, destination = ref_of(request.source_name), ref_of(request.destination_name)
    if source.vault != destination.vault:
        raise InvalidArgument(
            "CROSS_VAULT", "source_name and destination_name must be in one vault", field="destination_name"
        )
    return ReEncryptItem(
        source, request.ciphertext, request.source_associated_data, destination, request.destination_associated_data
    )


def _input_missing() -> InvalidArgument:
    return InvalidArgument("INPUT_MISSING", "give message or digest", field="message")


def _is_p1363(encoding: int) -> bool:
    return encoding == _P1363


def _sign_item(request: pb.SignRequest, ref_of: RefOf) -> SignItem:
    kind = _SIGN_INPUT(request, "input")
    if kind is None:
        raise _input_missing()
    data, is_digest = (request.message, False) if kind == "message" else (request.digest, True)
    return ref_of(request.name), data, is_digest, request.signature_encoding == _P1363  # type: ignore[return-value]  # as above


def _sign_items(requests: Sequence[pb.SignRequest], ref_of: RefOf) -> list[SignItem]:
    if {"message"}.issuperset(map(_SIGN_INPUT, requests, repeat("input"))):
        refs, encodings = map(ref_of, map(_NAME_OF, requests)), map(_ENCODING_OF, requests)
        return list(zip(refs, map(_MESSAGE_OF, requests), repeat(False), map(_is_p1363, encodings), strict=False))  # type: ignore[arg-type]  # as above
    return [_sign_item(request, ref_of) for request in requests]


def _verify_item(request: pb.VerifyRequest, ref_of: RefOf) -> VerifyItem:
    kind = _VERIFY_INPUT(request, "input")
    if kind is None:
        raise _input_missing()
    data, is_digest = (request.message, False) if kind == "message" else (request.digest, True)
    p1363 = request.signature_encoding == _P1363
    return ref_of(request.name), data, request.signature, is_digest, p1363  # type: ignore[return-value]  # as above


def _mac_item(request: pb.GenerateMacRequest, ref_of: RefOf) -> MacItem:
    return ref_of(request.name), request.data  # type: ignore[return-value]  # as above


def _verify_mac_item(request: pb.VerifyMacRequest, ref_of: RefOf) -> VerifyMacItem:
    return ref_of(request.name), request.data, request.mac  # type: ignore[return-value]  # as above


def _wrap_item(request: pb.WrapKeyRequest, ref_of: RefOf) -> WrapItem:
    return WrapItem(ref_of(request.name), request.key_material)


def _unwrap_item(request: pb.UnwrapKeyRequest, ref_of: RefOf) -> WrapItem:
    return WrapItem(ref_of(request.name), request.wrapped_key)


_DECRYPT_ITEMS: Final = _one_by_one(_decrypt_item)
_REENCRYPT_ITEMS: Final = _one_by_one(_reencrypt_item)
_VERIFY_ITEMS: Final = _one_by_one(_verify_item)
_MAC_ITEMS: Final = _one_by_one(_mac_item)
_VERIFY_MAC_ITEMS: Final = _one_by_one(_verify_mac_item)
_WRAP_ITEMS: Final = _one_by_one(_wrap_item)
_UNWRAP_ITEMS: Final = _one_by_one(_unwrap_item)


def _plainly(answers: Sequence[Any]) -> Outcomes | None:
    """Encodes values that one version gave, none of them empty; None when they are others."""
    version = answers[0][1]
    name, sizes = version.name, set(map(len, map(_VALUE_OF, answers)))
    if 0 in sizes or not all(used is version for _, used in answers):
        return None
    closing, openings = version_field(name), {size: head(VALUE, size) for size in sizes}
    return [(openings[len(value)] + value + closing, name) for value, _ in answers]


def _values(request_type: Any, checksum: str) -> tuple[EncodeOne, Encode]:
    """Encode a value, and values, of requests of a type; with their CRC32C, where the request has that of its own value."""
    has_field = request_type.HasField  # of the type: looked up on a message it costs three times as much

    def encode_one(request: Any, answer: Answer) -> Encoded:
        value, version = answer
        name = version.name
        body = value_answer(value, name)
        if has_field(request, checksum):
            body += checksum_field(google_crc32c.value(value))
        return body, name

    def encode(requests: Sequence[Any], answers: Sequence[Answer | VaultdError]) -> Outcomes:
        if {tuple}.issuperset(map(type, answers)) and True not in map(has_field, requests, repeat(checksum)):
            encoded = _plainly(answers)
            if encoded is not None:
                return encoded
        encoded = []
        size, version, name, opening, closing = 0, None, "", b"", b""
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, VaultdError):
                encoded.append(answer)
                continue
            value, used = answer
            if used is not version:  # runs of one version, and of one size, are the rule
                version, name = used, used.name
                closing = version_field(name)
            if len(value) != size:
                size = len(value)
                opening = head(VALUE, size) if size else b""
            if has_field(request, checksum):
                encoded.append((opening + value + closing + checksum_field(google_crc32c.value(value)), name))
            else:
                encoded.append((opening + value + closing, name))
        return encoded

    return encode_one, encode


def _one_after_another(encode_one: EncodeOne) -> Encode:
    def encode(requests: Sequence[Any], answers: Sequence[Any]) -> Outcomes:
        return [
            answer if isinstance(answer, VaultdError) else encode_one(request, answer)
            for request, answer in zip(requests, answers, strict=True)
        ]

    return encode


def _verdict(request: Any, answer: Answer) -> Encoded:
    del request
    valid, version = answer
    return verdict_answer(valid, version.name), version.name


def _reencrypted(request: pb.ReEncryptRequest, answer: ReEncrypted) -> Encoded:
    name = answer.version.name
    body = value_answer(answer.ciphertext, name) + source_field(answer.source.name)
    if request.HasField("ciphertext_crc32c"):
        body += checksum_field(google_crc32c.value(answer.ciphertext))
    return body, name


_encrypted, _encrypted_each = _values(pb.EncryptRequest, "plaintext_crc32c")
_decrypted, _decrypted_each = _values(pb.DecryptRequest, "ciphertext_crc32c")
_signed, _signed_each = _values(pb.SignRequest, "input_crc32c")
_authenticated, _authenticated_each = _values(pb.GenerateMacRequest, "data_crc32c")
_wrapped, _wrapped_each = _values(pb.WrapKeyRequest, "key_material_crc32c")
_unwrapped, _unwrapped_each = _values(pb.UnwrapKeyRequest, "wrapped_key_crc32c")
_verdicts: Final = _one_after_another(_verdict)
_reencrypted_each: Final = _one_after_another(_reencrypted)


class CryptoService:
    """Uses keys.  Calls that batches repeat answer encoded; of a batch each item does."""

    def __init__(
        self,
        transit: Transit,
        vaults: Vaults,
        backends: Mapping[ProtectionLevel, Backend],
        lane: BulkLane | None = None,
    ) -> None:
        self._transit = transit
        self._vaults = vaults
        self._backends = backends
        self._lane = lane or BulkLane()

    async def _each(
        self,
        use: Use,
        items_of: ItemsOf,
        encode: Encode,
        requests: Sequence[Any],
        context: Context,
        now: Callable[[Sequence[Any]], list[Any] | None] | None = None,
        look: int = ITEMS_PER_LOOK,
    ) -> Outcomes:
        """Convert, use, and encode; a request that cannot be converted fails by itself.

        now: uses a piece of the list at once, or says None.  Then the piece is encoded before the next one is looked at: it
        is still in the processor's caches, and nothing of it is kept but the answer.  look: how long a piece is.
        """
        lane, ref_of = self._lane, KeyRefs().__getitem__
        outcomes: list[Any] = []
        items: list[Any] = []
        places: list[int] = []
        for start in range(0, len(requests), look):
            if start and lane.over():
                await lane.next_turn()
            piece = requests[start : start + look]
            try:
                converted = items_of(piece, ref_of)
            except VaultdError:  # of one of them: which, is found one by one
                for at, request in enumerate(piece, start):
                    try:
                        items += items_of((request,), ref_of)
                        places.append(at)
                        outcomes.append(None)
                    except VaultdError as error:
                        outcomes.append(error)
                continue
            answers = now(converted) if now is not None else None
            if answers is not None:
                outcomes += encode(piece, answers)
                continue
            items += converted
            places.extend(range(start, start + len(piece)))
            outcomes += [None] * len(piece)
        if not items:
            return outcomes
        answers = await use(items, context.deadline)
        for start in range(0, len(answers), ITEMS_PER_LOOK):
            if start and lane.over():
                await lane.next_turn()
            stop = start + ITEMS_PER_LOOK
            pieces = places[start:stop]
            encoded = encode([requests[at] for at in pieces], answers[start:stop])
            for at, outcome in zip(pieces, encoded, strict=True):
                outcomes[at] = outcome
        await lane.let_go(answers, items, places)
        return outcomes

    async def Encrypt(self, request: pb.EncryptRequest, context: Context) -> Encoded:
        return _encrypted(request, await self._transit.encrypt(_encrypt_item(request, parse), context.deadline))

    async def BatchEncrypt(self, requests: Sequence[pb.EncryptRequest], context: Context) -> Outcomes:
        transit = self._transit
        return await self._each(
            transit.encrypt_many, _encrypt_items, _encrypted_each, requests, context, transit.encrypt_now
        )

    async def Decrypt(self, request: pb.DecryptRequest, context: Context) -> Encoded:
        return _decrypted(request, await self._transit.decrypt(_decrypt_item(request, parse), context.deadline))

    async def BatchDecrypt(self, requests: Sequence[pb.DecryptRequest], context: Context) -> Outcomes:
        return await self._each(self._transit.decrypt_many, _DECRYPT_ITEMS, _decrypted_each, requests, context)

    async def ReEncrypt(self, request: pb.ReEncryptRequest, context: Context) -> Encoded:
        return _reencrypted(request, await self._transit.reencrypt(_reencrypt_item(request, parse), context.deadline))

    async def BatchReEncrypt(self, requests: Sequence[pb.ReEncryptRequest], context: Context) -> Outcomes:
        return await self._each(self._transit.reencrypt_many, _REENCRYPT_ITEMS, _reencrypted_each, requests, context)

    async def Sign(self, request: pb.SignRequest, context: Context) -> Encoded:
        return _signed(request, await self._transit.sign(_sign_item(request, parse), context.deadline))

    async def BatchSign(self, requests: Sequence[pb.SignRequest], context: Context) -> Outcomes:
        transit = self._transit
        return await self._each(
            transit.sign_many, _sign_items, _signed_each, requests, context, transit.sign_now, LONG_PER_LOOK
        )

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> Encoded:
        return _verdict(request, await self._transit.verify(_verify_item(request, parse), context.deadline))

    async def BatchVerify(self, requests: Sequence[pb.VerifyRequest], context: Context) -> Outcomes:
        return await self._each(self._transit.verify_many, _VERIFY_ITEMS, _verdicts, requests, context)

    async def GenerateMac(self, request: pb.GenerateMacRequest, context: Context) -> Encoded:
        return _authenticated(request, await self._transit.generate_mac(_mac_item(request, parse), context.deadline))

    async def BatchGenerateMac(self, requests: Sequence[pb.GenerateMacRequest], context: Context) -> Outcomes:
        return await self._each(self._transit.generate_mac_many, _MAC_ITEMS, _authenticated_each, requests, context)

    async def VerifyMac(self, request: pb.VerifyMacRequest, context: Context) -> Encoded:
        return _verdict(request, await self._transit.verify_mac(_verify_mac_item(request, parse), context.deadline))

    async def BatchVerifyMac(self, requests: Sequence[pb.VerifyMacRequest], context: Context) -> Outcomes:
        return await self._each(self._transit.verify_mac_many, _VERIFY_MAC_ITEMS, _verdicts, requests, context)

    async def WrapKey(self, request: pb.WrapKeyRequest, context: Context) -> Encoded:
        return _wrapped(request, await self._transit.wrap(_wrap_item(request, parse), context.deadline))

    async def BatchWrapKey(self, requests: Sequence[pb.WrapKeyRequest], context: Context) -> Outcomes:
        return await self._each(self._transit.wrap_many, _WRAP_ITEMS, _wrapped_each, requests, context)

    async def UnwrapKey(self, request: pb.UnwrapKeyRequest, context: Context) -> Encoded:
        return _unwrapped(request, await self._transit.unwrap(_unwrap_item(request, parse), context.deadline))

    async def BatchUnwrapKey(self, requests: Sequence[pb.UnwrapKeyRequest], context: Context) -> Outcomes:
        return await self._each(self._transit.unwrap_many, _UNWRAP_ITEMS, _unwrapped_each, requests, context)

    async def GenerateDataKey(self, request: pb.GenerateDataKeyRequest, context: Context) -> pb.GenerateDataKeyResponse:
        keys, version = await self._transit.generate_data_keys(
            parse(request.name),
            request.length_bytes or DEFAULT_DATA_KEY_BYTES,
            request.count or 1,
            request.associated_data,
            context.deadline,
        )
        response = pb.GenerateDataKeyResponse(key_version=version.name)
        for key in keys:
            response.data_keys.add(plaintext=key.plaintext if request.include_plaintext else b"", wrapped=key.wrapped)
        return response

    async def Encapsulate(self, request: pb.EncapsulateRequest, context: Context) -> pb.EncapsulateResponse:
        ciphertext, secret, version = await self._transit.encapsulate(parse(request.name), context.deadline)
        return pb.EncapsulateResponse(ciphertext=ciphertext, shared_secret=secret, key_version=version.name)

    async def Decapsulate(self, request: pb.DecapsulateRequest, context: Context) -> pb.DecapsulateResponse:
        secret, version = await self._transit.decapsulate(parse(request.name), request.ciphertext, context.deadline)
        return pb.DecapsulateResponse(shared_secret=secret, key_version=version.name)

    async def DeriveSharedSecret(
        self, request: pb.DeriveSharedSecretRequest, context: Context
    ) -> pb.DeriveSharedSecretResponse:
        secret, version = await self._transit.derive(parse(request.name), request.peer_public_key, context.deadline)
        return pb.DeriveSharedSecretResponse(shared_secret=secret, key_version=version.name)

    async def GenerateRandomBytes(
        self, request: pb.GenerateRandomBytesRequest, context: Context
    ) -> pb.GenerateRandomBytesResponse:
        del context
        await self._vaults.get(parse_vault_name(request.parent, "parent"))
        backend = self._backends.get(LEVELS[request.protection_level])
        if backend is None:
            raise FailedPrecondition(
                "PROTECTION_LEVEL_UNAVAILABLE", "this server has no such backend", field="protection_level"
            )
        return pb.GenerateRandomBytesResponse(data=await backend.random_bytes(request.length_bytes))

    def CryptoStream(self) -> CryptoSession:
        return CryptoSession()

    def ReEncryptStream(self) -> ReEncryptSession:
        return ReEncryptSession(self._reencrypt_stale, self._version_of)

    async def _reencrypt_stale(self, requests: Sequence[pb.ReEncryptRequest], context: Context) -> Outcomes:
        """Like BatchReEncrypt; what is on the newest version by its header is left alone, and its answer has no ciphertext."""
        outcomes: Outcomes = [_NOTHING] * len(requests)
        stale = []
        for at, request in enumerate(requests):
            newest = await self._transit.newest(parse(request.destination_name), request.ciphertext)
            if newest:
                outcomes[at] = value_answer(b"", newest) + source_field(newest), newest
            else:
                stale.append(at)
        moved = await self.BatchReEncrypt([requests[at] for at in stale], context)
        for at, outcome in zip(stale, moved, strict=True):
            outcomes[at] = outcome
        return outcomes

    async def _version_of(self, name: str, ciphertext: bytes) -> str:
        try:
            return (await self._transit.inspect(parse(name), ciphertext)).version_name
        except VaultdError:
            return ""

    async def InspectCiphertext(
        self, request: pb.InspectCiphertextRequest, context: Context
    ) -> pb.InspectCiphertextResponse:
        del context
        inspected = await self._transit.inspect(parse(request.name), request.ciphertext)
        return pb.InspectCiphertextResponse(
            key_version=inspected.version_name,
            algorithm=ALGORITHM_NUMBERS[inspected.algorithm.name],
            needs_reencrypt=inspected.needs_reencrypt,
            below_minimum=inspected.below_minimum,
        )
