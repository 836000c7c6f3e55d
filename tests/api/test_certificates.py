"""Client certificates: which trust bundle may vouch for which name, and revocation lists."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from cryptography import x509

from harness import ADMIN, APP, FakeClock, reason_of, running_server
from pki import DER, Authority, write_whole
from vaultd.config import ConfigError
from vaultd.engine.clock import SystemClock
from vaultd.interceptors.certificates import TrustBundle
from vaultd.interceptors.crl import CrlError, parse_crl_file
from vaultd_client.v1 import admin_pb2

A, B = "spiffe://a.example", "spiffe://b.example"
POLICY = {
    "bindings": [{"members": [APP, f"{A}/app", f"{B}/app", "dns:app.b.example"], "role": "admin", "resource": "/"}]
}
DAY_S = 86_400


class Trust:
    """Two authorities of two trust domains, in files of a directory, beside the development one."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.tls = directory / "tls"
        self.tls.mkdir(parents=True, exist_ok=True)
        self.clock = FakeClock()
        self.a, self.b = Authority("authority a"), Authority("authority b")
        (self.tls / "a.ca").write_bytes(self.a.pem())
        (self.tls / "b.ca").write_bytes(self.b.pem())
        self.crl = self.tls / "a.crl"
        self.revoke()

    def revoke(self, *certificates: x509.Certificate, **options) -> None:
        serials = [certificate.serial_number for certificate in certificates]
        write_whole(self.crl, self.a.crl(serials, now_us=self.clock.us, **options))

    def bundles(self):
        return [
            {"name": "dev", "ca": self.tls / "ca.crt", "trust_domain": "dev.vaultd"},
            {"name": "a", "ca": self.tls / "a.ca", "crl": self.crl, "trust_domain": "a.example"},
            {"name": "b", "ca": self.tls / "b.ca", "trust_domain": "b.example"},
        ]

    @asynccontextmanager
    async def serving(self):
        async with running_server(
            self.directory, clock=self.clock, policy=POLICY, trust_bundles=self.bundles()
        ) as server:
            yield server


@pytest.fixture
def trust(tmp_path):
    return Trust(tmp_path)


async def reason(client) -> str:
    """Why GetStatus is refused; empty when it is answered."""
    try:
        await client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=10)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and "connect" in (error.details() or ""):
            return "handshake"
        return reason_of(error)
    return ""


async def test_each_authority_vouches_for_names_of_its_own_trust_domain_only(trust):
    trust.a.issue(trust.tls / "own", uris=[f"{A}/app"])
    trust.b.issue(trust.tls / "foreign", uris=[f"{A}/app"])
    trust.b.issue(trust.tls / "of-dev", uris=[ADMIN])
    async with trust.serving() as server:
        assert await reason(server.client("own")) == ""
        assert await reason(server.client("foreign")) == "NO_ACCEPTED_IDENTITY"
        assert await reason(server.client("of-dev")) == "NO_ACCEPTED_IDENTITY"


@pytest.mark.parametrize(
    "names",
    [
        {"common_name": "admin"},
        {"common_name": f"{A}/app"},
        {"uris": [f"{A}/app", f"{A}/other"]},
        {"uris": [f"{A}/app", f"{B}/app"]},
        {"uris": [f"{A}/app", f"{A}/app"]},
        {"dns": ["app.a.example"]},
    ],
    ids=["cn-admin", "cn-uri", "two-sans", "two-domains", "one-twice", "other-kind"],
)
async def test_a_certificate_without_exactly_one_accepted_san_names_nobody(trust, names):
    trust.a.issue(trust.tls / "odd", **names)
    async with trust.serving() as server:
        assert await reason(server.client("odd")) == "NO_ACCEPTED_IDENTITY"


async def test_the_same_serial_and_subject_with_another_key_is_another_certificate(trust):
    """A forger's authority may bear the same name: what counts is the signature, and the handshake looks at it."""
    real = trust.a.issue(trust.tls / "real", uris=[f"{A}/app"], common_name="app")
    forger = Authority("authority a")
    forged = forger.issue(trust.tls / "forged", uris=[f"{A}/app"], common_name="app", serial=real.serial_number)
    assert (forged.subject, forged.issuer, forged.serial_number) == (real.subject, real.issuer, real.serial_number)
    async with trust.serving() as server:
        assert await reason(server.client("real")) == ""
        assert await reason(server.client("forged")) == "handshake"


