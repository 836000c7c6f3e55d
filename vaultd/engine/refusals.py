"""The newest refused calls, so that somebody who was refused can be told why.  In memory, bounded, and without payloads."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vaultd.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vaultd.engine.clock import Clock

MAX_REFUSALS: Final = 10_000
MAX_PER_PRINCIPAL: Final = 100
MAX_RESOURCES: Final = 16


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused call: names that were validated, and how it ended."""

    request_id: str
    incident: str
    principal: str
    method: str
    resources: tuple[str, ...]
    code: str
    reason: str
    at_us: int


async def _nowhere(id: str) -> Refusal | None:
    """There is no neighbour."""
    del id
    return None


class RefusalLog:
    """The newest refusals by request id and by incident id.  A flood of one principal pushes out its own only."""

    def __init__(self, clock: Clock, elsewhere: Callable[[str], Awaitable[Refusal | None]] = _nowhere) -> None:
        """`elsewhere` asks the neighbours of this process, whose calls these may have been."""
        self._clock = clock
        self._elsewhere = elsewhere
        self._by_id: OrderedDict[str, Refusal] = OrderedDict()
        self._incidents: dict[str, str] = {}
        self._of: dict[str, deque[str]] = {}

    def note(
        self,
        request_id: str,
        principal: str,
        method: str,
        resources: tuple[str, ...],
        code: str,
        reason: str,
        incident: str = "",
    ) -> None:
        """Remember a refusal; of a call that is noted twice, the second."""
        if request_id in self._by_id:
            self._drop(request_id)
        mine = self._of.setdefault(principal, deque())
        if len(mine) >= MAX_PER_PRINCIPAL:
            self._drop(mine[0])
        elif len(self._by_id) >= MAX_REFUSALS:
            self._drop(next(iter(self._by_id)))
        mine = self._of.setdefault(principal, deque())
        mine.append(request_id)
        self._by_id[request_id] = Refusal(
            request_id, incident, principal, method, resources[:MAX_RESOURCES], code, reason, self._clock.now_us()
        )
        if incident:
            self._incidents[incident] = request_id

    def _drop(self, request_id: str) -> None:
        refusal = self._by_id.pop(request_id)
        if self._incidents.get(refusal.incident) == request_id:
            del self._incidents[refusal.incident]
        mine = self._of[refusal.principal]
        mine.remove(request_id)
        if not mine:
            del self._of[refusal.principal]

    def known(self, id: str) -> Refusal | None:
        """The refusal of a request id or an incident id, where this process remembers it."""
        return self._by_id.get(self._incidents.get(id, id))

    async def find(self, id: str) -> Refusal:
        """The refusal of a request id or an incident id, here or elsewhere; raises NotFound."""
        return self.known(id) or await self._elsewhere(id) or self.get(id)

    def get(self, id: str) -> Refusal:
        """The refusal of a request id or an incident id; raises NotFound."""
        refusal = self.known(id)
        if refusal is None:
            raise refusal_not_found()
        return refusal


def refusal_not_found() -> NotFound:
    """The one error for an id that is unknown and for one of somebody else's call."""
    return NotFound(
        "REFUSAL_NOT_FOUND",
        "this node remembers no refused call of yours with that id; the newest are kept, until the server restarts",
    )
