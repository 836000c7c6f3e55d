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
        "keys.create",
        "keys.delete",
        "keys.destroy",
        "keys.get",
        "keys.get_capabilities",
        "keys.get_public_key",
        "keys.list",
        "keys.purge",
        "keys.rotate",
        "keys.update",
    }
)
TOKENS: Final = frozenset({"keys.adopt"})
"""Not for those who administer a vault: a token's objects belong to all vaults."""
VAULTS: Final = frozenset({"vaults.create", "vaults.delete", "vaults.get", "vaults.list", "vaults.update"})
IDENTITIES: Final = frozenset({"admin.list_revoked_identities", "admin.restore_identity", "admin.revoke_identity"})
ADMIN: Final = IDENTITIES | {"admin.get_status", "admin.rotate_root_key", "admin.seal"}

PERMISSIONS: Final = CRYPTO | KEYS | TOKENS | VAULTS | ADMIN

# Of the roles of use only crypto-user holds crypto.derive: an agreed secret encrypts and decrypts, so it fits no other.
# crypto.reencrypt_from goes with decrypt and never with encrypt: whoever holds it and a key of their own can read.
BUILT_IN_ROLES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "admin": PERMISSIONS,
        "vault-operator": KEYS | {"vaults.get", "vaults.update"},
        "key-admin": KEYS,
        # Not keys.get: callers without it cannot tell a key that is missing from one that they may not use.
        "crypto-user": CRYPTO | {"keys.get_capabilities", "keys.get_public_key"},
        "encrypter": frozenset(
            {
                "crypto.encapsulate",
                "crypto.encrypt",
                "crypto.generate_data_key",
                "crypto.inspect",
                "crypto.reencrypt_to",
                "keys.get_public_key",
            }
        ),
        "decrypter": frozenset(
            {
                "crypto.decapsulate",
                "crypto.decrypt",
                "crypto.inspect",
                "crypto.reencrypt_from",
                "keys.get_public_key",
            }
        ),
        "signer": frozenset({"crypto.generate_mac", "crypto.sign", "keys.get_public_key"}),
        "verifier": frozenset({"crypto.verify", "crypto.verify_mac", "keys.get_public_key"}),
        "wrapper": frozenset({"crypto.wrap"}),
        "unwrapper": frozenset({"crypto.unwrap"}),
        "auditor": frozenset(
            {
                "admin.get_status",
                "admin.list_revoked_identities",
                "keys.get",
                "keys.list",
                "vaults.get",
                "vaults.list",
            }
        ),
    }
)
