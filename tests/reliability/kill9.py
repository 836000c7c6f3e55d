"""Kill a serving vaultd again and again under load, and count what was lost.  HARDENING.md section 5, test 1.

    python tests/reliability/kill9.py --kills 20 --seed 1

Many clients create keys, rotate them, encrypt and put secrets, over mTLS.  After a random while, or at a named failpoint, the
server dies by SIGKILL.  It is started again, and every answer that any client ever got must still be true.  One JSON line per
kill and one at the end; exit code 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from processes import START_TIMEOUT_S, Server, connect, make_vault, percentile

from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, resources_pb2, secrets_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from harness import Client

FAILPOINTS = (
    "store.begin:25",  # early hits belong to the start of the server; this one falls into the load
    "store.before_commit:25",
    "store.after_commit:25",
    "ledger.flushed:25",
    "ledger.committed:25",
)
ROTATION_FAILPOINTS = (
    "seal.prepared",
    "seal.rewrapped",
    "seal.committed",
    "seal.read_back",
    "seal.retired",
    "root_key.prepared",
    "root_key.temporary_written",
    "root_key.retired",
)
"""Hit while the root key is rotated under the same load.  Those of backup and restore are in the store's own tests."""
TRY_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
MAX_REFUSALS = 100_000
OP_TIMEOUT_S = 10


@dataclass
class Acknowledged:
    """What the server has said yes to."""

    newest: dict[str, int] = field(default_factory=dict)
    ciphertexts: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    creates: int = 0
    rotations: int = 0
    payloads: dict[str, bytes] = field(default_factory=dict)
    """By the name of the secret's version."""


async def work(
    client: Client, said: Acknowledged, chooser: random.Random, prefix: str, under_load: asyncio.Event
) -> int:
    """Create, rotate and encrypt until the server is gone; returns how many calls were answered."""
    answered = 0
    mine: list[str] = []
    key = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
    try:
        while True:
            choice = chooser.random()
            if not mine or choice < 0.25:
                request = keys_pb2.CreateKeyRequest(
                    parent="vaults/default", key_id=f"{prefix}-{answered}", key=key, request_id=f"{prefix}-{answered}"
                )
                made = await client.keys.CreateKey(request, timeout=OP_TIMEOUT_S)
                said.newest[made.name] = 1
                said.creates += 1
                mine.append(made.name)
            elif choice < 0.5:
                name = chooser.choice(mine)
                rotated = await client.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name), timeout=OP_TIMEOUT_S)
                number = int(rotated.name.rpartition("/")[2])
                said.newest[name] = max(said.newest[name], number)
                said.rotations += 1
            elif choice < 0.65:
                await put_secret(client, said, chooser, f"{prefix}-{chooser.randrange(4)}")
            else:
                name = chooser.choice(mine)
                plaintext = chooser.randbytes(32)
                sealed = await client.crypto.Encrypt(
                    crypto_pb2.EncryptRequest(name=name, plaintext=plaintext), timeout=OP_TIMEOUT_S
                )
                said.ciphertexts.append((name, plaintext, sealed.ciphertext))
            answered += 1
            under_load.set()
    except grpc.aio.AioRpcError:
        return answered


async def put_secret(client: Client, said: Acknowledged, chooser: random.Random, secret_id: str) -> None:
    """Add a version to a secret, which is made first when nobody has made it yet."""
    name, payload = f"vaults/default/secrets/{secret_id}", chooser.randbytes(chooser.randrange(1, 2000))
    try:
        add = secrets_pb2.AddSecretVersionRequest(parent=name, payload=payload)
        version = (await client.secrets.AddSecretVersion(add, timeout=OP_TIMEOUT_S)).version
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        create = secrets_pb2.CreateSecretRequest(parent="vaults/default", secret_id=secret_id, payload=payload)
        version = (await client.secrets.CreateSecret(create, timeout=OP_TIMEOUT_S)).current_version
    said.payloads[version] = payload


