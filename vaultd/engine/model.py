"""What the engine takes and returns: frozen resources.  Times are microseconds since the Unix epoch, UTC."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.algorithms import ALGORITHMS, Algorithm, ProtectionLevel
from vaultd.engine.buckets import Window
from vaultd.engine.rotation_model import KIND as ROTATION
from vaultd.engine.rotation_model import Rotation, decode_rotation, encode_rotation
from vaultd.names import import_job_name, quota_name, secret_name, secret_version_name, vault_name, version_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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
    import_only: bool = False
    min_decrypt: int = 0
    """Versions with a lower number are out of use."""
    notice_us: int | None = None
    """How long before its rotation and its expiry they are announced."""
    noticed_us: int | None = None
    """The newest of these times that was announced."""

    @property
    def name(self) -> str:
        return f"vaults/{self.vault}/keys/{self.id}"

    @property
    def etag(self) -> str:
        return etag_of(self.revision)

    @property
    def due_us(self) -> int | None:
        """When the scheduler must look at this key again."""
        if self.state is KeyState.DELETED:
            return self.purge_us
        times = (self.next_rotation_us, self.notice_due_us)
        return min((time for time in times if time is not None), default=None)

    @property
    def notice_due_us(self) -> int | None:
        """When the next rotation, or the expiry, is to be announced; None when nothing is, or it was."""
        if self.notice_us is None:
            return None
        known_us = self.noticed_us or 0
        ahead = [time for time in (self.next_rotation_us, self.expire_us) if time is not None and time > known_us]
        return min(ahead) - self.notice_us if ahead else None


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


class ImportJobState(Enum):
    """Life of an import job."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class ImportJob:
    """A key pair to which key material is wrapped; its private half is stored beside it, sealed."""

    vault: str
    id: str
    uid: bytes
    method: str
    public_key: bytes
    state: ImportJobState
    create_us: int
    expire_us: int
    forget_us: int
    """When the row of an expired job goes."""
    revision: int = 0

    @property
    def name(self) -> str:
        return import_job_name(self.vault, self.id)

    @property
    def due_us(self) -> int:
        """When the scheduler must look at this job again."""
        return self.expire_us if self.state is ImportJobState.ACTIVE else self.forget_us


@dataclass(frozen=True, slots=True)
class ExportedKey:
    """A version's material, wrapped to a recipient's public key."""

    version_name: str
    algorithm: Algorithm
    method: str
    wrapped: bytes


EACH_PRINCIPAL: Final = "*"


@dataclass(frozen=True, slots=True)
class Quota:
    """How much may be asked of a resource and all below it.

    vault: where it is administered; empty for a quota of the server, whose resource may be anything.  subject: a principal,
    EACH_PRINCIPAL for each by itself, or empty for one count that all share.  classes, methods: what it counts; everything
    when both are empty.
    """

    vault: str
    id: str
    uid: bytes
    subject: str
    resource: str
    classes: tuple[str, ...]
    methods: tuple[str, ...]
    windows: tuple[Window, ...]
    create_us: int
    update_us: int
    revision: int = 0

    @property
    def name(self) -> str:
        return quota_name(self.vault, self.id)

    @property
    def etag(self) -> str:
        return etag_of(self.revision)

    @property
    def row_id(self) -> str:
        """Quotas of a vault are next to each other, and those of the server before all."""
        return f"{self.vault}/{self.id}"


@dataclass(frozen=True, slots=True)
class Grant:
    """Use of one key, given by one principal to another until a time."""

    vault: str
    key: str
    id: str
    granter: str
    grantee: str
    permissions: tuple[str, ...]
    create_us: int
    expire_us: int
    max_uses: int = 0
    """0: as many as there are."""

    @property
    def key_name(self) -> str:
        return f"vaults/{self.vault}/keys/{self.key}"

    @property
    def name(self) -> str:
        return f"{self.key_name}/grants/{self.id}"


