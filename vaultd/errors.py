"""Every error that a caller may see.

Each class has one gRPC code; each raise names a stable reason (UPPER_SNAKE, documented in docs/errors.md) and a text that
says what to do next.  Texts never carry input, key material or names of classes.  Anything that is not one of these reaches
the caller as INTERNAL, `internal error`, with an incident id.

    VaultdError
      InvalidArgument        INVALID_ARGUMENT
        DecryptionFailed       one text for every ciphertext that does not open
        InvalidSignature       a signature or MAC that does not verify; services answer `valid: false`
      Unauthenticated        UNAUTHENTICATED
      PermissionDenied       PERMISSION_DENIED
      NotFound               NOT_FOUND, changed to PermissionDenied for callers that may not look
      AlreadyExists          ALREADY_EXISTS
      FailedPrecondition     FAILED_PRECONDITION
      OutOfRange             OUT_OF_RANGE
      Aborted                ABORTED
      ResourceExhausted      RESOURCE_EXHAUSTED
      Unavailable            UNAVAILABLE
      DeadlineExceeded       DEADLINE_EXCEEDED
      Unimplemented          UNIMPLEMENTED
      DataLoss               DATA_LOSS: a stored row was edited, swapped, rolled back or taken away
"""

from __future__ import annotations

from typing import ClassVar


class VaultdError(Exception):
    """An error with a gRPC code, a stable reason and a text that is safe to send."""

    code: ClassVar[str] = "INTERNAL"
    decided_by: str = ""
    """The entry of the policy that refuses, for the audit log.  Never sent."""

    def __init__(
        self,
        reason: str,
        text: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.field = field
        self.retry_after_s = retry_after_s
        self.metadata = metadata or {}


class InvalidArgument(VaultdError):
    """The request can never succeed as it is."""

    code = "INVALID_ARGUMENT"


class DecryptionFailed(InvalidArgument):
    """The ciphertext does not open: truncated, altered, of another key, or with other associated data."""

    def __init__(self) -> None:
        super().__init__(
            "DECRYPTION_FAILED",
            "the ciphertext does not open with this key and associated data",
        )


class InvalidSignature(InvalidArgument):
    """The signature or MAC does not verify."""

    def __init__(self) -> None:
        super().__init__("INVALID_SIGNATURE", "the signature does not verify")


class Unauthenticated(VaultdError):
    """The caller did not show exactly one accepted identity."""

    code = "UNAUTHENTICATED"


class PermissionDenied(VaultdError):
    """Policy does not allow the call, or the resource does not exist and the caller may not know."""

    code = "PERMISSION_DENIED"


class NotFound(VaultdError):
    """The resource does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(VaultdError):
    """The name, or the request id with another body, exists."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(VaultdError):
    """The resource is not in a state that permits the call."""

    code = "FAILED_PRECONDITION"


class OutOfRange(VaultdError):
    """The feed does not reach that far."""

    code = "OUT_OF_RANGE"


class Aborted(VaultdError):
    """Somebody else changed the resource first."""

    code = "ABORTED"


class ResourceExhausted(VaultdError):
    """A quota or a size limit is used up."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(VaultdError):
    """The server cannot answer now: sealed, overloaded, or without its audit log, store or token."""

    code = "UNAVAILABLE"


class DeadlineExceeded(VaultdError):
    """The call's deadline passed, or cannot be met."""

    code = "DEADLINE_EXCEEDED"


class Unimplemented(VaultdError):
    """No such method."""

    code = "UNIMPLEMENTED"


class DataLoss(VaultdError):
    """Stored data fails its integrity check.  Nothing of it is used."""

    code = "DATA_LOSS"
