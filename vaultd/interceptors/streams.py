"""The streams that are open: whose they are, whether they may stay open, and how the server ends them.

A stream outlives the decision that let it in.  So twice a second each is looked at again: is the credential still good, is the
principal not revoked, does policy still allow it, is the vault unsealed.  What says no ends the stream with its own error.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from vaultd.errors import Aborted, Unauthenticated, Unavailable, VaultdError
from vaultd.interceptors.identity import CERTIFICATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaultd.engine.caller import Caller
    from vaultd.interceptors.audit import Entry
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.identity import Identity
    from vaultd.interceptors.policy import PolicyStep
    from vaultd.interceptors.routes import Route

STALLED_S: Final = 60.0
"""How long a reader may leave a message untaken before its stream is ended."""
LOOKED_AT_PER_TURN: Final = 100
"""Streams that are looked at between two turns of the event loop."""


class OpenStream:
    """One stream, from its admission to its end.

    request: the one that opened it, None where each message is decided about by itself.  resume: what the status says when the
    server ends the stream.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "call",
        "caller",
        "credential",
        "ended",
        "received",
        "request",
        "resume",
        "route",
        "sending_since",
        "sent",
        "task",
    )

    def __init__(self, call: Call, caller: Caller, credential: str, route: Route, task: asyncio.Task[Any]) -> None:
        self.call = call
        self.caller = caller
        self.credential = credential
        self.route = route
        self.task = task
        self.request: Any = None
        self.resume: dict[str, str] = {}
        self.ended: VaultdError | None = None
        self.sending_since: float | None = None
        self.received = self.sent = self.bytes_in = self.bytes_out = 0

    async def receive(self, on_part: Callable[[int], None] | None = None) -> bytes | None:
        """The next message, or None at the end."""
        body = await self.call.receive(on_part)
        if body is not None:
            self.received += 1
            self.bytes_in += len(body)
        return body

    async def send(self, body: bytes) -> None:
        """Send a message; takes as long as the reader does."""
        self.sending_since = self.task.get_loop().time()
        await self.call.send(body)
        self.sending_since = None
        self.sent += 1
        self.bytes_out += len(body)

    def end(self, error: VaultdError) -> None:
        """End it with this error, wherever it is; the first one counts."""
        if self.ended is None:
            self.ended = error
            self.task.cancel()

    def drain(self, error: VaultdError) -> None:
        """End it, since the server stops.  What was asked for and can still be answered may be answered before."""
        self.end(error)

    def tell(self, entry: Entry) -> None:
        """Say in the record how much went through it."""
        entry.bytes_in, entry.bytes_out = self.bytes_in, self.bytes_out
        entry.fields["messages_in"], entry.fields["messages_out"] = self.received, self.sent

    def named(self, error: VaultdError) -> VaultdError:
        """The error, with what the reader needs to go on."""
        if self.resume:
            error.metadata = {**self.resume, **error.metadata}
        return error


class OpenStreams:
    """All of them."""

    def __init__(self, identity: Identity, policy: PolicyStep) -> None:
        self._identity = identity
        self._policy = policy
        self.stalled_s = STALLED_S
        self._streams: set[OpenStream] = set()
        self._draining = False

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._streams)

    @contextmanager
    def holding(self, stream: OpenStream) -> Iterator[None]:
        """While it is served.  Raises Unavailable when the server stops."""
        if self._draining:
            raise _draining()
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)

    async def recheck(self) -> None:
        """End those that would not be let in now."""
        waiting = []
        late = asyncio.get_running_loop().time() - self.stalled_s
        for at, stream in enumerate(list(self._streams), start=1):
            if stream.sending_since is not None and stream.sending_since < late:
                self._end(stream, _stalled())
            elif stream.credential == CERTIFICATE:
                await self._recheck(stream)
            else:  # a token may wait for its issuer's keys, and nobody else waits for it
                waiting.append(self._recheck(stream))
            if at % LOOKED_AT_PER_TURN == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*waiting)

    async def _recheck(self, stream: OpenStream) -> None:
        try:
            caller = await self._identity.identify(stream.call)
            if caller.principal != stream.caller.principal:
                raise Unauthenticated(
                    "IDENTITY_CHANGED", "the credential stands for another principal now; open the stream again"
                )
            stream.caller = caller
            if stream.request is not None:
                await self._policy.require(caller, stream.route.rule, stream.request)
            elif stream.route.rule.each:
                self._policy.require_loaded()
        except VaultdError as error:
            self._end(stream, error)

    def _end(self, stream: OpenStream, error: VaultdError) -> None:
        if stream in self._streams:  # else it has ended by itself meanwhile, and its task does something else
            stream.end(error)

    def drain(self) -> None:
        """The server stops: no stream begins any more, and those that are open end and say so."""
        self._draining = True
        for stream in list(self._streams):
            stream.drain(_draining())


def _stalled() -> Aborted:
    return Aborted(
        "READER_STALLED",
        "the caller did not read what was sent to it; open the stream again, and read while it is open",
    )


def _draining() -> Unavailable:
    return Unavailable(
        "SERVER_DRAINING",
        "the server is stopping: open the stream again, there or at another node, and go on from what was last received",
        retry_after_s=0.5,
    )
