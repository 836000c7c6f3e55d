"""Load on CryptoStream: closed loops of operations.  `python -m bench.stream_client`.

Speaks as loadgen does: an order as JSON on each line of standard input, what came of it on standard output,
without latencies.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import grpc

from vaultd_client.v1 import crypto_pb2 as pb

_METHOD = "/vaultd.v1.CryptoService/CryptoStream"


class Client:
    """Connections to each server, each with one stream for a slice."""

    def __init__(self) -> None:
        self._channels: dict[str, list[Any]] = {}

    def _connect(self, order: dict[str, Any]) -> list[Any]:
        channels = self._channels.setdefault(order["address"], [])
        tls = Path(order["tls"])
        while len(channels) < order["streams"]:
            files = (tls / "ca.crt", tls / "app.key", tls / "app.crt")
            credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
            options = (("grpc.use_local_subchannel_pool", 1),)
            channels.append(grpc.aio.secure_channel(order["address"], credentials, options=options))
        return channels[: order["streams"]]

    async def run(self, order: dict[str, Any]) -> dict[str, Any]:
        """Keep operations in flight for some seconds; `together`: what became free at once goes into one message."""
        channels = self._connect(order)
        end = time.perf_counter() + order["seconds"]
        cpu, began = time.process_time(), time.perf_counter()
        counts = await asyncio.gather(*(self._one(channel, order, end) for channel in channels))
        failed = sum(failed for _, failed in counts)
        return {
            "calls": sum(done for done, _ in counts),
            "errors": {"operations of a stream": failed} if failed else {},
            "elapsed_s": time.perf_counter() - began,
            "client_cpu_s": time.process_time() - cpu,
        }

    async def _one(self, channel: Any, order: dict[str, Any], end: float) -> tuple[int, int]:
        operation = pb.CryptoOperation(
            id=1, encrypt=pb.EncryptRequest(name=order["name"], plaintext=bytes(order["bytes"]))
        )
        single = pb.CryptoStreamRequest(operations=[operation]).SerializeToString()
        call = channel.stream_stream(_METHOD)()
        done = failed = 0

        async def send(count: int) -> None:
            if order["together"]:
                await call.write(single * count)  # one message: lists may be put one behind another
            else:
                for _ in range(count):
                    await call.write(single)

        open_operations = order["in_flight"] // order["streams"]
        await send(open_operations)
        while open_operations:
            response = pb.CryptoStreamResponse.FromString(await call.read())
            count = len(response.results)
            done += count
            failed += sum(not result.HasField("encrypt") for result in response.results)
            if time.perf_counter() < end:
                await send(count)
            else:
                open_operations -= count
        await call.done_writing()
        await call.read()
        return done, failed

    async def close(self) -> None:
        for channels in self._channels.values():
            for channel in channels:
                await channel.close()


async def _main() -> None:
    client = Client()
    print("ready -", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await client.run(json.loads(line))), flush=True)
    await client.close()


if __name__ == "__main__":
    asyncio.run(_main())
