"""A process that only sleeps, and says how late it was woken: how late this machine makes everybody.  `python bystander.py`

On SIGTERM it prints one line of JSON, as lag_server.py does.
"""

from __future__ import annotations

import asyncio
import json
import signal

from lag_server import sample


async def watch() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    samples: list[tuple[float, float]] = []
    print("ready", flush=True)
    await sample(samples, stop)
    print(json.dumps(samples), flush=True)


if __name__ == "__main__":
    asyncio.run(watch())