async def ask(call: Callable[[], Awaitable[Any]], refusals: Counter[str]) -> Any:
    """The answer, or None for an error that says it is not there; an error that says `try again` is counted and obeyed."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            refusals[f"{error.code().name} {error.details()}"] += 1
            if error.code() not in TRY_AGAIN or refusals.total() > MAX_REFUSALS:
                return None


async def check(client: Client, said: Acknowledged, refusals: Counter[str]) -> dict[str, int]:
    """Ask for everything that was ever acknowledged; returns what is not true any more."""
    lost = {"keys": 0, "versions": 0, "ciphertexts": 0, "payloads": 0, "half_visible": 0}
    turn = asyncio.Semaphore(64)

    async def one_key(name: str, newest: int) -> None:
        async with turn:
            request = keys_pb2.ListKeyVersionsRequest(parent=name, page_size=1000)
            listed = await ask(lambda: client.keys.ListKeyVersions(request), refusals)
            if listed is None:
                lost["keys"] += 1
                return
            numbers = {int(found.name.rpartition("/")[2]) for found in listed.key_versions}
            lost["versions"] += not set(range(1, newest + 1)) <= numbers

    async def one_ciphertext(name: str, plaintext: bytes, ciphertext: bytes) -> None:
        async with turn:
            request = crypto_pb2.DecryptRequest(name=name, ciphertext=ciphertext)
            opened = await ask(lambda: client.crypto.Decrypt(request), refusals)
            lost["ciphertexts"] += opened is None or opened.plaintext != plaintext

    async def one_payload(version: str, payload: bytes) -> None:
        async with turn:
            request = secrets_pb2.AccessSecretVersionRequest(name=version)
            given = await ask(lambda: client.secrets.AccessSecretVersion(request), refusals)
            lost["payloads"] += given is None or given.payload != payload

    await asyncio.gather(
        *(one_payload(version, payload) for version, payload in said.payloads.items()),
        *(one_key(name, newest) for name, newest in said.newest.items()),
        *(one_ciphertext(*entry) for entry in said.ciphertexts),
    )
    lost["half_visible"] = await count_half_visible(client)
    return lost


async def count_half_visible(client: Client) -> int:
    """Keys whose versions are not exactly those that the key itself names, acknowledged or not."""
    half, token = 0, ""
    while True:
        page = await client.keys.ListKeys(
            keys_pb2.ListKeysRequest(parent="vaults/default", page_size=1000, page_token=token)
        )
        for key in page.keys:
            versions = await client.keys.ListKeyVersions(
                keys_pb2.ListKeyVersionsRequest(parent=key.name, page_size=1000)
            )
            numbers = [int(found.name.rpartition("/")[2]) for found in versions.key_versions]
            primary = int(key.primary_version.rpartition("/")[2])
            half += numbers != list(range(1, key.newest_version + 1)) or primary not in numbers
        token = page.next_page_token
        if not token:
            return half


async def one_kill(
    server: Server, directory: Path, said: Acknowledged, number: int, failpoint: str, arguments: argparse.Namespace
) -> dict[str, object]:
    chooser = random.Random(f"{arguments.seed}/{number}")
    server.start(failpoint)
    clients = [connect(directory, server.address) for _ in range(arguments.connections)]
    under_load = asyncio.Event()
    workers = [
        asyncio.ensure_future(
            work(
                clients[at % len(clients)],
                said,
                random.Random(f"{arguments.seed}/{number}/{at}"),
                f"k{number}-{at}",
                under_load,
            )
        )
        for at in range(arguments.clients)
    ]
    await asyncio.wait_for(under_load.wait(), START_TIMEOUT_S)
    delay_s = chooser.uniform(0.005, 0.5)
    if failpoint in ROTATION_FAILPOINTS:
        with suppress(grpc.aio.AioRpcError):
            await clients[0].admin.RotateRootKey(admin_pb2.RotateRootKeyRequest(), timeout=START_TIMEOUT_S)
    if failpoint:
        died = await asyncio.to_thread(server.wait, START_TIMEOUT_S)
        if not died:
            server.kill()
            raise SystemExit(f"the failpoint {failpoint} was never hit")
    else:
        await asyncio.sleep(delay_s)
        server.kill()
    answered = sum(await asyncio.gather(*workers))
    for client in clients:
        await client.channel.close()
    restart_s = server.start()
    client = connect(directory, server.address)
    refusals: Counter[str] = Counter()
    lost = await check(client, said, refusals)
    await client.channel.close()
    server.kill()
    checked = await asyncio.to_thread(server.vaultd, "check-store")
    return {
        "kill": number,
        "at": failpoint or f"{delay_s * 1000:.0f} ms",
        "answered": answered,
        "keys": len(said.newest),
        "rotations": said.rotations,
        "ciphertexts": len(said.ciphertexts),
        "restart_s": round(restart_s, 3),
        "check_store": checked.returncode == 0,
        "lost": lost,
        "refusals": dict(refusals),
    }


async def campaign(arguments: argparse.Namespace) -> int:
    plan = [""] * arguments.kills + ([] if arguments.no_failpoints else [*FAILPOINTS, *ROTATION_FAILPOINTS])
    restarts: list[float] = []
    bad = 0
    said = Acknowledged()
    with tempfile.TemporaryDirectory(prefix="vaultd-kill9-") as name:
        directory = Path(name)
        server = make_vault(directory)
        for number, failpoint in enumerate(plan):
            outcome = await one_kill(server, directory, said, number, failpoint, arguments)
            restarts.append(float(str(outcome["restart_s"])))
            bad += not outcome["check_store"] or any(outcome["lost"].values())
            print(json.dumps(outcome), flush=True)
    print(
        json.dumps(
            {
                "kills": len(plan),
                "seed": arguments.seed,
                "acknowledged": said.creates + said.rotations + len(said.ciphertexts) + len(said.payloads),
                "keys": said.creates,
                "rotations": said.rotations,
                "payloads": len(said.payloads),
                "ciphertexts": len(said.ciphertexts),
                "kills_with_loss": bad,
                "restart_p50_s": percentile(restarts, 0.5),
                "restart_p99_s": percentile(restarts, 0.99),
            }
        )
    )
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=50, help="callers at the same time")
    parser.add_argument("--connections", type=int, default=5, help="mTLS connections that the callers share")
    parser.add_argument("--no-failpoints", action="store_true", help="leave out one kill at each named failpoint")
    return asyncio.run(campaign(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
