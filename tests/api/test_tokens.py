"""Bearer tokens through a real server: minted by PyJWT, verified by vaultd, and every way in which one can be wrong."""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import asynccontextmanager

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError
from wire import ADMIN, CRYPTO, OK, PERMISSION_DENIED, UNAUTHENTICATED, UNAVAILABLE, call

from harness import APP, FakeClock, reason_of, running_server
from pki import write_whole
from tokens import AUDIENCE, ISSUER, TokenIssuer, segment
from vaultd_client.v1 import admin_pb2, crypto_pb2, identity_pb2

PATH = f"{CRYPTO}GenerateRandomBytes"
RANDOM = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=8)
STATUS = admin_pb2.GetStatusRequest()
POLICY = {
    "bindings": [
        {"members": [APP, "jwt:ci:app", "jwt:ci:repo:acme/shop"], "role": "crypto-user", "resource": "vaults/default"}
    ]
}


class Setting:
    """An issuer `ci` whose keys are in a file, and a server that takes its tokens."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.issuer = TokenIssuer(self.clock)
        self.jwks = directory / "ci.jwks"
        self.publish()

    def publish(self, content: bytes | None = None) -> None:
        write_whole(self.jwks, self.issuer.jwks() if content is None else content)

    def section(self, **changes):
        return {
            "id": "ci",
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "algorithms": ["ES256", "RS256", "EdDSA"],
            "jwks_file": self.jwks,
            **changes,
        }

    @asynccontextmanager
    async def serving(self, pairs=(), checks=None, **changes):
        jwt_section = {"issuers": [self.section(**changes)], "pairs": list(pairs)}
        if checks is not None:
            jwt_section["checks_per_address"] = checks
        async with running_server(
            self.directory, clock=self.clock, policy=POLICY, listen_tls="127.0.0.1:0", jwt=jwt_section
        ) as server:
            yield server


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path)


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


async def ask(server, token: str, client=None):
    """(code, reason) of a call with a token, by default on the listener without client certificates."""
    outcome = await call(client or server.without_certificate, PATH, RANDOM, metadata=bearer(token))
    return outcome.code, outcome.reason if outcome.code is not OK else ""


async def reason_for(server, token: str) -> str:
    code, reason = await ask(server, token)
    assert code is UNAUTHENTICATED
    return reason


# -- good tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_a_token_of_the_issuer_is_a_caller(setting, algorithm):
    setting.issuer.add("k1", algorithm)
    setting.publish()
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token()) == (OK, "")
        (record,) = [r for r in server.audit_records() if r.get("method") == PATH]
    assert (record["principal"], record["credential"]) == ("jwt:ci:app", "token")


async def test_a_token_gives_what_policy_gives_and_no_more(setting):
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token(sub="stranger")) == (PERMISSION_DENIED, "PERMISSION_DENIED")


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS384", "PS512", "ES384", "ES512"])
async def test_every_algorithm_that_can_be_configured_verifies(setting, algorithm):
    setting.issuer.add("k1", algorithm)
    setting.publish()
    async with setting.serving(algorithms=[algorithm]) as server:
        assert await ask(server, setting.issuer.token()) == (OK, "")


async def test_the_same_token_is_the_same_caller_until_its_key_goes(setting):
    token = setting.issuer.token()
    async with setting.serving() as server:
        tokens = server.server._issuers.tokens
        assert await ask(server, token) == (OK, "")
        (first,) = tokens._verified.values()
        assert await ask(server, token) == (OK, "")
        (second,) = tokens._verified.values()
        assert second.caller is first.caller


async def test_the_mtls_listener_takes_certificates_as_before(setting):
    async with setting.serving() as server:
        outcome = await call(server.app, PATH, RANDOM)
        assert outcome.code is OK
        assert [r["credential"] for r in server.audit_records() if r.get("method") == PATH] == ["certificate"]


async def test_without_an_issuer_the_header_means_nothing(tmp_path):
    async with running_server(tmp_path) as server:
        outcome = await call(server.app, PATH, RANDOM, metadata=bearer("whatever"))
        assert outcome.code is OK


async def test_the_listener_without_client_certificates_is_off_by_default(tmp_path):
    async with running_server(tmp_path) as server:
        assert server.server.tls_port == 0


async def test_a_caller_without_any_credential_is_told_what_to_send(setting):
    async with setting.serving() as server:
        outcome = await call(server.without_certificate, PATH, RANDOM)
        assert (outcome.code, outcome.reason) == (UNAUTHENTICATED, "NO_TOKEN")
        record = next(r for r in server.audit_records() if r.get("reason") == "NO_TOKEN")
        assert record["credential"] == "none"


async def test_a_header_of_a_certificate_is_nobody_where_tokens_get_in(setting):
    async with setting.serving() as server:
        certificate = (setting.directory / "tls" / "admin.crt").read_text().replace("\n", "%0A")
        forged = [("x-forwarded-client-cert", f'Cert="{certificate}";Chain="{certificate}"')]
        for metadata, (code, reason) in (
            (forged, (UNAUTHENTICATED, "NO_TOKEN")),
            ([*forged, *bearer(setting.issuer.token())], (OK, "")),
        ):
            outcome = await call(server.without_certificate, PATH, RANDOM, metadata=metadata)
            assert (outcome.code, outcome.reason if outcome.code is not OK else "") == (code, reason)
            assert (
                await call(server.without_certificate, f"{ADMIN}GetStatus", STATUS, metadata=metadata)
            ).code is not OK


async def test_a_certificate_is_never_asked_for_where_tokens_get_in(setting):
    """A client that has one does not become its principal there: the handshake does not carry it."""
    async with setting.serving() as server:
        tls = setting.directory / "tls"
        pair = [(tls / f"admin.{end}").read_bytes() for end in ("key", "crt")]
        credentials = grpc.ssl_channel_credentials((tls / "ca.crt").read_bytes(), *pair)
        async with grpc.aio.secure_channel(f"127.0.0.1:{server.server.tls_port}", credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(f"{ADMIN}GetStatus")(b"")
    assert refused.value.code() is UNAUTHENTICATED


async def test_health_answers_there_without_a_token_but_watching_and_reflection_want_one(setting):
    check, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
    reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    async with setting.serving() as server:
        channel = server.without_certificate.channel
        await channel.unary_unary(check)(b"")
        for path in (watch, reflection):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(aiter(channel.stream_stream(path)([b""])))
            assert reason_of(refused.value) == "NO_TOKEN"
        watching = channel.unary_stream(watch)(b"", metadata=bearer(setting.issuer.token()))
        assert await anext(aiter(watching)) == b"\x08\x01"
        watching.cancel()


# -- wrong tokens ---------------------------------------------------------------------------------------------------------


def by_hand(header, claims, signature: bytes = b"signature") -> str:
    return f"{segment(header)}.{segment(claims)}.{segment(signature)}"


def hmac_with_the_public_key(issuer: TokenIssuer) -> str:
    _, key = issuer.keys["k1"]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{segment({'alg': 'HS256', 'kid': 'k1'})}.{segment(issuer.claims())}"
    return f"{signed}.{segment(hmac.digest(public, signed.encode(), hashlib.sha256))}"


def foreign(issuer: TokenIssuer, **given) -> str:
    """Signed by another issuer's key under our kid."""
    return issuer.token(key=TokenIssuer(issuer.clock).keys["k1"][1], **given)


