"""What the commands of `vaultctl` share: where the server is, how a call is made, and how one that failed is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIMEOUT_S = 30.0
StubT = TypeVar("StubT")


def fail(text: str) -> NoReturn:
    """Say why it could not be done, and exit with 2."""
    click.echo(f"vaultctl: {text}", err=True)
    raise SystemExit(2)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the server is, and the files that prove who calls."""

    address: str
    ca: Path | None
    certificate: Path | None
    key: Path | None

    def stub(self, stub: Callable[[Any], StubT]) -> StubT:
        """A stub of a service, by its class; exits when a file cannot be read."""
        if not (self.address and self.ca and self.certificate and self.key):
            fail(
                "say where the server is: --addr, --ca, --cert and --key, or VAULTD_ADDR, VAULTD_CA, VAULTD_CERT, VAULTD_KEY"
            )
        try:
            credentials = grpc.ssl_channel_credentials(
                self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
            )
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}")
        return stub(grpc.secure_channel(self.address, credentials))


def call(method: Callable[..., Any], request: Any) -> Any:
    """Make a call; a refusal is one line with its reason, and exit code 2."""
    try:
        return method(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        fail(told(error))


def told(error: Any) -> str:
    """A refusal in one line: its reason, its text, and the field that it is about."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    text = error.details() or ""
    for detail in status.details:
        if detail.Unpack(info):
            text = f"{info.reason}: {text}"
    for detail in status.details:
        if detail.Unpack(bad):
            text += f" (at {', '.join(violation.field for violation in bad.field_violations)})"
    return f"{error.code().name}: {text}" if not status.details else text
