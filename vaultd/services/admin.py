"""AdminService: message to engine call and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.empty_pb2 import Empty

from vaultd import __version__
from vaultd.engine.paging import page_length, page_limit, page_start, page_token
from vaultd.engine.policy import seed_policy
from vaultd.engine.seal import SealState
from vaultd.names import parse_approval_name, parse_place, parse_quota_name, parse_quota_parent, parse_vault_name
from vaultd.secret import Secret
from vaultd.services.approvals import STATES as APPROVAL_STATES
from vaultd.services.approvals import approval_message, rule_of, rules_message
from vaultd.services.convert import one_etag, revoked_identity_message, set_time, update_paths, vault_message
from vaultd.services.quotas import UPDATABLE as QUOTA_FIELDS
from vaultd.services.quotas import own_message, quota_message, read_fields, read_spec
from vaultd_client.v1 import admin_pb2 as pb
from vaultd_client.v1 import approval_pb2, identity_pb2, quota_pb2, resources_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vaultd.engine.approvals import Approvals
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.quota_store import Quotas
    from vaultd.engine.revocations import Revocations
    from vaultd.engine.seal import Seal
    from vaultd.engine.vaults import Vaults
    from vaultd.services.audit import AuditCalls
    from vaultd.services.context import Context
    from vaultd.services.policy import PolicyCalls
    from vaultd.services.watch import WatchCalls

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
        approvals: Approvals,
        ledger: Ledger,
        start_us: int,
        components: Callable[[], Mapping[str, bool]],
        quotas: Quotas,
        policy: PolicyCalls,
        revocations: Revocations,
        watch: WatchCalls,
        audit: AuditCalls,
    ) -> None:
        self._seal = seal
        self._vaults = vaults
        self._approvals = approvals
        self._ledger = ledger
        self._start_us = start_us
        self._components = components
        self._quotas = quotas
        self.GetPolicy = policy.GetPolicy
        self.SetPolicy = policy.SetPolicy
        self.TestPolicy = policy.TestPolicy
        self.ExplainAccess = policy.ExplainAccess
        self.ReviewAccess = policy.ReviewAccess
        self._revocations = revocations
        self.Watch = watch.Watch
        self.GetInclusionProof = audit.GetInclusionProof
        self.GetConsistencyProof = audit.GetConsistencyProof
        self.VerifyAudit = audit.VerifyAudit
        self.TailAudit = audit.TailAudit

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

    async def CreateQuota(self, request: quota_pb2.CreateQuotaRequest, context: Context) -> quota_pb2.Quota:
        vault, spec = parse_quota_parent(request.parent), read_spec(request.quota)
        return quota_message(await self._quotas.create(context.intent(request), vault, request.quota_id, spec))

    async def GetQuota(self, request: quota_pb2.GetQuotaRequest, context: Context) -> quota_pb2.Quota:
        quota = await self._quotas.get(*parse_quota_name(request.name))
        return quota_message(quota, await self._quotas.left_of(quota, request.principal or context.principal))

    async def ListQuotas(self, request: quota_pb2.ListQuotasRequest, context: Context) -> quota_pb2.ListQuotasResponse:
        del context
        vault, limit, query = (
            parse_quota_parent(request.parent),
            page_limit(request.page_size),
            f"quotas {request.parent}",
        )
        quotas = await self._quotas.list(vault, page_start(self._ledger, query, request.page_token), limit + 1)
        messages = [quota_message(quota) for quota in quotas]
        length = page_length((message.ByteSize() for message in messages), limit)
        response = quota_pb2.ListQuotasResponse(quotas=messages[:length])
        if len(quotas) > length:
            response.next_page_token = page_token(self._ledger, query, quotas[length - 1].id)
        return response

    async def UpdateQuota(self, request: quota_pb2.UpdateQuotaRequest, context: Context) -> quota_pb2.Quota:
        vault, quota = parse_quota_name(request.quota.name, "quota.name")
        fields = read_fields(request.quota, update_paths(request.update_mask, QUOTA_FIELDS))
        etag = one_etag(request.etag, request.quota.etag)
        return quota_message(await self._quotas.update(context.intent(request), vault, quota, fields, etag))

    async def DeleteQuota(self, request: quota_pb2.DeleteQuotaRequest, context: Context) -> Empty:
        vault, quota = parse_quota_name(request.name)
        await self._quotas.delete(context.intent(request), vault, quota, request.etag)
        return Empty()

    async def ListOwnQuotas(
        self, request: quota_pb2.ListOwnQuotasRequest, context: Context
    ) -> quota_pb2.ListOwnQuotasResponse:
        path = self._quotas.path_of(request.method)
        found = await self._quotas.explain(context.principal, path, parse_place(request.resource))
        return quota_pb2.ListOwnQuotasResponse(quotas=[own_message(quota, left) for quota, left in found])

    async def GetApprovalRules(
        self, request: approval_pb2.GetApprovalRulesRequest, context: Context
    ) -> approval_pb2.ApprovalRules:
        del request, context
        return rules_message(self._approvals.rules)

    async def SetApprovalRules(
        self, request: approval_pb2.SetApprovalRulesRequest, context: Context
    ) -> approval_pb2.ApprovalRules:
        canonical = self._approvals.canonical_method
        rules = [rule_of(rule, f"rules[{at}]", canonical) for at, rule in enumerate(request.rules)]
        return rules_message(await self._approvals.set_rules(context.intent(request), rules, request.etag))

    async def ListApprovals(
        self, request: approval_pb2.ListApprovalsRequest, context: Context
    ) -> approval_pb2.ListApprovalsResponse:
        del context
        limit = page_limit(request.page_size)
        query = f"approvals {request.state}"
        after = page_start(self._ledger, query, request.page_token)
        approvals = await self._approvals.list(APPROVAL_STATES[request.state], after, limit + 1)
        messages = [approval_message(approval) for approval in approvals]
        length = page_length((message.ByteSize() for message in messages), limit)
        response = approval_pb2.ListApprovalsResponse(approvals=messages[:length])
        if len(approvals) > length:
            response.next_page_token = page_token(self._ledger, query, approvals[length - 1].id)
        return response

    async def GetApproval(self, request: approval_pb2.GetApprovalRequest, context: Context) -> approval_pb2.Approval:
        return approval_message(await self._approvals.get(context.principal, parse_approval_name(request.name)))

    async def ApproveRequest(
        self, request: approval_pb2.ApproveRequestRequest, context: Context
    ) -> approval_pb2.Approval:
        id = parse_approval_name(request.name)
        return approval_message(await self._approvals.approve(context.intent(request), id))

    async def RejectRequest(
        self, request: approval_pb2.RejectRequestRequest, context: Context
    ) -> approval_pb2.Approval:
        id = parse_approval_name(request.name)
        return approval_message(await self._approvals.reject(context.intent(request), id))

    async def CancelApproval(
        self, request: approval_pb2.CancelApprovalRequest, context: Context
    ) -> approval_pb2.Approval:
        id = parse_approval_name(request.name)
        return approval_message(await self._approvals.cancel(context.intent(request), id))

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