def with_header(issuer: TokenIssuer, **header) -> str:
    return issuer.token(header=header)


def tampered(issuer: TokenIssuer) -> str:
    header, _, signature = issuer.token().split(".")
    return f"{header}.{segment(issuer.claims(sub='admin'))}.{signature}"


HOUR = 3600
WRONG = {
    "alg none": (lambda i: by_hand({"alg": "none", "kid": "k1"}, i.claims()), "TOKEN_ALGORITHM"),
    "alg none, no signature": (lambda i: jwt.encode(i.claims(), None, "none", {"kid": "k1"}), "TOKEN_ALGORITHM"),
    "alg NoNe": (lambda i: by_hand({"alg": "NoNe", "kid": "k1"}, i.claims()), "TOKEN_ALGORITHM"),
    "HS256 with the public key": (hmac_with_the_public_key, "TOKEN_ALGORITHM"),
    "allowed, but not for this key": (lambda i: by_hand({"alg": "RS256", "kid": "k1"}, i.claims()), "TOKEN_ALGORITHM"),
    "alg missing": (lambda i: by_hand({"kid": "k1"}, i.claims()), "TOKEN_ALGORITHM"),
    "alg a list": (lambda i: by_hand({"alg": ["ES256"], "kid": "k1"}, i.claims()), "TOKEN_ALGORITHM"),
    "wrong key": (foreign, "TOKEN_SIGNATURE"),
    "tampered": (tampered, "TOKEN_SIGNATURE"),
    "wrong audience": (lambda i: i.token(aud="another"), "TOKEN_AUDIENCE"),
    "audience missing": (lambda i: i.token(aud=None), "TOKEN_AUDIENCE"),
    "audience empty": (lambda i: i.token(aud=[]), "TOKEN_AUDIENCE"),
    "wrong issuer": (lambda i: i.token(iss="https://elsewhere.example.org"), "TOKEN_ISSUER"),
    "issuer with a slash": (lambda i: i.token(iss=f"{ISSUER}/"), "TOKEN_ISSUER"),
    "issuer missing": (lambda i: i.token(iss=None), "TOKEN_ISSUER"),
    "expired": (lambda i: i.token(exp=i.claims()["iat"] - 60, iat=i.claims()["iat"] - HOUR), "TOKEN_EXPIRED"),
    "not yet valid": (lambda i: i.token(nbf=i.claims()["iat"] + 60), "TOKEN_NOT_YET_VALID"),
    "issued in the future": (lambda i: i.token(iat=i.claims()["iat"] + 60), "TOKEN_NOT_YET_VALID"),
    "exp missing": (lambda i: i.token(exp=None), "TOKEN_CLAIM"),
    "exp not a number": (lambda i: by_signing(i, exp="tomorrow"), "TOKEN_CLAIM"),
    "exp true": (lambda i: by_signing(i, exp=True), "TOKEN_CLAIM"),
    "exp endless": (lambda i: by_signing(i, exp=1e300), "TOKEN_CLAIM"),
    "lives too long": (lambda i: i.token(exp=i.claims()["iat"] + 90_000), "TOKEN_LIFETIME"),
    "sub missing": (lambda i: i.token(sub=None), "TOKEN_CLAIM"),
    "sub empty": (lambda i: i.token(sub=""), "TOKEN_CLAIM"),
    "sub not text": (lambda i: by_signing(i, sub=17), "TOKEN_CLAIM"),
    "sub with a space": (lambda i: i.token(sub="a pp"), "TOKEN_CLAIM"),
    "sub with a line": (lambda i: i.token(sub="app\nadmin"), "TOKEN_CLAIM"),
    "sub not ASCII": (lambda i: i.token(sub="åpp"), "TOKEN_CLAIM"),
    "sub too long": (lambda i: i.token(sub="a" * 256), "TOKEN_CLAIM"),
    "unknown kid": (lambda i: with_header(i, kid="k9"), "TOKEN_KEY_UNKNOWN"),
    "kid a path": (lambda i: with_header(i, kid="../../../../dev/null"), "TOKEN_KEY_UNKNOWN"),
    "kid SQL": (lambda i: with_header(i, kid="k1' OR '1'='1"), "TOKEN_KEY_UNKNOWN"),
    "kid missing": (lambda i: by_hand({"alg": "ES256"}, i.claims()), "TOKEN_KEY_UNKNOWN"),
    "kid a number": (lambda i: by_hand({"alg": "ES256", "kid": 1}, i.claims()), "TOKEN_KEY_UNKNOWN"),
    "jku": (lambda i: with_header(i, jku="https://evil.example.org/jwks"), "TOKEN_HEADER_REFUSED"),
    "x5u": (lambda i: with_header(i, x5u="https://evil.example.org/x"), "TOKEN_HEADER_REFUSED"),
    "x5c": (lambda i: with_header(i, x5c=["MII"]), "TOKEN_HEADER_REFUSED"),
    "jwk": (lambda i: with_header(i, jwk=i.jwk("k1")), "TOKEN_HEADER_REFUSED"),
    "crit": (lambda i: by_hand({"alg": "ES256", "kid": "k1", "crit": ["exp"]}, i.claims()), "TOKEN_HEADER_REFUSED"),
    "b64": (lambda i: by_hand({"alg": "ES256", "kid": "k1", "b64": False}, i.claims()), "TOKEN_HEADER_REFUSED"),
    "typ of another use": (lambda i: with_header(i, typ="logout+jwt"), "TOKEN_HEADER_REFUSED"),
    "oversize": (lambda i: i.token(padding="x" * 5_000), "TOKEN_TOO_LARGE"),
    "two parts": (lambda i: i.token().rpartition(".")[0], "TOKEN_MALFORMED"),
    "four parts": (lambda i: i.token() + ".x", "TOKEN_MALFORMED"),
    "five parts, as of a JWE": (lambda i: by_hand({"alg": "dir", "enc": "A256GCM"}, {}) + ".AA.AA", "TOKEN_MALFORMED"),
    "bad base64": (lambda i: "*" + i.token()[1:], "TOKEN_MALFORMED"),
    "padded base64": (lambda i: i.token() + "=", "TOKEN_MALFORMED"),
    "another spelling of the signature": (lambda i: i.token()[:-1] + "-", "TOKEN_MALFORMED"),
    "not JSON": (lambda i: f"{segment(b'not json')}.{segment(b'x')}.AA", "TOKEN_MALFORMED"),
    "a list": (lambda i: by_hand(["ES256"], i.claims()), "TOKEN_MALFORMED"),
    "deep nesting": (lambda i: f"{segment(b'[' * 4000)}.{segment({})}.AA", "TOKEN_MALFORMED"),
    "header twice": (lambda i: by_hand(b'{"alg":"none","alg":"ES256","kid":"k1"}', i.claims()), "TOKEN_MALFORMED"),
    "claim twice": (lambda i: by_hand({"alg": "ES256", "kid": "k1"}, b'{"sub":"a","sub":"b"}'), "TOKEN_MALFORMED"),
    "NaN": (lambda i: by_hand({"alg": "ES256", "kid": "k1"}, b'{"exp":NaN}'), "TOKEN_MALFORMED"),
    "no signature": (lambda i: i.token().rpartition(".")[0] + ".", "TOKEN_SIGNATURE"),
    "empty": (lambda i: "", "AUTHORIZATION_MALFORMED"),
}
"""What is wrong, how it is made, and the reason that it gets."""


