"""Every durable write of the engine: sealed rows, the digest that binds them, the stored answers, and the feed.

A change is one store transaction.  Whoever changes a row also moves the digest of the row's scope and the digest over all
scopes, in the same transaction, so a row put back from the past, or taken away, is found by `check`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from vaultd import failpoints
from vaultd.engine.clock import DAY_US, Clock
from vaultd.engine.model import decode_resource, encode_resource
from vaultd.engine.neighbours import ALONE
from vaultd.engine.sealing import MultisetHash, Sealer, metadata_aad, pack, row_lost, sealed_error, secret_aad
from vaultd.errors import AlreadyExists, DataLoss, Unavailable
from vaultd.store.base import Change, Digest, Replay, RingRow, Row, RowKey, Store, Transaction

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from vaultd.engine.neighbours import Neighbours
    from vaultd.secret import Secret

R = TypeVar("R")
ALL_SCOPES: Final = "*"
RING_KEY: Final = RowKey("key_ring", "", "", 0)
REPLAY_WINDOW_US: Final = DAY_US
ROWS_PER_TURN: Final = 200
"""Rows that are opened between two turns of the event loop."""


@dataclass(frozen=True, slots=True)
class Intent:
    """Who mutates what, and the request id that makes a retry safe (empty: none)."""

    principal: str
    method: str
    request_id: str = ""
    request_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A stored row and its opened metadata."""

    row: Row
    values: dict[str, Any]

    def resource(self) -> Any:
        """The resource that the row holds.  Its revision is that of its last change, not of a move to another term."""
        return decode_resource(self.values)


