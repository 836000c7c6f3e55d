"""Revoked principals: refused at once and everywhere, on open connections too, and never so that nobody is left."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys

import grpc
import pytest
import yaml

from harness import ADMIN, APP, DEFAULT_POLICY, FakeClock, reason_of, running_server
from vaultd.engine.revocations import row_key
from vaultd_client.v1 import admin_pb2, crypto_pb2, identity_pb2

OPS = "spiffe://dev.vaultd/ops"
OTHER = "spiffe://dev.vaultd/other"
TWO_ADMINS = {"bindings": [*DEFAULT_POLICY["bindings"], {"members": [OPS], "role": "admin", "resource": "/"}]}
RANDOM = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=8)


def revoke_request(principal: str, **fields) -> identity_pb2.RevokeIdentityRequest:
    return identity_pb2.RevokeIdentityRequest(principal=principal, **fields)


def restore_request(principal: str, **fields) -> identity_pb2.RestoreIdentityRequest:
    return identity_pb2.RestoreIdentityRequest(principal=principal, **fields)


async def refusal(pending) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await pending
    return refused.value.code(), reason_of(refused.value)


REVOKED = (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REVOKED")


async def test_a_revoked_principal_is_refused_on_its_open_connection_until_it_is_restored(tmp_path):
    async with running_server(tmp_path) as server:
        await server.app.crypto.GenerateRandomBytes(RANDOM)
        await server.admin.admin.RevokeIdentity(revoke_request(APP))
        assert await refusal(server.app.crypto.GenerateRandomBytes(RANDOM)) == REVOKED
        await server.admin.admin.RestoreIdentity(restore_request(APP))
        await server.app.crypto.GenerateRandomBytes(RANDOM)


async def test_every_certificate_of_a_revoked_principal_is_refused(tmp_path):
    async with running_server(tmp_path) as server:
        await server.admin.admin.RevokeIdentity(revoke_request(APP))
        assert await refusal(server.add_identity("again", uri=APP).crypto.GenerateRandomBytes(RANDOM)) == REVOKED


async def test_a_revocation_says_who_when_and_why(tmp_path):
    clock = FakeClock()
    async with running_server(tmp_path, clock=clock) as server:
        revoked = await server.admin.admin.RevokeIdentity(revoke_request(APP, reason="key was lost"))
        (listed,) = (
            await server.admin.admin.ListRevokedIdentities(identity_pb2.ListRevokedIdentitiesRequest())
        ).revoked_identities
    assert listed == revoked
    assert (revoked.principal, revoked.reason, revoked.revoked_by) == (APP, "key was lost", ADMIN)
    assert revoked.revoke_time.ToMicroseconds() == clock.us


async def test_revoking_again_changes_nothing(tmp_path):
    async with running_server(tmp_path) as server:
        first = await server.admin.admin.RevokeIdentity(revoke_request(APP, reason="first"))
        assert await server.admin.admin.RevokeIdentity(revoke_request(APP, reason="second")) == first


async def test_a_revocation_survives_a_restart_and_a_seal(tmp_path):
    async with running_server(tmp_path) as server:
        await server.admin.admin.RevokeIdentity(revoke_request(APP))
    async with running_server(tmp_path) as server:
        assert await refusal(server.app.crypto.GenerateRandomBytes(RANDOM)) == REVOKED
        await server.admin.admin.Seal(admin_pb2.SealRequest())
        assert await refusal(server.app.crypto.GenerateRandomBytes(RANDOM)) == REVOKED
        await server.admin.admin.Unseal(admin_pb2.UnsealRequest())
        assert await refusal(server.app.crypto.GenerateRandomBytes(RANDOM)) == REVOKED


async def test_other_nodes_follow_by_themselves(tmp_path):
    second = {"audit": {"directory": tmp_path / "audit-2"}}
    async with running_server(tmp_path) as one, running_server(tmp_path, **second) as two:
        await two.app.crypto.GenerateRandomBytes(RANDOM)
        await one.admin.admin.RevokeIdentity(revoke_request(APP))
        async with asyncio.timeout(60):
            while True:
                try:
                    await two.app.crypto.GenerateRandomBytes(RANDOM)
                except grpc.aio.AioRpcError as error:
                    assert reason_of(error) == "IDENTITY_REVOKED"  # noqa: PT017  # how often it is asked is what varies
                    break
        await one.admin.admin.RestoreIdentity(restore_request(APP))
        await two.server.engine.feed.poll()
        await two.app.crypto.GenerateRandomBytes(RANDOM)


async def test_a_node_that_missed_a_part_of_the_feed_reads_every_row_again(tmp_path):
    second = {
        "audit": {"directory": tmp_path / "audit-2"},
        "store": {"path": tmp_path / "vault.db", "feed_poll_ms": 9_999},
    }
    async with running_server(tmp_path) as one, running_server(tmp_path, **second) as two:
        await one.admin.admin.RevokeIdentity(revoke_request(APP))
        for at in range(3):
            await one.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id=f"v{at}"))
        await one.server.engine.store.trim_changes(1)
        await two.server.engine.feed.poll()
        assert await refusal(two.app.crypto.GenerateRandomBytes(RANDOM)) == REVOKED


async def test_nobody_revokes_themselves(tmp_path):
    async with running_server(tmp_path, policy=TWO_ADMINS) as server:
        code = await refusal(server.admin.admin.RevokeIdentity(revoke_request(ADMIN)))
        assert code == (grpc.StatusCode.FAILED_PRECONDITION, "REVOKES_ITSELF")
        await server.admin.admin.GetStatus(admin_pb2.GetStatusRequest())


REVOKER_ONLY = {
    "roles": [{"name": "revoker", "permissions": ["admin.revoke_identity"]}],
    "groups": [{"name": "revokers", "members": [OTHER]}, {"name": "admins", "members": [OPS]}],
    "bindings": [
        {"members": ["group:revokers"], "role": "revoker", "resource": "/"},
        {"members": ["group:admins"], "role": "admin", "resource": "/"},
    ],
}


async def test_the_last_administrator_is_not_revoked(tmp_path):
    async with running_server(tmp_path, policy=REVOKER_ONLY) as server:
        revoker = server.add_identity("other", uri=OTHER)
        await revoker.admin.RevokeIdentity(revoke_request(OPS))
        code = await refusal(revoker.admin.RevokeIdentity(revoke_request(ADMIN)))
        assert code == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMINISTRATOR")
        await server.admin.admin.GetStatus(admin_pb2.GetStatusRequest())
        await revoker.admin.RevokeIdentity(revoke_request(APP))


async def test_an_administrator_with_a_deny_is_none(tmp_path):
    denies = [{"members": [OPS], "permissions": ["admin.restore_identity"], "resource": "/"}]
    async with running_server(tmp_path, policy={**REVOKER_ONLY, "denies": denies}) as server:
        revoker = server.add_identity("other", uri=OTHER)
        code = await refusal(revoker.admin.RevokeIdentity(revoke_request(ADMIN)))
        assert code == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMINISTRATOR")


async def test_of_two_administrators_who_revoke_each_other_one_is_left(tmp_path):
    second = {"audit": {"directory": tmp_path / "audit-2"}}
    async with (
        running_server(tmp_path, policy=TWO_ADMINS) as one,
        running_server(tmp_path, policy=TWO_ADMINS, **second) as two,
    ):
        ops = two.add_identity("ops", uri=OPS)
        outcomes = await asyncio.gather(
            one.admin.admin.RevokeIdentity(revoke_request(OPS)),
            ops.admin.RevokeIdentity(revoke_request(ADMIN)),
            return_exceptions=True,
        )
        (refused,) = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert reason_of(refused) in {"IDENTITY_REVOKED", "LAST_ADMINISTRATOR"}


async def test_restoring_who_is_not_revoked_is_not_found(tmp_path):
    async with running_server(tmp_path) as server:
        code = await refusal(server.admin.admin.RestoreIdentity(restore_request(APP)))
        assert code == (grpc.StatusCode.NOT_FOUND, "REVOCATION_NOT_FOUND")


@pytest.mark.parametrize("principal", ["", "admin", "SPIFFE://dev.vaultd/app", "group:ops", "dns:A.example", "jwt:x"])
async def test_a_principal_that_is_none_is_refused(tmp_path, principal):
    async with running_server(tmp_path) as server:
        code = await refusal(server.admin.admin.RevokeIdentity(revoke_request(principal)))
        assert code == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PRINCIPAL")


async def test_a_retry_with_its_request_id_gets_the_first_answer(tmp_path):
    async with running_server(tmp_path) as server:
        revoke = revoke_request(APP, reason="lost", request_id="r-1")
        first = await server.admin.admin.RevokeIdentity(revoke)
        restore = restore_request(APP, request_id="r-2")
        await server.admin.admin.RestoreIdentity(restore)
        await server.admin.admin.RestoreIdentity(restore)
        assert await server.admin.admin.RevokeIdentity(revoke) == first
        await server.app.crypto.GenerateRandomBytes(RANDOM)  # the answer of then, not a revocation of now


async def test_pages_hold_every_revoked_principal_once(tmp_path):
    async with running_server(tmp_path) as server:
        principals = {f"spiffe://dev.vaultd/w/{at}" for at in range(7)}
        for principal in principals:
            await server.admin.admin.RevokeIdentity(revoke_request(principal))
        found, token = [], ""
        while True:
            request = identity_pb2.ListRevokedIdentitiesRequest(page_size=3, page_token=token)
            page = await server.admin.admin.ListRevokedIdentities(request)
            found += [revoked.principal for revoked in page.revoked_identities]
            token = page.next_page_token
            if not token:
                break
    assert len(found) == 7
    assert set(found) == principals


async def test_the_record_names_the_caller_and_the_revoked_apart(tmp_path):
    async with running_server(tmp_path) as server:
        await server.admin.admin.RevokeIdentity(revoke_request(APP, reason="a reason that is not recorded"))
        records = [r for r in server.audit_records() if str(r.get("method")).endswith("RevokeIdentity")]
    assert [(r["event"], r["principal"], r["request_principal"]) for r in records] == [
        ("intent", ADMIN, APP),
        ("call", ADMIN, APP),
    ]
    assert "a reason" not in str(records)


async def test_names_of_revoked_principals_cannot_be_read_from_the_store_without_its_key(tmp_path):
    async with running_server(tmp_path) as server:
        await server.admin.admin.RevokeIdentity(revoke_request("spiffe://dev.vaultd/a-name-to-look-for"))
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("vault.db*"))
    assert b"a-name-to-look-for" not in stored


def zero_sealed(path, id):
    """Overwrite what is sealed in a row behind vaultd's back; return how many rows that were."""
    outside = sqlite3.connect(path, timeout=60)
    with outside:
        edited = outside.execute("UPDATE records SET sealed = zeroblob(length(sealed)) WHERE id = ?", (id,))
    outside.close()
    return edited.rowcount


