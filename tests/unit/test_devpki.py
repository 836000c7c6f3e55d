"""Development certificates: what OpenSSL and gRPC make of them, and that they are made only when needed."""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vaultd.devpki import create_dev_pki, issue_client_certificate

if TYPE_CHECKING:
    from pathlib import Path

STEMS = ("ca", "server", "admin", "app")


@pytest.fixture
def tls(tmp_path):
    create_dev_pki(tmp_path / "tls", hosts=["vault.example", "10.1.2.3"])
    return tmp_path / "tls"


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(path: Path) -> x509.SubjectAlternativeName:
    return load(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def contents(tls: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(tls.iterdir())}


def changed(before: dict[str, bytes], tls: Path) -> set[str]:
    after = contents(tls)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def openssl_verify(ca: Path, certificate: Path, purpose: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(ca), str(certificate)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_all_files_are_there_with_their_modes(tls):
    modes = {path.name: path.stat().st_mode & 0o7777 for path in tls.iterdir()}
    assert modes == {f"{stem}.crt": 0o644 for stem in STEMS} | {f"{stem}.key": 0o600 for stem in STEMS}


@pytest.mark.parametrize(("stem", "purpose"), [("server", "sslserver"), ("admin", "sslclient"), ("app", "sslclient")])
def test_openssl_verifies_each_leaf_for_its_purpose_in_strict_mode(tls, stem, purpose):
    result = openssl_verify(tls / "ca.crt", tls / f"{stem}.crt", purpose)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("stem", "purpose"), [("server", "sslclient"), ("admin", "sslserver")])
def test_openssl_refuses_each_leaf_for_the_other_purpose(tls, stem, purpose):
    assert openssl_verify(tls / "ca.crt", tls / f"{stem}.crt", purpose).returncode != 0


def test_openssl_refuses_a_leaf_of_another_ca_of_the_same_name(tls, tmp_path):
    create_dev_pki(tmp_path / "other", hosts=[])
    assert load(tmp_path / "other" / "ca.crt").subject == load(tls / "ca.crt").subject
    assert openssl_verify(tls / "ca.crt", tmp_path / "other" / "admin.crt", "sslclient").returncode != 0


def test_the_server_is_named_by_loopback_and_the_given_hosts(tls):
    assert names(tls / "server.crt").get_values_for_type(x509.DNSName) == ["localhost", "vault.example"]
    assert names(tls / "server.crt").get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(text) for text in ("127.0.0.1", "::1", "10.1.2.3")
    ]


def test_listen_addresses_brackets_and_repeats_are_no_names_of_their_own(tmp_path):
    create_dev_pki(tmp_path, hosts=["0.0.0.0", "::", "[::1]", "localhost", "[::]", ""])  # noqa: S104 - not bound
    assert len(list(names(tmp_path / "server.crt"))) == 3


@pytest.mark.parametrize("stem", ["admin", "app"])
def test_a_client_has_exactly_its_spiffe_id(tls, stem):
    assert list(names(tls / f"{stem}.crt")) == [x509.UniformResourceIdentifier(f"spiffe://dev.vaultd/{stem}")]


@pytest.mark.parametrize("stem", STEMS)
def test_extensions_are_those_that_strict_verifiers_ask_for(tls, stem):
    extensions = load(tls / f"{stem}.crt").extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert basic.critical
    assert usage.critical
    assert basic.value.ca == usage.value.key_cert_sign == (stem == "ca")
    assert usage.value.digital_signature == (stem != "ca")
    ca_identifier = load(tls / "ca.crt").extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == ca_identifier.key_identifier


@pytest.mark.parametrize(("stem", "days"), [("ca", 3650), ("server", 825), ("admin", 825)])
def test_lifetimes(tls, stem, days):
    certificate = load(tls / f"{stem}.crt")
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(days=days)
    assert certificate.not_valid_before_utc < datetime.now(UTC)


def test_a_second_run_changes_nothing(tls):
    before = contents(tls)
    create_dev_pki(tls, hosts=["vault.example"])
    assert changed(before, tls) == set()


@pytest.mark.parametrize(("days", "renewed"), [(6, True), (-1, True), (9, False)])
def test_a_leaf_that_expires_within_seven_days_is_renewed(tls, days, renewed):
    issue_client_certificate(tls, tls / "admin", uri="spiffe://dev.vaultd/admin", days=days)
    before = contents(tls)
    create_dev_pki(tls, hosts=[])
    assert changed(before, tls) == ({"admin.crt", "admin.key"} if renewed else set())


