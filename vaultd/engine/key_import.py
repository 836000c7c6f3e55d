"""Import of key material: jobs, whose key pairs it is wrapped to, and the versions that are made of it.

    job: ACTIVE -> EXPIRED (private key erased) -> (no row)

The private half of a job is sealed in its row as a key version's material is; it opens nothing but what was wrapped for that
very job, until `expire_time`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from vaultd.backends.base import Material
from vaultd.engine.clock import DAY_US
from vaultd.engine.key_wrapping import KeyWrapping, WrappingMethod
from vaultd.engine.model import ImportJob, ImportJobState
from vaultd.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from vaultd.names import import_job_name
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from vaultd.engine.clock import Clock
    from vaultd.engine.key_reads import KeyReader
    from vaultd.engine.key_versions import KeyVersions
    from vaultd.engine.ledger import Changes, Intent, Ledger
    from vaultd.engine.model import Key, KeyVersion
    from vaultd.engine.scrubbing import Scrubber
    from vaultd.engine.usage import BudgetBook
    from vaultd.names import KeyRef
    from vaultd.secret import Secret

KIND: Final = "import_job"
MAX_ACTIVE_JOBS: Final = 100
"""Of one vault."""
DEFAULT_TERM_US: Final = 3 * DAY_US
MAX_TERM_US: Final = 7 * DAY_US
MEMORY_US: Final = 7 * DAY_US
"""How long an expired job is still shown."""


@dataclass(frozen=True, slots=True)
class ImportAsk:
    """What a caller brings.  `prior_messages`: how many it encrypted elsewhere; None is unknown."""

    job_vault: str
    job: str
    algorithm: str
    wrapped: bytes
    keep_primary: bool = False
    prior_messages: int | None = None
    etag: str = ""


def import_info(vault: str, job: str) -> bytes:
    """HPKE's `info` of what is wrapped for a job: it opens for that job only."""
    return b"vaultd key import v1 " + import_job_name(vault, job).encode("ascii")


def _at(vault: str, job: str) -> RowKey:
    return RowKey(KIND, vault, job, 0)


