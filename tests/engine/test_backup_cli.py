"""The commands that an operator runs, as processes of their own: init, serve, backup, restore, check-*, recover-admin."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from cryptography import x509

from engine.engines import edit, query
from harness import ADMIN, DEFAULT_POLICY, RunningServer, reason_of
from vaultd.cli import main
from vaultd.config import load_settings
from vaultd.devpki import create_dev_pki, issue_client_certificate
from vaultd.engine.authority import put_policy
from vaultd.engine.ledger import Intent
from vaultd.engine.model import ApprovalRule
from vaultd.engine.policy import seed_policy
from vaultd.wiring import Server
from vaultd_client.v1 import approval_pb2, crypto_pb2, keys_pb2, resources_pb2, secrets_pb2

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python'}"}
NAME = "vaults/default/keys/k"


def document(**overrides) -> dict:
    return {
        "listen": "127.0.0.1:0",
        "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": "tls/ca.crt", "trust_domain": "dev.vaultd"}],
        "operators": [ADMIN],
        "store": {"path": "vault.db"},
        "root_key": {"provider": "file", "path": "root.key"},
        "audit": {"directory": "audit"},
        "lifecycle": {"min_destroy_delay_s": 0},
        "drain_grace_s": 60.0,
        **overrides,
    }


def write_config(directory: Path, **overrides) -> Path:
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump(document(**overrides)))
    return config


def vaultd(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vaultd", *map(str, arguments)]
    return subprocess.run(
        command, env=ENVIRONMENT, cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@asynccontextmanager
async def serving(directory: Path):
    """`vaultd serve` as a process, and clients of it; ends it by SIGTERM if the test did not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vaultd",
        "serve",
        "--config",
        str(directory / "config.yaml"),
        env=ENVIRONMENT,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        ready = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
        assert ready[:1] == ["ready"]
        server = Served(process, int(ready[1].rpartition(":")[2]), directory)
        yield server
        await server.close()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


class Served(RunningServer):
    """A server in another process, with the clients of the harness."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, directory: Path) -> None:
        self.process = process
        self.port = port
        super().__init__(self, directory)  # all that it asks of a server is its port


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A vault made by `vaultd init` with one key, a ciphertext of it, and a backup taken while it was served."""
    directory = tmp_path_factory.mktemp("made")
    create_dev_pki(directory / "tls", hosts=["127.0.0.1"])
    (directory / "policy.yaml").write_text(yaml.safe_dump(DEFAULT_POLICY))
    config = write_config(directory)
    done = vaultd("init", "--config", config, "--admin", ADMIN, "--policy", directory / "policy.yaml")
    assert done.returncode == 0, done.stderr
    asyncio.run(use_and_back_up(directory))
    return directory


async def use_and_back_up(directory: Path) -> None:
    async with serving(directory) as server:
        key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
        request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="k", key=key)
        await server.admin.keys.CreateKey(request)
        secret = secrets_pb2.CreateSecretRequest(parent="vaults/default", secret_id="s", payload=b"kept")
        await server.admin.secrets.CreateSecret(secret)
        sealed = await server.app.crypto.Encrypt(crypto_pb2.EncryptRequest(name=NAME, plaintext=b"before"))
        (directory / "ciphertext").write_bytes(sealed.ciphertext)
        done = await asyncio.to_thread(vaultd, "backup", "--config", directory / "config.yaml", directory / "backup")
        assert done.returncode == 0, done.stderr
        await server.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=NAME))


def host(made: Path, directory: Path, *names: str) -> Path:
    """Another host: the configuration and certificates of `made`, and the files named."""
    shutil.copytree(made / "tls", directory / "tls")
    for name in ("config.yaml", *names):
        shutil.copy2(made / name, directory / name)
    return directory / "config.yaml"


# -- backup and restore ---------------------------------------------------------------------------------------------------


