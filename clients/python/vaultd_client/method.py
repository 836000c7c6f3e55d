"""What the generated code stands on: the record of an RPC, and what a client must do for its methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator

    from google.protobuf.message import Message

    from vaultd_client.info import CallInfo

Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")

Checksums = tuple[tuple[str, tuple[str, ...]], ...]
"""The field of a checksum, and the field, or the alternatives, that it covers."""


@dataclass(frozen=True, slots=True, eq=False)
class Method(Generic[Request, Response]):
    """One RPC.

    repeatable: a repeat does no harm as it is.  has_request_id: it does none once `request_id` is filled.  single: of a batch,
    the RPC that each of its items is.
    """

    path: str
    request: type[Request]
    response: type[Response]
    repeatable: bool
    has_request_id: bool = False
    checksums: Checksums = ()
    answer_checksums: Checksums = ()
    single: Method[Any, Any] | None = None

    @property
    def may_retry(self) -> bool:
        """Whether a call whose fate is unknown may be sent again, its request id being filled."""
        return self.repeatable or self.has_request_id


class AsyncCalls(Protocol):
    """How the generated async methods make their calls."""

    __slots__ = ()

    async def _unary(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> Response: ...

    def _server_stream(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> AsyncIterator[Response]: ...

    def _bidi_stream(
        self,
        method: Method[Request, Response],
        requests: AsyncIterable[Request],
        timeout_s: float | None,
        info: CallInfo | None,
    ) -> AsyncIterator[Response]: ...

    async def _client_stream(
        self,
        method: Method[Request, Response],
        requests: AsyncIterable[Request],
        timeout_s: float | None,
        info: CallInfo | None,
    ) -> Response: ...


class SyncCalls(Protocol):
    """How the generated blocking methods make their calls."""

    __slots__ = ()

    def _unary(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> Response: ...

    def _server_stream(
        self, method: Method[Request, Response], request: Request, timeout_s: float | None, info: CallInfo | None
    ) -> Iterator[Response]: ...

    def _bidi_stream(
        self,
        method: Method[Request, Response],
        requests: Iterable[Request],
        timeout_s: float | None,
        info: CallInfo | None,
    ) -> Iterator[Response]: ...

    def _client_stream(
        self,
        method: Method[Request, Response],
        requests: Iterable[Request],
        timeout_s: float | None,
        info: CallInfo | None,
    ) -> Response: ...
