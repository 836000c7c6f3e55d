"""KeysService: message to engine call and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.empty_pb2 import Empty

from vaultd.backends.base import TokenKey
from vaultd.engine.algorithms import ALGORITHMS, ProtectionLevel, default_algorithm
from vaultd.engine.key_grants import GrantSpec
from vaultd.engine.key_specs import KeySpec, KeyUpdate
from vaultd.engine.paging import page_length, page_limit, page_start, page_token
from vaultd.engine.public_keys import encode_public_key
from vaultd.errors import InvalidArgument, Unavailable
from vaultd.names import (
    KeyRef,
    parse_grant_name,
    parse_key_name,
    parse_key_or_vault_name,
    parse_key_or_version_name,
    parse_vault_name,
    parse_version_name,
)
from vaultd.services.convert import (
    ALGORITHM_NAMES,
    ALGORITHM_NUMBERS,
    LEVEL_NUMBERS,
    LEVELS,
    PURPOSE_NUMBERS,
    PURPOSES,
    duration_us,
    grant_message,
    key_message,
    one_etag,
    set_time,
    time_us,
    update_paths,
    version_message,
)
from vaultd_client.v1 import grant_pb2, resources_pb2
from vaultd_client.v1 import keys_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.backends.base import Backend
    from vaultd.engine.key_grants import Grants
    from vaultd.engine.key_reads import KeyReader
    from vaultd.engine.key_versions import KeyVersions
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.lifecycle import KeyLifecycle
    from vaultd.engine.usage import BudgetBook, UsageBook
    from vaultd.services.context import Context
    from vaultd.services.key_transfer import KeyTransfer

UPDATABLE: Final = (
    "labels",
    "rotation_period",
    "next_rotation_time",
    "expire_time",
    "purge_protection",
    "min_decrypt_version",
    "notice_period",
)


def _spec(key: resources_pb2.Key) -> KeySpec:
    if key.purpose not in PURPOSES:
        raise InvalidArgument("PURPOSE_REQUIRED", "key.purpose must be one of KeyPurpose", field="key.purpose")
    if key.algorithm and key.algorithm not in ALGORITHM_NAMES:
        raise InvalidArgument("ENUM_UNKNOWN", "key.algorithm is not known to this server", field="key.algorithm")
    if key.protection_level not in LEVELS:
        raise InvalidArgument(
            "ENUM_UNKNOWN", "key.protection_level is not known to this server", field="key.protection_level"
        )
    return KeySpec(
        purpose=PURPOSES[key.purpose],
        algorithm=ALGORITHM_NAMES.get(key.algorithm),
        protection_level=LEVELS[key.protection_level],
        labels=dict(key.labels),
        rotation_period_us=duration_us(key, "rotation_period", "key.rotation_period"),
        next_rotation_us=time_us(key, "next_rotation_time", "key.next_rotation_time"),
        expire_us=time_us(key, "expire_time", "key.expire_time"),
        exportable=key.exportable,
        destroy_delay_us=duration_us(key, "destroy_scheduled_duration", "key.destroy_scheduled_duration"),
        purge_protection=key.purge_protection,
        import_only=key.import_only,
        min_decrypt=key.min_decrypt_version,
        notice_us=duration_us(key, "notice_period", "key.notice_period"),
    )


def _update(request: pb.UpdateKeyRequest) -> KeyUpdate:
    key = request.key
    values: dict[str, tuple[str, Any]] = {
        "labels": ("labels", dict(key.labels)),
        "rotation_period": ("rotation_period_us", duration_us(key, "rotation_period", "key.rotation_period")),
        "next_rotation_time": ("next_rotation_us", time_us(key, "next_rotation_time", "key.next_rotation_time")),
        "expire_time": ("expire_us", time_us(key, "expire_time", "key.expire_time")),
        "purge_protection": ("purge_protection", key.purge_protection),
        "min_decrypt_version": ("min_decrypt", key.min_decrypt_version),
        "notice_period": ("notice_us", duration_us(key, "notice_period", "key.notice_period")),
    }
    fields = dict(values[path] for path in update_paths(request.update_mask, UPDATABLE))
    return KeyUpdate(fields, one_etag(request.etag, key.etag))


class KeysService:
    """Makes keys and steers their life."""

    def __init__(
        self,
        keys: KeyReader,
        lifecycle: KeyLifecycle,
        key_versions: KeyVersions,
        grants: Grants,
        ledger: Ledger,
        usage: UsageBook,
        budgets: BudgetBook,
        backends: Mapping[ProtectionLevel, Backend],
        usage_staleness_ms: int,
        transfer: KeyTransfer,
    ) -> None:
        self._keys = keys
        self._lifecycle = lifecycle
        self._key_versions = key_versions
        self._grants = grants
        self._ledger = ledger
        self._usage = usage
        self._budgets = budgets
        self._backends = backends
        self._usage_staleness_ms = usage_staleness_ms
        self.CreateImportJob = transfer.CreateImportJob
        self.GetImportJob = transfer.GetImportJob
        self.ListImportJobs = transfer.ListImportJobs
        self.ImportKeyVersion = transfer.ImportKeyVersion
        self.ExportKeyVersion = transfer.ExportKeyVersion
        self.BackupKey = transfer.BackupKey
        self.RestoreKeyBackup = transfer.RestoreKeyBackup

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> resources_pb2.Key:
        vault = parse_vault_name(request.parent, "parent")
        spec = replace(_spec(request.key), skip_initial_version=request.skip_initial_version)
        return key_message(await self._lifecycle.create_key(context.intent(request), vault, request.key_id, spec))

    async def AdoptKey(self, request: pb.AdoptKeyRequest, context: Context) -> resources_pb2.Key:
        vault = parse_vault_name(request.parent, "parent")
        spec = _spec(request.key)
        if spec.protection_level is not ProtectionLevel.HSM:
            raise InvalidArgument(
                "PROTECTION_LEVEL_REQUIRED",
                "key.protection_level must be HSM for a key that stays in its token",
                field="key.protection_level",
            )
        source = TokenKey(request.token_key.slot, request.token_key.object_id, request.token_key.object_label)
        if not (source.object_id or source.label):
            raise InvalidArgument(
                "TOKEN_KEY_REQUIRED",
                "token_key must name the object by object_id, object_label or both",
                field="token_key",
            )
        intent = context.intent(request)
        return key_message(await self._lifecycle.create_key(intent, vault, request.key_id, spec, source))

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> resources_pb2.Key:
        del context
        return key_message(await self._keys.get_key(parse_key_name(request.name)))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        del context
        vault = parse_vault_name(request.parent, "parent")
        limit = page_limit(request.page_size)
        query = f"keys {vault} {request.show_deleted}"
        after = page_start(self._ledger, query, request.page_token)
        keys = await self._keys.list_keys(vault, after, limit + 1, deleted=request.show_deleted)
        messages = [key_message(key) for key in keys]
        length = page_length((message.ByteSize() for message in messages), limit)
        response = pb.ListKeysResponse(keys=messages[:length])
        if len(keys) > length:
            response.next_page_token = page_token(self._ledger, query, keys[length - 1].id)
        return response

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Context) -> resources_pb2.Key:
        ref = parse_key_name(request.key.name, "key.name")
        return key_message(await self._lifecycle.update_key(context.intent(request), ref, _update(request)))

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Context) -> resources_pb2.KeyVersion:
        ref = parse_key_name(request.name)
        version = await self._key_versions.rotate_key(
            context.intent(request), ref, request.etag, keep_primary=request.keep_primary
        )
        return version_message(version)

    async def SetPrimaryVersion(self, request: pb.SetPrimaryVersionRequest, context: Context) -> resources_pb2.Key:
        ref = parse_version_name(request.name)
        return key_message(await self._key_versions.set_primary(context.intent(request), ref, request.etag))

    async def ListKeyVersions(self, request: pb.ListKeyVersionsRequest, context: Context) -> pb.ListKeyVersionsResponse:
        del context
        ref = parse_key_name(request.parent, "parent")
        limit = page_limit(request.page_size)
        query = f"versions {ref}"
        after = int(page_start(self._ledger, query, request.page_token) or 0)
        versions = await self._keys.list_versions(ref, after, limit + 1)
        response = pb.ListKeyVersionsResponse(key_versions=[version_message(version) for version in versions[:limit]])
        if len(versions) > limit:
            response.next_page_token = page_token(self._ledger, query, str(versions[limit - 1].number))
        return response

    async def GetKeyVersion(self, request: pb.GetKeyVersionRequest, context: Context) -> resources_pb2.KeyVersion:
        del context
        return version_message(await self._keys.get_version(parse_key_or_version_name(request.name)))

    async def EnableKeyVersion(self, request: pb.EnableKeyVersionRequest, context: Context) -> resources_pb2.KeyVersion:
        ref = parse_version_name(request.name)
        return version_message(await self._key_versions.enable_version(context.intent(request), ref, request.etag))

    async def DisableKeyVersion(
        self, request: pb.DisableKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        ref = parse_version_name(request.name)
        return version_message(await self._key_versions.disable_version(context.intent(request), ref, request.etag))

    async def DestroyKeyVersion(
        self, request: pb.DestroyKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        ref = parse_version_name(request.name)
        return version_message(await self._key_versions.destroy_version(context.intent(request), ref, request.etag))

    async def RestoreKeyVersion(
        self, request: pb.RestoreKeyVersionRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        ref = parse_version_name(request.name)
        return version_message(await self._key_versions.restore_version(context.intent(request), ref, request.etag))

    async def DeleteKey(self, request: pb.DeleteKeyRequest, context: Context) -> resources_pb2.Key:
        ref = parse_key_name(request.name)
        return key_message(await self._lifecycle.delete_key(context.intent(request), ref, request.etag))

    async def UndeleteKey(self, request: pb.UndeleteKeyRequest, context: Context) -> resources_pb2.Key:
        ref = parse_key_name(request.name)
        return key_message(await self._lifecycle.undelete_key(context.intent(request), ref, request.etag))

    async def PurgeKey(self, request: pb.PurgeKeyRequest, context: Context) -> Empty:
        await self._lifecycle.purge_key(context.intent(request), parse_key_name(request.name), request.etag)
        return Empty()

    async def GetPublicKey(self, request: pb.GetPublicKeyRequest, context: Context) -> pb.PublicKey:
        del context
        version = await self._keys.get_version(parse_key_or_version_name(request.name))
        encoded = encode_public_key(version)
        return pb.PublicKey(
            name=version.name,
            key_version=version.name,
            algorithm=ALGORITHM_NUMBERS[version.algorithm.name],
            pem=encoded.pem,
            jwk=encoded.jwk,
            raw=encoded.raw,
        )

    async def GetCapabilities(self, request: pb.GetCapabilitiesRequest, context: Context) -> pb.GetCapabilitiesResponse:
        del request, context
        response = pb.GetCapabilitiesResponse()
        for level, backend in self._backends.items():
            try:
                reasons = {name: backend.unsupported(name) for name in ALGORITHMS}
            except Unavailable:
                response.unavailable_levels.append(LEVEL_NUMBERS[level])
                continue
            for name, reason in reasons.items():
                algorithm, number, at = ALGORITHMS[name], ALGORITHM_NUMBERS[name], LEVEL_NUMBERS[level]
                if reason is not None:
                    response.unsupported.add(algorithm=number, protection_level=at, reason=reason)
                    continue
                response.capabilities.add(
                    algorithm=number,
                    purpose=PURPOSE_NUMBERS[algorithm.purpose],
                    protection_level=at,
                    purpose_default=default_algorithm(algorithm.purpose, level) is algorithm,
                    max_input_bytes=algorithm.max_input_bytes,
                    max_messages=algorithm.max_messages or 0,
                )
        return response

    async def GetKeyUsage(self, request: pb.GetKeyUsageRequest, context: Context) -> pb.GetKeyUsageResponse:
        del context
        ref = parse_key_name(request.name)
        key = await self._keys.get_key(ref)
        totals = await self._usage.totals(key.uid)
        response = pb.GetKeyUsageResponse()
        response.staleness.FromMilliseconds(self._usage_staleness_ms)
        for version in await self._keys.list_versions(ref):
            usage = totals.get(version.number)
            entry = response.versions.add(key_version=version.name)
            if usage is not None:
                entry.messages, entry.bytes = usage.messages, usage.bytes
                set_time(entry.last_use_time, usage.last_use_at)
            if key.algorithm.max_messages is not None:
                at = KeyRef(ref.vault, ref.key, version.number)
                entry.messages_left = await self._budgets.messages_left(at, key.uid, key.algorithm.max_messages)
        return response

    async def CreateGrant(self, request: grant_pb2.CreateGrantRequest, context: Context) -> grant_pb2.Grant:
        ref = parse_key_name(request.parent, "parent")
        asked = request.grant
        expire_us = time_us(asked, "expire_time", "grant.expire_time")
        spec = GrantSpec(asked.grantee, tuple(sorted(asked.permissions)), expire_us, asked.max_uses)
        grant = await self._grants.create(context.intent(request), ref, spec)
        return grant_message(grant, await self._grants.uses_left(grant))

    async def GetGrant(self, request: grant_pb2.GetGrantRequest, context: Context) -> grant_pb2.Grant:
        del context
        return grant_message(*await self._grants.get(*parse_grant_name(request.name)))

    async def ListGrants(self, request: grant_pb2.ListGrantsRequest, context: Context) -> grant_pb2.ListGrantsResponse:
        del context
        vault, key = parse_key_or_vault_name(request.parent)
        limit = page_limit(request.page_size)
        query = f"grants {vault} {key} {request.grantee}"
        after_key, _, after_id = page_start(self._ledger, query, request.page_token).partition("/")
        grants, last = await self._grants.list(vault, key, request.grantee, (after_key, after_id), limit)
        messages = [grant_message(grant, left) for grant, left in grants]
        length = page_length((message.ByteSize() for message in messages), limit)
        if length < len(messages):
            last = (grants[length - 1][0].key, grants[length - 1][0].id)
        response = grant_pb2.ListGrantsResponse(grants=messages[:length])
        if last is not None:
            response.next_page_token = page_token(self._ledger, query, "/".join(last))
        return response

    async def RevokeGrant(self, request: grant_pb2.RevokeGrantRequest, context: Context) -> Empty:
        ref, id = parse_grant_name(request.name)
        await self._grants.revoke(context.intent(request), ref, id)
        return Empty()
