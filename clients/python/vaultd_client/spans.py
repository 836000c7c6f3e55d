"""A client span for each call, where the program has a provider of OpenTelemetry.  Nothing is imported to find out.

Names are those of the server's spans (docs/tracing.md).  Nothing of a request or of an answer gets into a span, and no name of a
resource: method, endpoint, status, and how the call travelled.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from vaultd_client.errors import VaultdError
from vaultd_client.info import CallInfo
from vaultd_client.trace import traceparent_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, Tracer

    from vaultd_client.batching import Waiting
    from vaultd_client.method import Method
    from vaultd_client.settings import TraceProvider


LOOK_AGAIN_S: Final = 1.0
"""Asking for the provider while there is none costs 5 us."""


class Tracing:
    """Begins the spans of one client.  While the program has no provider that costs a look at `sys.modules`, or at the clock: a
    provider that is set after the first call is found within a second.
    """

    __slots__ = ("_look_again_s", "_monotonic_s", "_tracer")

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._look_again_s = 0.0
        self._tracer: Tracer | None = None

    def begin(self, method: Method[Any, Any], request: Any, info: CallInfo | None) -> TracedCall | None:
        """The span of a call, to be entered; None while nobody would see it.  `info` is the caller's, and filled at the end."""
        if self._tracer is None:
            self._tracer = self._find()
            if self._tracer is None:
                return None
        items = len(request.items) if method.single is not None else 1
        return TracedCall(self._tracer, method, items, info)

    def _find(self) -> Tracer | None:
        trace = sys.modules.get("opentelemetry.trace")
        if trace is None or self._monotonic_s() < self._look_again_s:
            return None
        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):  # nothing but a promise
            self._look_again_s = self._monotonic_s() + LOOK_AGAIN_S
            return None
        tracer: Tracer = trace.get_tracer("vaultd_client", tracer_provider=provider)
        return tracer


class TracedCall(CallInfo):
    """A call and its span: begun with it, ended where the `with` block ends.

    items: of a batch that the caller made, and of one that the call travels in.
    """

    __slots__ = ("_info", "_span", "_tracer")

    def __init__(
        self,
        tracer: Tracer,
        method: Method[Any, Any],
        items: int,
        info: CallInfo | None = None,
        above: Context | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        super().__init__(items=items)
        from opentelemetry.trace import SpanKind

        self._info = info
        self._tracer = tracer
        name = method.path.removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        self._span: Span = tracer.start_span(name, above, SpanKind.CLIENT, attributes, links)

    @property
    def traceparent(self) -> str | None:
        """What the server is told to be below."""
        return traceparent_of(self._span.get_span_context())

    def repeated(self, error: VaultdError, wait_s: float) -> None:
        """Note that it is sent again, and why."""
        attributes: dict[str, str | int] = {
            "rpc.response.status_code": error.code,
            "vaultd.attempt": self.attempts,
            "vaultd.delay_ms": round(wait_s * 1000),
        }
        if error.reason:
            attributes["vaultd.reason"] = error.reason
        self._span.add_event("retry", attributes)

    def batch_of(self, method: Method[Any, Any], together: Sequence[TracedCall]) -> TracedCall:
        """The call of a batch in which these travel: below this one, and linked with all."""
        from opentelemetry.trace import Link, set_span_in_context

        links = [Link(one._span.get_span_context()) for one in together]  # of its own kind
        return TracedCall(self._tracer, method, len(together), None, set_span_in_context(self._span), links)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from opentelemetry.trace import Status, StatusCode

        span, code = self._span, _code_of(error)
        host, _, port = self.address.rpartition(":")
        if host:
            span.set_attributes({"server.address": host.strip("[]"), "server.port": int(port) if port.isdigit() else 0})
        span.set_attribute("rpc.response.status_code", code)
        if self.items > 1:
            span.set_attribute("vaultd.items", self.items)
        if self.attempts > 1:
            span.set_attribute("vaultd.attempts", self.attempts)
        if isinstance(error, VaultdError):
            self.request_id = error.request_id or self.request_id
            if error.reason:
                span.set_attribute("vaultd.reason", error.reason)
        if self.request_id:
            span.set_attribute("vaultd.request_id", self.request_id)
        if error is not None and not isinstance(error, GeneratorExit):  # who reads no further has what they wanted
            span.set_attribute("error.type", code)
            span.set_status(Status(StatusCode.ERROR))
        span.end()
        if self._info is not None:
            self._info.take_from(self, self.items)


@contextmanager
def whole_stream(
    tracing: Tracing | None, method: Method[Any, Any], info: CallInfo | None, trace: TraceProvider
) -> Iterator[tuple[CallInfo | None, str | None]]:
    """While a stream is open: what is known of it, and the trace context that it carries."""
    traced = None if tracing is None else tracing.begin(method, None, info)
    if traced is None:
        yield info, trace()
        return
    with traced:
        yield traced, traced.traceparent


@contextmanager
def whole_batch(method: Method[Any, Any], batch: Sequence[Waiting]) -> Iterator[tuple[CallInfo, str | None]]:
    """While a batch is called: what is known of that call, and the trace context that it carries.

    There is room for one header: a batch of several traces carries that of its first call.
    """
    traced = [one.info for one in batch if isinstance(one.info, TracedCall)]
    if not traced:
        yield CallInfo(), next((one.traceparent for one in batch if one.traceparent is not None), None)
        return
    with traced[0].batch_of(method, traced) as call:
        call.items = len(batch)
        yield call, call.traceparent


def _code_of(error: BaseException | None) -> str:
    if error is None:
        return "OK"
    if isinstance(error, VaultdError):
        return error.code
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "CANCELLED"
    return "UNKNOWN"
