"""Paths and metadata that a client made up."""

import asyncio

import grpc
import orjson
import pytest

from harness import APP
from network.http2 import Connection, client_context
from network.process import ENCRYPT, SEAL_IT, Process, Remote, create_key, eventually

PATHS = {
    "no slash": b"vaultd.v1.CryptoService/Encrypt",
    "double slash": b"//vaultd.v1.CryptoService/Encrypt",
    "double slash within": b"/vaultd.v1.CryptoService//Encrypt",
    "slash behind": b"/vaultd.v1.CryptoService/Encrypt/",
    "encoded slash": b"/vaultd.v1.CryptoService%2FEncrypt",
    "encoded letter": b"/vaultd.v1.CryptoService/%45ncrypt",
    "lower case": b"/vaultd.v1.cryptoservice/encrypt",
    "upper case": b"/VAULTD.V1.CRYPTOSERVICE/ENCRYPT",
    "nul behind": b"/vaultd.v1.CryptoService/Encrypt\0",
    "nul within": b"/vaultd.v1.CryptoService/\0Encrypt",
    "dot segment": b"/vaultd.v1.CryptoService/./Encrypt",
    "query": b"/vaultd.v1.CryptoService/Encrypt?x=1",
    "blank behind": b"/vaultd.v1.CryptoService/Encrypt ",
    "line end": b"/vaultd.v1.CryptoService/Encrypt\r\n",
    "absolute": b"https://localhost/vaultd.v1.CryptoService/Encrypt",
    "empty": b"",
    "root": b"/",
}
UNIMPLEMENTED = 12
FORGED = (
    ("x-forwarded-client-cert", "By=spiffe://dev.vaultd/admin;URI=spiffe://dev.vaultd/admin"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-user", "spiffe://dev.vaultd/admin"),
    ("x-remote-user", "spiffe://dev.vaultd/admin"),
    ("x-spiffe-id", "spiffe://dev.vaultd/admin"),
    ("authorization", "Bearer spiffe://dev.vaultd/admin"),
    ("x-ssl-client-cert", "admin"),
)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
async def test_a_path_that_is_not_exactly_a_method_is_never_served_and_recorded_as_unknown(server, path):
    def call() -> tuple[int, int | None, bytes]:
        with Connection(server.port, client_context(server.tls, "app")) as connection:
            connection.start()
            return connection.port, *connection.call(1, path, SEAL_IT.SerializeToString())

    port, status, body = await asyncio.to_thread(call)
    assert (status, body) in {(UNIMPLEMENTED, b""), (None, b"")}
    assert await eventually(lambda: bool(server.records_of(port)))
    (record,) = server.records_of(port)
    assert (record["method"], record["code"]) == ("unknown", "UNIMPLEMENTED")
    assert len(path) < 2 or orjson.dumps(path.decode())[1:-1] not in orjson.dumps(record)


@pytest.fixture(params=["json", "console"])
async def logging_server(request, tmp_path):
    """A server of its own, for each format of the log."""
    process = await asyncio.to_thread(Process, tmp_path / "served", log={"format": request.param})
    remote = Remote(process)
    yield remote
    await remote.close()
    await asyncio.to_thread(process.kill)


async def test_a_path_that_is_not_utf_8_ends_with_an_error_whatever_the_log_format(logging_server):
    def call() -> int | None:
        with Connection(logging_server.port, client_context(logging_server.tls, "app")) as connection:
            connection.start()
            connection.open(1, b"/vaultd.v1.CryptoService/Encr\xffypt")
            return connection.outcome(1).status

    status = await asyncio.to_thread(call)
    await create_key(logging_server.admin, "k")  # the server lives
    assert status not in {None, 0}


async def test_metadata_does_not_change_who_is_recorded(server):
    await server.app.crypto.Encrypt(SEAL_IT, metadata=FORGED)
    record = server.last_record()
    assert (record["method"], record["principal"]) == (ENCRYPT, APP)


async def test_metadata_stays_out_of_the_audit_log(server):
    await server.app.crypto.Encrypt(SEAL_IT, metadata=(*FORGED, ("x-note", "c4n4ry")))
    assert b"c4n4ry" not in orjson.dumps(server.audit_records())
    assert not {"Bearer", "10.0.0.1"} & set(str(server.last_record()).replace("'", " ").split())


@pytest.mark.parametrize("forged", FORGED, ids=lambda pair: pair[0])
async def test_metadata_gives_no_permission(server, forged):
    call = server.app.channel.unary_unary("/vaultd.v1.KeysService/CreateKey")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"\n\x0evaults/default\x12\x06forged", metadata=(forged,))
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_connection_keeps_its_own_identity_beside_others(server):
    await create_key(server.admin, "of-admin")
    assert server.last_record()["principal"] == "spiffe://dev.vaultd/admin"
    await server.app.crypto.Encrypt(SEAL_IT)
    assert server.last_record()["principal"] == APP
