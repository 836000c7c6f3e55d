"""Server certificates that Envoy does not take, although it says that it has them; and addresses that are names."""

import asyncio
import datetime
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from network.http2 import Connection, client_context
from network.process import ENVIRONMENT, ROOT, SEAL_IT, Process, Remote, create_key, eventually
from vaultd.devpki import create_dev_pki
from vaultd.wiring.tls import check_key_pair


def issue(tls, key) -> None:
    """Replace the server's pair by one with this key; the authority is the same."""
    authority = x509.load_pem_x509_certificate((tls / "ca.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=100))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(load_pem_private_key((tls / "ca.key").read_bytes(), None), hashes.SHA256())
    )
    (tls / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tls / "server.crt").write_bytes(certificate.public_bytes(Encoding.PEM))


def untaken(tls) -> None:
    """A pair that fits together, on a curve of which TLS 1.3 knows nothing."""
    issue(tls, ec.generate_private_key(ec.SECP256K1()))


def shown(process: Process) -> bytes:
    with Connection(process.port, client_context(process.directory / "tls", "app")) as connection:
        return connection.socket.getpeercert(binary_form=True)


async def test_a_name_is_listened_on_and_a_certificate_that_is_not_taken_is_reported_and_refuses_the_next_start(
    tmp_path,
):
    process = Process(tmp_path / "served", host="envoy", flags=["--listen", "localhost:0"])
    try:
        before = shown(process)
        untaken(process.directory / "tls")
        assert await eventually(lambda: "tls_files_refused" in process.stderr())
        assert shown(process) == before
        server = Remote(process)
        await create_key(server.admin, "k")
        await server.app.crypto.Encrypt(SEAL_IT)
        await server.close()
    finally:
        process.kill()
    command = [sys.executable, "-m", "vaultd", "serve", "--config", str(process.directory / "config.yaml")]
    done = await asyncio.to_thread(
        subprocess.run, command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "tls: Envoy does not take the certificate" in done.stderr
    assert "ready" not in done.stdout


def test_an_rsa_key_that_is_too_short_is_refused_on_every_host(tmp_path):
    create_dev_pki(tmp_path, hosts=[])
    issue(tmp_path, rsa.generate_private_key(65537, 1024))  # noqa: S505  # that is the point
    with pytest.raises(ValueError, match="too short"):
        check_key_pair((tmp_path / "server.key").read_bytes(), (tmp_path / "server.crt").read_bytes())