class Changes:
    """One transaction under way.  Nothing is durable until the surrounding `Ledger.change` ends without an exception."""

    def __init__(self, transaction: Transaction, sealer: Sealer, now_us: int) -> None:
        self._transaction = transaction
        self._sealer = sealer
        self._before: dict[RowKey, Row | None] = {}
        self._puts: dict[RowKey, Row] = {}
        self._deletes: set[RowKey] = set()
        self._touched_scopes: set[str] = set()
        self.feed: list[Change] = []
        self.now_us = now_us
        self.revision = transaction.revision

    async def get(self, key: RowKey) -> OpenRow | None:
        """Read a row as it was before this change."""
        if key not in self._before:
            self._before[key] = await self._transaction.get(key)
        row = self._before[key]
        return self._open(row) if row is not None else None

    async def versions(self, kind: str, scope: str, id: str, limit: int | None = None) -> list[OpenRow]:
        """Read versions of a row id, ascending: all, or the first `limit` of them."""
        rows = await self._transaction.versions(kind, scope, id, limit)
        self._before.update((row.key, row) for row in rows)
        opened = []
        for at, row in enumerate(rows, start=1):
            opened.append(self._open(row))
            if at % ROWS_PER_TURN == 0:
                await asyncio.sleep(0)
        return opened

    async def any_row(self, kind: str, scope: str, state: str) -> bool:
        """Whether a scope has a row of this kind and state."""
        return await self._transaction.any_row(kind, scope, state)

    def _open(self, row: Row) -> OpenRow:
        return OpenRow(row, orjson.loads(self._sealer.open_row(row)))

    async def put(
        self,
        key: RowKey,
        uid: bytes,
        state: str,
        due_at: int | None,
        values: Mapping[str, Any],
        *,
        secret: Secret | None = None,
        keep_secret: bool = False,
        event: str = "",
    ) -> None:
        """Insert or replace a row.  Key material: `secret` seals new, `keep_secret` keeps what is there, else there is none."""
        before = (await self.get(key), self._before[key])[1]
        term = self._sealer.term
        blob: bytes | None = None
        if secret is not None:
            blob = self._sealer.seal(secret.expose("seal for the store"), secret_aad(key, uid, term))
        elif keep_secret and before is not None and before.secret is not None:
            blob = before.secret
            if before.term != term:
                material = self._sealer.open_secret(before).expose("seal under the newest term")
                blob = self._sealer.seal(material, secret_aad(key, uid, term))
        row = Row(key, uid, state, due_at, self.revision, term, b"", blob)
        plaintext = orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
        self._puts[key] = replace(row, sealed=self._sealer.seal(plaintext, metadata_aad(row)))
        self._deletes.discard(key)
        self.note(key, event or ("create" if before is None else "update"))

    async def put_resource(
        self, kind: str, resource: R, *, secret: Secret | None = None, keep_secret: bool = False
    ) -> R:
        """Write a resource as the row that it is, and return it with this change's revision."""
        written: Any = replace(resource, revision=self.revision)  # type: ignore[type-var]  # R is one of Resource
        await self._put(kind, written, secret=secret, keep_secret=keep_secret)
        result: R = written
        return result

    async def keep_books(self, kind: str, resource: Any, event: str = "reseal") -> None:
        """Write a resource whose change is of no concern to callers: its etag stays what it was.

        Caches hear of it, watchers do not; unless the event is `notice`, which they hear of as of an update, without an etag.
        """
        await self._put(kind, resource, secret=None, keep_secret=False, event=event)

    async def _put(self, kind: str, written: Any, *, secret: Secret | None, keep_secret: bool, event: str = "") -> None:
        scope, id, version, state, due = _columns(kind, written)
        values = encode_resource(written)
        key = RowKey(kind, scope, id, version)
        await self.put(key, written.uid, state, due, values, secret=secret, keep_secret=keep_secret, event=event)

    async def delete(self, key: RowKey) -> None:
        """Delete a row that exists."""
        await self.get(key)
        self._deletes.add(key)
        self._puts.pop(key, None)
        self.note(key, "delete")

    async def reseal(self, key: RowKey) -> None:
        """Move a row, as it is, to the newest term; one that is gone meanwhile is left alone."""
        found = await self.get(key)
        if found is not None:
            row = found.row
            await self.put(key, row.uid, row.state, row.due_at, found.values, keep_secret=True, event="reseal")

    def reseal_digest(self, scope: str) -> None:
        """Move the digest of a scope to the newest term."""
        self._touched_scopes.add(scope)
        self.note(RowKey("digest", scope, "", 0), "reseal")

    async def ring(self) -> RingRow | None:
        """Read the key ring."""
        return await self._transaction.ring()

    async def put_ring(self, ring: RingRow) -> None:
        """Write the key ring, and tell the feed."""
        await self._transaction.put_ring(ring)
        self.note(RING_KEY, "update")

    def note(self, key: RowKey, event: str) -> None:
        """Tell the feed."""
        self.feed.append(Change(self.revision, key, event, self.now_us))

    async def replayed(self, intent: Intent) -> tuple[bool, Any]:
        """(True, the stored answer) when this request was answered before; raises AlreadyExists for another body."""
        if not intent.request_id:
            return False, None
        stored = await self._transaction.replay(replay_id(intent))
        return open_replay(self._sealer, stored, intent, self.now_us)

    async def remember(self, intent: Intent, resource: Any) -> None:
        """Store the answer with the change, for a retry within the replay window."""
        if not intent.request_id:
            return
        id = replay_id(intent)
        plaintext = orjson.dumps(encode_resource(resource) if resource is not None else None)
        expires = self.now_us + REPLAY_WINDOW_US
        term = self._sealer.term
        request_mac = _request_mac(self._sealer, intent)
        sealed = self._sealer.seal(plaintext, _replay_aad(id, request_mac, expires, term))
        await self._transaction.put_replay(Replay(id, request_mac, expires, self.revision, term, sealed))

    async def flush(self) -> None:
        """Write rows and feed, and move the digests."""
        if not self.feed:
            return
        touched = [*self._puts, *self._deletes]
        scopes = sorted({key.scope for key in touched} | (self._touched_scopes - {ALL_SCOPES}))
        stored = await self._transaction.digests([*scopes, ALL_SCOPES])
        total = _open_digest(self._sealer, stored.get(ALL_SCOPES))
        digests = []
        for scope in scopes:
            old = stored.get(scope)
            digest = _open_digest(self._sealer, old)
            if old is not None:
                total.remove(digest_hash(self._sealer, old))
            for key in touched:
                if key.scope != scope:
                    continue
                before = self._before[key]
                if before is not None:
                    digest.remove(self._sealer.row_hash(before))
                if key in self._puts:
                    digest.add(self._sealer.row_hash(self._puts[key]))
            new = seal_digest(self._sealer, scope, self.revision, digest)
            total.add(digest_hash(self._sealer, new))
            digests.append(new)
        if scopes or self._touched_scopes:
            digests.append(seal_digest(self._sealer, ALL_SCOPES, self.revision, total))
        await self._transaction.write(list(self._puts.values()), sorted(self._deletes), self.feed)
        await self._transaction.put_digests(digests)


