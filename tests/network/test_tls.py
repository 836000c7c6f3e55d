"""Handshakes of the real process: TLS 1.3 only, client certificates of our authorities only, and no noise about others."""

import asyncio
import shutil
import ssl

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from harness import APP
from network.http2 import Connection, client_context
from network.process import ATTACKER, PATIENCE_S, SEAL_IT, create_key, eventually
from vaultd.devpki import create_dev_pki, issue_client_certificate


def settings_frame(port: int, context: ssl.SSLContext) -> bool:
    """Whether the server speaks HTTP/2 to this client.  In TLS 1.3 a client learns of its refusal when it reads."""
    try:
        with Connection(port, context) as connection:
            connection.start()
            return next(connection.frames(PATIENCE_S), None) is not None
    except (ssl.SSLError, ConnectionError):
        return False


@pytest.fixture
def strangers(server, tmp_path):
    """Certificates that must be refused, by what is wrong with them."""
    shutil.copytree(server.tls, tmp_path / "tls")
    issue_client_certificate(tmp_path / "tls", tmp_path / "tls/expired", uri=APP, days=-1)
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    issue_client_certificate(tmp_path / "tls", tmp_path / "tls/server-only", uri=APP, usage=usage)
    create_dev_pki(tmp_path / "other", hosts=[])  # an authority of the same name, with another key
    for end in ("crt", "key"):
        shutil.copy(tmp_path / f"other/admin.{end}", tmp_path / f"tls/other-authority.{end}")
    return tmp_path / "tls"


async def test_tls_1_3_is_spoken(server):
    with Connection(server.port, client_context(server.tls, "app")) as connection:
        assert connection.socket.version() == "TLSv1.3"
        assert connection.socket.selected_alpn_protocol() == "h2"


async def test_tls_1_2_is_refused(server):
    context = client_context(server.tls, "app", ssl.TLSVersion.TLSv1_2)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Connection(server.port, context)


async def test_a_client_with_a_good_certificate_is_spoken_to(server):
    assert settings_frame(server.port, client_context(server.tls, "app"))


async def test_a_client_without_a_certificate_is_refused(server):
    assert not settings_frame(server.port, client_context(server.tls, None))


@pytest.mark.parametrize("stem", ["other-authority", "expired", "server-only"])
async def test_a_certificate_that_is_not_ours_or_not_good_is_refused(server, strangers, stem):
    assert not settings_frame(server.port, client_context(strangers, stem))


async def test_failed_handshakes_write_nothing_to_standard_error(server, strangers):
    before = server.process.stderr()
    for stem in (None, "other-authority", "expired", "server-only"):
        settings_frame(server.port, client_context(strangers, stem))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        Connection(server.port, client_context(strangers, "app", ssl.TLSVersion.TLSv1_2))
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(300), b"\x16\x03\x01\x40\x00" + bytes(16384)):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(garbage)
        writer.write_eof()
        await eventually(reader.at_eof)
        writer.close()
    await server.app.crypto.Encrypt(SEAL_IT)  # whatever there was to write was written by now
    assert server.process.stderr() == before


@pytest.fixture
def chain_of(server):
    """Makes a client that presents its own certificate and then others, in that order."""

    def make(own: str, *others: str) -> str:
        chain = b"".join((server.tls / f"{stem}.crt").read_bytes() for stem in (own, *others))
        stem = "-".join((own, *others))
        (server.tls / f"{stem}.chain.crt").write_bytes(chain)
        shutil.copy(server.tls / f"{own}.key", server.tls / f"{stem}.chain.key")
        return f"{stem}.chain"

    return make


async def test_nobody_becomes_another_caller_by_adding_the_others_certificate_to_the_chain(server, chain_of):
    thief = server.client(chain_of("attacker", "admin"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create_key(thief, "stolen")
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_record_names_the_leaf_whatever_else_is_in_the_chain(server, chain_of):
    await server.client(chain_of("attacker", "app")).crypto.Encrypt(SEAL_IT)
    assert server.last_record()["principal"] == ATTACKER


async def test_a_client_that_sends_its_authority_too_is_known_by_its_leaf(server, chain_of):
    await server.client(chain_of("app", "ca")).crypto.Encrypt(SEAL_IT)
    assert server.last_record()["principal"] == APP
