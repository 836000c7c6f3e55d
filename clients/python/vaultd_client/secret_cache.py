"""Payloads of secrets, kept in memory for a while, so that reading one costs nothing."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from vaultd_client.errors import VaultdError
from vaultd_client.flows import SingleFlight, run, run_async
from vaultd_client.watching import Following, Freshness, resource_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaultd_client.aio import AsyncClient
    from vaultd_client.flows import Flow
    from vaultd_client.sync import Client
    from vaultd_client.v1.secrets_pb2 import AccessSecretVersionResponse
    from vaultd_client.watching import Changes, Mark

AWAY: Final = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
REST_S: Final = 1.0
"""So long after a failure old payloads are given without asking again: who reads one does not wait each time."""


@dataclass(frozen=True, slots=True)
class SecretValue:
    """The payload of a version, and the version's full name.  expire_time: seconds since 1970, None: never."""

    payload: bytes = field(repr=False)
    version: str
    content_type: str
    expire_time: float | None


@dataclass(frozen=True, slots=True)
class _Kept:
    mark: Mark
    value: SecretValue
    shown: bool
    shown_at: float
    """Whether we may get the secret, and so are told of its changes; and when that was asked."""


class _Secrets:
    """What is kept, and how it is read, as flows for both clients."""

    def __init__(self, ttl_s: float, max_unwatched_s: float, stale_s: float, max_entries: int) -> None:
        if stale_s < 0 or max_entries < 1:
            raise ValueError("stale_while_unavailable_s is at least 0, and max_entries at least 1")
        self._freshness = Freshness(ttl_s, min(max_unwatched_s, ttl_s))
        self._stale_s = stale_s
        self._max_entries = max_entries
        self._following = Following(self)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._flights: SingleFlight[SecretValue] = SingleFlight()
        self._rest_until = 0.0
        self._wall_clock = time.time

    def get(self, name: str) -> Flow[SecretValue]:
        found, changes = self._look_up(name), self._following.changes
        if found is not None and changes is not None:
            resting = changes.clock() < self._rest_until and self._may_be_stale(found, changes)
            if resting or changes.fresh(found.mark, self._freshness):
                return found.value
        return (yield from self._flights.fetch(name, lambda: self._fetch(name)))

    def _look_up(self, name: str) -> _Kept | None:
        with self._lock:
            found = self._kept.get(name)
            end = None if found is None else found.value.expire_time
            if end is not None and self._wall_clock() >= end:
                del self._kept[name]
                return None
            if found is not None:
                self._kept.move_to_end(name)
            return found

    def _fetch(self, name: str) -> Flow[SecretValue]:
        changes = yield from self._following.begin()
        old = self._look_up(name)
        mark = changes.mark(name)
        try:
            if old is not None and mark.at - old.shown_at < self._freshness.max_age_s:
                shown, shown_at = old.shown, old.shown_at
            else:
                shown, shown_at = (yield from _is_shown(mark.resource)), mark.at
            known = old.value.version if old is not None else ""
            answer: AccessSecretVersionResponse = yield lambda client: client.access_secret_version(name, known)
        except VaultdError as error:
            stale = self._stale(name, error, changes)
            if stale is None:
                raise
            return stale
        value = old.value if answer.not_modified and old is not None else _value_of(answer)
        with self._lock:
            if self._following.keeps(changes, mark):
                self._kept[name] = _Kept(mark if shown else mark.unwatched(), value, shown, shown_at)
                self._kept.move_to_end(name)
                while len(self._kept) > self._max_entries:
                    self._kept.popitem(last=False)
        return value

    def _stale(self, name: str, error: VaultdError, changes: Changes) -> SecretValue | None:
        """What is given while the vault is away, or sealed; what Watch told of meanwhile is gone.  Any other answer ends it."""
        found = self._look_up(name)
        if found is None:
            return None
        if error.code not in AWAY:
            self._forget(lambda each: each == name)
            return None
        if not self._may_be_stale(found, changes):
            return None
        self._rest_until = changes.clock() + REST_S
        return found.value

    def _may_be_stale(self, found: _Kept, changes: Changes) -> bool:
        return bool(self._stale_s) and changes.clock() - found.mark.at < self._freshness.max_age_s + self._stale_s

    def _forget(self, which: Callable[[str], bool]) -> None:
        with self._lock:
            for name in [name for name in self._kept if which(name)]:
                del self._kept[name]

    def changed(self, resource: str) -> None:
        """Forget what is of a secret that changed."""
        self._forget(lambda name: resource_of(name) == resource)

    def missed(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._kept.clear()

    def close(self) -> None:
        """Forget all of it, and listen no more."""
        self._following.end()
        self.missed()


def _is_shown(secret: str) -> Flow[bool]:
    """Whether we may get the secret: then Watch tells us of its changes."""
    try:
        yield lambda client: client.get_secret(secret)
    except VaultdError:
        return False
    return True


def _value_of(answer: AccessSecretVersionResponse) -> SecretValue:
    expires = answer.expire_time.ToNanoseconds() / 1e9 if answer.HasField("expire_time") else None
    return SecretValue(answer.payload, answer.version, answer.content_type, expires)


class SecretCache:
    """Secrets by name, version or alias, read from the vault at most once in `ttl_s`.  Threads may share it.

    What Watch tells of is dropped at once and read again when it is asked for: a new version, a moved alias, what was disabled,
    destroyed or deleted.  While Watch is silent, or without `secrets.get`, the vault is asked after `max_unwatched_s` whether the
    version is still the one (`if_version_not`, which carries no payload).  A version is not given out after its expire_time.

    stale_while_unavailable_s: for so long beyond `ttl_s` an old payload is given while the vault cannot be reached; 0, which is the
    default, gives the error.  The same while it is sealed.  What was destroyed meanwhile is then given for that long, too.

    Callers who want the same at the same time make one call.  The cache serves whoever holds this object: callers with different
    tokens take one each, of a client each.
    """

    def __init__(
        self,
        client: Client,
        *,
        ttl_s: float = 300.0,
        max_unwatched_s: float = 10.0,
        stale_while_unavailable_s: float = 0.0,
        max_entries: int = 1_000,
    ) -> None:
        self._client = client
        self._secrets = _Secrets(ttl_s, max_unwatched_s, stale_while_unavailable_s, max_entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def get(self, name: str) -> SecretValue:
        """The payload of a secret's current version, or of one of its versions by number or alias.  Raises VaultdError."""
        return run(self._secrets.get(name), self._client)

    def close(self) -> None:
        """Forget all payloads.  Idempotent; the client stays open."""
        self._secrets.close()


class AsyncSecretCache:
    """SecretCache for AsyncClient."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        ttl_s: float = 300.0,
        max_unwatched_s: float = 10.0,
        stale_while_unavailable_s: float = 0.0,
        max_entries: int = 1_000,
    ) -> None:
        self._client = client
        self._secrets = _Secrets(ttl_s, max_unwatched_s, stale_while_unavailable_s, max_entries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    async def get(self, name: str) -> SecretValue:
        """The payload of a secret's current version, or of one of its versions by number or alias.  Raises VaultdError."""
        return await run_async(self._secrets.get(name), self._client)

    def close(self) -> None:
        """Forget all payloads.  Idempotent; the client stays open."""
        self._secrets.close()
