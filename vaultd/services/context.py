"""What a service may know of a call, besides the request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vaultd.engine.ledger import Intent

if TYPE_CHECKING:
    from vaultd.engine.caller import Caller


@dataclass(slots=True)
class Context:
    """Who calls what, and until when (`time.monotonic()` seconds, None for no limit)."""

    caller: Caller
    method: str
    deadline: float | None

    @property
    def principal(self) -> str:
        """The caller's name."""
        return self.caller.principal

    def intent(self, request: Any) -> Intent:
        """The mutation that a request asks for.  Hashes its canonical encoding, since a retry may order maps anew."""
        body = request.SerializeToString(deterministic=True)
        request_id = getattr(request, "request_id", "")
        return Intent(self.principal, self.method, request_id, hashlib.sha256(body).digest())


@dataclass(slots=True)
class StreamContext(Context):
    """A call that answers with many messages.

    resume: what its reader needs to go on elsewhere; the status of a stream that the server ends carries it.
    """

    resume: dict[str, str] = field(default_factory=dict)
