"""SecretsService: message to engine call and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

import google_crc32c
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict

from vaultd.engine.model import SecretState, SecretVersionState
from vaultd.engine.paging import MAX_PAGE_BYTES, page_limit, page_start, page_token
from vaultd.engine.secret_access import AccessItem
from vaultd.engine.secret_payloads import X25519_BYTES
from vaultd.engine.secrets import NewVersion, SecretSpec
from vaultd.engine.turns import ITEMS_PER_LOOK, BulkLane
from vaultd.errors import InvalidArgument, VaultdError
from vaultd.names import (
    parse_secret_name,
    parse_secret_or_version_name,
    parse_secret_version_name,
    parse_vault_name,
    secret_version_name,
)
from vaultd.secret import Secret
from vaultd.services.convert import duration_us, one_etag, set_time, time_us, update_paths
from vaultd.services.encoding import bytes_field, checksum_field, value_answer
from vaultd_client.v1 import secrets_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vaultd.engine.ledger import Ledger
    from vaultd.engine.model import SecretVersion, StoredSecret
    from vaultd.engine.secret_access import Accessed, SecretAccess
    from vaultd.engine.secrets import Secrets
    from vaultd.services.context import Context
    from vaultd.services.encoding import Encoded
    from vaultd.services.rotations import RotationCalls

R = TypeVar("R")
UPDATABLE: Final = ("labels", "owner", "metadata", "keep_versions", "version_ttl", "purge_protection")
STATES: Final[dict[SecretState, Any]] = {
    state: pb.SecretState.Value(f"SECRET_STATE_{state.value}")
    for state in SecretState
    if state is not SecretState.PURGED
}
VERSION_STATES: Final[dict[SecretVersionState, Any]] = {
    state: pb.SecretVersionState.Value(f"SECRET_VERSION_STATE_{state.value}") for state in SecretVersionState
}
MAX_TTL_US: Final = 36_525 * 86_400 * 1_000_000
MIN_TTL_US: Final = 1_000_000
_SEALED: Final = 4
_SEALED_CRC: Final = 21
"""Fields of AccessSecretVersionResponse."""
_NOT_MODIFIED: Final = b"\x18\x01"
BYTES_PER_TURN: Final = 32 * 1024
"""Messages of a list that are built between two turns of the event loop; metadata takes most of the time."""
_new_item: Final = tuple.__new__  # as in the crypto service: a batch makes thousands


def secret_message(secret: StoredSecret) -> pb.Secret:
    """A secret as the wire has it."""

    def named(number: int) -> str:
        return secret_version_name(secret.vault, secret.id, number) if number else ""

    message = pb.Secret(
        name=secret.name,
        uid=secret.uid,
        labels=secret.labels,
        owner=secret.owner,
        keep_versions=secret.keep_versions,
        purge_protection=secret.purge_protection,
        state=STATES[secret.state],
        latest_version=named(secret.latest),
        current_version=named(secret.current),
        previous_version=named(secret.previous),
        aliases=secret.aliases,
        etag=secret.etag,
    )
    if secret.metadata:
        message.metadata.update(secret.metadata)
    if secret.version_ttl_us is not None:
        message.version_ttl.FromMicroseconds(secret.version_ttl_us)
    set_time(message.create_time, secret.create_us)
    set_time(message.update_time, secret.update_us)
    set_time(message.delete_time, secret.delete_us)
    set_time(message.purge_time, secret.purge_us)
    return message


def version_message(version: SecretVersion) -> pb.SecretVersion:
    """A version as the wire has it."""
    message = pb.SecretVersion(
        name=version.name,
        state=VERSION_STATES[version.state],
        content_type=version.content_type,
        payload_bytes=version.payload_bytes,
        etag=version.etag,
    )
    if version.metadata:
        message.metadata.update(version.metadata)
    set_time(message.create_time, version.create_us)
    set_time(message.expire_time, version.expire_us)
    set_time(message.destroy_time, version.destroyed_us)
    return message


def describe_version(version: SecretVersion) -> bytes:
    """Content type, metadata and expiry of a version as fields of an AccessSecretVersionResponse: encoded once, merged often.

    A Struct of many fields takes milliseconds to build.
    """
    fields = pb.AccessSecretVersionResponse(content_type=version.content_type)
    if version.metadata:
        fields.metadata.update(version.metadata)
    set_time(fields.expire_time, version.expire_us)
    return fields.SerializeToString()


async def _page(build: Callable[[R], Any], found: Sequence[R], limit: int) -> list[Any]:
    """Messages of what goes on a page of `limit` items: one at least, where there is one, and as many as fit."""
    messages: list[Any] = []
    total, next_turn = 0, BYTES_PER_TURN
    for resource in found[:limit]:
        message = build(resource)
        total += message.ByteSize()
        if messages and total > MAX_PAGE_BYTES:
            break
        messages.append(message)
        if total >= next_turn:
            next_turn = total + BYTES_PER_TURN
            await asyncio.sleep(0)
    return messages


def _metadata(message: Any, field: str) -> Mapping[str, Any]:
    return MessageToDict(getattr(message, field)) if message.HasField(field) else {}


def _ttl_us(secret: pb.Secret) -> int | None:
    ttl_us = duration_us(secret, "version_ttl", "secret.version_ttl")
    if ttl_us is not None and not MIN_TTL_US <= ttl_us <= MAX_TTL_US:
        raise InvalidArgument(
            "VERSION_TTL_RANGE", "version_ttl must be 1 second to 100 years", field="secret.version_ttl"
        )
    return ttl_us


def _spec(secret: pb.Secret) -> SecretSpec:
    return SecretSpec(
        labels=dict(secret.labels),
        owner=secret.owner,
        metadata=_metadata(secret, "metadata"),
        keep_versions=secret.keep_versions,
        version_ttl_us=_ttl_us(secret),
        purge_protection=secret.purge_protection,
    )


def _fields(request: pb.UpdateSecretRequest) -> dict[str, Any]:
    spec = _spec(request.secret)
    paths = update_paths(request.update_mask, UPDATABLE)
    return {name: getattr(spec, name) for name in ("version_ttl_us" if p == "version_ttl" else p for p in paths)}


def _new_version(request: Any, metadata: str) -> NewVersion:
    return NewVersion(
        Secret(request.payload),
        request.content_type,
        _metadata(request, metadata),
        time_us(request, "expire_time", "expire_time"),
    )


def _access_item(request: pb.AccessSecretVersionRequest) -> AccessItem:
    unless, recipient, context = request.if_version_not, request.recipient_public_key, request.recipient_context
    if unless:
        parse_secret_version_name(unless, "if_version_not")
    if recipient and len(recipient) != X25519_BYTES:
        raise InvalidArgument(
            "FIELD_SIZE",
            f"recipient_public_key must be an X25519 public key of {X25519_BYTES} bytes",
            field="recipient_public_key",
        )
    if context and not recipient:
        raise InvalidArgument(
            "RECIPIENT_MISSING", "recipient_context needs recipient_public_key", field="recipient_public_key"
        )
    return _new_item(AccessItem, (request.name, unless, recipient, context))


def _encode(answer: Accessed) -> Encoded:
    """An answer as the wire has it: each field in its order, and what is said of the version between its name and checksums."""
    held, payload, sealed = answer
    name = held.name
    if payload is not None:
        value = payload.expose("the answer of an access that was allowed")
        return value_answer(value, name) + held.description + checksum_field(held.version.payload_crc32c), name
    if sealed is not None:
        checksum = checksum_field(google_crc32c.value(sealed), _SEALED_CRC)
        return value_answer(b"", name) + bytes_field(_SEALED, sealed) + held.description + checksum, name
    return value_answer(b"", name) + _NOT_MODIFIED + held.description, name


class SecretsService:
    """Keeps secrets and gives them out."""

    def __init__(
        self,
        secrets: Secrets,
        access: SecretAccess,
        ledger: Ledger,
        rotation: RotationCalls,
        lane: BulkLane | None = None,
    ) -> None:
        self._secrets = secrets
        self._access = access
        self._ledger = ledger
        self._lane = lane or BulkLane()
        self.SetRotationPolicy = rotation.SetRotationPolicy
        self.DeleteRotationPolicy = rotation.DeleteRotationPolicy
        self.GetRotation = rotation.GetRotation
        self.ListRotations = rotation.ListRotations
        self.RotateSecret = rotation.RotateSecret
        self.CancelRotation = rotation.CancelRotation

    async def CreateSecret(self, request: pb.CreateSecretRequest, context: Context) -> pb.Secret:
        vault = parse_vault_name(request.parent, "parent")
        first = _new_version(request, "version_metadata") if request.payload else None
        if first is None and (request.HasField("expire_time") or request.HasField("version_metadata")):
            raise InvalidArgument(
                "PAYLOAD_MISSING",
                "expire_time and version_metadata are of a version: give its payload",
                field="payload",
            )
        intent = context.intent(request)
        secret = await self._secrets.create(intent, vault, request.secret_id, _spec(request.secret), first)
        return secret_message(secret)

    async def GetSecret(self, request: pb.GetSecretRequest, context: Context) -> pb.Secret:
        del context
        return secret_message(await self._secrets.get(parse_secret_name(request.name)))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        del context
        vault = parse_vault_name(request.parent, "parent")
        limit = page_limit(request.page_size)
        query = f"secrets {vault} {request.show_deleted}"
        after = page_start(self._ledger, query, request.page_token)
        found = await self._secrets.list_secrets(vault, after, limit + 1, deleted=request.show_deleted)
        messages = await _page(secret_message, found, limit)
        response = pb.ListSecretsResponse(secrets=messages)
        if len(found) > len(messages):
            response.next_page_token = page_token(self._ledger, query, found[len(messages) - 1].id)
        return response

    async def UpdateSecret(self, request: pb.UpdateSecretRequest, context: Context) -> pb.Secret:
        ref = parse_secret_name(request.secret.name, "secret.name")
        etag = one_etag(request.etag, request.secret.etag)
        return secret_message(await self._secrets.update(context.intent(request), ref, _fields(request), etag))

    async def AddSecretVersion(
        self, request: pb.AddSecretVersionRequest, context: Context
    ) -> pb.AddSecretVersionResponse:
        ref = parse_secret_name(request.parent, "parent")
        version = await self._secrets.add_version(
            context.intent(request),
            ref,
            _new_version(request, "metadata"),
            request.expected_etag,
            keep_current=request.keep_current,
        )
        return pb.AddSecretVersionResponse(
            version=version.name, secret_version=version_message(version), etag=version.etag
        )

    async def AccessSecretVersion(self, request: pb.AccessSecretVersionRequest, context: Context) -> Encoded:
        return _encode(await self._access.access(_access_item(request), context.deadline))

    async def BatchAccessSecretVersions(
        self, requests: Sequence[pb.AccessSecretVersionRequest], context: Context
    ) -> list[Encoded | VaultdError]:
        lane = self._lane
        outcomes: list[Any] = [None] * len(requests)
        items, places = [], []
        for at, request in enumerate(requests):
            if at % ITEMS_PER_LOOK == ITEMS_PER_LOOK - 1 and lane.over():
                await lane.next_turn()
            try:
                items.append(_access_item(request))
                places.append(at)
            except VaultdError as error:
                outcomes[at] = error
        answers = await self._access.access_many(items, context.deadline)
        for done, (at, answer) in enumerate(zip(places, answers, strict=True), start=1):
            if done % ITEMS_PER_LOOK == 0 and lane.over():
                await lane.next_turn()
            outcomes[at] = answer if isinstance(answer, VaultdError) else _encode(answer)
        return outcomes

    async def ListSecretVersions(
        self, request: pb.ListSecretVersionsRequest, context: Context
    ) -> pb.ListSecretVersionsResponse:
        del context
        ref = parse_secret_name(request.parent, "parent")
        limit = page_limit(request.page_size)
        query = f"secret versions {ref}"
        after = int(page_start(self._ledger, query, request.page_token) or 0)
        found = await self._secrets.list_versions(ref, after, limit + 1)
        messages = await _page(version_message, found, limit)
        response = pb.ListSecretVersionsResponse(secret_versions=messages)
        if len(found) > len(messages):
            response.next_page_token = page_token(self._ledger, query, str(found[len(messages) - 1].number))
        return response

    async def GetSecretVersion(self, request: pb.GetSecretVersionRequest, context: Context) -> pb.SecretVersion:
        del context
        return version_message(await self._secrets.get_version(parse_secret_or_version_name(request.name)))

    async def EnableSecretVersion(self, request: pb.EnableSecretVersionRequest, context: Context) -> pb.SecretVersion:
        ref = parse_secret_version_name(request.name)
        return version_message(await self._secrets.enable_version(context.intent(request), ref, request.etag))

    async def DisableSecretVersion(self, request: pb.DisableSecretVersionRequest, context: Context) -> pb.SecretVersion:
        ref = parse_secret_version_name(request.name)
        return version_message(await self._secrets.disable_version(context.intent(request), ref, request.etag))

    async def DestroySecretVersion(self, request: pb.DestroySecretVersionRequest, context: Context) -> pb.SecretVersion:
        ref = parse_secret_version_name(request.name)
        return version_message(await self._secrets.destroy_version(context.intent(request), ref, request.etag))

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.Secret:
        ref, intent = parse_secret_name(request.name), context.intent(request)
        if not request.version:
            return secret_message(await self._secrets.remove_alias(intent, ref, request.alias, request.etag))
        target = parse_secret_or_version_name(request.version, "version")
        return secret_message(await self._secrets.set_alias(intent, ref, request.alias, target, request.etag))

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, context: Context) -> pb.Secret:
        ref = parse_secret_name(request.name)
        return secret_message(await self._secrets.delete(context.intent(request), ref, request.etag))

    async def UndeleteSecret(self, request: pb.UndeleteSecretRequest, context: Context) -> pb.Secret:
        ref = parse_secret_name(request.name)
        return secret_message(await self._secrets.undelete(context.intent(request), ref, request.etag))

    async def PurgeSecret(self, request: pb.PurgeSecretRequest, context: Context) -> Empty:
        await self._secrets.purge(context.intent(request), parse_secret_name(request.name), request.etag)
        return Empty()
