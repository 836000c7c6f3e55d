"""`vaultctl audit tail` and `verify`: the log of the node that answers."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.failures import FAILED, USAGE
from vaultd_client.ctl.output import Printer
from vaultd_client.ctl.progress import progress
from vaultd_client.ctl.values import time_json

if TYPE_CHECKING:
    from vaultd_client.ctl.session import Session


@click.command(cls=Command)
@click.option("--since", metavar="TIME", help="Begin with the first record at or after this time: 2027-01-31, -1h.")
@click.option("--after-sequence", type=int, metavar="SEQUENCE", help="Begin behind this record; 0: with the oldest.")
@click.option(
    "--follow/--no-follow",
    default=None,
    help="Wait for more. By default it does unless --since or --after-sequence is said.",
)
@click.option("--event", "events", multiple=True, help="Only records with this `event`, such as `call`.")
@click.option(
    "--method", "methods", multiple=True, help="Only calls of this method, such as /vaultd.v1.CryptoService/Sign."
)
@click.option("--principal", "principals", multiple=True, help="Only records of this principal.")
@click.option("--code", "codes", multiple=True, help="Only calls that ended so, such as PERMISSION_DENIED.")
@click.option("--resource", default="", help="Only records that name this resource or one below it.")
@click.option("--limit", type=click.IntRange(1), help="End after so many records.")
@click.pass_obj
def tail(
    session: Session, /, since: str | None, after_sequence: int | None, follow: bool | None, **options: Any
) -> None:
    """Print records of the audit log, as they are written.

    With --output json, and where standard output is no terminal, each line is the record as it is in the log.
    """
    from google.protobuf.timestamp_pb2 import Timestamp

    if since is not None and after_sequence is not None:
        raise click.UsageError("--since and --after-sequence are two beginnings: say one")
    start = None
    if since is not None:
        start = Timestamp()
        try:
            start.FromJsonString(time_json(since))
        except ValueError as error:
            raise click.BadParameter(f"`{since}` is {error}", param_hint="--since") from None
    if follow is None:
        follow = since is None and after_sequence is None
    filter_ = {name: options[name] for name in ("events", "methods", "principals", "codes")}
    records = session.client().tail_audit(
        after_sequence=after_sequence,
        start_time=start,
        filter={**filter_, "resource_prefix": options["resource"]},
        stop_at_end=not follow,
    )
    as_written = session.output == "json" or (session.output is None and not sys.stdout.isatty())
    seen = 0
    for response in records:
        for record in response.records:
            text = record.line.decode("utf-8", "replace")
            click.echo(text if as_written else _line(json.loads(text)))
            seen += 1
            if seen == options["limit"]:
                return
        sys.stdout.flush()


def _line(record: dict[str, Any]) -> str:
    what = record.get("method", record.get("event", "")).rpartition("/")[2]
    names = record.get("resources") or record.get("resource") or ""
    resource = ", ".join(names) if isinstance(names, list) else str(names)
    shown = (
        f"{str(record.get('time', ''))[:19].replace('T', ' ')}Z",
        f"{record.get('sequence', ''):>8}",
        f"{record.get('code', ''):18}",
        f"{what:24}",
        f"{record.get('principal', '')}",
        resource,
    )
    return "  ".join(shown).rstrip()


@click.command(cls=Command, trouble=USAGE)
@click.option(
    "--first-sequence", type=int, default=0, metavar="SEQUENCE", help="Begin at the checkpoint before this record."
)
@click.pass_context
def verify(context: click.Context, first_sequence: int) -> None:
    """Have the node verify its log from beginning to end: hashes, MACs, signatures and roots.  Exit code 1 when a record is bad.

    Whoever does not trust the node runs `vaultd audit verify` on a copy.
    """
    session: Session = context.obj
    client = session.client()
    first, checkpoints, answer = 0, 0, None
    with progress("audit records") as bar:
        while answer is None or answer.next_sequence:
            answer = client.verify_audit(first_sequence if answer is None else answer.next_sequence)
            first = first or answer.first_sequence
            checkpoints += answer.checkpoints
            total = max(answer.checkpoint.first_sequence + answer.checkpoint.tree_size - 1, answer.last_sequence)
            bar.update(answer.last_sequence - first + 1, total - first + 1)
            if not answer.intact:
                break
    answer.first_sequence, answer.checkpoints = first, checkpoints
    Printer(session.output).message(answer)
    context.exit(0 if answer.intact else FAILED)
