"""A webhook receiver in a process of its own, to be stopped and continued.  `python audit_receiver.py TLS-DIRECTORY`

It says `ready PORT`, and on SIGTERM how many records it got.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import processes

from receivers import server_context, webhook_receiver


async def receive() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with webhook_receiver(server_context(processes.ROOT / sys.argv[1])) as receiver:
        print(f"ready {receiver.port}", flush=True)
        await stop.wait()
        print(len(receiver.lines), flush=True)


if __name__ == "__main__":
    asyncio.run(receive())