def by_signing(issuer: TokenIssuer, **claims) -> str:
    """Claims that PyJWT would refuse to encode, signed all the same."""
    algorithm, key = issuer.keys["k1"]
    payload = json.dumps({**issuer.claims(), **claims}).encode()
    return jwt.PyJWS().encode(payload, key, algorithm, {"kid": "k1"})


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_token_is_refused_with_its_reason_and_leaves_no_trace(setting, wrong, capfd):
    make, expected = WRONG[wrong]
    token = make(setting.issuer)
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token()) == (OK, "")
        outcome = await call(server.without_certificate, PATH, RANDOM, metadata=bearer(token))
    assert (outcome.code, outcome.reason) == (UNAUTHENTICATED, expected)
    audit = b"".join(path.read_bytes() for path in (setting.directory / "audit").glob("*.jsonl"))
    captured = capfd.readouterr()
    sinks = outcome.seen() + audit + captured.out.encode() + captured.err.encode()
    for part in token.split("."):
        assert len(part) < 12 or part.encode() not in sinks


async def test_the_edges_of_a_tokens_time(setting):
    async with setting.serving(leeway_s=30) as server:
        now = setting.clock.us // 1_000_000
        token = setting.issuer.token(exp=now + 100)
        assert await ask(server, token) == (OK, "")
        setting.clock.advance(129)
        assert await ask(server, token) == (OK, "")
        assert await ask(server, setting.issuer.token(exp=now + 100, iat=now, nbf=now)) == (OK, "")
        setting.clock.advance(1)
        assert await reason_for(server, token) == "TOKEN_EXPIRED"
        ahead = now + 130 + 30
        assert await ask(server, setting.issuer.token(nbf=ahead, iat=ahead, exp=ahead + 60)) == (OK, "")
        assert await reason_for(server, setting.issuer.token(nbf=ahead + 1, exp=ahead + 60)) == "TOKEN_NOT_YET_VALID"


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", "Basic YWRtaW46YWRtaW4=")],
        [("authorization", "Bearer")],
        [("authorization", "")],
        [*bearer("GOOD"), *bearer("GOOD")],
        [*bearer("GOOD"), ("authorization", "Basic YQ==")],
    ],
    ids=["basic", "bare", "empty", "twice", "two-schemes"],
)
async def test_the_header_is_there_once_and_a_bearer_token(setting, metadata):
    good = setting.issuer.token()
    async with setting.serving() as server:
        given = [(name, value.replace("GOOD", good)) for name, value in metadata]
        outcome = await call(server.without_certificate, PATH, RANDOM, metadata=given)
        assert (outcome.code, outcome.reason) == (UNAUTHENTICATED, "AUTHORIZATION_MALFORMED")


