"""One row per RPC: permission, cost, audited fields, idempotent or not.  The server refuses to start if a row is missing.

A service cannot forget to authorise, throttle or audit: it never does those itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.watched import SHOWING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT: Final = "/"
VAULTS: Final = "vaults"


@dataclass(frozen=True, slots=True)
class Access:
    """A permission on the resource that a request names.

    resource: takes the request, gives the resource's name.  visible_by: the permission without which a resource that does
    not exist looks like one that is forbidden.  when: takes the request, says whether it needs this access; None for always.
    """

    permission: str
    resource: Callable[[Any], str]
    visible_by: str
    when: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one RPC.

    cost: class of the rate limit.  audited: request fields, validated names only, that the record may carry.  mutation: its
    intent is recorded, durably, before the act.  told: numbers of the answer that the record carries.  operator: principals
    under `operators` may call it whatever policy says; operator_only: nobody else may.  named: the resource itself names who
    may, and the engine asks it.  some, where: the caller needs one of these permissions on the resource that `where` finds,
    above it or below it; what of it is shown, the engine asks for each.  each: messages of a stream are decided about one by one,
    by the rules of what they ask for.  open: answers without an identity and is not recorded; for the server's own health only.
    repeats: of a batch, the method that it makes for each of its items, which are authorised and fail by themselves.  used: the
    field of the answer that names the version that was used.
    """

    method: str
    access: tuple[Access, ...]
    cost: str
    audited: tuple[str, ...]
    idempotent: bool
    mutation: bool = False
    operator: bool = False
    operator_only: bool = False
    named: bool = False
    some: tuple[str, ...] = ()
    where: Callable[[Any], str] = lambda request: ROOT
    each: bool = False
    open: bool = False
    told: tuple[str, ...] = ()
    repeats: str = ""
    used: str = "key_version"
    sole_access: Access | None = field(init=False)
    """The access that decides about every call by itself, where there is one."""

    def __post_init__(self) -> None:
        one = len(self.access) == 1 and not (self.operator or self.operator_only or self.some)
        sole = self.access[0] if one and self.access[0].when is None else None
        object.__setattr__(self, "sole_access", sole)

    @property
    def names(self) -> Callable[[Any], Any]:
        """Takes a request, gives the names that its access is decided on; equal names get equal decisions."""
        return attrgetter(*self.audited)

    @property
    def batch(self) -> bool:
        """Whether the request is a list of items, each of which is authorised and fails by itself."""
        return self.repeats != ""


def _on(field: str) -> Callable[[Any], str]:
    return attrgetter(field)


def _at(resource: str) -> Callable[[Any], str]:
    def constant(request: Any) -> str:
        del request
        return resource

    return constant


def _crypto(method: str, permission: str, cost: str, *, idempotent: bool, batch: bool = True) -> list[Rule]:
    access = (Access(f"crypto.{permission}", _on("name"), "keys.get"),)
    single = Rule(f"/vaultd.v1.CryptoService/{method}", access, cost, ("name",), idempotent)
    return [single, _batch_of(single, f"Batch{method}")] if batch else [single]


def _batch_of(single: Rule, method: str) -> Rule:
    """The rule of a batch of calls: that of one call, for each item."""
    service = single.method.rpartition("/")[0]
    return replace(single, method=f"{service}/{method}", repeats=single.method)


def _reencrypt() -> list[Rule]:
    access = (
        Access("crypto.reencrypt_from", _on("source_name"), "keys.get"),
        Access("crypto.reencrypt_to", _on("destination_name"), "keys.get"),
    )
    audited = ("source_name", "destination_name")
    single = Rule("/vaultd.v1.CryptoService/ReEncrypt", access, "symmetric", audited, False)
    return [single, _batch_of(single, "BatchReEncrypt")]


def _keys(
    method: str,
    permission: str,
    *,
    field: str = "name",
    visible_by: str = "keys.get",
    mutation: bool = False,
    idempotent: bool = True,
) -> Rule:
    access = (Access(f"keys.{permission}", _on(field), visible_by),)
    audited = (field, "key_id") if method in {"CreateKey", "AdoptKey"} else (field,)
    cost = "mutation" if mutation else "read"
    return Rule(f"/vaultd.v1.KeysService/{method}", access, cost, audited, idempotent, mutation=mutation)


