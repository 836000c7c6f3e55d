"""Every RPC of the descriptors, asked by every kind of identity: the other half of the matrix, also written by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from test_matrix import NAMED, OPERATOR, TABLE
from test_tokens import WRONG
from wire import (
    ADMIN,
    CRYPTO,
    GENEROUS,
    KEYS,
    METHODS,
    PERMISSION_DENIED,
    SECRETS,
    UNAUTHENTICATED,
    World,
    call,
    short,
    verdicts,
)

from harness import ADMIN as ADMIN_PRINCIPAL
from harness import RunningServer, make_settings, running_server
from pki import Authority
from tokens import AUDIENCE, ISSUER, TokenIssuer
from vaultd.engine.clock import SystemClock
from vaultd.engine.permissions import BUILT_IN_ROLES
from vaultd_client.v1 import admin_pb2, identity_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPIFFE = "spiffe://dev.vaultd"
ANY = sorted(METHODS)


def crypto(*names: str) -> set[str]:
    return {path for path in ANY if path.startswith(CRYPTO) and short(path).removeprefix("Batch") in names}


def keys(*names: str) -> set[str]:
    return {f"{KEYS}{name}" for name in names}


def secrets(*names: str) -> set[str]:
    return {f"{SECRETS}{name}" for name in names}


def admin(*names: str) -> set[str]:
    return {f"{ADMIN}{name}" for name in names}


OF_KEYS = keys(
    *("CreateKey", "GetKey", "ListKeys", "UpdateKey", "RotateKey", "SetPrimaryVersion", "ListKeyVersions"),
    *("GetKeyVersion", "EnableKeyVersion", "DisableKeyVersion", "DestroyKeyVersion", "RestoreKeyVersion"),
    *("DeleteKey", "UndeleteKey", "PurgeKey", "GetPublicKey", "GetCapabilities", "GetKeyUsage"),
    *("CreateImportJob", "GetImportJob", "ListImportJobs", "BackupKey"),
)
MANAGES_SECRETS = {path for path in ANY if path.startswith(SECRETS) and "AccessSecret" not in path}
READS_A_KEY = keys("GetKey", "ListKeyVersions", "GetKeyVersion", "GetKeyUsage")
OF_GRANTS = keys("CreateGrant", "GetGrant", "ListGrants", "RevokeGrant")
OF_QUOTAS = admin("CreateQuota", "GetQuota", "ListQuotas", "UpdateQuota", "DeleteQuota", "ListOwnQuotas")
OWN_QUOTAS = admin("ListOwnQuotas")
OF_POLICY = admin("GetPolicy", "SetPolicy", "TestPolicy", "ExplainAccess", "ReviewAccess")
WATCHES = admin("Watch")
READS_APPROVALS = admin("GetApprovalRules", "ListApprovals", "GetApproval")
ROLES: dict[str, set[str]] = {
    "admin": {path for path, grant in TABLE.items() if grant not in {OPERATOR, NAMED}} | admin("GetApproval"),
    "secret-admin": MANAGES_SECRETS | WATCHES,
    "secret-writer": secrets("CreateSecret", "GetSecret", "ListSecrets", "AddSecretVersion", "ListSecretVersions")
    | secrets("GetRotation", "ListRotations")
    | secrets("GetSecretVersion", "EnableSecretVersion", "DisableSecretVersion", "SetAlias")
    | OWN_QUOTAS
    | WATCHES,
    "secret-reader": secrets("AccessSecretVersion", "BatchAccessSecretVersions", "GetSecret", "ListSecrets")
    | secrets("ListSecretVersions", "GetSecretVersion", "GetRotation", "ListRotations")
    | OWN_QUOTAS
    | WATCHES,
    "vault-operator": OF_KEYS
    | MANAGES_SECRETS
    | OF_GRANTS
    | OF_QUOTAS
    | OF_POLICY
    | admin("GetVault", "UpdateVault")
    | WATCHES,
    "key-admin": OF_KEYS | OF_GRANTS | WATCHES,
    "key-importer": READS_A_KEY
    | keys("CreateImportJob", "GetImportJob", "ListImportJobs", "ImportKeyVersion")
    | WATCHES,
    "key-exporter": READS_A_KEY | keys("ExportKeyVersion") | WATCHES,
    "granter": OF_GRANTS | WATCHES,
    "approver": READS_APPROVALS | WATCHES,
    "quota-admin": OF_QUOTAS | WATCHES,
    "crypto-user": {path for path in ANY if path.startswith(CRYPTO)}
    | keys("GetPublicKey", "GetCapabilities")
    | OWN_QUOTAS,
    "encrypter": crypto("Encrypt", "Encapsulate", "GenerateDataKey", "InspectCiphertext", "CryptoStream")
    | keys("GetPublicKey")
    | OWN_QUOTAS,
    "decrypter": crypto("Decrypt", "Decapsulate", "InspectCiphertext") | keys("GetPublicKey") | OWN_QUOTAS,
    "signer": crypto("Sign", "GenerateMac") | keys("GetPublicKey") | OWN_QUOTAS,
    "verifier": crypto("Verify", "VerifyMac") | keys("GetPublicKey") | OWN_QUOTAS,
    "wrapper": crypto("WrapKey") | OWN_QUOTAS,
    "unwrapper": crypto("UnwrapKey") | OWN_QUOTAS,
    "auditor": keys(
        *("GetKey", "ListKeys", "ListKeyVersions", "GetKeyVersion", "GetKeyUsage", "GetGrant", "ListGrants"),
    )
    | admin("GetStatus", "GetVault", "ListVaults", "ListRevokedIdentities", "GetQuota", "ListQuotas")
    | secrets("GetSecret", "ListSecrets", "ListSecretVersions", "GetSecretVersion", "GetRotation", "ListRotations")
    | (OF_POLICY - admin("SetPolicy"))
    | READS_APPROVALS
    | WATCHES
    | admin("GetInclusionProof", "GetConsistencyProof", "VerifyAudit", "TailAudit"),
}
"""What each built-in role may call, on everything.  A method that is in no row may be called by no role."""
MAY_NOT_GIVE = {"vault-operator", "key-admin", "granter"}
"""Roles that may grant, and hold no use of a key that they could give."""

UNACCEPTED = {
    "no SAN": ("no-san", "NO_ACCEPTED_IDENTITY"),
    "two SANs": ("two-sans", "NO_ACCEPTED_IDENTITY"),
    "the administrator's name as CN only": ("cn-only", "NO_ACCEPTED_IDENTITY"),
    "another trust domain": ("other-domain", "NO_ACCEPTED_IDENTITY"),
    "revoked by the authority": ("revoked-by-crl", "CERTIFICATE_REVOKED"),
    "revoked through the API": ("revoked-by-api", "IDENTITY_REVOKED"),
}
"""Certificates that get through the handshake and no further: what is wrong, its file, and the reason."""
TOKENS = {
    "wrong audience": "TOKEN_AUDIENCE",
    "expired": "TOKEN_EXPIRED",
    "alg none": "TOKEN_ALGORITHM",
    "HS256 with the public key": "TOKEN_ALGORITHM",
    "wrong key": "TOKEN_SIGNATURE",
    "wrong issuer": "TOKEN_ISSUER",
    "unknown kid": "TOKEN_KEY_UNKNOWN",
    "sub missing": "TOKEN_CLAIM",
}
HANDSHAKE = ["no-certificate", "expired", "wrong-ca"]


def policy() -> dict[str, list[dict[str, object]]]:
    bindings = [
        {"members": [f"{SPIFFE}/role/{role}", f"jwt:ci:{role}"], "role": role, "resource": "/"} for role in ROLES
    ]
    everything = [f"{SPIFFE}/revoked-by-crl", f"{SPIFFE}/revoked-by-api", "jwt:ci:revoked", "jwt:ci:app"]
    bindings.append({"members": everything, "role": "admin", "resource": "/"})
    bindings.append({"members": [f"{SPIFFE}/tenant-of-other"], "role": "admin", "resource": "vaults/other"})
    return {"bindings": bindings}


@dataclasses.dataclass
class Asked:
    """The world, and the token issuer `ci`."""

    world: World
    issuer: TokenIssuer

    def bearer(self, token: str) -> dict[str, Any]:
        return {"metadata": [("authorization", f"Bearer {token}")]}

    @property
    def server(self) -> RunningServer:
        return self.world.server


def revoke_by_crl(tls, lost: str) -> None:
    """The development authority's list, with one certificate on it."""
    authority = Authority()
    authority.certificate = x509.load_pem_x509_certificate((tls / "ca.crt").read_bytes())
    authority.key = serialization.load_pem_private_key((tls / "ca.key").read_bytes(), None)
    authority.name = authority.certificate.subject
    serial = x509.load_pem_x509_certificate((tls / f"{lost}.crt").read_bytes()).serial_number
    (tls / "ca.crl").write_bytes(authority.crl([serial], now_us=SystemClock().now_us()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(tmp_path_factory):
    from vaultd.devpki import issue_client_certificate

    directory = tmp_path_factory.mktemp("identities")
    make_settings(directory)
    tls = directory / "tls"
    issue_client_certificate(tls, tls / "revoked-by-crl", uri=f"{SPIFFE}/revoked-by-crl")
    revoke_by_crl(tls, "revoked-by-crl")
    issuer = TokenIssuer(_RealTime())
    (directory / "ci.jwks").write_bytes(issuer.jwks())
    bundle = {"name": "dev", "ca": tls / "ca.crt", "crl": tls / "ca.crl", "trust_domain": "dev.vaultd"}
    section = {
        "id": "ci",
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "algorithms": ["ES256", "RS256"],
        "jwks_file": directory / "ci.jwks",
    }
    async with running_server(
        directory,
        policy=policy(),
        trust_bundles=[bundle],
        listen_tls="127.0.0.1:0",
        jwt={"issuers": [section]},
        **GENEROUS,
    ) as server:
        made = World(server)
        await made.furnish("default")
        await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id="other"))
        for role in ROLES:
            server.add_identity(f"role-{role}", uri=f"{SPIFFE}/role/{role}")
        for stem in ("tenant-of-other", "revoked-by-api"):
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        server.add_identity("no-san")
        server.add_identity("cn-only", common_name=ADMIN_PRINCIPAL)
        server.add_identity("two-sans", uri=(f"{SPIFFE}/admin", f"{SPIFFE}/app"))
        server.add_identity("other-domain", uri="spiffe://other.vaultd/admin")
        server.add_identity("expired", uri=ADMIN_PRINCIPAL, days=-1)
        Authority("somebody").issue(tls / "wrong-ca", uris=[ADMIN_PRINCIPAL])
        for principal in (f"{SPIFFE}/revoked-by-api", "jwt:ci:revoked"):
            await server.admin.admin.RevokeIdentity(identity_pb2.RevokeIdentityRequest(principal=principal))
        yield Asked(made, issuer)


