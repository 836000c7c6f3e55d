"""What the supervisor serves on the plaintext listener, of all workers: metrics on one page, and health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from vaultd.hosts.plain import TEXT, Page, PlainHost
from vaultd.telemetry.metrics import METRICS
from vaultd.workers.scrapes import merge

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from vaultd.workers.supervisor import Supervisor

ONCE = frozenset(metric.prometheus for metric in METRICS.values() if metric.whole)


async def serve_pages(stack: AsyncExitStack, supervisor: Supervisor, address: str) -> int:
    """Listen until the stack closes; returns the port.  Raises OSError when it cannot be bound."""
    host = PlainHost(_pages(supervisor))
    port = await host.listen(address)
    stack.push_async_callback(host.close)
    return port


def _pages(supervisor: Supervisor) -> dict[str, Any]:
    async def metrics(accept: str) -> Page:
        answers = await supervisor.ask_each("scrape", accept=accept)
        content_type = next((answer["content_type"] for answer in answers.values()), TEXT)
        same = {at: answer["text"].decode() for at, answer in answers.items() if answer["content_type"] == content_type}
        return Page(200, content_type, merge(same, ONCE).encode())

    async def alive(accept: str) -> Page:
        del accept
        return Page(200, TEXT, b"ok\n")

    async def ready(accept: str) -> Page:
        """Ready while some worker serves, and none that takes connections does not: the kernel would deal some out to it."""
        del accept
        answers = await supervisor.ask_each("health")
        listening = [answer for answer in answers.values() if not answer["draining"]]
        serving = bool(listening) and all(answer["serving"] for answer in listening)
        workers = {str(at): answers.get(at, {"serving": False}) for at in range(supervisor.count)}
        return Page(200 if serving else 503, "application/json", orjson.dumps({"workers": workers}) + b"\n")

    return {"/metrics": metrics, "/healthz": alive, "/readyz": ready}
