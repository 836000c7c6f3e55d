"""Watch: every change once and in order, to those who may see it, and a clear end when the server ends it."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import pytest_asyncio

from harness import Client, FakeClock, error_info, reason_of, running_server
from vaultd.hosts import grpcio
from vaultd.store.base import Change, RowKey
from vaultd.store.sqlite import SqliteStore
from vaultd_client.v1 import (
    admin_pb2,
    grant_pb2,
    identity_pb2,
    keys_pb2,
    policy_pb2,
    quota_pb2,
    resources_pb2,
    secrets_pb2,
    watch_pb2,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPIFFE = "spiffe://dev.vaultd"
MAC = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_MAC)
POLICY = {
    "roles": [{"name": "reader", "permissions": ["keys.get"]}],
    "bindings": [
        {"members": [f"{SPIFFE}/reader"], "role": "reader", "resource": "vaults/default"},
        {"members": [f"{SPIFFE}/one"], "role": "reader", "resource": "vaults/default/keys/one"},
        {
            "members": [f"{SPIFFE}/blue"],
            "role": "reader",
            "resource": "/",
            "condition": "resource.labels.team == 'blue'",
        },
        {"members": [f"{SPIFFE}/fired", f"{SPIFFE}/leaver"], "role": "reader", "resource": "/"},
    ],
    "denies": [
        {"members": [f"{SPIFFE}/reader"], "permissions": ["keys.get"], "resource": "vaults/default/keys/hidden"}
    ],
}
CREATED, UPDATED, DELETED = (watch_pb2.ChangeType.Value(f"CHANGE_TYPE_{n}") for n in ("CREATED", "UPDATED", "DELETED"))


class Watcher:
    """An open watch and what it has shown."""

    def __init__(self, client, **request) -> None:
        self.call = client.admin.Watch(watch_pb2.WatchRequest(**request))
        self.events = []
        self.token = ""
        self.revision = 0

    async def begin(self) -> Watcher:
        """The first response, which says where the watch begins."""
        assert not (await self.response()).events
        return self

    async def response(self):
        response = await asyncio.wait_for(self.call.read(), 60)
        assert response is not grpc.aio.EOF
        self.events += response.events
        if response.resume_token:
            self.token, self.revision = response.resume_token, response.revision
        return response

    async def until(self, name: str, change: int = 0):
        """Read until a resource shows up; returns the event."""
        while True:
            for event in self.events:
                if event.name == name and change in {0, event.change_type}:
                    return event
            await self.response()

    async def end(self) -> grpc.aio.AioRpcError:
        """Read until the server ends it."""
        try:
            while True:
                await self.response()
        except grpc.aio.AioRpcError as ended:
            return ended

    def names(self) -> list[str]:
        return [event.name for event in self.events]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("watch"), policy=POLICY) as running:
        for stem in ("reader", "one", "blue", "fired", "leaver", "stranger"):
            running.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        yield running


async def create(server, key_id: str, vault: str = "default", **fields) -> str:
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_MAC, **fields)
    made = await server.admin.keys.CreateKey(
        keys_pb2.CreateKeyRequest(parent=f"vaults/{vault}", key_id=key_id, key=key)
    )
    return made.name


async def test_a_watch_shows_creation_change_and_deletion_in_order(server):
    watcher = await Watcher(server.admin).begin()
    name = await create(server, "shown")
    got = await server.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=name))
    made = await watcher.until(name)
    assert (made.kind, made.change_type, made.etag) == (watch_pb2.RESOURCE_KIND_KEY, CREATED, got.etag)
    assert made.time == got.create_time
    version = await watcher.until(f"{name}/versions/1")
    assert version.revision == made.revision
    await server.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name))
    rotated = await watcher.until(name, UPDATED)
    assert (await watcher.until(f"{name}/versions/2", CREATED)).revision == rotated.revision
    assert rotated.revision > made.revision
    assert [event.revision for event in watcher.events] == sorted(event.revision for event in watcher.events)
    assert watcher.revision >= rotated.revision


async def test_other_resources_are_shown_with_their_kind(server):
    watcher = await Watcher(server.admin).begin()
    key = await create(server, "lender")
    await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id="seen"))
    grant = grant_pb2.CreateGrantRequest(parent=key)
    grant.grant.grantee = f"{SPIFFE}/app"
    grant.grant.permissions.append("crypto.generate_mac")
    await server.admin.keys.CreateGrant(grant)
    quota = quota_pb2.CreateQuotaRequest(parent="vaults/seen", quota_id="q")
    quota.quota.subject, quota.quota.resource = "*", "vaults/seen"
    quota.quota.windows.add(count=1_000_000).period.FromSeconds(1)
    await server.admin.admin.CreateQuota(quota)
    current = await server.admin.admin.GetPolicy(policy_pb2.GetPolicyRequest(resource="vaults/seen"))
    current.policy.bindings.add(members=[f"{SPIFFE}/app"], role="signer", resource="vaults/seen")
    await server.admin.admin.SetPolicy(policy_pb2.SetPolicyRequest(resource="vaults/seen", policy=current.policy))
    await server.admin.admin.RevokeIdentity(identity_pb2.RevokeIdentityRequest(principal=f"{SPIFFE}/nobody"))
    await watcher.until("policy")
    while not watcher.events or watcher.events[-1].kind != watch_pb2.RESOURCE_KIND_REVOKED_IDENTITY:
        await watcher.response()
    shown = {(event.kind, event.name) for event in watcher.events}
    assert (watch_pb2.RESOURCE_KIND_VAULT, "vaults/seen") in shown
    assert (watch_pb2.RESOURCE_KIND_GRANTS, f"{key}/grants") in shown
    assert (watch_pb2.RESOURCE_KIND_QUOTA, "vaults/seen/quotas/q") in shown
    assert (watch_pb2.RESOURCE_KIND_POLICY, "policy") in shown


async def test_a_secret_that_changes_is_shown_and_what_it_holds_is_not(server):
    watcher = await Watcher(
        server.admin, filter=watch_pb2.WatchFilter(resource_prefix="vaults/default/secrets")
    ).begin()
    made = await server.admin.secrets.CreateSecret(
        secrets_pb2.CreateSecretRequest(parent="vaults/default", secret_id="db")
    )
    await server.admin.secrets.AddSecretVersion(
        secrets_pb2.AddSecretVersionRequest(parent=made.name, payload=b"correct horse battery staple")
    )
    shown = await watcher.until(f"{made.name}/versions/1", CREATED)
    assert shown.kind == watch_pb2.RESOURCE_KIND_SECRET_VERSION
    secret = await server.admin.secrets.GetSecret(secrets_pb2.GetSecretRequest(name=made.name))
    assert (await watcher.until(made.name, UPDATED)).etag == secret.etag
    assert all(b"horse" not in event.SerializeToString() for event in watcher.events)


async def test_a_filter_takes_whole_segments_and_kinds(server):
    await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id="a"))
    await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id="ab"))
    kinds = [watch_pb2.RESOURCE_KIND_KEY]
    narrow = watch_pb2.WatchFilter(resource_prefix="vaults/a/keys", kinds=kinds)
    watcher = await Watcher(server.admin, filter=narrow).begin()
    await create(server, "x", "ab")
    await create(server, "x", "a")
    await create(server, "y", "a")
    await watcher.until("vaults/a/keys/y")
    assert watcher.names() == ["vaults/a/keys/x", "vaults/a/keys/y"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"filter": watch_pb2.WatchFilter(resource_prefix="vaults/a*")}, "INVALID_NAME"),
        ({"filter": watch_pb2.WatchFilter(resource_prefix="vaults/a/")}, "INVALID_NAME"),
        ({"filter": watch_pb2.WatchFilter(kinds=[0])}, "ENUM_UNKNOWN"),
        ({"filter": watch_pb2.WatchFilter(kinds=[99])}, "ENUM_UNKNOWN"),
        ({"filter": watch_pb2.WatchFilter(kinds=[1] * 33)}, "ENUM_UNKNOWN"),
        ({"resume_token": "revision 7"}, "RESUME_TOKEN_MALFORMED"),
        ({"resume_token": "w1.7", "after_revision": 7}, "TWO_STARTS"),
        ({"after_revision": -1}, "FIELD_RANGE"),
        ({"heartbeat_interval": {"nanos": 1}}, "FIELD_RANGE"),
        ({"heartbeat_interval": {"seconds": 601}}, "FIELD_RANGE"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(server, fields, reason):
    assert reason_of(await Watcher(server.admin, **fields).end()) == reason


async def test_a_revision_that_never_was_is_out_of_range(server):
    ended = await Watcher(server.admin, after_revision=10**15).end()
    assert (ended.code(), reason_of(ended)) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_IN_FUTURE")


async def test_a_watch_goes_on_from_its_token_without_gap_or_duplicate(server):
    first = await Watcher(server.admin, filter=watch_pb2.WatchFilter(resource_prefix="vaults/default/keys")).begin()
    started = first.revision
    seen = []
    for number in range(4):
        await create(server, f"resumed-{number}")
        await first.until(f"vaults/default/keys/resumed-{number}/versions/1")
        seen += first.names()
        first.call.cancel()
        await create(server, f"missed-{number}")
        first = Watcher(
            server.admin, filter=watch_pb2.WatchFilter(resource_prefix="vaults/default/keys"), resume_token=first.token
        )
        await first.begin()
    await first.until("vaults/default/keys/missed-3/versions/1")
    seen += first.names()
    everything = Watcher(
        server.admin, filter=watch_pb2.WatchFilter(resource_prefix="vaults/default/keys"), after_revision=started
    )
    await everything.until("vaults/default/keys/missed-3/versions/1")
    assert seen == everything.names()
    assert len(seen) == len(set(seen)) == 16


async def test_each_event_is_shown_to_those_who_may_get_the_resource(server):
    reader = await Watcher(server.client("reader")).begin()
    one = await Watcher(server.client("one")).begin()
    blue = await Watcher(server.client("blue")).begin()
    await server.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id="elsewhere"))
    await create(server, "hidden")
    await create(server, "blue", labels={"team": "blue"})
    await create(server, "one", labels={"team": "red"})
    await create(server, "far-blue", "elsewhere", labels={"team": "blue"})
    for watcher, last in ((reader, "one"), (one, "one")):
        await watcher.until(f"vaults/default/keys/{last}/versions/1")
    await blue.until("vaults/elsewhere/keys/far-blue/versions/1")
    keys = {watcher: [name for name in watcher.names() if "versions" not in name] for watcher in (reader, one, blue)}
    assert keys[reader] == ["vaults/default/keys/blue", "vaults/default/keys/one"]
    assert keys[one] == ["vaults/default/keys/one"]
    assert keys[blue] == ["vaults/default/keys/blue", "vaults/elsewhere/keys/far-blue"]


async def test_a_caller_that_could_see_nothing_there_is_refused(server):
    for stem, prefix in (("stranger", ""), ("one", "vaults/default/keys/two"), ("reader", "vaults/a")):
        ended = await Watcher(server.client(stem), filter=watch_pb2.WatchFilter(resource_prefix=prefix)).end()
        assert (ended.code(), reason_of(ended)) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


async def test_a_revoked_identity_loses_its_open_watch(server):
    watcher = await Watcher(server.client("fired")).begin()
    await server.admin.admin.RevokeIdentity(identity_pb2.RevokeIdentityRequest(principal=f"{SPIFFE}/fired"))
    ended = await watcher.end()
    assert (ended.code(), reason_of(ended)) == (grpc.StatusCode.UNAUTHENTICATED, "IDENTITY_REVOKED")


async def test_a_policy_without_its_binding_ends_an_open_watch(server):
    watcher = await Watcher(server.client("leaver")).begin()
    current = await server.admin.admin.GetPolicy(policy_pb2.GetPolicyRequest(resource="/"))
    for binding in current.policy.bindings:
        if f"{SPIFFE}/leaver" in binding.members:
            binding.members.remove(f"{SPIFFE}/leaver")
    await server.admin.admin.SetPolicy(
        policy_pb2.SetPolicyRequest(resource="/", policy=current.policy, etag=current.etag)
    )
    ended = await watcher.end()
    assert reason_of(ended) == "PERMISSION_DENIED"
    assert error_info(ended).metadata["resume_token"] == watcher.token


async def test_a_watch_is_recorded_when_it_opens_and_when_it_ends(server):
    watcher = await Watcher(server.admin, filter=watch_pb2.WatchFilter(resource_prefix="vaults/a")).begin()
    opened = [record for record in server.audit_records() if record["event"] == "open"][-1]
    assert opened["method"] == "/vaultd.v1.AdminService/Watch"
    assert opened["filter.resource_prefix"] == "vaults/a"
    watcher.call.cancel()
    ended = await ended_record(server, opened["id"])
    assert (ended["code"], ended["messages_in"], ended["messages_out"]) == ("CANCELLED", 1, 1)


async def note_changes(server, count: int, tag: str) -> None:
    """Changes in one revision, of keys that are only names: as quick as the feed itself."""
    async with server.server.engine.ledger.change() as changes:
        for number in range(count):
            changes.note(RowKey("key", "default", f"{tag}-{number}", 0), "update")


async def test_what_another_process_commits_is_shown(server, tmp_path):
    watcher = await Watcher(server.admin).begin()
    store = SqliteStore(server.directory / "vault.db")
    await store.open()
    try:
        async with store.begin() as transaction:
            change = Change(transaction.revision, RowKey("key", "default", "foreign", 0), "update", 1)
            await transaction.write([], [], [change])
    finally:
        await store.close()
    await watcher.until("vaults/default/keys/foreign")
    await create(server, "domestic")
    await watcher.until("vaults/default/keys/domestic")
    assert watcher.names().count("vaults/default/keys/foreign") == 1


MORE_THAN_HELD = 60
"""Rounds of 500 changes, about 30 KB each: more than any host and the sockets hold of a stream."""


@pytest_asyncio.fixture(loop_scope="module")
async def lazy(server):
    """A client whose connection takes little that nobody reads."""
    tls = server.directory / "tls"
    files = [(tls / name).read_bytes() for name in ("ca.crt", "admin.key", "admin.crt")]
    options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.secure_channel(server.address, grpc.ssl_channel_credentials(*files), options=options)
    yield Client(channel)
    await channel.close()


async def ended_record(server, id: str) -> dict[str, object]:
    """The record of a stream's end, once it is there."""
    async with asyncio.timeout(60):
        while True:
            for record in server.audit_records():
                if record["event"] == "call" and record["id"] == id:
                    return record
            await asyncio.sleep(0.02)