async def test_a_flood_of_tokens_is_rated_by_address_before_anything_is_parsed(setting):
    async with setting.serving(checks={"per_second": 1, "burst": 5}) as server:
        good = setting.issuer.token()
        assert await ask(server, good) == (OK, "")
        reasons = [(await ask(server, f"bad.{at}.x"))[1] for at in range(6)]
        assert reasons == ["TOKEN_MALFORMED"] * 4 + ["QUOTA_EXCEEDED"] * 2
        assert await ask(server, good) == (OK, "")  # what was verified before costs nothing
        setting.clock.advance(1)
        assert await ask(server, setting.issuer.token(sub="repo:acme/shop")) == (OK, "")


# -- keys of a file ---------------------------------------------------------------------------------------------------------


async def test_a_key_that_leaves_the_key_set_stops_working_also_for_verified_tokens(setting):
    setting.issuer.add("k2")
    setting.publish()
    old, kept = setting.issuer.token(kid="k1"), setting.issuer.token(kid="k2")
    async with setting.serving() as server:
        assert await ask(server, old) == (OK, "")
        assert await ask(server, kept) == (OK, "")
        del setting.issuer.keys["k1"]
        setting.publish()
        await server.server._issuers.tick()
        assert await reason_for(server, old) == "TOKEN_KEY_UNKNOWN"
        assert await ask(server, kept) == (OK, "")


