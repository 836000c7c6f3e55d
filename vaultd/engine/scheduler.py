"""What happens by itself: rotation, destruction, purge, re-sealing, and the book-keeping of use.

One scheduler runs in each process; a due row is looked at again inside its transaction, so two processes do not do it twice.
Of the workers of one server, one is elected to do it, and the others keep no more than their own books.
`tick` does everything that is due now and is all that tests call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vaultd.engine.approvals import KIND as APPROVAL
from vaultd.engine.clock import SECOND_US
from vaultd.engine.key_grants import KIND as GRANTS
from vaultd.engine.key_import import KIND as IMPORT_JOB
from vaultd.engine.leases import KIND as QUOTA_STATE
from vaultd.engine.ledger import Intent
from vaultd.engine.model import ApprovalState, ImportJobState, KeyState, SecretState, VersionState
from vaultd.engine.rotation_model import KIND as ROTATION
from vaultd.engine.seal import SealState
from vaultd.engine.secrets import KIND as SECRET
from vaultd.engine.tokens import KIND as TOKEN_OBJECT
from vaultd.errors import VaultdError
from vaultd.names import KeyRef, SecretRef, import_job_name, secret_version_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vaultd.engine.access import AccessBook
    from vaultd.engine.approvals import Approvals
    from vaultd.engine.clock import Clock
    from vaultd.engine.key_grants import Grants
    from vaultd.engine.key_import import KeyImport
    from vaultd.engine.key_reads import KeyReader
    from vaultd.engine.key_versions import KeyVersions
    from vaultd.engine.leases import LeaseBook
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.lifecycle import KeyLifecycle
    from vaultd.engine.quota_store import Quotas
    from vaultd.engine.rotation_runner import RotationRunner
    from vaultd.engine.scrubbing import Scrubber
    from vaultd.engine.seal import Seal
    from vaultd.engine.secrets import Secrets
    from vaultd.engine.tokens import TokenObjects
    from vaultd.engine.usage import BudgetBook, UsageBook
    from vaultd.store.base import Row, RowKey

DUE_ROWS: Final = 100
JUMP_US: Final = 3600 * SECOND_US
"""A wall clock that moves this much against the monotonic one is not believed."""
PRINCIPAL: Final = "vaultd:scheduler"
RESEAL_STEPS: Final = 10
FEED_REVISIONS: Final = 1_000_000
"""How far back the feed reaches."""
RETRY_US: Final = 60 * SECOND_US


class Scheduler:
    """Does what is due.

    `on_intent` is told before each act (event, resource); what it raises keeps the act from being done.  `on_event` is told
    of each act and each failure (event, resource, reason), for log and audit.
    """

    def __init__(
        self,
        ledger: Ledger,
        keys: KeyReader,
        lifecycle: KeyLifecycle,
        key_versions: KeyVersions,
        seal: Seal,
        usage: UsageBook,
        budgets: BudgetBook,
        tokens: TokenObjects,
        leases: LeaseBook,
        quotas: Quotas,
        grants: Grants,
        approvals: Approvals,
        access: AccessBook,
        secrets: Secrets,
        scrubber: Scrubber,
        rotation_runner: RotationRunner,
        imports: KeyImport,
        clock: Clock,
        on_intent: Callable[[str, str], Awaitable[None]],
        on_event: Callable[[str, str, str], None],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """`leads`: whether this process does what is done once for all that share the store; the others keep their own books."""
        self._ledger = ledger
        self._keys = keys
        self._lifecycle = lifecycle
        self._key_versions = key_versions
        self._seal = seal
        self._usage = usage
        self._budgets = budgets
        self._tokens = tokens
        self._leases = leases
        self._quotas = quotas
        self._grants = grants
        self._approvals = approvals
        self._clock = clock
        self._on_intent = on_intent
        self._on_event = on_event
        self._leads = leads
        self._access = access
        self._secrets = secrets
        self._scrubber = scrubber
        self._rotation_runner = rotation_runner
        self._imports = imports
        self._retry_at: dict[RowKey, int] = {}
        self._offset_us = self._clock_offset()
        self._replays_dropped_us = 0
        self.clock_trusted = True

    def _clock_offset(self) -> int:
        return self._clock.now_us() - int(self._clock.monotonic_s() * SECOND_US)

    async def tick(self) -> None:
        """Do everything that is due now.  Errors are reported and do not stop the rest."""
        if self._seal.state is not SealState.UNSEALED:
            return
        self._check_clock()
        now_us = self._clock.now_us()
        if self._leads():
            await self._do_due(now_us)
        for spent in list(self._budgets.low):
            self._budgets.low.discard(spent)
            await self._rotate_spent(spent)
        await self._scrubber.run()
        await self._usage.flush()
        await self._leases.settle()
        await self._access.flush()
        if self._leads():
            await self._sweep(now_us)

    async def _sweep(self, now_us: int) -> None:
        for _ in range(RESEAL_STEPS):
            if not await self._seal.reseal_some():
                break
        if now_us - self._replays_dropped_us >= JUMP_US:
            self._replays_dropped_us = now_us
            await self._quotas.drop_orphans()
            await self._ledger.store.drop_replays(now_us)
            await self._ledger.store.trim_changes(FEED_REVISIONS)

    async def _do_due(self, now_us: int) -> None:
        """Attempt every due row once.  Rows that stay due (a clock not trusted, a failure) do not hide those behind them."""
        attempted: set[RowKey] = set()
        after: tuple[int, RowKey] | None = None
        while True:
            rows = await self._ledger.store.due(now_us, DUE_ROWS, after)
            for row in rows:
                if row.key not in attempted and self._retry_at.get(row.key, 0) <= now_us:
                    await self._attempt(row, now_us)
                attempted.add(row.key)
                after = (now_us if row.due_at is None else row.due_at, row.key)
            if len(rows) < DUE_ROWS:
                return

    def _check_clock(self) -> None:
        # NTP steps and suspended machines look alike: nothing is destroyed on the word of a clock that jumped.  A restart,
        # after somebody looked at the clock, trusts it again.
        if self.clock_trusted and abs(self._clock_offset() - self._offset_us) > JUMP_US:
            self.clock_trusted = False
            self._on_event("clock_jumped", "", "destruction and purge wait for a restart with a clock that was checked")

    async def _attempt(self, row: Row, now_us: int) -> None:
        key = row.key
        ref = KeyRef(key.scope, key.id, key.version)
        intent = Intent(PRINCIPAL, "scheduler")
        event, name = "", str(ref)
        try:
            if key.kind == SECRET:
                event, name = "retire_secret", str(SecretRef(key.scope, key.id))
                await self._attempt_secret(row, now_us)
            elif key.kind == ROTATION:
                if self.clock_trusted:
                    self._rotation_runner.offer(key)  # targets take their time: it says itself how it went
            elif key.kind == "key_version" and row.state == VersionState.DESTROY_SCHEDULED.value:
                event = "destroy"
                if self.clock_trusted:
                    await self._on_intent(event, str(ref))
                    await self._key_versions.destroy_if_due(intent, ref, now_us)
                    self._on_event(event, str(ref), "")
            elif key.kind == "key" and row.state == KeyState.DELETED.value:
                event = "purge"
                if self.clock_trusted:
                    await self._on_intent(event, str(ref))
                    await self._lifecycle.purge_if_due(intent, ref, now_us)
                    self._on_event(event, str(ref), "")
            elif key.kind == "key" and row.state == KeyState.ACTIVE.value:
                event = "give_notice"
                announced = await self._lifecycle.give_notice_if_due(ref, now_us)
                if announced:
                    self._on_event(f"key_{announced}_notice", str(ref), "")
                event = "rotate"
                if await self._key_versions.rotation_is_due(ref, now_us):
                    await self._on_intent(event, str(ref))
                    await self._key_versions.rotate_if_due(intent, ref, now_us)
                    self._on_event(event, str(ref), "")
            elif key.kind == TOKEN_OBJECT:
                event = "erase_token_object"
                await self._on_intent(event, key.id)
                await self._tokens.erase_if_due(key, now_us)
                self._on_event(event, key.id, "")
            elif key.kind == IMPORT_JOB:
                ends = row.state == ImportJobState.ACTIVE.value
                event, name = "expire_import_job" if ends else "forget_import_job", import_job_name(key.scope, key.id)
                if self.clock_trusted:
                    await self._on_intent(event, name)
                    await self._imports.expire_if_due(key, now_us)
                    self._on_event(event, name, "")
            elif key.kind == QUOTA_STATE:
                event = "drop_quota_state"
                await self._leases.drop_if_full(key)
            elif key.kind == GRANTS:
                event = "expire_grants"
                if self.clock_trusted:
                    await self._on_intent(event, str(ref))
                    await self._grants.expire_if_due(key, now_us)
                    self._on_event(event, str(ref), "")
            elif key.kind == APPROVAL:
                ends = row.state in {ApprovalState.PENDING.value, ApprovalState.APPROVED.value}
                event, name = "expire_approval" if ends else "forget_approval", f"approvals/{key.id}"
                if self.clock_trusted:
                    await self._on_intent(event, name)
                    await self._approvals.expire_if_due(key, now_us)
                    self._on_event(event, name, "")
            self._retry_at.pop(key, None)
        except VaultdError as error:
            self._retry_at[key] = now_us + RETRY_US
            self._on_event(f"{event}_failed", name, error.reason)

    async def _attempt_secret(self, row: Row, now_us: int) -> None:
        """Purge a deleted secret; of others destroy the versions that no alias names any more."""
        ref = SecretRef(row.key.scope, row.key.id)
        purges = row.state in {SecretState.DELETED.value, SecretState.PURGED.value}
        event = "purge" if purges else "destroy_old_versions"
        intent = Intent(PRINCIPAL, "scheduler")
        if not self.clock_trusted and row.state != SecretState.PURGED.value:  # a purge that was begun is beyond doubt
            return
        await self._on_intent(event, str(ref))
        if purges:
            await self._secrets.purge_if_due(intent, ref, now_us)
            self._on_event(event, str(ref), "")
            return
        for number in await self._secrets.destroy_old_if_due(intent, ref, now_us):
            self._on_event("destroy", secret_version_name(ref.vault, ref.secret, number), "")

    async def _rotate_spent(self, spent: RowKey) -> None:
        ref = KeyRef(spent.scope, spent.id, spent.version)
        try:
            key = await self._keys.get_key(ref)
            if key.state is KeyState.ACTIVE and key.primary == ref.version and not key.import_only:
                await self._on_intent("rotate", str(ref))
                await self._key_versions.rotate_key(Intent(PRINCIPAL, "scheduler"), KeyRef(ref.vault, ref.key, 0))
                self._on_event("rotate", str(ref), "MESSAGE_BUDGET")
        except VaultdError as error:
            self._budgets.low.add(spent)
            self._on_event("rotate_failed", str(ref), error.reason)
