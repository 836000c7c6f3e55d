"""A server that is killed and comes back under 64 callers: no wrong result, no error that nobody sees, and all is well again.

How soon is told by what a connection is made with: a client looks for its server every 300 ms.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from sdk_rig import AEAD, VAULT, identity

from ports import free_port
from vaultd_client import AsyncClient, BatchLimits, Client, Unavailable, VaultdError
from vaultd_client.settings import Settings
from vaultd_client.tls import channel_options

if TYPE_CHECKING:
    from pathlib import Path

CALLERS = 64


@asynccontextmanager
async def killed_at_the_end(directory: Path, port: int):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vaultd", "dev", "--dir", directory, "--listen", f"127.0.0.1:{port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            while not (await process.stdout.readline()).startswith(b"ready "):
                assert process.returncode is None
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Callers:
    """64 loops of encrypt and decrypt, and all that came of them."""

    def __init__(self, vault: AsyncClient) -> None:
        self._vault = vault
        self.wrong: list[tuple[bytes, bytes]] = []
        self.errors: Counter[str] = Counter()
        self.succeeded: dict[int, float] = {}
        self.all_succeeded = asyncio.Event()
        self.begun = self.ended = 0
        self.over = False

    async def run(self, number: int) -> None:
        turn = 0
        while not self.over:
            turn += 1
            plaintext = b"%d/%d" % (number, turn)
            self.begun += 1
            try:
                sealed = await self._vault.encrypt(AEAD, plaintext, b"%d" % number)
                opened = await self._vault.decrypt(AEAD, sealed.ciphertext, b"%d" % number)
            except VaultdError as error:
                self.errors[error.code] += 1
            else:
                if opened.plaintext != plaintext:
                    self.wrong.append((plaintext, opened.plaintext))
                self.succeeded.setdefault(number, time.monotonic())
                if len(self.succeeded) == CALLERS:
                    self.all_succeeded.set()
            self.ended += 1

    async def all_succeed_from_now(self) -> tuple[float, float]:
        """How long until one of them, and until each of them, has an answer again."""
        now = time.monotonic()
        self.succeeded.clear()
        self.all_succeeded.clear()
        async with asyncio.timeout(60):
            await self.all_succeeded.wait()
        return min(self.succeeded.values()) - now, max(self.succeeded.values()) - now


@pytest.mark.slow
async def test_callers_get_right_answers_or_errors_and_succeed_once_the_server_is_back(tmp_path):
    directory, port = tmp_path / "dev", free_port()
    async with killed_at_the_end(directory, port):
        vault = AsyncClient(f"127.0.0.1:{port}", **identity(directory / "tls", "admin"), timeout_s=5)
        await vault.create_key(VAULT, AEAD.rpartition("/")[2], {"purpose": "KEY_PURPOSE_ENCRYPT_DECRYPT"})
        callers = Callers(vault)
        tasks = [asyncio.create_task(callers.run(number)) for number in range(CALLERS)]
        await callers.all_succeed_from_now()
    # Killed under them.
    async with killed_at_the_end(directory, port):
        first_s, all_s = await callers.all_succeed_from_now()
        callers.over = True
        await asyncio.gather(*tasks)
        await vault.close()
    print(f"first {first_s:.3f} s, all {all_s:.3f} s after the server was back; {dict(callers.errors)}")
    assert callers.wrong == []
    assert callers.begun == callers.ended
    assert set(callers.errors) <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


@pytest.mark.slow
async def test_a_lone_caller_finds_the_server_again(tmp_path):
    """Nobody waits on a connection between its calls, so nobody but the client itself can mend it."""
    directory, port = tmp_path / "dev", free_port()
    async with killed_at_the_end(directory, port):
        vault = Client(f"127.0.0.1:{port}", **identity(directory / "tls", "admin"))
        await asyncio.to_thread(vault.get_status)
    with vault:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await asyncio.to_thread(vault.get_status)
        async with killed_at_the_end(directory, port):
            back = time.monotonic()
            async with asyncio.timeout(60):
                while True:
                    with suppress(Unavailable):
                        await asyncio.to_thread(vault.get_status)
                        break
            print(f"{time.monotonic() - back:.3f} s after the server was back")


def test_a_client_looks_for_a_server_that_is_away_each_300_ms():
    settings = Settings(("127.0.0.1:1",), None, None, None, None, None, True, True, BatchLimits())
    options = dict(channel_options(settings, "127.0.0.1:1"))
    assert options["grpc.initial_reconnect_backoff_ms"] <= options["grpc.max_reconnect_backoff_ms"] <= 300