class Ledger:
    """Reads and writes sealed rows.  Sealed itself (`sealer` is None) until the key ring is open."""

    def __init__(self, store: Store, clock: Clock, neighbours: Neighbours = ALONE) -> None:
        self.store = store
        self._clock = clock
        self.neighbours = neighbours
        self._sealer: Sealer | None = None
        self._listeners: list[Callable[[Iterable[Change]], None]] = []
        self.own_revisions: set[int] = set()
        self.revision = 0
        """Of the newest change that this process committed; 0 before the first."""

    @property
    def sealer(self) -> Sealer:
        """The sealer in force; raises Unavailable, reason SEALED, while there is none."""
        if self._sealer is None:
            raise sealed_error()
        return self._sealer

    @property
    def unsealed(self) -> bool:
        """Whether a sealer is in force."""
        return self._sealer is not None

    def require_unsealed(self) -> None:
        """Raise Unavailable, reason SEALED, unless a sealer is in force."""
        if self._sealer is None:
            raise sealed_error()

    def install(self, sealer: Sealer | None) -> None:
        """Put a sealer in force, or take it away."""
        self._sealer = sealer

    def subscribe(self, listener: Callable[[Iterable[Change]], None]) -> None:
        """Call `listener` with each committed change, before the mutation is acknowledged."""
        self._listeners.append(listener)

    def publish(self, changes: Iterable[Change]) -> None:
        """Tell the listeners; changes of other processes come in here, too."""
        for listener in self._listeners:
            listener(changes)

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Changes]:
        """One atomic, durable change; listeners hear of it after the commit and before the caller goes on."""
        sealer = self.sealer
        revision = 0
        try:
            async with self.store.begin() as transaction:
                changes = Changes(transaction, sealer, self._clock.now_us())
                yield changes
                await changes.flush()
                if changes.feed:
                    # A transaction that writes nothing leaves its revision to the next one, which may be another process's.
                    revision = changes.revision
                    self.own_revisions.add(revision)
                failpoints.hit("ledger.flushed")
        except DataLoss as error:
            self.own_revisions.discard(revision)
            await self._refuse_older_ring(error)
            raise
        except BaseException:
            self.own_revisions.discard(revision)
            raise
        failpoints.hit("ledger.committed")
        self.revision = max(self.revision, revision)
        self.publish(changes.feed)
        if changes.feed:
            self.neighbours.committed()

    async def mutate(self, intent: Intent, body: Callable[[Changes], Awaitable[R]]) -> R:
        """Run `body` in a change; a repeated request gets the stored answer and changes nothing.

        In force in the other processes of this server, too, when it returns, as far as they could be asked.
        """
        async with self.change() as changes:
            known, stored = await changes.replayed(intent)
            answer: R = stored if known else await body(changes)
            if not known:
                await changes.remember(intent, answer)
        await self.neighbours.settled()
        return answer

    async def answered(self, intent: Intent) -> tuple[bool, Any]:
        """Look for a stored answer before costly preparation; `mutate` looks again inside the transaction."""
        if not intent.request_id:
            return False, None
        stored = await self.store.replay(replay_id(intent))
        try:
            return open_replay(self.sealer, stored, intent, self._clock.now_us())
        except DataLoss as error:
            await self._refuse_older_ring(error)
            raise

    async def read(self, key: RowKey) -> OpenRow | None:
        """Read and open one row; raises DataLoss."""
        self._require_open()
        row = await self.store.get(key)
        return (await self._open_all([row]))[0] if row is not None else None

    async def versions(
        self, kind: str, scope: str, id: str, after: int = -1, limit: int | None = None
    ) -> list[OpenRow]:
        """Read and open versions of a row id after one, ascending, all or `limit` of them; raises DataLoss."""
        self._require_open()
        return await self._open_all(await self.store.versions(kind, scope, id, after, limit))

    async def list(self, kind: str, scope: str, after: str, limit: int, states: tuple[str, ...]) -> list[OpenRow]:
        """Read and open rows by id; raises DataLoss."""
        self._require_open()
        return await self._open_all(await self.store.list(kind, scope, after, limit, states))

    def _require_open(self) -> None:
        """Raise SEALED before anything is looked up: not even whether a row exists is said without the key ring."""
        self.sealer  # noqa: B018  # raises

    async def _open_all(self, rows: Iterable[Row]) -> builtins.list[OpenRow]:
        sealer = self.sealer  # the one of now: it has the terms of these rows, a later one may have forgotten them
        opened = []
        try:
            for at, row in enumerate(rows, start=1):
                opened.append(OpenRow(row, orjson.loads(sealer.open_row(row))))
                if at % ROWS_PER_TURN == 0:
                    await asyncio.sleep(0)
            return opened
        except DataLoss as error:
            await self._refuse_older_ring(error)
            raise

    async def _refuse_older_ring(self, error: DataLoss) -> None:
        """Raise Unavailable when rows do not open because another process changed the ring: that is no damage."""
        ring = await self.store.ring()
        if self._sealer is not None and ring is not None and ring.generation != self._sealer.ring.generation:
            raise Unavailable(
                "KEY_RING_CHANGED", "another node changed the key ring just now: try again", retry_after_s=0.2
            ) from error

    async def fingerprint(self) -> tuple[int, bytes]:
        """The newest revision, and 16 bytes that name all rows as of it, for who holds the key ring; raises DataLoss."""
        async with self.store.snapshot() as snapshot:
            total = _open_digest(self.sealer, snapshot.digests.get(ALL_SCOPES))
            revision = snapshot.revision
        return revision, self.sealer.token_mac("fingerprint", revision, total.dump())

    async def check(self, *, deep: bool = False) -> int:
        """Compare all rows with their digests; `deep` also opens every blob.  Returns the rows seen; raises DataLoss."""
        try:
            return await self._check(deep=deep)
        except DataLoss as error:
            await self._refuse_older_ring(error)
            raise

    async def _check(self, *, deep: bool) -> int:
        sums: dict[str, MultisetHash] = {}
        seen = 0
        async with self.store.snapshot() as snapshot:
            sealer = self.sealer  # not before: a rotation meanwhile would leave rows that it cannot open
            async for rows in snapshot.rows:
                for row in rows:
                    sums.setdefault(row.key.scope, MultisetHash()).add(sealer.row_hash(row))
                    if deep:
                        sealer.open_row(row)
                        if row.secret is not None:
                            sealer.open_secret(row)
                seen += len(rows)
            total = MultisetHash()
            for scope, digest in snapshot.digests.items():
                if scope == ALL_SCOPES:
                    continue
                total.add(digest_hash(sealer, digest))
                if _open_digest(sealer, digest) != sums.pop(scope, MultisetHash()):
                    raise digest_lost(scope)
            newest = snapshot.digests.get(ALL_SCOPES)
            if (
                sums
                or _open_digest(sealer, newest) != total
                or (newest is not None and newest.revision > snapshot.revision)
            ):
                raise digest_lost(next(iter(sums), ALL_SCOPES))
        return seen


