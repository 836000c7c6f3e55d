"""The rotation part of SecretsService: message to engine call and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.empty_pb2 import Empty

from vaultd.engine.generators import (
    CLASSES,
    DEFAULT_PASSWORD_CHARS,
    DEFAULT_RANDOM_BYTES,
    BytesEncoding,
    KeyPairRules,
    KeyPairType,
    PasswordRules,
    RandomBytesRules,
)
from vaultd.engine.paging import page_length, page_limit, page_start, page_token
from vaultd.engine.rotation_model import RotationPolicy, RotationState, Stage
from vaultd.errors import InvalidArgument
from vaultd.names import parse_secret_name, parse_vault_name, secret_version_name
from vaultd.services.convert import duration_us, set_time, time_us
from vaultd_client.v1 import rotation_pb2 as pb

if TYPE_CHECKING:
    from vaultd.engine.clock import Clock
    from vaultd.engine.generators import GeneratorRules
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.rotation_model import Rotation
    from vaultd.engine.rotations import Rotations
    from vaultd.services.context import Context

DUE: Final = "DUE"
"""A state of the wire only: the time has come, and nobody has begun."""
STATE_NUMBERS: Final[dict[str, Any]] = {
    name: pb.RotationState.Value(f"ROTATION_STATE_{name}") for name in (*(state.value for state in RotationState), DUE)
}
STATE_NAMES: Final = {number: name for name, number in STATE_NUMBERS.items()}
STAGE_NUMBERS: Final[dict[Stage, Any]] = {
    stage: pb.RotationStage.Value(f"ROTATION_STAGE_{stage.value}") for stage in Stage
}
ENCODINGS: Final[dict[Any, BytesEncoding]] = {
    0: BytesEncoding.RAW,
    **{pb.BytesEncoding.Value(f"BYTES_ENCODING_{encoding.value}"): encoding for encoding in BytesEncoding},
}
KEY_PAIRS: Final[dict[Any, KeyPairType]] = {
    0: KeyPairType.ED25519,
    **{pb.KeyPairType.Value(f"KEY_PAIR_TYPE_{kind.value}"): kind for kind in KeyPairType},
}
ENCODING_NUMBERS: Final = {encoding: number for number, encoding in ENCODINGS.items()}
KEY_PAIR_NUMBERS: Final = {kind: number for number, kind in KEY_PAIRS.items()}


def read_policy(policy: pb.RotationPolicy) -> RotationPolicy:
    """What a request says of a policy; raises InvalidArgument."""
    return RotationPolicy(
        rules=_rules(policy),
        target=policy.target,
        period_us=duration_us(policy, "rotation_period", "policy.rotation_period"),
        notice_us=duration_us(policy, "notice_period", "policy.notice_period"),
        overlap_us=duration_us(policy, "overlap", "policy.overlap"),
    )


def _rules(policy: pb.RotationPolicy) -> GeneratorRules:
    which = policy.WhichOneof("generator")
    if which == "random_bytes":
        if policy.random_bytes.encoding not in ENCODINGS:
            raise _unknown("policy.random_bytes.encoding")
        encoding = ENCODINGS[policy.random_bytes.encoding]
        return RandomBytesRules(policy.random_bytes.length_bytes or DEFAULT_RANDOM_BYTES, encoding)
    if which == "key_pair":
        if policy.key_pair.type not in KEY_PAIRS:
            raise _unknown("policy.key_pair.type")
        return KeyPairRules(KEY_PAIRS[policy.key_pair.type])
    asked = policy.password
    least = {name: getattr(asked, name) for name in CLASSES if asked.HasField(name)}
    length, excluded = asked.length or DEFAULT_PASSWORD_CHARS, asked.excluded_characters
    return PasswordRules(length, least, excluded) if least else PasswordRules(length, excluded=excluded)


def _unknown(field: str) -> InvalidArgument:
    return InvalidArgument("ENUM_UNKNOWN", f"{field} has a value that this server does not know", field=field)


def _policy_message(rotation: Rotation) -> pb.RotationPolicy:
    policy, rules = rotation.policy, rotation.policy.rules
    message = pb.RotationPolicy(target=policy.target)
    if isinstance(rules, PasswordRules):
        message.password.CopyFrom(
            pb.PasswordGenerator(length=rules.length, excluded_characters=rules.excluded, **rules.least)
        )
    elif isinstance(rules, RandomBytesRules):
        message.random_bytes.length_bytes = rules.length
        message.random_bytes.encoding = ENCODING_NUMBERS[rules.encoding]
    else:
        message.key_pair.type = KEY_PAIR_NUMBERS[rules.type]
    for name, value_us in (
        ("rotation_period", policy.period_us),
        ("notice_period", policy.notice_us),
        ("overlap", policy.overlap_us),
    ):
        if value_us is not None:
            getattr(message, name).FromMicroseconds(value_us)
    set_time(message.next_rotation_time, rotation.next_us)
    return message


def state_of(rotation: Rotation, now_us: int) -> str:
    """The state as the wire has it."""
    if rotation.state in {RotationState.IDLE, RotationState.FAILED}:
        due_us = rotation.next_us if rotation.state is RotationState.IDLE else rotation.wait_us
        if due_us is not None and due_us <= now_us:
            return DUE
    return rotation.state.value


def rotation_message(rotation: Rotation, now_us: int) -> pb.Rotation:
    """A rotation as the wire has it."""
    message = pb.Rotation(
        name=rotation.name,
        secret=rotation.secret_name,
        policy=_policy_message(rotation),
        state=STATE_NUMBERS[state_of(rotation, now_us)],
        run=rotation.run_name,
        attempt=rotation.attempt,
        failed_runs=rotation.failures,
        owner=rotation.owner,
        cancelled=rotation.cancelled,
        etag=rotation.etag,
    )
    if rotation.stage is not None:
        message.stage = STAGE_NUMBERS[rotation.stage]
    for name, number in (("old_version", rotation.old), ("new_version", rotation.new)):
        if number:
            setattr(message, name, secret_version_name(rotation.vault, rotation.id, number))
    if rotation.failure is not None:
        failure = rotation.failure
        message.failure.CopyFrom(
            pb.RotationFailure(stage=STAGE_NUMBERS[failure.stage], reason=failure.reason, text=failure.text)
        )
        set_time(message.failure.time, failure.at_us)
    overlap = rotation.state is RotationState.OVERLAP
    set_time(message.retire_time if overlap else message.retry_time, rotation.wait_us)
    set_time(message.begin_time, rotation.begin_us)
    set_time(message.promote_time, rotation.promote_us)
    set_time(message.lease_expire_time, rotation.lease_us)
    set_time(message.create_time, rotation.create_us)
    set_time(message.update_time, rotation.update_us)
    return message


class RotationCalls:
    """Sets policies, begins runs, and says how far they are."""

    def __init__(self, rotations: Rotations, ledger: Ledger, clock: Clock) -> None:
        self._rotations = rotations
        self._ledger = ledger
        self._clock = clock

    def _message(self, rotation: Rotation) -> pb.Rotation:
        return rotation_message(rotation, self._clock.now_us())

    async def SetRotationPolicy(self, request: pb.SetRotationPolicyRequest, context: Context) -> pb.Rotation:
        ref = parse_secret_name(request.name)
        policy = read_policy(request.policy)
        next_us = time_us(request.policy, "next_rotation_time", "policy.next_rotation_time")
        intent = context.intent(request)
        return self._message(await self._rotations.set_policy(intent, ref, policy, next_us, request.etag))

    async def DeleteRotationPolicy(self, request: pb.DeleteRotationPolicyRequest, context: Context) -> Empty:
        ref = parse_secret_name(request.name)
        await self._rotations.remove_policy(context.intent(request), ref, request.etag)
        return Empty()

    async def GetRotation(self, request: pb.GetRotationRequest, context: Context) -> pb.Rotation:
        del context
        return self._message(await self._rotations.get(parse_secret_name(request.name)))

    async def ListRotations(self, request: pb.ListRotationsRequest, context: Context) -> pb.ListRotationsResponse:
        del context
        vault = parse_vault_name(request.parent, "parent")
        wanted = {STATE_NAMES[number] for number in request.states if number}
        stored = {RotationState.IDLE, RotationState.FAILED} if DUE in wanted else set()
        stored |= {RotationState(name) for name in wanted - {DUE}}
        limit = page_limit(request.page_size)
        query = f"rotations {vault} {' '.join(sorted(wanted))}"
        after = page_start(self._ledger, query, request.page_token)
        found = await self._rotations.list(vault, after, limit + 1, sorted(stored, key=lambda state: state.value))
        now_us = self._clock.now_us()
        messages = [rotation_message(rotation, now_us) for rotation in found]
        length = page_length((message.ByteSize() for message in messages), limit)
        shown = [message for message in messages[:length] if not wanted or STATE_NAMES[message.state] in wanted]
        response = pb.ListRotationsResponse(rotations=shown)
        if len(found) > length:
            response.next_page_token = page_token(self._ledger, query, found[length - 1].id)
        return response

    async def RotateSecret(self, request: pb.RotateSecretRequest, context: Context) -> pb.Rotation:
        ref = parse_secret_name(request.name)
        return self._message(await self._rotations.rotate(context.intent(request), ref))

    async def CancelRotation(self, request: pb.CancelRotationRequest, context: Context) -> pb.Rotation:
        ref = parse_secret_name(request.name)
        return self._message(await self._rotations.cancel(context.intent(request), ref))
