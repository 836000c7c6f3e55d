"""What the engine takes and returns: frozen resources.  Times are microseconds since the Unix epoch, UTC."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from vaultd.engine.algorithms import ALGORITHMS, Algorithm, ProtectionLevel
from vaultd.names import vault_name, version_name

if TYPE_CHECKING:
    from collections.abc import Mapping


class KeyState(Enum):
    """Life of a key.  PURGED is a tombstone that keeps the name taken; callers never see it."""

    ACTIVE = "ACTIVE"
    DELETED = "DELETED"
    PURGED = "PURGED"


class VersionState(Enum):
    """Life of a key version."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    DESTROY_SCHEDULED = "DESTROY_SCHEDULED"
    DESTROYED = "DESTROYED"


def etag_of(revision: int) -> str:
    """Quoted as in RFC 7232: the revision that last wrote the resource."""
    return f'"{revision}"'


@dataclass(frozen=True, slots=True)
class Vault:
    """A tenant."""

    id: str
    uid: bytes
    display_name: str
    labels: Mapping[str, str]
    create_us: int
    update_us: int
    revision: int = 0

    @property
    def name(self) -> str:
        return vault_name(self.id)

    @property
    def etag(self) -> str:
        return etag_of(self.revision)


@dataclass(frozen=True, slots=True)
class Key:
    """A key's rules and where it stands."""

    vault: str
    id: str
    uid: bytes
    algorithm: Algorithm
    protection_level: ProtectionLevel
    labels: Mapping[str, str]
    rotation_period_us: int | None
    next_rotation_us: int | None
    expire_us: int | None
    exportable: bool
    destroy_delay_us: int
    purge_protection: bool
    state: KeyState
    primary: int
    newest: int
    create_us: int
    update_us: int
    delete_us: int | None = None
    purge_us: int | None = None
    revision: int = 0

    @property
    def name(self) -> str:
        return f"vaults/{self.vault}/keys/{self.id}"

    @property
    def etag(self) -> str:
        return etag_of(self.revision)

    @property
    def due_us(self) -> int | None:
        """When the scheduler must look at this key again."""
        return self.purge_us if self.state is KeyState.DELETED else self.next_rotation_us


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a key; its sealed material is stored beside it and never in here."""

    vault: str
    key: str
    uid: bytes
    number: int
    state: VersionState
    algorithm: Algorithm
    protection_level: ProtectionLevel
    public_key: bytes
    reference: bytes
    imported: bool
    create_us: int
    destroy_us: int | None = None
    destroyed_us: int | None = None
    attestation: Mapping[str, str | bool] = field(default_factory=dict)
    revision: int = 0

    @property
    def name(self) -> str:
        return version_name(self.vault, self.key, self.number)

    @property
    def etag(self) -> str:
        return etag_of(self.revision)

    @property
    def due_us(self) -> int | None:
        """When the scheduler must look at this version again."""
        return self.destroy_us if self.state is VersionState.DESTROY_SCHEDULED else None


@dataclass(frozen=True, slots=True)
class RevokedIdentity:
    """A principal whose calls are refused."""

    principal: str
    uid: bytes
    reason: str
    revoked_by: str
    revoke_us: int


Resource = Vault | Key | KeyVersion | RevokedIdentity
_TYPES: dict[str, type[Any]] = {
    "vault": Vault,
    "key": Key,
    "key_version": KeyVersion,
    "revoked_identity": RevokedIdentity,
}


def encode_resource(resource: Resource) -> dict[str, Any]:
    """Turn a resource into JSON-ready values."""
    kind = next(name for name, cls in _TYPES.items() if isinstance(resource, cls))
    values: dict[str, Any] = {"type": kind}
    for name, value in ((name, getattr(resource, name)) for name in resource.__dataclass_fields__):
        if isinstance(value, bytes):
            values[name] = b64encode(value).decode()
        elif isinstance(value, Enum):
            values[name] = value.value
        elif isinstance(value, Algorithm):
            values[name] = value.name
        elif name in {"labels", "attestation"}:
            values[name] = dict(value)
        else:
            values[name] = value
    return values


_DECODERS: dict[str, Any] = {
    "uid": b64decode,
    "public_key": b64decode,
    "reference": b64decode,
    "algorithm": ALGORITHMS.__getitem__,
    "protection_level": ProtectionLevel,
}


def decode_resource(values: Mapping[str, Any]) -> Any:
    """Rebuild what encode_resource took apart.  Fields that a later release added take their defaults."""
    cls = _TYPES[values["type"]]
    fields = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
    for name in fields:
        if name in _DECODERS:
            fields[name] = _DECODERS[name](fields[name])
    if cls is Key:
        fields["state"] = KeyState(fields["state"])
    elif cls is KeyVersion:
        fields["state"] = VersionState(fields["state"])
    return cls(**fields)