def _columns(kind: str, resource: Any) -> tuple[str, str, int, str, int | None]:
    if kind == "vault":
        return "", resource.id, 0, "ACTIVE", None
    if kind == "quota":
        return "", resource.row_id, 0, "ACTIVE", None
    if kind in {"key", "secret", "import_job", "rotation"}:
        return resource.vault, resource.id, 0, resource.state.value, resource.due_us
    if kind == "secret_version":
        return resource.vault, resource.secret, resource.number, resource.state.value, None
    return resource.vault, resource.key, resource.number, resource.state.value, resource.due_us


def digest_lost(scope: str) -> DataLoss:
    """The error for a set of rows that is not the one that was written."""
    where = "the system's rows" if scope in {"", ALL_SCOPES} else f"vaults/{scope}"
    return DataLoss(
        "ROWS_ROLLED_BACK",
        f"rows of {where} were edited, put back from the past or taken away; restore from a backup",
        metadata={"scope": scope},
    )


def _digest_aad(scope: str, revision: int, term: int) -> bytes:
    return pack("digest", scope, revision, term)


def _open_digest(sealer: Sealer, digest: Digest | None) -> MultisetHash:
    if digest is None:
        return MultisetHash()
    aad = _digest_aad(digest.scope, digest.revision, digest.term)
    opened = sealer.open(digest.term, digest.sealed, aad) if sealer.knows(digest.term) else None
    if opened is None:
        raise digest_lost(digest.scope)
    return MultisetHash.load(opened)


