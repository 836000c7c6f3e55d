"""All sinks of one audit log, and the calls that wait for those that are required."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from vaultd.audit.shipping.worker import sink_unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from vaultd.audit.shipping.worker import SinkFigures, SinkWorker

WAIT_S: Final = 2.0
"""How long one call waits for required sinks, all of its records together."""
NOTHING: Final = 2**63
"""Beyond every record."""
LAST_RECORDS_S: Final = 2.0
"""How long a server that stops lets its sinks have the last records."""


class Shipper:
    """Runs the workers.  A sink that hangs delays the calls that need it, and nothing else."""

    def __init__(self, for_mutations: Collection[str] = (), for_calls: Collection[str] = ()) -> None:
        """Names of the sinks that must have acknowledged the records of a mutation, and of any other answered call,
        before its reply is released.
        """
        self._mutation_names = frozenset(for_mutations)
        self._call_names = frozenset(for_calls)
        self._workers: tuple[SinkWorker, ...] = ()
        self._for_mutations: tuple[SinkWorker, ...] = ()
        self._for_calls: tuple[SinkWorker, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def holds_mutations(self) -> bool:
        """Whether mutations wait for a sink."""
        return bool(self._mutation_names)

    @property
    def holds_calls(self) -> bool:
        """Whether calls that change nothing wait for a sink."""
        return bool(self._call_names)

    def start(self, workers: Sequence[SinkWorker]) -> None:
        """Begin to deliver; the log is open.  Before this nothing waits for a sink."""
        self._workers = tuple(workers)
        self._for_mutations = tuple(worker for worker in workers if worker.settings.name in self._mutation_names)
        self._for_calls = tuple(worker for worker in workers if worker.settings.name in self._call_names)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(worker.run()) for worker in self._workers]

    async def close(self) -> None:
        """Let the sinks have the last records, for a moment, and write the cursors.  The log may be closed before."""
        if not self._tasks:
            return
        for worker in self._workers:
            worker.stop()
        _, late = await asyncio.wait(self._tasks, timeout=LAST_RECORDS_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await asyncio.gather(*(worker.close() for worker in self._workers))

    def figures(self) -> list[SinkFigures]:
        """Plain numbers of each sink, in the order of the configuration."""
        return [worker.figures() for worker in self._workers]

    def oldest_needed_sequence(self) -> int:
        """The oldest record that pruning must leave in place; NOTHING when no sink needs any.

        A sink that is further behind than its `hold_s` is not waited for.
        """
        needed = [sequence for worker in self._workers if (sequence := worker.oldest_needed_sequence()) is not None]
        return min(needed, default=NOTHING)

    def require_for_mutation(self) -> None:
        """Raise Unavailable when a sink that mutations need is known to be failing: nothing is begun then."""
        if any(worker.failing for worker in self._for_mutations):
            raise sink_unavailable()

    def require_for_call(self) -> None:
        """The same for calls that change nothing: what would be withheld is not done."""
        if any(worker.failing for worker in self._for_calls):
            raise sink_unavailable()

    async def mutation_delivered(self, sequence: int, within_s: float = WAIT_S) -> float:
        """Wait until every sink that mutations need has a record; returns what is left of the time.

        Raises Unavailable AUDIT_SINK_UNAVAILABLE.
        """
        return await self._delivered(self._for_mutations, sequence, within_s)

    async def call_delivered(self, sequence: int, within_s: float = WAIT_S) -> float:
        """The same for calls that change nothing."""
        return await self._delivered(self._for_calls, sequence, within_s)

    @staticmethod
    async def _delivered(workers: Sequence[SinkWorker], sequence: int, within_s: float) -> float:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        for worker in workers:
            try:
                async with asyncio.timeout_at(until_s):
                    await worker.wait_for(sequence)
            except TimeoutError:
                worker.give_up()
                raise sink_unavailable() from None
        return max(0.0, until_s - loop.time())
