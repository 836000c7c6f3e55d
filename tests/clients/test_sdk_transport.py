"""How the SDK reaches a vault: certificates that rotate, names of servers, several endpoints, tokens, retries."""

from __future__ import annotations

import asyncio
import contextvars
import shutil
import subprocess
import sys
import threading
import time

import pytest
import pytest_asyncio
from cryptography.x509.oid import ExtendedKeyUsageOID
from sdk_rig import AEAD, PATIENT, Audit, async_client, create_keys, identity, sync_client, wire_to

from harness import APP, FakeClock, running_server
from ports import free_port
from tokens import AUDIENCE, ISSUER, TokenIssuer
from vaultd.devpki import create_dev_pki, issue_client_certificate
from vaultd_client import (
    AsyncClient,
    CallInfo,
    Client,
    ConfigurationError,
    DeadlineExceeded,
    TokenFile,
    Unavailable,
    VaultdError,
    tls,
)
from vaultd_client.endpoints import OPENS_AFTER
from vaultd_client.trace import call_metadata

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "spiffe://dev.vaultd/other"
SERVER = "spiffe://dev.vaultd/server"
POLICY = {
    "bindings": [
        {"members": [APP, OTHER, "jwt:ci:one", "jwt:ci:two"], "role": "crypto-user", "resource": "vaults/default"}
    ]
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer():
    return TokenIssuer(FakeClock(time.time_ns() // 1_000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory, issuer):
    directory = tmp_path_factory.mktemp("sdk")
    (directory / "ci.jwks").write_bytes(issuer.jwks())
    section = {"id": "ci", "issuer": ISSUER, "audiences": [AUDIENCE], "jwks_file": directory / "ci.jwks"}
    async with running_server(
        directory, policy=POLICY, listen_tls="127.0.0.1:0", jwt={"issuers": [section]}, **PATIENT
    ) as server:
        server.add_identity("other", uri=OTHER)
        await create_keys(server)
        yield server


# -- certificates ---------------------------------------------------------------------------------------------------------


async def test_a_certificate_that_is_replaced_is_used_without_a_restart_and_half_a_pair_is_not(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(tls, "LOOK_S", 0.0)
    files = server.directory / "tls"
    for name in ("ca.crt", "app.crt", "app.key"):
        shutil.copy(files / name, tmp_path / name)
    async with AsyncClient(server.address, **identity(tmp_path, "app")) as vault:
        audit = Audit(server)
        await vault.encrypt(AEAD, b"p")
        shutil.copy(files / "other.crt", tmp_path / "app.crt")
        await vault.encrypt(AEAD, b"p")  # the key is still the old one's
        shutil.copy(files / "other.key", tmp_path / "app.key")
        await asyncio.gather(*(vault.encrypt(AEAD, b"p") for _ in range(5)))
        (tmp_path / "app.key").unlink()
        await vault.encrypt(AEAD, b"p")
    assert [call["principal"] for call in audit.calls()] == [APP, APP, OTHER, OTHER, OTHER]


async def test_calls_under_way_end_on_the_old_connection(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "LOOK_S", 0.0)
    files = server.directory / "tls"
    for name in ("ca.crt", "app.crt", "app.key"):
        shutil.copy(files / name, tmp_path / name)
    async with wire_to(server.address) as wire:
        async with AsyncClient(wire.address, **identity(tmp_path, "app"), coalesce=False) as vault:
            await vault.encrypt(AEAD, b"p")
            wire.open.clear()
            info = CallInfo()
            under_way = asyncio.create_task(vault.encrypt(AEAD, b"p", info=info))
            await wire.waiting.wait()
            shutil.copy(files / "other.crt", tmp_path / "app.crt")
            shutil.copy(files / "other.key", tmp_path / "app.key")
            after = asyncio.create_task(vault.encrypt(AEAD, b"p"))
            await asyncio.sleep(0)
            wire.open.set()
            await asyncio.gather(under_way, after)
    assert info.attempts == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ca": "missing.crt"}, "cannot be read"),
        ({"certificate": None}, "VAULTD_CERT"),
        ({"certificate": None, "key": None}, "VAULTD_CERT"),
        ({"certificate": "other.crt"}, "is not the key of"),
        ({"ca": "app.key"}, "no PEM"),
        ({"address": " , "}, "VAULTD_ADDR"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
async def test_settings_that_make_no_client_are_refused_and_say_why(server, changes, told):
    files = server.directory / "tls"
    arguments = {"address": server.address, **identity(files, "app"), **changes}
    for name in ("ca", "certificate", "key"):
        arguments[name] = files / arguments[name] if arguments[name] else None
    for client in (AsyncClient, Client):
        with pytest.raises(ConfigurationError, match=told):
            client(**arguments)


async def test_the_environment_says_where_the_vault_is(server, monkeypatch):
    files = server.directory / "tls"
    for name in ("VAULTD_CA", "VAULTD_CERT", "VAULTD_KEY", "VAULTD_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="VAULTD_ADDR"):
        AsyncClient.from_env()
    found = {"ADDR": server.address, "CA": files / "ca.crt", "CERT": files / "app.crt", "KEY": files / "app.key"}
    for name, value in found.items():
        monkeypatch.setenv(f"VAULTD_{name}", str(value))
    async with AsyncClient.from_env() as vault:
        assert (await vault.encrypt(AEAD, b"p")).key_version == f"{AEAD}/versions/1"


async def test_a_server_is_known_by_its_spiffe_id_where_one_is_configured(tmp_path):
    files = tmp_path / "tls"
    create_dev_pki(files, hosts=["127.0.0.1"])
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    certificate, key = issue_client_certificate(files, files / "svid", uri=SERVER, usage=usage)
    async with running_server(tmp_path, tls={"certificate": certificate, "key": key}) as server:
        async with async_client(server, "admin", server_name=SERVER) as vault:
            assert (await vault.get_status()).version
        for name in (None, f"{SERVER}s", "spiffe://dev.vaultd", "dev.vaultd", "spiffe"):
            async with async_client(server, "admin", server_name=name, timeout_s=20) as vault:
                with pytest.raises(Unavailable, match="not in peer certificate"):
                    await vault.get_status()


# -- tokens ---------------------------------------------------------------------------------------------------------------


async def test_calls_of_different_tokens_never_travel_together(server, issuer):
    whose = contextvars.ContextVar("whose")
    tokens = {sub: issuer.token(sub=sub) for sub in ("one", "two")}

    async def provide() -> str:
        return tokens[whose.get()]

    async def caller(sub: str) -> str:
        whose.set(sub)
        info = CallInfo()
        await vault.encrypt(AEAD, b"p", info=info)
        return info.request_id

    address = f"127.0.0.1:{server.server.tls_port}"
    async with AsyncClient(address, ca=server.directory / "tls/ca.crt", token=provide) as vault:
        audit = Audit(server)
        subs = ["one", "two"] * 10
        requests = await asyncio.gather(*(asyncio.create_task(caller(sub)) for sub in subs))
    principals = {call["id"]: call["principal"] for call in audit.calls()}
    assert [principals[request] for request in requests] == [f"jwt:ci:{sub}" for sub in subs]
    assert sorted(audit.items()) == [1, 1, 9, 9]


async def test_a_token_file_is_read_again_when_it_changes(server, issuer, tmp_path):
    path = tmp_path / "token"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        TokenFile(path)()
    path.write_text(issuer.token(sub="one"))
    address = f"127.0.0.1:{server.server.tls_port}"
    async with AsyncClient(address, ca=server.directory / "tls/ca.crt", token=TokenFile(path)) as vault:
        audit = Audit(server)
        await vault.encrypt(AEAD, b"p")
        path.write_text(issuer.token(sub="two", padding="longer"))
        await vault.encrypt(AEAD, b"p")
    assert [call["principal"] for call in audit.calls()] == ["jwt:ci:one", "jwt:ci:two"]


async def test_the_deadline_of_a_call_covers_its_token(server):
    audit, never, waits_s = Audit(server), asyncio.Event(), [0.0, 0.21, 0.21]

    def slow() -> None:
        threading.Event().wait(waits_s.pop(0))  # the certificate says who it is

    def blocking() -> None:
        with sync_client(server, "admin", token=slow) as vault:
            vault.get_key(AEAD)
            for call in (vault.get_key, lambda name, **options: vault.encrypt(name, b"x", **options)):
                with pytest.raises(DeadlineExceeded):
                    call(AEAD, timeout_s=0.2)

    async with async_client(server, "admin", token=never.wait) as vault:
        for call in (vault.get_key, lambda name, **options: vault.encrypt(name, b"x", **options)):
            with pytest.raises(DeadlineExceeded):
                await asyncio.wait_for(call(AEAD, timeout_s=0.01), 60)
    await asyncio.to_thread(blocking)
    assert audit.methods() == ["GetKey"]


# -- endpoints ------------------------------------------------------------------------------------------------------------


async def test_calls_go_round_and_past_an_endpoint_that_is_down(server):
    async with wire_to(server.address) as one, wire_to(server.address) as two:
        addresses = [one.address, two.address, f"127.0.0.1:{free_port()}"]
        async with async_client(server, address=addresses) as vault:
            infos = [CallInfo() for _ in range(12)]
            for info in infos:
                await vault.encrypt(AEAD, b"p", info=info)
            assert {info.address for info in infos} == {one.address, two.address}
            assert max(info.attempts for info in infos) == 2
            two.cut()
            two.refuse = True
            infos = [CallInfo() for _ in range(12)]
            for info in infos:
                await vault.encrypt(AEAD, b"p", info=info)
            assert {info.address for info in infos} == {one.address}


async def test_a_sealed_vault_says_that_it_is_sealed_however_often_it_is_asked_and_can_be_unsealed_at_once(server):
    async with async_client(server, "admin") as admin:
        await admin.seal()
        reasons = []
        for _ in range(OPENS_AFTER + 2):
            with pytest.raises(Unavailable) as raised:
                await admin.encrypt(AEAD, b"p", timeout_s=3)  # less than it is told to wait
            reasons.append(raised.value.reason)
        await admin.unseal()
        assert (await admin.encrypt(AEAD, b"p")).ciphertext
    assert reasons == ["SEALED"] * len(reasons)


async def test_when_nothing_answers_the_circuit_opens_and_calls_fail_at_once(server):
    async with async_client(server, address=f"127.0.0.1:{free_port()}", timeout_s=20) as vault:
        reasons = []
        while "CIRCUIT_OPEN" not in reasons:
            with pytest.raises(VaultdError) as raised:
                await vault.seal(timeout_s=0.2 if reasons else 2)
            reasons.append(raised.value.reason)
    assert reasons[0] == "UNREACHABLE"


# -- processes ------------------------------------------------------------------------------------------------------------

FORKED = """
import os, sys
from vaultd_client import Client, ForkedClient
unused, used = Client.from_env(), Client.from_env()
used.generate_random_bytes("vaults/default", 8)
if os.fork() == 0:
    try:
        used.generate_random_bytes("vaults/default", 8)
    except ForkedClient as error:
        print("told", error)
    os._exit(0)
os.wait()
used.generate_random_bytes("vaults/default", 8)
print("parent goes on")
"""


async def test_a_client_that_made_calls_before_a_fork_says_so_in_the_child(server):
    files = server.directory / "tls"
    environment = {
        "VAULTD_ADDR": server.address,
        **{
            f"VAULTD_{name}": str(files / file)
            for name, file in (("CA", "ca.crt"), ("CERT", "app.crt"), ("KEY", "app.key"))
        },
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-u", "-c", FORKED],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "told the client made calls before this process was forked" in done.stdout
    assert "parent goes on" in done.stdout


@pytest.mark.parametrize("token", ["s3cret\n", "s3cret and", "s3cret\x7f", "s3crét", ""])
async def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token):
    with pytest.raises(ConfigurationError) as refused:
        call_metadata(token, None)
    assert "s3c" not in str(refused.value)
    assert call_metadata("!s3cret~", None) == [("authorization", "Bearer !s3cret~")]
