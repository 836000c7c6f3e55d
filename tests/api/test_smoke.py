"""The shortest way through the whole server."""

from harness import running_server
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2


async def test_a_created_key_encrypts_and_decrypts(tmp_path):
    async with running_server(tmp_path) as server:
        key = await server.admin.keys.CreateKey(
            keys_pb2.CreateKeyRequest(
                parent="vaults/default",
                key_id="payments",
                key=resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT),
            )
        )
        sealed = await server.app.crypto.Encrypt(
            crypto_pb2.EncryptRequest(name=key.name, plaintext=b"attack at dawn", associated_data=b"order 7")
        )
        opened = await server.app.crypto.Decrypt(
            crypto_pb2.DecryptRequest(name=key.name, ciphertext=sealed.ciphertext, associated_data=b"order 7")
        )
    assert opened.plaintext == b"attack at dawn"
    assert opened.key_version == sealed.key_version == f"{key.name}/versions/1"
