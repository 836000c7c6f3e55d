"""Limits of every request field, as the proto comments state them.  What passes here is safe to hand to policy and engine.

A request type is one row of REQUESTS: its checks by field.  A request message without a row stops the server from starting.
"""

from __future__ import annotations

import math
import re
import sys
from itertools import repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import google_crc32c
from google.protobuf.unknown_fields import UnknownFieldSet

from vaultd import names
from vaultd.engine.approval_rules import MAX_RULES
from vaultd.engine.key_backups import MAX_BACKUP_BYTES
from vaultd.engine.key_grants import MAX_USES
from vaultd.engine.permissions import GRANTABLE, PERMISSIONS
from vaultd.engine.policy import is_principal
from vaultd.engine.secret_aliases import MAX_KEPT
from vaultd.engine.secret_payloads import MAX_PAYLOAD_BYTES, X25519_BYTES
from vaultd.errors import InvalidArgument
from vaultd_client.v1.watch_pb2 import ResourceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from google.protobuf.message import Message

KIB: Final = 1024
MAX_PLAINTEXT: Final = 64 * KIB
MAX_CIPHERTEXT: Final = 66 * KIB
MAX_LABELS: Final = 64
MAX_TOKEN_CHARS: Final = 512
MAX_ETAG_CHARS: Final = 64
MAX_MASK_PATHS: Final = 32
MAX_PRINCIPAL_CHARS: Final = 2048
MAX_METHODS: Final = 64
MAX_METHOD_CHARS: Final = 256
MAX_GRANTED: Final = 32
MAX_TESTED: Final = 100
MAX_CLAIMS_CHARS: Final = 16 * KIB
MAX_KINDS: Final = 32
MAX_HEARTBEAT_S: Final = 600
MAX_SEQUENCE: Final = 2**62
MAX_VERIFIED: Final = 1_000_000
_RESOURCE_KINDS: Final = frozenset(ResourceKind.values())
MAX_METADATA: Final = 8 * KIB
MAX_CONTENT_TYPE_CHARS: Final = 128
MAX_OWNER_CHARS: Final = 256
MAX_EXCLUDED_CHARS: Final = 94
MAX_STATES: Final = 6

_LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE: Final = re.compile(r"[a-zA-Z0-9._/-]{0,63}")
_ETAG: Final = re.compile(r'"[0-9]{1,20}"')

Check = "Callable[[Any, str], object]"
"""Takes a field's value and its path; raises InvalidArgument."""


class _Size(NamedTuple):
    """Limits of a bytes field, as data: the hot path compares lengths without a call."""

    maximum: int
    minimum: int = 0

    def __call__(self, value: bytes, field: str) -> None:
        """Check a field of a message within the request."""
        if not self.minimum <= len(value) <= self.maximum:
            raise _size_error(field, self.minimum, self.maximum)


def _size_error(field: str, minimum: int, maximum: int) -> InvalidArgument:
    span = f"{minimum} to {maximum}" if minimum else f"at most {maximum}"
    return InvalidArgument("FIELD_SIZE", f"{field} must be {span} bytes", field=field)


def _between(minimum: int, maximum: int) -> Callable[[Any, str], None]:
    def check(value: int, field: str) -> None:
        if not minimum <= value <= maximum:
            raise InvalidArgument("FIELD_RANGE", f"{field} must be {minimum} to {maximum}", field=field)

    return check


def _chars(maximum: int) -> Callable[[Any, str], None]:
    def check(value: str, field: str) -> None:
        if len(value) > maximum or not value.isprintable():
            raise InvalidArgument("FIELD_SIZE", f"{field} must be at most {maximum} printable characters", field=field)

    return check


def _text(maximum: int) -> Callable[[Any, str], None]:
    def check(value: str, field: str) -> None:
        if len(value) > maximum:
            raise InvalidArgument("FIELD_SIZE", f"{field} must be at most {maximum} characters", field=field)

    return check


def _etag(value: str, field: str) -> None:
    if value and not _ETAG.fullmatch(value):
        raise InvalidArgument("ETAG_MALFORMED", f"{field} must be an etag that the server gave", field=field)


def _labels(value: Mapping[str, str], field: str) -> None:
    if len(value) > MAX_LABELS:
        raise InvalidArgument("LABELS", f"{field} must be at most {MAX_LABELS}", field=field)
    for key, text in value.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(text):
            raise InvalidArgument(
                "LABELS",
                f"{field}: keys match [a-z][a-z0-9_-]{{0,62}}, values [a-zA-Z0-9._/-]{{0,63}}",
                field=field,
            )


