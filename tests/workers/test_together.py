"""Workers that are one server: what one is told holds for all of them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import grpc
import pytest
import pytest_asyncio

from harness import reason_of
from network.process import ENVIRONMENT, LIMITS, PATIENCE_S, eventually
from scraping import Scrape, http
from vaultd.audit.checkpoints import read_public_keys, verify_note
from vaultd.audit.tree import verify_inclusion
from vaultd_client.v1 import (
    admin_pb2,
    audit_pb2,
    crypto_pb2,
    identity_pb2,
    keys_pb2,
    policy_pb2,
    quota_pb2,
    resources_pb2,
    watch_pb2,
)
from workers.fleet import PATIENT, Fleet, metrics_port, receipt_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
K = "vaults/default/keys/k"
ENCRYPT = crypto_pb2.EncryptRequest(name=K, plaintext=b"x")
ASYMMETRIC = {"per_second": 20, "burst": 64}
"""Less than any machine can do."""
APP = "spiffe://dev.vaultd/app"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    running = Fleet(
        tmp_path_factory.mktemp("workers") / "served",
        2,
        "--metrics",
        "127.0.0.1:0",
        environment=PATIENT,
        limits={**LIMITS, "receive_timeout_s": PATIENCE_S, "asymmetric": ASYMMETRIC},
        audit={"directory": "audit", "checkpoint_interval_s": 0.5},
    )
    yield running
    running.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admins(fleet):
    """An administrator's connection to each worker."""
    await fleet.prepare()
    found = await fleet.reach_each("admin")
    yield found
    for client in found.values():
        await client.channel.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apps(fleet, admins):
    found = await fleet.reach_each("app")
    yield found
    for client in found.values():
        await client.channel.close()


