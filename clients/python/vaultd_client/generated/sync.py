"""One method per RPC, blocking.  Generated from the protos by generate_methods.py: `make generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from vaultd_client.generated import table
from vaultd_client.method import SyncCalls
from vaultd_client.paging import pages
from vaultd_client.v1 import (
    admin_pb2,
    approval_pb2,
    audit_pb2,
    crypto_pb2,
    grant_pb2,
    identity_pb2,
    key_transfer_pb2,
    keys_pb2,
    policy_pb2,
    quota_pb2,
    rotation_pb2,
    secrets_pb2,
    watch_pb2,
)

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf import duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2

    from vaultd_client.info import CallInfo
    from vaultd_client.v1 import resources_pb2


class SyncMethods(SyncCalls):
    """Every RPC of package vaultd.v1; `Client` is the class to use."""

    __slots__ = ()

    def get_status(self, *, timeout_s: float | None = None, info: CallInfo | None = None) -> admin_pb2.Status:
        """Returns the state of the server. Caller needs `admin.get_status`, or is an operator. Idempotent."""
        request = admin_pb2.GetStatusRequest()
        return self._unary(table.GET_STATUS, request, timeout_s, info)

    def init(
        self,
        admin_principals: Iterable[str],
        passphrase: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> admin_pb2.Status:
        """Makes the key ring, the first vault `vaults/default` and the first administrators.

        Caller is an operator. Not idempotent: a second call is FAILED_PRECONDITION, reason ALREADY_INITIALIZED.
        """
        request = admin_pb2.InitRequest(admin_principals=admin_principals, passphrase=passphrase)
        return self._unary(table.INIT, request, timeout_s, info)

    def seal(self, *, timeout_s: float | None = None, info: CallInfo | None = None) -> admin_pb2.Status:
        """Forgets all keys: data calls answer UNAVAILABLE, reason SEALED, until Unseal.

        Caller needs `admin.seal`. Safe to repeat; a sealed server cannot read its policy and answers UNAVAILABLE,
        reason SEALED.
        """
        request = admin_pb2.SealRequest()
        return self._unary(table.SEAL, request, timeout_s, info)

    def unseal(
        self, passphrase: bytes = b"", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> admin_pb2.Status:
        """Opens the key ring. Caller is an operator. Idempotent."""
        request = admin_pb2.UnsealRequest(passphrase=passphrase)
        return self._unary(table.UNSEAL, request, timeout_s, info)

    def rotate_root_key(
        self,
        passphrase: bytes = b"",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> admin_pb2.Status:
        """Re-wraps the key ring under a new root key and starts a new term; rows move to it in the background.

        Caller needs `admin.rotate_root_key`. Idempotent with request_id. Until it returns, the old root key still opens
        the server.
        """
        request = admin_pb2.RotateRootKeyRequest(passphrase=passphrase, request_id=request_id)
        return self._unary(table.ROTATE_ROOT_KEY, request, timeout_s, info)

    def create_vault(
        self,
        vault_id: str,
        vault: resources_pb2.Vault | Mapping[str, Any] | None = None,
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Vault:
        """Creates a vault.

        Caller needs `vaults.create` on `vaults`. Idempotent with request_id. A name that ever existed is
        ALREADY_EXISTS.
        """
        request = admin_pb2.CreateVaultRequest(vault_id=vault_id, vault=vault, request_id=request_id)
        return self._unary(table.CREATE_VAULT, request, timeout_s, info)

    def get_vault(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> resources_pb2.Vault:
        """Returns a vault. Caller needs `vaults.get` on the vault. Idempotent."""
        request = admin_pb2.GetVaultRequest(name=name)
        return self._unary(table.GET_VAULT, request, timeout_s, info)

    def list_vaults(
        self, page_size: int = 0, page_token: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> admin_pb2.ListVaultsResponse:
        """Lists vaults by name. Caller needs `vaults.list` on `vaults`. Idempotent."""
        request = admin_pb2.ListVaultsRequest(page_size=page_size, page_token=page_token)
        return self._unary(table.LIST_VAULTS, request, timeout_s, info)

    def iter_vaults(
        self, page_size: int = 0, page_token: str = "", *, timeout_s: float | None = None
    ) -> Iterator[resources_pb2.Vault]:
        """Goes over all pages of list_vaults; each is asked for, within timeout_s, when the one before it was read."""
        request = admin_pb2.ListVaultsRequest(page_size=page_size, page_token=page_token)
        for page in pages(self, table.LIST_VAULTS, request, timeout_s):
            yield from page.vaults

    def update_vault(
        self,
        vault: resources_pb2.Vault | Mapping[str, Any],
        update_mask: field_mask_pb2.FieldMask | Mapping[str, Any],
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Vault:
        """Changes display name or labels. Caller needs `vaults.update` on the vault. Idempotent."""
        request = admin_pb2.UpdateVaultRequest(vault=vault, update_mask=update_mask, etag=etag, request_id=request_id)
        return self._unary(table.UPDATE_VAULT, request, timeout_s, info)

    def delete_vault(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> empty_pb2.Empty:
        """Deletes an empty vault; its name is never reused.

        Caller needs `vaults.delete` on the vault. Not idempotent without request_id. A vault with keys that are not
        purged is FAILED_PRECONDITION, reason VAULT_NOT_EMPTY.
        """
        request = admin_pb2.DeleteVaultRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DELETE_VAULT, request, timeout_s, info)

    def create_quota(
        self,
        parent: str,
        quota_id: str,
        quota: quota_pb2.Quota | Mapping[str, Any],
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> quota_pb2.Quota:
        """Creates a quota; it is in force on this process when the call returns, on others within a poll of the feed.

        Caller needs `quotas.create` on the parent. Idempotent with request_id.
        """
        request = quota_pb2.CreateQuotaRequest(parent=parent, quota_id=quota_id, quota=quota, request_id=request_id)
        return self._unary(table.CREATE_QUOTA, request, timeout_s, info)

    def get_quota(
        self, name: str, principal: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> quota_pb2.Quota:
        """Returns a quota and what is left of it.

        Caller needs `quotas.get` on the quota's parent. Idempotent.
        """
        request = quota_pb2.GetQuotaRequest(name=name, principal=principal)
        return self._unary(table.GET_QUOTA, request, timeout_s, info)

    def list_quotas(
        self,
        parent: str,
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> quota_pb2.ListQuotasResponse:
        """Lists quotas by name. Caller needs `quotas.list` on the parent. Idempotent."""
        request = quota_pb2.ListQuotasRequest(parent=parent, page_size=page_size, page_token=page_token)
        return self._unary(table.LIST_QUOTAS, request, timeout_s, info)

    def iter_quotas(
        self, parent: str, page_size: int = 0, page_token: str = "", *, timeout_s: float | None = None
    ) -> Iterator[quota_pb2.Quota]:
        """Goes over all pages of list_quotas; each is asked for, within timeout_s, when the one before it was read."""
        request = quota_pb2.ListQuotasRequest(parent=parent, page_size=page_size, page_token=page_token)
        for page in pages(self, table.LIST_QUOTAS, request, timeout_s):
            yield from page.quotas

    def update_quota(
        self,
        quota: quota_pb2.Quota | Mapping[str, Any],
        update_mask: field_mask_pb2.FieldMask | Mapping[str, Any],
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> quota_pb2.Quota:
        """Changes classes, methods or windows.

        What a durable window has spent stays spent; shorter ones begin anew, full. Caller needs `quotas.update` on the
        quota's parent. Idempotent.
        """
        request = quota_pb2.UpdateQuotaRequest(quota=quota, update_mask=update_mask, etag=etag, request_id=request_id)
        return self._unary(table.UPDATE_QUOTA, request, timeout_s, info)

    def delete_quota(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> empty_pb2.Empty:
        """Deletes a quota.

        Caller needs `quotas.delete` on the quota's parent. Not idempotent without request_id.
        """
        request = quota_pb2.DeleteQuotaRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DELETE_QUOTA, request, timeout_s, info)

    def list_own_quotas(
        self, resource: str, method: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> quota_pb2.ListOwnQuotasResponse:
        """Returns what is left for the caller itself, and nothing of others.

        Caller needs `quotas.get_own` on the resource. Idempotent.
        """
        request = quota_pb2.ListOwnQuotasRequest(resource=resource, method=method)
        return self._unary(table.LIST_OWN_QUOTAS, request, timeout_s, info)

    def get_approval_rules(
        self, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> approval_pb2.ApprovalRules:
        """Returns the approval rules. Caller needs `approvals.get_rules` on `/`. Idempotent."""
        request = approval_pb2.GetApprovalRulesRequest()
        return self._unary(table.GET_APPROVAL_RULES, request, timeout_s, info)

    def set_approval_rules(
        self,
        rules: Iterable[approval_pb2.ApprovalRule | Mapping[str, Any]],
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> approval_pb2.ApprovalRules:
        """Replaces the approval rules; requests that a changed rule covers are VOIDED.

        Caller needs `approvals.set_rules` on `/`. Idempotent. In force on this node when it returns, on others within a
        second. While a rule names SetApprovalRules, this needs approval like everything that a rule covers.
        """
        request = approval_pb2.SetApprovalRulesRequest(rules=rules, etag=etag, request_id=request_id)
        return self._unary(table.SET_APPROVAL_RULES, request, timeout_s, info)

    def list_approvals(
        self,
        state: approval_pb2.ApprovalState | str | None = None,
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> approval_pb2.ListApprovalsResponse:
        """Lists requests that need or needed approval; those that ended are kept for 90 days.

        Caller needs `approvals.list` on `/`. Idempotent.
        """
        request = approval_pb2.ListApprovalsRequest(state=state, page_size=page_size, page_token=page_token)
        return self._unary(table.LIST_APPROVALS, request, timeout_s, info)

    def iter_approvals(
        self,
        state: approval_pb2.ApprovalState | str | None = None,
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
    ) -> Iterator[approval_pb2.Approval]:
        """Goes over all pages of list_approvals; each is asked for, within timeout_s, when the one before it was read."""
        request = approval_pb2.ListApprovalsRequest(state=state, page_size=page_size, page_token=page_token)
        for page in pages(self, table.LIST_APPROVALS, request, timeout_s):
            yield from page.approvals

    def get_approval(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> approval_pb2.Approval:
        """Returns a request that needs or needed approval.

        Caller made it, or is an approver of one of its rules, or holds `approvals.list` on `/`. Idempotent.
        """
        request = approval_pb2.GetApprovalRequest(name=name)
        return self._unary(table.GET_APPROVAL, request, timeout_s, info)

    def approve_request(
        self, name: str, request_id: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> approval_pb2.Approval:
        """Approves a PENDING request.

        Caller is an approver of one of its rules, and not its requester. Idempotent: an approver counts once. With the
        last approval that its rules require it is APPROVED, and its requester may send the same request again.
        """
        request = approval_pb2.ApproveRequestRequest(name=name, request_id=request_id)
        return self._unary(table.APPROVE_REQUEST, request, timeout_s, info)

    def reject_request(
        self, name: str, request_id: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> approval_pb2.Approval:
        """Rejects a request that is PENDING or APPROVED, for good.

        Caller is an approver of one of its rules, and not its requester. Not idempotent without request_id.
        """
        request = approval_pb2.RejectRequestRequest(name=name, request_id=request_id)
        return self._unary(table.REJECT_REQUEST, request, timeout_s, info)

    def cancel_approval(
        self, name: str, request_id: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> approval_pb2.Approval:
        """Takes back a request that is PENDING or APPROVED, for good.

        Caller made it. Not idempotent without request_id.
        """
        request = approval_pb2.CancelApprovalRequest(name=name, request_id=request_id)
        return self._unary(table.CANCEL_APPROVAL, request, timeout_s, info)

    def get_policy(
        self, resource: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> policy_pb2.ResourcePolicy:
        """Returns the whole policy, or the part of one vault.

        Caller needs `policy.get` on the resource. Idempotent.
        """
        request = policy_pb2.GetPolicyRequest(resource=resource)
        return self._unary(table.GET_POLICY, request, timeout_s, info)

    def set_policy(
        self,
        resource: str,
        policy: policy_pb2.Policy | Mapping[str, Any],
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> policy_pb2.ResourcePolicy:
        """Replaces the whole policy, or the part of one vault.

        Caller needs `policy.set` on the resource. Idempotent. In one transaction, in force on this node when it
        returns. Nobody gives what they do not hold themselves, unconditionally, or lifts a deny that applies to them;
        somebody must still hold `policy.set` on `/`. Who holds it on a vault only cannot deny there what is bound above
        the vault.
        """
        request = policy_pb2.SetPolicyRequest(resource=resource, policy=policy, etag=etag, request_id=request_id)
        return self._unary(table.SET_POLICY, request, timeout_s, info)

    def test_policy(
        self,
        resource: str,
        permissions: Iterable[str] = (),
        principal: str = "",
        policy: policy_pb2.Policy | Mapping[str, Any] | None = None,
        policy_resource: str = "",
        circumstances: policy_pb2.Circumstances | Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> policy_pb2.TestPolicyResponse:
        """Tells which permissions the caller holds on a resource, which needs none.

        With a principal or a policy of the request, the caller needs `policy.get` on the resource, and with a policy on
        policy_resource, too. Idempotent.
        """
        request = policy_pb2.TestPolicyRequest(
            resource=resource,
            permissions=permissions,
            principal=principal,
            policy=policy,
            policy_resource=policy_resource,
            circumstances=circumstances,
        )
        return self._unary(table.TEST_POLICY, request, timeout_s, info)

    def explain_access(
        self,
        principal: str = "",
        method: str = "",
        resource: str = "",
        incident_id: str = "",
        circumstances: policy_pb2.Circumstances | Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> policy_pb2.ExplainAccessResponse:
        """Tells why a call would be allowed or refused.

        Caller needs `policy.get` on the resource. With incident_id it tells of a refused call: callers may ask for
        their own without a permission, and learn only what they were told then; for others' they need `policy.get` on
        the resources of that call, or on `/` where it named none. Idempotent.
        """
        request = policy_pb2.ExplainAccessRequest(
            principal=principal, method=method, resource=resource, incident_id=incident_id, circumstances=circumstances
        )
        return self._unary(table.EXPLAIN_ACCESS, request, timeout_s, info)

    def review_access(
        self,
        resource: str,
        unused_for: datetime.timedelta | duration_pb2.Duration | None = None,
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> policy_pb2.ReviewAccessResponse:
        """Lists who can do what on a resource, through which binding, and when they last did.

        Caller needs `policy.get` on the resource. Idempotent.
        """
        request = policy_pb2.ReviewAccessRequest(
            resource=resource, unused_for=unused_for, page_size=page_size, page_token=page_token
        )
        return self._unary(table.REVIEW_ACCESS, request, timeout_s, info)

    def revoke_identity(
        self,
        principal: str,
        reason: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> identity_pb2.RevokedIdentity:
        """Refuses the calls of a principal from now on, on open connections too: on this node when it returns, on every
        other within a second.

        Caller needs `admin.revoke_identity`. Idempotent. Oneself is FAILED_PRECONDITION, reason REVOKES_ITSELF; the
        last administrator is FAILED_PRECONDITION, reason LAST_ADMINISTRATOR.
        """
        request = identity_pb2.RevokeIdentityRequest(principal=principal, reason=reason, request_id=request_id)
        return self._unary(table.REVOKE_IDENTITY, request, timeout_s, info)

    def list_revoked_identities(
        self, page_size: int = 0, page_token: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> identity_pb2.ListRevokedIdentitiesResponse:
        """Lists revoked principals. Caller needs `admin.list_revoked_identities`. Idempotent."""
        request = identity_pb2.ListRevokedIdentitiesRequest(page_size=page_size, page_token=page_token)
        return self._unary(table.LIST_REVOKED_IDENTITIES, request, timeout_s, info)

    def iter_revoked_identities(
        self, page_size: int = 0, page_token: str = "", *, timeout_s: float | None = None
    ) -> Iterator[identity_pb2.RevokedIdentity]:
        """Goes over all pages of list_revoked_identities; each is asked for, within timeout_s, when the one before it was read."""
        request = identity_pb2.ListRevokedIdentitiesRequest(page_size=page_size, page_token=page_token)
        for page in pages(self, table.LIST_REVOKED_IDENTITIES, request, timeout_s):
            yield from page.revoked_identities

    def restore_identity(
        self, principal: str, request_id: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> empty_pb2.Empty:
        """Lifts a revocation.

        Caller needs `admin.restore_identity`. Idempotent with request_id: a principal that is not revoked is NOT_FOUND.
        """
        request = identity_pb2.RestoreIdentityRequest(principal=principal, request_id=request_id)
        return self._unary(table.RESTORE_IDENTITY, request, timeout_s, info)

    def watch(
        self,
        resume_token: str = "",
        filter: watch_pb2.WatchFilter | Mapping[str, Any] | None = None,
        after_revision: int | None = None,
        heartbeat_interval: datetime.timedelta | duration_pb2.Duration | None = None,
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> Iterator[watch_pb2.WatchResponse]:
        """Sends changes of resources as they are committed, by this node or by another on the same store.

        Caller needs, on the filter's resource, above or below it, a permission that shows some kind of resource; each
        change is shown only to a caller who may get the resource, as the policy then says. Resumable: OUT_OF_RANGE,
        reason COMPACTED, when the feed no longer reaches back so far. A reader that falls too far behind gets ABORTED,
        reason WATCHER_TOO_SLOW; every status that the server ends a watch with has the resume_token in its ErrorInfo.
        Idempotent.
        """
        request = watch_pb2.WatchRequest(
            resume_token=resume_token,
            filter=filter,
            after_revision=after_revision,
            heartbeat_interval=heartbeat_interval,
        )
        return self._server_stream(table.WATCH, request, timeout_s, info)

    def get_inclusion_proof(
        self,
        sequence: int,
        chain_id: bytes = b"",
        leaf_hash: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> audit_pb2.InclusionProof:
        """Proves that a record is in the signed log of this node: what an answer's receipt promised.

        Caller needs `audit.get_proof`. Idempotent. A record that was removed as too old is NOT_FOUND, reason
        AUDIT_RECORD_NOT_FOUND.
        """
        request = audit_pb2.GetInclusionProofRequest(sequence=sequence, chain_id=chain_id, leaf_hash=leaf_hash)
        return self._unary(table.GET_INCLUSION_PROOF, request, timeout_s, info)

    def get_consistency_proof(
        self, tree_size: int, chain_id: bytes = b"", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> audit_pb2.ConsistencyProof:
        """Proves that the newest signed tree begins with an earlier one: nothing was changed since.

        Caller needs `audit.get_proof`. Idempotent.
        """
        request = audit_pb2.GetConsistencyProofRequest(tree_size=tree_size, chain_id=chain_id)
        return self._unary(table.GET_CONSISTENCY_PROOF, request, timeout_s, info)

    def verify_audit(
        self,
        first_sequence: int = 0,
        max_records: int = 0,
        chain_id: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> audit_pb2.VerifyAuditResponse:
        """Verifies a part of this node's audit log on disk: hashes, MACs, signatures and roots.

        Caller needs `audit.verify`. Idempotent. A bad record is an answer and no error. Whoever does not trust the node
        runs `vaultd audit verify` on a copy.
        """
        request = audit_pb2.VerifyAuditRequest(
            first_sequence=first_sequence, max_records=max_records, chain_id=chain_id
        )
        return self._unary(table.VERIFY_AUDIT, request, timeout_s, info)

    def tail_audit(
        self,
        after_sequence: int | None = None,
        start_time: datetime.datetime | timestamp_pb2.Timestamp | None = None,
        filter: audit_pb2.AuditFilter | Mapping[str, Any] | None = None,
        stop_at_end: bool = False,
        heartbeat_interval: datetime.timedelta | duration_pb2.Duration | None = None,
        chain_id: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> Iterator[audit_pb2.TailAuditResponse]:
        """Sends records of this node's audit log, from one on or as they are written.

        Caller needs `audit.tail`. Idempotent. Records that are not in the log any more are OUT_OF_RANGE, reason
        AUDIT_PRUNED; its ErrorInfo names the oldest.
        """
        request = audit_pb2.TailAuditRequest(
            after_sequence=after_sequence,
            start_time=start_time,
            filter=filter,
            stop_at_end=stop_at_end,
            heartbeat_interval=heartbeat_interval,
            chain_id=chain_id,
        )
        return self._server_stream(table.TAIL_AUDIT, request, timeout_s, info)

    def encrypt(
        self,
        name: str,
        plaintext: bytes,
        associated_data: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.EncryptResponse:
        """Encrypts.

        Caller needs `crypto.encrypt` on the key. Not idempotent (a fresh nonce each time), but safe to repeat.
        """
        request = crypto_pb2.EncryptRequest(name=name, plaintext=plaintext, associated_data=associated_data)
        return self._unary(table.ENCRYPT, request, timeout_s, info)

    def decrypt(
        self,
        name: str,
        ciphertext: bytes,
        associated_data: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.DecryptResponse:
        """Decrypts.

        Caller needs `crypto.decrypt` on the key. Idempotent. Every failure to open has one code and one text.
        """
        request = crypto_pb2.DecryptRequest(name=name, ciphertext=ciphertext, associated_data=associated_data)
        return self._unary(table.DECRYPT, request, timeout_s, info)

    def re_encrypt(
        self,
        source_name: str,
        ciphertext: bytes,
        destination_name: str,
        source_associated_data: bytes = b"",
        destination_associated_data: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.ReEncryptResponse:
        """Decrypts under one key and encrypts under another inside the server.

        Caller needs `crypto.reencrypt_from` on the source and `crypto.reencrypt_to` on the destination. Not idempotent,
        but safe to repeat.
        """
        request = crypto_pb2.ReEncryptRequest(
            source_name=source_name,
            ciphertext=ciphertext,
            source_associated_data=source_associated_data,
            destination_name=destination_name,
            destination_associated_data=destination_associated_data,
        )
        return self._unary(table.RE_ENCRYPT, request, timeout_s, info)

    @overload
    def sign(
        self,
        name: str,
        message: bytes,
        *,
        signature_encoding: resources_pb2.SignatureEncoding | str | None = ...,
        timeout_s: float | None = ...,
        info: CallInfo | None = ...,
    ) -> crypto_pb2.SignResponse: ...
    @overload
    def sign(
        self,
        name: str,
        *,
        digest: bytes,
        signature_encoding: resources_pb2.SignatureEncoding | str | None = ...,
        timeout_s: float | None = ...,
        info: CallInfo | None = ...,
    ) -> crypto_pb2.SignResponse: ...
    def sign(
        self,
        name: str,
        message: bytes | None = None,
        *,
        digest: bytes | None = None,
        signature_encoding: resources_pb2.SignatureEncoding | str | None = None,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.SignResponse:
        """Signs.

        Caller needs `crypto.sign` on the key. Idempotent in effect; randomised schemes give a new signature.
        """
        if (message, digest).count(None) != 1:
            raise TypeError("sign() takes message or digest, exactly one of them")
        request = crypto_pb2.SignRequest(
            name=name, message=message, digest=digest, signature_encoding=signature_encoding
        )
        return self._unary(table.SIGN, request, timeout_s, info)

    @overload
    def verify(
        self,
        name: str,
        message: bytes,
        signature: bytes,
        *,
        signature_encoding: resources_pb2.SignatureEncoding | str | None = ...,
        timeout_s: float | None = ...,
        info: CallInfo | None = ...,
    ) -> crypto_pb2.VerifyResponse: ...
    @overload
    def verify(
        self,
        name: str,
        *,
        digest: bytes,
        signature: bytes,
        signature_encoding: resources_pb2.SignatureEncoding | str | None = ...,
        timeout_s: float | None = ...,
        info: CallInfo | None = ...,
    ) -> crypto_pb2.VerifyResponse: ...
    def verify(
        self,
        name: str,
        message: bytes | None = None,
        signature: bytes | None = None,
        *,
        digest: bytes | None = None,
        signature_encoding: resources_pb2.SignatureEncoding | str | None = None,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.VerifyResponse:
        """Verifies a signature. Caller needs `crypto.verify` on the key. Idempotent."""
        if (message, digest).count(None) != 1:
            raise TypeError("verify() takes message or digest, exactly one of them")
        if signature is None:
            raise TypeError("verify() needs signature")
        request = crypto_pb2.VerifyRequest(
            name=name, message=message, digest=digest, signature=signature, signature_encoding=signature_encoding
        )
        return self._unary(table.VERIFY, request, timeout_s, info)

    def generate_mac(
        self, name: str, data: bytes, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> crypto_pb2.GenerateMacResponse:
        """Makes a message authentication code. Caller needs `crypto.generate_mac` on the key. Idempotent."""
        request = crypto_pb2.GenerateMacRequest(name=name, data=data)
        return self._unary(table.GENERATE_MAC, request, timeout_s, info)

    def verify_mac(
        self, name: str, data: bytes, mac: bytes, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> crypto_pb2.VerifyMacResponse:
        """Checks a message authentication code. Caller needs `crypto.verify_mac` on the key. Idempotent."""
        request = crypto_pb2.VerifyMacRequest(name=name, data=data, mac=mac)
        return self._unary(table.VERIFY_MAC, request, timeout_s, info)

    def wrap_key(
        self, name: str, key_material: bytes, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> crypto_pb2.WrapKeyResponse:
        """Wraps key material. Caller needs `crypto.wrap` on the key. Idempotent."""
        request = crypto_pb2.WrapKeyRequest(name=name, key_material=key_material)
        return self._unary(table.WRAP_KEY, request, timeout_s, info)

    def unwrap_key(
        self, name: str, wrapped_key: bytes, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> crypto_pb2.UnwrapKeyResponse:
        """Unwraps key material. Caller needs `crypto.unwrap` on the key. Idempotent."""
        request = crypto_pb2.UnwrapKeyRequest(name=name, wrapped_key=wrapped_key)
        return self._unary(table.UNWRAP_KEY, request, timeout_s, info)

    def generate_data_key(
        self,
        name: str,
        length_bytes: int = 0,
        include_plaintext: bool = False,
        count: int = 0,
        associated_data: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.GenerateDataKeyResponse:
        """Makes data keys for envelope encryption.

        Caller needs `crypto.generate_data_key` on the key. Not idempotent, but safe to repeat: nothing is stored.
        """
        request = crypto_pb2.GenerateDataKeyRequest(
            name=name,
            length_bytes=length_bytes,
            include_plaintext=include_plaintext,
            count=count,
            associated_data=associated_data,
        )
        return self._unary(table.GENERATE_DATA_KEY, request, timeout_s, info)

    def encapsulate(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> crypto_pb2.EncapsulateResponse:
        """Makes a shared secret and its encapsulation.

        Caller needs `crypto.encapsulate` on the key. Not idempotent, but safe to repeat.
        """
        request = crypto_pb2.EncapsulateRequest(name=name)
        return self._unary(table.ENCAPSULATE, request, timeout_s, info)

    def decapsulate(
        self, name: str, ciphertext: bytes, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> crypto_pb2.DecapsulateResponse:
        """Opens an encapsulation. Caller needs `crypto.decapsulate` on the key. Idempotent."""
        request = crypto_pb2.DecapsulateRequest(name=name, ciphertext=ciphertext)
        return self._unary(table.DECAPSULATE, request, timeout_s, info)

    def derive_shared_secret(
        self, name: str, peer_public_key: bytes, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> crypto_pb2.DeriveSharedSecretResponse:
        """Agrees on a secret with a peer. Caller needs `crypto.derive` on the key. Idempotent."""
        request = crypto_pb2.DeriveSharedSecretRequest(name=name, peer_public_key=peer_public_key)
        return self._unary(table.DERIVE_SHARED_SECRET, request, timeout_s, info)

    def generate_random_bytes(
        self,
        parent: str,
        length_bytes: int,
        protection_level: resources_pb2.ProtectionLevel | str | None = None,
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.GenerateRandomBytesResponse:
        """Returns random bytes.

        Caller needs `crypto.generate_random` on the vault. Not idempotent, but safe to repeat.
        """
        request = crypto_pb2.GenerateRandomBytesRequest(
            parent=parent, length_bytes=length_bytes, protection_level=protection_level
        )
        return self._unary(table.GENERATE_RANDOM_BYTES, request, timeout_s, info)

    def inspect_ciphertext(
        self, name: str, ciphertext: bytes, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> crypto_pb2.InspectCiphertextResponse:
        """Reads the header of an AEAD ciphertext. Caller needs `crypto.inspect` on the key. Idempotent."""
        request = crypto_pb2.InspectCiphertextRequest(name=name, ciphertext=ciphertext)
        return self._unary(table.INSPECT_CIPHERTEXT, request, timeout_s, info)

    def batch_encrypt(
        self,
        items: Iterable[crypto_pb2.EncryptRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchEncryptResponse:
        """Encrypt for many items.

        Caller needs `crypto.encrypt` on each item's key; a denied item fails by itself. Idempotent as Encrypt is.
        """
        request = crypto_pb2.BatchEncryptRequest(items=items)
        return self._unary(table.BATCH_ENCRYPT, request, timeout_s, info)

    def batch_decrypt(
        self,
        items: Iterable[crypto_pb2.DecryptRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchDecryptResponse:
        """Decrypt for many items.

        Caller needs `crypto.decrypt` on each item's key; a denied item fails by itself. Idempotent as Decrypt is.
        """
        request = crypto_pb2.BatchDecryptRequest(items=items)
        return self._unary(table.BATCH_DECRYPT, request, timeout_s, info)

    def batch_re_encrypt(
        self,
        items: Iterable[crypto_pb2.ReEncryptRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchReEncryptResponse:
        """ReEncrypt for many items.

        Caller needs `crypto.reencrypt_from` and `crypto.reencrypt_to` on each item's key; a denied item fails by
        itself. Idempotent as ReEncrypt is.
        """
        request = crypto_pb2.BatchReEncryptRequest(items=items)
        return self._unary(table.BATCH_RE_ENCRYPT, request, timeout_s, info)

    def batch_sign(
        self,
        items: Iterable[crypto_pb2.SignRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchSignResponse:
        """Sign for many items.

        Caller needs `crypto.sign` on each item's key; a denied item fails by itself. Idempotent as Sign is.
        """
        request = crypto_pb2.BatchSignRequest(items=items)
        return self._unary(table.BATCH_SIGN, request, timeout_s, info)

    def batch_verify(
        self,
        items: Iterable[crypto_pb2.VerifyRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchVerifyResponse:
        """Verify for many items.

        Caller needs `crypto.verify` on each item's key; a denied item fails by itself. Idempotent as Verify is.
        """
        request = crypto_pb2.BatchVerifyRequest(items=items)
        return self._unary(table.BATCH_VERIFY, request, timeout_s, info)

    def batch_generate_mac(
        self,
        items: Iterable[crypto_pb2.GenerateMacRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchGenerateMacResponse:
        """GenerateMac for many items.

        Caller needs `crypto.generate_mac` on each item's key; a denied item fails by itself. Idempotent as GenerateMac
        is.
        """
        request = crypto_pb2.BatchGenerateMacRequest(items=items)
        return self._unary(table.BATCH_GENERATE_MAC, request, timeout_s, info)

    def batch_verify_mac(
        self,
        items: Iterable[crypto_pb2.VerifyMacRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchVerifyMacResponse:
        """VerifyMac for many items.

        Caller needs `crypto.verify_mac` on each item's key; a denied item fails by itself. Idempotent as VerifyMac is.
        """
        request = crypto_pb2.BatchVerifyMacRequest(items=items)
        return self._unary(table.BATCH_VERIFY_MAC, request, timeout_s, info)

    def batch_wrap_key(
        self,
        items: Iterable[crypto_pb2.WrapKeyRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchWrapKeyResponse:
        """WrapKey for many items.

        Caller needs `crypto.wrap` on each item's key; a denied item fails by itself. Idempotent as WrapKey is.
        """
        request = crypto_pb2.BatchWrapKeyRequest(items=items)
        return self._unary(table.BATCH_WRAP_KEY, request, timeout_s, info)

    def batch_unwrap_key(
        self,
        items: Iterable[crypto_pb2.UnwrapKeyRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> crypto_pb2.BatchUnwrapKeyResponse:
        """UnwrapKey for many items.

        Caller needs `crypto.unwrap` on each item's key; a denied item fails by itself. Idempotent as UnwrapKey is.
        """
        request = crypto_pb2.BatchUnwrapKeyRequest(items=items)
        return self._unary(table.BATCH_UNWRAP_KEY, request, timeout_s, info)

    def crypto_stream(
        self,
        requests: Iterable[crypto_pb2.CryptoStreamRequest],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> Iterator[crypto_pb2.CryptoStreamResponse]:
        """Operations with ids in, results with ids out, in any order.

        Each operation is throttled, authorised, granted and recorded as the single call is, caller needs its
        permission, and it fails by itself. Idempotent as the single calls are.
        """
        return self._bidi_stream(table.CRYPTO_STREAM, requests, timeout_s, info)

    def re_encrypt_stream(
        self,
        requests: Iterable[crypto_pb2.ReEncryptStreamRequest],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> Iterator[crypto_pb2.ReEncryptStreamResponse]:
        """Ciphertexts in, ciphertexts on the newest version out, and a report of what is left.

        Caller needs `crypto.reencrypt_from` on the source and `crypto.reencrypt_to` on the destination; each item is
        recorded as ReEncrypt is. Resumable: send again what was not answered, or everything, since what is on the
        newest version already is only counted. Idempotent in effect.
        """
        return self._bidi_stream(table.RE_ENCRYPT_STREAM, requests, timeout_s, info)

    def create_key(
        self,
        parent: str,
        key_id: str,
        key: resources_pb2.Key | Mapping[str, Any],
        request_id: str = "",
        skip_initial_version: bool = False,
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Key:
        """Creates a key and, unless it is to be imported, its first version, which becomes primary.

        Caller needs `keys.create` on the vault. Idempotent with request_id. A name that exists, or ever existed, is
        ALREADY_EXISTS.
        """
        request = keys_pb2.CreateKeyRequest(
            parent=parent, key_id=key_id, key=key, request_id=request_id, skip_initial_version=skip_initial_version
        )
        return self._unary(table.CREATE_KEY, request, timeout_s, info)

    def adopt_key(
        self,
        parent: str,
        key_id: str,
        key: resources_pb2.Key | Mapping[str, Any],
        token_key: keys_pb2.TokenKey | Mapping[str, Any],
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Key:
        """Creates a key whose first version is a key that a PKCS#11 token holds already; nothing in the token changes.

        Caller needs `keys.adopt` on the vault, which only the role admin has: the tokens belong to all vaults.
        Idempotent with request_id. The key is proved by a use before it is taken over. An object that a key version
        uses already is ALREADY_EXISTS, reason TOKEN_KEY_IN_USE. Rotation makes new versions in the first slot's token;
        destroying the version destroys the object.
        """
        request = keys_pb2.AdoptKeyRequest(
            parent=parent, key_id=key_id, key=key, token_key=token_key, request_id=request_id
        )
        return self._unary(table.ADOPT_KEY, request, timeout_s, info)

    def get_key(self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None) -> resources_pb2.Key:
        """Returns a key, also a soft-deleted one. Caller needs `keys.get` on the key. Idempotent."""
        request = keys_pb2.GetKeyRequest(name=name)
        return self._unary(table.GET_KEY, request, timeout_s, info)

    def list_keys(
        self,
        parent: str,
        page_size: int = 0,
        page_token: str = "",
        show_deleted: bool = False,
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> keys_pb2.ListKeysResponse:
        """Lists the keys of a vault by name. Caller needs `keys.list` on the vault. Idempotent."""
        request = keys_pb2.ListKeysRequest(
            parent=parent, page_size=page_size, page_token=page_token, show_deleted=show_deleted
        )
        return self._unary(table.LIST_KEYS, request, timeout_s, info)

    def iter_keys(
        self,
        parent: str,
        page_size: int = 0,
        page_token: str = "",
        show_deleted: bool = False,
        *,
        timeout_s: float | None = None,
    ) -> Iterator[resources_pb2.Key]:
        """Goes over all pages of list_keys; each is asked for, within timeout_s, when the one before it was read."""
        request = keys_pb2.ListKeysRequest(
            parent=parent, page_size=page_size, page_token=page_token, show_deleted=show_deleted
        )
        for page in pages(self, table.LIST_KEYS, request, timeout_s):
            yield from page.keys

    def update_key(
        self,
        key: resources_pb2.Key | Mapping[str, Any],
        update_mask: field_mask_pb2.FieldMask | Mapping[str, Any],
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Key:
        """Changes labels, rotation, expiry, purge protection or the minimum version.

        Caller needs `keys.update` on the key. Idempotent.
        """
        request = keys_pb2.UpdateKeyRequest(key=key, update_mask=update_mask, etag=etag, request_id=request_id)
        return self._unary(table.UPDATE_KEY, request, timeout_s, info)

    def rotate_key(
        self,
        name: str,
        keep_primary: bool = False,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.KeyVersion:
        """Makes a new version, primary unless keep_primary.

        Caller needs `keys.rotate` on the key. Idempotent with request_id.
        """
        request = keys_pb2.RotateKeyRequest(name=name, keep_primary=keep_primary, etag=etag, request_id=request_id)
        return self._unary(table.ROTATE_KEY, request, timeout_s, info)

    def set_primary_version(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Key:
        """Makes an ENABLED version the primary one. Caller needs `keys.rotate` on the key. Idempotent."""
        request = keys_pb2.SetPrimaryVersionRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.SET_PRIMARY_VERSION, request, timeout_s, info)

    def list_key_versions(
        self,
        parent: str,
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> keys_pb2.ListKeyVersionsResponse:
        """Lists the versions of a key, oldest first. Caller needs `keys.get` on the key. Idempotent."""
        request = keys_pb2.ListKeyVersionsRequest(parent=parent, page_size=page_size, page_token=page_token)
        return self._unary(table.LIST_KEY_VERSIONS, request, timeout_s, info)

    def iter_key_versions(
        self, parent: str, page_size: int = 0, page_token: str = "", *, timeout_s: float | None = None
    ) -> Iterator[resources_pb2.KeyVersion]:
        """Goes over all pages of list_key_versions; each is asked for, within timeout_s, when the one before it was read."""
        request = keys_pb2.ListKeyVersionsRequest(parent=parent, page_size=page_size, page_token=page_token)
        for page in pages(self, table.LIST_KEY_VERSIONS, request, timeout_s):
            yield from page.key_versions

    def get_key_version(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> resources_pb2.KeyVersion:
        """Returns a version. Caller needs `keys.get` on the key. Idempotent."""
        request = keys_pb2.GetKeyVersionRequest(name=name)
        return self._unary(table.GET_KEY_VERSION, request, timeout_s, info)

    def enable_key_version(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.KeyVersion:
        """Lets a DISABLED version be used again. Caller needs `keys.update` on the key. Idempotent."""
        request = keys_pb2.EnableKeyVersionRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.ENABLE_KEY_VERSION, request, timeout_s, info)

    def disable_key_version(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.KeyVersion:
        """Stops all use of a version.

        Caller needs `keys.update` on the key. Idempotent. In force on this node when it returns.
        """
        request = keys_pb2.DisableKeyVersionRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DISABLE_KEY_VERSION, request, timeout_s, info)

    def destroy_key_version(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.KeyVersion:
        """Schedules a version for destruction.

        After `destroy_time` its material cannot be recovered. Caller needs `keys.destroy` on the key. Idempotent.
        Reverse with RestoreKeyVersion before `destroy_time`.
        """
        request = keys_pb2.DestroyKeyVersionRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DESTROY_KEY_VERSION, request, timeout_s, info)

    def restore_key_version(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.KeyVersion:
        """Takes a version out of DESTROY_SCHEDULED into DISABLED.

        Caller needs `keys.destroy` on the key. Idempotent.
        """
        request = keys_pb2.RestoreKeyVersionRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.RESTORE_KEY_VERSION, request, timeout_s, info)

    def delete_key(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Key:
        """Soft-deletes a key: it stops working at once and is purged at `purge_time`.

        Caller needs `keys.delete` on the key. Idempotent. Reverse with UndeleteKey before `purge_time`.
        """
        request = keys_pb2.DeleteKeyRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DELETE_KEY, request, timeout_s, info)

    def undelete_key(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Key:
        """Brings a soft-deleted key back as it was. Caller needs `keys.delete` on the key. Idempotent."""
        request = keys_pb2.UndeleteKeyRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.UNDELETE_KEY, request, timeout_s, info)

    def purge_key(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> empty_pb2.Empty:
        """Erases a soft-deleted key and all its material from the store for ever; the name is never used for another.

        What BackupKey gave before can bring it back. Caller needs `keys.purge` on the key. Not idempotent without
        request_id (a purged key is NOT_FOUND). Refused before `purge_time` under purge protection.
        """
        request = keys_pb2.PurgeKeyRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.PURGE_KEY, request, timeout_s, info)

    def get_public_key(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> keys_pb2.PublicKey:
        """Returns the public part of an asymmetric version.

        Caller needs `keys.get_public_key` on the key. Idempotent.
        """
        request = keys_pb2.GetPublicKeyRequest(name=name)
        return self._unary(table.GET_PUBLIC_KEY, request, timeout_s, info)

    def get_capabilities(
        self, parent: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> keys_pb2.GetCapabilitiesResponse:
        """Lists the algorithms that can be created, by protection level, and those that cannot, with the reason: for HSM
        what the first slot's token does when it is tried.

        Caller needs `keys.get_capabilities` on the vault. Idempotent.
        """
        request = keys_pb2.GetCapabilitiesRequest(parent=parent)
        return self._unary(table.GET_CAPABILITIES, request, timeout_s, info)

    def get_key_usage(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> keys_pb2.GetKeyUsageResponse:
        """Returns messages, bytes and last use of each version.

        Caller needs `keys.get` on the key. Idempotent. Figures reach storage every few seconds: after a crash the last
        of them may be missing.
        """
        request = keys_pb2.GetKeyUsageRequest(name=name)
        return self._unary(table.GET_KEY_USAGE, request, timeout_s, info)

    def create_grant(
        self,
        parent: str,
        grant: grant_pb2.Grant | Mapping[str, Any],
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> grant_pb2.Grant:
        """Lets another principal use a key, until a time and for a number of uses.

        Caller needs `keys.grant` on the key, and holds each permission that is granted there by policy. Idempotent with
        request_id. In force on this node when it returns. A key that is deleted loses its grants.
        """
        request = grant_pb2.CreateGrantRequest(parent=parent, grant=grant, request_id=request_id)
        return self._unary(table.CREATE_GRANT, request, timeout_s, info)

    def get_grant(self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None) -> grant_pb2.Grant:
        """Returns a grant. Caller needs `keys.list_grants` on the key. Idempotent."""
        request = grant_pb2.GetGrantRequest(name=name)
        return self._unary(table.GET_GRANT, request, timeout_s, info)

    def list_grants(
        self,
        parent: str,
        grantee: str = "",
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> grant_pb2.ListGrantsResponse:
        """Lists the grants of a key, or of all keys of a vault, by name.

        Caller needs `keys.list_grants` on the parent. Idempotent.
        """
        request = grant_pb2.ListGrantsRequest(
            parent=parent, grantee=grantee, page_size=page_size, page_token=page_token
        )
        return self._unary(table.LIST_GRANTS, request, timeout_s, info)

    def iter_grants(
        self,
        parent: str,
        grantee: str = "",
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
    ) -> Iterator[grant_pb2.Grant]:
        """Goes over all pages of list_grants; each is asked for, within timeout_s, when the one before it was read."""
        request = grant_pb2.ListGrantsRequest(
            parent=parent, grantee=grantee, page_size=page_size, page_token=page_token
        )
        for page in pages(self, table.LIST_GRANTS, request, timeout_s):
            yield from page.grants

    def revoke_grant(
        self, name: str, request_id: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> empty_pb2.Empty:
        """Ends a grant.

        Caller needs `keys.revoke_grant` on the key. Not idempotent without request_id (a grant that is gone is
        NOT_FOUND). In force on this node when it returns, on others within a second.
        """
        request = grant_pb2.RevokeGrantRequest(name=name, request_id=request_id)
        return self._unary(table.REVOKE_GRANT, request, timeout_s, info)

    def create_import_job(
        self,
        parent: str,
        import_job_id: str,
        import_job: key_transfer_pb2.ImportJob | Mapping[str, Any] | None = None,
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> key_transfer_pb2.ImportJob:
        """Makes a key pair to wrap key material to.

        Caller needs `keys.create_import_job` on the vault. Idempotent with request_id. At most 100 jobs of a vault are
        ACTIVE at a time.
        """
        request = key_transfer_pb2.CreateImportJobRequest(
            parent=parent, import_job_id=import_job_id, import_job=import_job, request_id=request_id
        )
        return self._unary(table.CREATE_IMPORT_JOB, request, timeout_s, info)

    def get_import_job(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> key_transfer_pb2.ImportJob:
        """Returns an import job. Caller needs `keys.get_import_job` on the vault. Idempotent."""
        request = key_transfer_pb2.GetImportJobRequest(name=name)
        return self._unary(table.GET_IMPORT_JOB, request, timeout_s, info)

    def list_import_jobs(
        self,
        parent: str,
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> key_transfer_pb2.ListImportJobsResponse:
        """Lists the import jobs of a vault by name.

        Caller needs `keys.get_import_job` on the vault. Idempotent.
        """
        request = key_transfer_pb2.ListImportJobsRequest(parent=parent, page_size=page_size, page_token=page_token)
        return self._unary(table.LIST_IMPORT_JOBS, request, timeout_s, info)

    def iter_import_jobs(
        self, parent: str, page_size: int = 0, page_token: str = "", *, timeout_s: float | None = None
    ) -> Iterator[key_transfer_pb2.ImportJob]:
        """Goes over all pages of list_import_jobs; each is asked for, within timeout_s, when the one before it was read."""
        request = key_transfer_pb2.ListImportJobsRequest(parent=parent, page_size=page_size, page_token=page_token)
        for page in pages(self, table.LIST_IMPORT_JOBS, request, timeout_s):
            yield from page.import_jobs

    def import_key_version(
        self,
        parent: str,
        import_job: str,
        algorithm: resources_pb2.Algorithm | str,
        wrapped_key: bytes,
        keep_primary: bool = False,
        prior_messages: int | None = None,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.KeyVersion:
        """Makes a new version of wrapped material, primary unless keep_primary.

        Caller needs `keys.import` on the key. Idempotent with request_id. The material is checked to be a sound key of
        the key's algorithm. What does not unwrap is refused with reason UNWRAP_FAILED, whatever is wrong with it; what
        unwraps and does not fit, with reason MATERIAL_MISMATCH.
        """
        request = key_transfer_pb2.ImportKeyVersionRequest(
            parent=parent,
            import_job=import_job,
            algorithm=algorithm,
            wrapped_key=wrapped_key,
            keep_primary=keep_primary,
            prior_messages=prior_messages,
            etag=etag,
            request_id=request_id,
        )
        return self._unary(table.IMPORT_KEY_VERSION, request, timeout_s, info)

    def export_key_version(
        self,
        name: str,
        wrapping_method: key_transfer_pb2.WrappingMethod | str,
        public_key_pem: str = "",
        public_key_raw: bytes = b"",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> key_transfer_pb2.ExportKeyVersionResponse:
        """Returns the material of a version, wrapped to the recipient's public key.

        Caller needs `keys.export` on the key, which must be `exportable`. Idempotent, though each wrapping is another
        one; with request_id the same answer is given again, as long as the version may be exported. A key in a token is
        refused with reason HSM_KEY_NOT_EXPORTABLE.
        """
        request = key_transfer_pb2.ExportKeyVersionRequest(
            name=name,
            wrapping_method=wrapping_method,
            public_key_pem=public_key_pem,
            public_key_raw=public_key_raw,
            request_id=request_id,
        )
        return self._unary(table.EXPORT_KEY_VERSION, request, timeout_s, info)

    def backup_key(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> key_transfer_pb2.BackupKeyResponse:
        """Returns a key with all its versions and their states, sealed.

        Caller needs `keys.backup` on the key. Idempotent. A key in a token is refused with reason
        HSM_KEY_NOT_EXPORTABLE.
        """
        request = key_transfer_pb2.BackupKeyRequest(name=name)
        return self._unary(table.BACKUP_KEY, request, timeout_s, info)

    def restore_key_backup(
        self,
        parent: str,
        backup: bytes,
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> resources_pb2.Key:
        """Puts a key back under the name that it had, after every version in the backup was opened and checked.

        Caller needs `keys.restore` on the vault. Not idempotent without request_id (a key that is there is
        ALREADY_EXISTS). A key that was purged comes back as it was when it was backed up; versions of algorithms whose
        messages are counted decrypt, and encrypt nothing more.
        """
        request = key_transfer_pb2.RestoreKeyBackupRequest(parent=parent, backup=backup, request_id=request_id)
        return self._unary(table.RESTORE_KEY_BACKUP, request, timeout_s, info)

    def create_secret(
        self,
        parent: str,
        secret_id: str,
        secret: secrets_pb2.Secret | Mapping[str, Any] | None = None,
        payload: bytes = b"",
        content_type: str = "",
        version_metadata: struct_pb2.Struct | Mapping[str, Any] | None = None,
        expire_time: datetime.datetime | timestamp_pb2.Timestamp | None = None,
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.Secret:
        """Creates a secret, with its first version when a payload is given.

        Caller needs `secrets.create` on the vault. Idempotent with request_id. A name that exists, or ever existed, is
        ALREADY_EXISTS.
        """
        request = secrets_pb2.CreateSecretRequest(
            parent=parent,
            secret_id=secret_id,
            secret=secret,
            payload=payload,
            content_type=content_type,
            version_metadata=version_metadata,
            expire_time=expire_time,
            request_id=request_id,
        )
        return self._unary(table.CREATE_SECRET, request, timeout_s, info)

    def get_secret(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> secrets_pb2.Secret:
        """Returns a secret, also a soft-deleted one, without payloads.

        Caller needs `secrets.get` on the secret. Idempotent.
        """
        request = secrets_pb2.GetSecretRequest(name=name)
        return self._unary(table.GET_SECRET, request, timeout_s, info)

    def list_secrets(
        self,
        parent: str,
        page_size: int = 0,
        page_token: str = "",
        show_deleted: bool = False,
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.ListSecretsResponse:
        """Lists the secrets of a vault by name. Caller needs `secrets.list` on the vault. Idempotent."""
        request = secrets_pb2.ListSecretsRequest(
            parent=parent, page_size=page_size, page_token=page_token, show_deleted=show_deleted
        )
        return self._unary(table.LIST_SECRETS, request, timeout_s, info)

    def iter_secrets(
        self,
        parent: str,
        page_size: int = 0,
        page_token: str = "",
        show_deleted: bool = False,
        *,
        timeout_s: float | None = None,
    ) -> Iterator[secrets_pb2.Secret]:
        """Goes over all pages of list_secrets; each is asked for, within timeout_s, when the one before it was read."""
        request = secrets_pb2.ListSecretsRequest(
            parent=parent, page_size=page_size, page_token=page_token, show_deleted=show_deleted
        )
        for page in pages(self, table.LIST_SECRETS, request, timeout_s):
            yield from page.secrets

    def update_secret(
        self,
        secret: secrets_pb2.Secret | Mapping[str, Any],
        update_mask: field_mask_pb2.FieldMask | Mapping[str, Any],
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.Secret:
        """Changes labels, owner, metadata, retention or purge protection.

        Caller needs `secrets.update` on the secret, and `secrets.destroy` to change `keep_versions` or `version_ttl`,
        since versions are destroyed by them. Idempotent.
        """
        request = secrets_pb2.UpdateSecretRequest(
            secret=secret, update_mask=update_mask, etag=etag, request_id=request_id
        )
        return self._unary(table.UPDATE_SECRET, request, timeout_s, info)

    def add_secret_version(
        self,
        parent: str,
        payload: bytes,
        expected_etag: str = "",
        keep_current: bool = False,
        content_type: str = "",
        metadata: struct_pb2.Struct | Mapping[str, Any] | None = None,
        expire_time: datetime.datetime | timestamp_pb2.Timestamp | None = None,
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.AddSecretVersionResponse:
        """Adds a version, which is in service (`current`) at once unless keep_current.

        Caller needs `secrets.add_version` on the secret. Idempotent with request_id. Versions beyond `keep_versions`
        are destroyed in the same transaction.
        """
        request = secrets_pb2.AddSecretVersionRequest(
            parent=parent,
            payload=payload,
            expected_etag=expected_etag,
            keep_current=keep_current,
            content_type=content_type,
            metadata=metadata,
            expire_time=expire_time,
            request_id=request_id,
        )
        return self._unary(table.ADD_SECRET_VERSION, request, timeout_s, info)

    def access_secret_version(
        self,
        name: str,
        if_version_not: str = "",
        recipient_public_key: bytes = b"",
        recipient_context: bytes = b"",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.AccessSecretVersionResponse:
        """Returns the payload of a version, or that it is the one that the caller has, or the payload sealed to a public
        key of the caller.

        Caller needs `secrets.access` on the secret. Idempotent. Refused for a version that is DISABLED, DESTROYED or
        expired, and for a secret that is deleted.
        """
        request = secrets_pb2.AccessSecretVersionRequest(
            name=name,
            if_version_not=if_version_not,
            recipient_public_key=recipient_public_key,
            recipient_context=recipient_context,
        )
        return self._unary(table.ACCESS_SECRET_VERSION, request, timeout_s, info)

    def batch_access_secret_versions(
        self,
        items: Iterable[secrets_pb2.AccessSecretVersionRequest | Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.BatchAccessSecretVersionsResponse:
        """AccessSecretVersion for each item.

        Caller needs `secrets.access` on the secret of each item. Idempotent.
        """
        request = secrets_pb2.BatchAccessSecretVersionsRequest(items=items)
        return self._unary(table.BATCH_ACCESS_SECRET_VERSIONS, request, timeout_s, info)

    def list_secret_versions(
        self,
        parent: str,
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.ListSecretVersionsResponse:
        """Lists the versions of a secret, oldest first, without payloads.

        Caller needs `secrets.get` on the secret. Idempotent.
        """
        request = secrets_pb2.ListSecretVersionsRequest(parent=parent, page_size=page_size, page_token=page_token)
        return self._unary(table.LIST_SECRET_VERSIONS, request, timeout_s, info)

    def iter_secret_versions(
        self, parent: str, page_size: int = 0, page_token: str = "", *, timeout_s: float | None = None
    ) -> Iterator[secrets_pb2.SecretVersion]:
        """Goes over all pages of list_secret_versions; each is asked for, within timeout_s, when the one before it was read."""
        request = secrets_pb2.ListSecretVersionsRequest(parent=parent, page_size=page_size, page_token=page_token)
        for page in pages(self, table.LIST_SECRET_VERSIONS, request, timeout_s):
            yield from page.secret_versions

    def get_secret_version(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> secrets_pb2.SecretVersion:
        """Returns a version without its payload. Caller needs `secrets.get` on the secret. Idempotent."""
        request = secrets_pb2.GetSecretVersionRequest(name=name)
        return self._unary(table.GET_SECRET_VERSION, request, timeout_s, info)

    def enable_secret_version(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.SecretVersion:
        """Lets a DISABLED version be accessed again. Caller needs `secrets.update` on the secret. Idempotent."""
        request = secrets_pb2.EnableSecretVersionRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.ENABLE_SECRET_VERSION, request, timeout_s, info)

    def disable_secret_version(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.SecretVersion:
        """Stops all access to a version.

        Caller needs `secrets.update` on the secret. Idempotent. In force on this node when it returns.
        """
        request = secrets_pb2.DisableSecretVersionRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DISABLE_SECRET_VERSION, request, timeout_s, info)

    def destroy_secret_version(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.SecretVersion:
        """Erases the payload of a version for ever, at once.

        Caller needs `secrets.destroy` on the secret. Idempotent.
        """
        request = secrets_pb2.DestroySecretVersionRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DESTROY_SECRET_VERSION, request, timeout_s, info)

    def set_alias(
        self,
        name: str,
        alias: str,
        version: str = "",
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.Secret:
        """Lets an alias name an ENABLED version that is not expired, or removes an alias.

        Caller needs `secrets.set_alias` on the secret. Idempotent. Moving `current` moves `previous` to where `current`
        was.
        """
        request = secrets_pb2.SetAliasRequest(name=name, alias=alias, version=version, etag=etag, request_id=request_id)
        return self._unary(table.SET_ALIAS, request, timeout_s, info)

    def delete_secret(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.Secret:
        """Soft-deletes a secret: no access from now on, purged at `purge_time`.

        Caller needs `secrets.delete` on the secret. Idempotent. Reverse with UndeleteSecret before `purge_time`.
        """
        request = secrets_pb2.DeleteSecretRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DELETE_SECRET, request, timeout_s, info)

    def undelete_secret(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> secrets_pb2.Secret:
        """Brings a soft-deleted secret back as it was.

        Caller needs `secrets.delete` on the secret. Idempotent.
        """
        request = secrets_pb2.UndeleteSecretRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.UNDELETE_SECRET, request, timeout_s, info)

    def purge_secret(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> empty_pb2.Empty:
        """Erases a soft-deleted secret and all its payloads for ever; the name is never reused.

        Caller needs `secrets.purge` on the secret. Not idempotent without request_id (a purged secret is NOT_FOUND).
        Refused before `purge_time` under purge protection.
        """
        request = secrets_pb2.PurgeSecretRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.PURGE_SECRET, request, timeout_s, info)

    def set_rotation_policy(
        self,
        name: str,
        policy: rotation_pb2.RotationPolicy | Mapping[str, Any],
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> rotation_pb2.Rotation:
        """Sets when a secret rotates, with what, and at which target.

        Caller needs `secrets.set_rotation` on the secret; the target must be one that the server's configuration allows
        for this secret. Idempotent.
        """
        request = rotation_pb2.SetRotationPolicyRequest(name=name, policy=policy, etag=etag, request_id=request_id)
        return self._unary(table.SET_ROTATION_POLICY, request, timeout_s, info)

    def delete_rotation_policy(
        self,
        name: str,
        etag: str = "",
        request_id: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> empty_pb2.Empty:
        """Forgets the policy: the secret rotates no more.

        Caller needs `secrets.set_rotation` on the secret. Not idempotent without request_id. Refused while a run is
        under way.
        """
        request = rotation_pb2.DeleteRotationPolicyRequest(name=name, etag=etag, request_id=request_id)
        return self._unary(table.DELETE_ROTATION_POLICY, request, timeout_s, info)

    def get_rotation(
        self, name: str, *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> rotation_pb2.Rotation:
        """Returns the rotation of a secret: its policy, and how far the newest run is.

        Caller needs `secrets.get` on the secret. Idempotent.
        """
        request = rotation_pb2.GetRotationRequest(name=name)
        return self._unary(table.GET_ROTATION, request, timeout_s, info)

    def list_rotations(
        self,
        parent: str,
        states: Iterable[rotation_pb2.RotationState | str] = (),
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
        info: CallInfo | None = None,
    ) -> rotation_pb2.ListRotationsResponse:
        """Lists the rotations of a vault: which are due, under way, or failed, and why.

        Caller needs `secrets.list` on the vault. Idempotent.
        """
        request = rotation_pb2.ListRotationsRequest(
            parent=parent, states=states, page_size=page_size, page_token=page_token
        )
        return self._unary(table.LIST_ROTATIONS, request, timeout_s, info)

    def iter_rotations(
        self,
        parent: str,
        states: Iterable[rotation_pb2.RotationState | str] = (),
        page_size: int = 0,
        page_token: str = "",
        *,
        timeout_s: float | None = None,
    ) -> Iterator[rotation_pb2.Rotation]:
        """Goes over all pages of list_rotations; each is asked for, within timeout_s, when the one before it was read."""
        request = rotation_pb2.ListRotationsRequest(
            parent=parent, states=states, page_size=page_size, page_token=page_token
        )
        for page in pages(self, table.LIST_ROTATIONS, request, timeout_s):
            yield from page.rotations

    def rotate_secret(
        self, name: str, request_id: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> rotation_pb2.Rotation:
        """Rotates a secret now.

        Without a target the new version is in service when this returns. With one, the run is due when this returns,
        durably, and goes on by itself: GetRotation and Watch say how far it is. A run that waits to try again tries at
        once. Caller needs `secrets.rotate` on the secret. Idempotent with request_id.
        """
        request = rotation_pb2.RotateSecretRequest(name=name, request_id=request_id)
        return self._unary(table.ROTATE_SECRET, request, timeout_s, info)

    def cancel_rotation(
        self, name: str, request_id: str = "", *, timeout_s: float | None = None, info: CallInfo | None = None
    ) -> rotation_pb2.Rotation:
        """Calls off a run whose version is not in service yet, and undoes what it did; of a run that failed, the retries.

        Caller needs `secrets.rotate` on the secret. Idempotent: where there is nothing to call off nothing changes.
        """
        request = rotation_pb2.CancelRotationRequest(name=name, request_id=request_id)
        return self._unary(table.CANCEL_ROTATION, request, timeout_s, info)