def _vaults(
    method: str,
    permission: str,
    resource: Callable[[Any], str],
    audited: tuple[str, ...],
    *,
    mutation: bool,
    idempotent: bool = True,
) -> Rule:
    access = (Access(f"vaults.{permission}", resource, "vaults.get"),)
    cost = "mutation" if mutation else "read"
    return Rule(f"/vaultd.v1.AdminService/{method}", access, cost, audited, idempotent, mutation=mutation)


def _parent_of(field: str) -> Callable[[Any], str]:
    """The vault of a quota's name, or `/` for one of the server."""
    name = attrgetter(field)

    def parent(request: Any) -> str:
        return str(name(request)).rpartition("quotas/")[0].rstrip("/") or ROOT

    return parent


def _quotas(
    method: str,
    permission: str,
    resource: Callable[[Any], str],
    audited: tuple[str, ...],
    *,
    mutation: bool = False,
    idempotent: bool = True,
) -> Rule:
    visible_by = "quotas.get" if permission != "get_own" else "quotas.get_own"
    access = (Access(f"quotas.{permission}", resource, visible_by),)
    cost = "mutation" if mutation else "read"
    return Rule(f"/vaultd.v1.AdminService/{method}", access, cost, audited, idempotent, mutation=mutation)


def _admin(
    method: str, permission: str | None, *, mutation: bool, operator: bool = False, idempotent: bool = True
) -> Rule:
    access = (Access(f"admin.{permission}", _at(ROOT), f"admin.{permission}"),) if permission else ()
    return Rule(
        f"/vaultd.v1.AdminService/{method}",
        access,
        "admin",
        (),
        idempotent,
        mutation=mutation,
        operator=operator,
        operator_only=permission is None,
    )


def _approvals(method: str, permission: str, audited: tuple[str, ...] = (), *, mutation: bool = False) -> Rule:
    access = (Access(f"approvals.{permission}", _at(ROOT), f"approvals.{permission}"),)
    cost = "mutation" if mutation else "read"
    return Rule(f"/vaultd.v1.AdminService/{method}", access, cost, audited, idempotent=True, mutation=mutation)


def _approval(method: str, *, mutation: bool, idempotent: bool = True) -> Rule:
    cost = "mutation" if mutation else "read"
    return Rule(f"/vaultd.v1.AdminService/{method}", (), cost, ("name",), idempotent, mutation=mutation, named=True)


@dataclass(frozen=True, slots=True)
class Impact:
    """That a method can be put under approval.

    depth: segments of the deepest resource that a rule about it may name: 0 for the server, 2 for a vault, 4 for a key or a
    secret.  shown: the fields of its request that approvers may see; nothing that is secret.
    """

    depth: int
    shown: tuple[str, ...]


HIGH_IMPACT: Final[Mapping[str, Impact]] = MappingProxyType(
    {
        "/vaultd.v1.KeysService/CreateGrant": Impact(4, ("parent", "grant")),
        "/vaultd.v1.KeysService/DeleteKey": Impact(4, ("name", "etag")),
        "/vaultd.v1.KeysService/DestroyKeyVersion": Impact(4, ("name", "etag")),
        "/vaultd.v1.KeysService/PurgeKey": Impact(4, ("name", "etag")),
        "/vaultd.v1.SecretsService/DeleteSecret": Impact(4, ("name", "etag")),
        "/vaultd.v1.SecretsService/DestroySecretVersion": Impact(4, ("name", "etag")),
        "/vaultd.v1.SecretsService/PurgeSecret": Impact(4, ("name", "etag")),
        "/vaultd.v1.SecretsService/UpdateSecret": Impact(4, ("secret", "update_mask", "etag")),
        "/vaultd.v1.KeysService/ImportKeyVersion": Impact(
            4, ("parent", "import_job", "algorithm", "keep_primary", "prior_messages", "etag")
        ),
        "/vaultd.v1.KeysService/ExportKeyVersion": Impact(
            4, ("name", "wrapping_method", "public_key_pem", "public_key_raw")
        ),
        "/vaultd.v1.KeysService/RestoreKeyBackup": Impact(2, ("parent",)),
        "/vaultd.v1.AdminService/DeleteVault": Impact(2, ("name", "etag")),
        "/vaultd.v1.AdminService/RotateRootKey": Impact(0, ()),
        "/vaultd.v1.AdminService/SetPolicy": Impact(2, ("resource", "policy", "etag")),
        "/vaultd.v1.AdminService/SetApprovalRules": Impact(0, ("rules", "etag")),
    }
)
"""Calls that destroy, delegate, give key material away or put it in place, or change who decides.  Not Seal: an emergency stop
waits for nobody."""


