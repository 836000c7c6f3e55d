"""`vaultctl doctor`, with each thing broken for real."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from cryptography.x509.oid import ExtendedKeyUsageOID

from commandline import ctl
from harness import ADMIN, APP, FakeClock, running_server
from pki import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("ctl"), limits={"overload_delay_ms": 0}) as running:
        yield running


class Diagnosis:
    """What doctor said."""

    def __init__(self, exit_code: int, document: dict[str, Any]) -> None:
        self.exit_code = exit_code
        self.checks = document["checks"]
        assert document["ok"] is (exit_code == 0)
        for one in self.checks:
            assert (one["status"] in {"warn", "FAIL"}) is bool(one["advice"]), one

    def said(self, check: str, status: str) -> str:
        return "\n".join(
            f"{one['text']} -> {one['advice']}"
            for one in self.checks
            if (one["check"], one["status"]) == (check, status)
        )

    @property
    def failed(self) -> list[str]:
        return [one["check"] for one in self.checks if one["status"] == "FAIL"]


async def doctor(
    server: Any, *arguments: Any, before: tuple[Any, ...] = (), identity: str = "admin", **environment: str
) -> Diagnosis:
    done = await ctl(server, *before, "doctor", "--output", "json", *arguments, identity=identity, **environment)
    assert done.stdout, done.stderr
    return Diagnosis(done.exit_code, json.loads(done.stdout))


async def test_nothing_is_in_the_way(server):
    found = await doctor(server)
    assert (found.exit_code, found.failed) == (0, [])
    assert f"the server takes you for {ADMIN}" in found.said("identity", "ok")
    assert "TLSv1.3, the server is localhost" in found.said("tls", "ok")
    assert found.said("clock", "ok")
    assert "client 0.1.0, server 0.1.0" in found.said("version", "ok")
    people = await ctl(server, "doctor")
    assert people.exit_code == 0
    assert people.stdout.endswith("\nnothing is in the way\n")


async def test_a_caller_with_fewer_permissions_is_told_what_it_has(server):
    found = await doctor(server, identity="app")
    assert (found.exit_code, found.failed) == (0, [])
    assert "crypto.encrypt" in found.said("permission", "ok")
    assert "keys.create" not in found.said("permission", "ok")
    assert "admin.get_status" in found.said("version", "skip")


async def test_a_permission_that_is_needed_and_missing(server, tmp_path):
    key = "vaults/default/keys/orders"
    found = await doctor(server, "--need", f"crypto.sign {key}", "--need", f"keys.purge {key}", identity="app")
    assert (found.exit_code, found.failed) == (1, ["permission"])
    assert f"keys.purge on {key} is missing" in found.said("permission", "FAIL")
    assert f"crypto.sign on {key}" in found.said("permission", "ok")
    tls = server.directory / "tls"
    own = {
        **dict.fromkeys(("VAULTD_ADDR", "VAULTD_CA", "VAULTD_CERT", "VAULTD_KEY"), ""),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    files = ("--ca", tls / "ca.crt", "--cert", tls / "app.crt", "--key", tls / "app.key")
    added = await ctl(server, "profile", "add", "app", server.address, *files, "--need", f"policy.set {key}", **own)
    assert added.exit_code == 0, added.stderr
    by_profile = await doctor(server, **own)
    assert "by profile app" in by_profile.said("configuration", "ok")
    assert f"policy.set on {key} is missing" in by_profile.said("permission", "FAIL")


async def test_no_configuration(server):
    found = await doctor(server, VAULTD_ADDR="")
    assert found.failed == ["configuration"]
    assert "VAULTD_ADDR" in found.said("configuration", "FAIL")


# -- files ------------------------------------------------------------------------------------------------------------------


async def test_an_expired_certificate(server, tmp_path):
    Authority.load(server.directory / "tls").issue(tmp_path / "old", uris=[APP], days=-3)
    found = await doctor(server, VAULTD_CERT=str(tmp_path / "old.crt"), VAULTD_KEY=str(tmp_path / "old.key"))
    assert "expired" in found.said("certificate", "FAIL")
    assert "(3 d ago)" in found.said("certificate", "FAIL")
    assert found.failed == ["certificate", "tls"]


async def test_a_certificate_that_is_about_to_expire(server, tmp_path):
    Authority.load(server.directory / "tls").issue(tmp_path / "soon", uris=[APP], days=0)
    found = await doctor(server, VAULTD_CERT=str(tmp_path / "soon.crt"), VAULTD_KEY=str(tmp_path / "soon.key"))
    assert "expired" in found.said("certificate", "FAIL") or "expires" in found.said("certificate", "warn")


async def test_the_wrong_key(server):
    found = await doctor(server, VAULTD_KEY=str(server.directory / "tls" / "app.key"))
    assert found.failed == ["key"]
    assert "is not the key of" in found.said("key", "FAIL")


async def test_files_that_are_missing_or_hold_something_else(server, tmp_path):
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    for variable, check in (("VAULTD_CA", "ca"), ("VAULTD_CERT", "certificate"), ("VAULTD_KEY", "key")):
        found = await doctor(server, **{variable: str(tmp_path / "missing")})
        assert "No such file" in found.said(check, "FAIL")
        found = await doctor(server, **{variable: str(rubbish)})
        assert f"{rubbish} holds no" in found.said(check, "FAIL")


async def test_a_key_that_others_may_read(server, tmp_path):
    key = tmp_path / "key.pem"
    key.write_bytes((server.directory / "tls" / "admin.key").read_bytes())
    key.chmod(0o644)
    found = await doctor(server, VAULTD_KEY=str(key))
    assert found.exit_code == 0
    assert f"chmod 600 {key}" in found.said("key", "warn")


async def test_a_certificate_with_a_cn_only(server, tmp_path):
    Authority.load(server.directory / "tls").issue(tmp_path / "cn", common_name="admin")
    found = await doctor(server, VAULTD_CERT=str(tmp_path / "cn.crt"), VAULTD_KEY=str(tmp_path / "cn.key"))
    assert "no subject alternative name" in found.said("name", "FAIL")
    assert found.failed[-1] in {"grpc", "identity"}  # and the server does not take it


async def test_a_servers_certificate_in_place_of_the_authoritys(server):
    found = await doctor(server, VAULTD_CA=str(server.directory / "tls" / "admin.crt"))
    assert "is no authority" in found.said("ca", "FAIL")


async def test_intermediates_in_the_wrong_order(server, tmp_path):
    Authority.load(server.directory / "tls").issue(tmp_path / "leaf", uris=[APP])
    (tmp_path / "leaf.crt").write_bytes((tmp_path / "leaf.crt").read_bytes() + Authority("somebody else").pem())
    found = await doctor(server, VAULTD_CERT=str(tmp_path / "leaf.crt"), VAULTD_KEY=str(tmp_path / "leaf.key"))
    assert "did not issue" in found.said("chain", "FAIL")


# -- the way to the server --------------------------------------------------------------------------------------------------


async def test_a_closed_port(server):
    found = await doctor(server, VAULTD_ADDR="127.0.0.1:1")
    assert found.failed == ["tcp"]
    assert "nobody listens there" in found.said("tcp", "FAIL")
    assert found.said("server", "skip")


async def test_a_name_that_does_not_exist(server):
    found = await doctor(server, VAULTD_ADDR="vault.invalid:7443")
    assert found.failed == ["dns"]


async def test_an_address_that_is_none(server):
    found = await doctor(server, VAULTD_ADDR="https://vault/")
    assert found.failed == ["address"]


async def test_the_wrong_authority(server, tmp_path):
    (tmp_path / "other.crt").write_bytes(Authority("somebody else").pem())
    found = await doctor(server, VAULTD_CA=str(tmp_path / "other.crt"))
    assert found.failed == ["tls"]
    assert f"of an authority that is not in {tmp_path / 'other.crt'} (CN=vaultd dev CA" in found.said("tls", "FAIL")


async def test_a_certificate_of_an_authority_that_the_server_does_not_know(server, tmp_path):
    Authority("somebody else").issue(tmp_path / "mine", uris=[APP])
    found = await doctor(server, VAULTD_CERT=str(tmp_path / "mine.crt"), VAULTD_KEY=str(tmp_path / "mine.key"))
    assert found.failed == ["tls"]
    assert "of a trust bundle of the server" in found.said("tls", "FAIL")


async def test_no_certificate_where_one_is_wanted(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("a.b.c")
    found = await doctor(server, VAULTD_CERT="", VAULTD_KEY="", VAULTD_TOKEN_FILE=str(token))
    assert found.failed == ["tls"]
    assert "client certificate" in found.said("tls", "FAIL")


@pytest.mark.parametrize("name", ["vault.example.org", "spiffe://dev.vaultd/other"])
async def test_a_server_of_another_name(server, name):
    found = await doctor(server, before=("--server-name", name))
    assert found.failed == ["tls"]
    assert name in found.said("tls", "FAIL")
    assert "localhost" in found.said("tls", "FAIL")


async def test_a_proxy_in_the_environment(server):
    found = await doctor(server, https_proxy="http://user:word@127.0.0.1:9")
    assert "through http://127.0.0.1:9" in found.said("proxy", "warn")
    assert "export no_proxy=127.0.0.1" in found.said("proxy", "warn")
    assert "word" not in json.dumps(found.checks)
    for exception in ("127.0.0.0/8", "127.0.0.1", "example.org, 127.0.0.1"):
        excepted = await doctor(server, https_proxy="http://127.0.0.1:9", no_proxy=exception)
        assert excepted.said("proxy", "ok")
        assert excepted.exit_code == 0


@asynccontextmanager
async def listener(answer: bytes = b"", context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Something that is no vaultd, on 127.0.0.1."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def tls_server(stem: Path, *, http2: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(stem.with_name(f"{stem.name}.crt"), stem.with_name(f"{stem.name}.key"))
    if http2:
        context.set_alpn_protocols(["h2"])
    return context


async def test_a_port_that_speaks_no_tls(server):
    async with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        found = await doctor(server, VAULTD_ADDR=address)
    assert found.failed == ["tls"]
    assert "does not speak TLS" in found.said("tls", "FAIL")


@pytest.mark.parametrize(
    ("days", "check", "told"), [(-2, "tls", "the server's certificate expired"), (800, "http2", "HTTP/2")]
)
async def test_a_server_whose_certificate_expired_and_one_without_http2(server, tmp_path, days, check, told):
    authority = Authority.load(server.directory / "tls")
    authority.issue(tmp_path / "server", dns=["localhost"], days=days, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    async with listener(context=tls_server(tmp_path / "server", http2=False)) as address:
        found = await doctor(server, before=("--server-name", "localhost"), VAULTD_ADDR=address)
    assert found.failed == [check]
    assert told in found.said(check, "FAIL")


# -- the server -------------------------------------------------------------------------------------------------------------


async def test_a_sealed_server_a_revoked_identity_and_a_server_that_stopped(tmp_path):
    async with running_server(tmp_path / "server", limits={"overload_delay_ms": 0}) as server:
        assert (await ctl(server, "identities", "revoke", APP, "--yes")).exit_code == 0
        found = await doctor(server, identity="app")
        assert "IDENTITY_REVOKED" in found.said("grpc", "FAIL") + found.said("identity", "FAIL")
        assert (await ctl(server, "admin", "seal", "--yes")).exit_code == 0
        found = await doctor(server)
        assert found.failed == ["seal"]
        assert "vaultctl admin unseal" in found.said("seal", "FAIL")
        assert (await ctl(server, "admin", "unseal")).exit_code == 0
        assert (await doctor(server)).exit_code == 0
    assert (await doctor(server)).failed == ["tcp"]


@pytest.mark.parametrize(("ahead_s", "status"), [(600, "FAIL"), (-600, "FAIL"), (50, "warn")])
async def test_clocks_that_differ(tmp_path, ahead_s, status):
    clock = FakeClock(int((time.time() + ahead_s) * 1_000_000))
    async with running_server(tmp_path / "server", clock=clock, limits={"overload_delay_ms": 0}) as server:
        found = await doctor(server)
    who = "the server is at least" if ahead_s > 0 else "this machine is at least"
    assert who in found.said("clock", status)
    assert found.failed == (["clock"] if status == "FAIL" else [])