def seal_digest(sealer: Sealer, scope: str, revision: int, digest: MultisetHash) -> Digest:
    """Seal the digest of a scope under the newest term."""
    sealed = sealer.seal(digest.dump(), _digest_aad(scope, revision, sealer.term))
    return Digest(scope, revision, sealer.term, sealed)


def digest_hash(sealer: Sealer, digest: Digest) -> int:
    """What a scope's digest adds to the digest over all scopes."""
    return sealer.image_hash(digest.scope, digest.revision, digest.term, digest.sealed)


def replay_id(intent: Intent) -> bytes:
    """Name of a stored answer: scoped to principal, method and request id."""
    return hashlib.sha256(pack("replay", intent.principal, intent.method, intent.request_id)).digest()


def _request_mac(sealer: Sealer, intent: Intent) -> bytes:
    # Keyed: a request may carry a passphrase, and a bare hash in the store would let it be guessed.
    return sealer.token_mac("request", intent.request_hash)


def _replay_aad(id: bytes, request_hash: bytes, expires_at: int, term: int) -> bytes:
    return pack("replay", id, request_hash, expires_at, term)


def open_replay(sealer: Sealer, stored: Replay | None, intent: Intent, now_us: int) -> tuple[bool, Any]:
    """(True, answer) for a stored answer to this very request, (False, None) when there is none in the window."""
    if stored is None or stored.expires_at <= now_us:
        return False, None
    if not hmac.compare_digest(stored.request_hash, _request_mac(sealer, intent)):
        raise AlreadyExists(
            "REQUEST_ID_REUSED",
            "this request_id was used for another request; use a fresh one",
            field="request_id",
        )
    aad = _replay_aad(stored.id, stored.request_hash, stored.expires_at, stored.term)
    opened = sealer.open(stored.term, stored.sealed, aad) if sealer.knows(stored.term) else None
    if opened is None:
        raise row_lost(RowKey("replay", "", "", 0))
    values = orjson.loads(opened)
    return True, decode_resource(values) if values is not None else None
