"""Approvals: calls of high impact that need M of N others to agree, and are then executed once, by who asked, as they were asked.

    PENDING -> APPROVED -> USED;  PENDING, APPROVED -> REJECTED, CANCELLED, EXPIRED, VOIDED;  USED -> APPROVED when the act failed

A request is its requester, its method and its very bytes.  It keeps the rules that covered it; when other rules cover such a
call, it is void.  The requester makes the call again once it is approved, so that policy, etag and state are looked at anew.

All requests that are open are listed in one row, with their digests: it bounds their number, and finds the same request again.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vaultd.engine.approval_rules import check_rules
from vaultd.engine.clock import DAY_US, SECOND_US
from vaultd.engine.etags import check_etag
from vaultd.engine.ledger import open_replay, replay_id
from vaultd.engine.model import (
    Approval,
    ApprovalRule,
    ApprovalRules,
    ApprovalState,
    decode_resource,
    encode_resource,
)
from vaultd.engine.sealing import sealed_error
from vaultd.errors import (
    Aborted,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vaultd.engine.authority import Authority
    from vaultd.engine.clock import Clock
    from vaultd.engine.ledger import Changes, Intent, Ledger, OpenRow
    from vaultd.store.base import Change

KIND: Final = "approval"
RULES_KEY: Final = RowKey("approval_rules", "", "rules", 0)
RULES_UID: Final = b"vaultd-approval1"
OPEN_KEY: Final = RowKey("approvals_open", "", "open", 0)
OPEN_UID: Final = b"vaultd-approval2"
MAX_OPEN: Final = 1_000
MAX_OPEN_PER_PRINCIPAL: Final = 100
KEPT_US: Final = 90 * DAY_US
"""How long a request that ended can be looked at."""
REPLAY_MARGIN_US: Final = 3600 * SECOND_US
"""An answer that is stored for less than this does not pass for one: it might be forgotten before the ledger looks for it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that rules cover.

    request: what approvers may see of it.  digest: SHA-256 over requester, method and bytes, in hexadecimal; not shown when it
    could give a secret away.
    """

    principal: str
    method: str
    resources: tuple[str, ...]
    request: str
    digest: str
    digest_shown: bool


@dataclass(frozen=True, slots=True)
class _Open:
    """An entry of the row of open requests."""

    id: str
    principal: str
    digest: str


def _at(id: str) -> RowKey:
    return RowKey(KIND, "", id, 0)


def _approval(found: OpenRow | None) -> Approval | None:
    return found.resource() if found is not None else None


def _opens(found: OpenRow | None) -> list[_Open]:
    return [_Open(*entry) for entry in found.values["open"]] if found is not None else []


def _rules(found: OpenRow | None) -> ApprovalRules:
    return decode_resource(found.values) if found is not None else ApprovalRules()


async def _put(changes: Changes, approval: Approval) -> None:
    due_us = approval.expire_us if approval.end_us is None else approval.end_us + KEPT_US
    row = await changes.get(_at(approval.id))
    uid = row.row.uid if row is not None else os.urandom(16)
    await changes.put(_at(approval.id), uid, approval.state.value, due_us, encode_resource(approval))


async def _put_open(changes: Changes, opens: Iterable[_Open]) -> None:
    values = {"open": [[one.id, one.principal, one.digest] for one in opens]}
    await changes.put(OPEN_KEY, OPEN_UID, "ACTIVE", None, values)


async def _end(changes: Changes, approval: Approval, state: ApprovalState, principal: str) -> Approval:
    """Bring a request that is open to an end."""
    ended = replace(approval, state=state, end_us=changes.now_us, end_principal=principal)
    await _put(changes, ended)
    await _put_open(changes, [one for one in _opens(await changes.get(OPEN_KEY)) if one.id != approval.id])
    return ended


class Approvals:
    """Rules, and requests under them.  Mutations are atomic and durable when they return.

    methods: those that may be put under approval, and how many segments the deepest resource has that a rule about them may
    name: 0 for the server itself, 2 for a vault, 4 for a key.  `on_event` is told of each request that is voided.
    """

    def __init__(
        self,
        ledger: Ledger,
        authority: Authority,
        clock: Clock,
        methods: Mapping[str, int],
        on_event: Callable[[str, str, str], None],
    ) -> None:
        self._ledger = ledger
        self._authority = authority
        self._clock = clock
        self._methods = methods
        self._on_event = on_event
        self._rules: ApprovalRules | None = None
        self._stale = True
        self._turn = asyncio.Lock()
        ledger.subscribe(self._note)

    # -- rules ----------------------------------------------------------------------------------------------------------

    def _note(self, changes: Iterable[Change]) -> None:
        if any(change.key == RULES_KEY for change in changes):
            self._stale = True  # the old rules are in force until the new ones are read

    def forget(self) -> None:
        """Know nothing: at seal, and when the feed has a gap.  No call of high impact is served until `follow`."""
        self._rules = None
        self._stale = True

    async def follow(self) -> None:
        """Read rules that changed, here or elsewhere.  Fails closed: rules that cannot be read let nothing pass."""
        async with self._turn:
            while self._stale:
                self._stale = False
                try:
                    self._rules = _rules(await self._ledger.read(RULES_KEY))
                except BaseException:
                    self.forget()
                    raise

    @property
    def rules(self) -> ApprovalRules:
        """The rules in force; raises Unavailable while they are not known."""
        if self._rules is None:
            raise sealed_error()
        return self._rules

    def covering(self, method: str, resources: Sequence[str]) -> tuple[ApprovalRule, ...]:
        """The rules about a call; none for most.  Raises Unavailable while the rules are not known."""
        return self.rules.covering(method, resources)

    def canonical_method(self, method: str) -> str:
        """The long form of a method's name; as it was given when it is not one that can be put under approval."""
        if "/" in method:
            return method
        return next((path for path in self._methods if path.endswith(f"/{method}")), method)

    async def set_rules(self, intent: Intent, rules: Sequence[ApprovalRule], etag: str) -> ApprovalRules:
        """Replace the rules; requests to which others apply now are void.  Raises InvalidArgument, Aborted."""
        check_rules(rules, self._methods)
        voided: list[Approval] = []

        async def body(changes: Changes) -> ApprovalRules:
            old = _rules(await changes.get(RULES_KEY))
            check_etag(etag, old.etag)
            if tuple(rules) == old.rules:
                return old
            return await self._replace(changes, tuple(rules), intent.principal, voided)

        answer = await self._ledger.mutate(intent, body)
        for approval in voided:
            self._on_event("void_approval", approval.name, "APPROVAL_RULES_CHANGED")
        await self.follow()
        return answer

    async def lift(self, changes: Changes, principal: str) -> int:
        """Take all rules away: the offline way out.  Returns how many there were."""
        old = _rules(await changes.get(RULES_KEY))
        await self._replace(changes, (), principal, [])
        return len(old.rules)

    async def _replace(
        self, changes: Changes, rules: tuple[ApprovalRule, ...], principal: str, voided: list[Approval]
    ) -> ApprovalRules:
        new = ApprovalRules(rules, changes.now_us, changes.revision)
        await changes.put(RULES_KEY, RULES_UID, "ACTIVE", None, encode_resource(new))
        kept = []
        for one in _opens(await changes.get(OPEN_KEY)):
            found = await changes.get(_at(one.id))
            if found is None:
                continue
            approval: Approval = found.resource()
            if new.covering(approval.method, approval.resources) == approval.rules:
                kept.append(one)
                continue
            gone = replace(approval, state=ApprovalState.VOIDED, end_us=changes.now_us, end_principal=principal)
            await _put(changes, gone)
            voided.append(gone)
        await _put_open(changes, kept)
        return new

    # -- requests -------------------------------------------------------------------------------------------------------

    async def answered(self, intent: Intent) -> bool:
        """Whether this very request was executed before and its stored answer will be given again: that needs no approval."""
        if not intent.request_id:
            return False
        stored = await self._ledger.store.replay(replay_id(intent))
        known, _ = open_replay(self._ledger.sealer, stored, intent, self._clock.now_us() + REPLAY_MARGIN_US)
        return known

    async def find(self, ask: Ask, needed: tuple[ApprovalRule, ...]) -> Approval | None:
        """The open request that is this call under these rules, if there is one."""
        for one in _opens(await self._ledger.read(OPEN_KEY)):
            if (one.principal, one.digest) == (ask.principal, ask.digest):
                found = await self._ledger.read(_at(one.id))
                if found is not None and self._fits(found.resource(), ask, needed):
                    return found.resource()  # type: ignore[no-any-return]  # a row of this kind holds an Approval
        return None

    def _fits(self, approval: Approval, ask: Ask, needed: tuple[ApprovalRule, ...]) -> bool:
        return (
            approval.open
            and self._clock.now_us() < approval.expire_us
            and (approval.principal, approval.method, approval.digest) == (ask.principal, ask.method, ask.digest)
            and approval.rules == needed
        )

    async def ask(self, ask: Ask, needed: tuple[ApprovalRule, ...]) -> Approval:
        """Store a request, durably; the one that is there already is given back.

        Raises FailedPrecondition when nobody could approve it, ResourceExhausted when too many are open, Aborted when the rules
        changed meanwhile.
        """
        if any(len(set(rule.approvers) - {ask.principal}) < rule.required for rule in needed):
            raise FailedPrecondition(
                "APPROVAL_IMPOSSIBLE",
                "you are one of the approvers, and without you too few are left: who asks does not approve. Let another "
                "principal make the call, or have the rule changed",
            )
        async with self._ledger.change() as changes:
            self._check_rules_of(_rules(await changes.get(RULES_KEY)), ask, needed)
            opens = _opens(await changes.get(OPEN_KEY))
            kept = []
            for one in opens:
                if (one.principal, one.digest) == (ask.principal, ask.digest):
                    found = await changes.get(_at(one.id))
                    if found is not None and self._fits(found.resource(), ask, needed):
                        return found.resource()  # type: ignore[no-any-return]  # a row of this kind holds an Approval
                kept.append(one)
            mine = sum(one.principal == ask.principal for one in kept)
            if mine >= MAX_OPEN_PER_PRINCIPAL or len(kept) >= MAX_OPEN:
                raise ResourceExhausted(
                    "TOO_MANY_APPROVALS",
                    f"at most {MAX_OPEN_PER_PRINCIPAL} requests of one principal and {MAX_OPEN:,} in all may wait for "
                    "approval; cancel some with CancelApproval, or wait until they are approved, used or expired",
                )
            approval = Approval(
                # Ids sort by age, and cannot be guessed.
                id=f"{changes.now_us:014x}-{os.urandom(8).hex()}",
                state=ApprovalState.PENDING,
                principal=ask.principal,
                method=ask.method,
                resources=ask.resources,
                request=ask.request,
                digest=ask.digest,
                digest_shown=ask.digest_shown,
                rules=needed,
                create_us=changes.now_us,
                expire_us=changes.now_us + min(rule.expires_after_us for rule in needed),
            )
            await _put(changes, approval)
            await _put_open(changes, [*kept, _Open(approval.id, ask.principal, ask.digest)])
        return approval

    @staticmethod
    def _check_rules_of(rules: ApprovalRules, ask: Ask | Approval, needed: tuple[ApprovalRule, ...]) -> None:
        if rules.covering(ask.method, ask.resources) != needed:
            raise Aborted(
                "APPROVAL_RULES_CHANGED",
                "the approval rules changed just now; send the request again to see what holds",
            )

    async def use(self, id: str) -> int:
        """Mark an approved request as used, durably, before it is executed: it is never executed twice.

        Returns the revision of the mark, for `put_back`.  Raises Aborted when it is not approved any more, by whatever happened
        in this process or another.
        """
        async with self._ledger.change() as changes:
            approval = _approval(await changes.get(_at(id)))
            if (
                approval is None
                or approval.state is not ApprovalState.APPROVED
                or self._clock.now_us() >= approval.expire_us
            ):
                raise Aborted(
                    "APPROVAL_GONE",
                    "the approval was used, taken back or voided, or expired meanwhile; send the request again to see where "
                    "it stands",
                )
            self._check_rules_of(_rules(await changes.get(RULES_KEY)), approval, approval.rules)
            await _end(changes, approval, ApprovalState.USED, approval.principal)
        return changes.revision

    async def put_back(self, id: str, unless_after: int | None = None) -> None:
        """Undo `use`, since the act failed in a way that repeating it may mend.

        `unless_after`: not when anything was committed after this revision, for then it may have been the act.
        """
        async with self._ledger.change() as changes:
            if unless_after is not None and changes.revision != unless_after + 1:
                return
            approval = _approval(await changes.get(_at(id)))
            if approval is None or approval.state is not ApprovalState.USED:
                return
            rules = _rules(await changes.get(RULES_KEY))
            if rules.covering(approval.method, approval.resources) != approval.rules:
                return  # it would have been voided
            await _put(changes, replace(approval, state=ApprovalState.APPROVED, end_us=None, end_principal=""))
            opens = _opens(await changes.get(OPEN_KEY))
            await _put_open(changes, [*opens, _Open(approval.id, approval.principal, approval.digest)])

    # -- looking, and deciding ------------------------------------------------------------------------------------------

    async def get(self, principal: str, id: str) -> Approval:
        """A request, for its requester, its approvers, and who may list all; raises PermissionDenied, NotFound."""
        may_list = self._authority.engine.allows(principal, "approvals.list", "/")
        approval = _approval(await self._ledger.read(_at(id)))
        if approval is not None and (may_list or principal == approval.principal or _approves(principal, approval)):
            return self._as_of_now(approval)
        if may_list:
            raise NotFound(
                "APPROVAL_NOT_FOUND", "no such approval, or it ended long ago; ListApprovals shows what there is"
            )
        raise _not_yours("neither its requester nor an approver of it nor a holder of approvals.list")

    async def list(self, state: ApprovalState | None, after: str, limit: int) -> list[Approval]:
        """Requests by age, after an id."""
        states = (state.value,) if state is not None else ()
        rows = await self._ledger.list(KIND, "", after, limit, states)
        return [row.resource() for row in rows]

    def _as_of_now(self, approval: Approval) -> Approval:
        """As it is, though the scheduler may not have marked it as expired yet."""
        if approval.open and self._clock.now_us() >= approval.expire_us:
            return replace(approval, state=ApprovalState.EXPIRED, end_us=approval.expire_us)
        return approval

    async def approve(self, intent: Intent, id: str) -> Approval:
        """Count an approver's approval, once.  Raises PermissionDenied, FailedPrecondition."""

        async def body(changes: Changes) -> Approval:
            approval = await self._for_approver(changes, intent.principal, id)
            if any(principal == intent.principal for principal, _ in approval.consents):
                return approval
            if approval.state is not ApprovalState.PENDING:
                return approval  # it has what it needs already
            consents = (*approval.consents, (intent.principal, changes.now_us))
            agreed = {principal for principal, _ in consents}
            enough = all(len(agreed.intersection(rule.approvers)) >= rule.required for rule in approval.rules)
            state = ApprovalState.APPROVED if enough else ApprovalState.PENDING
            changed = replace(approval, consents=consents, state=state)
            await _put(changes, changed)
            return changed

        return await self._ledger.mutate(intent, body)

    async def reject(self, intent: Intent, id: str) -> Approval:
        """End a request for good.  Raises PermissionDenied, FailedPrecondition."""

        async def body(changes: Changes) -> Approval:
            approval = await self._for_approver(changes, intent.principal, id)
            return await _end(changes, approval, ApprovalState.REJECTED, intent.principal)

        return await self._ledger.mutate(intent, body)

    async def cancel(self, intent: Intent, id: str) -> Approval:
        """Let the requester take a request back.  Raises PermissionDenied, FailedPrecondition."""

        async def body(changes: Changes) -> Approval:
            approval = _approval(await changes.get(_at(id)))
            if approval is None or approval.principal != intent.principal:
                raise _not_yours("not its requester")
            self._require_open(approval)
            return await _end(changes, approval, ApprovalState.CANCELLED, intent.principal)

        return await self._ledger.mutate(intent, body)

    async def _for_approver(self, changes: Changes, principal: str, id: str) -> Approval:
        approval = _approval(await changes.get(_at(id)))
        if approval is None or not (_approves(principal, approval) or principal == approval.principal):
            raise _not_yours("not an approver of it")
        if principal == approval.principal:
            raise PermissionDenied("REQUESTER_MAY_NOT_APPROVE", "who asks does not decide; another approver has to")
        self._require_open(approval)
        return approval

    def _require_open(self, approval: Approval) -> None:
        now = self._as_of_now(approval)
        if not now.open:
            raise FailedPrecondition(
                "APPROVAL_ENDED",
                "the request was used, rejected, cancelled or voided, or has expired; its requester may ask again",
                metadata={"state": now.state.value},
            )

    # -- what the scheduler does ----------------------------------------------------------------------------------------

    async def expire_if_due(self, key: RowKey, now_us: int) -> None:
        """Mark a request that ran out of time, or forget one that ended long ago."""
        async with self._ledger.change() as changes:
            found = await changes.get(key)
            if found is None or found.row.due_at is None or found.row.due_at > now_us:
                return
            approval: Approval = found.resource()
            if approval.open:
                await _end(changes, approval, ApprovalState.EXPIRED, "")
            else:
                await changes.delete(key)


def _approves(principal: str, approval: Approval) -> bool:
    return any(principal in rule.approvers for rule in approval.rules)


def _not_yours(who: str) -> PermissionDenied:
    return PermissionDenied("PERMISSION_DENIED", f"there is no such approval, or you are {who}")