def _policy(method: str, permission: str, *access: Access, mutation: bool = False) -> Rule:
    needs = access or (Access(f"policy.{permission}", _on("resource"), f"policy.{permission}"),)
    told = ("entries_added", "entries_removed") if mutation else ()
    return Rule(f"/vaultd.v1.AdminService/{method}", needs, "admin", ("resource",), True, mutation=mutation, told=told)


def _or_root(field: str) -> Callable[[Any], str]:
    def chosen(request: Any) -> str:
        return getattr(request, field) or ROOT

    return chosen


def _asks_for_others(request: Any) -> bool:
    return bool(request.principal) or request.HasField("policy")


def _has_candidate(request: Any) -> bool:
    return bool(request.HasField("policy"))


def _asks_no_incident(request: Any) -> bool:
    return not request.incident_id


def _identities(method: str, permission: str, audited: tuple[str, ...], *, mutation: bool, idempotent: bool) -> Rule:
    access = (Access(f"admin.{permission}", _at(ROOT), f"admin.{permission}"),)
    cost = "mutation" if mutation else "read"
    return Rule(f"/vaultd.v1.AdminService/{method}", access, cost, audited, idempotent, mutation=mutation)


_IDENTITIES: Final = (
    _identities("RevokeIdentity", "revoke_identity", ("principal",), mutation=True, idempotent=True),
    _identities("ListRevokedIdentities", "list_revoked_identities", (), mutation=False, idempotent=True),
    _identities("RestoreIdentity", "restore_identity", ("principal",), mutation=True, idempotent=False),
)


def _watched(request: Any) -> str:
    return request.filter.resource_prefix or ROOT


_STREAMS: Final = (
    Rule(
        "/vaultd.v1.AdminService/Watch",
        (),
        "read",
        ("filter.resource_prefix",),
        idempotent=True,
        some=SHOWING,
        where=_watched,
    ),
    Rule("/vaultd.v1.CryptoService/CryptoStream", (), "symmetric", (), idempotent=False, each=True),
    Rule("/vaultd.v1.CryptoService/ReEncryptStream", (), "symmetric", (), idempotent=False, each=True),
)


def _audit(method: str, permission: str, cost: str) -> Rule:
    access = (Access(f"audit.{permission}", _at(ROOT), f"audit.{permission}"),)
    return Rule(f"/vaultd.v1.AdminService/{method}", access, cost, (), idempotent=True)


_AUDIT: Final = (
    _audit("GetInclusionProof", "get_proof", "read"),
    _audit("GetConsistencyProof", "get_proof", "read"),
    _audit("VerifyAudit", "verify", "admin"),
    _audit("TailAudit", "tail", "admin"),
)


def _secrets(
    method: str,
    permission: str,
    *more: Access,
    field: str = "name",
    visible_by: str = "secrets.get",
    audited: tuple[str, ...] = (),
    mutation: bool = True,
    idempotent: bool = True,
    used: str = "",
) -> Rule:
    access = (Access(f"secrets.{permission}", _on(field), visible_by), *more)
    cost = "mutation" if mutation else "read"
    path = f"/vaultd.v1.SecretsService/{method}"
    return Rule(path, access, cost, (field, *audited), idempotent, mutation=mutation, used=used)


def _changes_retention(request: Any) -> bool:
    """Whether versions may be destroyed by it."""
    return not {"*", "keep_versions", "version_ttl"}.isdisjoint(request.update_mask.paths)


