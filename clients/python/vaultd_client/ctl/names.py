"""Names of resources as people type them: in full, or short where one vault is meant."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from vaultd_client.ctl.session import Session
from vaultd_client.ctl.types import ParameterType

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

_COLLECTIONS: Final = {
    "key": "keys",
    "key_version": "keys",
    "key_or_version": "keys",
    "grant": "keys",
    "secret": "secrets",
    "secret_version": "secrets",
    "secret_or_version": "secrets",
    "import_job": "importJobs",
}
_CHILDREN: Final = {"grant": "grants"}
METAVARS: Final = {
    "vault": "VAULT",
    "key": "KEY",
    "key_version": "KEY/VERSION",
    "key_or_version": "KEY[/VERSION]",
    "grant": "KEY/GRANT",
    "secret": "SECRET",
    "secret_version": "SECRET/VERSION",
    "secret_or_version": "SECRET[/VERSION]",
    "import_job": "JOB",
    "quota": "QUOTA",
    "approval": "APPROVAL",
    "key_or_vault": "KEY|VAULT",
    "resource": "RESOURCE",
}
COMPLETION_TIMEOUT_S: Final = 1.0


def full_name(kind: str, text: str, vault: str) -> str:
    """The full name: `orders` is a key of the vault, `orders/3` a version of it.  A full name stays as it is."""
    if text.startswith(("/", "vaults/", "quotas/", "approvals/")) or text == "vaults" or not text:
        return text
    if kind == "vault":
        return f"vaults/{text}"
    if kind == "quota":
        return f"quotas/{text}"
    if kind == "approval":
        return f"approvals/{text}"
    if kind in {"key_or_vault", "resource"}:
        return f"vaults/{vault}/{text}" if text.startswith(("keys/", "secrets/")) else f"vaults/{vault}/keys/{text}"
    collection = _COLLECTIONS[kind]
    first, *rest = text.removeprefix(f"{collection}/").split("/")
    child = _CHILDREN.get(kind, "versions")
    if len(rest) == 1:
        rest = [child, *rest]
    return "/".join(["vaults", vault, collection, first, *rest])


class ResourceName(ParameterType):
    """A resource of a kind; completes names by asking the server."""

    name = "resource"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The full name."""
        vault = "default" if ctx is None else ctx.ensure_object(Session).vault
        return full_name(self.kind, str(value), vault)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names that begin so, as the server lists them; nothing when it does not answer soon."""
        from click.shell_completion import CompletionItem

        names: list[str] = []
        with suppress(Exception):  # a shell that completes has no place for an error
            names = self._known(_session_of(ctx), incomplete)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    def _known(self, session: Session, incomplete: str) -> list[str]:
        session.flags["timeout"] = COMPLETION_TIMEOUT_S
        try:
            client, vault = session.client(), f"vaults/{session.vault}"
            if self.kind == "vault":
                return [one.name.removeprefix("vaults/") for one in client.list_vaults(page_size=1000).vaults]
            if self.kind == "quota":
                return [one.name.removeprefix("quotas/") for one in client.list_quotas("/", page_size=1000).quotas]
            if self.kind == "approval":
                return [one.name.removeprefix("approvals/") for one in client.list_approvals(page_size=1000).approvals]
            if self.kind == "import_job":
                jobs = client.list_import_jobs(vault, page_size=1000).import_jobs
                return [one.name.rpartition("/")[2] for one in jobs]
            collection = _COLLECTIONS.get(self.kind, "keys")
            first, slash, _ = incomplete.partition("/")
            if slash and self.kind != "grant":
                parent = f"{vault}/{collection}/{first}"
                versions: Any = (
                    client.list_key_versions(parent).key_versions
                    if collection == "keys"
                    else client.list_secret_versions(parent).secret_versions
                )
                return [f"{first}/{one.name.rpartition('/')[2]}" for one in versions]
            listed: Any = (
                client.list_keys(vault, page_size=1000).keys
                if collection == "keys"
                else client.list_secrets(vault, page_size=1000).secrets
            )
            return [one.name.rpartition("/")[2] for one in listed]
        finally:
            session.close()


def _session_of(ctx: click.Context) -> Session:
    """What the words before the one to complete say: while a shell completes, no command is run that keeps it."""
    session = Session()
    context: click.Context | None = ctx
    while context is not None:
        for name, value in context.params.items():
            session.flags.setdefault(name.removeprefix("shared_"), value)
        context = context.parent
    session.flags = {name: value for name, value in session.flags.items() if value is not None}
    return session
