"""Resource names, parsed once and rebuilt from their parts (Google AIP-122).

Ids match `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`: no case, no dots, no percent signs, so one resource has one spelling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from vaultd.errors import InvalidArgument

ID = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
VERSION = r"[1-9][0-9]{0,8}"
ALIAS = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
MAX_NAME_CHARS = 256

_ID = re.compile(ID)
_VAULT = re.compile(rf"vaults/({ID})")
_KEY = re.compile(rf"vaults/({ID})/keys/({ID})(?:/versions/({VERSION}))?")
_QUOTA = re.compile(rf"(?:vaults/({ID})/)?quotas/({ID})")
_GRANT = re.compile(rf"(vaults/{ID}/keys/{ID})/grants/({ID})")
_IMPORT_JOB = re.compile(rf"vaults/({ID})/importJobs/({ID})")
_APPROVAL = re.compile(rf"approvals/({ID})")
_ALIAS = re.compile(ALIAS)
_SECRET = re.compile(rf"vaults/({ID})/secrets/({ID})(?:/versions/(?:({VERSION})|({ALIAS})))?")
_POLICY_RESOURCE = re.compile(
    rf"/|vaults(?:/{ID}(?:/(?:keys/{ID}(?:/versions/{VERSION})?|secrets/{ID}(?:/versions/(?:{VERSION}|{ALIAS}))?))?)?"
)
_WATCHED = re.compile(rf"/|vaults(?:/{ID}(?:/(?:keys|secrets)(?:/{ID}(?:/versions(?:/{VERSION})?)?)?)?)?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class KeyRef:
    """A key (version 0) or one of its versions."""

    vault: str
    key: str
    version: int

    @property
    def key_name(self) -> str:
        """`vaults/{vault}/keys/{key}`."""
        return f"vaults/{self.vault}/keys/{self.key}"

    def __str__(self) -> str:
        return f"{self.key_name}/versions/{self.version}" if self.version else self.key_name


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret (version 0, no alias), or one of its versions by number or by alias."""

    vault: str
    secret: str
    version: int = 0
    alias: str = ""

    @property
    def secret_name(self) -> str:
        """`vaults/{vault}/secrets/{secret}`."""
        return f"vaults/{self.vault}/secrets/{self.secret}"

    def __str__(self) -> str:
        version = self.alias or self.version
        return f"{self.secret_name}/versions/{version}" if version else self.secret_name


def vault_name(vault: str) -> str:
    """`vaults/{vault}`."""
    return f"vaults/{vault}"


def version_name(vault: str, key: str, version: int) -> str:
    """`vaults/{vault}/keys/{key}/versions/{version}`."""
    return f"vaults/{vault}/keys/{key}/versions/{version}"


def secret_name(vault: str, secret: str) -> str:
    """`vaults/{vault}/secrets/{secret}`."""
    return f"vaults/{vault}/secrets/{secret}"


def secret_version_name(vault: str, secret: str, version: int) -> str:
    """`vaults/{vault}/secrets/{secret}/versions/{version}`."""
    return f"vaults/{vault}/secrets/{secret}/versions/{version}"


def quota_name(vault: str, quota: str) -> str:
    """`vaults/{vault}/quotas/{quota}`, or `quotas/{quota}` for the server's."""
    return f"vaults/{vault}/quotas/{quota}" if vault else f"quotas/{quota}"


def import_job_name(vault: str, job: str) -> str:
    """`vaults/{vault}/importJobs/{import_job}`."""
    return f"vaults/{vault}/importJobs/{job}"


def parse_id(value: str, field: str) -> str:
    """Return the id, or raise InvalidArgument."""
    if not _ID.fullmatch(value):
        raise InvalidArgument("INVALID_NAME", f"{field} must match [a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?", field=field)
    return value


def parse_vault_name(value: str, field: str = "name") -> str:
    """Return the vault id of `vaults/{vault}`, or raise InvalidArgument."""
    match = _VAULT.fullmatch(value)
    if match is None:
        raise InvalidArgument("INVALID_NAME", f"{field} must be vaults/{{vault}}", field=field)
    return match[1]


@lru_cache(maxsize=65_536)
def _parsed_key(value: str) -> KeyRef | None:
    match = _KEY.fullmatch(value)
    return KeyRef(match[1], match[2], int(match[3] or 0)) if match else None


