"""`vaultctl secrets put`: a value in, whether the secret is there or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.flags import ask, read_input, stdin_is_open
from vaultd_client.ctl.names import ResourceName
from vaultd_client.ctl.output import Printer
from vaultd_client.errors import NotFound, PermissionDenied, VaultdError

if TYPE_CHECKING:
    from vaultd_client import Client
    from vaultd_client.ctl.session import Session


@click.command(cls=Command)
@click.argument("secret", type=ResourceName("secret"), metavar="SECRET")
@click.argument("file", required=False, metavar="[FILE]")
@click.option("--trim", is_flag=True, help="Without the line end at the end, which `echo` adds.")
@click.option("--etag", default="", help="Only when the secret's etag is this one: nothing of others is overwritten.")
@click.option("--keep-current", is_flag=True, help="The version before stays in service.")
@click.option("--content-type", default="", metavar="TYPE", help="Media type of the value.")
@click.pass_obj
def put(session: Session, /, secret: str, file: str | None, **options: Any) -> None:
    """Store a value: the new version is in service at once.  A secret that is not there is created.

    The value is in FILE; without FILE it is typed without being shown, or read from standard input. It is stored byte by byte:
    `printf %s`, or --trim, keeps the line end of `echo` out.
    """
    from_terminal = file is None and not stdin_is_open()
    payload = ask("Value") if from_terminal else read_input(file or "-")
    if options["trim"]:
        payload = payload.removesuffix(b"\n").removesuffix(b"\r")
    client = session.client()
    added = {
        "keep_current": options["keep_current"],
        "expected_etag": options["etag"],
        "content_type": options["content_type"],
    }
    try:
        answer: Any = client.add_secret_version(secret, payload, **added)
    except (NotFound, PermissionDenied) as error:
        if options["etag"]:
            raise
        answer = _create(client, secret, payload, options["content_type"], error)
    printer = Printer(session.output)
    if printer.form == "table":
        click.echo(getattr(answer, "version", "") or answer.current_version)
    else:
        printer.message(answer)


def _create(client: Client, name: str, payload: bytes, content_type: str, why: VaultdError) -> Any:
    """Make the secret, or say why the version could not be added: who may not know of a secret gets the same answer as for none."""
    parent, _, secret_id = name.rpartition("/secrets/")
    try:
        return client.create_secret(parent, secret_id, payload=payload, content_type=content_type)
    except VaultdError:
        if isinstance(why, PermissionDenied):
            raise why from None
        raise