# A use, like those of keys: callers make thousands a second, and it is answered from memory.
_ACCESS: Final = replace(_secrets("AccessSecretVersion", "access", mutation=False, used="version"), cost="symmetric")
_SECRETS: Final = (
    _secrets(
        "CreateSecret",
        "create",
        field="parent",
        visible_by="vaults.get",
        audited=("secret_id",),
        idempotent=False,
    ),
    _secrets("GetSecret", "get", mutation=False),
    _secrets("ListSecrets", "list", field="parent", visible_by="vaults.get", mutation=False),
    _secrets(
        "UpdateSecret",
        "update",
        Access("secrets.destroy", _on("secret.name"), "secrets.get", _changes_retention),
        field="secret.name",
    ),
    _secrets("AddSecretVersion", "add_version", field="parent", idempotent=False, used="version"),
    _ACCESS,
    _batch_of(_ACCESS, "BatchAccessSecretVersions"),
    _secrets("ListSecretVersions", "get", field="parent", mutation=False),
    _secrets("GetSecretVersion", "get", mutation=False),
    _secrets("EnableSecretVersion", "update"),
    _secrets("DisableSecretVersion", "update"),
    _secrets("DestroySecretVersion", "destroy"),
    _secrets("SetAlias", "set_alias", audited=("alias", "version")),
    _secrets("DeleteSecret", "delete"),
    _secrets("UndeleteSecret", "delete"),
    _secrets("PurgeSecret", "purge", idempotent=False),
    _secrets("SetRotationPolicy", "set_rotation", audited=("policy.target",)),
    _secrets("DeleteRotationPolicy", "set_rotation", idempotent=False),
    _secrets("GetRotation", "get", mutation=False),
    _secrets("ListRotations", "list", field="parent", visible_by="vaults.get", mutation=False),
    _secrets("RotateSecret", "rotate", idempotent=False),
    _secrets("CancelRotation", "rotate"),
)


def _vault_of(field: str) -> Callable[[Any], str]:
    """The vault of a name in a field."""

    def vault(request: Any) -> str:
        return "/".join(getattr(request, field).split("/")[:2])

    return vault


_TRANSFER: Final = (
    Rule(
        "/vaultd.v1.KeysService/CreateImportJob",
        (Access("keys.create_import_job", _on("parent"), "vaults.get"),),
        "mutation",
        ("parent", "import_job_id"),
        idempotent=False,
        mutation=True,
    ),
    Rule(
        "/vaultd.v1.KeysService/GetImportJob",
        (Access("keys.get_import_job", _vault_of("name"), "keys.get_import_job"),),
        "read",
        ("name",),
        idempotent=True,
    ),
    _keys("ListImportJobs", "get_import_job", field="parent", visible_by="vaults.get"),
    Rule(
        "/vaultd.v1.KeysService/ImportKeyVersion",
        (Access("keys.import", _on("parent"), "keys.get"),),
        "mutation",
        ("parent", "import_job"),
        idempotent=False,
        mutation=True,
    ),
    # Not mutations of a row.  Their intent is durable all the same before material leaves, sealed or wrapped.
    _keys("ExportKeyVersion", "export", mutation=True),
    _keys("BackupKey", "backup", mutation=True),
    _keys("RestoreKeyBackup", "restore", field="parent", visible_by="vaults.get", mutation=True, idempotent=False),
)
"""Key material that comes in, goes out, or is kept elsewhere."""


def _open(method: str) -> Rule:
    return Rule(method, (), "read", (), idempotent=True, open=True)


