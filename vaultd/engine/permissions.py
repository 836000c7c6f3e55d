"""The closed list of permissions, and the roles that every server has.

A permission is named in the comment of the RPC that needs it (protos/vaultd/v1); a test keeps this list equal to those
comments.  Init and Unseal have none: policy is sealed when they are called, so the configuration names who may.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CRYPTO: Final = frozenset(
    {
        "crypto.decapsulate",
        "crypto.decrypt",
        "crypto.derive",
        "crypto.encapsulate",
        "crypto.encrypt",
        "crypto.generate_data_key",
        "crypto.generate_mac",
        "crypto.generate_random",
        "crypto.inspect",
        "crypto.reencrypt_from",
        "crypto.reencrypt_to",
        "crypto.sign",
        "crypto.unwrap",
        "crypto.verify",
        "crypto.verify_mac",
        "crypto.wrap",
    }
)
KEYS: Final = frozenset(
    {
        "keys.backup",
        "keys.create",
        "keys.create_import_job",
        "keys.delete",
        "keys.destroy",
        "keys.get",
        "keys.get_capabilities",
        "keys.get_import_job",
        "keys.get_public_key",
        "keys.grant",
        "keys.list",
        "keys.list_grants",
        "keys.purge",
        "keys.revoke_grant",
        "keys.rotate",
        "keys.update",
    }
)
GRANTING: Final = frozenset({"keys.grant", "keys.list_grants", "keys.revoke_grant"})
MATERIAL: Final = frozenset({"keys.export", "keys.import", "keys.restore"})
"""Not for those who administer keys and do not use them: who exports or imports a key knows it, and who restores one undoes what
others decided."""
TOKENS: Final = frozenset({"keys.adopt"})
"""Not for those who administer a vault: a token's objects belong to all vaults."""
SECRETS: Final = frozenset(
    {
        "secrets.access",
        "secrets.add_version",
        "secrets.create",
        "secrets.delete",
        "secrets.destroy",
        "secrets.get",
        "secrets.list",
        "secrets.purge",
        "secrets.rotate",
        "secrets.set_alias",
        "secrets.set_rotation",
        "secrets.update",
    }
)
SECRETS_UNSEEN: Final = SECRETS - {"secrets.access"}
"""For those who administer secrets: all but reading what is in them."""
VAULTS: Final = frozenset({"vaults.create", "vaults.delete", "vaults.get", "vaults.list", "vaults.update"})
POLICY: Final = frozenset({"policy.get", "policy.set"})
IDENTITIES: Final = frozenset({"admin.list_revoked_identities", "admin.restore_identity", "admin.revoke_identity"})
ADMIN: Final = IDENTITIES | {"admin.get_status", "admin.rotate_root_key", "admin.seal"}
QUOTAS: Final = frozenset({"quotas.create", "quotas.delete", "quotas.get", "quotas.list", "quotas.update"})
OWN_QUOTAS: Final = frozenset({"quotas.get_own"})
"""For whoever calls: it tells of nobody else."""
APPROVALS: Final = frozenset({"approvals.get_rules", "approvals.list", "approvals.set_rules"})
"""Approving itself needs no permission: the rule names its approvers."""

AUDIT: Final = frozenset({"audit.get_proof", "audit.tail", "audit.verify"})

PERMISSIONS: Final = (
    AUDIT | CRYPTO | KEYS | MATERIAL | TOKENS | SECRETS | VAULTS | POLICY | ADMIN | QUOTAS | OWN_QUOTAS | APPROVALS
)
GRANTABLE: Final = (CRYPTO - {"crypto.generate_random"}) | {"keys.get_public_key"}
"""What a grant may give: use of one key.  Random bytes come from a vault; and nothing here lets a grantee pass anything on."""

# Of the roles of use only crypto-user holds crypto.derive: an agreed secret encrypts and decrypts, so it fits no other.
# crypto.reencrypt_from goes with decrypt and never with encrypt: whoever holds it and a key of their own can read.
BUILT_IN_ROLES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "admin": PERMISSIONS,
        # The delegated administrator of a vault: hands on what is in this role, and nothing else.
        "vault-operator": KEYS | SECRETS_UNSEEN | POLICY | QUOTAS | OWN_QUOTAS | {"vaults.get", "vaults.update"},
        "key-admin": KEYS,
        "secret-admin": SECRETS_UNSEEN,
        # Puts values in and promotes them; neither reads nor destroys.
        "secret-writer": frozenset(
            {
                "quotas.get_own",
                "secrets.add_version",
                "secrets.create",
                "secrets.get",
                "secrets.list",
                "secrets.set_alias",
                "secrets.update",
            }
        ),
        "secret-reader": frozenset({"quotas.get_own", "secrets.access", "secrets.get", "secrets.list"}),
        "key-importer": frozenset({"keys.create_import_job", "keys.get", "keys.get_import_job", "keys.import"}),
        "key-exporter": frozenset({"keys.export", "keys.get"}),
        "quota-admin": QUOTAS | OWN_QUOTAS,
        # Beside a role of use: whoever grants must hold what is granted.
        "granter": GRANTING,
        # For those whom an approval rule names: to find what waits for them, and why.
        "approver": APPROVALS - {"approvals.set_rules"},
        # Not keys.get: callers without it cannot tell a key that is missing from one that they may not use.
        "crypto-user": CRYPTO | OWN_QUOTAS | {"keys.get_capabilities", "keys.get_public_key"},
        "encrypter": frozenset(
            {
                "crypto.encapsulate",
                "crypto.encrypt",
                "crypto.generate_data_key",
                "crypto.inspect",
                "crypto.reencrypt_to",
                "keys.get_public_key",
                "quotas.get_own",
            }
        ),
        "decrypter": frozenset(
            {
                "crypto.decapsulate",
                "crypto.decrypt",
                "crypto.inspect",
                "crypto.reencrypt_from",
                "keys.get_public_key",
                "quotas.get_own",
            }
        ),
        "signer": frozenset({"crypto.generate_mac", "crypto.sign", "keys.get_public_key", "quotas.get_own"}),
        "verifier": frozenset({"crypto.verify", "crypto.verify_mac", "keys.get_public_key", "quotas.get_own"}),
        "wrapper": frozenset({"crypto.wrap", "quotas.get_own"}),
        "unwrapper": frozenset({"crypto.unwrap", "quotas.get_own"}),
        "auditor": AUDIT
        | frozenset(
            {
                "admin.get_status",
                "admin.list_revoked_identities",
                "approvals.get_rules",
                "approvals.list",
                "keys.get",
                "keys.list",
                "keys.list_grants",
                "policy.get",
                "quotas.get",
                "quotas.list",
                "secrets.get",
                "secrets.list",
                "vaults.get",
                "vaults.list",
            }
        ),
    }
)