class _RealTime:
    @property
    def us(self) -> int:
        return SystemClock().now_us()


async def test_every_built_in_role_has_a_row():
    assert ROLES.keys() == BUILT_IN_ROLES.keys()


async def test_every_row_is_of_methods_of_the_descriptors():
    assert set().union(*ROLES.values()) <= METHODS.keys()


async def test_every_wrong_token_of_the_matrix_has_the_reason_of_its_own_test():
    assert {wrong: WRONG[wrong][1] for wrong in TOKENS} == TOKENS


async def judge(asked: Asked, path: str, allowed: bool, client, **options) -> None:
    """Ask, and compare with the table."""
    if not allowed:
        outcome = await call(client, path, await asked.world.kept_request(path), **options)
        reason = "OPERATOR_REQUIRED" if TABLE[path] == OPERATOR else "PERMISSION_DENIED"
        assert verdicts(outcome) == {(PERMISSION_DENIED, reason)}, path
        return
    outcome = await call(client, path, await asked.world.request(path), **options)
    codes = {code for code, _ in verdicts(outcome)}
    assert not codes & {PERMISSION_DENIED, UNAUTHENTICATED}, (path, verdicts(outcome))


@pytest.mark.parametrize("role", ROLES)
async def test_a_built_in_role_may_call_what_its_row_says_and_nothing_else(asked, role):
    client = asked.server.client(f"role-{role}")
    for path in ANY:
        if path == f"{KEYS}CreateGrant" and role in MAY_NOT_GIVE:
            outcome = await call(client, path, await asked.world.request(path))
            assert verdicts(outcome) == {(PERMISSION_DENIED, "GRANT_EXCEEDS_RIGHTS")}
        elif path != f"{ADMIN}Seal" or role != "admin":
            await judge(asked, path, path in ROLES[role], client)


