"""grpc.health.v1: the server as a whole (``), each service, and each component (`storage`, `audit`, `seal`, `hsm:NAME`, ...)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health_pb2 as pb

from vaultd.errors import NotFound, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from vaultd.services.context import Context

COMPONENTS: Final = ("storage", "audit", "seal")
WHOLE: Final = ""
MAX_WATCHED: Final = 100


class HealthBoard:
    """What is serving.  The whole serves when every component does and the server is not draining.

    A slot's token (`hsm:NAME`) is a component that the whole does without: only the keys in it are out of reach.  So is an
    audit sink (`audit:NAME`) that not every call needs.
    """

    def __init__(
        self,
        services: Iterable[str],
        slots: Iterable[str] = (),
        needed: Iterable[str] = (),
        on_change: Callable[[str, bool], None] | None = None,
    ) -> None:
        """`needed` are components besides COMPONENTS that the whole does not do without; `on_change` hears of each change."""
        needed = tuple(needed)
        slots = tuple(slot for slot in slots if slot not in needed)
        self._services = tuple(services)
        self._components = dict.fromkeys((*COMPONENTS, *needed, *slots), False)
        self._slots = frozenset(slots)
        self.draining = False
        self._changed = asyncio.Event()
        self._on_change = on_change

    def set(self, component: str, serving: bool) -> None:
        """Report a component."""
        if self._components.get(component) != serving:
            self._components[component] = serving
            if self._on_change is not None:
                self._on_change(component, serving)
            self._wake()

    def drain(self) -> None:
        """NOT_SERVING from now on, whatever the components say."""
        self.draining = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def components(self) -> dict[str, bool]:
        """Each component, and whether it serves."""
        return dict(self._components)

    def serving(self, name: str) -> bool | None:
        """Whether a name serves; None when there is no such name."""
        if name in self._components:
            return self._components[name] and not self.draining
        if name == WHOLE or name in self._services:
            needed = (serving for name, serving in self._components.items() if name not in self._slots)
            return all(needed) and not self.draining
        return None

    def names(self) -> list[str]:
        """Every name that can be asked for."""
        return [WHOLE, *self._services, *self._components]

    @property
    def next_change(self) -> asyncio.Event:
        """Set once something changes from now on: take it before looking, and no change is missed."""
        return self._changed


def _answer(serving: bool | None) -> pb.HealthCheckResponse:
    if serving is None:
        return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
    status = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
    return pb.HealthCheckResponse(status=status)


class HealthService:
    """Check, Watch, and List where the installed grpcio-health-checking has it."""

    def __init__(self, board: HealthBoard) -> None:
        self._board = board
        self._watching = 0

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        del context
        serving = self._board.serving(request.service)
        if serving is None:
            raise NotFound("HEALTH_SERVICE_UNKNOWN", "no such health name; the README lists them")
        return _answer(serving)

    async def List(self, request: Any, context: Context) -> Any:
        del request, context
        response = pb.HealthListResponse()
        for name in self._board.names():
            response.statuses[name].CopyFrom(_answer(self._board.serving(name)))
        return response

    async def Watch(
        self, requests: AsyncIterator[pb.HealthCheckRequest], context: Context
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        del context
        if self._watching >= MAX_WATCHED:
            raise ResourceExhausted("TOO_MANY_WATCHERS", "too many health watchers; use Check", retry_after_s=10)
        self._watching += 1
        try:
            async for request in requests:
                last: bool | str | None = "none yet"
                while True:
                    # A yield takes as long as the client does: what changes meanwhile is seen in the next turn.
                    changed, draining = self._board.next_change, self._board.draining
                    serving = self._board.serving(request.service)
                    if serving != last:
                        last = serving
                        yield _answer(serving)
                    if draining:
                        return  # told, and not to be waited for
                    await changed.wait()
        finally:
            self._watching -= 1
