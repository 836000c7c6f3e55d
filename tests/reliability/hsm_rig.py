"""A server whose keys are in a token, callers of it, and what the token holds against what there must be."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hsm_answers import ALGORITHMS, LARGE, Tally, Vault
from hsm_callers import Caller
from hsm_token import Outside, workers_of
from processes import Server, connect, make_vault

from softhsm import LABEL, hsm_section
from vaultd import softhsm
from vaultd_client.v1 import keys_pb2, resources_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from harness import Client

SLOT = "main"
KNOWN_ID = b"known to its callers"
SETTLE_S = 120.0
"""The scheduler tries again after a minute what it could not destroy."""


class Rig:
    """A server, its token seen from outside, and connections to it."""

    def __init__(self, directory: Path, server: Server, outside: Outside, vault: Vault, tally: Tally) -> None:
        self.directory = directory
        self.server = server
        self.outside = outside
        self.vault = vault
        self.tally = tally
        self.clients: list[Client] = []
        self.workers: set[int] = set()

    @asynccontextmanager
    async def connected(self, connections: int) -> AsyncIterator[None]:
        """With connections that callers share."""
        self.clients = [connect(self.directory, self.server.address) for _ in range(connections)]
        try:
            yield
        finally:
            for client in self.clients:
                await client.channel.close()

    def caller(self, number: int, seed: object, name: str = "c") -> Caller:
        client = self.clients[number % len(self.clients)]
        return Caller(client, self.vault, self.tally, random.Random(f"{seed}/{number}"), f"{name}{number}")

    @asynccontextmanager
    async def load(
        self, callers: int, seed: int, weights: Mapping[str, int], interval_s: float = 0.0
    ) -> AsyncIterator[list[asyncio.Task[None]]]:
        """With so many callers at work; what they have begun is finished on the way out."""
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self.caller(at, seed).run(weights, stop, interval_s)) for at in range(callers)]
        try:
            yield tasks
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def see_worker(self) -> int:
        """The worker's process; 0 when there is none."""
        found = await asyncio.to_thread(workers_of, self.server.pid)
        self.workers.update(found)
        return found[0] if found else 0

    def events(self) -> Counter[str]:
        """What the server logged that is more than information.  Lines that are no events are told in full."""
        counted: Counter[str] = Counter()
        for line in self.server.log.read_text().splitlines():
            if "Unknown child process pid" in line:
                continue  # asyncio's, of a worker that was killed at the moment when it ended by itself
            event = json.loads(line) if line.startswith("{") else {"event": f"not an event: {line[:200]}"}
            if event.get("level") != "info":
                counted[event["event"]] += 1
        return counted

    # -- the token against the keys that there are ----------------------------------------------------------------------

    async def settle(self) -> dict[str, int]:
        """Wait until nothing waits for its destruction; returns how many objects the store accounts for, by state."""
        end_s = time.monotonic() + SETTLE_S
        while True:
            states = await asyncio.to_thread(self._states)
            accounted = {state: count for (kind, state), count in states.items() if kind == "token_object"}
            waiting = ("key_version", "DESTROY_SCHEDULED") in states or set(accounted) != {"IN_USE"}
            if not waiting or time.monotonic() > end_s:
                return accounted
            await asyncio.sleep(0.5)

    def _states(self) -> dict[tuple[str, str], int]:
        store = sqlite3.connect(f"file:{self.directory / 'vault.db'}?mode=ro", uri=True)
        try:
            rows = store.execute("SELECT kind, state, count(*) FROM records GROUP BY kind, state")
            return {(kind, state): count for kind, state, count in rows}
        finally:
            store.close()

    async def listed(self) -> tuple[dict[str, dict[int, Any]], Counter[str]]:
        """Versions by key, and the objects that the token must hold for those that are not destroyed."""
        keys: dict[str, dict[int, Any]] = {}
        objects: Counter[str] = Counter()
        client, token = self.clients[0], ""
        while True:
            request = keys_pb2.ListKeysRequest(
                parent="vaults/default", page_size=1000, page_token=token, show_deleted=True
            )
            page = await client.keys.ListKeys(request)
            for key in page.keys:
                versions = await client.keys.ListKeyVersions(
                    keys_pb2.ListKeyVersionsRequest(parent=key.name, page_size=1000)
                )
                keys[key.name] = {int(one.name.rpartition("/")[2]): one for one in versions.key_versions}
                for version in versions.key_versions:
                    if version.state != resources_pb2.KEY_VERSION_STATE_DESTROYED:
                        objects.update(_objects_of(version))
            token = page.next_page_token
            if not token:
                return keys, objects

    async def use_everything(self) -> None:
        """Every version that nobody asked to destroy works, and so does every ciphertext that is still known."""
        callers = [self.caller(at, "afterwards") for at in range(16)]
        work = [(key, number) for key in self.vault.keys.values() for number in key.live()]
        sealed = [one for one in self.vault.sealed if one.number not in one.key.doomed]

        async def part(at: int) -> None:
            for key, number in work[at :: len(callers)]:
                await callers[at].use(key, number)
            for one in sealed[at :: len(callers)]:
                await callers[at].reopen(one)

        await asyncio.gather(*(part(at) for at in range(len(callers))))

    async def balance(self) -> dict[str, Any]:
        """Stop the server, and hold what the token has against what there must be."""
        states = await self.settle()
        keys, expected = await self.listed()
        enabled = resources_pb2.KEY_VERSION_STATE_ENABLED
        lost = [
            key.version(number)
            for key in self.vault.keys.values()
            for number in key.live()
            if number not in keys.get(key.name, {}) or keys[key.name][number].state != enabled
        ]
        await asyncio.to_thread(self.server.stop)
        seen = await asyncio.to_thread(self.outside.look)
        found = Counter(seen["objects"])
        checked = await asyncio.to_thread(self.server.vaultd, "check-store")
        return {
            "keys": len(keys),
            "versions": sum(map(len, keys.values())),
            "versions_in_token": len({one.partition(" ")[0] for one in expected}),
            "objects": found.total(),
            "husks": seen["husks"],
            "leaked": sorted((found - expected).elements()),
            "missing": sorted((expected - found).elements()),
            "versions_lost": lost,
            "accounted": states,
            "pin_flags": [flag for flag in seen["flags"] if "PIN" in flag and flag != "USER_PIN_INITIALIZED"],
            "check_store": checked.returncode == 0,
        }