def _key_ref(value: str) -> KeyRef | None:
    # What is longer is not looked up: it would be kept.
    return _parsed_key(value) if len(value) <= MAX_NAME_CHARS else None


@lru_cache(maxsize=65_536)
def parse_key_or_version_name(value: str, field: str = "name") -> KeyRef:
    """Parse a key or version name, or raise InvalidArgument.  Cached: the same string gives the same object.

    What raises is not kept.
    """
    ref = _key_ref(value)
    if ref is None:
        raise InvalidArgument(
            "INVALID_NAME",
            f"{field} must be vaults/{{vault}}/keys/{{key}}, or that and /versions/{{version}}",
            field=field,
        )
    return ref


def parse_key_name(value: str, field: str = "name") -> KeyRef:
    """Parse a key name without a version, or raise InvalidArgument."""
    ref = _key_ref(value)
    if ref is None or ref.version:
        raise InvalidArgument("INVALID_NAME", f"{field} must be vaults/{{vault}}/keys/{{key}}", field=field)
    return ref


def parse_version_name(value: str, field: str = "name") -> KeyRef:
    """Parse a version name, or raise InvalidArgument."""
    ref = _key_ref(value)
    if ref is None or not ref.version:
        raise InvalidArgument(
            "INVALID_NAME", f"{field} must be vaults/{{vault}}/keys/{{key}}/versions/{{version}}", field=field
        )
    return ref


@lru_cache(maxsize=65_536)
def _parsed_secret(value: str) -> SecretRef | None:
    match = _SECRET.fullmatch(value)
    return SecretRef(match[1], match[2], int(match[3] or 0), match[4] or "") if match else None


def _secret_ref(value: str) -> SecretRef | None:
    # What is longer is not looked up: it would be kept.
    return _parsed_secret(value) if len(value) <= MAX_NAME_CHARS else None


def parse_secret_or_version_name(value: str, field: str = "name") -> SecretRef:
    """Parse the name of a secret or of a version, or raise InvalidArgument.  Cached: the same string gives the same object."""
    ref = _secret_ref(value)
    if ref is None:
        raise InvalidArgument(
            "INVALID_NAME",
            f"{field} must be vaults/{{vault}}/secrets/{{secret}}, or that and /versions/{{number or alias}}",
            field=field,
        )
    return ref


def parse_secret_name(value: str, field: str = "name") -> SecretRef:
    """Parse the name of a secret without a version, or raise InvalidArgument."""
    ref = _secret_ref(value)
    if ref is None or ref.version or ref.alias:
        raise InvalidArgument("INVALID_NAME", f"{field} must be vaults/{{vault}}/secrets/{{secret}}", field=field)
    return ref


def parse_secret_version_name(value: str, field: str = "name") -> SecretRef:
    """Parse the name of a version by its number, or raise InvalidArgument."""
    ref = _secret_ref(value)
    if ref is None or not ref.version:
        raise InvalidArgument(
            "INVALID_NAME", f"{field} must be vaults/{{vault}}/secrets/{{secret}}/versions/{{number}}", field=field
        )
    return ref


def parse_alias(value: str, field: str = "alias") -> str:
    """Return an alias of a secret's version, or raise InvalidArgument."""
    if not _ALIAS.fullmatch(value):
        raise InvalidArgument("INVALID_NAME", f"{field} must match [a-z]([a-z0-9-]{{0,61}}[a-z0-9])?", field=field)
    return value


def parse_quota_name(value: str, field: str = "name") -> tuple[str, str]:
    """The vault id (empty for the server's) and the quota id of a quota's name, or raise InvalidArgument."""
    match = _QUOTA.fullmatch(value)
    if match is None:
        raise InvalidArgument(
            "INVALID_NAME", f"{field} must be quotas/{{quota}} or vaults/{{vault}}/quotas/{{quota}}", field=field
        )
    return match[1] or "", match[2]


def parse_quota_parent(value: str, field: str = "parent") -> str:
    """The vault id of `vaults/{vault}`, empty for `/`, or raise InvalidArgument."""
    if value == "/":
        return ""
    match = _VAULT.fullmatch(value)
    if match is None:
        raise InvalidArgument("INVALID_NAME", f"{field} must be / or vaults/{{vault}}", field=field)
    return match[1]


