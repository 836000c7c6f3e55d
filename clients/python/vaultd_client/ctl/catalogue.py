"""Every RPC and the command that calls it.  A test proves that none is missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Verb:
    """A command of an RPC.

    command: the words.  target: the kind of resource that the first argument names; `?` behind it: may be left out.  arguments:
    further fields that stand without an option, `...` behind one that takes the rest.  input: the bytes that come from FILE or
    standard input.  raw: the field that is the answer, when bytes are wanted.  loses: what is gone when it is done; asks before
    it.  renamed, skip, kinds: other names of options, fields without one, kinds of resources that options name.  by_hand:
    MODULE:NAME of a command that is not made of the request's fields.  no_if_false: exit code 1 when this field is false.
    key_by_default: a field that is the key of the first argument unless it is said.
    """

    command: str
    rpc: str
    target: str = ""
    arguments: tuple[str, ...] = ()
    input: str = ""
    raw: str = ""
    loses: str = ""
    no_if_false: str = ""
    by_hand: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()
    kinds: dict[str, str] = field(default_factory=dict)
    key_by_default: str = ""


GROUPS: Final = {
    "admin": "The server itself: state, seal, root key.",
    "approvals": "Requests that need the approval of others, and the rules that say which.",
    "approvals rules": "Which calls need approval.",
    "audit": "The audit log: follow it, verify it, prove a record.",
    "crypto": "Use keys: encrypt, decrypt, sign, verify, MAC, wrap, agree.",
    "crypto batch": "Many operations in one call: JSON lines in, JSON lines out.",
    "grants": "Let somebody else use one key, within limits.",
    "identities": "Refuse the calls of a principal, everywhere and at once.",
    "import-jobs": "Key pairs that key material is wrapped to on its way in.",
    "keys": "Keys: create, rotate, import, export, back up, destroy.",
    "keys versions": "Versions of keys: list, enable, disable, destroy, restore.",
    "policy": "Policy as code: who may do what, in files.",
    "quotas": "How much callers may ask.",
    "rotations": "Secrets that rotate by themselves.",
    "secrets": "Secrets and their versions.",
    "secrets versions": "Versions of secrets: list, enable, disable, destroy.",
    "vaults": "Vaults: tenants that share nothing.",
}
"""Every group of commands, and its line in the help."""

_HAND: Final = "vaultd_client.ctl."
_POLICY: Final = f"{_HAND}policy_commands:"
_KEYS: Final = f"{_HAND}key_commands:"
_PURGED: Final = "{name} is erased with all its versions"

VERBS: Final = (
    Verb("admin status", "GetStatus"),
    Verb("admin init", "Init"),
    Verb(
        "admin seal", "Seal", loses="The server forgets its keys: every call is refused until an operator unseals it."
    ),
    Verb("admin unseal", "Unseal"),
    Verb("admin rotate-root-key", "RotateRootKey"),
    Verb("vaults create", "CreateVault", "vault"),
    Verb("vaults get", "GetVault", "vault"),
    Verb("vaults list", "ListVaults"),
    Verb("vaults update", "UpdateVault", "vault"),
    Verb("vaults delete", "DeleteVault", "vault", loses="{name} is deleted, and its name is never free again."),
    Verb("quotas create", "CreateQuota", "quota"),
    Verb("quotas get", "GetQuota", "quota"),
    Verb("quotas list", "ListQuotas", "vault?"),
    Verb("quotas update", "UpdateQuota", "quota"),
    Verb("quotas delete", "DeleteQuota", "quota"),
    Verb("quotas mine", "ListOwnQuotas", "resource", ("method",)),
    Verb("approvals rules get", "GetApprovalRules"),
    Verb("approvals rules set", "SetApprovalRules", by_hand=f"{_HAND}approval_commands:set_rules"),
    Verb("approvals list", "ListApprovals"),
    Verb("approvals get", "GetApproval", "approval"),
    Verb("approvals approve", "ApproveRequest", "approval"),
    Verb("approvals reject", "RejectRequest", "approval"),
    Verb("approvals cancel", "CancelApproval", "approval"),
    Verb("policy get", "GetPolicy", by_hand=f"{_POLICY}get"),
    Verb("policy apply", "SetPolicy", by_hand=f"{_POLICY}apply"),
    Verb(
        "policy check",
        "TestPolicy",
        "resource",
        ("permissions...",),
        skip=frozenset({"policy", "policy_resource"}),
    ),
    Verb("policy explain", "ExplainAccess", kinds={"resource": "resource"}),
    Verb("policy review", "ReviewAccess", "resource"),
    Verb(
        "identities revoke", "RevokeIdentity", arguments=("principal",), loses="Every call of {principal} is refused."
    ),
    Verb("identities list", "ListRevokedIdentities"),
    Verb("identities restore", "RestoreIdentity", arguments=("principal",)),
    Verb("watch", "Watch", by_hand=f"{_HAND}stream_commands:watch"),
    Verb("audit proof", "GetInclusionProof", arguments=("sequence",)),
    Verb("audit consistency", "GetConsistencyProof", arguments=("tree_size",)),
    Verb("audit verify", "VerifyAudit", by_hand=f"{_HAND}audit_commands:verify"),
    Verb("audit tail", "TailAudit", by_hand=f"{_HAND}audit_commands:tail"),
    Verb("crypto encrypt", "Encrypt", "key_or_version", input="plaintext", raw="ciphertext"),
    Verb("crypto decrypt", "Decrypt", "key_or_version", input="ciphertext", raw="plaintext"),
    Verb(
        "crypto reencrypt",
        "ReEncrypt",
        "key_or_version",
        input="ciphertext",
        raw="ciphertext",
        renamed={"destination_name": "to"},
        key_by_default="destination_name",
        kinds={"destination_name": "key_or_version"},
    ),
    Verb("crypto sign", "Sign", "key_or_version", input="message", raw="signature"),
    Verb("crypto verify", "Verify", "key_or_version", input="message", no_if_false="valid"),
    Verb("crypto mac", "GenerateMac", "key_or_version", input="data", raw="mac"),
    Verb("crypto verify-mac", "VerifyMac", "key_or_version", input="data", no_if_false="valid"),
    Verb("crypto wrap", "WrapKey", "key_or_version", input="key_material", raw="wrapped_key"),
    Verb("crypto unwrap", "UnwrapKey", "key_or_version", input="wrapped_key", raw="key_material"),
    Verb("crypto data-key", "GenerateDataKey", "key_or_version"),
    Verb("crypto encapsulate", "Encapsulate", "key_or_version"),
    Verb("crypto decapsulate", "Decapsulate", "key_or_version", input="ciphertext", raw="shared_secret"),
    Verb("crypto derive", "DeriveSharedSecret", "key_or_version", input="peer_public_key", raw="shared_secret"),
    Verb("crypto random", "GenerateRandomBytes", arguments=("length_bytes",), raw="data"),
    Verb("crypto inspect", "InspectCiphertext", "key", input="ciphertext"),
    Verb("crypto batch encrypt", "BatchEncrypt"),
    Verb("crypto batch decrypt", "BatchDecrypt"),
    Verb("crypto batch reencrypt", "BatchReEncrypt"),
    Verb("crypto batch sign", "BatchSign"),
    Verb("crypto batch verify", "BatchVerify"),
    Verb("crypto batch mac", "BatchGenerateMac"),
    Verb("crypto batch verify-mac", "BatchVerifyMac"),
    Verb("crypto batch wrap", "BatchWrapKey"),
    Verb("crypto batch unwrap", "BatchUnwrapKey"),
    Verb("crypto stream", "CryptoStream"),
    Verb("crypto reencrypt-all", "ReEncryptStream", by_hand=f"{_HAND}reencrypt_commands:reencrypt_all"),
    Verb("keys create", "CreateKey", "key"),
    Verb("keys adopt", "AdoptKey", "key"),
    Verb("keys get", "GetKey", "key"),
    Verb("keys list", "ListKeys", "vault?"),
    Verb("keys update", "UpdateKey", "key"),
    Verb("keys rotate", "RotateKey", "key"),
    Verb("keys set-primary", "SetPrimaryVersion", "key_version"),
    Verb("keys versions list", "ListKeyVersions", "key"),
    Verb("keys versions get", "GetKeyVersion", "key_or_version"),
    Verb("keys versions enable", "EnableKeyVersion", "key_version"),
    Verb("keys versions disable", "DisableKeyVersion", "key_version"),
    Verb(
        "keys versions destroy",
        "DestroyKeyVersion",
        "key_version",
        loses="{name} is out of use at once, and its material is erased at its destroy_time: what it protects cannot be opened.",
    ),
    Verb("keys versions restore", "RestoreKeyVersion", "key_version"),
    Verb(
        "keys delete",
        "DeleteKey",
        "key",
        loses="{name} is out of use at once, and purged later unless it is undeleted.",
    ),
    Verb("keys undelete", "UndeleteKey", "key"),
    Verb("keys purge", "PurgeKey", "key", loses=f"{_PURGED}: what they protect can never be opened again."),
    Verb("keys public-key", "GetPublicKey", "key_or_version", raw="pem"),
    Verb("keys capabilities", "GetCapabilities", "vault?"),
    Verb("keys usage", "GetKeyUsage", "key"),
    Verb("grants create", "CreateGrant", "key"),
    Verb("grants get", "GetGrant", "grant"),
    Verb("grants list", "ListGrants", "key_or_vault?"),
    Verb("grants revoke", "RevokeGrant", "grant"),
    Verb("import-jobs create", "CreateImportJob", "import_job"),
    Verb("import-jobs get", "GetImportJob", "import_job"),
    Verb("import-jobs list", "ListImportJobs", "vault?"),
    Verb("keys import", "ImportKeyVersion", by_hand=f"{_KEYS}import_key"),
    Verb("keys export", "ExportKeyVersion", by_hand=f"{_KEYS}export_key"),
    Verb("keys backup", "BackupKey", by_hand=f"{_KEYS}backup"),
    Verb("keys restore", "RestoreKeyBackup", by_hand=f"{_KEYS}restore"),
    Verb("secrets create", "CreateSecret", "secret"),
    Verb("secrets get", "GetSecret", "secret"),
    Verb("secrets list", "ListSecrets", "vault?"),
    Verb("secrets update", "UpdateSecret", "secret"),
    Verb("secrets add", "AddSecretVersion", "secret", input="payload"),
    Verb("secrets access", "AccessSecretVersion", "secret_or_version", raw="payload"),
    Verb("secrets batch-access", "BatchAccessSecretVersions"),
    Verb("secrets versions list", "ListSecretVersions", "secret"),
    Verb("secrets versions get", "GetSecretVersion", "secret_or_version"),
    Verb("secrets versions enable", "EnableSecretVersion", "secret_version"),
    Verb("secrets versions disable", "DisableSecretVersion", "secret_version"),
    Verb(
        "secrets versions destroy",
        "DestroySecretVersion",
        "secret_version",
        loses="The payload of {name} is erased at once, for ever.",
    ),
    Verb("secrets set-alias", "SetAlias", "secret", ("alias",), kinds={"version": "secret_or_version"}),
    Verb(
        "secrets delete",
        "DeleteSecret",
        "secret",
        loses="{name} is not given out any more, and purged later unless undeleted.",
    ),
    Verb("secrets undelete", "UndeleteSecret", "secret"),
    Verb("secrets purge", "PurgeSecret", "secret", loses=f"{_PURGED}, for ever."),
    Verb("rotations set", "SetRotationPolicy", "secret"),
    Verb("rotations delete", "DeleteRotationPolicy", "secret"),
    Verb("rotations get", "GetRotation", "secret"),
    Verb("rotations list", "ListRotations", "vault?"),
    Verb("rotations run", "RotateSecret", "secret"),
    Verb("rotations cancel", "CancelRotation", "secret"),
)
"""Every RPC, once."""

MORE: Final = {
    "policy diff": (f"{_POLICY}diff", "Show what a file would change."),
    "policy test": (f"{_POLICY}run_tests", "Test a policy by a file of expectations."),
    "policy schema": (f"{_POLICY}schema", "Print the JSON schema of policy files."),
    "secrets put": (f"{_HAND}secret_commands:put", "Store a value: a new version, of a new secret if need be."),
}
"""Commands of groups that are not one RPC."""