@pytest.mark.parametrize("broken", ["app.crt", "app.key"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_missing_or_damaged_file_is_made_anew(tls, broken, content):
    if content is None:
        (tls / broken).unlink()
    else:
        (tls / broken).write_bytes(content)
    before = contents(tls)
    create_dev_pki(tls, hosts=[])
    assert changed(before, tls) == {"app.crt", "app.key"}
    assert openssl_verify(tls / "ca.crt", tls / "app.crt", "sslclient").returncode == 0


def test_a_key_that_is_not_of_its_certificate_is_made_anew(tls):
    shutil.copy(tls / "admin.key", tls / "app.key")
    before = contents(tls)
    create_dev_pki(tls, hosts=[])
    assert changed(before, tls) == {"app.crt", "app.key"}


def test_a_new_host_renews_the_server_only(tls):
    before = contents(tls)
    create_dev_pki(tls, hosts=["other.example"])
    assert changed(before, tls) == {"server.crt", "server.key"}


def test_a_lost_ca_key_renews_everything(tls):
    (tls / "ca.key").unlink()
    before = contents(tls)
    create_dev_pki(tls, hosts=[])
    assert changed(before, tls) == {f"{stem}.{kind}" for stem in STEMS for kind in ("crt", "key")}
    assert openssl_verify(tls / "ca.crt", tls / "server.crt", "sslserver").returncode == 0


def test_leftovers_of_a_crash_are_no_hindrance(tls):
    (tls / "app.crt.tmp").write_bytes(b"half")
    (tls / "app.crt").unlink()
    create_dev_pki(tls, hosts=[])
    assert not (tls / "app.crt.tmp").exists()


def test_clients_of_any_shape_can_be_minted(tls, tmp_path):
    certificate, key = issue_client_certificate(
        tls, tmp_path / "odd.name", uri=["spiffe://a/b", "spiffe://c/d"], dns="client.example", days=1
    )
    assert (certificate, key) == (tmp_path / "odd.name.crt", tmp_path / "odd.name.key")
    assert key.stat().st_mode & 0o7777 == 0o600
    assert names(certificate).get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://a/b", "spiffe://c/d"]
    assert names(certificate).get_values_for_type(x509.DNSName) == ["client.example"]
    assert openssl_verify(tls / "ca.crt", certificate, "sslclient").returncode == 0


def test_a_client_without_names_has_no_alternative_name_at_all(tls, tmp_path):
    certificate, _ = issue_client_certificate(tls, tmp_path / "bare", common_name="admin")
    with pytest.raises(x509.ExtensionNotFound):
        names(certificate)
    assert load(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "admin"


def test_negative_days_give_an_expired_certificate(tls, tmp_path):
    certificate, _ = issue_client_certificate(tls, tmp_path / "old", uri="spiffe://dev.vaultd/old", days=-3)
    age = datetime.now(UTC) - load(certificate).not_valid_after_utc
    assert timedelta(days=3) <= age < timedelta(days=4)
    assert load(certificate).not_valid_before_utc < load(certificate).not_valid_after_utc
    assert "expired" in openssl_verify(tls / "ca.crt", certificate, "sslclient").stderr


def test_a_client_can_be_minted_for_the_wrong_usage(tls, tmp_path):
    certificate, _ = issue_client_certificate(
        tls, tmp_path / "wrong", uri="spiffe://dev.vaultd/x", usage=ExtendedKeyUsageOID.SERVER_AUTH
    )
    assert openssl_verify(tls / "ca.crt", certificate, "sslclient").returncode != 0


def test_without_a_ca_nothing_is_minted(tmp_path):
    with pytest.raises(FileNotFoundError):
        issue_client_certificate(tmp_path, tmp_path / "x", uri="spiffe://dev.vaultd/x")


async def test_grpc_accepts_both_sides_and_sees_the_spiffe_id(tls):
    seen: list[list[bytes]] = []

    async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        seen.append(context.auth_context()["peer_spiffe_id"])
        return request

    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server = grpc.aio.server(handlers=[grpc.method_handlers_generic_handler("test.Echo", handlers)])
    ca = (tls / "ca.crt").read_bytes()
    pair = ((tls / "server.key").read_bytes(), (tls / "server.crt").read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], ca, require_client_auth=True))
    await server.start()
    try:
        for stem in ("admin", "app"):
            credentials = grpc.ssl_channel_credentials(
                ca, (tls / f"{stem}.key").read_bytes(), (tls / f"{stem}.crt").read_bytes()
            )
            for host in ("127.0.0.1", "localhost"):
                async with grpc.aio.secure_channel(f"{host}:{port}", credentials) as channel:
                    assert await channel.unary_unary("/test.Echo/Echo")(b"hello", timeout=10) == b"hello"
    finally:
        await server.stop(None)
    assert seen == [[f"spiffe://dev.vaultd/{stem}".encode()] for stem in ("admin", "admin", "app", "app")]
