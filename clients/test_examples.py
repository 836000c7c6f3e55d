"""The example programs of each language, run against a real `vaultd dev`: `make test-clients`."""

import asyncio
import os
from pathlib import Path

import pytest
import pytest_asyncio

from clients.test_grpcurl import b64, serving

HERE = Path(__file__).resolve().parent
PROGRAMS = {
    "go": [HERE / "go" / "build" / "example"],
    "node": ["node", HERE / "node" / "build" / "example.js"],
    "java": [
        "java",
        "-cp",
        f"{HERE}/java/target/classes:{HERE}/java/target/dependency/*",
        "dev.vaultd.example.Example",
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vault(tmp_path_factory):
    async with serving(tmp_path_factory.mktemp("vault") / "dev") as vault:
        for key_id, purpose in (("orders", "ENCRYPT_DECRYPT"), ("release", "SIGN")):
            request = {"parent": "vaults/default", "key_id": key_id, "key": {"purpose": f"KEY_PURPOSE_{purpose}"}}
            await vault.call("KeysService/CreateKey", request)
        secret = {"parent": "vaults/default", "secret_id": "db", "payload": b64(b"a password")}
        await vault.call("SecretsService/CreateSecret", secret)
        yield vault


@pytest.mark.parametrize("language", PROGRAMS)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_example_runs(vault, language):
    tls = vault.directory / "tls"
    process = await asyncio.create_subprocess_exec(
        *PROGRAMS[language],
        env={
            **os.environ,
            "VAULTD_ADDR": vault.address,
            "VAULTD_CA": str(tls / "ca.crt"),
            "VAULTD_CERT": str(tls / "app.crt"),
            "VAULTD_KEY": str(tls / "app.key"),
            "VAULTD_ENCRYPTION_KEY": "vaults/default/keys/orders",
            "VAULTD_SIGNING_KEY": "vaults/default/keys/release",
            "VAULTD_SECRET": "vaults/default/secrets/db",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert out.decode().splitlines() == [
        "decrypted vaults/default/keys/orders/versions/1",
        "refused DECRYPTION_FAILED",
        "verified true",
        "read vaults/default/secrets/db/versions/1 10 bytes",
    ]