async def test_a_backup_taken_while_serving_opens_on_another_host(made, tmp_path):
    config = host(made, tmp_path, "root.key", "ciphertext")
    restored = await asyncio.to_thread(vaultd, "restore", "--config", config, made / "backup")
    assert restored.returncode == 0, restored.stderr
    checked = await asyncio.to_thread(vaultd, "check-store", "--config", config)
    assert (checked.returncode, checked.stdout[:9]) == (0, "store ok:")
    async with serving(tmp_path) as server:
        request = crypto_pb2.DecryptRequest(name=NAME, ciphertext=(tmp_path / "ciphertext").read_bytes())
        assert (await server.app.crypto.Decrypt(request)).plaintext == b"before"
        access = secrets_pb2.AccessSecretVersionRequest(name="vaults/default/secrets/s/versions/1")
        assert (await server.admin.secrets.AccessSecretVersion(access)).payload == b"kept"


def test_a_restore_does_not_overwrite_a_store(made, tmp_path):
    config = host(made, tmp_path, "root.key", "vault.db")
    before = (tmp_path / "vault.db").read_bytes()
    refused = vaultd("restore", "--config", config, made / "backup")
    assert (refused.returncode, refused.stderr[:21]) == (1, "vaultd: STORE_EXISTS:")
    assert (tmp_path / "vault.db").read_bytes() == before


def test_a_backup_does_not_overwrite_a_directory(made):
    refused = vaultd("backup", "--config", made / "config.yaml", made / "backup")
    assert (refused.returncode, refused.stderr[:22]) == (1, "vaultd: BACKUP_EXISTS:")


def test_a_damaged_backup_is_not_restored(made, tmp_path):
    config = host(made, tmp_path, "root.key")
    shutil.copytree(made / "backup", tmp_path / "backup")
    database = tmp_path / "backup" / "vault.db"
    raw = bytearray(database.read_bytes())
    raw[len(raw) // 2] ^= 1
    database.write_bytes(raw)
    refused = vaultd("restore", "--config", config, tmp_path / "backup")
    assert (refused.returncode, refused.stderr[:23]) == (1, "vaultd: BACKUP_CORRUPT:")
    assert not (tmp_path / "vault.db").exists()


def test_a_restored_vault_does_not_open_without_its_root_key(made, tmp_path):
    config = host(made, tmp_path)
    assert vaultd("restore", "--config", config, made / "backup").returncode == 0
    refused = vaultd("check-store", "--config", config)
    assert (refused.returncode, refused.stderr[:25]) == (1, "vaultd: ROOT_KEY_MISSING:")


@pytest.mark.parametrize("kind", ["key", "secret", "secret_version"])
def test_an_edited_store_fails_the_check_and_is_named(made, tmp_path, kind):
    config = host(made, tmp_path, "root.key", "vault.db")
    edit(tmp_path / "vault.db", ("UPDATE records SET state = 'DELETED' WHERE kind = ?", (kind,)))
    refused = vaultd("check-store", "--config", config)
    assert refused.returncode == 1
    assert "vaults/default" in refused.stderr


def test_a_store_of_a_newer_schema_is_refused(made, tmp_path):
    config = host(made, tmp_path, "root.key", "vault.db")
    edit(tmp_path / "vault.db", ("INSERT INTO schema_version VALUES (9999, 'later', 0)", ()))
    refused = vaultd("check-store", "--config", config)
    assert (refused.returncode, refused.stderr[:21]) == (1, "vaultd: SCHEMA_NEWER:")


@pytest.mark.parametrize("name", ["vault.db", "root.key"])
def test_a_file_that_others_can_read_is_refused(made, tmp_path, name):
    config = host(made, tmp_path, "root.key", "vault.db")
    (tmp_path / name).chmod(0o644)
    refused = vaultd("check-store", "--config", config)
    assert refused.returncode == 1
    assert "_FILE_MODE:" in refused.stderr


def test_a_vault_is_initialised_once(made, tmp_path):
    config = host(made, tmp_path, "root.key", "vault.db")
    refused = vaultd("init", "--config", config, "--admin", ADMIN)
    assert (refused.returncode, refused.stderr[:28]) == (1, "vaultd: ALREADY_INITIALIZED:")


def test_a_backup_of_nothing_is_refused(made, tmp_path):
    refused = vaultd("backup", "--config", host(made, tmp_path), tmp_path / "backup")
    assert (refused.returncode, refused.stderr[:22]) == (1, "vaultd: STORE_MISSING:")


async def test_a_recovered_admin_has_every_permission(made, tmp_path):
    config = host(made, tmp_path, "root.key", "vault.db")
    issue_client_certificate(tmp_path / "tls", tmp_path / "tls/second", uri="spiffe://dev.vaultd/second")
    arguments = ("recover-admin", "--config", config, "--admin", "spiffe://dev.vaultd/second")
    done = await asyncio.to_thread(vaultd, *arguments)
    assert done.returncode == 0, done.stderr
    async with serving(tmp_path) as server:
        key = await server.client("second").keys.GetKey(keys_pb2.GetKeyRequest(name=NAME))
        assert key.name == NAME


async def test_a_recovered_admin_is_bound_by_no_denial(made, tmp_path):
    config = host(made, tmp_path, "root.key", "vault.db")
    admin = "spiffe://dev.vaultd/admin"
    denial = {"members": [admin], "permissions": ["keys.get"], "resource": "vaults/default"}
    async with Server(load_settings(config)).offline() as offline:
        await offline.engine.seal.unseal(None)
        async with offline.engine.ledger.change() as changes:
            await put_policy(changes, seed_policy([admin], {"denies": [denial]}))
    done = await asyncio.to_thread(vaultd, "recover-admin", "--config", config, "--admin", admin)
    assert done.returncode == 0, done.stderr
    async with serving(tmp_path) as server:
        assert (await server.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=NAME))).name == NAME