async def test_a_revocation_that_was_tampered_with_lets_nobody_in(tmp_path):
    async with running_server(tmp_path) as server:
        await server.admin.admin.RevokeIdentity(revoke_request(APP))
        # On a thread: the server may be in a transaction of its own, which ends only when this loop goes on.
        edited = await asyncio.to_thread(zero_sealed, tmp_path / "vault.db", row_key(APP).id)
        assert edited == 1
        server.server.engine.revocations.forget()
        with pytest.raises(Exception, match="row"):
            await server.server.engine.feed.poll()
        code = await refusal(server.admin.admin.GetStatus(admin_pb2.GetStatusRequest()))
        assert code == (grpc.StatusCode.DATA_LOSS, "ROW_TAMPERED")


async def test_recover_admin_lifts_a_revocation(tmp_path):
    async with running_server(tmp_path, policy=TWO_ADMINS) as server:
        ops = server.add_identity("ops", uri=OPS)
        await ops.admin.RevokeIdentity(revoke_request(ADMIN))
    config = tmp_path / "config.yaml"
    document = {
        "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": "tls/ca.crt", "trust_domain": "dev.vaultd"}],
        "store": {"path": "vault.db"},
        "root_key": {"provider": "file", "path": "root.key"},
        "audit": {"directory": "audit"},
    }
    config.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "vaultd", "recover-admin", "--config", str(config), "--admin", ADMIN]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    assert b"1 revocations" in done.stdout
    async with running_server(tmp_path) as server:
        await server.admin.admin.GetStatus(admin_pb2.GetStatusRequest())