async def refused(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason_of(error.value)


async def test_a_receipt_of_any_worker_is_proved_by_any_worker(fleet, admins, apps):
    keys = read_public_keys((fleet.directory / "audit.pub").read_bytes())
    for app in apps.values():
        receipt = await receipt_of(app)
        for admin in admins.values():
            proof = await admin.admin.GetInclusionProof(
                audit_pb2.GetInclusionProofRequest(
                    sequence=receipt.sequence, chain_id=receipt.chain_id, leaf_hash=receipt.leaf_hash
                )
            )
            head = verify_note(proof.checkpoint.note, keys)
            index = receipt.sequence - head.first
            assert head.chain_id == receipt.chain_id
            assert verify_inclusion(receipt.leaf_hash, index, head.size, list(proof.path), head.root)


async def test_the_log_of_any_worker_is_verified_and_followed_through_any_worker(fleet, admins):
    for chain_id in fleet.chain_ids():
        for admin in admins.values():
            found = await admin.admin.VerifyAudit(audit_pb2.VerifyAuditRequest(chain_id=chain_id))
            assert found.intact
            assert found.checkpoint.chain_id == chain_id
            request = audit_pb2.TailAuditRequest(chain_id=chain_id, after_sequence=0, stop_at_end=True)
            read = [record.sequence async for part in admin.admin.TailAudit(request) for record in part.records]
            assert read == list(range(1, len(read) + 1))
            assert len(read) >= found.last_sequence > 1
        request = audit_pb2.VerifyAuditRequest(chain_id=b"x" * 16)
    assert await refused(admin.admin.VerifyAudit(request)) == "AUDIT_RECORD_NOT_FOUND"


async def test_what_one_worker_acknowledged_holds_in_the_other_at_once(admins, apps):
    one, two = admins[0], apps[1]
    version = f"{K}/versions/1"
    for _ in range(20):
        await one.keys.DisableKeyVersion(keys_pb2.DisableKeyVersionRequest(name=version))
        assert await refused(two.crypto.Encrypt(ENCRYPT)) == "KEY_VERSION_DISABLED"
        await one.keys.EnableKeyVersion(keys_pb2.EnableKeyVersionRequest(name=version))
        await two.crypto.Encrypt(ENCRYPT)


async def test_a_policy_and_a_revocation_hold_in_every_worker_when_they_are_acknowledged(admins, apps):
    for admin in admins.values():
        await admin.admin.RevokeIdentity(identity_pb2.RevokeIdentityRequest(principal=APP))
        for app in apps.values():
            assert await refused(app.crypto.Encrypt(ENCRYPT)) == "IDENTITY_REVOKED"
        await admin.admin.RestoreIdentity(identity_pb2.RestoreIdentityRequest(principal=APP))
        for app in apps.values():
            await app.crypto.Encrypt(ENCRYPT)
        kept = await admin.admin.GetPolicy(policy_pb2.GetPolicyRequest(resource="/"))
        denying = policy_pb2.Policy()
        denying.CopyFrom(kept.policy)
        denying.denies.add(members=[APP], permissions=["crypto.encrypt"], resource="vaults/default")
        changed = await admin.admin.SetPolicy(policy_pb2.SetPolicyRequest(resource="/", policy=denying, etag=kept.etag))
        for app in apps.values():
            assert await refused(app.crypto.Encrypt(ENCRYPT)) == "PERMISSION_DENIED"
        await admin.admin.SetPolicy(policy_pb2.SetPolicyRequest(resource="/", policy=kept.policy, etag=changed.etag))


async def test_a_refused_call_of_one_worker_is_explained_by_the_other(admins, apps):
    for admin, app in zip(admins.values(), reversed(apps.values()), strict=True):
        call = app.keys.RotateKey(keys_pb2.RotateKeyRequest(name=K))
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        trailing = {name: value for name, value in await call.trailing_metadata()}
        request = policy_pb2.ExplainAccessRequest(incident_id=trailing["vaultd-request-id"])
        explained = await admin.admin.ExplainAccess(request)
        assert (explained.refusal.principal, explained.refusal.reason) == (APP, "PERMISSION_DENIED")
        assert list(explained.missing_permissions) == ["keys.rotate"]
    unknown = policy_pb2.ExplainAccessRequest(incident_id="x" * 32)
    assert await refused(admin.admin.ExplainAccess(unknown)) == "REFUSAL_NOT_FOUND"


async def test_a_watch_of_one_worker_tells_of_a_change_through_the_other(admins):
    watch = admins[1].admin.Watch(watch_pb2.WatchRequest())
    await watch.read()
    await admins[0].keys.RotateKey(keys_pb2.RotateKeyRequest(name=K))
    async with asyncio.timeout(PATIENCE_S):
        while not (told := await watch.read()).events:  # it says as well that there is nothing new
            pass
    assert any(event.name.startswith(K) for event in told.events)
    watch.cancel()


async def test_a_root_key_is_rotated_for_all_of_them(admins, apps):
    sealed = await apps[1].crypto.Encrypt(ENCRYPT)
    await admins[0].admin.RotateRootKey(admin_pb2.RotateRootKeyRequest())
    for admin, app in zip(admins.values(), apps.values(), strict=True):
        assert (await admin.admin.GetStatus(admin_pb2.GetStatusRequest())).term == 2
        request = crypto_pb2.DecryptRequest(name=K, ciphertext=sealed.ciphertext)
        assert (await app.crypto.Decrypt(request)).plaintext == b"x"


async def spend(clients, seconds: float) -> tuple[int, float, float]:
    """How many calls of a class are admitted, asked as fast as they go for some time and until each asker was refused.

    And within which time that was: at least from the first answer to the last call that was refused, since the quota was used
    up then; at most from the first call to the last answer.
    """
    admitted, answered_s, refused_s = 0, [], [0.0]
    began_s = time.monotonic()
    request = crypto_pb2.SignRequest(name="vaults/default/keys/signing", message=b"x")

    async def ask(client) -> None:
        nonlocal admitted
        was_refused = False
        while not was_refused or time.monotonic() < began_s + seconds:
            sent_s = time.monotonic()
            code = await client.crypto.Sign(request).code()
            answered_s.append(time.monotonic())
            assert code in {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            admitted += code is grpc.StatusCode.OK
            if code is not grpc.StatusCode.OK:
                was_refused = True
                refused_s.append(sent_s)
                await asyncio.sleep(0.01)

    await asyncio.gather(*(ask(client) for client in clients for _ in range(2)))
    return admitted, max(refused_s) - answered_s[0], answered_s[-1] - began_s


async def test_one_connection_has_the_whole_quota_and_eight_have_it_once(fleet, admins):
    key = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="signing")
    key.key.purpose = resources_pb2.KEY_PURPOSE_SIGN
    key.key.algorithm = resources_pb2.ALGORITHM_ED25519
    await admins[0].keys.CreateKey(key)
    blocks = fleet.workers * ASYMMETRIC["burst"] / 64
    fills_s = 1.1 * ASYMMETRIC["burst"] / ASYMMETRIC["per_second"]
    for connections, pause_s in ((1, 0.0), (8, fills_s)):
        await asyncio.sleep(pause_s)  # the buckets are those of processes, and fill by their clock
        clients = [fleet.client("app") for _ in range(connections)]
        await asyncio.gather(*(client.crypto.Encrypt(ENCRYPT) for client in clients))
        admitted, least_s, most_s = await spend(clients, 2.0)
        least, most = (ASYMMETRIC["burst"] + ASYMMETRIC["per_second"] * seconds for seconds in (least_s, most_s))
        assert least - blocks - 1 <= admitted <= most + blocks
        for client in clients:
            await client.channel.close()


async def test_a_shared_quota_of_the_store_is_counted_once_and_shown_alike(admins, apps):
    quota = quota_pb2.Quota(subject="*", resource="vaults/default", methods=["CryptoService.GenerateRandomBytes"])
    quota.windows.add(count=10).period.FromSeconds(600)
    request = quota_pb2.CreateQuotaRequest(parent="vaults/default", quota_id="few", quota=quota)
    await admins[0].admin.CreateQuota(request)
    draw = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=8)
    for _ in range(5):
        for app in apps.values():
            await app.crypto.GenerateRandomBytes(draw)
    for app in apps.values():
        assert await refused(app.crypto.GenerateRandomBytes(draw)) == "QUOTA_EXCEEDED"
    for admin in admins.values():
        shown = await admin.admin.GetQuota(quota_pb2.GetQuotaRequest(name="vaults/default/quotas/few", principal=APP))
        assert [window.left for window in shown.windows] == [0]