def _request_id(value: str, field: str) -> None:
    del field
    names.parse_request_id(value)


_id: Final = names.parse_id
_key: Final = names.parse_key_name
_version: Final = names.parse_version_name
_key_or_version: Final = names.parse_key_or_version_name
_vault: Final = names.parse_vault_name
_grant: Final = names.parse_grant_name
_key_or_vault: Final = names.parse_key_or_vault_name
_import_job: Final = names.parse_import_job_name
_approval: Final = names.parse_approval_name
_policy_scope: Final = names.parse_policy_scope
_policy_resource: Final = names.parse_policy_resource
_secret: Final = names.parse_secret_name
_secret_version: Final = names.parse_secret_version_name
_secret_or_version: Final = names.parse_secret_or_version_name
_alias: Final = names.parse_alias
_quota: Final = names.parse_quota_name
_quota_parent: Final = names.parse_quota_parent
_place: Final = names.parse_place
_watched: Final = names.parse_watched_prefix


def _rules(value: Any, field: str) -> None:
    if len(value) > MAX_RULES:
        raise InvalidArgument("FIELD_RANGE", f"{field} must be at most {MAX_RULES}", field=field)
    for at, rule in enumerate(value):
        names.parse_id(rule.id, f"{field}[{at}].id")  # it goes into the record


def _grantable(value: Any, field: str) -> None:
    if not 1 <= len(value) <= MAX_GRANTED or not GRANTABLE.issuperset(value) or len(set(value)) != len(value):
        raise InvalidArgument(
            "PERMISSION_NOT_GRANTABLE",
            f"{field} must be 1 to {MAX_GRANTED}, each once, of the permissions that use a key or read its public part",
            field=field,
        )


def _optional(check: Callable[[Any, str], object]) -> Callable[[Any, str], None]:
    def checked(value: str, field: str) -> None:
        if value:
            check(value, field)

    return checked


def _principal(value: str, field: str) -> None:
    if not is_principal(value):
        raise InvalidArgument(
            "INVALID_PRINCIPAL",
            f"{field} must be a principal in its one spelling: spiffe://domain/path, dns:name or jwt:issuer:sub",
            field=field,
        )


def _enum_values(message: type[Message], field: str) -> frozenset[int]:
    enum: Any = message.DESCRIPTOR.fields_by_name[field].enum_type
    return frozenset(enum.values_by_number)


def _known_enum(known: frozenset[int]) -> Callable[[Any, str], None]:
    """For an enum field, or a repeated one."""

    def check(value: Any, path: str) -> None:
        if not (value in known if isinstance(value, int) else known.issuperset(value)):
            raise InvalidArgument("ENUM_UNKNOWN", f"{path} has a value that this server does not know", field=path)

    return check


def _resource(checks: Mapping[str, Any]) -> Callable[[Any, str], None]:
    def check(value: Any, field: str) -> None:
        for name, inner in checks.items():
            inner(getattr(value, name), f"{field}.{name}")

    return check


def _mask(value: Any, field: str) -> None:
    if not value.paths or len(value.paths) > MAX_MASK_PATHS:
        raise InvalidArgument("UPDATE_MASK", f"{field} must name 1 to {MAX_MASK_PATHS} fields, or `*`", field=field)


def _principals(value: Any, field: str) -> None:
    if not 1 <= len(value) <= 16 or any(len(text) > MAX_PRINCIPAL_CHARS for text in value):
        raise InvalidArgument("FIELD_RANGE", f"{field} must be 1 to 16 principals", field=field)


def _states(value: Any, field: str) -> None:
    if len(value) > MAX_STATES:
        raise InvalidArgument("FIELD_RANGE", f"{field} must be at most {MAX_STATES}", field=field)


def _payload(value: bytes, field: str) -> None:
    if len(value) > MAX_PAYLOAD_BYTES:
        raise InvalidArgument(
            "PAYLOAD_TOO_LARGE",
            f"{field} must be at most {MAX_PAYLOAD_BYTES // KIB} KiB; encrypt larger data with a data key of "
            "GenerateDataKey, keep it where it is, and store that key here (envelope encryption)",
            field=field,
        )


