"""`vaultctl approvals rules set`: which calls need approval, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.confirm import confirm
from vaultd_client.ctl.failures import fail
from vaultd_client.ctl.output import Printer
from vaultd_client.ctl.repeating import REQUEST_ID, fresh_request_id, repeatable
from vaultd_client.schema import DocumentInvalid, load_yaml

if TYPE_CHECKING:
    from vaultd_client.ctl.session import Session


@click.command("set", cls=Command)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--etag", help="Only when the rules' etag is this one; by default that of FILE, if it has one.")
@REQUEST_ID
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def set_rules(session: Session, file: Path, etag: str | None, request_id: str, yes: bool) -> None:
    """Replace all approval rules by those of FILE, which looks as `vaultctl approvals rules get --output yaml` prints them."""
    from vaultd_client.ctl.running import parse
    from vaultd_client.v1 import approval_pb2 as pb

    try:
        document: Any = load_yaml(file.read_text(encoding="utf-8"))
    except (DocumentInvalid, UnicodeDecodeError) as error:
        fail(f"{file}: {error}")
    if not isinstance(document, dict) or "rules" not in document:
        fail(f"{file}: it must be a mapping with `rules`, a list")
    wanted: Any = parse({"rules": document["rules"]}, pb.ApprovalRules)
    client = session.client()
    found = client.get_approval_rules()
    gone = {rule.id for rule in found.rules} - {rule.id for rule in wanted.rules}
    told = f"Gone are {', '.join(sorted(gone))}." if gone else "No rule is gone."
    confirm(f"These {len(wanted.rules)} rules replace {len(found.rules)}. {told} Go on?", yes=yes, look_at="the file")
    request_id = request_id or fresh_request_id()
    with repeatable(f"--request-id {request_id}"):
        done = client.set_approval_rules(wanted.rules, document.get("etag", "") if etag is None else etag, request_id)
    Printer(session.output).message(done)
