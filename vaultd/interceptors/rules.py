"""One row per RPC: permission, cost, audited fields, idempotent or not.  The server refuses to start if a row is missing.

A service cannot forget to authorise, throttle or audit: it never does those itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = "/"
VAULTS: Final = "vaults"


@dataclass(frozen=True, slots=True)
class Access:
    """A permission on the resource that a request names.

    resource: takes the request, gives the resource's name.  visible_by: the permission without which a resource that does
    not exist looks like one that is forbidden.
    """

    permission: str
    resource: Callable[[Any], str]
    visible_by: str


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for one RPC.

    cost: class of the rate limit.  audited: request fields, validated names only, that the record may carry.  mutation: its
    intent is recorded, durably, before the act.  operator: principals under `operators` may call it whatever policy says;
    operator_only: nobody else may.  open: answers without an identity and is not recorded; for the server's own health only.
    """

    method: str
    access: tuple[Access, ...]
    cost: str
    audited: tuple[str, ...]
    idempotent: bool
    mutation: bool = False
    operator: bool = False
    operator_only: bool = False
    open: bool = False

    @property
    def names(self) -> Callable[[Any], Any]:
        """Takes a request, gives the names that its access is decided on; equal names get equal decisions."""
        return attrgetter(*self.audited)

    @property
    def batch(self) -> bool:
        """Whether the request is a list of items, each of which is authorised and fails by itself."""
        return self.method.startswith("/vaultd.v1.CryptoService/Batch")


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
    if not batch:
        return [single]
    return [single, Rule(f"/vaultd.v1.CryptoService/Batch{method}", access, cost, ("name",), idempotent)]


def _reencrypt(method: str) -> Rule:
    access = (
        Access("crypto.reencrypt_from", _on("source_name"), "keys.get"),
        Access("crypto.reencrypt_to", _on("destination_name"), "keys.get"),
    )
    return Rule(f"/vaultd.v1.CryptoService/{method}", access, "symmetric", ("source_name", "destination_name"), False)


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


def _identities(method: str, permission: str, audited: tuple[str, ...], *, mutation: bool, idempotent: bool) -> Rule:
    access = (Access(f"admin.{permission}", _at(ROOT), f"admin.{permission}"),)
    cost = "mutation" if mutation else "read"
    return Rule(f"/vaultd.v1.AdminService/{method}", access, cost, audited, idempotent, mutation=mutation)


_IDENTITIES: Final = (
    _identities("RevokeIdentity", "revoke_identity", ("principal",), mutation=True, idempotent=True),
    _identities("ListRevokedIdentities", "list_revoked_identities", (), mutation=False, idempotent=True),
    _identities("RestoreIdentity", "restore_identity", ("principal",), mutation=True, idempotent=False),
)


def _open(method: str) -> Rule:
    return Rule(method, (), "read", (), idempotent=True, open=True)


RULES: Final = (
    *_crypto("Encrypt", "encrypt", "symmetric", idempotent=False),
    *_crypto("Decrypt", "decrypt", "symmetric", idempotent=True),
    _reencrypt("ReEncrypt"),
    _reencrypt("BatchReEncrypt"),
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
    *_IDENTITIES,
    _open("/grpc.health.v1.Health/Check"),
    _open("/grpc.health.v1.Health/List"),
    _open("/grpc.health.v1.Health/Watch"),
    _open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
)
