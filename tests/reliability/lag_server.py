"""A server that measures how late its event loop is.  `python lag_server.py CONFIG`

It says `ready ADDRESS` and serves as `vaultd serve` does.  On SIGTERM it prints one line of JSON: a list of [when, by how
much] in monotonic seconds, one for each time that a task asked to sleep for 5 ms and was woken.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import processes

from vaultd.config import load_settings
from vaultd.hosts.transport import restrict_transport
from vaultd.telemetry.log import configure_logging
from vaultd.wiring import Server

if TYPE_CHECKING:
    from pathlib import Path

SLEEP_S = 0.005


async def sample(samples: list[tuple[float, float]], stop: asyncio.Event) -> None:
    """Note how long after its time each sleep ended."""
    while not stop.is_set():
        began_s = time.monotonic()
        await asyncio.sleep(SLEEP_S)
        now_s = time.monotonic()
        samples.append((round(now_s, 4), round(now_s - began_s - SLEEP_S, 6)))


async def serve(config: Path) -> None:
    settings = load_settings(config)
    configure_logging(settings.log.level, json=True)
    server, stop = Server(settings), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    samples: list[tuple[float, float]] = []
    async with server.running():
        print(f"ready 127.0.0.1:{server.port}", flush=True)
        await sample(samples, stop)
    print(json.dumps(samples), flush=True)


if __name__ == "__main__":
    restrict_transport()
    asyncio.run(serve(processes.ROOT / sys.argv[1]))
    os._exit(0)  # as `vaultd serve`: gRPC's core takes its time to stop idle threads
