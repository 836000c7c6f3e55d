"""Random and mutated messages against every RPC: a clear status each time, and one record for each call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire import ADMIN, CRYPTO, GENEROUS, ITEM_STREAMS, KEYS, METHODS, World, call

from harness import running_server
from vaultd.engine.permissions import PERMISSIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUZZER = "spiffe://dev.vaultd/fuzzer"
HEALTH = "/grpc.health.v1.Health/Check"
EXAMPLES = 20
CALLS_PER_EXAMPLE = 2
BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""Derandomised: a failure is the same in every run."""

# Sealing would end the run: everything but that.
ALLOWED = sorted(PERMISSIONS - {"admin.seal", "admin.rotate_root_key"})


@dataclass
class Fuzzed:
    """The server, and how many calls the fuzzer made."""

    world: World
    calls: int = 0

    async def send(self, path: str, body: bytes) -> None:
        self.calls += 1
        outcome = await call(self.world.server.client("fuzzer"), path, body)
        if path in ITEM_STREAMS and outcome.body:
            self.calls += len(outcome.message().results)  # each operation has a record, too

    def recorded(self) -> int:
        """Calls of the fuzzer that the log speaks of, those that were counted and not written one by one included."""
        records = [record for record in self.world.server.audit_records() if record.get("principal") == FUZZER]
        return sum(record.get("folded", 1) for record in records if record["event"] in {"call", "refusals_folded"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fuzzed(tmp_path_factory):
    policy = {
        "roles": [{"name": "fuzzer", "permissions": ALLOWED}],
        "bindings": [{"members": [FUZZER], "role": "fuzzer", "resource": "/"}],
    }
    async with running_server(tmp_path_factory.mktemp("fuzz"), policy=policy, **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        server.add_identity("fuzzer", uri=FUZZER)
        for path in METHODS:
            await made.kept_request(path)
        yield Fuzzed(made)


@st.composite
def edits(draw):
    """A few edits of a byte string: flip, cut, insert, repeat, or put a length that is not true."""
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "cut", "insert", "repeat", "overwrite"]),
                st.integers(0, 2**16),
                st.binary(min_size=1, max_size=12),
            ),
            min_size=1,
            max_size=4,
        )
    )


def mutate(body: bytes, changes) -> bytes:
    for kind, where, data in changes:
        at = where % (len(body) + 1)
        if kind == "flip" and body:
            at %= len(body)
            body = body[:at] + bytes([body[at] ^ (1 << data[0] % 8)]) + body[at + 1 :]
        elif kind == "cut":
            body = body[:at]
        elif kind == "insert":
            body = body[:at] + data + body[at:]
        elif kind == "repeat":
            body = body[:at] + body
        else:
            body = body[:at] + data + body[at + len(data) :]
    return body


@pytest.mark.parametrize("path", sorted(METHODS), ids=lambda path: path.rpartition("/")[2])
@given(noise=st.binary(max_size=200), changes=edits())
@BOUNDED
async def test_noise_and_mutated_messages_get_a_clear_status(fuzzed, path, noise, changes):
    await fuzzed.send(path, noise)
    await fuzzed.send(path, mutate((await fuzzed.world.kept_request(path)).SerializeToString(), changes))


@given(noise=st.binary(max_size=200))
@BOUNDED
async def test_noise_gets_a_clear_status_from_health_without_an_identity_being_needed(fuzzed, noise):
    await call(fuzzed.world.server.client("fuzzer"), HEALTH, noise)


@given(name=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
@BOUNDED
async def test_a_made_up_path_gets_a_clear_status(fuzzed, name):
    await call(fuzzed.world.server.client("fuzzer"), f"/vaultd.v1.CryptoService/{name}", b"")


async def test_every_call_of_the_fuzzer_has_its_record(fuzzed):
    """All calls of this module so far, and some more so that this test says something by itself."""
    for path in (f"{CRYPTO}Encrypt", f"{KEYS}GetKey", f"{ADMIN}CreateVault"):
        for size in range(30):
            await fuzzed.send(path, b"\xff" * size)
    async with asyncio.timeout(60):
        while fuzzed.recorded() < fuzzed.calls:  # noqa: ASYNC110  # the condition is in a file of the server's
            await asyncio.sleep(0.05)  # the server writes folded records by itself, once their second is over
    assert fuzzed.recorded() == fuzzed.calls >= 90