async def test_a_leaf_of_a_bundle_is_no_authority(trust):
    leaf = Authority("a leaf", trust.a)
    leaf.certificate = trust.a.issue(trust.tls / "leaf", uris=[f"{A}/leaf"])
    forged = Authority("app", leaf).certificate
    bundle = TrustBundle("a", (trust.a.certificate,), trust_domain="a.example")
    assert not bundle.issued([forged, leaf.certificate])


@pytest.mark.parametrize("stem", ["expired", "stranger"])
async def test_an_expired_certificate_and_one_of_another_authority_end_in_the_handshake(trust, stem):
    trust.a.issue(trust.tls / "expired", uris=[f"{A}/app"], days=-1)
    Authority("somebody").issue(trust.tls / "stranger", uris=[f"{A}/app"])
    async with trust.serving() as server:
        assert await reason(server.client(stem)) == "handshake"


async def test_a_certificate_that_expires_on_an_open_connection_is_refused(trust):
    trust.a.issue(trust.tls / "short", uris=[f"{A}/app"], days=60)
    trust.clock.us = SystemClock().now_us()
    trust.revoke(valid_s=100 * DAY_S)
    async with trust.serving() as server:
        assert await reason(server.client("short")) == ""
        trust.clock.advance(61 * DAY_S)
        assert await reason(server.client("short")) == "CERTIFICATE_EXPIRED"


# -- revocation lists -----------------------------------------------------------------------------------------------------


async def test_a_revoked_certificate_is_refused_on_its_open_connection(trust):
    lost = trust.a.issue(trust.tls / "lost", uris=[f"{A}/app"])
    trust.a.issue(trust.tls / "kept", uris=[f"{A}/app"])
    async with trust.serving() as server:
        assert await reason(server.client("lost")) == ""
        trust.revoke(lost)
        await server.server._check_files()  # what the server does twice a second
        assert await reason(server.client("lost")) == "CERTIFICATE_REVOKED"
        assert await reason(server.client("kept")) == ""
        record = next(r for r in server.audit_records() if r.get("reason") == "CERTIFICATE_REVOKED")
        assert record["code"] == "UNAUTHENTICATED"


async def test_a_revoked_certificate_is_refused_from_the_start(trust):
    lost = trust.a.issue(trust.tls / "lost", uris=[f"{A}/app"])
    trust.revoke(lost, encoding=DER)
    async with trust.serving() as server:
        assert await reason(server.client("lost")) == "CERTIFICATE_REVOKED"


async def test_a_serial_number_is_revoked_for_its_own_authority_only(trust):
    lost = trust.a.issue(trust.tls / "lost", uris=[f"{A}/app"])
    trust.b.issue(trust.tls / "namesake", uris=[f"{B}/app"], serial=lost.serial_number)
    trust.revoke(lost)
    async with trust.serving() as server:
        assert await reason(server.client("namesake")) == ""


async def test_a_bundle_whose_list_went_stale_vouches_for_nobody_and_says_so(trust):
    trust.a.issue(trust.tls / "app-a", uris=[f"{A}/app"])
    trust.b.issue(trust.tls / "app-b", uris=[f"{B}/app"])
    async with trust.serving() as server:
        assert await reason(server.client("app-a")) == ""
        trust.clock.advance(DAY_S - 1)
        assert await reason(server.client("app-a")) == ""
        trust.clock.advance(1)
        assert await reason(server.client("app-a")) == "CRL_STALE"
        assert await reason(server.client("app-b")) == ""
        await server.server._check_files()
        assert server.server.board.serving("crl:a") is False
        assert server.server.board.serving("") is False
        assert [r["resource"] for r in server.audit_records() if r["event"] == "crl_stale"] == ["crl:a"]
        trust.revoke()
        await server.server._check_files()
        assert await reason(server.client("app-a")) == ""
        assert server.server.board.serving("") is True


async def test_a_list_that_cannot_be_used_leaves_the_one_in_force_until_that_is_stale(trust):
    lost = trust.a.issue(trust.tls / "lost", uris=[f"{A}/app"])
    trust.a.issue(trust.tls / "kept", uris=[f"{A}/app"])
    trust.revoke(lost)
    async with trust.serving() as server:
        for broken in (b"not a list", trust.a.crl(now_us=trust.clock.us, signer=trust.b)):
            write_whole(trust.crl, broken)
            await server.server._check_files()
            assert await reason(server.client("lost")) == "CERTIFICATE_REVOKED"
            assert await reason(server.client("kept")) == ""
        trust.crl.unlink()
        await server.server._check_files()
        trust.clock.advance(DAY_S)
        assert await reason(server.client("kept")) == "CRL_STALE"


