"""How vaultctl says that something could not be done, and what it exits with.

0    done; equal, valid, clean
1    refused or failed; different, not valid, found
2    the command line, the configuration or a file is wrong: nothing was asked
3    it does not exist
4    not allowed, or not known who asks
5    its state, or a change by somebody else, is in the way
6    not now: the server is not reached, sealed, busy or too slow
130  interrupted
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from vaultd_client.errors import VaultdError

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
EXIT_CODES: Final = {
    "NOT_FOUND": 3,
    "PERMISSION_DENIED": 4,
    "UNAUTHENTICATED": 4,
    "ALREADY_EXISTS": 5,
    "FAILED_PRECONDITION": 5,
    "ABORTED": 5,
    "UNAVAILABLE": 6,
    "RESOURCE_EXHAUSTED": 6,
    "DEADLINE_EXCEEDED": 6,
}
"""By gRPC code; every other one is 1."""
HINTS: Final = {
    "UNREACHABLE": "`vaultctl doctor` looks for the cause",
    "CIRCUIT_OPEN": "`vaultctl doctor` looks for the cause",
    "SEALED": "an operator opens it with `vaultctl admin unseal`",
}


class Refused(Exception):
    """It was not done, and the text says why and what to do; nothing else needs to be shown."""

    def __init__(self, text: str, exit_code: int = USAGE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class RefusedCall(Exception):
    """A call that was refused, and what the command knows of what to do next."""

    def __init__(self, error: VaultdError, hint: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        self.hint = hint


def fail(text: str, exit_code: int = USAGE) -> NoReturn:
    """Say why it could not be done, and exit."""
    raise Refused(text, exit_code)


def describe(error: VaultdError, hint: str = "") -> dict[str, Any]:
    """All that is known of a refused call, by name; what is not known is left out."""
    refusal = error.refusal
    told: dict[str, Any] = {
        "code": refusal.code,
        "reason": refusal.reason,
        "text": refusal.text,
        "fields": [{"field": one.field, "description": one.description} for one in refusal.field_violations],
        "metadata": refusal.metadata,
        "request_id": refusal.request_id,
        "retry_delay_s": refusal.retry_delay_s,
        "next": hint or hint_of(error),
        "exit_code": EXIT_CODES.get(refusal.code, FAILED),
    }
    return {name: value for name, value in told.items() if value not in ("", None, [], {})}


def hint_of(error: VaultdError) -> str:
    """What to do next, where vaultctl knows more of that than the server's text says."""
    refusal = error.refusal
    if refusal.reason in HINTS:
        return HINTS[refusal.reason]
    if refusal.metadata.get("approval"):
        return f"once {refusal.metadata['approval']} is approved, send the same command again"
    if refusal.code == "PERMISSION_DENIED" and refusal.request_id:
        return f"`vaultctl policy explain --incident-id {refusal.request_id}` says which permission is missing"
    return ""


def lines_of(told: dict[str, Any]) -> list[str]:
    """What `describe` told, for people: what, and below it what is known besides."""
    fields = ", ".join(one["field"] for one in told.get("fields", ()))
    first = f"{told.get('reason') or told['code']}: {told.get('text', '')}"
    lines = [f"{first} (at {fields})" if fields else first]
    if "retry_delay_s" in told:
        lines.append(f"  again in: {told['retry_delay_s']:g} s")
    if "next" in told:
        lines.append(f"  next: {told['next']}")
    if "request_id" in told:
        lines.append(f"  request: {told['request_id']}")
    return lines
