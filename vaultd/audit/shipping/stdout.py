"""Standard output: a line of JSON for each record.

Acknowledged means that write(2) took the line: it is in the pipe, or in the file, of whoever started vaultd.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from vaultd.audit.shipping.base import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.audit.shipping.base import Record


class StdoutSink:
    """Writes to a descriptor on a thread of its own: a pipe that nobody reads blocks that thread, and nothing else.

    The descriptor's flags are shared with whoever else has it, so it is not made non-blocking.
    """

    def __init__(self, format_record: Callable[[Record], bytes], fd: int = 1) -> None:
        self._format = format_record
        self._fd = fd
        self._writing: asyncio.Future[None] | None = None

    def encode(self, records: Sequence[Record]) -> bytes:
        return b"".join(self._format(record) + b"\n" for record in records)

    async def deliver(self, batch: bytes) -> int:
        # One that was given up still writes, and half a line must be finished before another begins.
        if self._writing is not None:
            with suppress(DeliveryFailed):
                await asyncio.shield(self._writing)
        loop = asyncio.get_running_loop()
        writing = self._writing = loop.create_future()
        writing.add_done_callback(_take_exception)
        threading.Thread(
            target=self._write, args=(loop, writing, batch), name="vaultd-audit-stdout", daemon=True
        ).start()
        await asyncio.shield(writing)
        return 0

    async def close(self) -> None:
        return

    def _write(self, loop: asyncio.AbstractEventLoop, writing: asyncio.Future[None], data: bytes) -> None:
        rest, failure = memoryview(data), None
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:  # somebody else made it non-blocking
                    select.select([], [self._fd], [])
        except OSError:
            failure = DeliveryFailed("connection", "standard output cannot be written")
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, writing, failure)


def _settle(writing: asyncio.Future[None], failure: DeliveryFailed | None) -> None:
    if failure is None:
        writing.set_result(None)
    else:
        writing.set_exception(failure)


def _take_exception(writing: asyncio.Future[None]) -> None:
    if not writing.cancelled():
        writing.exception()
