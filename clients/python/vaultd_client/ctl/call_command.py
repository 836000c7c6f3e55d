"""`vaultctl call`: any RPC, with its request in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.api import Rpc, rpc_names, rpc_of
from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.flags import json_of
from vaultd_client.ctl.types import ParameterType

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vaultd_client.ctl.session import Session


class MethodName(ParameterType):
    """An RPC: `GetKey`, `KeysService/GetKey` or `/vaultd.v1.KeysService/GetKey`."""

    name = "method"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Rpc:
        """The RPC of the name."""
        if isinstance(value, Rpc):
            return value
        text = str(value)
        name = text.rpartition("/")[2].rpartition(".")[2]
        if name not in rpc_names() or not rpc_of(name).path.endswith(text if "/" in text else f"/{name}"):
            self.fail(f"there is no RPC `{value}`", param, ctx)
        return rpc_of(name)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """RPCs that begin so."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in rpc_names() if name.startswith(incomplete)]


@click.command(cls=Command)
@click.argument("method", type=MethodName())
@click.option(
    "--json",
    "documents",
    multiple=True,
    metavar="JSON",
    help="The request as proto JSON, or @FILE, or @- for standard input; `{}` by default. Several for an RPC that takes a stream.",
)
@click.option("--yes", is_flag=True, help="Do not ask before what cannot be undone.")
@click.pass_obj
def call(session: Session, method: Rpc, documents: tuple[str, ...], yes: bool) -> None:
    """Call METHOD, such as GetKey, and print its answer as JSON; one a line where it is a stream.

    A request_id is filled in where the request has one.
    """
    from vaultd_client.ctl.calls import send
    from vaultd_client.ctl.catalogue import VERBS
    from vaultd_client.ctl.confirm import confirm
    from vaultd_client.ctl.output import Printer
    from vaultd_client.ctl.repeating import fresh_request_id, repeatable
    from vaultd_client.ctl.running import method_of, parse

    record = method_of(method.snake)
    requests = [parse(json_of(text), record.request) for text in documents or ("{}",)]
    printer = Printer(session.output or "json")
    client = session.client()
    if method.client_streaming:
        for answer in getattr(client, method.snake)(requests):
            printer.line(answer)
        return
    if len(requests) != 1:
        raise click.UsageError(f"{method.name} takes one request")
    (verb,) = (one for one in VERBS if one.rpc == method.name)
    if verb.loses or method.name in {"SetPolicy", "SetApprovalRules"}:
        confirm(f"{method.name} cannot be undone by calling it again. Go on?", yes=yes, look_at="the request")
    request: Any = requests[0]
    if record.has_request_id and not request.request_id:
        request.request_id = fresh_request_id()
    with repeatable(f'"request_id": "{request.request_id}" in its JSON' if record.has_request_id else ""):
        answer = send(client, method.snake, request)
    if method.server_streaming:
        for one in answer:
            printer.line(one)
    else:
        printer.message(answer)