def parse_place(value: str, field: str = "resource") -> tuple[str, str]:
    """Vault and key id of `/`, `vaults/{vault}` or `vaults/{vault}/keys/{key}`; empty where there is none."""
    if value == "/":
        return "", ""
    ref = _key_ref(value)
    if ref is not None and not ref.version:
        return ref.vault, ref.key
    match = _VAULT.fullmatch(value)
    if match is None:
        raise InvalidArgument(
            "INVALID_NAME", f"{field} must be /, vaults/{{vault}} or vaults/{{vault}}/keys/{{key}}", field=field
        )
    return match[1], ""


def parse_grant_name(value: str, field: str = "name") -> tuple[KeyRef, str]:
    """Return the key and the id of `vaults/{vault}/keys/{key}/grants/{grant}`, or raise InvalidArgument."""
    match = _GRANT.fullmatch(value) if len(value) <= MAX_NAME_CHARS else None
    if match is None:
        raise InvalidArgument(
            "INVALID_NAME", f"{field} must be vaults/{{vault}}/keys/{{key}}/grants/{{grant}}", field=field
        )
    return parse_key_name(match[1], field), match[2]


def parse_import_job_name(value: str, field: str = "name") -> tuple[str, str]:
    """Return the ids of vault and job of `vaults/{vault}/importJobs/{import_job}`, or raise InvalidArgument."""
    match = _IMPORT_JOB.fullmatch(value) if len(value) <= MAX_NAME_CHARS else None
    if match is None:
        raise InvalidArgument(
            "INVALID_NAME", f"{field} must be vaults/{{vault}}/importJobs/{{import_job}}", field=field
        )
    return match[1], match[2]


def parse_approval_name(value: str, field: str = "name") -> str:
    """Return the id of `approvals/{approval}`, or raise InvalidArgument."""
    match = _APPROVAL.fullmatch(value)
    if match is None:
        raise InvalidArgument("INVALID_NAME", f"{field} must be approvals/{{approval}}", field=field)
    return match[1]


def parse_key_or_vault_name(value: str, field: str = "parent") -> tuple[str, str]:
    """Return the ids of vault and key, the key's empty for a vault, or raise InvalidArgument."""
    vault = _VAULT.fullmatch(value)
    if vault is not None:
        return vault[1], ""
    ref = _key_ref(value)
    if ref is None or ref.version:
        raise InvalidArgument(
            "INVALID_NAME", f"{field} must be vaults/{{vault}} or vaults/{{vault}}/keys/{{key}}", field=field
        )
    return ref.vault, ref.key


def parse_policy_scope(value: str, field: str = "resource") -> str:
    """Return the name of a part of the policy, `/` or `vaults/{vault}`, or raise InvalidArgument."""
    if value != "/" and not _VAULT.fullmatch(value):
        raise InvalidArgument("INVALID_NAME", f"{field} must be / or vaults/{{vault}}", field=field)
    return value


def parse_policy_resource(value: str, field: str = "resource") -> str:
    """Return a resource that policy may be asked about, or raise InvalidArgument."""
    if len(value) > MAX_NAME_CHARS or not _POLICY_RESOURCE.fullmatch(value):
        raise InvalidArgument(
            "INVALID_NAME",
            f"{field} must be /, vaults, vaults/{{vault}}, a key, a secret, or a version of one",
            field=field,
        )
    return value


def parse_watched_prefix(value: str, field: str = "filter.resource_prefix") -> str:
    """Return a resource, or a collection of vaults, keys or secrets, that may be watched, or raise InvalidArgument."""
    if len(value) > MAX_NAME_CHARS or not _WATCHED.fullmatch(value):
        raise InvalidArgument(
            "INVALID_NAME",
            f"{field} must be /, vaults, vaults/{{vault}}, or vaults/{{vault}}/keys or /secrets and whole segments below",
            field=field,
        )
    return value


def parse_request_id(value: str) -> str:
    """Return the request id (may be empty), or raise InvalidArgument."""
    if value and not _REQUEST_ID.fullmatch(value):
        raise InvalidArgument("INVALID_REQUEST_ID", "request_id must be 1 to 64 of [A-Za-z0-9-]", field="request_id")
    return value
