"""`vaultctl health`: grpc.health.v1, as load balancers ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.failures import FAILED

if TYPE_CHECKING:
    from vaultd_client.ctl.session import Session

STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


@click.command(cls=Command)
@click.argument("component", default="")
@click.pass_context
def health(context: click.Context, component: str) -> None:
    """Ask whether the server serves, or a COMPONENT of it: storage, audit, seal, hsm:NAME, crl:NAME, issuer:ID.

    Needs no permission. Exit code 1 when it does not serve.
    """
    session: Session = context.obj
    status = ask_health(session, component)
    if session.output in {"json", "yaml"}:
        from vaultd_client.ctl.output import Printer

        Printer(session.output).document({"component": component, "status": status})
    else:
        click.echo(status)
    context.exit(0 if status == "SERVING" else FAILED)


def ask_health(session: Session, component: str) -> str:
    """The status of a component; raises VaultdError."""
    import grpc
    from google.protobuf.wrappers_pb2 import Int32Value, StringValue

    from vaultd_client.errors import error_of_call

    # HealthCheckRequest and HealthCheckResponse have one field each, with the numbers and wire types of these wrappers.
    method = "/grpc.health.v1.Health/Check"
    with session.channel() as channel:
        check = channel.unary_unary(method, StringValue.SerializeToString, Int32Value.FromString)
        try:
            answer = check(StringValue(value=component), timeout=session.timeout_s, metadata=session.call_metadata())
        except grpc.RpcError as failed:
            error: Any = failed
            raise error_of_call(error.code().name, error.details() or "", error.trailing_metadata(), method) from None
    return STATUSES[answer.value] if answer.value < len(STATUSES) else "UNKNOWN"
