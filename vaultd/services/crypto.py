"""CryptoService: message to engine call and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import google_crc32c

from vaultd.engine.transit import (
    DecryptItem,
    EncryptItem,
    MacItem,
    ReEncryptItem,
    SignItem,
    VerifyItem,
    VerifyMacItem,
    WrapItem,
)
from vaultd.errors import FailedPrecondition, InvalidArgument, VaultdError
from vaultd.names import parse_key_or_version_name as parse
from vaultd.names import parse_vault_name
from vaultd.services.convert import ALGORITHM_NUMBERS, LEVELS
from vaultd.services.crypto_stream import CryptoSession, ReEncryptSession
from vaultd_client.v1 import crypto_pb2 as pb
from vaultd_client.v1 import resources_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from vaultd.backends.base import Backend
    from vaultd.engine.algorithms import ProtectionLevel
    from vaultd.engine.transit import Answer, ReEncrypted, Transit
    from vaultd.engine.vaults import Vaults
    from vaultd.services.context import Context

DEFAULT_DATA_KEY_BYTES: Final = 32
_new_item: Final = tuple.__new__  # half the price of EncryptItem(...), of which a batch makes thousands
ITEMS_PER_TURN: Final = 1000
"""Items of a batch that are converted between two turns of the event loop."""
Outcomes = list[str | VaultdError]
"""Of each item of a batch: the name of the key version that answered, or why it failed."""


def _encrypt_item(request: pb.EncryptRequest) -> EncryptItem:
    return _new_item(EncryptItem, (parse(request.name), request.plaintext, request.associated_data))


def _encrypted(request: pb.EncryptRequest, answer: Answer, response: pb.EncryptResponse) -> str:
    value, version = answer
    response.ciphertext = value
    response.key_version = name = version.name
    if request.HasField("plaintext_crc32c"):
        response.ciphertext_crc32c = google_crc32c.value(value)
    return name


def _decrypt_item(request: pb.DecryptRequest) -> DecryptItem:
    return _new_item(DecryptItem, (parse(request.name), request.ciphertext, request.associated_data))


def _decrypted(request: pb.DecryptRequest, answer: Answer, response: pb.DecryptResponse) -> str:
    value, version = answer
    response.plaintext = value
    response.key_version = name = version.name
    if request.HasField("ciphertext_crc32c"):
        response.plaintext_crc32c = google_crc32c.value(value)
    return name


def _reencrypt_item(request: pb.ReEncryptRequest) -> ReEncryptItem:
    source, destination = parse(request.source_name), parse(request.destination_name)
    if source.vault != destination.vault:
        raise InvalidArgument(
            "CROSS_VAULT", "source_name and destination_name must be in one vault", field="destination_name"
        )
    return ReEncryptItem(
        source, request.ciphertext, request.source_associated_data, destination, request.destination_associated_data
    )


def _reencrypted(request: pb.ReEncryptRequest, answer: ReEncrypted, response: pb.ReEncryptResponse) -> str:
    response.ciphertext = answer.ciphertext
    response.key_version = answer.version.name
    response.source_key_version = answer.source.name
    if request.HasField("ciphertext_crc32c"):
        response.ciphertext_crc32c = google_crc32c.value(answer.ciphertext)
    return answer.version.name


def _sign_input(request: pb.SignRequest | pb.VerifyRequest) -> tuple[bytes, bool]:
    kind = request.WhichOneof("input")
    if kind is None:
        raise InvalidArgument("INPUT_MISSING", "give message or digest", field="message")
    return getattr(request, kind), kind == "digest"


def _is_p1363(encoding: int) -> bool:
    return encoding == resources_pb2.SIGNATURE_ENCODING_P1363


def _sign_item(request: pb.SignRequest) -> SignItem:
    data, is_digest = _sign_input(request)
    return SignItem(parse(request.name), data, is_digest, _is_p1363(request.signature_encoding))


def _signed(request: pb.SignRequest, answer: Answer, response: pb.SignResponse) -> str:
    value, version = answer
    response.signature = value
    response.key_version = name = version.name
    if request.HasField("input_crc32c"):
        response.signature_crc32c = google_crc32c.value(value)
    return name


def _verify_item(request: pb.VerifyRequest) -> VerifyItem:
    data, is_digest = _sign_input(request)
    p1363 = _is_p1363(request.signature_encoding)
    return VerifyItem(parse(request.name), data, request.signature, is_digest, p1363)


def _verified(request: pb.VerifyRequest, answer: Answer, response: pb.VerifyResponse) -> str:
    del request
    response.valid, version = answer
    response.key_version = version.name
    return version.name


def _mac_item(request: pb.GenerateMacRequest) -> MacItem:
    return MacItem(parse(request.name), request.data)


def _authenticated(request: pb.GenerateMacRequest, answer: Answer, response: pb.GenerateMacResponse) -> str:
    value, version = answer
    response.mac = value
    response.key_version = name = version.name
    if request.HasField("data_crc32c"):
        response.mac_crc32c = google_crc32c.value(value)
    return name


def _verify_mac_item(request: pb.VerifyMacRequest) -> VerifyMacItem:
    return VerifyMacItem(parse(request.name), request.data, request.mac)


def _mac_verified(request: pb.VerifyMacRequest, answer: Answer, response: pb.VerifyMacResponse) -> str:
    del request
    response.valid, version = answer
    response.key_version = version.name
    return version.name


def _wrap_item(request: pb.WrapKeyRequest) -> WrapItem:
    return WrapItem(parse(request.name), request.key_material)


def _wrapped(request: pb.WrapKeyRequest, answer: Answer, response: pb.WrapKeyResponse) -> str:
    value, version = answer
    response.wrapped_key = value
    response.key_version = name = version.name
    if request.HasField("key_material_crc32c"):
        response.wrapped_key_crc32c = google_crc32c.value(value)
    return name


def _unwrap_item(request: pb.UnwrapKeyRequest) -> WrapItem:
    return WrapItem(parse(request.name), request.wrapped_key)


def _unwrapped(request: pb.UnwrapKeyRequest, answer: Answer, response: pb.UnwrapKeyResponse) -> str:
    value, version = answer
    response.key_material = value
    response.key_version = name = version.name
    if request.HasField("wrapped_key_crc32c"):
        response.key_material_crc32c = google_crc32c.value(value)
    return name


async def _each(
    use: Callable[[Sequence[Any], float | None], Awaitable[list[Any]]],
    item_of: Callable[[Any], Any],
    fill: Callable[[Any, Any, Any], str],
    requests: Sequence[Any],
    results: Sequence[Any],
    context: Context,
) -> list[str | VaultdError]:
    """Convert, use, and fill `results`; a request that cannot be converted fails by itself."""
    outcomes: list[Any] = [None] * len(requests)
    items, places = [], []
    for at, request in enumerate(requests):
        if at % ITEMS_PER_TURN == ITEMS_PER_TURN - 1:
            await asyncio.sleep(0)
        try:
            items.append(item_of(request))
            places.append(at)
        except VaultdError as error:
            outcomes[at] = error
    answers = await use(items, context.deadline)
    for at, answer in zip(places, answers, strict=True):
        if at % ITEMS_PER_TURN == ITEMS_PER_TURN - 1:
            await asyncio.sleep(0)
        outcomes[at] = answer if isinstance(answer, VaultdError) else fill(requests[at], answer, results[at])
    return outcomes


class CryptoService:
    """Uses keys."""

    def __init__(self, transit: Transit, vaults: Vaults, backends: Mapping[ProtectionLevel, Backend]) -> None:
        self._transit = transit
        self._vaults = vaults
        self._backends = backends

    async def Encrypt(self, request: pb.EncryptRequest, context: Context) -> pb.EncryptResponse:
        answer = await self._transit.encrypt(_encrypt_item(request), context.deadline)
        _encrypted(request, answer, response := pb.EncryptResponse())
        return response

    async def BatchEncrypt(
        self, requests: Sequence[pb.EncryptRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        return await _each(self._transit.encrypt_many, _encrypt_item, _encrypted, requests, results, context)

    async def Decrypt(self, request: pb.DecryptRequest, context: Context) -> pb.DecryptResponse:
        answer = await self._transit.decrypt(_decrypt_item(request), context.deadline)
        _decrypted(request, answer, response := pb.DecryptResponse())
        return response

    async def BatchDecrypt(
        self, requests: Sequence[pb.DecryptRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        return await _each(self._transit.decrypt_many, _decrypt_item, _decrypted, requests, results, context)

    async def ReEncrypt(self, request: pb.ReEncryptRequest, context: Context) -> pb.ReEncryptResponse:
        answer = await self._transit.reencrypt(_reencrypt_item(request), context.deadline)
        _reencrypted(request, answer, response := pb.ReEncryptResponse())
        return response

    async def BatchReEncrypt(
        self, requests: Sequence[pb.ReEncryptRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        return await _each(self._transit.reencrypt_many, _reencrypt_item, _reencrypted, requests, results, context)

    async def Sign(self, request: pb.SignRequest, context: Context) -> pb.SignResponse:
        answer = await self._transit.sign(_sign_item(request), context.deadline)
        _signed(request, answer, response := pb.SignResponse())
        return response

    async def BatchSign(self, requests: Sequence[pb.SignRequest], results: Sequence[Any], context: Context) -> Outcomes:
        return await _each(self._transit.sign_many, _sign_item, _signed, requests, results, context)

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyResponse:
        answer = await self._transit.verify(_verify_item(request), context.deadline)
        _verified(request, answer, response := pb.VerifyResponse())
        return response

    async def BatchVerify(
        self, requests: Sequence[pb.VerifyRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        return await _each(self._transit.verify_many, _verify_item, _verified, requests, results, context)

    async def GenerateMac(self, request: pb.GenerateMacRequest, context: Context) -> pb.GenerateMacResponse:
        answer = await self._transit.generate_mac(_mac_item(request), context.deadline)
        _authenticated(request, answer, response := pb.GenerateMacResponse())
        return response

    async def BatchGenerateMac(
        self, requests: Sequence[pb.GenerateMacRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        return await _each(self._transit.generate_mac_many, _mac_item, _authenticated, requests, results, context)

    async def VerifyMac(self, request: pb.VerifyMacRequest, context: Context) -> pb.VerifyMacResponse:
        answer = await self._transit.verify_mac(_verify_mac_item(request), context.deadline)
        _mac_verified(request, answer, response := pb.VerifyMacResponse())
        return response

    async def BatchVerifyMac(
        self, requests: Sequence[pb.VerifyMacRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        return await _each(self._transit.verify_mac_many, _verify_mac_item, _mac_verified, requests, results, context)

    async def WrapKey(self, request: pb.WrapKeyRequest, context: Context) -> pb.WrapKeyResponse:
        answer = await self._transit.wrap(_wrap_item(request), context.deadline)
        _wrapped(request, answer, response := pb.WrapKeyResponse())
        return response

    async def BatchWrapKey(
        self, requests: Sequence[pb.WrapKeyRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        return await _each(self._transit.wrap_many, _wrap_item, _wrapped, requests, results, context)

    async def UnwrapKey(self, request: pb.UnwrapKeyRequest, context: Context) -> pb.UnwrapKeyResponse:
        answer = await self._transit.unwrap(_unwrap_item(request), context.deadline)
        _unwrapped(request, answer, response := pb.UnwrapKeyResponse())
        return response

    async def BatchUnwrapKey(
        self, requests: Sequence[pb.UnwrapKeyRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        return await _each(self._transit.unwrap_many, _unwrap_item, _unwrapped, requests, results, context)

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

    async def _reencrypt_stale(
        self, requests: Sequence[pb.ReEncryptRequest], results: Sequence[Any], context: Context
    ) -> Outcomes:
        """Like BatchReEncrypt; what is on the newest version by its header is left alone, and its result has no ciphertext."""
        outcomes: Outcomes = [""] * len(requests)
        stale = []
        for at, request in enumerate(requests):
            newest = await self._transit.newest(parse(request.destination_name), request.ciphertext)
            if newest:
                results[at].key_version = results[at].source_key_version = outcomes[at] = newest
            else:
                stale.append(at)
        moved = await self.BatchReEncrypt([requests[at] for at in stale], [results[at] for at in stale], context)
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
