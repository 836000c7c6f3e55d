"""`vaultctl watch`: changes as they are committed."""

from __future__ import annotations

import datetime
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.api import enum_of
from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.output import as_dict

if TYPE_CHECKING:
    from vaultd_client.ctl.session import Session

_KINDS = enum_of(".vaultd.v1.ResourceKind")
assert _KINDS is not None  # noqa: S101  # a part of the API
PREFIX, KINDS = _KINDS


@click.command(cls=Command)
@click.argument("resource", default="/", metavar="[RESOURCE]")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS, case_sensitive=False), metavar="KIND")
@click.option("--resume-token", default="", metavar="TOKEN", help="Go on where an earlier watch was.")
@click.option("--after-revision", type=int, metavar="REVISION", help="Changes after it; 0: from the beginning.")
@click.option("--count", type=click.IntRange(1), help="End after so many changes.")
@click.option("--heartbeats", is_flag=True, help="With --output json: responses without changes, too.")
@click.pass_obj
def watch(session: Session, /, resource: str, kinds: tuple[str, ...], count: int | None, **options: Any) -> None:
    """Print changes of RESOURCE and what is below it, as they are committed; of everything by default.

    With --output json: one WatchResponse a line, with the token to go on from. Ends with Ctrl-C.
    """
    request: dict[str, Any] = {
        "filter": {"resource_prefix": resource, "kinds": [PREFIX + kind for kind in kinds]},
        "resume_token": options["resume_token"],
    }
    if options["after_revision"] is not None:
        request["after_revision"] = options["after_revision"]
    seen = 0
    changes = session.client().watch(**request)
    for response in changes:
        if session.output == "json":
            if response.events or options["heartbeats"]:
                click.echo(json.dumps(as_dict(response), ensure_ascii=False))
        else:
            for event in response.events:
                click.echo(_line(as_dict(event)))
        sys.stdout.flush()
        seen += len(response.events)
        if count is not None and seen >= count:
            break


def _line(event: dict[str, Any]) -> str:
    at = datetime.datetime.fromisoformat(event["time"])
    change = event["change_type"].removeprefix("CHANGE_TYPE_")
    return f"{at:%Y-%m-%d %H:%M:%S}Z  {event['revision']:>8}  {change:8}  {event['kind'].removeprefix(PREFIX):16}  {event['name']}"
