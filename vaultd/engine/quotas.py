"""How much a caller may ask: every quota that applies to a call has room in each of its windows, or the call is refused.

Quotas of the configuration hold for each principal and a class of operation.  Those of the store name a subject, a
resource, and classes or methods.  What a quota counts is found once for a principal and method and kept, so that a check is
a look-up and a comparison for each window.

Windows shorter than an hour are counted in memory, of one process or shared by the workers of a server (shared_buckets.py); longer
ones are durable (leases.py).
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from vaultd.engine.buckets import TokenBucket
from vaultd.engine.leases import LeasedBucket
from vaultd.engine.model import EACH_PRINCIPAL, Quota
from vaultd.engine.shared_buckets import SharedBucket
from vaultd.errors import ResourceExhausted, VaultdError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vaultd.engine.buckets import Window
    from vaultd.engine.clock import Clock
    from vaultd.engine.leases import LeaseBook

CLASSES: Final = ("symmetric", "asymmetric", "read", "mutation", "admin")
MAX_PRINCIPALS: Final = 100_000
MAX_ACCOUNT_QUOTAS: Final = 1_000_000
"""Counts that all principals together may have in memory."""

Place = tuple[str, str]
"""Vault and key id; empty where there is none.  ("", "") is `/`."""
Bucket = TokenBucket | SharedBucket | LeasedBucket
Buckets = tuple["_Counted", ...]
_Plan = tuple[tuple["Callable[[int, int], float]", ...], Buckets]
"""The `take` of each bucket that counts a call, for the hot path, and the buckets."""

# More than one, so that principals are dropped faster than others come.
_EXAMINED_PER_NEWCOMER: Final = 2


class Method(NamedTuple):
    """What quotas know of an RPC: its name without package and `Batch`, and its class."""

    name: str
    cost_class: str


@dataclass(frozen=True, slots=True)
class Left:
    """What is left in one window of a quota, for one principal or for all who share it."""

    window: Window
    left: int
    full_us: int


class _Counted(NamedTuple):
    """A bucket, and whose it is: what a refusal names."""

    bucket: Bucket
    quota: Quota
    window: Window


class _Account:
    """The buckets of one principal: by quota, and by what a call looks up."""

    __slots__ = ("own", "placed", "root")

    def __init__(self) -> None:
        self.own: dict[bytes, Buckets] = {}
        self.root: dict[str, _Plan] = {}
        self.placed: dict[tuple[str, Place], _Plan] = {}


_NOTHING: Final[_Plan] = ((), ())


def _joined(some: Buckets, more: Buckets) -> _Plan:
    both = (*some, *(counted for counted in more if counted not in some))
    return tuple(counted.bucket.take for counted in both), both


def configured_quota(cost_class: str, windows: tuple[Window, ...]) -> Quota:
    """The quota of the configuration for a class: each principal by itself, everywhere."""
    name = f"limits.{cost_class}"
    uid = hashlib.sha256(name.encode()).digest()[:16]
    return Quota("", name, uid, EACH_PRINCIPAL, "/", (cost_class,), (), windows, 0, 0)


def new_bucket(uid: bytes, owner: str, window: Window) -> TokenBucket:
    """A bucket that this process alone counts in: full since ever, since a later look at the clock would be in the future."""
    del uid, owner
    return TokenBucket.of(window, 0)


def place_of(name: str) -> Place:
    """The place of a validated resource name: of a key version its key, of `vaults` and `/` everything."""
    parts = name.split("/")
    if len(parts) >= 4 and parts[2] == "keys":
        return parts[1], parts[3]
    return (parts[1] if len(parts) >= 2 else ""), ""


def counts(quota: Quota, principal: str, method: Method) -> bool:
    """Whether a quota counts a call, wherever it goes."""
    return quota.subject in ("", EACH_PRINCIPAL, principal) and (
        not (quota.classes or quota.methods) or method.cost_class in quota.classes or method.name in quota.methods
    )


class RateLimiter:
    """Admits calls by principal, method and place.

    Memory is bounded: only principals that were authenticated and quotas that exist have counts.  With each newcomer the
    principals that were looked at longest ago are examined, and those whose buckets are all full are dropped, which loses
    nothing.  At `max_principals` one is dropped as it is.  Its owner then starts with full buckets in short windows, which
    is no gift: whoever can act as so many principals has as many full buckets already.  Durable windows lose nothing.

    Without `leases` every window is counted in memory.
    """

    def __init__(
        self,
        configured: Iterable[Quota],
        methods: Mapping[str, Method],
        clock: Clock,
        leases: LeaseBook | None = None,
        short: Callable[[bytes, str, Window], TokenBucket | SharedBucket] = new_bucket,
        *,
        max_principals: int = MAX_PRINCIPALS,
    ) -> None:
        if max_principals < 1:
            raise ValueError("max_principals must be at least 1")
        self._configured = tuple(configured)
        self._methods = methods
        self._clock = clock
        self._monotonic_s = clock.monotonic_s
        self._leases = leases
        self._short = short
        self._max_principals = max_principals
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._counts_held = 0
        self._shared: dict[bytes, Buckets] = {}
        self._stored: dict[bytes, Quota] = {}
        self._root = self._configured
        self.places: dict[Place, list[Quota]] = {}
        """Quotas on vaults and keys; empty when there are none, and then no call is looked at twice."""

    def __len__(self) -> int:
        """Return the number of principals in memory."""
        return len(self._accounts)

    def install(self, quotas: Iterable[Quota]) -> None:
        """Put the stored quotas in force.  Counts of quotas whose windows are the same go on; others begin anew."""
        stored = {quota.uid: quota for quota in quotas}
        changed = {uid for uid, old in self._stored.items() if uid not in stored or stored[uid].windows != old.windows}
        self._stored = stored
        at_root = [quota for quota in stored.values() if quota.resource == "/"]
        self._root = (*self._configured, *at_root)
        self.places = {}
        for quota in stored.values():
            if quota.resource != "/":
                self.places.setdefault(place_of(quota.resource), []).append(quota)
        for uid in changed:
            self._release(self._shared.pop(uid, ()))
        for account in self._accounts.values():
            account.root, account.placed = {}, {}
            for uid in changed & account.own.keys():
                self._release(account.own.pop(uid))
                self._counts_held -= 1

    # -- admission ------------------------------------------------------------------------------------------------------

    def admit(self, principal: str, method: str, cost: int = 1, ahead: int = 0) -> asyncio.Future[None] | None:
        """Spend `cost` in every window of the quotas on `/`, or spend nothing and raise ResourceExhausted.

        Reason QUOTA_EXCEEDED says when to come back; COST_ABOVE_QUOTA is for a call that no wait will admit.  `ahead` is
        what the call has spent before: it spends that again when it comes back.  An answer that is not None is a lease:
        nothing was spent; await it, and ask again.
        """
        if cost < 0:
            raise ValueError("a cost is not negative")
        now_ns = int(self._monotonic_s() * 1e9 + 0.5)
        try:
            takes, buckets = self._accounts[principal].root[method]
        except KeyError:
            takes, buckets = self._open_root(principal, method, now_ns)
        for take in takes:
            if take(cost, now_ns):
                at = takes.index(take)
                charges = [(counted, cost) for counted in buckets]
                return self._undo(charges, at, now_ns, ahead)
        return None

    def admit_use(
        self, principal: str, method: str, places: Sequence[Place], uses: int, weight: int, paid: int, ahead: int
    ) -> asyncio.Future[None] | None:
        """Like `admit`, once it is known what is used: `uses` operations of a weight, at places.

        Spends the whole cost in quotas on the vaults and keys, and in those on `/` what goes beyond the `paid` uses that
        were spent there before.  An operation that weighs more than a window's burst costs all of it.
        """
        now_ns = int(self._monotonic_s() * 1e9 + 0.5)
        account = self._accounts.get(principal) or self._open_account(principal, now_ns)
        if uses == weight == paid == 1:
            takes, buckets = self._placed(account, principal, method, places)
            for take in takes:
                if take(1, now_ns):
                    return self._undo([(counted, 1) for counted in buckets], takes.index(take), now_ns, ahead)
            return None
        charges: list[tuple[_Counted, int]] = []
        if uses * weight > paid:
            for counted in (account.root.get(method) or self._open_root(principal, method, now_ns))[1]:
                burst = counted.bucket.burst
                cost = uses * min(weight, burst) - paid
                if uses == 1:
                    cost = min(cost, burst - ahead)
                if cost > 0:
                    charges.append((counted, cost))
        if self.places:
            for counted in self._placed(account, principal, method, places)[1]:
                charges.append((counted, uses * min(weight, counted.bucket.burst)))
        for at, (counted, cost) in enumerate(charges):
            if counted.bucket.take(cost, now_ns):
                return self._undo(charges, at, now_ns, ahead)
        return None

    def _placed(self, account: _Account, principal: str, method: str, places: Sequence[Place]) -> _Plan:
        """The buckets of every vault and key of a call, each once."""
        held = self.places
        found = _NOTHING
        for used in places:
            place = used if used in held else (used[0], "")
            if place in held:
                plan = account.placed.get((method, place))
                if plan is None:
                    quotas = held[place] if place[1] == "" else [*held.get((place[0], ""), ()), *held[place]]
                    plan = account.placed[method, place] = self._plan(account, principal, method, quotas)
                found = plan if found is _NOTHING else _joined(found[1], plan[1])
        return found

    def _undo(
        self, charges: list[tuple[_Counted, int]], at: int, now_ns: int, ahead: int
    ) -> asyncio.Future[None] | None:
        """One bucket took nothing: give back what those before it took, and lease or refuse."""
        for counted, cost in charges[:at]:
            counted.bucket.give_back(cost)
        refused, cost = charges[at]
        if (
            self._leases is not None
            and isinstance(refused.bucket, LeasedBucket)
            and refused.bucket.needs_lease(cost, now_ns)
        ):
            return self._leases.request(refused.bucket, cost)
        raise _refusal(charges, now_ns, ahead)

    # -- what is left ---------------------------------------------------------------------------------------------------

    def applying(self, principal: str, method: str, place: Place) -> list[Quota]:
        """The quotas that a call of a principal at a place is counted in, the server's own first."""
        quotas = list(self._root)
        if place[0]:
            for wider in dict.fromkeys(((place[0], ""), place)):
                quotas += self.places.get(wider, ())
        return [quota for quota in quotas if counts(quota, principal, self._methods[method])]

    async def left(self, quota: Quota, principal: str) -> list[Left]:
        """What is left in each window: for the principal, or for all when they share the quota.

        Short windows are this process's own, or those of all workers.  Of durable ones, what other processes have leased counts
        as spent.
        """
        owner = "" if quota.subject == "" else principal
        account = self._accounts.get(principal)
        held = self._shared.get(quota.uid) if not owner else account.own.get(quota.uid) if account else None
        found = {counted.window: counted.bucket for counted in held or ()}
        answer = []
        for window in quota.windows:
            bucket = found.get(window)
            wall_ns = self._clock.now_us() * 1000
            now_ns = int(self._monotonic_s() * 1e9 + 0.5)
            if window.durable and self._leases is not None:
                bucket, now_ns = await self._leases.count(quota.uid, owner, window), wall_ns
            if not isinstance(bucket, TokenBucket | SharedBucket):
                bucket = self._short(quota.uid, owner, window)
            full_us = (wall_ns + bucket.full_at_ns(now_ns) - now_ns) // 1000
            answer.append(Left(window, bucket.left(now_ns), full_us))
        return answer

    # -- accounts -------------------------------------------------------------------------------------------------------

    def _open_account(self, principal: str, now_ns: int) -> _Account:
        account = self._accounts.get(principal)
        if account is None:
            self._make_room(now_ns)
            account = self._accounts[principal] = _Account()
        return account

    def _open_root(self, principal: str, method: str, now_ns: int) -> _Plan:
        account = self._open_account(principal, now_ns)
        plan = account.root[method] = self._plan(account, principal, method, self._root)
        return plan

    def _plan(self, account: _Account, principal: str, method: str, quotas: Iterable[Quota]) -> _Plan:
        known = self._methods[method]
        found: list[_Counted] = []
        for quota in quotas:
            if counts(quota, principal, known):
                shared = quota.subject == ""
                held = self._shared if shared else account.own
                if quota.uid not in held:
                    held[quota.uid] = self._fill(quota, "" if shared else principal)
                    self._counts_held += not shared
                found += held[quota.uid]
        # Short windows first: a flood that one of them refuses leases nothing.
        found.sort(key=lambda counted: isinstance(counted.bucket, LeasedBucket))
        return tuple(counted.bucket.take for counted in found), tuple(found)

    def _fill(self, quota: Quota, owner: str) -> Buckets:
        buckets: list[_Counted] = []
        for window in quota.windows:
            bucket: Bucket
            if window.durable and self._leases is not None:
                bucket = self._leases.bucket(quota.uid, owner, window)
            else:
                bucket = self._short(quota.uid, owner, window)
            buckets.append(_Counted(bucket, quota, window))
        return tuple(buckets)

    def _make_room(self, now_ns: int) -> None:
        for _ in range(min(_EXAMINED_PER_NEWCOMER, len(self._accounts))):
            principal, account = next(iter(self._accounts.items()))
            if all(counted.bucket.is_full(now_ns) for buckets in account.own.values() for counted in buckets):
                self._drop(principal)
            else:
                self._accounts.move_to_end(principal)
        while self._accounts and (
            len(self._accounts) >= self._max_principals or self._counts_held >= MAX_ACCOUNT_QUOTAS
        ):
            self._drop(next(iter(self._accounts)))

    def _drop(self, principal: str) -> None:
        account = self._accounts.pop(principal)
        self._counts_held -= len(account.own)
        for buckets in account.own.values():
            self._release(buckets)

    @staticmethod
    def _release(buckets: Buckets) -> None:
        for counted in buckets:
            if not isinstance(counted.bucket, TokenBucket):
                counted.bucket.release()


def _refusal(charges: list[tuple[_Counted, int]], now_ns: int, ahead: int) -> VaultdError:
    at_root = [counted.quota.resource == "/" for counted, _ in charges]
    waits = [
        counted.bucket.wait_s(cost + ahead * root, now_ns)
        for (counted, cost), root in zip(charges, at_root, strict=True)
    ]
    wait = max(waits)
    refused = charges[waits.index(wait)][0]
    quota = refused.quota
    name = f"{quota.id if quota.revision == 0 else quota.name}/{refused.window.name}"
    metadata = {"quota": name, "subject": quota.resource if quota.subject == "" else "caller"}
    if math.isinf(wait):
        return ResourceExhausted(
            "COST_ABOVE_QUOTA",
            f"the call costs more than the quota {name} can ever hold; send less in one call",
            metadata=metadata,
        )
    return ResourceExhausted(
        "QUOTA_EXCEEDED",
        f"the quota {name} is used up; wait as long as the retry delay says",
        retry_after_s=wait,
        metadata=metadata,
    )