async def test_a_reader_that_is_too_slow_is_closed_with_its_token_and_goes_on(server, lazy):
    rounds = MORE_THAN_HELD
    hub = server.server.engine.watch
    hub.ring_events, kept = 1_000, hub.ring_events
    try:
        slow = await Watcher(lazy).begin()
        start = slow.revision
        for number in range(rounds):
            await note_changes(server, 500, f"slow-{number}")
        ended = await slow.end()
        assert (ended.code(), reason_of(ended)) == (grpc.StatusCode.ABORTED, "WATCHER_TOO_SLOW")
        assert error_info(ended).metadata["resume_token"] == slow.token
        again = Watcher(server.admin, resume_token=slow.token)
        while again.revision < start + rounds:
            await again.response()
        again.call.cancel()
        revisions = [event.revision for event in slow.events + again.events]
        assert revisions == [start + 1 + at // 500 for at in range(rounds * 500)]
    finally:
        hub.ring_events = kept


async def test_a_reader_that_never_reads_is_ended(server, lazy):
    streams = server.server.chain._open_streams
    streams.stalled_s, kept = 0.2, streams.stalled_s
    try:
        stalled = await Watcher(lazy).begin()
        for number in range(MORE_THAN_HELD):
            await note_changes(server, 500, f"stalled-{number}")
        opened = [record for record in server.audit_records() if record["event"] == "open"][-1]["id"]
        ended = await ended_record(server, opened)
        assert (ended["code"], ended["reason"]) == ("ABORTED", "READER_STALLED")
        assert reason_of(await stalled.end()) == "READER_STALLED"
    finally:
        streams.stalled_s = kept


async def test_a_revision_that_fits_into_no_message_comes_in_several(server):
    watcher = await Watcher(server.admin).begin()
    start, token = watcher.revision, watcher.token
    await note_changes(server, 40_000, "large-" + "x" * 50)
    responses = []
    while watcher.revision <= start:
        responses.append(await watcher.response())
    watcher.call.cancel()
    assert len(watcher.events) == len(set(watcher.names())) == 40_000
    assert {event.revision for event in watcher.events} == {start + 1}
    assert len(responses) > 4
    assert all(response.ByteSize() < 3 * 2**20 for response in responses)
    assert [bool(response.resume_token or response.revision) for response in responses[:-1]] == [False] * (
        len(responses) - 1
    )
    assert (await Watcher(server.admin, resume_token=token).begin()).revision == start


async def test_a_revision_that_was_trimmed_is_compacted(tmp_path):
    async with running_server(tmp_path) as server:
        start = await server.server.engine.store.revision()
        for number in range(4):
            await note_changes(server, 1, f"trimmed-{number}")
        await server.server.engine.store.trim_changes(2)
        ended = await Watcher(server.admin, resume_token=f"w1.{start}").end()
        assert (ended.code(), reason_of(ended)) == (grpc.StatusCode.OUT_OF_RANGE, "COMPACTED")
        assert error_info(ended).metadata["oldest_revision"] == str(start + 2)
        reaching = Watcher(server.admin, after_revision=start + 2)
        await reaching.until("vaults/default/keys/trimmed-3-0")
        assert reaching.names() == ["vaults/default/keys/trimmed-2-0", "vaults/default/keys/trimmed-3-0"]


async def test_twenty_watchers_see_two_hundred_changes_once_and_in_order(server):
    watchers = [await Watcher(server.admin).begin() for _ in range(10)]
    watchers += [await Watcher(server.client("reader")).begin() for _ in range(10)]
    first = watchers[0].revision
    for number in range(200):
        await note_changes(server, 1, f"many-{number}")
    for watcher in watchers:
        await watcher.until("vaults/default/keys/many-199-0")
        assert watcher.names() == [f"vaults/default/keys/many-{number}-0" for number in range(200)]
        assert watcher.events[0].revision == first + 1
        watcher.call.cancel()


async def test_a_heartbeat_moves_the_token_though_nothing_matches(tmp_path):
    clock = FakeClock()
    async with running_server(tmp_path, clock=clock) as server:
        nothing = watch_pb2.WatchFilter(resource_prefix="vaults/default/keys/none")
        watcher = await Watcher(server.admin, filter=nothing, heartbeat_interval={"seconds": 30}).begin()
        began = watcher.revision
        await create(server, "other")
        reading = asyncio.ensure_future(watcher.response())
        clock.advance(29)
        await server.server.engine.watch.tick()
        done, _ = await asyncio.wait([reading], timeout=0.2)
        assert not done
        clock.advance(1)
        response = await reading
        assert not response.events
        assert response.revision > began
        assert response.resume_token != ""


async def test_who_opens_a_watch_and_sends_nothing_is_refused_after_a_while(tmp_path):
    async with running_server(tmp_path, limits={"receive_timeout_s": 0.2}) as server:
        call = server.admin.channel.stream_stream("/vaultd.v1.AdminService/Watch")()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert reason_of(refused.value) == "DEADLINE_EXCEEDED"


async def test_a_clients_deadline_ends_a_watch(server):
    call = server.admin.admin.Watch(watch_pb2.WatchRequest(), timeout=0.3)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        _ = [response async for response in call]
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_places_of_streams_are_bounded_and_given_back(tmp_path):
    async with running_server(tmp_path, limits={"streams": 8, "streams_per_principal": 2}) as server:
        watchers = [await Watcher(server.admin).begin() for _ in range(2)]
        ended = await Watcher(server.admin).end()
        assert reason_of(ended) == "TOO_MANY_IN_FLIGHT"
        watchers[0].call.cancel()
        opened = next(record for record in server.audit_records() if record["event"] == "open")
        await ended_record(server, opened["id"])
        await Watcher(server.admin).begin()


async def test_sealing_ends_a_watch_and_a_stop_ends_it_with_its_token(tmp_path):
    async with running_server(tmp_path) as server:
        watcher = await Watcher(server.admin).begin()
        await server.admin.admin.Seal(admin_pb2.SealRequest())
        ended = await watcher.end()
        assert (ended.code(), reason_of(ended)) == (grpc.StatusCode.UNAVAILABLE, "SEALED")
        await server.admin.admin.Unseal(admin_pb2.UnsealRequest())
        last = await Watcher(server.admin).begin()
        ending = asyncio.ensure_future(last.end())
        client, server._clients = server._clients, {}
    ended = await ending
    assert (ended.code(), reason_of(ended)) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert error_info(ended).metadata["resume_token"] == last.token
    for one in client.values():
        await one.channel.close()
    records = [record for record in server.audit_records() if record.get("reason") == "SERVER_DRAINING"]
    assert len(records) == 1


@pytest.mark.grpc_host("Envoy lets the streams of a connection that has reached its age go on")
async def test_the_end_of_a_connection_is_survived_with_the_token(tmp_path, monkeypatch):
    aged = {"grpc.max_connection_age_ms": 300, "grpc.max_connection_age_grace_ms": 100}
    monkeypatch.setattr(grpcio, "OPTIONS", tuple((name, aged.get(name, value)) for name, value in grpcio.OPTIONS))
    async with running_server(tmp_path) as server:
        names, token, ends = [], "", []
        changing = asyncio.ensure_future(change_for_a_while(server))
        while f"vaults/default/keys/aged-{LAST_AGED}-0" not in names:
            watcher = Watcher(server.admin, resume_token=token) if token else Watcher(server.admin, after_revision=0)
            try:
                while f"vaults/default/keys/aged-{LAST_AGED}-0" not in watcher.names():
                    await watcher.response()
            except grpc.aio.AioRpcError as ended:
                ends.append(ended.code())
            names += watcher.names()
            token = watcher.token or token
        await changing
        assert len(ends) >= 2
        assert set(ends) == {grpc.StatusCode.UNAVAILABLE}
        aged_names = [name for name in names if "aged" in name]
        assert aged_names == [f"vaults/default/keys/aged-{number}-0" for number in range(LAST_AGED + 1)]


LAST_AGED = 149


async def change_for_a_while(server) -> None:
    """Changes, ten milliseconds apart: longer than some connections live."""
    for number in range(LAST_AGED + 1):
        await note_changes(server, 1, f"aged-{number}")
        await asyncio.sleep(0.01)