@pytest.mark.parametrize("fault", ["missing", "garbage", "forged", "stale", "future"])
async def test_a_server_with_a_list_that_cannot_be_used_does_not_start(trust, fault):
    async with trust.serving():
        pass
    if fault == "missing":
        trust.crl.unlink()
    elif fault == "garbage":
        trust.crl.write_bytes(b"not a list")
    elif fault == "forged":
        trust.crl.write_bytes(trust.a.crl(now_us=trust.clock.us, signer=trust.b))
    elif fault == "stale":
        trust.clock.advance(DAY_S)
    else:
        trust.clock.advance(-3600)
    with pytest.raises(ConfigError, match=r"trust_bundles\.1\.crl"):
        async with trust.serving():
            pass


def issuing_point(**given) -> x509.IssuingDistributionPoint:
    values = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**values, **given})


@pytest.mark.parametrize(
    "options",
    [
        {"extensions": [(x509.DeltaCRLIndicator(1), True)]},
        {"extensions": [(issuing_point(indirect_crl=True), True)]},
        {"extensions": [(issuing_point(only_contains_ca_certs=True), True)]},
        {"extensions": [(issuing_point(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise})), True)]},
        {"extensions": [(x509.CRLNumber(1), True)]},
        {"entry_extensions": [(x509.CertificateIssuer([x509.DirectoryName(Authority().name)]), True)]},
    ],
    ids=["delta", "indirect", "authorities-only", "some-reasons", "unknown-critical", "other-issuer"],
)
def test_a_list_that_says_less_than_it_seems_to_is_refused(options):
    authority = Authority()
    with pytest.raises(CrlError):
        parse_crl_file(authority.crl([1], now_us=FakeClock().us, **options), [authority.certificate])


def test_each_authority_of_a_bundle_needs_a_list():
    old, new = Authority("one"), Authority("two")
    now = FakeClock().us
    both = [old.certificate, new.certificate]
    with pytest.raises(CrlError, match="no list of some authority"):
        parse_crl_file(old.crl([1], now_us=now), both)
    found = parse_crl_file(old.crl([1], now_us=now) + new.crl([2], now_us=now), both)
    assert found.serials == (frozenset({1}), frozenset({2}))


def test_the_newest_of_an_authoritys_lists_counts():
    authority, now = Authority(), FakeClock().us
    lists = [authority.crl([1], now_us=now), authority.crl([1, 2], now_us=now + 60_000_000)]
    for content in (b"".join(lists), b"".join(reversed(lists))):
        assert parse_crl_file(content, [authority.certificate]).serials == (frozenset({1, 2}),)


async def test_certificates_of_a_revoked_intermediate_are_revoked(trust):
    below = Authority("below a", trust.a)
    below.issue(trust.tls / "under", uris=[f"{A}/app"])
    (trust.tls / "a.ca").write_bytes(trust.a.pem() + below.pem())
    lists = below.crl(now_us=trust.clock.us)
    write_whole(trust.crl, trust.a.crl(now_us=trust.clock.us) + lists)
    async with trust.serving() as server:
        assert await reason(server.client("under")) == ""
        revoked = trust.a.crl([below.certificate.serial_number], now_us=trust.clock.us)
        write_whole(trust.crl, revoked + lists)
        await server.server._check_files()
        assert await reason(server.client("under")) == "CERTIFICATE_REVOKED"


async def test_with_a_list_an_intermediate_that_only_the_client_sends_is_not_accepted(trust):
    below = Authority("below a", trust.a)
    below.issue(trust.tls / "under", uris=[f"{A}/app"])
    chain = trust.tls / "under.crt"
    chain.write_bytes(chain.read_bytes() + below.pem())
    async with trust.serving() as server:
        assert await reason(server.client("under")) == "NO_ACCEPTED_IDENTITY"


async def test_a_server_reads_a_changed_list_by_itself(trust):
    lost = trust.a.issue(trust.tls / "lost", uris=[f"{A}/app"])
    async with trust.serving() as server:
        assert await reason(server.client("lost")) == ""
        trust.revoke(lost)

        async with asyncio.timeout(60):
            while (said := await reason(server.client("lost"))) == "":  # noqa: ASYNC110  # files do not tell
                await asyncio.sleep(0.02)
        assert said == "CERTIFICATE_REVOKED"
