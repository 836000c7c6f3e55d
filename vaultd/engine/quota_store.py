"""Quotas of the store: made, read, changed and deleted through the API, and put in force on every node."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.etags import check_etag
from vaultd.engine.model import EACH_PRINCIPAL, Quota
from vaultd.engine.policy import is_principal
from vaultd.engine.quotas import CLASSES
from vaultd.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from vaultd.names import parse_place
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping

    from vaultd.engine.buckets import Window
    from vaultd.engine.leases import LeaseBook
    from vaultd.engine.ledger import Intent, Ledger, OpenRow
    from vaultd.engine.quotas import Left, Method, Place, RateLimiter
    from vaultd.store.base import Change

KIND: Final = "quota"
MAX_WINDOWS: Final = 8
MAX_QUOTAS: Final = 1_000
"""Of one vault, or of the server."""
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class QuotaSpec:
    """What a caller may say of a quota."""

    subject: str
    resource: str
    classes: tuple[str, ...]
    methods: tuple[str, ...]
    windows: tuple[Window, ...]


def _at(vault: str, quota: str) -> RowKey:
    return RowKey(KIND, "", f"{vault}/{quota}", 0)


def _quota_in(found: OpenRow | None) -> Quota:
    if found is None:
        raise NotFound("QUOTA_NOT_FOUND", "no such quota; ListQuotas shows the quotas of a vault, or of the server")
    return found.resource()  # type: ignore[no-any-return]  # a row of kind `quota` holds a Quota


class Quotas:
    """The stored quotas.  Mutations are atomic, durable, safe to retry with a request id, and in force when they return.

    Other processes put them in force with their next `follow`.
    """

    def __init__(self, ledger: Ledger, limiter: RateLimiter, leases: LeaseBook, methods: Mapping[str, Method]) -> None:
        self._ledger = ledger
        self._limiter = limiter
        self._leases = leases
        self._methods = methods
        self._names = {method.name for method in methods.values()}
        self._stale = False
        ledger.subscribe(self._note)

    # -- the quotas in force --------------------------------------------------------------------------------------------

    def _note(self, changes: Iterable[Change]) -> None:
        self._stale = self._stale or any(change.key.kind == KIND and change.event != "reseal" for change in changes)

    def forget(self) -> None:
        """At seal, and when the feed has a gap: read everything again before long.  What is in force stays."""
        self._stale = True
        if not self._ledger.unsealed:
            self._leases.forget()

    async def follow(self) -> None:
        """Put in force what was changed since; those in force stay when it cannot be read."""
        if self._stale and self._ledger.unsealed:
            await self.reload()

    async def reload(self) -> None:
        """Read every quota and put it in force; raises DataLoss, and then nothing changes."""
        self._stale = False
        try:
            found: list[Quota] = []
            after = ""
            while rows := await self._ledger.list(KIND, "", after, _PAGE, ("ACTIVE",)):
                found += [row.resource() for row in rows]
                after = rows[-1].row.key.id
        except BaseException:
            self._stale = True
            raise
        self._limiter.install(found)

    # -- the API --------------------------------------------------------------------------------------------------------

    async def create(self, intent: Intent, vault: str, quota: str, spec: QuotaSpec) -> Quota:
        """Make a quota of a vault, or of the server (empty); raises AlreadyExists, NotFound, ResourceExhausted."""
        self._check(vault, spec)
        held = await self._ledger.list(KIND, "", f"{vault}/", MAX_QUOTAS, ("ACTIVE",))

        async def body(changes: Any) -> Quota:
            if await changes.get(_at(vault, quota)) is not None:
                raise AlreadyExists("QUOTA_EXISTS", "a quota of this name exists; use UpdateQuota", field="quota_id")
            if vault:
                found = await changes.get(RowKey("vault", "", vault, 0))
                if found is None or found.row.state != "ACTIVE":
                    raise NotFound("VAULT_NOT_FOUND", "no such vault; ListVaults shows the vaults")
            if len(held) >= MAX_QUOTAS and held[-1].row.key.id.startswith(f"{vault}/"):
                raise ResourceExhausted(
                    "TOO_MANY_QUOTAS", f"a vault, and the server, may have {MAX_QUOTAS:,} quotas; delete some"
                )
            fresh = Quota(
                vault,
                quota,
                os.urandom(16),
                spec.subject,
                spec.resource,
                spec.classes,
                spec.methods,
                spec.windows,
                changes.now_us,
                changes.now_us,
            )
            answer: Quota = await changes.put_resource(KIND, fresh)
            return answer

        answer = await self._ledger.mutate(intent, body)
        await self.follow()
        return answer

    async def get(self, vault: str, quota: str) -> Quota:
        """Read a quota; raises NotFound."""
        return _quota_in(await self._ledger.read(_at(vault, quota)))

    async def list(self, vault: str, after: str, limit: int) -> list[Quota]:
        """Read quotas of a vault, or of the server, by id, after an id."""
        rows = await self._ledger.list(KIND, "", f"{vault}/{after}", limit, ("ACTIVE",))
        return [row.resource() for row in rows if row.row.key.id.startswith(f"{vault}/")]

    async def update(self, intent: Intent, vault: str, quota: str, fields: Mapping[str, Any], etag: str) -> Quota:
        """Change classes, methods or windows; raises NotFound, Aborted."""

        async def body(changes: Any) -> Quota:
            old = _quota_in(await changes.get(_at(vault, quota)))
            check_etag(etag, old.etag)
            new = replace(old, **fields)
            self._check(vault, QuotaSpec(new.subject, new.resource, new.classes, new.methods, new.windows))
            if new == old:
                return old
            answer: Quota = await changes.put_resource(KIND, replace(new, update_us=changes.now_us))
            return answer

        answer = await self._ledger.mutate(intent, body)
        await self.follow()
        return answer

    async def delete(self, intent: Intent, vault: str, quota: str, etag: str) -> None:
        """Delete a quota; its name may be used again, for a quota that begins anew.  Raises NotFound, Aborted."""

        async def body(changes: Any) -> None:
            old = _quota_in(await changes.get(_at(vault, quota)))
            check_etag(etag, old.etag)
            await changes.delete(_at(vault, quota))

        await self._ledger.mutate(intent, body)
        await self.follow()

    async def drop_orphans(self) -> None:
        """Delete the quotas of vaults that were deleted."""
        for vault in {place[0] for place in self._limiter.places}:
            found = await self._ledger.read(RowKey("vault", "", vault, 0))
            if found is not None and found.row.state != "ACTIVE":
                async with self._ledger.change() as changes:
                    for quota in await self.list(vault, "", MAX_QUOTAS):
                        await changes.delete(_at(vault, quota.id))
        await self.follow()

    # -- what is left ---------------------------------------------------------------------------------------------------

    async def left_of(self, quota: Quota, principal: str) -> builtins.list[Left]:
        """What is left in each window of a quota: for its one subject, for all who share it, or else for a principal."""
        return await self._limiter.left(quota, principal if quota.subject in ("", EACH_PRINCIPAL) else quota.subject)

    async def explain(
        self, principal: str, method: str, place: Place
    ) -> builtins.list[tuple[Quota, builtins.list[Left]]]:
        """Every quota that a call of this principal would be counted in, and what is left of it.

        `method` is a full path, `/vaultd.v1.CryptoService/Encrypt`.  Reveals what others used of shared quotas: for those
        who may read quotas.  Raises InvalidArgument for a method that there is not.
        """
        if method not in self._methods:
            raise InvalidArgument("QUOTA_METHOD_UNKNOWN", "the server has no such method", field="method")
        quotas = self._limiter.applying(principal, method, place)
        return [(quota, await self._limiter.left(quota, principal)) for quota in quotas]

    def path_of(self, name: str) -> str:
        """The path of a method by its short name, `CryptoService.Encrypt`; raises InvalidArgument."""
        path = "/vaultd.v1." + name.replace(".", "/", 1)
        if path not in self._methods:
            raise InvalidArgument(
                "QUOTA_METHOD_UNKNOWN", "the method must be spelled like CryptoService.Encrypt", field="method"
            )
        return path

    # -- rules ----------------------------------------------------------------------------------------------------------

    def _check(self, vault: str, spec: QuotaSpec) -> None:
        where = parse_place(spec.resource, "quota.resource")
        if vault and where[0] != vault:
            raise _invalid("resource", "must be the quota's own vault or a key of it; quotas of / may name others")
        if spec.subject not in ("", EACH_PRINCIPAL) and not is_principal(spec.subject):
            raise _invalid("subject", "must be a principal, * for each by itself, or empty for all together")
        if not set(spec.classes) <= set(CLASSES) or len(set(spec.classes)) < len(spec.classes):
            raise _invalid("classes", f"must be different ones of {', '.join(CLASSES)}")
        if not set(spec.methods) <= self._names or len(set(spec.methods)) < len(spec.methods):
            raise _invalid("methods", "must be different methods such as CryptoService.Encrypt, which covers its batch")
        if not 1 <= len(spec.windows) <= MAX_WINDOWS:
            raise _invalid("windows", f"must be 1 to {MAX_WINDOWS}")
        if len({window.period_us for window in spec.windows}) < len(spec.windows):
            raise _invalid("windows", "must have different periods")


def _invalid(field: str, problem: str) -> InvalidArgument:
    path = f"quota.{field}"
    return InvalidArgument("QUOTA_INVALID", f"{path} {problem}", field=path)
