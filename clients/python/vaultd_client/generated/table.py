"""The RPCs of package vaultd.v1.  Generated from the protos by generate_methods.py: `make generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import empty_pb2

from vaultd_client.method import Method
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
    resources_pb2,
    rotation_pb2,
    secrets_pb2,
    watch_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

GET_STATUS: Final[Method[admin_pb2.GetStatusRequest, admin_pb2.Status]] = Method(
    "/vaultd.v1.AdminService/GetStatus",
    admin_pb2.GetStatusRequest,
    admin_pb2.Status,
    repeatable=True,
)
INIT: Final[Method[admin_pb2.InitRequest, admin_pb2.Status]] = Method(
    "/vaultd.v1.AdminService/Init",
    admin_pb2.InitRequest,
    admin_pb2.Status,
    repeatable=False,
)
SEAL: Final[Method[admin_pb2.SealRequest, admin_pb2.Status]] = Method(
    "/vaultd.v1.AdminService/Seal",
    admin_pb2.SealRequest,
    admin_pb2.Status,
    repeatable=True,
)
UNSEAL: Final[Method[admin_pb2.UnsealRequest, admin_pb2.Status]] = Method(
    "/vaultd.v1.AdminService/Unseal",
    admin_pb2.UnsealRequest,
    admin_pb2.Status,
    repeatable=True,
)
ROTATE_ROOT_KEY: Final[Method[admin_pb2.RotateRootKeyRequest, admin_pb2.Status]] = Method(
    "/vaultd.v1.AdminService/RotateRootKey",
    admin_pb2.RotateRootKeyRequest,
    admin_pb2.Status,
    repeatable=False,
    has_request_id=True,
)
CREATE_VAULT: Final[Method[admin_pb2.CreateVaultRequest, resources_pb2.Vault]] = Method(
    "/vaultd.v1.AdminService/CreateVault",
    admin_pb2.CreateVaultRequest,
    resources_pb2.Vault,
    repeatable=False,
    has_request_id=True,
)
GET_VAULT: Final[Method[admin_pb2.GetVaultRequest, resources_pb2.Vault]] = Method(
    "/vaultd.v1.AdminService/GetVault",
    admin_pb2.GetVaultRequest,
    resources_pb2.Vault,
    repeatable=True,
)
LIST_VAULTS: Final[Method[admin_pb2.ListVaultsRequest, admin_pb2.ListVaultsResponse]] = Method(
    "/vaultd.v1.AdminService/ListVaults",
    admin_pb2.ListVaultsRequest,
    admin_pb2.ListVaultsResponse,
    repeatable=True,
)
UPDATE_VAULT: Final[Method[admin_pb2.UpdateVaultRequest, resources_pb2.Vault]] = Method(
    "/vaultd.v1.AdminService/UpdateVault",
    admin_pb2.UpdateVaultRequest,
    resources_pb2.Vault,
    repeatable=True,
    has_request_id=True,
)
DELETE_VAULT: Final[Method[admin_pb2.DeleteVaultRequest, empty_pb2.Empty]] = Method(
    "/vaultd.v1.AdminService/DeleteVault",
    admin_pb2.DeleteVaultRequest,
    empty_pb2.Empty,
    repeatable=False,
    has_request_id=True,
)
CREATE_QUOTA: Final[Method[quota_pb2.CreateQuotaRequest, quota_pb2.Quota]] = Method(
    "/vaultd.v1.AdminService/CreateQuota",
    quota_pb2.CreateQuotaRequest,
    quota_pb2.Quota,
    repeatable=False,
    has_request_id=True,
)
GET_QUOTA: Final[Method[quota_pb2.GetQuotaRequest, quota_pb2.Quota]] = Method(
    "/vaultd.v1.AdminService/GetQuota",
    quota_pb2.GetQuotaRequest,
    quota_pb2.Quota,
    repeatable=True,
)
LIST_QUOTAS: Final[Method[quota_pb2.ListQuotasRequest, quota_pb2.ListQuotasResponse]] = Method(
    "/vaultd.v1.AdminService/ListQuotas",
    quota_pb2.ListQuotasRequest,
    quota_pb2.ListQuotasResponse,
    repeatable=True,
)
UPDATE_QUOTA: Final[Method[quota_pb2.UpdateQuotaRequest, quota_pb2.Quota]] = Method(
    "/vaultd.v1.AdminService/UpdateQuota",
    quota_pb2.UpdateQuotaRequest,
    quota_pb2.Quota,
    repeatable=True,
    has_request_id=True,
)
DELETE_QUOTA: Final[Method[quota_pb2.DeleteQuotaRequest, empty_pb2.Empty]] = Method(
    "/vaultd.v1.AdminService/DeleteQuota",
    quota_pb2.DeleteQuotaRequest,
    empty_pb2.Empty,
    repeatable=False,
    has_request_id=True,
)
LIST_OWN_QUOTAS: Final[Method[quota_pb2.ListOwnQuotasRequest, quota_pb2.ListOwnQuotasResponse]] = Method(
    "/vaultd.v1.AdminService/ListOwnQuotas",
    quota_pb2.ListOwnQuotasRequest,
    quota_pb2.ListOwnQuotasResponse,
    repeatable=True,
)
GET_APPROVAL_RULES: Final[Method[approval_pb2.GetApprovalRulesRequest, approval_pb2.ApprovalRules]] = Method(
    "/vaultd.v1.AdminService/GetApprovalRules",
    approval_pb2.GetApprovalRulesRequest,
    approval_pb2.ApprovalRules,
    repeatable=True,
)
SET_APPROVAL_RULES: Final[Method[approval_pb2.SetApprovalRulesRequest, approval_pb2.ApprovalRules]] = Method(
    "/vaultd.v1.AdminService/SetApprovalRules",
    approval_pb2.SetApprovalRulesRequest,
    approval_pb2.ApprovalRules,
    repeatable=True,
    has_request_id=True,
)
LIST_APPROVALS: Final[Method[approval_pb2.ListApprovalsRequest, approval_pb2.ListApprovalsResponse]] = Method(
    "/vaultd.v1.AdminService/ListApprovals",
    approval_pb2.ListApprovalsRequest,
    approval_pb2.ListApprovalsResponse,
    repeatable=True,
)
GET_APPROVAL: Final[Method[approval_pb2.GetApprovalRequest, approval_pb2.Approval]] = Method(
    "/vaultd.v1.AdminService/GetApproval",
    approval_pb2.GetApprovalRequest,
    approval_pb2.Approval,
    repeatable=True,
)
APPROVE_REQUEST: Final[Method[approval_pb2.ApproveRequestRequest, approval_pb2.Approval]] = Method(
    "/vaultd.v1.AdminService/ApproveRequest",
    approval_pb2.ApproveRequestRequest,
    approval_pb2.Approval,
    repeatable=True,
    has_request_id=True,
)
REJECT_REQUEST: Final[Method[approval_pb2.RejectRequestRequest, approval_pb2.Approval]] = Method(
    "/vaultd.v1.AdminService/RejectRequest",
    approval_pb2.RejectRequestRequest,
    approval_pb2.Approval,
    repeatable=False,
    has_request_id=True,
)
CANCEL_APPROVAL: Final[Method[approval_pb2.CancelApprovalRequest, approval_pb2.Approval]] = Method(
    "/vaultd.v1.AdminService/CancelApproval",
    approval_pb2.CancelApprovalRequest,
    approval_pb2.Approval,
    repeatable=False,
    has_request_id=True,
)
GET_POLICY: Final[Method[policy_pb2.GetPolicyRequest, policy_pb2.ResourcePolicy]] = Method(
    "/vaultd.v1.AdminService/GetPolicy",
    policy_pb2.GetPolicyRequest,
    policy_pb2.ResourcePolicy,
    repeatable=True,
)
SET_POLICY: Final[Method[policy_pb2.SetPolicyRequest, policy_pb2.ResourcePolicy]] = Method(
    "/vaultd.v1.AdminService/SetPolicy",
    policy_pb2.SetPolicyRequest,
    policy_pb2.ResourcePolicy,
    repeatable=True,
    has_request_id=True,
)
TEST_POLICY: Final[Method[policy_pb2.TestPolicyRequest, policy_pb2.TestPolicyResponse]] = Method(
    "/vaultd.v1.AdminService/TestPolicy",
    policy_pb2.TestPolicyRequest,
    policy_pb2.TestPolicyResponse,
    repeatable=True,
)
EXPLAIN_ACCESS: Final[Method[policy_pb2.ExplainAccessRequest, policy_pb2.ExplainAccessResponse]] = Method(
    "/vaultd.v1.AdminService/ExplainAccess",
    policy_pb2.ExplainAccessRequest,
    policy_pb2.ExplainAccessResponse,
    repeatable=True,
)
REVIEW_ACCESS: Final[Method[policy_pb2.ReviewAccessRequest, policy_pb2.ReviewAccessResponse]] = Method(
    "/vaultd.v1.AdminService/ReviewAccess",
    policy_pb2.ReviewAccessRequest,
    policy_pb2.ReviewAccessResponse,
    repeatable=True,
)
REVOKE_IDENTITY: Final[Method[identity_pb2.RevokeIdentityRequest, identity_pb2.RevokedIdentity]] = Method(
    "/vaultd.v1.AdminService/RevokeIdentity",
    identity_pb2.RevokeIdentityRequest,
    identity_pb2.RevokedIdentity,
    repeatable=True,
    has_request_id=True,
)
LIST_REVOKED_IDENTITIES: Final[
    Method[identity_pb2.ListRevokedIdentitiesRequest, identity_pb2.ListRevokedIdentitiesResponse]
] = Method(
    "/vaultd.v1.AdminService/ListRevokedIdentities",
    identity_pb2.ListRevokedIdentitiesRequest,
    identity_pb2.ListRevokedIdentitiesResponse,
    repeatable=True,
)
RESTORE_IDENTITY: Final[Method[identity_pb2.RestoreIdentityRequest, empty_pb2.Empty]] = Method(
    "/vaultd.v1.AdminService/RestoreIdentity",
    identity_pb2.RestoreIdentityRequest,
    empty_pb2.Empty,
    repeatable=False,
    has_request_id=True,
)
WATCH: Final[Method[watch_pb2.WatchRequest, watch_pb2.WatchResponse]] = Method(
    "/vaultd.v1.AdminService/Watch",
    watch_pb2.WatchRequest,
    watch_pb2.WatchResponse,
    repeatable=False,
)
GET_INCLUSION_PROOF: Final[Method[audit_pb2.GetInclusionProofRequest, audit_pb2.InclusionProof]] = Method(
    "/vaultd.v1.AdminService/GetInclusionProof",
    audit_pb2.GetInclusionProofRequest,
    audit_pb2.InclusionProof,
    repeatable=True,
)
GET_CONSISTENCY_PROOF: Final[Method[audit_pb2.GetConsistencyProofRequest, audit_pb2.ConsistencyProof]] = Method(
    "/vaultd.v1.AdminService/GetConsistencyProof",
    audit_pb2.GetConsistencyProofRequest,
    audit_pb2.ConsistencyProof,
    repeatable=True,
)
VERIFY_AUDIT: Final[Method[audit_pb2.VerifyAuditRequest, audit_pb2.VerifyAuditResponse]] = Method(
    "/vaultd.v1.AdminService/VerifyAudit",
    audit_pb2.VerifyAuditRequest,
    audit_pb2.VerifyAuditResponse,
    repeatable=True,
)
TAIL_AUDIT: Final[Method[audit_pb2.TailAuditRequest, audit_pb2.TailAuditResponse]] = Method(
    "/vaultd.v1.AdminService/TailAudit",
    audit_pb2.TailAuditRequest,
    audit_pb2.TailAuditResponse,
    repeatable=False,
)
ENCRYPT: Final[Method[crypto_pb2.EncryptRequest, crypto_pb2.EncryptResponse]] = Method(
    "/vaultd.v1.CryptoService/Encrypt",
    crypto_pb2.EncryptRequest,
    crypto_pb2.EncryptResponse,
    repeatable=True,
    checksums=(("plaintext_crc32c", ("plaintext",)), ("associated_data_crc32c", ("associated_data",))),
    answer_checksums=(("ciphertext_crc32c", ("ciphertext",)),),
)
DECRYPT: Final[Method[crypto_pb2.DecryptRequest, crypto_pb2.DecryptResponse]] = Method(
    "/vaultd.v1.CryptoService/Decrypt",
    crypto_pb2.DecryptRequest,
    crypto_pb2.DecryptResponse,
    repeatable=True,
    checksums=(("ciphertext_crc32c", ("ciphertext",)), ("associated_data_crc32c", ("associated_data",))),
    answer_checksums=(("plaintext_crc32c", ("plaintext",)),),
)
RE_ENCRYPT: Final[Method[crypto_pb2.ReEncryptRequest, crypto_pb2.ReEncryptResponse]] = Method(
    "/vaultd.v1.CryptoService/ReEncrypt",
    crypto_pb2.ReEncryptRequest,
    crypto_pb2.ReEncryptResponse,
    repeatable=True,
    checksums=(("ciphertext_crc32c", ("ciphertext",)),),
    answer_checksums=(("ciphertext_crc32c", ("ciphertext",)),),
)
SIGN: Final[Method[crypto_pb2.SignRequest, crypto_pb2.SignResponse]] = Method(
    "/vaultd.v1.CryptoService/Sign",
    crypto_pb2.SignRequest,
    crypto_pb2.SignResponse,
    repeatable=True,
    checksums=(("input_crc32c", ("message", "digest")),),
    answer_checksums=(("signature_crc32c", ("signature",)),),
)
VERIFY: Final[Method[crypto_pb2.VerifyRequest, crypto_pb2.VerifyResponse]] = Method(
    "/vaultd.v1.CryptoService/Verify",
    crypto_pb2.VerifyRequest,
    crypto_pb2.VerifyResponse,
    repeatable=True,
    checksums=(("input_crc32c", ("message", "digest")), ("signature_crc32c", ("signature",))),
)
GENERATE_MAC: Final[Method[crypto_pb2.GenerateMacRequest, crypto_pb2.GenerateMacResponse]] = Method(
    "/vaultd.v1.CryptoService/GenerateMac",
    crypto_pb2.GenerateMacRequest,
    crypto_pb2.GenerateMacResponse,
    repeatable=True,
    checksums=(("data_crc32c", ("data",)),),
    answer_checksums=(("mac_crc32c", ("mac",)),),
)
VERIFY_MAC: Final[Method[crypto_pb2.VerifyMacRequest, crypto_pb2.VerifyMacResponse]] = Method(
    "/vaultd.v1.CryptoService/VerifyMac",
    crypto_pb2.VerifyMacRequest,
    crypto_pb2.VerifyMacResponse,
    repeatable=True,
    checksums=(("data_crc32c", ("data",)), ("mac_crc32c", ("mac",))),
)
WRAP_KEY: Final[Method[crypto_pb2.WrapKeyRequest, crypto_pb2.WrapKeyResponse]] = Method(
    "/vaultd.v1.CryptoService/WrapKey",
    crypto_pb2.WrapKeyRequest,
    crypto_pb2.WrapKeyResponse,
    repeatable=True,
    checksums=(("key_material_crc32c", ("key_material",)),),
    answer_checksums=(("wrapped_key_crc32c", ("wrapped_key",)),),
)
UNWRAP_KEY: Final[Method[crypto_pb2.UnwrapKeyRequest, crypto_pb2.UnwrapKeyResponse]] = Method(
    "/vaultd.v1.CryptoService/UnwrapKey",
    crypto_pb2.UnwrapKeyRequest,
    crypto_pb2.UnwrapKeyResponse,
    repeatable=True,
    checksums=(("wrapped_key_crc32c", ("wrapped_key",)),),
    answer_checksums=(("key_material_crc32c", ("key_material",)),),
)
GENERATE_DATA_KEY: Final[Method[crypto_pb2.GenerateDataKeyRequest, crypto_pb2.GenerateDataKeyResponse]] = Method(
    "/vaultd.v1.CryptoService/GenerateDataKey",
    crypto_pb2.GenerateDataKeyRequest,
    crypto_pb2.GenerateDataKeyResponse,
    repeatable=True,
)
ENCAPSULATE: Final[Method[crypto_pb2.EncapsulateRequest, crypto_pb2.EncapsulateResponse]] = Method(
    "/vaultd.v1.CryptoService/Encapsulate",
    crypto_pb2.EncapsulateRequest,
    crypto_pb2.EncapsulateResponse,
    repeatable=True,
)
DECAPSULATE: Final[Method[crypto_pb2.DecapsulateRequest, crypto_pb2.DecapsulateResponse]] = Method(
    "/vaultd.v1.CryptoService/Decapsulate",
    crypto_pb2.DecapsulateRequest,
    crypto_pb2.DecapsulateResponse,
    repeatable=True,
)
DERIVE_SHARED_SECRET: Final[Method[crypto_pb2.DeriveSharedSecretRequest, crypto_pb2.DeriveSharedSecretResponse]] = (
    Method(
        "/vaultd.v1.CryptoService/DeriveSharedSecret",
        crypto_pb2.DeriveSharedSecretRequest,
        crypto_pb2.DeriveSharedSecretResponse,
        repeatable=True,
    )
)
GENERATE_RANDOM_BYTES: Final[Method[crypto_pb2.GenerateRandomBytesRequest, crypto_pb2.GenerateRandomBytesResponse]] = (
    Method(
        "/vaultd.v1.CryptoService/GenerateRandomBytes",
        crypto_pb2.GenerateRandomBytesRequest,
        crypto_pb2.GenerateRandomBytesResponse,
        repeatable=True,
    )
)
INSPECT_CIPHERTEXT: Final[Method[crypto_pb2.InspectCiphertextRequest, crypto_pb2.InspectCiphertextResponse]] = Method(
    "/vaultd.v1.CryptoService/InspectCiphertext",
    crypto_pb2.InspectCiphertextRequest,
    crypto_pb2.InspectCiphertextResponse,
    repeatable=True,
)
CRYPTO_STREAM: Final[Method[crypto_pb2.CryptoStreamRequest, crypto_pb2.CryptoStreamResponse]] = Method(
    "/vaultd.v1.CryptoService/CryptoStream",
    crypto_pb2.CryptoStreamRequest,
    crypto_pb2.CryptoStreamResponse,
    repeatable=False,
)
RE_ENCRYPT_STREAM: Final[Method[crypto_pb2.ReEncryptStreamRequest, crypto_pb2.ReEncryptStreamResponse]] = Method(
    "/vaultd.v1.CryptoService/ReEncryptStream",
    crypto_pb2.ReEncryptStreamRequest,
    crypto_pb2.ReEncryptStreamResponse,
    repeatable=False,
)
CREATE_KEY: Final[Method[keys_pb2.CreateKeyRequest, resources_pb2.Key]] = Method(
    "/vaultd.v1.KeysService/CreateKey",
    keys_pb2.CreateKeyRequest,
    resources_pb2.Key,
    repeatable=False,
    has_request_id=True,
)
ADOPT_KEY: Final[Method[keys_pb2.AdoptKeyRequest, resources_pb2.Key]] = Method(
    "/vaultd.v1.KeysService/AdoptKey",
    keys_pb2.AdoptKeyRequest,
    resources_pb2.Key,
    repeatable=False,
    has_request_id=True,
)
GET_KEY: Final[Method[keys_pb2.GetKeyRequest, resources_pb2.Key]] = Method(
    "/vaultd.v1.KeysService/GetKey",
    keys_pb2.GetKeyRequest,
    resources_pb2.Key,
    repeatable=True,
)
LIST_KEYS: Final[Method[keys_pb2.ListKeysRequest, keys_pb2.ListKeysResponse]] = Method(
    "/vaultd.v1.KeysService/ListKeys",
    keys_pb2.ListKeysRequest,
    keys_pb2.ListKeysResponse,
    repeatable=True,
)
UPDATE_KEY: Final[Method[keys_pb2.UpdateKeyRequest, resources_pb2.Key]] = Method(
    "/vaultd.v1.KeysService/UpdateKey",
    keys_pb2.UpdateKeyRequest,
    resources_pb2.Key,
    repeatable=True,
    has_request_id=True,
)
ROTATE_KEY: Final[Method[keys_pb2.RotateKeyRequest, resources_pb2.KeyVersion]] = Method(
    "/vaultd.v1.KeysService/RotateKey",
    keys_pb2.RotateKeyRequest,
    resources_pb2.KeyVersion,
    repeatable=False,
    has_request_id=True,
)
SET_PRIMARY_VERSION: Final[Method[keys_pb2.SetPrimaryVersionRequest, resources_pb2.Key]] = Method(
    "/vaultd.v1.KeysService/SetPrimaryVersion",
    keys_pb2.SetPrimaryVersionRequest,
    resources_pb2.Key,
    repeatable=True,
    has_request_id=True,
)
LIST_KEY_VERSIONS: Final[Method[keys_pb2.ListKeyVersionsRequest, keys_pb2.ListKeyVersionsResponse]] = Method(
    "/vaultd.v1.KeysService/ListKeyVersions",
    keys_pb2.ListKeyVersionsRequest,
    keys_pb2.ListKeyVersionsResponse,
    repeatable=True,
)
GET_KEY_VERSION: Final[Method[keys_pb2.GetKeyVersionRequest, resources_pb2.KeyVersion]] = Method(
    "/vaultd.v1.KeysService/GetKeyVersion",
    keys_pb2.GetKeyVersionRequest,
    resources_pb2.KeyVersion,
    repeatable=True,
)
ENABLE_KEY_VERSION: Final[Method[keys_pb2.EnableKeyVersionRequest, resources_pb2.KeyVersion]] = Method(
    "/vaultd.v1.KeysService/EnableKeyVersion",
    keys_pb2.EnableKeyVersionRequest,
    resources_pb2.KeyVersion,
    repeatable=True,
    has_request_id=True,
)
DISABLE_KEY_VERSION: Final[Method[keys_pb2.DisableKeyVersionRequest, resources_pb2.KeyVersion]] = Method(
    "/vaultd.v1.KeysService/DisableKeyVersion",
    keys_pb2.DisableKeyVersionRequest,
    resources_pb2.KeyVersion,
    repeatable=True,
    has_request_id=True,
)
DESTROY_KEY_VERSION: Final[Method[keys_pb2.DestroyKeyVersionRequest, resources_pb2.KeyVersion]] = Method(
    "/vaultd.v1.KeysService/DestroyKeyVersion",
    keys_pb2.DestroyKeyVersionRequest,
    resources_pb2.KeyVersion,
    repeatable=True,
    has_request_id=True,
)
RESTORE_KEY_VERSION: Final[Method[keys_pb2.RestoreKeyVersionRequest, resources_pb2.KeyVersion]] = Method(
    "/vaultd.v1.KeysService/RestoreKeyVersion",
    keys_pb2.RestoreKeyVersionRequest,
    resources_pb2.KeyVersion,
    repeatable=True,
    has_request_id=True,
)
DELETE_KEY: Final[Method[keys_pb2.DeleteKeyRequest, resources_pb2.Key]] = Method(
    "/vaultd.v1.KeysService/DeleteKey",
    keys_pb2.DeleteKeyRequest,
    resources_pb2.Key,
    repeatable=True,
    has_request_id=True,
)
UNDELETE_KEY: Final[Method[keys_pb2.UndeleteKeyRequest, resources_pb2.Key]] = Method(
    "/vaultd.v1.KeysService/UndeleteKey",
    keys_pb2.UndeleteKeyRequest,
    resources_pb2.Key,
    repeatable=True,
    has_request_id=True,
)
PURGE_KEY: Final[Method[keys_pb2.PurgeKeyRequest, empty_pb2.Empty]] = Method(
    "/vaultd.v1.KeysService/PurgeKey",
    keys_pb2.PurgeKeyRequest,
    empty_pb2.Empty,
    repeatable=False,
    has_request_id=True,
)
GET_PUBLIC_KEY: Final[Method[keys_pb2.GetPublicKeyRequest, keys_pb2.PublicKey]] = Method(
    "/vaultd.v1.KeysService/GetPublicKey",
    keys_pb2.GetPublicKeyRequest,
    keys_pb2.PublicKey,
    repeatable=True,
)
GET_CAPABILITIES: Final[Method[keys_pb2.GetCapabilitiesRequest, keys_pb2.GetCapabilitiesResponse]] = Method(
    "/vaultd.v1.KeysService/GetCapabilities",
    keys_pb2.GetCapabilitiesRequest,
    keys_pb2.GetCapabilitiesResponse,
    repeatable=True,
)
GET_KEY_USAGE: Final[Method[keys_pb2.GetKeyUsageRequest, keys_pb2.GetKeyUsageResponse]] = Method(
    "/vaultd.v1.KeysService/GetKeyUsage",
    keys_pb2.GetKeyUsageRequest,
    keys_pb2.GetKeyUsageResponse,
    repeatable=True,
)
CREATE_GRANT: Final[Method[grant_pb2.CreateGrantRequest, grant_pb2.Grant]] = Method(
    "/vaultd.v1.KeysService/CreateGrant",
    grant_pb2.CreateGrantRequest,
    grant_pb2.Grant,
    repeatable=False,
    has_request_id=True,
)
GET_GRANT: Final[Method[grant_pb2.GetGrantRequest, grant_pb2.Grant]] = Method(
    "/vaultd.v1.KeysService/GetGrant",
    grant_pb2.GetGrantRequest,
    grant_pb2.Grant,
    repeatable=True,
)
LIST_GRANTS: Final[Method[grant_pb2.ListGrantsRequest, grant_pb2.ListGrantsResponse]] = Method(
    "/vaultd.v1.KeysService/ListGrants",
    grant_pb2.ListGrantsRequest,
    grant_pb2.ListGrantsResponse,
    repeatable=True,
)
REVOKE_GRANT: Final[Method[grant_pb2.RevokeGrantRequest, empty_pb2.Empty]] = Method(
    "/vaultd.v1.KeysService/RevokeGrant",
    grant_pb2.RevokeGrantRequest,
    empty_pb2.Empty,
    repeatable=False,
    has_request_id=True,
)
CREATE_IMPORT_JOB: Final[Method[key_transfer_pb2.CreateImportJobRequest, key_transfer_pb2.ImportJob]] = Method(
    "/vaultd.v1.KeysService/CreateImportJob",
    key_transfer_pb2.CreateImportJobRequest,
    key_transfer_pb2.ImportJob,
    repeatable=False,
    has_request_id=True,
)
GET_IMPORT_JOB: Final[Method[key_transfer_pb2.GetImportJobRequest, key_transfer_pb2.ImportJob]] = Method(
    "/vaultd.v1.KeysService/GetImportJob",
    key_transfer_pb2.GetImportJobRequest,
    key_transfer_pb2.ImportJob,
    repeatable=True,
)
LIST_IMPORT_JOBS: Final[Method[key_transfer_pb2.ListImportJobsRequest, key_transfer_pb2.ListImportJobsResponse]] = (
    Method(
        "/vaultd.v1.KeysService/ListImportJobs",
        key_transfer_pb2.ListImportJobsRequest,
        key_transfer_pb2.ListImportJobsResponse,
        repeatable=True,
    )
)
IMPORT_KEY_VERSION: Final[Method[key_transfer_pb2.ImportKeyVersionRequest, resources_pb2.KeyVersion]] = Method(
    "/vaultd.v1.KeysService/ImportKeyVersion",
    key_transfer_pb2.ImportKeyVersionRequest,
    resources_pb2.KeyVersion,
    repeatable=False,
    has_request_id=True,
    checksums=(("wrapped_key_crc32c", ("wrapped_key",)),),
)
EXPORT_KEY_VERSION: Final[
    Method[key_transfer_pb2.ExportKeyVersionRequest, key_transfer_pb2.ExportKeyVersionResponse]
] = Method(
    "/vaultd.v1.KeysService/ExportKeyVersion",
    key_transfer_pb2.ExportKeyVersionRequest,
    key_transfer_pb2.ExportKeyVersionResponse,
    repeatable=True,
    has_request_id=True,
)
BACKUP_KEY: Final[Method[key_transfer_pb2.BackupKeyRequest, key_transfer_pb2.BackupKeyResponse]] = Method(
    "/vaultd.v1.KeysService/BackupKey",
    key_transfer_pb2.BackupKeyRequest,
    key_transfer_pb2.BackupKeyResponse,
    repeatable=True,
)
RESTORE_KEY_BACKUP: Final[Method[key_transfer_pb2.RestoreKeyBackupRequest, resources_pb2.Key]] = Method(
    "/vaultd.v1.KeysService/RestoreKeyBackup",
    key_transfer_pb2.RestoreKeyBackupRequest,
    resources_pb2.Key,
    repeatable=False,
    has_request_id=True,
)
CREATE_SECRET: Final[Method[secrets_pb2.CreateSecretRequest, secrets_pb2.Secret]] = Method(
    "/vaultd.v1.SecretsService/CreateSecret",
    secrets_pb2.CreateSecretRequest,
    secrets_pb2.Secret,
    repeatable=False,
    has_request_id=True,
    checksums=(("payload_crc32c", ("payload",)),),
)
GET_SECRET: Final[Method[secrets_pb2.GetSecretRequest, secrets_pb2.Secret]] = Method(
    "/vaultd.v1.SecretsService/GetSecret",
    secrets_pb2.GetSecretRequest,
    secrets_pb2.Secret,
    repeatable=True,
)
LIST_SECRETS: Final[Method[secrets_pb2.ListSecretsRequest, secrets_pb2.ListSecretsResponse]] = Method(
    "/vaultd.v1.SecretsService/ListSecrets",
    secrets_pb2.ListSecretsRequest,
    secrets_pb2.ListSecretsResponse,
    repeatable=True,
)
UPDATE_SECRET: Final[Method[secrets_pb2.UpdateSecretRequest, secrets_pb2.Secret]] = Method(
    "/vaultd.v1.SecretsService/UpdateSecret",
    secrets_pb2.UpdateSecretRequest,
    secrets_pb2.Secret,
    repeatable=True,
    has_request_id=True,
)
ADD_SECRET_VERSION: Final[Method[secrets_pb2.AddSecretVersionRequest, secrets_pb2.AddSecretVersionResponse]] = Method(
    "/vaultd.v1.SecretsService/AddSecretVersion",
    secrets_pb2.AddSecretVersionRequest,
    secrets_pb2.AddSecretVersionResponse,
    repeatable=False,
    has_request_id=True,
    checksums=(("payload_crc32c", ("payload",)),),
)
ACCESS_SECRET_VERSION: Final[
    Method[secrets_pb2.AccessSecretVersionRequest, secrets_pb2.AccessSecretVersionResponse]
] = Method(
    "/vaultd.v1.SecretsService/AccessSecretVersion",
    secrets_pb2.AccessSecretVersionRequest,
    secrets_pb2.AccessSecretVersionResponse,
    repeatable=True,
    answer_checksums=(("payload_crc32c", ("payload",)), ("sealed_payload_crc32c", ("sealed_payload",))),
)
LIST_SECRET_VERSIONS: Final[Method[secrets_pb2.ListSecretVersionsRequest, secrets_pb2.ListSecretVersionsResponse]] = (
    Method(
        "/vaultd.v1.SecretsService/ListSecretVersions",
        secrets_pb2.ListSecretVersionsRequest,
        secrets_pb2.ListSecretVersionsResponse,
        repeatable=True,
    )
)
GET_SECRET_VERSION: Final[Method[secrets_pb2.GetSecretVersionRequest, secrets_pb2.SecretVersion]] = Method(
    "/vaultd.v1.SecretsService/GetSecretVersion",
    secrets_pb2.GetSecretVersionRequest,
    secrets_pb2.SecretVersion,
    repeatable=True,
)
ENABLE_SECRET_VERSION: Final[Method[secrets_pb2.EnableSecretVersionRequest, secrets_pb2.SecretVersion]] = Method(
    "/vaultd.v1.SecretsService/EnableSecretVersion",
    secrets_pb2.EnableSecretVersionRequest,
    secrets_pb2.SecretVersion,
    repeatable=True,
    has_request_id=True,
)
DISABLE_SECRET_VERSION: Final[Method[secrets_pb2.DisableSecretVersionRequest, secrets_pb2.SecretVersion]] = Method(
    "/vaultd.v1.SecretsService/DisableSecretVersion",
    secrets_pb2.DisableSecretVersionRequest,
    secrets_pb2.SecretVersion,
    repeatable=True,
    has_request_id=True,
)
DESTROY_SECRET_VERSION: Final[Method[secrets_pb2.DestroySecretVersionRequest, secrets_pb2.SecretVersion]] = Method(
    "/vaultd.v1.SecretsService/DestroySecretVersion",
    secrets_pb2.DestroySecretVersionRequest,
    secrets_pb2.SecretVersion,
    repeatable=True,
    has_request_id=True,
)
SET_ALIAS: Final[Method[secrets_pb2.SetAliasRequest, secrets_pb2.Secret]] = Method(
    "/vaultd.v1.SecretsService/SetAlias",
    secrets_pb2.SetAliasRequest,
    secrets_pb2.Secret,
    repeatable=True,
    has_request_id=True,
)
DELETE_SECRET: Final[Method[secrets_pb2.DeleteSecretRequest, secrets_pb2.Secret]] = Method(
    "/vaultd.v1.SecretsService/DeleteSecret",
    secrets_pb2.DeleteSecretRequest,
    secrets_pb2.Secret,
    repeatable=True,
    has_request_id=True,
)
UNDELETE_SECRET: Final[Method[secrets_pb2.UndeleteSecretRequest, secrets_pb2.Secret]] = Method(
    "/vaultd.v1.SecretsService/UndeleteSecret",
    secrets_pb2.UndeleteSecretRequest,
    secrets_pb2.Secret,
    repeatable=True,
    has_request_id=True,
)
PURGE_SECRET: Final[Method[secrets_pb2.PurgeSecretRequest, empty_pb2.Empty]] = Method(
    "/vaultd.v1.SecretsService/PurgeSecret",
    secrets_pb2.PurgeSecretRequest,
    empty_pb2.Empty,
    repeatable=False,
    has_request_id=True,
)
SET_ROTATION_POLICY: Final[Method[rotation_pb2.SetRotationPolicyRequest, rotation_pb2.Rotation]] = Method(
    "/vaultd.v1.SecretsService/SetRotationPolicy",
    rotation_pb2.SetRotationPolicyRequest,
    rotation_pb2.Rotation,
    repeatable=True,
    has_request_id=True,
)
DELETE_ROTATION_POLICY: Final[Method[rotation_pb2.DeleteRotationPolicyRequest, empty_pb2.Empty]] = Method(
    "/vaultd.v1.SecretsService/DeleteRotationPolicy",
    rotation_pb2.DeleteRotationPolicyRequest,
    empty_pb2.Empty,
    repeatable=False,
    has_request_id=True,
)
GET_ROTATION: Final[Method[rotation_pb2.GetRotationRequest, rotation_pb2.Rotation]] = Method(
    "/vaultd.v1.SecretsService/GetRotation",
    rotation_pb2.GetRotationRequest,
    rotation_pb2.Rotation,
    repeatable=True,
)
LIST_ROTATIONS: Final[Method[rotation_pb2.ListRotationsRequest, rotation_pb2.ListRotationsResponse]] = Method(
    "/vaultd.v1.SecretsService/ListRotations",
    rotation_pb2.ListRotationsRequest,
    rotation_pb2.ListRotationsResponse,
    repeatable=True,
)
ROTATE_SECRET: Final[Method[rotation_pb2.RotateSecretRequest, rotation_pb2.Rotation]] = Method(
    "/vaultd.v1.SecretsService/RotateSecret",
    rotation_pb2.RotateSecretRequest,
    rotation_pb2.Rotation,
    repeatable=False,
    has_request_id=True,
)
CANCEL_ROTATION: Final[Method[rotation_pb2.CancelRotationRequest, rotation_pb2.Rotation]] = Method(
    "/vaultd.v1.SecretsService/CancelRotation",
    rotation_pb2.CancelRotationRequest,
    rotation_pb2.Rotation,
    repeatable=True,
    has_request_id=True,
)
BATCH_ENCRYPT: Final[Method[crypto_pb2.BatchEncryptRequest, crypto_pb2.BatchEncryptResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchEncrypt",
    crypto_pb2.BatchEncryptRequest,
    crypto_pb2.BatchEncryptResponse,
    repeatable=True,
    single=ENCRYPT,
)
BATCH_DECRYPT: Final[Method[crypto_pb2.BatchDecryptRequest, crypto_pb2.BatchDecryptResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchDecrypt",
    crypto_pb2.BatchDecryptRequest,
    crypto_pb2.BatchDecryptResponse,
    repeatable=True,
    single=DECRYPT,
)
BATCH_RE_ENCRYPT: Final[Method[crypto_pb2.BatchReEncryptRequest, crypto_pb2.BatchReEncryptResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchReEncrypt",
    crypto_pb2.BatchReEncryptRequest,
    crypto_pb2.BatchReEncryptResponse,
    repeatable=True,
    single=RE_ENCRYPT,
)
BATCH_SIGN: Final[Method[crypto_pb2.BatchSignRequest, crypto_pb2.BatchSignResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchSign",
    crypto_pb2.BatchSignRequest,
    crypto_pb2.BatchSignResponse,
    repeatable=True,
    single=SIGN,
)
BATCH_VERIFY: Final[Method[crypto_pb2.BatchVerifyRequest, crypto_pb2.BatchVerifyResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchVerify",
    crypto_pb2.BatchVerifyRequest,
    crypto_pb2.BatchVerifyResponse,
    repeatable=True,
    single=VERIFY,
)
BATCH_GENERATE_MAC: Final[Method[crypto_pb2.BatchGenerateMacRequest, crypto_pb2.BatchGenerateMacResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchGenerateMac",
    crypto_pb2.BatchGenerateMacRequest,
    crypto_pb2.BatchGenerateMacResponse,
    repeatable=True,
    single=GENERATE_MAC,
)
BATCH_VERIFY_MAC: Final[Method[crypto_pb2.BatchVerifyMacRequest, crypto_pb2.BatchVerifyMacResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchVerifyMac",
    crypto_pb2.BatchVerifyMacRequest,
    crypto_pb2.BatchVerifyMacResponse,
    repeatable=True,
    single=VERIFY_MAC,
)
BATCH_WRAP_KEY: Final[Method[crypto_pb2.BatchWrapKeyRequest, crypto_pb2.BatchWrapKeyResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchWrapKey",
    crypto_pb2.BatchWrapKeyRequest,
    crypto_pb2.BatchWrapKeyResponse,
    repeatable=True,
    single=WRAP_KEY,
)
BATCH_UNWRAP_KEY: Final[Method[crypto_pb2.BatchUnwrapKeyRequest, crypto_pb2.BatchUnwrapKeyResponse]] = Method(
    "/vaultd.v1.CryptoService/BatchUnwrapKey",
    crypto_pb2.BatchUnwrapKeyRequest,
    crypto_pb2.BatchUnwrapKeyResponse,
    repeatable=True,
    single=UNWRAP_KEY,
)
BATCH_ACCESS_SECRET_VERSIONS: Final[
    Method[secrets_pb2.BatchAccessSecretVersionsRequest, secrets_pb2.BatchAccessSecretVersionsResponse]
] = Method(
    "/vaultd.v1.SecretsService/BatchAccessSecretVersions",
    secrets_pb2.BatchAccessSecretVersionsRequest,
    secrets_pb2.BatchAccessSecretVersionsResponse,
    repeatable=True,
    single=ACCESS_SECRET_VERSION,
)
BATCHES: Final[Mapping[Method[Any, Any], Method[Any, Any]]] = {
    ENCRYPT: BATCH_ENCRYPT,
    DECRYPT: BATCH_DECRYPT,
    RE_ENCRYPT: BATCH_RE_ENCRYPT,
    SIGN: BATCH_SIGN,
    VERIFY: BATCH_VERIFY,
    GENERATE_MAC: BATCH_GENERATE_MAC,
    VERIFY_MAC: BATCH_VERIFY_MAC,
    WRAP_KEY: BATCH_WRAP_KEY,
    UNWRAP_KEY: BATCH_UNWRAP_KEY,
    ACCESS_SECRET_VERSION: BATCH_ACCESS_SECRET_VERSIONS,
}
"""The batch of each RPC that has one: concurrent calls of these travel together."""