async def test_another_key_under_the_same_kid_verifies_nothing_of_the_old_one(setting):
    old = setting.issuer.token()
    async with setting.serving() as server:
        assert await ask(server, old) == (OK, "")
        setting.issuer.add("k1")
        setting.publish()
        await server.server._issuers.tick()
        assert await reason_for(server, old) == "TOKEN_SIGNATURE"
        assert await ask(server, setting.issuer.token()) == (OK, "")


async def test_an_issuer_without_keys_refuses_its_tokens_and_holds_up_nobody_else(setting):
    setting.jwks.unlink()
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token()) == (UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE")
        assert (await call(server.app, PATH, RANDOM)).code is OK
        assert server.server.board.serving("issuer:ci") is False
        assert server.server.board.serving("") is True
        setting.publish()
        await server.server._issuers.tick()
        assert await ask(server, setting.issuer.token()) == (OK, "")
        assert server.server.board.serving("issuer:ci") is True


def short_rsa(issuer: TokenIssuer) -> dict:
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65_537, 1_024)  # noqa: S505  # too short on purpose
    return {**jwt.get_algorithm_by_name("RS256").to_jwk(key.public_key(), as_dict=True), "kid": "k1"}


UNUSABLE = {
    "not JSON": lambda i: b"<html>",
    "a list": lambda i: b"[]",
    "no keys": lambda i: b'{"keys":[]}',
    "symmetric": lambda i: json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}]}).encode(),
    "for encryption": lambda i: json.dumps({"keys": [{**i.jwk("k1"), "use": "enc"}]}).encode(),
    "without kid": lambda i: json.dumps({"keys": [{**i.jwk("k1"), "kid": None}]}).encode(),
    "of an algorithm that is not allowed": lambda i: json.dumps({"keys": [{**i.jwk("k1"), "alg": "ES384"}]}).encode(),
    "private": lambda i: json.dumps({"keys": [{**i.jwk("k1"), "d": "AA"}]}).encode(),
    "one kid twice": lambda i: json.dumps({"keys": [i.jwk("k1"), TokenIssuer(i.clock).jwk("k1")]}).encode(),
    "short RSA": lambda i: json.dumps({"keys": [short_rsa(i)]}).encode(),
    "huge": lambda i: b" " * 300_000 + i.jwks(),
}


