"""Who may call what: every RPC of the descriptors, by allowed and by denied identities, against a table written by hand."""

from __future__ import annotations

import re

import pytest
import pytest_asyncio
from wire import (
    ADMIN,
    BATCHES,
    CRYPTO,
    FAILED_PRECONDITION,
    GENEROUS,
    KEYS,
    METHODS,
    OK,
    PERMISSION_DENIED,
    SECRETS,
    UNAUTHENTICATED,
    UNAVAILABLE,
    World,
    call,
    key_of,
    request_class,
    short,
    single_of,
    verdicts,
)

from harness import ADMIN as ADMIN_PRINCIPAL
from harness import running_server
from softhsm import hsm_section
from vaultd.engine.permissions import PERMISSIONS
from vaultd.interceptors.routes import RouteMissing, build_routes
from vaultd.interceptors.rules import RULES
from vaultd.services.crypto import CryptoService
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPERATOR = "operator"
NAMED = "named by the approval"
SOME = "some permission that shows a resource"
TABLE = {
    f"{CRYPTO}Encrypt": "crypto.encrypt",
    f"{CRYPTO}Decrypt": "crypto.decrypt",
    f"{CRYPTO}ReEncrypt": "crypto.reencrypt_from crypto.reencrypt_to",
    f"{CRYPTO}Sign": "crypto.sign",
    f"{CRYPTO}Verify": "crypto.verify",
    f"{CRYPTO}GenerateMac": "crypto.generate_mac",
    f"{CRYPTO}VerifyMac": "crypto.verify_mac",
    f"{CRYPTO}WrapKey": "crypto.wrap",
    f"{CRYPTO}UnwrapKey": "crypto.unwrap",
    f"{CRYPTO}GenerateDataKey": "crypto.generate_data_key",
    f"{CRYPTO}Encapsulate": "crypto.encapsulate",
    f"{CRYPTO}Decapsulate": "crypto.decapsulate",
    f"{CRYPTO}DeriveSharedSecret": "crypto.derive",
    f"{CRYPTO}GenerateRandomBytes": "crypto.generate_random",
    f"{CRYPTO}InspectCiphertext": "crypto.inspect",
    f"{CRYPTO}CryptoStream": "crypto.encrypt",
    f"{CRYPTO}ReEncryptStream": "crypto.reencrypt_from crypto.reencrypt_to",
    f"{CRYPTO}BatchEncrypt": "crypto.encrypt",
    f"{CRYPTO}BatchDecrypt": "crypto.decrypt",
    f"{CRYPTO}BatchReEncrypt": "crypto.reencrypt_from crypto.reencrypt_to",
    f"{CRYPTO}BatchSign": "crypto.sign",
    f"{CRYPTO}BatchVerify": "crypto.verify",
    f"{CRYPTO}BatchGenerateMac": "crypto.generate_mac",
    f"{CRYPTO}BatchVerifyMac": "crypto.verify_mac",
    f"{CRYPTO}BatchWrapKey": "crypto.wrap",
    f"{CRYPTO}BatchUnwrapKey": "crypto.unwrap",
    f"{KEYS}CreateKey": "keys.create",
    f"{KEYS}AdoptKey": "keys.adopt",
    f"{KEYS}GetKey": "keys.get",
    f"{KEYS}ListKeys": "keys.list",
    f"{KEYS}UpdateKey": "keys.update",
    f"{KEYS}RotateKey": "keys.rotate",
    f"{KEYS}SetPrimaryVersion": "keys.rotate",
    f"{KEYS}ListKeyVersions": "keys.get",
    f"{KEYS}GetKeyVersion": "keys.get",
    f"{KEYS}EnableKeyVersion": "keys.update",
    f"{KEYS}DisableKeyVersion": "keys.update",
    f"{KEYS}DestroyKeyVersion": "keys.destroy",
    f"{KEYS}RestoreKeyVersion": "keys.destroy",
    f"{KEYS}DeleteKey": "keys.delete",
    f"{KEYS}UndeleteKey": "keys.delete",
    f"{KEYS}PurgeKey": "keys.purge",
    f"{KEYS}GetPublicKey": "keys.get_public_key",
    f"{KEYS}GetCapabilities": "keys.get_capabilities",
    f"{KEYS}GetKeyUsage": "keys.get",
    f"{KEYS}CreateGrant": "keys.grant",
    f"{KEYS}GetGrant": "keys.list_grants",
    f"{KEYS}ListGrants": "keys.list_grants",
    f"{KEYS}RevokeGrant": "keys.revoke_grant",
    f"{KEYS}CreateImportJob": "keys.create_import_job",
    f"{KEYS}GetImportJob": "keys.get_import_job",
    f"{KEYS}ListImportJobs": "keys.get_import_job",
    f"{KEYS}ImportKeyVersion": "keys.import",
    f"{KEYS}ExportKeyVersion": "keys.export",
    f"{KEYS}BackupKey": "keys.backup",
    f"{KEYS}RestoreKeyBackup": "keys.restore",
    f"{ADMIN}GetStatus": "admin.get_status",
    f"{ADMIN}Init": OPERATOR,
    f"{ADMIN}Seal": "admin.seal",
    f"{ADMIN}Unseal": OPERATOR,
    f"{ADMIN}RotateRootKey": "admin.rotate_root_key",
    f"{ADMIN}CreateVault": "vaults.create",
    f"{ADMIN}GetVault": "vaults.get",
    f"{ADMIN}ListVaults": "vaults.list",
    f"{ADMIN}UpdateVault": "vaults.update",
    f"{ADMIN}DeleteVault": "vaults.delete",
    f"{ADMIN}CreateQuota": "quotas.create",
    f"{ADMIN}GetQuota": "quotas.get",
    f"{ADMIN}ListQuotas": "quotas.list",
    f"{ADMIN}UpdateQuota": "quotas.update",
    f"{ADMIN}DeleteQuota": "quotas.delete",
    f"{ADMIN}ListOwnQuotas": "quotas.get_own",
    f"{ADMIN}GetApprovalRules": "approvals.get_rules",
    f"{ADMIN}SetApprovalRules": "approvals.set_rules",
    f"{ADMIN}ListApprovals": "approvals.list",
    f"{ADMIN}GetApproval": NAMED,
    f"{ADMIN}ApproveRequest": NAMED,
    f"{ADMIN}RejectRequest": NAMED,
    f"{ADMIN}CancelApproval": NAMED,
    f"{ADMIN}GetPolicy": "policy.get",
    f"{ADMIN}SetPolicy": "policy.set",
    f"{ADMIN}TestPolicy": "policy.get",
    f"{ADMIN}ExplainAccess": "policy.get",
    f"{ADMIN}ReviewAccess": "policy.get",
    f"{ADMIN}RevokeIdentity": "admin.revoke_identity",
    f"{ADMIN}ListRevokedIdentities": "admin.list_revoked_identities",
    f"{ADMIN}RestoreIdentity": "admin.restore_identity",
    f"{ADMIN}Watch": SOME,
    f"{ADMIN}GetInclusionProof": "audit.get_proof",
    f"{ADMIN}GetConsistencyProof": "audit.get_proof",
    f"{ADMIN}VerifyAudit": "audit.verify",
    f"{ADMIN}TailAudit": "audit.tail",
    f"{SECRETS}CreateSecret": "secrets.create",
    f"{SECRETS}GetSecret": "secrets.get",
    f"{SECRETS}ListSecrets": "secrets.list",
    f"{SECRETS}UpdateSecret": "secrets.update secrets.destroy",
    f"{SECRETS}AddSecretVersion": "secrets.add_version",
    f"{SECRETS}AccessSecretVersion": "secrets.access",
    f"{SECRETS}BatchAccessSecretVersions": "secrets.access",
    f"{SECRETS}ListSecretVersions": "secrets.get",
    f"{SECRETS}GetSecretVersion": "secrets.get",
    f"{SECRETS}EnableSecretVersion": "secrets.update",
    f"{SECRETS}DisableSecretVersion": "secrets.update",
    f"{SECRETS}DestroySecretVersion": "secrets.destroy",
    f"{SECRETS}SetAlias": "secrets.set_alias",
    f"{SECRETS}DeleteSecret": "secrets.delete",
    f"{SECRETS}UndeleteSecret": "secrets.delete",
    f"{SECRETS}PurgeSecret": "secrets.purge",
    f"{SECRETS}SetRotationPolicy": "secrets.set_rotation",
    f"{SECRETS}DeleteRotationPolicy": "secrets.set_rotation",
    f"{SECRETS}GetRotation": "secrets.get",
    f"{SECRETS}ListRotations": "secrets.list",
    f"{SECRETS}RotateSecret": "secrets.rotate",
    f"{SECRETS}CancelRotation": "secrets.rotate",
}
"""Written by hand from the comments of the protos, not from the rules: a method that is missing here fails a test."""
GRANTS = sorted(set(TABLE.values()) - {OPERATOR, NAMED, SOME})
SHOWING = {
    "vaults.get",
    "keys.get",
    "secrets.get",
    "keys.list_grants",
    "quotas.get",
    "policy.get",
    "approvals.list",
    "approvals.get_rules",
} | {
    "admin.list_revoked_identities",
    "admin.get_status",
    "keys.get_import_job",
}
ALSO = {f"{ADMIN}GetApproval": {"approvals.list"}, f"{ADMIN}Watch": SHOWING}
"""Permissions that open a method to callers that the resource does not name."""
SPIFFE = "spiffe://dev.vaultd"
ANY = sorted(METHODS)
STATES = ("active", "disabled", "scheduled", "deleted", "purged", "missing")

