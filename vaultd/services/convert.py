"""Engine values to and from messages: enums, times, resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from vaultd.engine.algorithms import ALGORITHMS, ProtectionLevel, Purpose
from vaultd.engine.model import Grant, Key, KeyState, KeyVersion, RevokedIdentity, Vault, VersionState
from vaultd.engine.tester import Circumstances
from vaultd.errors import InvalidArgument
from vaultd_client.v1 import grant_pb2, identity_pb2, policy_pb2
from vaultd_client.v1 import resources_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from vaultd.engine.explain import Explanation
    from vaultd.engine.model import PolicyPart
    from vaultd.engine.policy import Decision
    from vaultd.engine.review import AccessGrant

ALGORITHM_NUMBERS: Final[dict[str, Any]] = {name: pb.Algorithm.Value(f"ALGORITHM_{name}") for name in ALGORITHMS}
ALGORITHM_NAMES: Final = {number: name for name, number in ALGORITHM_NUMBERS.items()}
PURPOSE_NUMBERS: Final[dict[Purpose, Any]] = {
    purpose: pb.KeyPurpose.Value(f"KEY_PURPOSE_{purpose.value}") for purpose in Purpose
}
PURPOSES: Final = {number: purpose for purpose, number in PURPOSE_NUMBERS.items()}
LEVEL_NUMBERS: Final[dict[ProtectionLevel, Any]] = {
    level: pb.ProtectionLevel.Value(f"PROTECTION_LEVEL_{level.value}") for level in ProtectionLevel
}
LEVELS: Final = {0: ProtectionLevel.SOFTWARE, **{number: level for level, number in LEVEL_NUMBERS.items()}}
KEY_STATES: Final[dict[KeyState, Any]] = {
    state: pb.KeyState.Value(f"KEY_STATE_{state.value}") for state in KeyState if state is not KeyState.PURGED
}
VERSION_STATES: Final[dict[VersionState, Any]] = {
    state: pb.KeyVersionState.Value(f"KEY_VERSION_STATE_{state.value}") for state in VersionState
}
MAX_SECONDS: Final = 253_402_300_799
"""9999-12-31T23:59:59Z, the last second of a Timestamp."""


def set_time(target: Timestamp, us: int | None) -> None:
    """Fill a Timestamp, or leave it unset for None."""
    if us is not None:
        target.FromMicroseconds(us)


def time_us(message: Any, field: str, path: str) -> int | None:
    """A Timestamp field in microseconds, None when unset; raises InvalidArgument when it is no time."""
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    if not 0 <= value.seconds <= MAX_SECONDS or not 0 <= value.nanos < 1_000_000_000:
        raise InvalidArgument("TIME_RANGE", f"{path} must be a time between 1970 and 9999", field=path)
    return value.seconds * 1_000_000 + value.nanos // 1000


def duration_us(message: Any, field: str, path: str) -> int | None:
    """A Duration field in microseconds, None when unset; raises InvalidArgument when it is negative or absurd."""
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    if not 0 <= value.seconds <= MAX_SECONDS or not 0 <= value.nanos < 1_000_000_000:
        raise InvalidArgument("DURATION_RANGE", f"{path} must be a duration that is not negative", field=path)
    return value.seconds * 1_000_000 + value.nanos // 1000


def key_message(key: Key) -> pb.Key:
    """A Key as the wire has it."""
    message = pb.Key(
        name=key.name,
        uid=key.uid,
        purpose=PURPOSE_NUMBERS[key.algorithm.purpose],
        algorithm=ALGORITHM_NUMBERS[key.algorithm.name],
        protection_level=LEVEL_NUMBERS[key.protection_level],
        labels=key.labels,
        exportable=key.exportable,
        purge_protection=key.purge_protection,
        state=KEY_STATES[key.state],
        primary_version=f"{key.name}/versions/{key.primary}" if key.primary else "",
        newest_version=key.newest,
        etag=key.etag,
        import_only=key.import_only,
        min_decrypt_version=key.min_decrypt,
    )
    if key.notice_us is not None:
        message.notice_period.FromMicroseconds(key.notice_us)
    if key.rotation_period_us is not None:
        message.rotation_period.FromMicroseconds(key.rotation_period_us)
    message.destroy_scheduled_duration.FromMicroseconds(key.destroy_delay_us)
    set_time(message.next_rotation_time, key.next_rotation_us)
    set_time(message.expire_time, key.expire_us)
    set_time(message.create_time, key.create_us)
    set_time(message.update_time, key.update_us)
    set_time(message.delete_time, key.delete_us)
    set_time(message.purge_time, key.purge_us)
    return message


def version_message(version: KeyVersion) -> pb.KeyVersion:
    """A KeyVersion as the wire has it."""
    message = pb.KeyVersion(
        name=version.name,
        state=VERSION_STATES[version.state],
        algorithm=ALGORITHM_NUMBERS[version.algorithm.name],
        protection_level=LEVEL_NUMBERS[version.protection_level],
        imported=version.imported,
        etag=version.etag,
    )
    set_time(message.create_time, version.create_us)
    set_time(message.destroy_time, version.destroy_us)
    set_time(message.destroy_event_time, version.destroyed_us)
    if version.attestation:
        told: dict[str, Any] = dict(version.attestation)
        told["object_id"] = bytes.fromhex(told["object_id"])
        message.attestation.CopyFrom(pb.KeyAttestation(**told))
    return message


def vault_message(vault: Vault) -> pb.Vault:
    """A Vault as the wire has it."""
    message = pb.Vault(name=vault.name, display_name=vault.display_name, labels=vault.labels, etag=vault.etag)
    set_time(message.create_time, vault.create_us)
    set_time(message.update_time, vault.update_us)
    return message


def grant_message(grant: Grant, uses_left: int) -> grant_pb2.Grant:
    """A Grant as the wire has it."""
    message = grant_pb2.Grant(
        name=grant.name,
        grantee=grant.grantee,
        permissions=grant.permissions,
        max_uses=grant.max_uses,
        granter=grant.granter,
        uses_left=uses_left,
    )
    set_time(message.expire_time, grant.expire_us)
    set_time(message.create_time, grant.create_us)
    return message


def revoked_identity_message(revoked: RevokedIdentity) -> identity_pb2.RevokedIdentity:
    """A RevokedIdentity as the wire has it."""
    message = identity_pb2.RevokedIdentity(
        principal=revoked.principal, reason=revoked.reason, revoked_by=revoked.revoked_by
    )
    set_time(message.revoke_time, revoked.revoke_us)
    return message


def update_paths(mask: Any, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The fields that an update mask names; raises InvalidArgument for one that may not be updated."""
    paths = tuple(mask.paths)
    if paths == ("*",):
        return allowed
    if not set(paths) <= set(allowed):
        raise InvalidArgument(
            "UPDATE_MASK", f"update_mask may name {', '.join(allowed)}, or be `*`", field="update_mask"
        )
    return paths