RULES: Final = (
    *_crypto("Encrypt", "encrypt", "symmetric", idempotent=False),
    *_crypto("Decrypt", "decrypt", "symmetric", idempotent=True),
    *_reencrypt(),
    *_crypto("Sign", "sign", "asymmetric", idempotent=True),
    *_crypto("Verify", "verify", "asymmetric", idempotent=True),
    *_crypto("GenerateMac", "generate_mac", "symmetric", idempotent=True),
    *_crypto("VerifyMac", "verify_mac", "symmetric", idempotent=True),
    *_crypto("WrapKey", "wrap", "symmetric", idempotent=True),
    *_crypto("UnwrapKey", "unwrap", "symmetric", idempotent=True),
    *_crypto("GenerateDataKey", "generate_data_key", "symmetric", idempotent=False, batch=False),
    *_crypto("Encapsulate", "encapsulate", "asymmetric", idempotent=False, batch=False),
    *_crypto("Decapsulate", "decapsulate", "asymmetric", idempotent=True, batch=False),
    *_crypto("DeriveSharedSecret", "derive", "asymmetric", idempotent=True, batch=False),
    *_crypto("InspectCiphertext", "inspect", "symmetric", idempotent=True, batch=False),
    Rule(
        "/vaultd.v1.CryptoService/GenerateRandomBytes",
        (Access("crypto.generate_random", _on("parent"), "vaults.get"),),
        "symmetric",
        ("parent",),
        idempotent=False,
    ),
    _keys("CreateKey", "create", field="parent", visible_by="vaults.get", mutation=True, idempotent=False),
    _keys("AdoptKey", "adopt", field="parent", visible_by="vaults.get", mutation=True, idempotent=False),
    _keys("GetKey", "get"),
    _keys("ListKeys", "list", field="parent", visible_by="vaults.get"),
    _keys("UpdateKey", "update", field="key.name", mutation=True),
    _keys("RotateKey", "rotate", mutation=True, idempotent=False),
    _keys("SetPrimaryVersion", "rotate", mutation=True),
    _keys("ListKeyVersions", "get", field="parent"),
    _keys("GetKeyVersion", "get"),
    _keys("EnableKeyVersion", "update", mutation=True),
    _keys("DisableKeyVersion", "update", mutation=True),
    _keys("DestroyKeyVersion", "destroy", mutation=True),
    _keys("RestoreKeyVersion", "destroy", mutation=True),
    _keys("DeleteKey", "delete", mutation=True),
    _keys("UndeleteKey", "delete", mutation=True),
    _keys("PurgeKey", "purge", mutation=True, idempotent=False),
    _keys("GetPublicKey", "get_public_key"),
    _keys("GetCapabilities", "get_capabilities", field="parent", visible_by="vaults.get"),
    _keys("GetKeyUsage", "get"),
    Rule(
        "/vaultd.v1.KeysService/CreateGrant",
        (Access("keys.grant", _on("parent"), "keys.get"),),
        "mutation",
        ("parent", "grant.grantee", "grant.permissions"),
        idempotent=False,
        mutation=True,
    ),
    _keys("GetGrant", "list_grants", visible_by="keys.list_grants"),
    _keys("ListGrants", "list_grants", field="parent"),
    _keys("RevokeGrant", "revoke_grant", visible_by="keys.list_grants", mutation=True, idempotent=False),
    *_TRANSFER,
    _admin("GetStatus", "get_status", mutation=False, operator=True),
    _admin("Init", None, mutation=True, operator=True, idempotent=False),
    _admin("Seal", "seal", mutation=True),
    _admin("Unseal", None, mutation=True, operator=True),
    _admin("RotateRootKey", "rotate_root_key", mutation=True, idempotent=False),
    _vaults("CreateVault", "create", _at(VAULTS), ("vault_id",), mutation=True, idempotent=False),
    _vaults("GetVault", "get", _on("name"), ("name",), mutation=False),
    _vaults("ListVaults", "list", _at(VAULTS), (), mutation=False),
    _vaults("UpdateVault", "update", _on("vault.name"), ("vault.name",), mutation=True),
    _vaults("DeleteVault", "delete", _on("name"), ("name",), mutation=True, idempotent=False),
    _quotas("CreateQuota", "create", _on("parent"), ("parent", "quota_id"), mutation=True, idempotent=False),
    _quotas("GetQuota", "get", _parent_of("name"), ("name",)),
    _quotas("ListQuotas", "list", _on("parent"), ("parent",)),
    _quotas("UpdateQuota", "update", _parent_of("quota.name"), ("quota.name",), mutation=True),
    _quotas("DeleteQuota", "delete", _parent_of("name"), ("name",), mutation=True, idempotent=False),
    _quotas("ListOwnQuotas", "get_own", _on("resource"), ("resource",)),
    _approvals("GetApprovalRules", "get_rules"),
    _approvals("SetApprovalRules", "set_rules", ("rules.id", "rules.required"), mutation=True),
    _approvals("ListApprovals", "list"),
    _approval("GetApproval", mutation=False),
    _approval("ApproveRequest", mutation=True),
    _approval("RejectRequest", mutation=True, idempotent=False),
    _approval("CancelApproval", mutation=True, idempotent=False),
    _policy("GetPolicy", "get"),
    _policy("SetPolicy", "set", mutation=True),
    _policy(
        "TestPolicy",
        "get",
        Access("policy.get", _on("resource"), "policy.get", _asks_for_others),
        Access("policy.get", _or_root("policy_resource"), "policy.get", _has_candidate),
    ),
    # Whose refusal an incident is, only the engine knows.
    _policy("ExplainAccess", "get", Access("policy.get", _or_root("resource"), "policy.get", _asks_no_incident)),
    _policy("ReviewAccess", "get"),
    *_IDENTITIES,
    *_STREAMS,
    *_AUDIT,
    *_SECRETS,
    _open("/grpc.health.v1.Health/Check"),
    _open("/grpc.health.v1.Health/List"),
    _open("/grpc.health.v1.Health/Watch"),
    _open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
)