OTHER_CERTIFICATES = {
    "no-san": {},
    "common-name-of-admin": {"common_name": ADMIN_PRINCIPAL},
    "two-uris": {"uri": (f"{SPIFFE}/admin", f"{SPIFFE}/app")},
    "admin-twice": {"uri": (f"{SPIFFE}/admin", f"{SPIFFE}/admin")},
    "other-domain": {"uri": "spiffe://other.vaultd/admin"},
    "longer-domain": {"uri": "spiffe://dev.vaultd.evil/admin"},
    "domain-in-capitals": {"uri": "spiffe://DEV.vaultd/admin"},
    "dot-segment": {"uri": f"{SPIFFE}/x/../admin"},
    "query": {"uri": f"{SPIFFE}/admin?x=1"},
    "dns-only": {"dns": "admin.dev.vaultd"},
}
"""Certificates of the right authority that name nobody."""


def stem_of(grant: str) -> str:
    return grant.replace(" ", "-").replace(".", "-").replace("_", "-")


def policy() -> dict[str, list[dict[str, object]]]:
    """A role and a member for each grant of the table, and an administrator of one vault only."""
    roles = [{"name": stem_of(grant), "permissions": grant.split()} for grant in GRANTS]
    bindings = [{"members": [f"{SPIFFE}/{stem_of(g)}"], "role": stem_of(g), "resource": "/"} for g in GRANTS]
    for half in ("from", "to"):
        roles.append({"name": f"only-{half}", "permissions": [f"crypto.reencrypt_{half}"]})
        bindings.append({"members": [f"{SPIFFE}/only-{half}"], "role": f"only-{half}", "resource": "/"})
    # Whoever grants must hold what is granted.
    lent = "vaults/default/keys/lent"
    bindings.append({"members": [f"{SPIFFE}/keys-grant"], "role": "crypto-generate-mac", "resource": lent})
    bindings.append({"members": [f"{SPIFFE}/tenant-a"], "role": "admin", "resource": "vaults/default"})
    bindings.append({"members": [f"{SPIFFE}/picky"], "role": "admin", "resource": "/"})
    uses = sorted(permission for permission in PERMISSIONS if permission.startswith(("crypto.", "secrets.")))
    denies = [{"members": [f"{SPIFFE}/picky"], "permissions": uses, "resource": "vaults/other"}]
    return {"roles": roles, "bindings": bindings, "denies": denies}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("matrix")
    async with running_server(directory, policy=policy(), hsm=[hsm_section(directory / "hsm")], **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id="other"))
        await made.furnish("other")
        for stem in [stem_of(grant) for grant in GRANTS] + ["only-from", "only-to", "tenant-a", "picky", "stranger"]:
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        for stem, names in OTHER_CERTIFICATES.items():
            server.add_identity(stem, **names)
        server.add_identity("expired", uri=ADMIN_PRINCIPAL, days=-1)
        yield made


