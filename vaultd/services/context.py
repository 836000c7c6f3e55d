"""What a service may know of a call, besides the request."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from vaultd.engine.ledger import Intent


@dataclass(slots=True)
class Context:
    """Who calls what, and until when (`time.monotonic()` seconds, None for no limit)."""

    principal: str
    method: str
    deadline: float | None

    def intent(self, request: Any) -> Intent:
        """The mutation that a request asks for.  Hashes its canonical encoding, since a retry may order maps anew."""
        body = request.SerializeToString(deterministic=True)
        request_id = getattr(request, "request_id", "")
        return Intent(self.principal, self.method, request_id, hashlib.sha256(body).digest())
