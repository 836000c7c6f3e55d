"""Request ids, and the trace that a caller says the call belongs to (W3C Trace Context)."""

from __future__ import annotations

import itertools
import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

REQUEST_ID_KEY: Final = "vaultd-request-id"
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class RequestIds:
    """Ids that no other process and no other call has: random per process, counted per call."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count(1)

    def fresh(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"


def trace_id(metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """The trace id of `traceparent`, or an empty string when there is none or it is malformed."""
    for key, value in metadata:
        if key == "traceparent" and isinstance(value, str):
            match = _TRACEPARENT.fullmatch(value)
            return match[1] if match else ""
    return ""