@pytest.mark.parametrize("role", ["crypto-user", "auditor", "key-admin"])
async def test_a_token_may_call_what_the_row_of_its_role_says_and_nothing_else(asked, role):
    options = asked.bearer(asked.issuer.token(sub=role))
    for path in ANY:
        if path != f"{KEYS}CreateGrant" or role not in MAY_NOT_GIVE:
            await judge(asked, path, path in ROLES[role], asked.server.without_certificate, **options)


async def test_an_administrator_of_another_vault_may_call_nothing_here(asked):
    for path in ANY:
        await judge(asked, path, False, asked.server.client("tenant-of-other"))


async def test_a_token_without_a_binding_may_call_nothing(asked):
    options = asked.bearer(asked.issuer.token(sub="stranger"))
    for path in ANY:
        await judge(asked, path, False, asked.server.without_certificate, **options)


async def refused_everywhere(asked: Asked, expected: str, client, **options) -> None:
    for path in ANY:
        outcome = await call(client, path, await asked.world.kept_request(path), **options)
        assert (outcome.code, outcome.reason) == (UNAUTHENTICATED, expected), path


@pytest.mark.parametrize("wrong", UNACCEPTED)
async def test_a_certificate_that_is_not_accepted_calls_nothing(asked, wrong):
    stem, reason = UNACCEPTED[wrong]
    await refused_everywhere(asked, reason, asked.server.client(stem))


