"""The command."""

from __future__ import annotations

import datetime
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vaultd_client.ctl.commands import Command
from vaultd_client.ctl.doctor.findings import FAIL, Findings
from vaultd_client.ctl.failures import FAILED
from vaultd_client.ctl.output import Printer
from vaultd_client.errors import ConfigurationError

if TYPE_CHECKING:
    from vaultd_client.ctl.session import Session
    from vaultd_client.settings import Settings


@click.command(cls=Command)
@click.option(
    "--need",
    "needs",
    multiple=True,
    metavar="'PERMISSION RESOURCE'",
    help="Look for this permission, such as 'crypto.sign vaults/default/keys/orders'; by default for those of the profile.",
)
@click.pass_context
def doctor(context: click.Context, needs: tuple[str, ...]) -> None:
    """Find out why the server cannot be used, and what to do.

    Looks at the configuration, the certificates and their files, proxies, the way to the server (name, port, TLS, HTTP/2), its
    health and seal, who it takes you for, both clocks, and permissions. It makes one call that is refused on purpose, which is in
    the audit log.
    Exit code 1 when something is in the way.
    """
    session: Session = context.obj
    findings = Findings()
    _look(session, findings, needs)
    if session.output in {"json", "yaml"}:
        document = {"ok": not findings.failed, "checks": [asdict(one) for one in findings.found]}
        Printer(session.output).document(document)
    else:
        _show(findings)
    context.exit(FAILED if findings.failed else 0)


def _look(session: Session, findings: Findings, needs: tuple[str, ...]) -> None:
    settings = _configuration(session, findings)
    if settings is None:
        return
    from vaultd_client.ctl.doctor.files import Files
    from vaultd_client.ctl.doctor.network import Network

    now = datetime.datetime.now(datetime.UTC)
    Files(settings, findings, now).look()
    reached = [Network(settings, address, findings, now).look() for address in settings.addresses]
    if not any(reached):
        findings.skip("server", "health, identity, clock and permissions: the server is not reached")
        return
    from vaultd_client.ctl.doctor.server import Server

    try:
        client = session.client()
    except ConfigurationError as error:
        findings.fail("client", str(error), "see above")
        return
    profile = session.profile
    Server(session, client, findings).look(needs or (profile.needs if profile is not None else ()))


def _configuration(session: Session, findings: Findings) -> Settings | None:
    try:
        profile = session.profile
        settings = session.settings()
    except ConfigurationError as error:
        advice = "say --addr, --ca, --cert and --key, the variables VAULTD_*, or keep them with `vaultctl profile add`"
        findings.fail("configuration", str(error), advice)
        return None
    source = "flags and variables" if profile is None else f"profile {profile.name}, and flags and variables above it"
    said = [name for name in ("VAULTD_ADDR", "VAULTD_CA", "VAULTD_CERT", "VAULTD_KEY") if os.environ.get(name)]
    told = f" ({', '.join(said)} are set)" if said and profile is not None else ""
    findings.ok("configuration", f"{', '.join(settings.addresses)}, by {source}{told}")
    try:
        session.call_metadata()
    except ConfigurationError as error:
        findings.fail("token", str(error), "mend the file or the command that gives it")
        return None
    return settings


def _show(findings: Findings) -> None:
    from vaultd_client.ctl.tables import print_rows

    print_rows(("", "CHECK", "FOUND"), [(one.status, one.check, one.text) for one in findings.found])
    advised = [one for one in findings.found if one.advice]
    if advised:
        click.echo()
    for one in advised:
        click.echo(f"{one.status} {one.check}: {one.text}\n  -> {one.advice}")
    count = len(findings.failed)
    click.echo("\nnothing is in the way" if not count else f"\n{count} {FAIL}: see what to do above")