def one_etag(*etags: str) -> str:
    """The etag given in either place; raises InvalidArgument when two differ."""
    given = {etag for etag in etags if etag}
    if len(given) > 1:
        raise InvalidArgument("ETAG_CONFLICT", "the request carries two different etags; give one", field="etag")
    return given.pop() if given else ""


def policy_document(message: policy_pb2.Policy) -> dict[str, list[dict[str, Any]]]:
    """A Policy message as the document that the engine reads."""

    def conditional(entry: Any, values: dict[str, Any]) -> dict[str, Any]:
        return values | {"condition": entry.condition} if entry.condition else values

    return {
        "roles": [{"name": role.name, "permissions": list(role.permissions)} for role in message.roles],
        "groups": [{"name": group.name, "members": list(group.members)} for group in message.groups],
        "bindings": [
            conditional(b, {"members": list(b.members), "role": b.role, "resource": b.resource})
            for b in message.bindings
        ],
        "denies": [
            conditional(d, {"members": list(d.members), "permissions": list(d.permissions), "resource": d.resource})
            for d in message.denies
        ],
    }


def policy_message(part: PolicyPart) -> policy_pb2.ResourcePolicy:
    """A part of the policy as the wire has it."""
    document = part.document
    policy = policy_pb2.Policy(
        roles=[policy_pb2.Role(**role) for role in document.get("roles", [])],
        groups=[policy_pb2.Group(**group) for group in document.get("groups", [])],
        bindings=[policy_pb2.Binding(**binding) for binding in document.get("bindings", [])],
        denies=[policy_pb2.Deny(**deny) for deny in document.get("denies", [])],
    )
    return policy_pb2.ResourcePolicy(
        resource=part.resource,
        policy=policy,
        etag=part.etag,
        entries_added=part.added,
        entries_removed=part.removed,
    )


def circumstances_of(request: Any) -> Circumstances:
    """What a request assumes of a call; raises InvalidArgument for claims that are no JSON object."""
    given = request.circumstances
    return Circumstances(
        method=given.method,
        time_us=time_us(given, "time", "circumstances.time"),
        claims=_claims(given.claims) if given.claims else {},
        labels=dict(given.labels) if given.labels else None,
    )


def _claims(text: str) -> dict[str, Any]:
    try:
        claims = orjson.loads(text)
    except ValueError:
        claims = None
    if not isinstance(claims, dict):
        raise InvalidArgument("CLAIMS", "circumstances.claims must be a JSON object", field="circumstances.claims")
    return claims


def explanation_message(found: Explanation) -> policy_pb2.ExplainAccessResponse:
    """An explanation as the wire has it."""
    message = policy_pb2.ExplainAccessResponse(
        decisions=[decision_message(permission, decision) for permission, decision in found.decisions],
        allowed=found.allowed,
        missing_permissions=found.missing,
        roles=found.roles,
        key_state=found.key_state,
        secret_state=found.secret_state,
        quota_left=found.quota_left,
        advice=found.advice,
    )
    refusal = found.refusal
    if refusal is not None:
        message.refusal.CopyFrom(
            policy_pb2.Refusal(
                request_id=refusal.request_id,
                principal=refusal.principal,
                method=refusal.method,
                resources=refusal.resources,
                code=refusal.code,
                reason=refusal.reason,
            )
        )
        set_time(message.refusal.time, refusal.at_us)
    return message


def decision_message(permission: str, decision: Decision) -> policy_pb2.PolicyDecision:
    """A decision as the wire has it."""
    return policy_pb2.PolicyDecision(permission=permission, allowed=decision.allowed, reason=decision.reason)


def access_grant_message(grant: AccessGrant) -> policy_pb2.AccessGrant:
    """A grant of a review as the wire has it."""
    message = policy_pb2.AccessGrant(
        principal=grant.principal,
        group=grant.group,
        binding=grant.binding,
        role=grant.role,
        bound_on=grant.bound_on,
        condition=grant.condition,
    )
    for use in grant.permissions:
        added = message.permissions.add(permission=use.permission, denied=use.denied)
        set_time(added.last_use_time, use.last_use_us)
    return message