class ApprovalState(Enum):
    """Life of a request that needs approval.  PENDING and APPROVED are open; the others are ends."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    USED = "USED"
    VOIDED = "VOIDED"


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Which calls need the approval of how many of whom."""

    id: str
    methods: tuple[str, ...]
    resource: str
    approvers: tuple[str, ...]
    required: int
    expires_after_us: int

    def covers(self, method: str, resources: Iterable[str]) -> bool:
        """Whether the rule is about a call: by whole segments of one of its resources."""
        return method in self.methods and any(
            self.resource in {"/", resource} or resource.startswith(f"{self.resource}/") for resource in resources
        )


@dataclass(frozen=True, slots=True)
class ApprovalRules:
    """All approval rules of the server."""

    rules: tuple[ApprovalRule, ...] = ()
    update_us: int | None = None
    revision: int = 0

    @property
    def etag(self) -> str:
        return etag_of(self.revision)

    def covering(self, method: str, resources: Iterable[str]) -> tuple[ApprovalRule, ...]:
        """The rules about a call, by id."""
        found = [rule for rule in self.rules if rule.covers(method, resources)]
        return tuple(sorted(found, key=lambda rule: rule.id))


@dataclass(frozen=True, slots=True)
class Approval:
    """A request that needs approval, under the rules of the moment when it was made."""

    id: str
    state: ApprovalState
    principal: str
    method: str
    resources: tuple[str, ...]
    request: str
    digest: str
    digest_shown: bool
    rules: tuple[ApprovalRule, ...]
    create_us: int
    expire_us: int
    consents: tuple[tuple[str, int], ...] = ()
    """Who approved it, and when."""
    end_us: int | None = None
    end_principal: str = ""

    @property
    def name(self) -> str:
        return f"approvals/{self.id}"

    @property
    def open(self) -> bool:
        """Whether something can still become of it."""
        return self.state in {ApprovalState.PENDING, ApprovalState.APPROVED}


@dataclass(frozen=True, slots=True)
class PolicyPart:
    """The part of the policy that belongs to a resource, and how many entries a change added and removed."""

    resource: str
    document: Mapping[str, Any]
    etag: str
    added: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class RevokedIdentity:
    """A principal whose calls are refused."""

    principal: str
    uid: bytes
    reason: str
    revoked_by: str
    revoke_us: int


class SecretState(Enum):
    """Life of a secret.  PURGED is a tombstone that keeps the name taken; callers never see it.

    A tombstone with a purge_us has versions that are still to be erased.
    """

    ACTIVE = "ACTIVE"
    DELETED = "DELETED"
    PURGED = "PURGED"


class SecretVersionState(Enum):
    """Life of a version of a secret."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    DESTROYED = "DESTROYED"


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret's rules, and which versions its aliases name; 0 for none.

    live: number of each version that is not destroyed, ascending, and since when no alias names it; 0 while one does.
    """

    vault: str
    id: str
    uid: bytes
    labels: Mapping[str, str]
    owner: str
    metadata: Mapping[str, Any]
    keep_versions: int
    version_ttl_us: int | None
    purge_protection: bool
    state: SecretState
    create_us: int
    update_us: int
    latest: int = 0
    current: int = 0
    previous: int = 0
    aliases: Mapping[str, int] = field(default_factory=dict)
    live: tuple[tuple[int, int], ...] = ()
    delete_us: int | None = None
    purge_us: int | None = None
    revision: int = 0

    @property
    def name(self) -> str:
        return secret_name(self.vault, self.id)

    @property
    def etag(self) -> str:
        return etag_of(self.revision)

    @property
    def retention_due_us(self) -> int | None:
        """When the next version is to be destroyed because no alias has named it for so long."""
        ttl_us = self.version_ttl_us
        if ttl_us is None:
            return None
        return min((since_us + ttl_us for _, since_us in self.live if since_us), default=None)

    @property
    def due_us(self) -> int | None:
        """When the scheduler must look at this secret again."""
        return self.retention_due_us if self.state is SecretState.ACTIVE else self.purge_us


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """One version of a secret; its sealed payload is stored beside it and never in here."""

    vault: str
    secret: str
    uid: bytes
    number: int
    state: SecretVersionState
    content_type: str
    metadata: Mapping[str, Any]
    payload_bytes: int
    payload_crc32c: int
    create_us: int
    expire_us: int | None = None
    destroyed_us: int | None = None
    revision: int = 0

    @property
    def name(self) -> str:
        return secret_version_name(self.vault, self.secret, self.number)

    @property
    def etag(self) -> str:
        return etag_of(self.revision)