@pytest.mark.parametrize("wrong", TOKENS)
async def test_a_token_that_is_not_accepted_calls_nothing(asked, wrong):
    token = WRONG[wrong][0](asked.issuer)
    await refused_everywhere(asked, TOKENS[wrong], asked.server.without_certificate, **asked.bearer(token))


async def test_a_revoked_tokens_principal_calls_nothing(asked):
    options = asked.bearer(asked.issuer.token(sub="revoked"))
    await refused_everywhere(asked, "IDENTITY_REVOKED", asked.server.without_certificate, **options)


async def test_a_caller_without_certificate_and_token_calls_nothing(asked):
    await refused_everywhere(asked, "NO_TOKEN", asked.server.without_certificate)


async def test_an_accepted_certificate_beside_an_accepted_token_calls_nothing(asked):
    options = asked.bearer(asked.issuer.token(sub="admin"))
    await refused_everywhere(asked, "TWO_IDENTITIES", asked.server.client("admin"), **options)


@pytest.mark.parametrize("stem", HANDSHAKE)
async def test_a_connection_that_the_handshake_refuses_calls_nothing(asked, stem):
    channel = asked.server.channel(None if stem == "no-certificate" else stem)
    for path in ANY:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(path)((await asked.world.kept_request(path)).SerializeToString(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "vaultd-request-id" not in dict(refused.value.trailing_metadata() or ())
    await channel.close()


async def test_the_matrix_asks_every_method_by_more_than_a_dozen_identities():
    identities = len(ROLES) + len(UNACCEPTED) + len(TOKENS) + len(HANDSHAKE) + 5
    assert identities >= 30
    assert TABLE.keys() == METHODS.keys()