@pytest.mark.parametrize("fault", UNUSABLE)
async def test_a_key_set_that_cannot_be_used_leaves_the_keys_in_force(setting, fault):
    async with setting.serving() as server:
        setting.publish(UNUSABLE[fault](setting.issuer))
        await server.server._issuers.tick()
        assert await ask(server, setting.issuer.token()) == (OK, "")
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token()) == (UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE")


# -- claims -----------------------------------------------------------------------------------------------------------------


async def test_bound_claims_must_match_exactly(setting):
    bound = {"repository": ["acme/shop", "acme/till"], "ref": "refs/heads/main", "trusted": True}
    good = {"repository": "acme/shop", "ref": "refs/heads/main", "trusted": True}
    async with setting.serving(bound_claims=bound) as server:
        assert await ask(server, setting.issuer.token(**good)) == (OK, "")
        assert await ask(server, setting.issuer.token(**{**good, "repository": ["x", "acme/till"]})) == (OK, "")
        for name, value in [
            ("repository", "acme/shop2"),
            ("repository", "ACME/shop"),
            ("repository", None),
            ("repository", []),
            ("ref", "refs/heads/main "),
            ("trusted", 1),
            ("trusted", "true"),
        ]:
            assert await reason_for(server, setting.issuer.token(**{**good, name: value})) == "TOKEN_NOT_BOUND"


async def test_allowed_claims_go_on_to_the_policy_and_no_others(setting):
    async with setting.serving(claims=["repository", "/nested/team", "absent"]) as server:
        token = setting.issuer.token(repository="acme/shop", nested={"team": ["a", "b"]}, secret="not for policy")
        assert await ask(server, token) == (OK, "")
        (verified,) = server.server._issuers.tokens._verified.values()
    assert dict(verified.caller.claims) == {"repository": "acme/shop", "/nested/team": ["a", "b"]}


# -- revocation, and two identities at once -----------------------------------------------------------------------------------


async def test_a_revoked_principal_is_refused_whatever_token_it_has(setting):
    async with setting.serving() as server:
        token = setting.issuer.token()
        assert await ask(server, token) == (OK, "")
        await server.admin.admin.RevokeIdentity(identity_pb2.RevokeIdentityRequest(principal="jwt:ci:app"))
        assert await reason_for(server, token) == "IDENTITY_REVOKED"
        assert (
            await reason_for(server, setting.issuer.token(exp=setting.issuer.claims()["exp"] + 1)) == "IDENTITY_REVOKED"
        )


async def test_a_certificate_and_a_token_at_once_are_refused(setting):
    async with setting.serving() as server:
        assert await ask(server, setting.issuer.token(), server.app) == (UNAUTHENTICATED, "TWO_IDENTITIES")
        assert await ask(server, "not even a token", server.app) == (UNAUTHENTICATED, "TWO_IDENTITIES")


@pytest.mark.parametrize("principal", ["certificate", "token"])
async def test_a_configured_pair_is_one_caller(setting, principal):
    pairs = [{"trust_bundle": "dev", "issuer": "ci", "principal": principal}]
    async with setting.serving(pairs=pairs, claims=["repository"]) as server:
        assert await ask(server, setting.issuer.token(repository="acme/shop"), server.app) == (OK, "")
        (record,) = [r for r in server.audit_records() if r.get("method") == PATH]
        assert record["principal"] == (APP if principal == "certificate" else "jwt:ci:app")
        assert record["credential"] == "certificate+token"
        assert await ask(server, "bad.token.x", server.app) == (UNAUTHENTICATED, "TOKEN_MALFORMED")
        for revoked in (APP, "jwt:ci:app"):
            request = identity_pb2.RevokeIdentityRequest(principal=revoked)
            await server.admin.admin.RevokeIdentity(request)
            again = setting.issuer.token(repository="acme/shop")
            assert await ask(server, again, server.app) == (UNAUTHENTICATED, "IDENTITY_REVOKED")
            await server.admin.admin.RestoreIdentity(identity_pb2.RestoreIdentityRequest(principal=revoked))


async def test_a_pair_whose_principal_is_the_certificate_carries_the_tokens_claims(setting):
    pairs = [{"trust_bundle": "dev", "issuer": "ci", "principal": "certificate"}]
    async with setting.serving(pairs=pairs, claims=["repository"]) as server:
        token = setting.issuer.token(repository="acme/shop")
        for _ in range(2):
            assert await ask(server, token, server.app) == (OK, "")
        (paired,) = server.server._identity._paired.values()
    assert (paired.caller.principal, dict(paired.caller.claims)) == (APP, {"repository": "acme/shop"})


# -- configuration ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"algorithms": ["none"]}, "algorithms"),
        ({"algorithms": ["HS256"]}, "algorithms"),
        ({"algorithms": []}, "algorithms"),
        ({"audiences": []}, "audiences"),
        ({"jwks_file": None}, "exactly one"),
        ({"discovery": True}, "exactly one"),
        ({"jwks_file": None, "jwks_url": "http://issuer.example.org/jwks"}, "https"),
        ({"jwks_file": None, "jwks_url": "http://127.0.0.1/jwks"}, "https"),
        ({"jwks_file": None, "jwks_url": "https://user:secret@issuer.example.org/"}, "without user"),
        ({"jwks_file": None, "jwks_url": "file:///etc/passwd"}, "URL of a host"),
        ({"token_file": "t"}, "token_file"),
        ({"id": "Ci"}, "id"),
        ({"bound_claims": {"ref": []}}, "needs a value"),
        ({"kubernetes": {"service_accounts": ["app"]}}, "namespace/name"),
    ],
)
def test_a_configuration_that_would_weaken_the_check_is_refused(setting, change, problem):
    from vaultd.config import JwtSection

    section = {name: value for name, value in setting.section(**change).items() if value is not None}
    with pytest.raises(ValidationError, match=problem):
        JwtSection(issuers=[section])


def test_pairs_and_the_listener_must_name_what_there_is(tmp_path):
    from harness import make_settings

    for broken in (
        {"listen_tls": "127.0.0.1:0"},
        {"jwt": {"pairs": [{"trust_bundle": "dev", "issuer": "ci", "principal": "token"}]}},
    ):
        with pytest.raises(ValidationError):
            make_settings(tmp_path, **broken)