async def test_every_method_is_in_the_table_and_nothing_else_is():
    assert TABLE.keys() == METHODS.keys()


async def test_the_rules_ask_for_the_permissions_of_the_table():
    ruled = {
        rule.method: OPERATOR
        if rule.operator_only
        else NAMED
        if rule.named
        else SOME
        if rule.some
        else TABLE[rule.method]  # of each operation: the rule of its single call
        if rule.each
        else " ".join(dict.fromkeys(access.permission for access in rule.access))
        for rule in RULES
        if rule.method in METHODS
    }
    assert ruled == TABLE


async def test_every_permission_opens_some_method():
    assert {permission for grant in GRANTS for permission in grant.split()} == PERMISSIONS


@pytest.mark.parametrize("path", [path for path in ANY if path != f"{ADMIN}Seal"], ids=short)
async def test_an_identity_with_only_the_permission_of_the_table_may_call(world, path):
    grant = TABLE[path]
    client = world.admin if grant in {OPERATOR, NAMED, SOME} else world.server.client(stem_of(grant))
    outcome = await call(client, path, await world.request(path))
    expected = (FAILED_PRECONDITION, "ALREADY_INITIALIZED") if path == f"{ADMIN}Init" else (OK, "")
    assert verdicts(outcome) == {expected}


