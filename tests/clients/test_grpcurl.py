"""Real grpcurl against a real `vaultd dev`: what the README promises in its first five minutes."""

import asyncio
import base64
import json
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
GRPCURL = REPOSITORY / ".bin" / "grpcurl"


class DevVault:
    """A `vaultd dev` process and what it printed."""

    def __init__(self, directory: Path, address: str, printed: str) -> None:
        self.directory = directory
        self.address = address
        self.printed = printed

    async def call(self, method: str, request: dict, identity: str = "admin") -> dict:
        tls = self.directory / "tls"
        process = await asyncio.create_subprocess_exec(
            GRPCURL,
            *("-cacert", tls / "ca.crt", "-cert", tls / f"{identity}.crt", "-key", tls / f"{identity}.key"),
            *("-d", json.dumps(request), self.address, f"vaultd.v1.{method}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)


@asynccontextmanager
async def serving(directory: Path, *flags: str) -> AsyncIterator[DevVault]:
    """`vaultd dev` on a directory, until the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vaultd", "dev", "--dir", directory, "--listen", "127.0.0.1:0", *flags),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            ready = (await process.stdout.readline()).decode().split()
            printed = (await process.stdout.readline()).decode().strip()
        assert ready[0] == "ready"
        yield DevVault(directory, ready[1], printed)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


@pytest.fixture
async def vault(tmp_path):
    async with serving(tmp_path / "dev") as vault:
        yield vault


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


async def test_the_printed_line_works_as_printed(vault):
    arguments = shlex.split(vault.printed)
    assert arguments[0] == "grpcurl"
    process = await asyncio.create_subprocess_exec(GRPCURL, *arguments[1:], stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["sealState"] == "SEAL_STATE_UNSEALED"


async def test_a_session_encrypts_decrypts_signs_and_verifies(vault):
    for key_id, purpose in (("orders", "ENCRYPT_DECRYPT"), ("release", "SIGN")):
        request = {"parent": "vaults/default", "key_id": key_id, "key": {"purpose": f"KEY_PURPOSE_{purpose}"}}
        await vault.call("KeysService/CreateKey", request)
    orders, release = "vaults/default/keys/orders", "vaults/default/keys/release"
    sealed = await vault.call("CryptoService/Encrypt", {"name": orders, "plaintext": b64(b"hello")}, "app")
    opened = await vault.call("CryptoService/Decrypt", {"name": orders, "ciphertext": sealed["ciphertext"]}, "app")
    assert base64.b64decode(opened["plaintext"]) == b"hello"
    signed = await vault.call("CryptoService/Sign", {"name": release, "message": b64(b"v1.0")}, "app")
    request = {"name": release, "message": b64(b"v1.0"), "signature": signed["signature"]}
    assert (await vault.call("CryptoService/Verify", request, "app"))["valid"] is True
    request["message"] = b64(b"v1.1")
    assert "valid" not in await vault.call("CryptoService/Verify", request, "app")


async def test_a_vault_that_exists_gets_a_token_once_and_keeps_its_keys(tmp_path):
    directory = tmp_path / "dev"
    software, hsm = "vaults/default/keys/before", "vaults/default/keys/payments"

    async def sign(vault: DevVault, name: str) -> None:
        signed = await vault.call("CryptoService/Sign", {"name": name, "message": b64(b"m")}, "app")
        assert signed["keyVersion"] == f"{name}/versions/1"

    request = {"parent": "vaults/default", "key_id": "before", "key": {"purpose": "KEY_PURPOSE_SIGN"}}
    async with serving(directory) as vault:
        await vault.call("KeysService/CreateKey", request)
    async with serving(directory, "--hsm") as vault:
        request["key_id"], request["key"]["protection_level"] = "payments", "PROTECTION_LEVEL_HSM"
        await vault.call("KeysService/CreateKey", request)
        await sign(vault, software)
    pin = (directory / "hsm" / "pin").read_bytes()
    for flags in (["--hsm"], []):
        async with serving(directory, *flags) as vault:
            await sign(vault, hsm)
    assert (directory / "hsm" / "pin").read_bytes() == pin


async def test_a_watch_prints_changes_as_they_happen(vault):
    tls = vault.directory / "tls"
    process = await asyncio.create_subprocess_exec(
        GRPCURL,
        *("-cacert", tls / "ca.crt", "-cert", tls / "admin.crt", "-key", tls / "admin.key"),
        *(
            "-d",
            '{"filter": {"resource_prefix": "vaults/default/keys"}}',
            vault.address,
            "vaultd.v1.AdminService/Watch",
        ),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, decoder = "", json.JSONDecoder()

    async def response() -> dict:
        nonlocal printed
        while True:
            try:
                found, end = decoder.raw_decode(printed)
            except ValueError:
                printed += (await process.stdout.readline()).decode()
            else:
                printed = printed[end:].lstrip()
                return found

    async with asyncio.timeout(60):
        begins = await response()
        assert "events" not in begins
        key = {"parent": "vaults/default", "key_id": "seen", "key": {"purpose": "KEY_PURPOSE_MAC"}}
        await vault.call("KeysService/CreateKey", key)
        shown = await response()
    names = {event["name"] for event in shown["events"]}
    assert names == {"vaults/default/keys/seen", "vaults/default/keys/seen/versions/1"}
    assert shown["resumeToken"] != begins["resumeToken"]
    process.kill()
    await process.wait()


async def test_streams_of_operations_take_several_messages(vault):
    await vault.call(
        "KeysService/CreateKey",
        {"parent": "vaults/default", "key_id": "orders", "key": {"purpose": "KEY_PURPOSE_ENCRYPT_DECRYPT"}},
    )
    key = "vaults/default/keys/orders"
    sealed = await vault.call("CryptoService/Encrypt", {"name": key, "plaintext": b64(b"one")}, "app")
    await vault.call("KeysService/RotateKey", {"name": key})

    async def stream(method: str, *messages: dict) -> list[dict]:
        tls = vault.directory / "tls"
        process = await asyncio.create_subprocess_exec(
            GRPCURL,
            *("-cacert", tls / "ca.crt", "-cert", tls / "app.crt", "-key", tls / "app.key"),
            *("-d", "@", vault.address, f"vaultd.v1.CryptoService/{method}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate("\n".join(map(json.dumps, messages)).encode())
        assert process.returncode == 0
        found, printed = [], out.decode().strip()
        while printed:
            one, end = json.JSONDecoder().raw_decode(printed)
            found.append(one)
            printed = printed[end:].lstrip()
        return found

    operation = {"id": 2, "encrypt": {"name": "vaults/default/keys/nobody", "plaintext": b64(b"two")}}
    answers = await stream(
        "CryptoStream",
        {"operations": [{"id": 1, "encrypt": {"name": key, "plaintext": b64(b"one")}}, operation]},
        {"operations": [{"id": 3, "inspectCiphertext": {"name": key, "ciphertext": sealed["ciphertext"]}}]},
    )
    results = {result["id"]: result for answer in answers for result in answer["results"]}
    assert results["1"]["encrypt"]["ciphertext"]
    assert results["2"]["status"]["code"] == 7
    assert results["3"]["inspectCiphertext"]["needsReencrypt"] is True
    moved = await stream(
        "ReEncryptStream",
        {"sourceName": key, "items": [{"id": 1, "ciphertext": sealed["ciphertext"]}]},
        {"items": [{"id": 2, "ciphertext": b64(b"no ciphertext")}]},
    )
    assert moved[-1]["done"] is True
    assert moved[-1]["report"] == {
        "moved": "1",
        "failed": "1",
        "movedFrom": {f"{key}/versions/1": "1"},
        "failures": {"DECRYPTION_FAILED": "1"},
    }