def _filled_payload(value: bytes, field: str) -> None:
    if not value:
        raise InvalidArgument("FIELD_SIZE", f"{field} must not be empty", field=field)
    _payload(value, field)


def _metadata(value: Any, field: str) -> None:
    if value.ByteSize() > MAX_METADATA:
        raise InvalidArgument("FIELD_SIZE", f"{field} must be at most {MAX_METADATA // KIB} KiB", field=field)
    if not all(math.isfinite(number) for number in _numbers(value)):
        raise InvalidArgument("FIELD_RANGE", f"{field} must hold finite numbers only", field=field)


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in a Struct, at any depth: the parser has bounded that."""
    for inner in value.fields.values() if value.DESCRIPTOR.name == "Struct" else value.values:
        kind = inner.WhichOneof("kind")
        if kind == "number_value":
            yield inner.number_value
        elif kind in {"struct_value", "list_value"}:
            yield from _numbers(getattr(inner, kind))


def _methods(value: Any, field: str) -> None:
    if len(value) > MAX_METHODS or any(len(text) > MAX_METHOD_CHARS for text in value):
        raise InvalidArgument("FIELD_RANGE", f"{field} must be at most {MAX_METHODS} methods", field=field)


def _permissions(value: Any, field: str) -> None:
    if len(value) > MAX_TESTED or any(text not in PERMISSIONS for text in value):
        raise InvalidArgument(
            "PERMISSION_UNKNOWN", f"{field} must be 1 to {MAX_TESTED} permissions of docs/permissions.md", field=field
        )


def _kinds(value: Any, field: str) -> None:
    if len(value) > MAX_KINDS or any(kind == 0 or kind not in _RESOURCE_KINDS for kind in value):
        raise InvalidArgument(
            "ENUM_UNKNOWN", f"{field} must be at most {MAX_KINDS} kinds that this server knows", field=field
        )


def _heartbeat(value: Any, field: str) -> None:
    if value.ByteSize() and not 1 <= value.seconds <= MAX_HEARTBEAT_S:
        raise InvalidArgument("FIELD_RANGE", f"{field} must be 1 s to {MAX_HEARTBEAT_S} s", field=field)


def _hash(size: int) -> Callable[[Any, str], None]:
    def check(value: bytes, field: str) -> None:
        if len(value) not in {0, size}:
            raise InvalidArgument("FIELD_SIZE", f"{field} must be empty or {size} bytes", field=field)

    return check


def _texts(most: int, chars: int) -> Callable[[Any, str], None]:
    def check(value: Any, field: str) -> None:
        if len(value) > most or any(len(text) > chars or not text.isprintable() for text in value):
            raise InvalidArgument(
                "FIELD_RANGE",
                f"{field} must be at most {most}, each of at most {chars} printable characters",
                field=field,
            )

    return check


_WATCHED: Final = _optional(_watched)
_PLAIN: Final = _Size(MAX_PLAINTEXT)
_CIPHER: Final = _Size(MAX_CIPHERTEXT)
_TOKEN: Final = _chars(MAX_TOKEN_CHARS)
_PASSPHRASE: Final = _Size(KIB)
_LABELED: Final = {"labels": _labels}
_OPTIONAL_SCOPE: Final = _optional(_policy_scope)
_OPTIONAL_RESOURCE: Final = _optional(_policy_resource)
_OPTIONAL_SECRET_NAME: Final = _optional(_secret_or_version)
_NAMES: Final = (
    *(_id, _key, _version, _key_or_version, _vault, _quota, _quota_parent, _place, _grant, _key_or_vault, _approval),
    _import_job,
    *(_policy_scope, _policy_resource, _OPTIONAL_SCOPE, _OPTIONAL_RESOURCE, _principal),
    *(_secret, _secret_version, _secret_or_version, _OPTIONAL_SECRET_NAME, _alias),
)
_SECRET_FIELDS: Final = {
    "labels": _labels,
    "owner": _chars(MAX_OWNER_CHARS),
    "metadata": _metadata,
    "keep_versions": _between(0, MAX_KEPT),
}
_CIRCUMSTANCES: Final = {"method": _chars(MAX_METHOD_CHARS), "claims": _text(MAX_CLAIMS_CHARS), "labels": _labels}


def _versioned(check: Callable[[Any, str], object]) -> dict[str, Any]:
    return {"name": check, "etag": _etag, "request_id": _request_id}


REQUESTS: Final[Mapping[str, Mapping[str, Any]]] = {
    # CryptoService
    "EncryptRequest": {"name": _key_or_version, "plaintext": _PLAIN, "associated_data": _PLAIN},
    "DecryptRequest": {"name": _key_or_version, "ciphertext": _CIPHER, "associated_data": _PLAIN},
    "ReEncryptRequest": {
        "source_name": _key_or_version,
        "ciphertext": _CIPHER,
        "source_associated_data": _PLAIN,
        "destination_name": _key_or_version,
        "destination_associated_data": _PLAIN,
    },
    "SignRequest": {"name": _key_or_version, "message": _PLAIN, "digest": _Size(64)},
    "VerifyRequest": {
        "name": _key_or_version,
        "message": _PLAIN,
        "digest": _Size(64),
        "signature": _Size(8 * KIB, 1),
    },
    "GenerateMacRequest": {"name": _key_or_version, "data": _PLAIN},
    "VerifyMacRequest": {"name": _key_or_version, "data": _PLAIN, "mac": _Size(64, 1)},
    "WrapKeyRequest": {"name": _key_or_version, "key_material": _Size(8 * KIB, 1)},
    "UnwrapKeyRequest": {"name": _key_or_version, "wrapped_key": _Size(8 * KIB + 8, 1)},
    "GenerateDataKeyRequest": {
        "name": _key_or_version,
        "length_bytes": _between(0, KIB),
        "count": _between(0, 100),
        "associated_data": _PLAIN,
    },
    "EncapsulateRequest": {"name": _key_or_version},
    "DecapsulateRequest": {"name": _key_or_version, "ciphertext": _Size(1568, 1)},
    "DeriveSharedSecretRequest": {"name": _key_or_version, "peer_public_key": _Size(KIB, 1)},
    "GenerateRandomBytesRequest": {"parent": _vault, "length_bytes": _between(1, 65_536)},
    "InspectCiphertextRequest": {"name": _key_or_version, "ciphertext": _CIPHER},
    "CryptoStreamRequest": {},
    "ReEncryptStreamRequest": {
        "source_name": _optional(_key_or_version),  # both are copied into the request of every item
        "destination_name": _optional(_key_or_version),
    },
    # KeysService
    "CreateKeyRequest": {
        "parent": _vault,
        "key_id": _id,
        "key": _resource(_LABELED),
        "request_id": _request_id,
    },
    "AdoptKeyRequest": {
        "parent": _vault,
        "key_id": _id,
        "key": _resource(_LABELED),
        "token_key": _resource({"slot": _chars(32), "object_id": _Size(64), "object_label": _chars(256)}),
        "request_id": _request_id,
    },
    "GetKeyRequest": {"name": _key},
    "ListKeysRequest": {"parent": _vault, "page_token": _TOKEN},
    "UpdateKeyRequest": {
        "key": _resource({"name": _key, "labels": _labels, "etag": _etag}),
        "update_mask": _mask,
        "etag": _etag,
        "request_id": _request_id,
    },
    "RotateKeyRequest": _versioned(_key),
    "SetPrimaryVersionRequest": _versioned(_version),
    "ListKeyVersionsRequest": {"parent": _key, "page_token": _TOKEN},
    "GetKeyVersionRequest": {"name": _key_or_version},
    "EnableKeyVersionRequest": _versioned(_version),
    "DisableKeyVersionRequest": _versioned(_version),
    "DestroyKeyVersionRequest": _versioned(_version),
    "RestoreKeyVersionRequest": _versioned(_version),
    "DeleteKeyRequest": _versioned(_key),
    "UndeleteKeyRequest": _versioned(_key),
    "PurgeKeyRequest": _versioned(_key),
    "GetPublicKeyRequest": {"name": _key_or_version},
    "GetCapabilitiesRequest": {"parent": _vault},
    "GetKeyUsageRequest": {"name": _key},
    "CreateGrantRequest": {
        "parent": _key,
        "grant": _resource({"grantee": _principal, "permissions": _grantable, "max_uses": _between(0, MAX_USES)}),
        "request_id": _request_id,
    },
    "GetGrantRequest": {"name": _grant},
    "ListGrantsRequest": {"parent": _key_or_vault, "grantee": _chars(MAX_PRINCIPAL_CHARS), "page_token": _TOKEN},
    "RevokeGrantRequest": {"name": _grant, "request_id": _request_id},
    # SecretsService
    "CreateSecretRequest": {
        "parent": _vault,
        "secret_id": _id,
        "secret": _resource(_SECRET_FIELDS),
        "payload": _payload,
        "content_type": _chars(MAX_CONTENT_TYPE_CHARS),
        "version_metadata": _metadata,
        "request_id": _request_id,
    },
    "GetSecretRequest": {"name": _secret},
    "ListSecretsRequest": {"parent": _vault, "page_token": _TOKEN},
    "UpdateSecretRequest": {
        "secret": _resource({"name": _secret, **_SECRET_FIELDS, "etag": _etag}),
        "update_mask": _mask,
        "etag": _etag,
        "request_id": _request_id,
    },
    "AddSecretVersionRequest": {
        "parent": _secret,
        "payload": _filled_payload,
        "expected_etag": _etag,
        "content_type": _chars(MAX_CONTENT_TYPE_CHARS),
        "metadata": _metadata,
        "request_id": _request_id,
    },
    "AccessSecretVersionRequest": {
        "name": _secret_or_version,
        # Their forms are looked at by the service, where they are given at all: a batch has thousands without them.
        "if_version_not": _Size(names.MAX_NAME_CHARS),
        "recipient_public_key": _Size(X25519_BYTES),
        "recipient_context": _Size(KIB),
    },
    "ListSecretVersionsRequest": {"parent": _secret, "page_token": _TOKEN},
    "GetSecretVersionRequest": {"name": _secret_or_version},
    "EnableSecretVersionRequest": _versioned(_secret_version),
    "DisableSecretVersionRequest": _versioned(_secret_version),
    "DestroySecretVersionRequest": _versioned(_secret_version),
    "SetAliasRequest": {
        "name": _secret,
        "alias": _alias,
        "version": _OPTIONAL_SECRET_NAME,
        "etag": _etag,
        "request_id": _request_id,
    },
    "DeleteSecretRequest": _versioned(_secret),
    "UndeleteSecretRequest": _versioned(_secret),
    "PurgeSecretRequest": _versioned(_secret),
    "SetRotationPolicyRequest": {
        "name": _secret,
        "policy": _resource(
            {"target": _optional(_id), "password": _resource({"excluded_characters": _chars(MAX_EXCLUDED_CHARS)})}
        ),
        "etag": _etag,
        "request_id": _request_id,
    },
    "DeleteRotationPolicyRequest": _versioned(_secret),
    "GetRotationRequest": {"name": _secret},
    "ListRotationsRequest": {"parent": _vault, "states": _states, "page_token": _TOKEN},
    "RotateSecretRequest": {"name": _secret, "request_id": _request_id},
    "CancelRotationRequest": {"name": _secret, "request_id": _request_id},
    # KeysService: material that comes in, goes out, or is kept elsewhere
    "CreateImportJobRequest": {"parent": _vault, "import_job_id": _id, "request_id": _request_id},
    "GetImportJobRequest": {"name": _import_job},
    "ListImportJobsRequest": {"parent": _vault, "page_token": _TOKEN},
    "ImportKeyVersionRequest": {
        "parent": _key,
        "import_job": _import_job,
        "wrapped_key": _Size(16 * KIB, 1),
        "prior_messages": _between(0, 2**62),
        "etag": _etag,
        "request_id": _request_id,
    },
    "ExportKeyVersionRequest": {
        "name": _key_or_version,
        "public_key_pem": _text(4 * KIB),
        "public_key_raw": _Size(2 * KIB),
        "request_id": _request_id,
    },
    "BackupKeyRequest": {"name": _key},
    "RestoreKeyBackupRequest": {
        "parent": _vault,
        "backup": _Size(MAX_BACKUP_BYTES, 1),
        "request_id": _request_id,
    },
    # AdminService
    "GetStatusRequest": {},
    "InitRequest": {"admin_principals": _principals, "passphrase": _PASSPHRASE},
    "SealRequest": {},
    "UnsealRequest": {"passphrase": _PASSPHRASE},
    "RotateRootKeyRequest": {"passphrase": _PASSPHRASE, "request_id": _request_id},
    "CreateVaultRequest": {
        "vault_id": _id,
        "vault": _resource({"display_name": _chars(256), "labels": _labels}),
        "request_id": _request_id,
    },
    "GetVaultRequest": {"name": _vault},
    "ListVaultsRequest": {"page_token": _TOKEN},
    "UpdateVaultRequest": {
        "vault": _resource({"name": _vault, "display_name": _chars(256), "labels": _labels, "etag": _etag}),
        "update_mask": _mask,
        "etag": _etag,
        "request_id": _request_id,
    },
    "DeleteVaultRequest": _versioned(_vault),
    "CreateQuotaRequest": {
        "parent": _quota_parent,
        "quota_id": _id,
        "quota": _resource({"subject": _chars(MAX_PRINCIPAL_CHARS), "resource": _place, "methods": _methods}),
        "request_id": _request_id,
    },
    "GetQuotaRequest": {"name": _quota, "principal": _chars(MAX_PRINCIPAL_CHARS)},
    "ListQuotasRequest": {"parent": _quota_parent, "page_token": _TOKEN},
    "UpdateQuotaRequest": {
        "quota": _resource({"name": _quota, "methods": _methods, "etag": _etag}),
        "update_mask": _mask,
        "etag": _etag,
        "request_id": _request_id,
    },
    "DeleteQuotaRequest": _versioned(_quota),
    "ListOwnQuotasRequest": {"resource": _place, "method": _chars(MAX_METHOD_CHARS)},
    "GetApprovalRulesRequest": {},
    "SetApprovalRulesRequest": {"rules": _rules, "etag": _etag, "request_id": _request_id},
    "ListApprovalsRequest": {"page_token": _TOKEN},
    "GetApprovalRequest": {"name": _approval},
    "ApproveRequestRequest": {"name": _approval, "request_id": _request_id},
    "RejectRequestRequest": {"name": _approval, "request_id": _request_id},
    "CancelApprovalRequest": {"name": _approval, "request_id": _request_id},
    "GetPolicyRequest": {"resource": _policy_scope},
    "SetPolicyRequest": {"resource": _policy_scope, "etag": _etag, "request_id": _request_id},
    "TestPolicyRequest": {
        "resource": _policy_resource,
        "permissions": _permissions,
        "principal": _chars(MAX_PRINCIPAL_CHARS),
        "policy_resource": _OPTIONAL_SCOPE,
        "circumstances": _resource(_CIRCUMSTANCES),
    },
    "ExplainAccessRequest": {
        "principal": _chars(MAX_PRINCIPAL_CHARS),
        "method": _chars(MAX_METHOD_CHARS),
        "resource": _OPTIONAL_RESOURCE,
        "incident_id": _request_id,
        "circumstances": _resource(_CIRCUMSTANCES),
    },
    "ReviewAccessRequest": {"resource": _policy_resource, "page_token": _TOKEN},
    "RevokeIdentityRequest": {"principal": _principal, "reason": _chars(256), "request_id": _request_id},
    "ListRevokedIdentitiesRequest": {"page_token": _TOKEN},
    "RestoreIdentityRequest": {"principal": _principal, "request_id": _request_id},
    "WatchRequest": {
        "resume_token": _chars(64),
        "filter": _resource({"resource_prefix": _WATCHED, "kinds": _kinds}),
        "heartbeat_interval": _heartbeat,
    },
    "GetInclusionProofRequest": {
        "sequence": _between(1, MAX_SEQUENCE),
        "chain_id": _hash(16),
        "leaf_hash": _hash(32),
    },
    "GetConsistencyProofRequest": {"tree_size": _between(1, MAX_SEQUENCE), "chain_id": _hash(16)},
    "VerifyAuditRequest": {
        "first_sequence": _between(0, MAX_SEQUENCE),
        "max_records": _between(0, MAX_VERIFIED),
        "chain_id": _hash(16),
    },
    "TailAuditRequest": {
        "after_sequence": _between(0, MAX_SEQUENCE),
        "chain_id": _hash(16),
        "filter": _resource(
            {
                "events": _texts(32, 64),
                "methods": _methods,
                "principals": _texts(100, MAX_PRINCIPAL_CHARS),
                "codes": _texts(32, 64),
                "resource_prefix": _chars(256),
            }
        ),
        "heartbeat_interval": _heartbeat,
    },
    # grpc.health.v1 and reflection
    "HealthCheckRequest": {"service": _chars(256)},
    "HealthListRequest": {},
    "ServerReflectionRequest": {},
}

_CHECKSUMS: Final = {
    "plaintext_crc32c": ("plaintext",),
    "associated_data_crc32c": ("associated_data",),
    "ciphertext_crc32c": ("ciphertext",),
    "input_crc32c": ("message", "digest"),
    "signature_crc32c": ("signature",),
    "data_crc32c": ("data",),
    "mac_crc32c": ("mac",),
    "key_material_crc32c": ("key_material",),
    "wrapped_key_crc32c": ("wrapped_key",),
    "payload_crc32c": ("payload",),
}


def crc32c(data: bytes) -> int:
    """CRC32C (Castagnoli) of data."""
    return int(google_crc32c.value(data))


class Validator(NamedTuple):
    """The checks of a request type: of the resource names in it, and of everything else.

    rest takes how long the encoded request is, where that is known: no field is longer, which saves looking at each.
    plain: whether all of these requests are sure to pass `rest`, found without looking at each by itself.  False says nothing.
    """

    names: Callable[[Any], None]
    rest: Callable[..., None]
    plain: Callable[[Sequence[Any]], bool]


def compile_validator(message: type[Message], *, refuse_unknown: bool) -> Validator:
    """Make the checks of a request type; raises KeyError when the type has no row.

    `refuse_unknown`: a mutation with a field that this server does not know is refused, since it asks for something that
    would not be done.
    """
    rows = REQUESTS[message.DESCRIPTOR.name]
    fields = message.DESCRIPTOR.fields_by_name
    named = [(name, check) for name, check in rows.items() if check in _NAMES]
    sizes = [(name, check.minimum, check.maximum) for name, check in rows.items() if isinstance(check, _Size)]
    others = [(name, check) for name, check in rows.items() if check not in _NAMES and not isinstance(check, _Size)]
    enums = [(name, _enum_values(message, name)) for name, field in fields.items() if field.enum_type is not None]
    never_plain = bool(others) or refuse_unknown or any(fields[name].is_repeated for name, _ in enums)
    others += [(name, _known_enum(known)) for name, known in enums]
    measured = [(attrgetter(name), minimum, maximum) for name, minimum, maximum in sizes]
    listed = [(attrgetter(name), known) for name, known in enums]
    roomy = min((maximum for _, _, maximum in sizes), default=0)
    """A request of this length has no field that is too long."""
    filled = [(name, minimum, maximum) for name, minimum, maximum in sizes if minimum]
    sums = [(name, _CHECKSUMS[name]) for name in fields if name in _CHECKSUMS]
    summed = [name for name, _ in sums]
    has_field = message.HasField  # of the type: looked up on a message it costs three times as much

    def validate_names(request: Any) -> None:
        for name, check in named:
            check(getattr(request, name), name)

    def validate_rest(request: Any, length: int = sys.maxsize) -> None:
        for name, minimum, maximum in sizes if length > roomy else filled:
            if not minimum <= len(getattr(request, name)) <= maximum:
                raise _size_error(name, minimum, maximum)
        if others:
            for name, check in others:
                check(getattr(request, name), name)
        if True in map(has_field, repeat(request), summed):
            for name, covered in sums:
                if has_field(request, name):
                    _check_sum(request, name, covered)
        if refuse_unknown:
            _refuse_unknown(request)

    def are_plain(requests: Sequence[Any]) -> bool:
        if never_plain:
            return False
        for value_of, minimum, maximum in measured:
            lengths = list(map(len, map(value_of, requests)))
            if min(lengths) < minimum or max(lengths) > maximum:
                return False
        for value_of, known in listed:
            if not known.issuperset(map(value_of, requests)):
                return False
        return not any(True in map(has_field, requests, repeat(name)) for name in summed)

    return Validator(validate_names, validate_rest, are_plain)


def _check_sum(request: Any, name: str, covered: tuple[str, ...]) -> None:
    data = b"".join(getattr(request, field) for field in covered)
    if crc32c(data) != getattr(request, name):
        raise InvalidArgument(
            "CHECKSUM_MISMATCH", f"{name} does not match what arrived; send the request again", field=name
        )


def _refuse_unknown(message: Any) -> None:
    if len(UnknownFieldSet(message)):
        raise InvalidArgument(
            "UNKNOWN_FIELD",
            "the request has a field that this server does not know; upgrade the server, or leave it out",
        )
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else (value,):
                _refuse_unknown(inner)