async def test_an_identity_with_only_the_permission_to_seal_may_seal(tmp_path):
    async with running_server(tmp_path, policy=policy(), **GENEROUS) as server:
        client = server.add_identity("admin-seal", uri=f"{SPIFFE}/admin-seal")
        outcome = await call(client, f"{ADMIN}Seal")
    assert outcome.message().seal_state == admin_pb2.SEAL_STATE_SEALED


@pytest.mark.parametrize("path", ANY, ids=short)
async def test_an_identity_with_every_other_permission_alone_is_denied(world, path):
    wanted = set(TABLE[path].split())
    request = await world.kept_request(path)
    for grant in GRANTS:
        if wanted <= set(grant.split()) or grant in ALSO.get(path, ()):
            continue
        outcome = await call(world.server.client(stem_of(grant)), path, request)
        (verdict,) = verdicts(outcome)
        assert verdict[0] is PERMISSION_DENIED, (path, grant)


@pytest.mark.parametrize("path", ANY, ids=short)
async def test_an_identity_without_a_binding_is_denied_with_a_reason(world, path):
    outcome = await call(world.server.client("stranger"), path, await world.kept_request(path))
    reason = "OPERATOR_REQUIRED" if TABLE[path] == OPERATOR else "PERMISSION_DENIED"
    assert verdicts(outcome) == {(PERMISSION_DENIED, reason)}


async def keys_in_each_state(world) -> dict[str, str]:
    """A key in each state that a key or its version can be in, and a name that no key has."""
    names = {
        state: await world.create("default", world.fresh_id(), key_of("MAC")) for state in STATES if state != "missing"
    }
    version = "{}/versions/1".format
    await world.admin.keys.DisableKeyVersion(keys_pb2.DisableKeyVersionRequest(name=version(names["disabled"])))
    await world.admin.keys.DestroyKeyVersion(keys_pb2.DestroyKeyVersionRequest(name=version(names["scheduled"])))
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=names["deleted"]))
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=names["purged"]))
    await world.admin.keys.PurgeKey(keys_pb2.PurgeKeyRequest(name=names["purged"]))
    return {**names, "missing": f"vaults/default/keys/{world.fresh_id()}"}


