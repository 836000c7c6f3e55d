"""What a host hands to the chain, and what it gets back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


class Peer(NamedTuple):
    """The other end of the connection, as the transport verified it.

    address: for the audit log only.  certificates: the client's chain in PEM, leaf first; b"" when there is none.
    """

    address: str
    certificates: bytes


class ReaderGone(Exception):
    """Nothing can be sent any more: the caller or its connection is gone."""


class Call:
    """One call, on its way through the chain."""

    __slots__ = ("answer", "deadline", "metadata", "method", "peer", "receive", "send", "sent")

    def __init__(
        self,
        method: str,
        peer: Peer,
        metadata: Sequence[tuple[str, str | bytes]],
        deadline: float | None,
        receive: Callable[..., Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """`deadline` is the client's, in `time.monotonic()` seconds; `receive` gives the next raw message, None at the end; it may
        be given what is told, while more is waited for, how much there is of a message that is not whole, where the host knows.

        `send` is for streams: it takes as long as the reader does, and raises ReaderGone.
        """
        self.method = method
        self.peer = peer
        self.metadata = metadata
        self.deadline = deadline
        self.receive = receive
        self.send = send
        self.answer: Callable[[Reply], None] | None = None
        """Set by a host that can answer a unary call later: `Chain.unary` may return HELD, and gives the answer to this when the
        round of the event loop is over, in which the call was served."""
        self.sent: Callable[[], None] | None = None
        """Set with a large answer: the host calls it once, when the answer is on the wire or will never be."""


class Reply(NamedTuple):
    """What the host sends.  `code` is a gRPC status code; with any but 0 there is no body."""

    body: bytes
    code: int
    text: str
    trailing: tuple[tuple[str, str | bytes], ...]
