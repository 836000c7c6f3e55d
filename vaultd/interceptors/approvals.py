"""Whether a call of high impact has the approvals that it needs.  Asked when all else was found in order, before its intent."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToJson

from vaultd import failpoints
from vaultd.engine.approvals import Ask
from vaultd.engine.model import ApprovalState
from vaultd.errors import Aborted, FailedPrecondition, Unavailable, VaultdError
from vaultd.interceptors.rules import HIGH_IMPACT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vaultd.engine.approvals import Approvals
    from vaultd.engine.model import Approval
    from vaultd.interceptors.audit import AuditStep, Entry
    from vaultd.interceptors.rules import Rule
    from vaultd.services.context import Context

MAX_SHOWN_CHARS: Final = 64 * 1024


class ApprovalStep:
    """Finds the approved request that a call is, or stores it as one that waits; and marks it used before the act."""

    def __init__(self, approvals: Approvals, audit: AuditStep) -> None:
        self._approvals = approvals
        self._audit = audit

    async def require(self, rule: Rule, request: Any, body: bytes, context: Context, entry: Entry) -> Approval | None:
        """Return the approval to use, None where no rule covers the call; raises FailedPrecondition until it is approved.

        The record says which approval it is, and that one is being asked for is durable before it is stored.
        """
        impact = HIGH_IMPACT.get(rule.method)
        if impact is None:
            return None
        resources = tuple(access.resource(request) for access in rule.access)
        needed = self._approvals.covering(rule.method, resources)
        if not needed or await self._approvals.answered(context.intent(request)):
            return None
        ask = Ask(
            principal=context.principal,
            method=rule.method,
            resources=resources,
            request=shown(request, impact.shown),
            digest=digest_of(context.principal, rule.method, body),
            digest_shown=not carries_bytes(request),
        )
        found = await self._approvals.find(ask, needed)
        if found is None:
            await self._audit.durable_event(
                "intent", act="request_approval", id=entry.request_id, principal=ask.principal, method=ask.method
            )
            found = await self._approvals.ask(ask, needed)
        entry.fields["approval"] = found.name
        if found.state is not ApprovalState.APPROVED:
            raise FailedPrecondition(
                "APPROVAL_REQUIRED",
                "this call needs the approval of others, and waits for it under the name in the details: let approvers call "
                "ApproveRequest, then send the very same request again before it expires; GetApproval shows where it stands",
                metadata={"approval": found.name},
            )
        return found

    @asynccontextmanager
    async def using(self, approval: Approval | None) -> AsyncIterator[None]:
        """Around the act: the approval is used up before it, durably, and stays so, but when repeating the act may help.

        What aborts has changed nothing.  UNAVAILABLE may hide a commit, so then nothing at all may have been committed since.
        """
        if approval is None:
            yield
            return
        marked = await self._approvals.use(approval.id)
        failpoints.hit("approvals.used")
        try:
            yield
        except (Unavailable, Aborted) as error:
            with suppress(VaultdError):  # then it is lost, and can be asked for again
                await self._approvals.put_back(approval.id, marked if isinstance(error, Unavailable) else None)
            raise


def digest_of(principal: str, method: str, body: bytes) -> str:
    """SHA-256 of what is approved.  Neither principals nor methods contain a zero byte."""
    return hashlib.sha256(b"\0".join((principal.encode(), method.encode(), body))).hexdigest()


def shown(request: Any, fields: tuple[str, ...]) -> str:
    """What approvers see of a request: JSON of the fields that the table allows, or nothing when that is too much."""
    copy = type(request)()
    copy.CopyFrom(request)
    for descriptor in request.DESCRIPTOR.fields:
        if descriptor.name not in fields:
            copy.ClearField(descriptor.name)
    text = MessageToJson(copy, preserving_proto_field_name=True, indent=None)
    return text if len(text) <= MAX_SHOWN_CHARS else ""


def carries_bytes(message: Any) -> bool:
    """Whether bytes are set anywhere in a message: they may be a secret, which a hash could give away."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_BYTES:
            return True
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            inner = value if field.is_repeated else (value,)
            if any(carries_bytes(one) for one in inner):
                return True
    return False
