"""Every error that the SDK raises about a call.

    VaultdError                code, reason, text, request_id, retry_delay_s, field_violations, metadata
      InvalidArgument          INVALID_ARGUMENT
        DecryptionFailed         reason DECRYPTION_FAILED
      Unauthenticated          UNAUTHENTICATED
      PermissionDenied         PERMISSION_DENIED
      NotFound                 NOT_FOUND
      AlreadyExists            ALREADY_EXISTS
      FailedPrecondition       FAILED_PRECONDITION
      Aborted                  ABORTED: somebody else changed it first
      ResourceExhausted        RESOURCE_EXHAUSTED: a quota or a limit
      Unavailable              UNAVAILABLE
        CircuitOpen              no endpoint is tried now; nothing was sent
      DeadlineExceeded         DEADLINE_EXCEEDED
      Cancelled                CANCELLED by the server, or the connection was closed under the call
      OutOfRange               OUT_OF_RANGE: the feed of changes does not reach there
      Unimplemented            UNIMPLEMENTED: the server is older than the RPC
      InternalError            INTERNAL, or UNKNOWN
      DataLoss                 DATA_LOSS
        ChecksumMismatch         an answer is not what the server computed; it is not handed out
    UsageError                 the client is used where it cannot work
      ClientClosed             after close()
      ForkedClient             in a process that was forked after the client was made
      WrongEventLoop           from another event loop than the one of its first call
    ConfigurationError         settings, or files, that make no client

Reasons are stable, and listed in docs/errors.md; those of the SDK itself are UNREACHABLE, CIRCUIT_OPEN, DEADLINE_EXCEEDED and
ANSWER_CHECKSUM_MISMATCH.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from google.rpc import error_details_pb2, status_pb2

from vaultd_client.info import REQUEST_ID_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

DETAILS_KEY: Final = "grpc-status-details-bin"


class ConfigurationError(ValueError):
    """The settings, or the files that they name, make no client; the text says which and why."""


class UsageError(RuntimeError):
    """The client is used where it cannot work."""


class ClientClosed(UsageError):
    """The client was closed."""


class ForkedClient(UsageError):
    """This process was forked after the client was made: connections and threads of gRPC do not survive that."""


class WrongEventLoop(UsageError):
    """The client belongs to the event loop of its first call."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request, and what is wrong with it."""

    field: str
    description: str


