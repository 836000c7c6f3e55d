"""The one place where an error becomes a status.  Whatever is not a VaultdError is INTERNAL, and says nothing but its incident."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from vaultd.errors import Unavailable, VaultdError

if TYPE_CHECKING:
    from collections.abc import Callable

DOMAIN: Final = "vaultd"
DETAILS_KEY: Final = "grpc-status-details-bin"
CODES: Final = {
    "OK": 0,
    "CANCELLED": 1,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "DATA_LOSS": 15,
    "UNAUTHENTICATED": 16,
}


class Internal(VaultdError):
    """A fault of ours.  The log has the story under the incident id; the caller gets the id and no more."""

    code = "INTERNAL"

    def __init__(self, incident: str) -> None:
        super().__init__("INTERNAL", "internal error", metadata={"incident": incident})


def known_error(error: BaseException, on_incident: Callable[[str, BaseException], None]) -> VaultdError:
    """The error itself when it may be sent, else an Internal whose incident is reported to `on_incident`."""
    if isinstance(error, VaultdError):
        return error
    incident = secrets.token_hex(8)
    on_incident(incident, error)
    return Internal(incident)


def status_of(error: VaultdError) -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo always, the others where they say more (AIP-193)."""
    details = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata),
    ]
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.text)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(max(1, int(error.retry_after_s * 1000)))
        details.append(retry)
    if "quota" in error.metadata:
        subject = error.metadata.get("subject", "")
        exceeded = error_details_pb2.QuotaFailure.Violation(subject=subject, description=error.text)
        details.append(error_details_pb2.QuotaFailure(violations=[exceeded]))
    status = status_pb2.Status(code=CODES[error.code], message=error.text)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def audit_unavailable() -> Unavailable:
    """The answer to every call that cannot be recorded."""
    return Unavailable(
        "AUDIT_UNAVAILABLE", "the audit log cannot be written; no answer is given without it", retry_after_s=1
    )
