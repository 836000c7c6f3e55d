"""Makes the keys of the other examples, unless they exist, and shows what errors tell."""

from vaultd_client import AlreadyExists, Client, VaultdError

VAULT = "vaults/default"
KEYS = {"orders": "KEY_PURPOSE_ENCRYPT_DECRYPT", "release": "KEY_PURPOSE_SIGN"}

with Client.from_env() as vault:
    for key_id, purpose in KEYS.items():
        try:
            made = vault.create_key(VAULT, key_id, {"purpose": purpose, "labels": {"of": "examples"}})
            print("made", made.name)
        except AlreadyExists as error:
            print("there already:", error.reason)
    try:
        vault.create_key(VAULT, "Not A Name", {"purpose": "KEY_PURPOSE_SIGN"})
    except VaultdError as error:
        print(error.code, error.reason, [violation.field for violation in error.field_violations], error.request_id)
