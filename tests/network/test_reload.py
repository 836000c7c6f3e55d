"""The listener's certificate is replaced on disk while the server runs, and nobody tells it."""

import shutil

import pytest
from cryptography import x509

from network.http2 import Connection, client_context
from network.process import SEAL_IT, Process, Remote, create_key, eventually
from vaultd.devpki import create_dev_pki


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A server whose files these tests may change."""
    running = Process(tmp_path_factory.mktemp("reload") / "served")
    yield running
    running.kill()


@pytest.fixture
def fresh_pair(server, tmp_path):
    """Another server certificate of the same authority."""
    (tmp_path / "tls").mkdir()
    for name in ("ca.crt", "ca.key"):
        shutil.copy(server.tls / name, tmp_path / "tls" / name)
    create_dev_pki(tmp_path / "tls", hosts=["127.0.0.1"])
    return tmp_path / "tls"


def served_serial(server: Remote) -> int:
    """The serial number of the certificate that a new handshake gets."""
    with Connection(server.port, client_context(server.tls, "app")) as connection:
        return x509.load_der_x509_certificate(connection.socket.getpeercert(binary_form=True)).serial_number


def serial(pem_file) -> int:
    return x509.load_pem_x509_certificate(pem_file.read_bytes()).serial_number


def put(server: Remote, source, *names: str) -> None:
    """Replace files one after the other, as tools that renew certificates do."""
    for name in names:
        shutil.copy(source / name, server.tls / f"{name}.new")
        (server.tls / f"{name}.new").rename(server.tls / name)


async def test_a_replaced_certificate_is_served_without_a_signal_or_a_restart(server, fresh_pair):
    put(server, fresh_pair, "server.key", "server.crt")
    assert await eventually(lambda: served_serial(server) == serial(fresh_pair / "server.crt"))


async def test_an_open_connection_lives_through_the_replacement(server, fresh_pair):
    await create_key(server.admin, "k")
    put(server, fresh_pair, "server.key", "server.crt")
    assert await eventually(lambda: served_serial(server) == serial(fresh_pair / "server.crt"))
    await server.admin.crypto.Encrypt(SEAL_IT)


@pytest.mark.parametrize("broken", ["other key", "no PEM"])
async def test_a_pair_that_cannot_be_served_leaves_the_one_in_force(server, fresh_pair, tmp_path, broken):
    before = served_serial(server)
    reports = server.process.stderr().count("tls_files_refused")
    shutil.copy(server.tls / "server.key", tmp_path / "server.key")
    if broken == "other key":
        put(server, fresh_pair, "server.key")
    else:
        (server.tls / "server.key").write_text("not a key")

    def noticed() -> bool:
        assert served_serial(server) == before
        return server.process.stderr().count("tls_files_refused") > reports

    assert await eventually(noticed)
    await server.app.crypto.Encrypt(SEAL_IT)
    assert served_serial(server) == before
    put(server, tmp_path, "server.key")


async def test_a_file_that_is_gone_leaves_the_certificate_in_force(server, tmp_path):
    before = served_serial(server)
    (server.tls / "server.key").rename(tmp_path / "server.key")
    # Nothing is to happen, and nothing says so: long enough for the files to be looked at, which is once a second.
    assert not await eventually(lambda: served_serial(server) != before, 1.2)
    put(server, tmp_path, "server.key")
