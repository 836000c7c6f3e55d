"""A server whose recording can be taken out while it runs.  `python -m bench.recording_server DIRECTORY`.

SIGUSR1 takes audit, metrics and traces out of the chain, SIGUSR2 puts them back.  There is no such switch in the product: this is
for `bench.recording` alone, which compares both in one process, on the same connections.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vaultd.config import Settings, load_settings
from vaultd.dev import ADMIN, create_dev_directory
from vaultd.hosts.transport import restrict_transport

if TYPE_CHECKING:
    from vaultd.interceptors.audit import AuditStep
    from vaultd.interceptors.chain import Chain

NOBODY_LISTENS = "http://127.0.0.1:9"


class SilentAudit:
    """Opens records and writes none."""

    holds_calls = False
    records_items = False

    def __init__(self, real: AuditStep) -> None:
        self.now_s = real.now_s

    def require_room(self) -> None:
        """There is always room for nothing."""

    def served(self, *about: Any) -> bytes:
        """Nothing: the receipt is empty."""
        del about
        return b""

    def outcome(self, *about: Any) -> None:
        """Nothing: there is no receipt either."""
        del about


class SilentTelemetry:
    """Sees nothing."""

    def begin(self, call: Any) -> tuple[str, None]:
        """No trace."""
        del call
        return "", None

    def ended(self, entry: Any) -> None:
        """Not counted."""
        del entry


class Switch:
    """Takes recording out of a chain, and puts it back."""

    def __init__(self, chain: Chain) -> None:
        self._chain: Any = chain
        self._real = (self._chain._audit, self._chain._telemetry)
        self._silent = (SilentAudit(self._chain._audit), SilentTelemetry())

    def off(self) -> None:
        self._chain._audit, self._chain._telemetry = self._silent

    def on(self) -> None:
        self._chain._audit, self._chain._telemetry = self._real


async def make_settings(directory: Path) -> Settings:
    """A development vault with metrics, and with traces of which none is sampled."""
    from vaultd.engine.policy import seed_policy
    from vaultd.wiring import Server

    config = create_dev_directory(directory, "127.0.0.1:0", metrics="127.0.0.1:0")
    document = yaml.safe_load(config.read_text())
    document["otlp"] = {"endpoint": NOBODY_LISTENS}
    config.write_text(yaml.safe_dump(document))
    settings = load_settings(config)
    if not settings.store.path.exists():
        policy = yaml.safe_load((directory / "policy.yaml").read_text())
        async with Server(settings).offline() as server:
            await server.engine.seal.init(seed_policy([ADMIN], policy), None)
    return settings


async def _serve(directory: Path) -> None:
    from vaultd.telemetry.log import configure_logging
    from vaultd.wiring import Server

    configure_logging("info", json=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with Server(await make_settings(directory)).running() as server:
        switch = Switch(server.chain)
        loop.add_signal_handler(signal.SIGUSR1, switch.off)
        loop.add_signal_handler(signal.SIGUSR2, switch.on)
        print(f"ready 127.0.0.1:{server.port}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    restrict_transport()
    asyncio.run(_serve(Path(sys.argv[1])))
