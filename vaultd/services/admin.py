"""AdminService: message to engine call and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.empty_pb2 import Empty

from vaultd import __version__
from vaultd.engine.paging import page_length, page_limit, page_start, page_token
from vaultd.engine.policy import seed_policy
from vaultd.engine.seal import SealState
from vaultd.names import parse_vault_name
from vaultd.secret import Secret
from vaultd.services.convert import one_etag, revoked_identity_message, set_time, update_paths, vault_message
from vaultd_client.v1 import admin_pb2 as pb
from vaultd_client.v1 import identity_pb2, resources_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vaultd.engine.ledger import Ledger
    from vaultd.engine.revocations import Revocations
    from vaultd.engine.seal import Seal
    from vaultd.engine.vaults import Vaults
    from vaultd.services.context import Context

UPDATABLE: Final = ("display_name", "labels")
_STATES: Final[dict[SealState, Any]] = {state: pb.SealState.Value(f"SEAL_STATE_{state.value}") for state in SealState}


def _passphrase(value: bytes) -> Secret | None:
    return Secret(value) if value else None


class AdminService:
    """Runs the server itself.  `components` tells the health of storage, audit and seal."""

    def __init__(
        self,
        seal: Seal,
        vaults: Vaults,
        ledger: Ledger,
        start_us: int,
        components: Callable[[], Mapping[str, bool]],
        revocations: Revocations,
    ) -> None:
        self._seal = seal
        self._vaults = vaults
        self._ledger = ledger
        self._start_us = start_us
        self._components = components
        self._revocations = revocations

    async def _status(self) -> pb.Status:
        status = pb.Status(
            seal_state=_STATES[self._seal.state],
            root_key_provider=self._seal.provider_kind,
            version=__version__,
            revision=await self._ledger.store.revision(),
            components=self._components(),
        )
        if self._seal.state is SealState.UNSEALED:
            status.term = self._ledger.sealer.term
            status.rows_on_older_terms = await self._seal.rows_on_older_terms()
        set_time(status.start_time, self._start_us)
        return status

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.Status:
        del request, context
        return await self._status()

    async def Init(self, request: pb.InitRequest, context: Context) -> pb.Status:
        del context
        policy = seed_policy(list(request.admin_principals), None)
        await self._seal.init(policy, _passphrase(request.passphrase))
        return await self._status()

    async def Seal(self, request: pb.SealRequest, context: Context) -> pb.Status:
        del request, context
        await self._seal.seal()
        return await self._status()

    async def Unseal(self, request: pb.UnsealRequest, context: Context) -> pb.Status:
        del context
        await self._seal.unseal(_passphrase(request.passphrase))
        return await self._status()

    async def RotateRootKey(self, request: pb.RotateRootKeyRequest, context: Context) -> pb.Status:
        await self._seal.rotate_root(context.intent(request), _passphrase(request.passphrase))
        return await self._status()

    async def CreateVault(self, request: pb.CreateVaultRequest, context: Context) -> resources_pb2.Vault:
        vault = await self._vaults.create(
            context.intent(request), request.vault_id, request.vault.display_name, dict(request.vault.labels)
        )
        return vault_message(vault)

    async def GetVault(self, request: pb.GetVaultRequest, context: Context) -> resources_pb2.Vault:
        del context
        return vault_message(await self._vaults.get(parse_vault_name(request.name)))

    async def ListVaults(self, request: pb.ListVaultsRequest, context: Context) -> pb.ListVaultsResponse:
        del context
        limit = page_limit(request.page_size)
        vaults = await self._vaults.list(page_start(self._ledger, "vaults", request.page_token), limit + 1)
        messages = [vault_message(vault) for vault in vaults]
        length = page_length((message.ByteSize() for message in messages), limit)
        response = pb.ListVaultsResponse(vaults=messages[:length])
        if len(vaults) > length:
            response.next_page_token = page_token(self._ledger, "vaults", vaults[length - 1].id)
        return response

    async def UpdateVault(self, request: pb.UpdateVaultRequest, context: Context) -> resources_pb2.Vault:
        vault = parse_vault_name(request.vault.name, "vault.name")
        values: dict[str, Any] = {
            "display_name": request.vault.display_name,
            "labels": dict(request.vault.labels),
        }
        fields = {path: values[path] for path in update_paths(request.update_mask, UPDATABLE)}
        etag = one_etag(request.etag, request.vault.etag)
        return vault_message(await self._vaults.update(context.intent(request), vault, fields, etag))

    async def DeleteVault(self, request: pb.DeleteVaultRequest, context: Context) -> Empty:
        await self._vaults.delete(context.intent(request), parse_vault_name(request.name), request.etag)
        return Empty()

    async def RevokeIdentity(
        self, request: identity_pb2.RevokeIdentityRequest, context: Context
    ) -> identity_pb2.RevokedIdentity:
        revoked = await self._revocations.revoke(context.intent(request), request.principal, request.reason)
        return revoked_identity_message(revoked)

    async def ListRevokedIdentities(
        self, request: identity_pb2.ListRevokedIdentitiesRequest, context: Context
    ) -> identity_pb2.ListRevokedIdentitiesResponse:
        del context
        limit = page_limit(request.page_size)
        rows = await self._revocations.list(page_start(self._ledger, "revocations", request.page_token), limit + 1)
        messages = [revoked_identity_message(revoked) for _, revoked in rows]
        length = page_length((message.ByteSize() for message in messages), limit)
        response = identity_pb2.ListRevokedIdentitiesResponse(revoked_identities=messages[:length])
        if len(rows) > length:
            response.next_page_token = page_token(self._ledger, "revocations", rows[length - 1][0])
        return response

    async def RestoreIdentity(self, request: identity_pb2.RestoreIdentityRequest, context: Context) -> Empty:
        await self._revocations.restore(context.intent(request), request.principal)
        return Empty()