def _objects_of(version: Any) -> list[str]:
    object_id = version.attestation.object_id.hex()
    algorithm = resources_pb2.Algorithm.Name(version.algorithm).removeprefix("ALGORITHM_")
    if ALGORITHMS.get(algorithm, "SIGN") in {"SIGN", "KEY_AGREEMENT"}:
        return [f"{object_id} PRIVATE_KEY", f"{object_id} PUBLIC_KEY"]
    return [f"{object_id} SECRET_KEY"]


def unbalanced(balance: dict[str, Any]) -> int:
    """How much of a balance is not as it must be."""
    wrong = len(balance["leaked"]) + len(balance["missing"]) + len(balance["versions_lost"]) + len(balance["pin_flags"])
    wrong += balance["accounted"].get("IN_USE", 0) != balance["versions_in_token"]
    return int(wrong + (set(balance["accounted"]) != {"IN_USE"}) + (not balance["check_store"]))


def section_of(directory: Path, **changes: Any) -> dict[str, Any]:
    """A slot's section of the configuration, as YAML has it."""
    section = hsm_section(directory, **{"name": SLOT, **changes})
    return {**section, "module": str(section["module"]), "pin": {"path": str(section["pin"]["path"])}}


def make_rig(
    directory: Path, section: dict[str, Any], vault: Vault, tally: Tally, command: tuple[str, ...] | None = None
) -> Rig:
    """A vault in the directory, and a key in its token whose value the callers know."""
    token = directory / "token"
    outside = Outside(
        str(softhsm.find_module()), LABEL, (token / "pin").read_text().strip(), softhsm.environment(token)
    )
    outside.put_secret(KNOWN_ID, "known", vault.known_mac)
    lifecycle = {"min_destroy_delay_s": 0, "scheduler_interval_ms": 500}
    server = make_vault(
        directory, command, hsm=[section], lifecycle=lifecycle, log={"level": "info"}, drain_grace_s=5.0
    )
    return Rig(directory, server, outside, vault, tally)


async def furnish(rig: Rig) -> None:
    """Keys that all callers share."""
    caller = rig.caller(0, "furnish", "furnisher")
    for algorithm in (one for one in ALGORITHMS if one != LARGE):
        await caller.make(algorithm.lower().replace("_", "-"), algorithm)
    await caller.adopt("known", KNOWN_ID)