Resource = (
    Vault
    | Key
    | KeyVersion
    | ImportJob
    | ExportedKey
    | Quota
    | Grant
    | ApprovalRules
    | Approval
    | PolicyPart
    | RevokedIdentity
    | StoredSecret
    | SecretVersion
    | Rotation
)
_TYPES: dict[str, type[Any]] = {
    "vault": Vault,
    "key": Key,
    "key_version": KeyVersion,
    "import_job": ImportJob,
    "exported_key": ExportedKey,
    "quota": Quota,
    "grant": Grant,
    "approval_rules": ApprovalRules,
    "approval": Approval,
    "policy": PolicyPart,
    "revoked_identity": RevokedIdentity,
    "secret": StoredSecret,
    "secret_version": SecretVersion,
}
_STATES: dict[type[Any], type[Enum]] = {
    Key: KeyState,
    KeyVersion: VersionState,
    ImportJob: ImportJobState,
    Approval: ApprovalState,
    StoredSecret: SecretState,
    SecretVersion: SecretVersionState,
}


def encode_resource(resource: Resource) -> dict[str, Any]:
    """Turn a resource into JSON-ready values."""
    if isinstance(resource, Rotation):
        return encode_rotation(resource)
    kind = next(name for name, cls in _TYPES.items() if isinstance(resource, cls))
    values: dict[str, Any] = {"type": kind}
    for name, value in ((name, getattr(resource, name)) for name in resource.__dataclass_fields__):
        if isinstance(value, bytes):
            values[name] = b64encode(value).decode()
        elif isinstance(value, Enum):
            values[name] = value.value
        elif isinstance(value, Algorithm):
            values[name] = value.name
        elif name in {"labels", "attestation", "metadata", "aliases"}:
            values[name] = dict(value)
        elif name == "windows":
            values[name] = [(window.count, window.period_us, window.burst) for window in value]
        elif name == "rules":
            values[name] = [asdict(rule) for rule in value]
        else:
            values[name] = value
    return values


_DECODERS: dict[str, Any] = {
    "uid": b64decode,
    "public_key": b64decode,
    "reference": b64decode,
    "wrapped": b64decode,
    "algorithm": ALGORITHMS.__getitem__,
    "protection_level": ProtectionLevel,
    "classes": tuple,
    "methods": tuple,
    "windows": lambda windows: tuple(Window(*window) for window in windows),
    "permissions": tuple,
    "resources": tuple,
    "consents": lambda values: tuple((principal, at_us) for principal, at_us in values),
    "live": lambda values: tuple((number, since_us) for number, since_us in values),
    "rules": lambda values: tuple(_rule(rule) for rule in values),
}


def _rule(values: Mapping[str, Any]) -> ApprovalRule:
    lists = {name: tuple(values[name]) for name in ("methods", "approvers")}
    return ApprovalRule(**{**values, **lists})


def decode_resource(values: Mapping[str, Any]) -> Any:
    """Rebuild what encode_resource took apart.  Fields that a later release added take their defaults."""
    if values["type"] == ROTATION:
        return decode_rotation(values)
    cls = _TYPES[values["type"]]
    fields = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
    for name in fields:
        if name in _DECODERS:
            fields[name] = _DECODERS[name](fields[name])
    if cls in _STATES:
        fields["state"] = _STATES[cls](fields["state"])
    return cls(**fields)