class KeyImport:
    """Makes import jobs, and versions of what was wrapped for them.  Mutations are atomic, durable, safe to retry."""

    def __init__(
        self,
        ledger: Ledger,
        keys: KeyReader,
        key_versions: KeyVersions,
        budgets: BudgetBook,
        wrapping: KeyWrapping,
        clock: Clock,
        scrubber: Scrubber,
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._key_versions = key_versions
        self._budgets = budgets
        self._wrapping = wrapping
        self._clock = clock
        self._scrubber = scrubber

    async def create_job(
        self, intent: Intent, vault: str, job: str, method: WrappingMethod, expire_us: int | None
    ) -> ImportJob:
        """Make a key pair to wrap to.  Raises AlreadyExists, NotFound, InvalidArgument, ResourceExhausted."""
        known, answer = await self._ledger.answered(intent)
        if known:
            return answer  # type: ignore[no-any-return]  # what create_job stored
        now_us = self._clock.now_us()
        ends_us = expire_us if expire_us is not None else now_us + DEFAULT_TERM_US
        if not now_us < ends_us <= now_us + MAX_TERM_US:
            raise InvalidArgument(
                "IMPORT_JOB_TERM",
                "expire_time must be in the future, and at most 7 days ahead",
                field="import_job.expire_time",
            )
        await self._keys.require_vault(vault)
        if await self._ledger.read(_at(vault, job)) is not None:
            raise _job_exists()
        active = (ImportJobState.ACTIVE.value,)
        if len(await self._ledger.store.list(KIND, vault, "", MAX_ACTIVE_JOBS, active)) >= MAX_ACTIVE_JOBS:
            raise ResourceExhausted(
                "TOO_MANY_IMPORT_JOBS",
                f"at most {MAX_ACTIVE_JOBS} import jobs of a vault are active at a time; use one of them, or wait until "
                "some expire",
            )
        pair = await self._wrapping.generate(method)

        async def body(changes: Changes) -> ImportJob:
            if await changes.get(_at(vault, job)) is not None:
                raise _job_exists()
            made = ImportJob(
                vault=vault,
                id=job,
                uid=os.urandom(16),
                method=method.value,
                public_key=pair.public_key,
                state=ImportJobState.ACTIVE,
                create_us=changes.now_us,
                expire_us=ends_us,
                forget_us=ends_us + MEMORY_US,
            )
            return await changes.put_resource(KIND, made, secret=pair.secret)

        return await self._ledger.mutate(intent, body)

    async def get_job(self, vault: str, job: str) -> ImportJob:
        """Read a job; raises NotFound."""
        found = await self._ledger.read(_at(vault, job))
        if found is None:
            raise _job_not_found()
        return self._as_of_now(found.resource())

    async def list_jobs(self, vault: str, after: str, limit: int) -> list[ImportJob]:
        """Read jobs by id, after an id; raises NotFound for a vault that is not there."""
        await self._keys.require_vault(vault)
        return [self._as_of_now(row.resource()) for row in await self._ledger.list(KIND, vault, after, limit, ())]

    def _as_of_now(self, job: ImportJob) -> ImportJob:
        """As it is, though the scheduler may not have come yet."""
        expired = job.state is ImportJobState.ACTIVE and self._clock.now_us() >= job.expire_us
        return replace(job, state=ImportJobState.EXPIRED) if expired else job

    async def import_version(self, intent: Intent, ref: KeyRef, ask: ImportAsk) -> KeyVersion:
        """Make a version of wrapped material.

        Raises InvalidArgument: CROSS_VAULT, ALGORITHM_MISMATCH, UNWRAP_FAILED, MATERIAL_MISMATCH; NotFound; FailedPrecondition.
        """
        if ask.job_vault != ref.vault:
            raise InvalidArgument(
                "CROSS_VAULT",
                "an import job serves the keys of its own vault; create one in the key's",
                field="import_job",
            )

        async def account(changes: Changes, key: Key, number: int) -> None:
            # What the material encrypted elsewhere counts, too: the limit is of the key's bytes, not of a version's number.
            most = key.algorithm.max_messages
            if most is not None:
                unknown = self._budgets.limit_of(most) // 2
                prior = unknown if ask.prior_messages is None else ask.prior_messages
                await self._budgets.spend_before(changes, key, number, prior)

        return await self._key_versions.import_version(
            intent,
            ref,
            ask.etag,
            ask.algorithm,
            lambda: self._unwrap(ask),
            account,
            keep_primary=ask.keep_primary,
        )

    async def _unwrap(self, ask: ImportAsk) -> Secret:
        vault, id = ask.job_vault, ask.job
        found = await self._ledger.read(_at(vault, id))
        if found is None:
            raise _job_not_found()
        job = self._as_of_now(found.resource())
        if job.state is ImportJobState.EXPIRED:
            raise FailedPrecondition(
                "IMPORT_JOB_EXPIRED", "the import job has expired; create another one, and wrap the key for that"
            )
        pair = Material(self._ledger.sealer.open_secret(found.row), b"", job.public_key)
        return await self._wrapping.unwrap(WrappingMethod(job.method), pair, ask.wrapped, import_info(vault, id))

    async def expire_if_due(self, key: RowKey, now_us: int) -> None:
        """The scheduler's: an expired job loses its private key; one that expired long ago is forgotten."""
        expired = False
        async with self._ledger.change() as changes:
            found = await changes.get(key)
            if found is None or found.row.due_at is None or found.row.due_at > now_us:
                return
            job: ImportJob = found.resource()
            if job.state is ImportJobState.ACTIVE:
                await changes.put_resource(KIND, replace(job, state=ImportJobState.EXPIRED))
                expired = True
            else:
                await changes.delete(key)
        if expired:
            self._scrubber.note()
            await self._scrubber.run()


def _job_exists() -> AlreadyExists:
    return AlreadyExists(
        "IMPORT_JOB_EXISTS", "an import job of this name exists, or expired not long ago", field="import_job_id"
    )


def _job_not_found() -> NotFound:
    return NotFound("IMPORT_JOB_NOT_FOUND", "no such import job; ListImportJobs shows those of a vault")