async def test_one_scrape_has_every_worker(fleet, apps):
    for app in apps.values():
        await app.crypto.Encrypt(ENCRYPT)
    status, _, body = await http(metrics_port(fleet), b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status == 200
    found = Scrape(body.decode())
    for worker in ("0", "1"):
        calls = found.all("rpc_server_call_duration_seconds_count", worker=worker)
        assert sum(sample.value for sample in calls) > 0
    assert {sample.labels["worker"] for sample in found.all("vaultd_serving")} == {"0", "1"}
    resources = found.all("vaultd_resources", type="key")
    assert resources
    assert all("worker" not in sample.labels for sample in resources)
    assert (await http(metrics_port(fleet), b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"))[0] == 200


async def test_seal_and_unseal_are_of_all_workers(fleet, admins, apps):
    for admin in admins.values():
        await admin.admin.Seal(admin_pb2.SealRequest())
        for app in apps.values():
            assert await refused(app.crypto.Encrypt(ENCRYPT)) == "SEALED"
        assert (await http(metrics_port(fleet), b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"))[0] == 503
        await admin.admin.Unseal(admin_pb2.UnsealRequest())
        for app in apps.values():
            await app.crypto.Encrypt(ENCRYPT)


async def test_a_worker_that_comes_back_to_a_sealed_vault_stays_sealed(fleet, admins, apps):
    former = fleet.pids()[1]
    await admins[0].admin.Seal(admin_pb2.SealRequest())
    states = len([line for line in fleet.log() if line["event"] == "seal" and line.get("worker") == 1])
    fleet.kill_worker(1)

    def sealed() -> bool:
        lines = [line for line in fleet.log() if line["event"] == "seal" and line.get("worker") == 1]
        return len(lines) > states and fleet.pids()[1] != former

    assert await eventually(sealed)
    assert [line["state"] for line in fleet.log() if line["event"] == "seal" and line.get("worker") == 1][
        -1
    ] == "SEALED"
    await admins[0].admin.Unseal(admin_pb2.UnsealRequest())
    for client in (await fleet.reach_each("app")).values():
        await client.crypto.Encrypt(ENCRYPT)
        await client.channel.close()


async def test_a_command_that_wants_the_log_is_refused_while_workers_run(fleet):
    command = ["recover-admin", "--config", str(fleet.directory / "config.yaml"), "--admin", APP]
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "vaultd", *command], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (ended.returncode, "AUDIT_DIRECTORY_IN_USE" in ended.stderr) == (1, True)


async def test_all_chains_verify_beside_the_running_server(fleet):
    code, said = await fleet.verify()
    assert code == 0, said
    assert "tied: 3 chains" in said
