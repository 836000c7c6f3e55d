"""Which rows of the feed are resources that can be watched, what they are called, and who may see that they changed.

One line for each kind of row.  A kind without a line is the server's own business and is never shown; a test wants each kind of
row in one of the two.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from vaultd.engine.model import etag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vaultd.store.base import Change, RowKey


class Watched(NamedTuple):
    """A kind of row.

    kind: what callers know it as.  name: the resource's name.  permission, on: what a caller needs, on which resource, to get
    it.  tagged: whether the resource has an etag, which is the revision of its last change.
    """

    kind: str
    name: Callable[[RowKey], str]
    permission: str
    on: Callable[[RowKey], str]
    tagged: bool = False


class Event(NamedTuple):
    """One change of a resource.  `event` is `create`, `update` or `delete`; `etag` is empty where there is none."""

    revision: int
    kind: str
    name: str
    event: str
    etag: str
    at_us: int
    permission: str
    on: str


def _vault(key: RowKey) -> str:
    return f"vaults/{key.id}"


def _key(key: RowKey) -> str:
    return f"vaults/{key.scope}/keys/{key.id}"


def _key_version(key: RowKey) -> str:
    return f"vaults/{key.scope}/keys/{key.id}/versions/{key.version}"


def _secret(key: RowKey) -> str:
    return f"vaults/{key.scope}/secrets/{key.id}"


def _secret_version(key: RowKey) -> str:
    return f"vaults/{key.scope}/secrets/{key.id}/versions/{key.version}"


def _import_job(key: RowKey) -> str:
    return f"vaults/{key.scope}/importJobs/{key.id}"


def _vault_of(key: RowKey) -> str:
    return f"vaults/{key.scope}"


def _rotation(key: RowKey) -> str:
    return f"vaults/{key.scope}/secrets/{key.id}/rotation"


def _grants(key: RowKey) -> str:
    return f"vaults/{key.scope}/keys/{key.id}/grants"


def _quota(key: RowKey) -> str:
    vault, _, quota = key.id.partition("/")
    return f"vaults/{vault}/quotas/{quota}" if vault else f"quotas/{quota}"


def _quota_parent(key: RowKey) -> str:
    vault = key.id.partition("/")[0]
    return f"vaults/{vault}" if vault else "/"


def _always(name: str) -> Callable[[RowKey], str]:
    def constant(key: RowKey) -> str:
        del key
        return name

    return constant


def _by_id(collection: str) -> Callable[[RowKey], str]:
    def name(key: RowKey) -> str:
        return f"{collection}/{key.id}"

    return name


_ROOT: Final = _always("/")

WATCHED: Final[Mapping[str, Watched]] = MappingProxyType(
    {
        "vault": Watched("VAULT", _vault, "vaults.get", _vault, tagged=True),
        "key": Watched("KEY", _key, "keys.get", _key, tagged=True),
        "key_version": Watched("KEY_VERSION", _key_version, "keys.get", _key_version, tagged=True),
        "secret": Watched("SECRET", _secret, "secrets.get", _secret, tagged=True),
        "secret_version": Watched("SECRET_VERSION", _secret_version, "secrets.get", _secret_version, tagged=True),
        "import_job": Watched("IMPORT_JOB", _import_job, "keys.get_import_job", _vault_of),
        "grants": Watched("GRANTS", _grants, "keys.list_grants", _key),
        "quota": Watched("QUOTA", _quota, "quotas.get", _quota_parent, tagged=True),
        "policy": Watched("POLICY", _always("policy"), "policy.get", _ROOT),
        "approval": Watched("APPROVAL", _by_id("approvals"), "approvals.list", _ROOT),
        "approval_rules": Watched("APPROVAL_RULES", _always("approvalRules"), "approvals.get_rules", _ROOT),
        "revocation": Watched("REVOKED_IDENTITY", _by_id("revokedIdentities"), "admin.list_revoked_identities", _ROOT),
        "rotation": Watched("ROTATION", _rotation, "secrets.get", _secret),
        "key_ring": Watched("KEY_RING", _always("keyRing"), "admin.get_status", _ROOT),
    }
)
"""By kind of row."""
INTERNAL: Final = frozenset(
    {
        *(
            "access",
            "approvals_open",
            "audit_key",
            "audit_log",
            "budget",
            "digest",
            "grant_uses",
            "quota_state",
            "replay",
        ),
        "token_object",
    }
)
"""Kinds of rows that are nobody's resource."""
SHOWING: Final = tuple(dict.fromkeys(watched.permission for watched in WATCHED.values()))
"""Each of these shows some kind of resource."""


def event_of(change: Change) -> Event | None:
    """What watchers hear of a change; nothing when the resource is the same as before, or the row is no resource."""
    watched = WATCHED.get(change.key.kind)
    if watched is None or change.event == "reseal":
        return None
    key = change.key
    event = "update" if change.event == "notice" else change.event
    etag = etag_of(change.revision) if watched.tagged and change.event in {"create", "update"} else ""
    name, on = watched.name(key), watched.on(key)
    return Event(change.revision, watched.kind, name, event, etag, change.at, watched.permission, on)
