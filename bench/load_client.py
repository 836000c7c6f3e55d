"""The load: closed loops of unary calls.  `python -m bench.load_client TLS_DIRECTORY CONNECTIONS`.

Each line on standard input is a slice of load as JSON, each line on standard output what came of it.  A slice ends when the
calls that began in its time have ended, so that CPU counted around it belongs to the calls counted in it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc

_OPTIONS = (
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    ("grpc.max_send_message_length", 8 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
)


class Client:
    """Connections to every server, made once."""

    def __init__(self, tls: Path, connections: int) -> None:
        self._credentials = grpc.ssl_channel_credentials(
            (tls / "ca.crt").read_bytes(), (tls / "app.key").read_bytes(), (tls / "app.crt").read_bytes()
        )
        self._connections = connections
        self._channels: dict[str, list[Any]] = {}

    async def _connect(self, address: str) -> list[Any]:
        if address not in self._channels:
            channels = [
                grpc.aio.secure_channel(address, self._credentials, options=_OPTIONS) for _ in range(self._connections)
            ]
            await asyncio.gather(*(channel.channel_ready() for channel in channels))
            self._channels[address] = channels
        return self._channels[address]

    async def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Load one method for some seconds with some calls in flight."""
        channels = await self._connect(order["address"])
        body = base64.b64decode(order["body"])
        calls = [channel.unary_unary(order["method"]) for channel in channels]
        latencies_us: list[int] = []
        errors: Counter[str] = Counter()
        began = time.perf_counter()
        end = began + order["seconds"]

        async def loop(call: Any) -> None:
            before = time.perf_counter()
            while before < end:
                try:
                    await call(body, timeout=30)
                except grpc.aio.AioRpcError as error:
                    errors[error.code().name] += 1
                    await asyncio.sleep(0.01)
                    before = time.perf_counter()
                    continue
                after = time.perf_counter()
                latencies_us.append(int((after - before) * 1e6))
                before = after

        cpu = time.process_time()
        await asyncio.gather(*(loop(calls[n % len(calls)]) for n in range(order["concurrency"])))
        return {
            "elapsed_s": time.perf_counter() - began,
            "client_cpu_s": time.process_time() - cpu,
            "latencies_us": latencies_us,
            "errors": errors,
        }

    async def close(self) -> None:
        for channels in self._channels.values():
            for channel in channels:
                await channel.close()


async def _main(tls: Path, connections: int) -> None:
    client = Client(tls, connections)
    print("ready -", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await client.run(json.loads(line))), flush=True)
    await client.close()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2])))
