"""What a store is: durable rows of sealed blobs, a revision feed, and nothing that needs a key.

`tests/contract/store.py` is the contract that each one passes.  All times are whole microseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from vaultd.telemetry.cells import Histograms


class RowKey(NamedTuple):
    """The primary key of a row."""

    kind: str
    """`vault`, `key`, `key_version`, `policy`, `budget`: the engine names them."""
    scope: str
    """The vault that owns the row; `` for rows of the system."""
    id: str
    version: int
    """0 where the kind has no versions."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.  All of it but `sealed` and `secret` is readable without a key, and bound to both as associated data."""

    key: RowKey
    uid: bytes
    """16 bytes that never change."""
    state: str
    due_at: int | None
    """When the scheduler must look at the row; None is never."""
    revision: int
    """Of the transaction that wrote it."""
    term: int
    """Of the data key that sealed it."""
    sealed: bytes
    secret: bytes | None
    """Sealed key material, apart so that reading metadata opens no key; None when there is none."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the feed."""

    revision: int
    key: RowKey
    event: str
    """`create`, `update`, `delete`; `reseal` when a row only moved to the newest term."""
    at: int


@dataclass(frozen=True, slots=True)
class RingRow:
    """The key ring, wrapped by a root key."""

    root_ref: str
    """Which root key wrapped it, in the provider's terms."""
    generation: int
    """Raised by every change of the ring; the previous generation is replaced in the same transaction."""
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Digest:
    """The sealed multiset hash over the rows of one scope (or over all digests, scope `*`)."""

    scope: str
    revision: int
    term: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """The stored answer of a mutation that carried a request_id."""

    id: bytes
    """32 bytes: hash over principal, method and request id."""
    request_hash: bytes
    expires_at: int
    revision: int
    term: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """Use of one key version since its creation, or a difference to add."""

    uid: bytes
    version: int
    messages: int
    bytes: int
    last_use_at: int


class Transaction(Protocol):
    """A serialisable write transaction.  Durable when the `begin` context exits without an exception; else nothing happened."""

    revision: int
    """The revision that this transaction's writes carry: one more than the newest committed one."""

    async def get(self, key: RowKey) -> Row | None:
        """Read a row."""
        ...

    async def versions(self, kind: str, scope: str, id: str, limit: int | None = None) -> list[Row]:
        """Read versions of a row id, ascending: all, or the first `limit` of them."""
        ...

    async def any_row(self, kind: str, scope: str, state: str) -> bool:
        """Whether a scope has a row of this kind and state."""
        ...

    async def write(self, puts: Sequence[Row], deletes: Sequence[RowKey], changes: Sequence[Change]) -> None:
        """Insert or replace rows, delete rows, append to the feed.  One round trip."""
        ...

    async def digests(self, scopes: Sequence[str]) -> dict[str, Digest]:
        """Read the digests of these scopes; a scope without one is left out."""
        ...

    async def put_digests(self, digests: Sequence[Digest]) -> None:
        """Insert or replace digests."""
        ...

    async def ring(self) -> RingRow | None:
        """Read the key ring."""
        ...

    async def put_ring(self, ring: RingRow) -> None:
        """Insert or replace the key ring."""
        ...

    async def replay(self, id: bytes) -> Replay | None:
        """Read a stored answer."""
        ...

    async def put_replay(self, replay: Replay) -> None:
        """Insert or replace a stored answer."""
        ...


class Store(Protocol):
    """Durable rows.  Any method raises Unavailable when the storage cannot be reached, ResourceExhausted when it is full.

    Reads outside a transaction see every transaction that was acknowledged before they began.
    """

    latency: Histograms
    """How long its work takes, by operation, with the wait for a turn; for metrics."""

    async def open(self) -> None:
        """Open and migrate.  Raises FailedPrecondition when the schema is newer than this program, or files are not 0600."""
        ...

    async def close(self) -> None:
        """Close; waits for the transaction under way."""
        ...

    def begin(self) -> AbstractAsyncContextManager[Transaction]:
        """Start a write transaction; one at a time, across processes too."""
        ...

    async def get(self, key: RowKey) -> Row | None:
        """Read a row."""
        ...

    async def versions(self, kind: str, scope: str, id: str, after: int = -1, limit: int | None = None) -> list[Row]:
        """Read versions of a row id after one, ascending: all, or `limit` of them."""
        ...

    async def list(self, kind: str, scope: str, after_id: str, limit: int, states: Sequence[str] = ()) -> list[Row]:
        """Read rows of a kind in a scope with id > after_id, by id; only of `states` when given.  Version 0 rows only."""
        ...

    async def due(self, now: int, limit: int, after: tuple[int, RowKey] | None = None) -> builtins.list[Row]:
        """Read rows whose due_at is at or before now, oldest first, and by key; those after a due_at and key, when given."""
        ...

    def snapshot(self, batch: int = 1000) -> AbstractAsyncContextManager[Snapshot]:
        """Read all rows and all digests as of one moment, while writes go on.  For the integrity check and manifests."""
        ...

    async def older_terms(self, term: int, limit: int) -> builtins.list[RowKey]:
        """Name rows sealed under a term before this one."""
        ...

    async def count_older_terms(self, term: int) -> int:
        """Count rows, digests and replays sealed under a term before this one."""
        ...

    async def ring(self) -> RingRow | None:
        """Read the key ring."""
        ...

    async def replay(self, id: bytes) -> Replay | None:
        """Read a stored answer."""
        ...

    async def drop_replays(self, expired_before: int) -> int:
        """Delete stored answers that expired; return how many."""
        ...

    async def revision(self) -> int:
        """The newest committed revision, 0 before the first write."""
        ...

    async def changed(self) -> bool:
        """Whether another connection or process may have committed since the last call.  Cheap: it is polled."""
        ...

    async def changes(self, after: int, limit: int) -> builtins.list[Change]:
        """Read the feed after a revision, ascending; revisions are never split across calls."""
        ...

    async def trim_changes(self, keep: int) -> int:
        """Delete the oldest entries of the feed, all but those of the newest `keep` revisions; return how many."""
        ...

    async def add_usage(self, usages: Sequence[Usage]) -> None:
        """Add differences to the stored usage; atomic."""
        ...

    async def usage(self, uid: bytes) -> builtins.list[Usage]:
        """Read the usage of all versions of a key."""
        ...

    async def scrub(self) -> None:
        """After erasing material: leave no copy of it in journals or free pages."""
        ...

    async def backup(self, into: Path) -> None:
        """Write a consistent copy that `restore` opens, 0600, synced."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rows and all digests as of one revision."""

    revision: int
    rows: AsyncIterator[list[Row]]
    digests: dict[str, Digest]
