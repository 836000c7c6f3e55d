"""Root-key providers: where the key that wraps the key ring lives.

A provider wraps and unwraps; it never gives its key away, so that a token can be one later.  Three are here:

    file        FileRootKey        keys in a 0600 file that vaultd writes itself (development, single machines)
    passphrase  PassphraseRootKey  Argon2id over what the operator types at unseal; nothing is stored but a salt
    credential  CredentialRootKey  a systemd credential, a mounted file or an environment variable, never written

Formats, fixed for ever by their version marks (docs/formats.md):

    key line    `vaultd-root-key-v1 <ref> <base64 of 32 bytes>`, newest first; `#` begins a comment line
    ref         16 hex digits, random; `sha256:` + 16 of a bare credential; `argon2id:v=1,...` of a passphrase
    wrapping    0x01 || salt (16) || nonce (12) || AES-256-GCM ciphertext and tag
                  key = HKDF-SHA256(root key, salt, info "vaultd/root-key/wrap/v1")
                  associated data = "vaultd/root-key/wrap/v1" || len(ref) as two bytes || ref || the caller's

The salt gives every wrapping a key of its own, so the root key has no message limit.
"""

from __future__ import annotations

from vaultd.backends.rootkeys.base import KEY_BYTES, RootKeyProvider
from vaultd.backends.rootkeys.credential import CredentialRootKey
from vaultd.backends.rootkeys.file import FileRootKey
from vaultd.backends.rootkeys.lines import new_root_key_line
from vaultd.backends.rootkeys.passphrase import (
    MAX_PASSPHRASE_BYTES,
    MIN_PASSPHRASE_BYTES,
    Argon2Cost,
    PassphraseRootKey,
)

__all__ = [
    "KEY_BYTES",
    "MAX_PASSPHRASE_BYTES",
    "MIN_PASSPHRASE_BYTES",
    "Argon2Cost",
    "CredentialRootKey",
    "FileRootKey",
    "PassphraseRootKey",
    "RootKeyProvider",
    "new_root_key_line",
]