def test_a_recovery_is_recorded(made, tmp_path):
    config = host(made, tmp_path, "root.key", "vault.db")
    assert vaultd("recover-admin", "--config", config, "--admin", "spiffe://dev.vaultd/second").returncode == 0
    records = b"".join(path.read_bytes() for path in (tmp_path / "audit").glob("*.jsonl"))
    assert b"recover_admin" in records


async def test_a_recovery_lifts_approval_rules_when_it_is_told_to(made, tmp_path):
    config = host(made, tmp_path, "root.key", "vault.db")
    admin = "spiffe://dev.vaultd/admin"
    rule = ApprovalRule("r", ("/vaultd.v1.AdminService/SetApprovalRules",), "/", ("dns:gone",), 1, 86_400_000_000)
    async with Server(load_settings(config)).offline() as offline:
        await offline.engine.seal.unseal(None)
        await offline.engine.approvals.set_rules(Intent(admin, "test"), [rule], "")
    plain = ("recover-admin", "--config", config, "--admin", admin)
    done = await asyncio.to_thread(vaultd, *plain)
    assert "approval" not in done.stdout
    async with serving(tmp_path) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.admin.admin.SetApprovalRules(approval_pb2.SetApprovalRulesRequest())
        assert reason_of(refused.value) == "APPROVAL_REQUIRED"
    done = await asyncio.to_thread(vaultd, *plain, "--lift-approval-rules")
    assert done.returncode == 0, done.stderr
    assert "1 approval rules are gone" in done.stdout
    async with serving(tmp_path) as server:
        await server.admin.admin.SetApprovalRules(approval_pb2.SetApprovalRulesRequest())
    records = b"".join(path.read_bytes() for path in (tmp_path / "audit").glob("*.jsonl"))
    assert b"lift_approval_rules" in records


# -- signals ------------------------------------------------------------------------------------------------------------


async def test_sigterm_ends_a_server_with_exit_code_0(made, tmp_path):
    host(made, tmp_path, "root.key", "vault.db")
    async with serving(tmp_path) as server:
        server.process.terminate()
        assert await asyncio.wait_for(server.process.wait(), 60) == 0


async def test_sigterm_lets_calls_under_way_finish(made, tmp_path):
    host(made, tmp_path, "root.key", "vault.db")
    async with serving(tmp_path) as server:
        key = resources_pb2.Key(
            purpose=resources_pb2.KEY_PURPOSE_SIGN, algorithm=resources_pb2.ALGORITHM_RSA_PSS_3072_SHA256
        )
        request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="slow", key=key)
        call = asyncio.ensure_future(server.admin.keys.CreateKey(request))
        async with asyncio.timeout(60):
            while not any(  # noqa: ASYNC110  # polls what another process writes: its intent
                b'"slow"' in path.read_bytes() for path in (tmp_path / "audit").glob("*.jsonl")
            ):
                await asyncio.sleep(0.005)
        server.process.terminate()
        assert (await call).name == "vaults/default/keys/slow"
        assert await asyncio.wait_for(server.process.wait(), 60) == 0


