"""Keys of issuers, fetched from a real HTTPS server on 127.0.0.1, and Kubernetes service accounts."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from test_tokens import ask, bearer
from wire import CRYPTO, OK, UNAUTHENTICATED, UNAVAILABLE, call

from harness import FakeClock, running_server
from tokens import AUDIENCE, ISSUER, KeyServer, TokenIssuer
from vaultd.devpki import create_dev_pki
from vaultd_client.v1 import crypto_pb2

ACCOUNT = "system:serviceaccount:payments:orders"
POLICY = {
    "bindings": [
        {"members": ["jwt:ci:app", f"jwt:ci:{ACCOUNT}"], "role": "crypto-user", "resource": "vaults/default"},
    ]
}
JWKS = "/openid/v1/jwks"
PATH = f"{CRYPTO}GenerateRandomBytes"
RANDOM = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=8)


class Setting:
    """An issuer whose keys are served by a server of the development authority."""

    def __init__(self, directory, keys: KeyServer) -> None:
        self.directory = directory
        self.keys = keys
        self.clock = FakeClock()
        self.issuer = TokenIssuer(self.clock)
        self.publish()

    def publish(self) -> None:
        self.keys.serve(JWKS, self.issuer.jwks())

    @asynccontextmanager
    async def serving(self, issuer: str = ISSUER, **changes):
        section = {
            "id": "ci",
            "issuer": issuer,
            "audiences": [AUDIENCE],
            "algorithms": ["ES256", "RS256"],
            "ca_file": self.directory / "tls/ca.crt",
            "timeout_s": 30,
            **changes,
        }
        if not changes.get("discovery") and "jwks_url" not in changes:
            section["jwks_url"] = self.keys.url + JWKS
        async with running_server(
            self.directory, clock=self.clock, policy=POLICY, listen_tls="127.0.0.1:0", jwt={"issuers": [section]}
        ) as server:
            yield server


@pytest.fixture
def setting(tmp_path):
    create_dev_pki(tmp_path / "tls", hosts=["127.0.0.1"])
    with KeyServer(tmp_path / "tls/server.crt", tmp_path / "tls/server.key") as keys:
        yield Setting(tmp_path, keys)


async def fetched(server) -> None:
    """Wait for the fetch that is under way, if there is one."""
    for keys in server.server._issuers._keys:
        if keys._task is not None:
            await asyncio.wait([keys._task])


async def test_keys_come_from_a_url_and_the_first_call_waits_for_them(setting):
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token()) == (OK, "")
    assert setting.keys.asked == [(JWKS, "")]


async def test_keys_come_from_where_the_discovery_document_says(setting):
    url = setting.keys.url
    setting.issuer.issuer = url
    document = {"issuer": url, "jwks_uri": url + JWKS}
    setting.keys.serve("/.well-known/openid-configuration", json.dumps(document).encode())
    async with setting.serving(url, discovery=True) as server:
        assert await ask(server, setting.issuer.token()) == (OK, "")


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://another.example.org", "jwks_uri": "URL"},
        {"issuer": "ISSUER", "jwks_uri": "http://127.0.0.1:1/jwks"},
        {"issuer": "ISSUER", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "ISSUER"},
        [],
    ],
    ids=["other-issuer", "http", "file", "no-uri", "list"],
)
async def test_a_discovery_document_that_leads_elsewhere_is_not_followed(setting, document):
    url = setting.keys.url
    setting.issuer.issuer = url
    text = json.dumps(document).replace("ISSUER", url).replace("URL", url + JWKS)
    setting.keys.serve("/.well-known/openid-configuration", text.encode())
    async with setting.serving(url, discovery=True) as server:
        assert await ask(server, setting.issuer.token()) == (UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE")
    assert {path for path, _ in setting.keys.asked} == {"/.well-known/openid-configuration"}


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (302, b"", {"Location": JWKS}),
        (500, b"", {}),
        (200, b"<html>", {}),
        (200, b" " * 300_000, {}),
        (200, b"{}", {"Content_Encoding": "gzip"}),
    ],
    ids=["redirect", "error", "html", "huge", "compressed"],
)
async def test_an_answer_that_is_no_key_set_gives_no_keys(setting, status, body, headers):
    setting.keys.serve("/moved", body, status, **headers)
    async with setting.serving(jwks_url=setting.keys.url + "/moved") as server:
        assert await ask(server, setting.issuer.token()) == (UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE")
    assert {path for path, _ in setting.keys.asked} == {"/moved"}


async def test_a_server_whose_certificate_nobody_vouches_for_gives_no_keys(setting, tmp_path):
    create_dev_pki(tmp_path / "other", hosts=["127.0.0.1"])
    async with setting.serving(ca_file=tmp_path / "other/ca.crt") as server:
        assert await ask(server, setting.issuer.token()) == (UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE")
    assert setting.keys.asked == []


async def test_plain_http_of_this_machine_works_where_it_is_allowed(setting):
    with KeyServer() as plain:
        plain.serve(JWKS, setting.issuer.jwks())
        async with setting.serving(jwks_url=plain.url + JWKS, allow_http=True) as server:
            assert await ask(server, setting.issuer.token()) == (OK, "")


async def test_the_token_file_is_sent_to_the_key_url_and_read_anew_each_time(setting, tmp_path):
    (tmp_path / "token").write_text("first-token\n")
    async with setting.serving(token_file=tmp_path / "token") as server:
        await fetched(server)
        (tmp_path / "token").write_text("second-token\n")
        setting.clock.advance(300)
        await server.server._issuers.tick()
        await fetched(server)
    assert [given for _, given in setting.keys.asked] == ["Bearer first-token", "Bearer second-token"]


async def test_a_new_key_of_the_issuer_is_fetched_by_the_first_call_that_needs_it(setting):
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token()) == (OK, "")
        setting.issuer.add("k2")
        setting.publish()
        setting.clock.advance(10)
        assert await ask(server, setting.issuer.token(kid="k2")) == (OK, "")


async def test_unknown_kids_cause_no_storm_of_fetches(setting):
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token()) == (OK, "")
        setting.clock.advance(10)

        def unknown(at: int) -> str:
            return setting.issuer.token(header={"kid": f"unknown-{at}"})

        outcomes = await asyncio.gather(*(ask(server, unknown(at)) for at in range(150)))
        assert set(outcomes) == {(UNAUTHENTICATED, "TOKEN_KEY_UNKNOWN")}
        assert len(setting.keys.asked) == 2
        setting.clock.advance(9.9)
        await ask(server, unknown(1))
        assert len(setting.keys.asked) == 2


async def test_a_slow_issuer_holds_up_nobody_but_its_own_new_callers(setting):
    setting.keys.let_go.clear()
    async with setting.serving() as server:
        waiting = asyncio.create_task(ask(server, setting.issuer.token()))
        async with asyncio.timeout(20):
            assert (await call(server.admin, PATH, RANDOM)).code is OK
            outcome = await call(server.without_certificate, PATH, RANDOM, metadata=bearer("x.y.z"))
            assert outcome.reason == "TOKEN_MALFORMED"
        assert not waiting.done()
        setting.keys.let_go.set()
        assert await waiting == (OK, "")


async def test_an_issuer_that_never_answers_is_given_up(setting):
    setting.keys.let_go.clear()
    async with setting.serving(timeout_s=0.2) as server:
        async with asyncio.timeout(30):
            assert await ask(server, setting.issuer.token()) == (UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE")
        setting.keys.let_go.set()


async def test_keys_outlive_their_issuer_for_a_bounded_time(setting):
    async with setting.serving(stale_s=3_600) as server:
        assert await ask(server, setting.issuer.token()) == (OK, "")
        setting.keys.serve(JWKS, b"", 503)
        setting.clock.advance(3_599)
        await server.server._issuers.tick()
        await fetched(server)
        assert await ask(server, setting.issuer.token()) == (OK, "")
        setting.clock.advance(1)
        await server.server._issuers.tick()
        assert await ask(server, setting.issuer.token()) == (UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE")
        assert server.server.board.serving("issuer:ci") is False
        setting.publish()
        setting.clock.advance(10)
        await server.server._issuers.tick()
        await fetched(server)
        assert await ask(server, setting.issuer.token()) == (OK, "")
        events = [r["event"] for r in server.audit_records() if r["event"].startswith("issuer_")]
    assert events == ["issuer_keys_in_force", "issuer_keys_stale", "issuer_keys_in_force"]


async def test_a_key_that_leaves_the_url_stops_working_after_the_next_refresh(setting):
    setting.issuer.add("k2")
    setting.publish()
    token = setting.issuer.token()
    async with setting.serving() as server:
        assert await ask(server, token) == (OK, "")
        del setting.issuer.keys["k1"]
        setting.publish()
        setting.clock.advance(300)
        await server.server._issuers.tick()
        await fetched(server)
        assert await ask(server, token) == (UNAUTHENTICATED, "TOKEN_KEY_UNKNOWN")


# -- Kubernetes ---------------------------------------------------------------------------------------------------------------


def account_claims(**changes):
    about = {
        "namespace": "payments",
        "node": {"name": "node-1", "uid": "3f0b1a5e-1a0d-4b3f-9b3a-1f1f1f1f1f1f"},
        "pod": {"name": "orders-6d5f7", "uid": "0d3c4f5e-3333-4444-5555-666677778888"},
        "serviceaccount": {"name": "orders", "uid": "9a8b7c6d-1111-2222-3333-444455556666"},
    }
    return {"sub": ACCOUNT, "aud": [AUDIENCE], "jti": "a1b2", "kubernetes.io": {**about, **changes}}


@pytest.mark.parametrize(
    "kubernetes",
    [{}, {"namespaces": ["payments"]}, {"service_accounts": ["payments/orders"]}],
    ids=["all", "namespace", "account"],
)
async def test_a_service_account_is_a_caller(setting, kubernetes):
    setting.issuer.add("k1", "RS256")
    setting.publish()
    async with setting.serving(kubernetes=kubernetes, claims=["/kubernetes.io/namespace"]) as server:
        assert await ask(server, setting.issuer.token(**account_claims())) == (OK, "")
        (record,) = [r for r in server.audit_records() if r.get("method") == PATH]
        (verified,) = server.server._issuers.tokens._verified.values()
    assert record["principal"] == f"jwt:ci:{ACCOUNT}"
    assert dict(verified.caller.claims) == {"/kubernetes.io/namespace": "payments"}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (account_claims(namespace="other"), "TOKEN_CLAIM"),
        ({**account_claims(), "sub": "system:serviceaccount:payments:admin"}, "TOKEN_CLAIM"),
        (account_claims(serviceaccount=None), "TOKEN_CLAIM"),
        ({**account_claims(), "kubernetes.io": None}, "TOKEN_CLAIM"),
        ({**account_claims(), "kubernetes.io": "payments"}, "TOKEN_CLAIM"),
        (
            {**account_claims(namespace="default"), "sub": "system:serviceaccount:default:orders"},
            "TOKEN_NOT_BOUND",
        ),
        (
            {**account_claims(serviceaccount={"name": "till"}), "sub": "system:serviceaccount:payments:till"},
            "TOKEN_NOT_BOUND",
        ),
    ],
    ids=["namespace", "subject", "no-account", "no-claim", "text", "other-namespace", "other-account"],
)
async def test_a_service_account_that_is_not_bound_is_refused(setting, claims, reason):
    async with setting.serving(kubernetes={"service_accounts": ["payments/orders"]}) as server:
        assert await ask(server, setting.issuer.token(**claims)) == (UNAUTHENTICATED, reason)