async def test_who_may_not_is_told_the_same_whatever_state_the_key_is_in(world):
    keys = await keys_in_each_state(world)
    asked = 0
    for path in ANY:
        kept = await world.kept_request(path)
        named = getattr(kept, "name", "")
        if not re.fullmatch("vaults/default/keys/[a-z0-9-]+(/versions/[0-9]+)?", named):
            continue
        base = "/".join(named.split("/")[:4])
        told = set()
        for name in keys.values():
            request = type(kept)()
            request.CopyFrom(kept)
            request.name = name + named.removeprefix(base)
            outcome = await call(world.server.client("stranger"), path, request)
            told.add((outcome.code, outcome.reason, outcome.text))
        assert len(told) == 1, path
        assert {code for code, *_ in told} == {PERMISSION_DENIED}
        asked += 1
    assert asked > 25


@pytest.mark.parametrize("path", [path for path in ANY if TABLE[path] != OPERATOR], ids=short)
async def test_an_administrator_of_one_vault_gets_nothing_of_another(world, path):
    outcome = await call(world.server.client("tenant-a"), path, await world.kept_request(path, "other"))
    assert verdicts(outcome) == {(PERMISSION_DENIED, "PERMISSION_DENIED")}


@pytest.mark.parametrize("stem", OTHER_CERTIFICATES)
async def test_a_certificate_that_names_nobody_is_unauthenticated_on_every_method(world, stem):
    for path in ANY:
        outcome = await call(world.server.client(stem), path, await world.kept_request(path))
        assert (outcome.code, outcome.reason) == (UNAUTHENTICATED, "NO_ACCEPTED_IDENTITY"), path


@pytest.mark.parametrize("stem", [None, "expired"], ids=["no-certificate", "expired"])
async def test_the_handshake_refuses_a_missing_and_an_expired_certificate(world, stem):
    channel = world.server.channel(stem)
    before = len(world.server.audit_records())
    for path in ANY:
        with pytest.raises(Exception, match="failed to connect to all addresses") as refused:
            await channel.unary_unary(path)((await world.kept_request(path)).SerializeToString(), timeout=10)
        assert refused.value.code() is UNAVAILABLE
    await channel.close()
    assert "vaultd-request-id" not in {key for key, _ in refused.value.trailing_metadata() or ()}
    assert [r for r in world.server.audit_records()[before:] if r["event"] == "call"] == []


async def test_a_certificate_of_another_authority_is_refused_in_the_handshake(world, tmp_path):
    from harness import RunningServer
    from vaultd.devpki import create_dev_pki

    create_dev_pki(tmp_path / "tls", hosts=["127.0.0.1"])
    stranger = RunningServer(world.server.server, tmp_path)
    tls = world.server.directory / "tls"
    (tmp_path / "tls/ca.crt").write_bytes((tls / "ca.crt").read_bytes())
    channel = stranger.channel("admin")
    with pytest.raises(Exception, match="failed to connect to all addresses") as refused:
        await channel.unary_unary(f"{ADMIN}GetStatus")(b"", timeout=10)
    await channel.close()
    assert refused.value.code() is UNAVAILABLE


async def test_headers_that_name_a_caller_change_nothing(world):
    forged = [(key, ADMIN_PRINCIPAL) for key in ("x-user", "x-forwarded-client-cert", "x-forwarded-for", "principal")]
    forged.append(("authorization", f"Bearer {ADMIN_PRINCIPAL}"))
    request = await world.kept_request(f"{ADMIN}GetStatus")
    outcome = await call(world.server.client("stranger"), f"{ADMIN}GetStatus", request, metadata=forged)
    assert outcome.code is PERMISSION_DENIED


@pytest.mark.parametrize("path", BATCHES, ids=short)
async def test_an_item_of_a_batch_on_a_forbidden_key_fails_alone(world, path):
    item_path = single_of(path)
    good, forbidden = await world.request(item_path), await world.request(item_path, "other")
    batch = request_class(path)(items=[good, forbidden, good])
    results = (await call(world.server.client("picky"), path, batch)).message().results
    assert [result.WhichOneof("outcome") for result in results] == ["result", "status", "result"]
    assert results[1].status.code == PERMISSION_DENIED.value[0]