async def test_sigterm_writes_the_counts_of_use(made, tmp_path):
    host(made, tmp_path, "root.key", "vault.db")
    before = query(tmp_path / "vault.db", "SELECT sum(messages) FROM key_usage")[0][0]
    async with serving(tmp_path) as server:
        await server.app.crypto.Encrypt(crypto_pb2.EncryptRequest(name=NAME, plaintext=b"x"))
        server.process.terminate()
        await server.process.wait()
    assert query(tmp_path / "vault.db", "SELECT sum(messages) FROM key_usage") == [(before + 1,)]


def served_serial(directory: Path, port: int) -> int:
    """The serial number of the certificate in a fresh handshake."""
    tls = directory / "tls"
    context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
    context.load_cert_chain(tls / "admin.crt", tls / "admin.key")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True)).serial_number


async def test_sighup_puts_a_new_certificate_in_force(made, tmp_path):
    host(made, tmp_path, "root.key", "vault.db")
    async with serving(tmp_path) as server:
        old = await asyncio.to_thread(served_serial, tmp_path, server.port)
        for name in ("server.crt", "server.key"):
            (tmp_path / "tls" / name).unlink()
        create_dev_pki(tmp_path / "tls", hosts=["127.0.0.1"])
        new = x509.load_pem_x509_certificate((tmp_path / "tls/server.crt").read_bytes()).serial_number
        server.process.send_signal(signal.SIGHUP)

        async def renewed() -> None:
            while await asyncio.to_thread(served_serial, tmp_path, server.port) != new:
                pass

        await asyncio.wait_for(renewed(), 60)
        assert new != old


# -- configuration ------------------------------------------------------------------------------------------------------

SECRET = "hunter2-canary"
BROKEN = {
    "an unknown key": ({"stoer": {"path": SECRET}}, "stoer"),
    "an unknown inner key": ({"store": {"path": "vault.db", "pass": SECRET}}, "store.pass"),
    "a bad type": ({"limits": {"unary_in_flight": SECRET}}, "limits.unary_in_flight"),
    "out of range": ({"store": {"path": SECRET, "feed_poll_ms": 1}}, "store.feed_poll_ms"),
    "a missing key": ({"root_key": {"path": SECRET}}, "root_key.provider"),
    "a contradiction": ({"root_key": {"provider": "passphrase", "path": SECRET}}, "root_key"),
    "two kinds of names": (
        {
            "trust_bundles": [
                *document()["trust_bundles"],
                {"name": "x", "ca": SECRET, "trust_domain": "a", "dns_suffixes": ["b"]},
            ]
        },
        "trust_bundles.1",
    ),
    "a bad port": ({"listen": "127.0.0.1:99999"}, "listen"),
    "a bad principal": ({"operators": [f"{SECRET} x"]}, "operators"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_configuration_is_refused_in_one_line_that_names_the_key(tmp_path, broken):
    """In this process: the command is refused before it does anything."""
    overrides, key = BROKEN[broken]
    with pytest.raises(SystemExit) as refused:
        main(["check-config", "--config", str(write_config(tmp_path, **overrides))], standalone_mode=False)
    text = str(refused.value.code)
    assert text.startswith(f"vaultd: {key}: ")
    assert len(text.splitlines()) == 1
    assert SECRET not in text


def test_a_certificate_that_is_missing_is_refused_in_one_line_with_exit_code_1(made, tmp_path):
    host(made, tmp_path)
    overrides = {"tls": {"certificate": f"{SECRET}.crt", "key": "none.key"}}
    refused = vaultd("check-config", "--config", write_config(tmp_path, **overrides))
    assert (refused.returncode, refused.stderr[:13]) == (1, "vaultd: tls: ")
    assert len(refused.stderr.splitlines()) == 1
    assert SECRET not in refused.stderr + refused.stdout


def test_a_good_configuration_is_ok(made, tmp_path):
    checked = vaultd("check-config", "--config", host(made, tmp_path))
    assert (checked.returncode, checked.stdout) == (0, "configuration ok\n")


def test_yaml_that_is_not_yaml_is_refused_by_line(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"store:\n  path: [{SECRET}\n")
    with pytest.raises(SystemExit) as refused:
        main(["check-config", "--config", str(config)], standalone_mode=False)
    assert SECRET not in str(refused.value.code)
