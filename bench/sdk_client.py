"""Load through the Python SDK: so many callers, each awaiting an encrypt of its own.  `python -m bench.sdk_client`.

Speaks as loadgen does: an order as JSON on each line of standard input, what came of it on standard output.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

from vaultd_client import AsyncClient, VaultdError


class Clients:
    """One client of the SDK for each way to call, kept from one order to the next."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, bool], AsyncClient] = {}

    def _client(self, order: dict[str, Any]) -> AsyncClient:
        which = (order["address"], order["coalesce"])
        if which not in self._clients:
            tls = Path(order["tls"])
            self._clients[which] = AsyncClient(
                order["address"],
                ca=tls / "ca.crt",
                certificate=tls / "app.crt",
                key=tls / "app.key",
                coalesce=order["coalesce"],
            )
        return self._clients[which]

    async def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Ends when the calls that began in time have ended."""
        vault, name, data = self._client(order), order["name"], base64.b64decode(order["data"])
        latencies_us = array("I")
        errors: Counter[str] = Counter()
        cpu, began = time.process_time(), time.perf_counter()
        end = began + order["seconds"]

        async def caller() -> None:
            before = time.perf_counter()
            while before < end:
                try:
                    await vault.encrypt(name, data)
                except VaultdError as error:
                    errors[type(error).__name__] += 1
                    await asyncio.sleep(0.01)
                    before = time.perf_counter()
                    continue
                after = time.perf_counter()
                latencies_us.append(int((after - before) * 1e6))
                before = after

        await asyncio.gather(*(caller() for _ in range(order["in_flight"])))
        return {
            "elapsed_s": time.perf_counter() - began,
            "client_cpu_s": time.process_time() - cpu,
            "latencies": base64.b64encode(latencies_us.tobytes()).decode(),
            "errors": errors,
        }

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()


async def _main() -> None:
    clients = Clients()
    print("ready -", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await clients.run(json.loads(line))), flush=True)
    await clients.close()


if __name__ == "__main__":
    asyncio.run(_main())
