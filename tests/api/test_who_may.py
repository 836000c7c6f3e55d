"""Where policy, identity, grants, quotas and approvals meet in one call."""

from __future__ import annotations

import pytest
from test_approval_calls import required
from wire import (
    ADMIN,
    CRYPTO,
    FAILED_PRECONDITION,
    GENEROUS,
    KEYS,
    OK,
    PERMISSION_DENIED,
    World,
    call,
    key_of,
)

from harness import ADMIN as ROOT
from harness import FakeClock, running_server
from pki import write_whole
from tokens import AUDIENCE, ISSUER, TokenIssuer
from vaultd_client.v1 import (
    approval_pb2,
    crypto_pb2,
    grant_pb2,
    identity_pb2,
    keys_pb2,
    policy_pb2,
    quota_pb2,
)

SPIFFE = "spiffe://dev.vaultd"
HOLDER, FRIEND = f"{SPIFFE}/holder", f"{SPIFFE}/friend"
KEY = "vaults/default/keys/mac"
POLICY = {
    "bindings": [
        {"members": [HOLDER], "role": "crypto-user", "resource": "vaults/default"},
        {"members": [HOLDER], "role": "granter", "resource": "vaults/default"},
    ]
}


@pytest.fixture
async def world(tmp_path):
    async with running_server(tmp_path, policy=POLICY, **GENEROUS) as server:
        made = World(server)
        await made.create("default", "mac", key_of("MAC"))
        for stem in ("holder", "friend", "second"):
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        yield made


async def mac(world, stem: str):
    return await call(
        world.server.client(stem), f"{CRYPTO}GenerateMac", crypto_pb2.GenerateMacRequest(name=KEY, data=b"x")
    )


async def set_policy(world, edit, stem: str = "admin"):
    got = await call(world.admin, f"{ADMIN}GetPolicy", policy_pb2.GetPolicyRequest(resource="/"))
    policy = got.message().policy
    edit(policy)
    request = policy_pb2.SetPolicyRequest(resource="/", policy=policy)
    return await call(world.server.client(stem), f"{ADMIN}SetPolicy", request)


async def test_grants_of_a_revoked_granter_give_nothing_until_it_is_restored(world):
    create = grant_pb2.CreateGrantRequest(parent=KEY)
    create.grant.grantee = FRIEND
    create.grant.permissions.append("crypto.generate_mac")
    assert (await call(world.server.client("holder"), f"{KEYS}CreateGrant", create)).code is OK
    assert (await mac(world, "friend")).code is OK
    await world.admin.admin.RevokeIdentity(identity_pb2.RevokeIdentityRequest(principal=HOLDER))
    assert (await mac(world, "friend")).code is PERMISSION_DENIED
    await world.admin.admin.RestoreIdentity(identity_pb2.RestoreIdentityRequest(principal=HOLDER))
    assert (await mac(world, "friend")).code is OK


async def test_a_revoked_administrator_is_not_the_one_who_is_left(world):
    second = policy_pb2.Binding(members=[f"{SPIFFE}/second"], role="admin", resource="/")
    assert (await set_policy(world, lambda policy: policy.bindings.append(second))).code is OK
    await world.server.client("second").admin.RevokeIdentity(identity_pb2.RevokeIdentityRequest(principal=ROOT))

    def leave_only_the_revoked(policy):
        del policy.bindings[-1]

    got = await call(world.server.client("second"), f"{ADMIN}GetPolicy", policy_pb2.GetPolicyRequest(resource="/"))
    policy = got.message().policy
    leave_only_the_revoked(policy)
    request = policy_pb2.SetPolicyRequest(resource="/", policy=policy)
    outcome = await call(world.server.client("second"), f"{ADMIN}SetPolicy", request)
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "POLICY_LAST_ADMIN")


async def test_a_condition_on_claims_follows_the_token(tmp_path):
    clock = FakeClock()
    issuer = TokenIssuer(clock)
    jwks = tmp_path / "ci.jwks"
    write_whole(jwks, issuer.jwks())
    section = {
        "id": "ci",
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "algorithms": ["ES256"],
        "jwks_file": jwks,
        "claims": ["ref"],
    }
    binding = {
        "members": ["jwt:ci:build"],
        "role": "signer",
        "resource": "vaults/default",
        "condition": 'claims.ref == "refs/heads/main"',
    }
    async with running_server(
        tmp_path, clock=clock, policy={"bindings": [binding]}, listen_tls="127.0.0.1:0", jwt={"issuers": [section]}
    ) as server:
        await World(server).create("default", "mac", key_of("MAC"))
        request = crypto_pb2.GenerateMacRequest(name=KEY, data=b"x")
        codes = {}
        for ref in ("refs/heads/main", "refs/heads/fork", None):
            token = issuer.token(sub="build", **({"ref": ref} if ref else {}))
            metadata = [("authorization", f"Bearer {token}")]
            codes[ref] = (
                await call(server.without_certificate, f"{CRYPTO}GenerateMac", request, metadata=metadata)
            ).code
    assert codes == {"refs/heads/main": OK, "refs/heads/fork": PERMISSION_DENIED, None: PERMISSION_DENIED}


async def test_an_explanation_says_what_is_left_of_quotas(world):
    quota = quota_pb2.Quota(resource=KEY, methods=["CryptoService.GenerateMac"])
    quota.windows.add(count=10).period.FromSeconds(60)
    create = quota_pb2.CreateQuotaRequest(parent="vaults/default", quota_id="shared", quota=quota)
    await world.admin.admin.CreateQuota(create)
    assert (await mac(world, "holder")).code is OK
    request = policy_pb2.ExplainAccessRequest(principal=HOLDER, method="GenerateMac", resource=KEY)
    found = (await call(world.admin, f"{ADMIN}ExplainAccess", request)).message()
    assert found.allowed
    assert found.quota_left["vaults/default/quotas/shared per_60s"] == 9
    assert any(name.startswith("quotas/limits.symmetric ") for name in found.quota_left)


async def test_a_change_of_the_policy_can_need_approval(world):
    rule = approval_pb2.ApprovalRule(
        id="policy", methods=["SetPolicy"], resource="/", approvers=[f"{SPIFFE}/second"], required=1
    )
    await world.admin.admin.SetApprovalRules(approval_pb2.SetApprovalRulesRequest(rules=[rule]))
    more = policy_pb2.Binding(members=[FRIEND], role="signer", resource="vaults/default")
    waiting = await set_policy(world, lambda policy: policy.bindings.append(more))
    assert (await mac(world, "friend")).code is PERMISSION_DENIED
    name = required(waiting)
    shown = await world.server.client("second").admin.GetApproval(approval_pb2.GetApprovalRequest(name=name))
    assert FRIEND in shown.request
    await world.server.client("second").admin.ApproveRequest(approval_pb2.ApproveRequestRequest(name=name))
    assert (await set_policy(world, lambda policy: policy.bindings.append(more))).code is OK
    assert (await mac(world, "friend")).code is OK


async def test_a_key_that_was_purged_takes_its_grants_along(world):
    create = grant_pb2.CreateGrantRequest(parent=KEY)
    create.grant.grantee = FRIEND
    create.grant.permissions.append("crypto.generate_mac")
    assert (await call(world.server.client("holder"), f"{KEYS}CreateGrant", create)).code is OK
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=KEY))
    assert (await mac(world, "friend")).code is PERMISSION_DENIED
