"""The server, once it is reached: whether it serves, who it takes us for, what its clock says, and what we may do."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Final

from vaultd_client.ctl.health_command import ask_health
from vaultd_client.ctl.values import show_duration
from vaultd_client.errors import PermissionDenied, Unauthenticated, Unavailable, VaultdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd_client import Client
    from vaultd_client.ctl.doctor.findings import Findings
    from vaultd_client.ctl.session import Session

SKEW_WARN_S: Final = 5.0
SKEW_FAIL_S: Final = 60.0
COMPONENTS: Final = ("storage", "audit", "seal")
USUAL: Final = (
    "crypto.encrypt",
    "crypto.decrypt",
    "crypto.sign",
    "crypto.verify",
    "keys.get",
    "keys.list",
    "keys.create",
    "secrets.access",
    "secrets.list",
    "secrets.create",
)
"""What is asked for when nobody says what is needed."""
NO_NAME: Final = "vaults/-/keys/-"
"""No resource can have this name: a call that names it is refused, and the refusal says who called, and when."""


class Server:
    """Looks at a server that can be reached."""

    def __init__(self, session: Session, client: Client, findings: Findings) -> None:
        self._session = session
        self._client = client
        self._findings = findings

    def look(self, needs: Sequence[str]) -> None:
        """Tell all that can be told."""
        if not self._look_at_health():
            return
        if self._look_at_identity():
            self._look_at_version()
            self._look_at_permissions(needs)

    def _look_at_health(self) -> bool:
        try:
            whole = ask_health(self._session, "")
            parts = {name: ask_health(self._session, name) for name in COMPONENTS}
        except Unauthenticated as error:
            self._findings.fail(
                "grpc", f"{error.reason}: {error.text}", "see name above; the server's log says which rule refuses it"
            )
            return False
        except VaultdError as error:
            self._findings.fail("grpc", f"{error.reason or error.code}: {error.text}", "see proxy and tls above")
            return False
        self._findings.ok("grpc", "the server answers calls")
        if parts["seal"] != "SERVING":
            advice = "an operator opens it with `vaultctl admin unseal`, or `vaultctl admin init` where it never was"
            self._findings.fail("seal", "the server is sealed: it cannot use its keys, nor read its policy", advice)
            return False
        bad = [name for name, status in parts.items() if status != "SERVING"]
        if bad:
            self._findings.fail(
                "health", f"not serving: {', '.join(bad)}", "docs/operations.md says what each component needs"
            )
        elif whole != "SERVING":
            self._findings.fail(
                "health",
                "the server does not serve: it is stopping, or a trust bundle's list is stale",
                "ask again soon",
            )
        else:
            self._findings.ok("health", f"serving, {', '.join(COMPONENTS)} too")
        return True

    def _look_at_identity(self) -> bool:
        """Make a call that is refused, and ask the server what it knows of that: no permission is needed for either."""
        before = datetime.datetime.now(datetime.UTC)
        try:
            self._client.get_key(NO_NAME)
        except Unauthenticated as error:
            self._findings.fail(
                "identity", f"{error.reason}: {error.text}", "the server takes no name of yours: see name above"
            )
            return False
        except Unavailable as error:
            self._findings.fail("identity", f"{error.reason}: {error.text}", "ask again soon")
            return False
        except VaultdError as error:
            after = datetime.datetime.now(datetime.UTC)
            refused = error
        else:
            self._findings.skip("identity", "the server knows a resource that cannot be")
            return True
        try:
            refusal = self._client.explain_access(incident_id=refused.request_id).refusal
        except VaultdError as error:
            self._findings.skip("identity", f"the server does not tell: {error.reason or error.code}")
            return True
        self._findings.ok("identity", f"the server takes you for {refusal.principal}")
        self._look_at_clock(refusal.time.ToDatetime(tzinfo=datetime.UTC), before, after)
        return True

    def _look_at_clock(self, theirs: datetime.datetime, before: datetime.datetime, after: datetime.datetime) -> None:
        """Their time lies between our two, or the clocks differ by at least the distance."""
        if theirs < before:
            ahead_s = (before - theirs).total_seconds()
            told = f"this machine is at least {show_duration(ahead_s)} ahead of the server"
        elif theirs > after:
            ahead_s = (theirs - after).total_seconds()
            told = f"the server is at least {show_duration(ahead_s)} ahead of this machine"
        else:
            ahead_s, told = 0.0, "this machine and the server agree"
        advice = "certificates and tokens begin and end by these clocks: let both follow NTP"
        if ahead_s >= SKEW_FAIL_S:
            self._findings.fail("clock", told, advice)
        elif ahead_s >= SKEW_WARN_S:
            self._findings.warn("clock", told, advice)
        else:
            self._findings.ok("clock", told)

    def _look_at_version(self) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            mine = version("vaultd-client")
        except PackageNotFoundError:
            mine = "unknown"
        try:
            theirs = self._client.get_status().version
        except PermissionDenied:
            self._findings.skip("version", f"client {mine}; the server's is told to who has admin.get_status")
            return
        except VaultdError as error:
            self._findings.skip("version", f"client {mine}; the server does not tell: {error.reason or error.code}")
            return
        if mine.split(".")[:2] == theirs.split(".")[:2]:
            self._findings.ok("version", f"client {mine}, server {theirs}")
        else:
            advice = "RPCs that only one of them knows are UNIMPLEMENTED: install the same release"
            self._findings.warn("version", f"client {mine}, server {theirs}", advice)

    def _look_at_permissions(self, needs: Sequence[str]) -> None:
        if not needs:
            self._look_at_usual_permissions()
            return
        for need in needs:
            permission, _, resource = need.partition(" ")
            resource = resource or f"vaults/{self._session.vault}"
            try:
                held = self._client.test_policy(resource, [permission]).permissions
            except VaultdError as error:
                self._findings.fail(
                    "permission", f"{need}: {error.reason or error.code}: {error.text}", "mend what is asked for"
                )
                continue
            if held:
                self._findings.ok("permission", f"{permission} on {resource}")
            else:
                advice = f"an administrator binds a role with {permission} on {resource}, or above it, to you (docs/policy.md)"
                self._findings.fail("permission", f"{permission} on {resource} is missing", advice)

    def _look_at_usual_permissions(self) -> None:
        resource = f"vaults/{self._session.vault}"
        try:
            held = list(self._client.test_policy(resource, USUAL).permissions)
        except VaultdError as error:
            self._findings.skip("permission", f"the server does not tell: {error.reason or error.code}")
            return
        if held:
            self._findings.ok("permission", f"on {resource}: {', '.join(held)}")
        else:
            self._findings.warn(
                "permission",
                f"none of the usual ones on {resource}",
                "say what you need with --need 'PERMISSION RESOURCE', or have an administrator bind a role to you (docs/policy.md)",
            )
