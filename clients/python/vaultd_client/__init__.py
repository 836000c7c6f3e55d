"""Client side of vaultd: `Client` and `AsyncClient`, the errors that they raise, and the generated stubs in `vaultd_client.v1`.

The command `vaultctl` is here, too (vaultctl.py).  No server code may be imported from here.

Names are imported when they are first used: the server imports the stubs from this package before it sets up gRPC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from vaultd_client.aio import AsyncClient
    from vaultd_client.data_keys import DataKeyLimits
    from vaultd_client.envelope import AsyncEnvelopeAead, EnvelopeAead
    from vaultd_client.errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        ChecksumMismatch,
        CircuitOpen,
        ClientClosed,
        ConfigurationError,
        DataLoss,
        DeadlineExceeded,
        DecryptionFailed,
        FailedPrecondition,
        FieldViolation,
        ForkedClient,
        InternalError,
        InvalidArgument,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        UsageError,
        VaultdError,
        WrongEventLoop,
    )
    from vaultd_client.info import CallInfo
    from vaultd_client.local_keys import AsyncLocalKeys, LocalKeys
    from vaultd_client.secret_cache import AsyncSecretCache, SecretCache, SecretValue
    from vaultd_client.settings import BatchLimits, TokenFile
    from vaultd_client.sync import Client
    from vaultd_client.watching import Freshness

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "AsyncEnvelopeAead",
    "AsyncLocalKeys",
    "AsyncSecretCache",
    "BatchLimits",
    "CallInfo",
    "Cancelled",
    "ChecksumMismatch",
    "CircuitOpen",
    "Client",
    "ClientClosed",
    "ConfigurationError",
    "DataKeyLimits",
    "DataLoss",
    "DeadlineExceeded",
    "DecryptionFailed",
    "EnvelopeAead",
    "FailedPrecondition",
    "FieldViolation",
    "ForkedClient",
    "Freshness",
    "InternalError",
    "InvalidArgument",
    "LocalKeys",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "SecretCache",
    "SecretValue",
    "TokenFile",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UsageError",
    "VaultdError",
    "WrongEventLoop",
]

_PLACES: Final = {
    "AsyncClient": "aio",
    "AsyncEnvelopeAead": "envelope",
    "AsyncLocalKeys": "local_keys",
    "AsyncSecretCache": "secret_cache",
    "LocalKeys": "local_keys",
    "SecretCache": "secret_cache",
    "SecretValue": "secret_cache",
    "DataKeyLimits": "data_keys",
    "EnvelopeAead": "envelope",
    "Client": "sync",
    "CallInfo": "info",
    "BatchLimits": "settings",
    "Freshness": "watching",
    "TokenFile": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
