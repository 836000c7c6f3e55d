"""One stream of operations: what its service knows of it, what is unanswered, and what waits to be sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

from vaultd.interceptors.streams import OpenStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vaultd.engine.caller import Caller
    from vaultd.errors import VaultdError
    from vaultd.interceptors.audit import Entry
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.held_bytes import Share
    from vaultd.interceptors.routes import Route
    from vaultd.services.context import Context
    from vaultd.services.crypto_stream import Operation
    from vaultd.services.encoding import Encoded

    Serve = Callable[[Sequence[Any], Context], Awaitable[list[Encoded | VaultdError]]]

MAX_UNANSWERED: Final = 1_000
"""Operations of a stream; while there are so many, nothing more is read."""
MAX_UNANSWERED_BYTES: Final = 4 * 1024 * 1024
"""Of operations that are served, what their answers may have, and answers that are not taken; while there are so many, nothing
more is served or read."""
MESSAGE_BYTES: Final = 256 * 1024
"""Results are put together up to about this much."""


class Session(Protocol):
    """What a service knows of one such stream: how its messages are taken apart and put together."""

    def read(self, message: Any) -> list[Operation]:
        """The operations of a message; raises InvalidArgument, which ends the stream."""
        ...

    def response(self) -> Any:
        """An empty message of results."""
        ...

    def slot(self, response: Any, operation: Operation) -> tuple[Any, Any]:
        """Add the place of an operation's result; returns it, with its field `status`, and the answer to fill in."""
        ...

    def serving(self, method: str) -> Serve | None:
        """Serves many requests of a method, when that is not what the method's batch does."""
        ...

    def finish(self, response: Any, ended: Sequence[tuple[Any, VaultdError | None]]) -> None:
        """All slots of a message are final: (slot, why it failed)."""
        ...

    def last(self) -> bytes:
        """What is sent when everything is answered that the caller sent; empty for nothing."""
        ...


class ItemStream(OpenStream):
    """A stream of operations.  Its handler reads, one task writes, and one task serves each group."""

    __slots__ = (
        "closing",
        "entry",
        "failure",
        "message_bytes",
        "out",
        "over",
        "pause_s",
        "reading",
        "ready",
        "room",
        "session",
        "share",
        "stopping",
        "tasks",
        "unanswered",
        "unanswered_bytes",
    )

    def __init__(self, call: Call, caller: Caller, credential: str, route: Route, task: asyncio.Task[Any]) -> None:
        super().__init__(call, caller, credential, route, task)
        self.entry: Entry
        self.share: Share
        self.session: Session = route.serve()
        self.tasks: set[asyncio.Task[None]] = set()
        self.out: list[tuple[bytes, int]] = []
        self.unanswered = self.unanswered_bytes = self.message_bytes = 0
        self.ready = asyncio.Event()
        self.room = asyncio.Event()
        self.pause_s = 0.0
        self.reading = self.closing = self.over = False
        self.stopping: VaultdError | None = None
        self.failure: BaseException | None = None

    def drain(self, error: VaultdError) -> None:
        """Read no more; what was read is answered, and then the stream ends with the error."""
        if self.stopping is None:
            self.stopping = error
            if self.reading:
                self.task.cancel()

    async def receive(self, on_part: Callable[[int], None] | None = None) -> bytes | None:
        """The next message, or None at the end.  It counts until more is asked for."""
        body = await super().receive(on_part)
        if body is not None:
            self._count_message(len(body))
        return body

    def hold_part(self, length: int) -> None:
        """So much of the next message has come.  Raises ResourceExhausted when all streams together hold far too much."""
        self._count_message(length)
        self.share.check()

    def begin(self, operations: int, reserved: int) -> None:
        """Operations are served from now on: they, and what their answers may have, count for so many bytes."""
        self.unanswered += operations
        self._count(reserved)

    def put(self, body: bytes, operations: int, reserved: int) -> None:
        """Hand results to the writer; `reserved` is what was counted for them, and from now on they count as what they are."""
        self._count(len(body) - reserved)
        self.out.append((body, operations))
        self.ready.set()
        self.room.set()

    async def write_all(self) -> None:
        """Send what is ready, as much at once as there is, until the stream is closing and all is sent."""
        while True:
            await self.ready.wait()
            self.ready.clear()
            while self.out:
                parts, operations, length = [], 0, 0
                while self.out and length < MESSAGE_BYTES:
                    body, count = self.out.pop(0)
                    parts.append(body)
                    length += len(body)
                    operations += count
                # Lists of results may be put one behind another: that is one message with all of them.
                await self.send(b"".join(parts) if len(parts) > 1 else parts[0])
                self.unanswered -= operations
                self._count(-length)
                self.room.set()
            if self.closing:
                return

    def ended_by(self, task: asyncio.Task[None]) -> None:
        """One of its tasks is over.  If something went wrong that no operation can say, the stream ends with it."""
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self.failure is None and not self.over:
            self.failure = error
            self.task.cancel()

    async def has_room(self) -> None:
        """Wait until more may be read: what was read before is begun."""
        self._count_message(0)
        while True:
            while self.unanswered >= MAX_UNANSWERED or self.unanswered_bytes >= MAX_UNANSWERED_BYTES:
                await self._freed()
            if self.share.may_read:
                return
            await self.share.turn()

    async def has_room_for_answers(self) -> None:
        """Wait until more may be served."""
        while True:
            while self.unanswered_bytes >= MAX_UNANSWERED_BYTES:
                await self._freed()
            if self.share.may_begin:
                return
            await self.share.turn()

    def give_back(self) -> None:
        """It is over, and holds nothing any more."""
        self.over = True
        self.share.add(-self.unanswered_bytes)
        self.share.add_message(-self.message_bytes)

    def _count(self, more: int) -> None:
        if not self.over:
            self.unanswered_bytes += more
            self.share.add(more)

    def _count_message(self, length: int) -> None:
        more = length - self.message_bytes
        self.message_bytes = length
        self.share.add_message(more)

    async def _freed(self) -> None:
        self.room.clear()
        await self.room.wait()