@pytest.mark.parametrize("stem", ["only-from", "only-to"])
@pytest.mark.parametrize("path", [f"{CRYPTO}ReEncrypt", f"{CRYPTO}BatchReEncrypt"], ids=short)
async def test_reencryption_needs_both_of_its_permissions(world, path, stem):
    outcome = await call(world.server.client(stem), path, await world.request(path))
    assert verdicts(outcome) == {(PERMISSION_DENIED, "PERMISSION_DENIED")}


@pytest.mark.parametrize("source", ["default", "other"])
async def test_reencryption_needs_its_permissions_on_each_of_its_two_keys(world, source):
    destination = "other" if source == "default" else "default"
    request = crypto_pb2.ReEncryptRequest(
        source_name=f"vaults/{source}/keys/enc",
        destination_name=f"vaults/{destination}/keys/enc",
        ciphertext=world.sealed[source],
    )
    outcome = await call(world.server.client("tenant-a"), f"{CRYPTO}ReEncrypt", request)
    assert outcome.code is PERMISSION_DENIED


@pytest.mark.parametrize("path", [f"{CRYPTO}ReEncrypt", f"{CRYPTO}BatchReEncrypt"], ids=short)
async def test_nothing_is_reencrypted_across_vaults_even_by_an_administrator_of_both(world, path):
    item = crypto_pb2.ReEncryptRequest(
        source_name="vaults/default/keys/enc",
        destination_name="vaults/other/keys/enc",
        ciphertext=world.sealed["default"],
    )
    request = item if path in METHODS and path not in BATCHES else request_class(path)(items=[item])
    (verdict,) = verdicts(await call(world.admin, path, request))
    assert verdict[1] == "CROSS_VAULT"


async def test_a_deny_wins_over_an_administrators_binding(world):
    request = crypto_pb2.EncryptRequest(name="vaults/other/keys/enc", plaintext=b"x")
    outcome = await call(world.server.client("picky"), f"{CRYPTO}Encrypt", request)
    assert outcome.code is PERMISSION_DENIED


async def test_a_ciphertext_of_one_vault_does_not_open_in_another(world):
    request = crypto_pb2.DecryptRequest(name="vaults/other/keys/enc", ciphertext=world.sealed["default"])
    outcome = await call(world.admin, f"{CRYPTO}Decrypt", request)
    assert outcome.reason == "DECRYPTION_FAILED"


async def test_a_key_id_means_another_key_in_each_vault(world):
    await world.create("default", "twin", key_of("MAC"))
    await world.create("other", "twin", key_of("MAC"))
    codes = [
        (await world.admin.crypto.GenerateMac(crypto_pb2.GenerateMacRequest(name=f"vaults/{v}/keys/twin"))).mac
        for v in ("default", "other")
    ]
    assert codes[0] != codes[1]


def crypto_service():
    return {crypto_pb2.DESCRIPTOR.services_by_name["CryptoService"]: CryptoService(None, None, {})}


@pytest.mark.parametrize("path", [path for path in ANY if path.startswith(CRYPTO)], ids=short)
async def test_a_server_without_a_rule_for_a_method_refuses_to_start(path):
    without = [rule for rule in RULES if rule.method != path]
    with pytest.raises(RouteMissing, match=short(path)):
        build_routes(crypto_service(), without)


async def test_a_rule_without_a_method_stops_the_server_from_starting():
    from dataclasses import replace

    extra = replace(RULES[0], method=f"{CRYPTO}Guess")
    with pytest.raises(RouteMissing, match="Guess"):
        build_routes(crypto_service(), [*RULES, extra])


async def test_two_rules_for_one_method_stop_the_server_from_starting():
    with pytest.raises(RouteMissing, match="same method"):
        build_routes(crypto_service(), [*RULES, RULES[0]])


async def test_a_service_without_the_method_stops_the_server_from_starting():
    descriptor = crypto_pb2.DESCRIPTOR.services_by_name["CryptoService"]
    with pytest.raises(RouteMissing, match="no method in its service"):
        build_routes({descriptor: object()}, RULES)
