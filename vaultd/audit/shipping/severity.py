"""How much a record matters, in one scale for every format."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Severity(Enum):
    """From what happens all day to what nobody may miss."""

    INFO = "info"
    """Something was done as asked."""
    NOTICE = "notice"
    """The server did something by itself."""
    WARNING = "warning"
    """Somebody was refused."""
    ERROR = "error"
    """The server could not do what it should."""
    CRITICAL = "critical"
    """Data or records are gone, or were touched."""


_CODES: Final = {
    "OK": Severity.INFO,
    "CANCELLED": Severity.INFO,
    "NOT_FOUND": Severity.INFO,
    "ALREADY_EXISTS": Severity.INFO,
    "ABORTED": Severity.INFO,
    "INTERNAL": Severity.ERROR,
    "UNAVAILABLE": Severity.ERROR,
    "DEADLINE_EXCEEDED": Severity.ERROR,
    "DATA_LOSS": Severity.CRITICAL,
}
_EVENTS: Final = {
    "intent": Severity.INFO,
    "refusals_folded": Severity.WARNING,
    "hsm_not_serving": Severity.ERROR,
    "issuer_keys_stale": Severity.ERROR,
    "crl_stale": Severity.ERROR,
    "audit_sink_not_serving": Severity.ERROR,
    "unseal_failed": Severity.ERROR,
    "load_shedding_began": Severity.WARNING,
    "recovered": Severity.CRITICAL,
    "segment_abandoned": Severity.CRITICAL,
    "segment_restored": Severity.CRITICAL,
    "restore_accepted": Severity.CRITICAL,
    "checkpoint": Severity.INFO,
    "open": Severity.INFO,
    "chain_started": Severity.CRITICAL,
    "audit_chain_lost": Severity.CRITICAL,
    "sibling_heads": Severity.INFO,
}


def severity_of(fields: Mapping[str, Any]) -> Severity:
    """Of a call, by its code; of another event, by its name."""
    code = fields.get("code")
    if isinstance(code, str):
        return _CODES.get(code, Severity.WARNING)
    event = fields.get("event")
    return _EVENTS.get(event, Severity.NOTICE) if isinstance(event, str) else Severity.NOTICE
