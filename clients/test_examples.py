"""The example programs of each language, run against a real `vaultd dev`: `make test-clients`."""

import asyncio
import os
import re
import sys
import textwrap
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


async def test_buf_generates_as_the_page_says(tmp_path):
    page = (HERE.parent / "docs/languages.md").read_text()
    (template,) = re.findall(r"^   ```yaml\n(.*?)^   ```", page, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^   (buf generate .*)$", page, re.MULTILINE)
    (tmp_path / "buf.gen.yaml").write_text(textwrap.dedent(template))
    (tmp_path / "vaultd").symlink_to(HERE.parent)
    path = f"{HERE.parent / '.bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_shell(command, cwd=tmp_path, env={**os.environ, "PATH": path})
    assert await process.wait() == 0
    assert (tmp_path / "gen/vaultd/v1/crypto_grpc.pb.go").stat().st_size