@dataclass(slots=True)
class Refusal:
    """What is known of a refused call.

    code: name of the gRPC code.  reason: stable, empty when what refused was no vaultd.  retry_delay_s: how long the server asks
    us to wait, None when it does not say that waiting helps.  answered: whether a vaultd refused, and not the way to it.
    """

    code: str
    text: str
    reason: str = ""
    request_id: str = ""
    retry_delay_s: float | None = None
    field_violations: tuple[FieldViolation, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    answered: bool = False


class VaultdError(Exception):
    """A call failed."""

    code: ClassVar[str] = "UNKNOWN"

    def __init__(self, refusal: Refusal, method: str = "") -> None:
        told = f"{refusal.reason}: {refusal.text}" if refusal.reason else refusal.text
        fields = ", ".join(one.field for one in refusal.field_violations)
        request = f" [request {refusal.request_id}]" if refusal.request_id else ""
        super().__init__(f"{told}{f' (at {fields})' if fields else ''}{request}")
        self.refusal = refusal
        self.method = method

    @property
    def reason(self) -> str:
        """The stable reason, such as KEY_VERSION_DISABLED."""
        return self.refusal.reason

    @property
    def text(self) -> str:
        """What happened and what to do next, for people."""
        return self.refusal.text

    @property
    def request_id(self) -> str:
        """What the server calls this call; empty when no server answered."""
        return self.refusal.request_id

    @property
    def retry_delay_s(self) -> float | None:
        """How long the server asks to wait, in seconds; None when it does not say that waiting helps."""
        return self.refusal.retry_delay_s

    @property
    def field_violations(self) -> tuple[FieldViolation, ...]:
        """The fields that are wrong."""
        return self.refusal.field_violations

    @property
    def metadata(self) -> dict[str, str]:
        """More about the reason, such as `incident` or `approval`."""
        return self.refusal.metadata

    def again(self) -> VaultdError:
        """A new error that says the same: each of many callers raises one of its own."""
        return type(self)(self.refusal, self.method)


class InvalidArgument(VaultdError):
    """The request can never succeed as it is."""

    code = "INVALID_ARGUMENT"


class DecryptionFailed(InvalidArgument):
    """The ciphertext does not open with this key and this associated data."""


class Unauthenticated(VaultdError):
    """The server accepts no identity of ours."""

    code = "UNAUTHENTICATED"


class PermissionDenied(VaultdError):
    """Policy does not allow it, or there is no such thing and we may not know."""

    code = "PERMISSION_DENIED"


class NotFound(VaultdError):
    """It does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(VaultdError):
    """It exists."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(VaultdError):
    """Its state does not permit the call."""

    code = "FAILED_PRECONDITION"


class Aborted(VaultdError):
    """Somebody else changed it first: read it again."""

    code = "ABORTED"


class ResourceExhausted(VaultdError):
    """A quota or a limit is used up."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(VaultdError):
    """The server cannot answer now, or cannot be reached."""

    code = "UNAVAILABLE"


class CircuitOpen(Unavailable):
    """Every endpoint failed lately, and none is tried now.  Nothing was sent."""


class DeadlineExceeded(VaultdError):
    """There was no answer in time; what was asked may still happen."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(VaultdError):
    """The call was cancelled, and not by its caller."""

    code = "CANCELLED"


class OutOfRange(VaultdError):
    """A watch cannot begin there: read anew, and watch from now on."""

    code = "OUT_OF_RANGE"


class Unimplemented(VaultdError):
    """The server does not have this RPC."""

    code = "UNIMPLEMENTED"


class InternalError(VaultdError):
    """A fault of the server; `metadata["incident"]` names the story in its log."""

    code = "INTERNAL"


class DataLoss(VaultdError):
    """Stored data fails its integrity check."""

    code = "DATA_LOSS"


class ChecksumMismatch(DataLoss):
    """The answer was changed on its way, or in memory; it is not handed out."""


_CLASSES: Final[dict[str, type[VaultdError]]] = {
    each.code: each
    for each in (
        InvalidArgument,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        OutOfRange,
        Unimplemented,
        InternalError,
        DataLoss,
    )
}
_NAMES: Final = {
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}


def make_error(refusal: Refusal, method: str) -> VaultdError:
    """The error of a refusal, of the class of its code."""
    if refusal.reason == "DECRYPTION_FAILED":
        return DecryptionFailed(refusal, method)
    return _CLASSES.get(refusal.code, InternalError)(refusal, method)


def error_of_status(status: status_pb2.Status, method: str, request_id: str = "") -> VaultdError:
    """The error of a google.rpc.Status: of a call, or of an item of a batch."""
    refusal = Refusal(_NAMES.get(status.code, "UNKNOWN"), status.message, request_id=request_id)
    _read_details(refusal, status)
    return make_error(refusal, method)


def error_of_call(code: str, text: str, trailing: Iterable[tuple[str, Any]] | None, method: str) -> VaultdError:
    """The error of a call that failed, from its code, text and trailing metadata."""
    refusal = Refusal(code, text)
    for key, value in trailing or ():
        if key == REQUEST_ID_KEY:
            refusal.request_id, refusal.answered = str(value), True
        elif key == DETAILS_KEY:
            status = status_pb2.Status()
            status.ParseFromString(value)
            _read_details(refusal, status)
    if code == "UNAVAILABLE" and not refusal.reason:
        refusal.reason = "UNREACHABLE"
    elif code == "DEADLINE_EXCEEDED" and not refusal.reason:
        refusal.reason, refusal.text = "DEADLINE_EXCEEDED", "there was no answer in time"
    return make_error(refusal, method)


def _read_details(refusal: Refusal, status: status_pb2.Status) -> None:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            refusal.reason, refusal.metadata, refusal.answered = info.reason, dict(info.metadata), True
        elif detail.Unpack(bad):
            violations = (FieldViolation(one.field, one.description) for one in bad.field_violations)
            refusal.field_violations = tuple(violations)
        elif detail.Unpack(retry):
            refusal.retry_delay_s = retry.retry_delay.ToNanoseconds() / 1e9
