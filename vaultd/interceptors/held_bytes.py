"""What all streams of operations hold together: messages that were read, what is served, and answers that are not taken.

A stream is bounded by itself (item_stream.py), but a principal may have a thousand of them.  So there is a bound for each principal
and one for all.  Where one is reached, nothing more is read: the transport's own window then makes callers wait.  Whoever
holds less than an even part of the whole goes on, so that a few who do not read hold up nobody else.

A message that was asked for while there was room may come all the same.  Only what would make it twice a bound is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vaultd.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterator

TURN_S: Final = 0.005
"""One stream of a principal is let on, and then what it reads is waited for: nobody knows how much it is."""


class HeldBytes:
    """The bounds, in bytes, and who is at them."""

    def __init__(self, per_principal: int, total: int) -> None:
        self.per_principal = per_principal
        self.total = total
        self.held = self.unread = 0
        self.waiting: dict[Share, None] = {}
        self._shares: dict[str, Share] = {}
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def share(self, principal: str) -> Iterator[Share]:
        """What a principal's streams hold, for one that is open; it has given back what it held when it leaves."""
        share = self._shares.get(principal)
        if share is None:
            share = self._shares[principal] = Share(self)
        share.streams += 1
        try:
            yield share
        finally:
            share.streams -= 1
            if not share.streams:
                del self._shares[principal]
                self.wake()  # the part of others is larger now

    def is_full(self, held: int, everything: int) -> bool:
        """Whether somebody with so much must wait, where everybody together has so much."""
        return held >= self.per_principal or (everything >= self.total and held * len(self._shares) >= self.total)

    def is_flooded(self, held: int) -> bool:
        """Whether what somebody holds is far beyond what may be."""
        return held > 2 * self.per_principal or (self.held > 2 * self.total and held * len(self._shares) > self.total)

    def wake(self) -> None:
        """Something was given back: one stream of each principal goes on; others a moment later, should there still be room."""
        more = False
        for share in list(self.waiting):
            more = share.wake() or more
        if more and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TURN_S, self._wake_more)

    def _wake_more(self) -> None:
        self._timer = None
        self.wake()


class Share:
    """What the streams of one principal hold."""

    __slots__ = ("_all", "_waiting", "held", "streams", "unread")

    def __init__(self, of: HeldBytes) -> None:
        self._all = of
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.held = self.unread = 0
        """Bytes; `unread` is the part of it whose operations were not begun."""
        self.streams = 0

    def add(self, held: int) -> None:
        """More, or less, is held."""
        everybody = self._all
        self.held += held
        everybody.held += held
        if held < 0 and everybody.waiting:
            everybody.wake()

    def add_message(self, held: int) -> None:
        """More, or less, is held in messages that are not begun."""
        self.unread += held
        self._all.unread += held
        self.add(held)

    @property
    def may_read(self) -> bool:
        """Whether another message may be asked for."""
        return not self._all.is_full(self.held, self._all.held)

    @property
    def may_begin(self) -> bool:
        """Whether operations that were read may be begun.  What is read and not begun does not count, or all could wait for all."""
        return not self._all.is_full(self.held - self.unread, self._all.held - self._all.unread)

    def check(self) -> None:
        """Raises ResourceExhausted when what was read is far beyond what may be held."""
        if self._all.is_flooded(self.held):
            raise ResourceExhausted(
                "STREAM_BYTES_EXCEEDED",
                "the caller's streams hold too much that is unanswered or unread; read what they answer, and send less at once",
                retry_after_s=1,
            )

    async def turn(self) -> None:
        """Wait until there may be room."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._all.waiting[self] = None
        await waiter

    def wake(self) -> bool:
        """Let the first that waits go on, if there is room; returns whether others may after it."""
        waiting = self._waiting
        while waiting and waiting[0].done():  # of a stream that has ended
            waiting.popleft()
        if waiting and not self.may_begin:
            return False
        if waiting:
            waiting.popleft().set_result(None)
        if not waiting:
            del self._all.waiting[self]
        return bool(waiting)
