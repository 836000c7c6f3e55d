"""Encrypts and decrypts with a key that this program never holds."""

from vaultd_client import Client, DecryptionFailed

KEY = "vaults/default/keys/orders"

with Client.from_env() as vault:
    sealed = vault.encrypt(KEY, b"4111 1111 1111 1111", associated_data=b"order 17")
    print("sealed by", sealed.key_version)

    opened = vault.decrypt(KEY, sealed.ciphertext, associated_data=b"order 17")
    print("opened:", opened.plaintext.decode())

    try:
        vault.decrypt(KEY, sealed.ciphertext, associated_data=b"order 18")
    except DecryptionFailed as error:
        print("not for order 18:", error.reason)
