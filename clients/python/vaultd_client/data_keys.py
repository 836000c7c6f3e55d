"""Data keys of envelope encryption: from the vault, kept in memory for a while, and forgotten as soon as that is called for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vaultd_client.envelope_format import DATA_KEY_CONTEXT
from vaultd_client.errors import NotFound, PermissionDenied, VaultdError
from vaultd_client.flows import SingleFlight
from vaultd_client.segments import KEY_BYTES, cannot_open
from vaultd_client.watching import Following, Freshness, resource_of

if TYPE_CHECKING:
    from vaultd_client.flows import Flow
    from vaultd_client.watching import Changes, Mark

SEALING: Final = b"sealing"
"""Where the one data key for encryption is, beside those for decryption by their wrapped form."""


@dataclass(frozen=True, slots=True)
class DataKeyLimits(Freshness):
    """How long, and for how much, a data key is used.

    max_age_s, max_unwatched_s: as of everything that is cached.  max_messages, max_bytes: what one data key encrypts before the
    vault is asked for the next.  max_opened: how many data keys are kept for decryption; the longest unused goes first.
    """

    max_messages: int = 1 << 20
    max_bytes: int = 1 << 36
    max_opened: int = 1_000

    def __post_init__(self) -> None:
        Freshness.__post_init__(self)
        if min(self.max_messages, self.max_bytes, self.max_opened) < 1:
            raise ValueError("max_messages, max_bytes and max_opened are at least 1")


class Forgotten(Exception):
    """The data key was dropped between its look-up and its use; take another one."""


class DataKey:
    """32 bytes that the vault knows how to unwrap.

    They are in a bytearray, which `forget` overwrites.  Copies that Python and OpenSSL made (of the message that brought the key,
    and in derived keys) are freed, not overwritten.
    """

    __slots__ = ("_lock", "_material", "wrapped")

    def __init__(self, material: bytes, wrapped: bytes) -> None:
        if len(material) != KEY_BYTES:
            raise cannot_open()
        self._material = bytearray(material)
        self._lock = threading.Lock()  # a key that is overwritten while it is used would encrypt under zeros
        self.wrapped = wrapped

    def derive(self, salt: bytes, info: bytes) -> bytes:
        """The key of a stream.  Raises Forgotten."""
        with self._lock:
            if not self._material:
                raise Forgotten
            return HKDF(SHA256(), KEY_BYTES, salt, info).derive(self._material)

    def forget(self) -> None:
        """Overwrite it."""
        with self._lock:
            self._material[:] = bytes(len(self._material))
            self._material.clear()

    def __repr__(self) -> str:
        return "<data key>"

    def __reduce__(self) -> str:
        raise TypeError("a data key stays in its process")


class _Kept:
    """A data key in the cache, and what it was used for."""

    __slots__ = ("bytes", "key", "mark", "messages")

    def __init__(self, key: DataKey, mark: Mark) -> None:
        self.key = key
        self.mark = mark
        self.messages = 0
        self.bytes = 0


class DataKeys:
    """Those of one key in the vault.  Threads may share it; flows are for either client."""

    def __init__(self, key_name: str, limits: DataKeyLimits) -> None:
        self.key_name = key_name
        self._limits = limits
        self._resource = resource_of(key_name)
        self._following = Following(self)
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._shown: tuple[float, bool] | None = None  # when it was asked, and the answer
        self._flights: SingleFlight[DataKey] = SingleFlight()

    # -- keys -----------------------------------------------------------------------------------------------------------

    def fresh(self) -> Flow[DataKey]:
        """A data key that nothing else uses; it is not kept."""
        answer = yield lambda client: client.generate_data_key(
            self.key_name, KEY_BYTES, include_plaintext=True, associated_data=DATA_KEY_CONTEXT
        )
        (made,) = answer.data_keys
        return DataKey(made.plaintext, made.wrapped)

    def unwrapped(self, wrapped: bytes) -> Flow[DataKey]:
        """The data key of something that is to be opened; it is not kept.  Raises DecryptionFailed."""
        answer = yield lambda client: client.decrypt(self.key_name, wrapped, DATA_KEY_CONTEXT)
        return DataKey(answer.plaintext, wrapped)

    def for_message(self, size: int) -> Flow[DataKey]:
        """A data key to encrypt a message of so many bytes with: the one in use, or the next."""
        if size > self._limits.max_bytes:
            return (yield from self.fresh())
        found = self._look_up(SEALING, size)
        if found is None:
            fetched = yield from self._flights.fetch(SEALING, lambda: self._fetch(SEALING))
            found = self._look_up(SEALING, size) or fetched
        return found

    def for_opening(self, wrapped: bytes) -> Flow[DataKey]:
        """The data key of a message.  Raises DecryptionFailed."""
        found = self._look_up(wrapped, None)
        if found is None:
            found = yield from self._flights.fetch(wrapped, lambda: self._fetch(wrapped))
        return found

    def _fetch(self, place: bytes) -> Flow[DataKey]:
        changes = yield from self._following.begin()
        shown = yield from self._is_shown(changes)
        mark = changes.mark(self._resource)
        key = yield from (self.fresh() if place is SEALING else self.unwrapped(place))
        with self._lock:
            kept = _Kept(key, mark if shown else mark.unwatched())
            if self._following.keeps(changes, mark) and changes.fresh(kept.mark, self._limits):
                self._forget(self._kept.pop(place, None))
                self._kept[place] = kept
                self._bound()
        return key

    def _is_shown(self, changes: Changes) -> Flow[bool]:
        """Whether we may get the key: then Watch tells us of its changes."""
        found = self._shown
        if found is not None and changes.clock() - found[0] < self._limits.max_age_s:
            return found[1]
        asked, shown = changes.clock(), True
        try:
            yield lambda client: client.get_key(self._resource)
        except (PermissionDenied, NotFound):
            shown = False
        except VaultdError:
            return False  # this time: it says nothing of what we may get
        self._shown = asked, shown
        return shown

    def _look_up(self, place: bytes, size: int | None) -> DataKey | None:
        """A data key that may be used, which is then counted as used."""
        limits = self._limits
        with self._lock:
            found = self._kept.get(place)
            if found is None:
                return None
            spent = size is not None and (
                found.messages >= limits.max_messages or found.bytes + size > limits.max_bytes
            )
            if spent or not self._following.fresh(found.mark, limits):
                self._forget(self._kept.pop(place))
                return None
            found.messages += 1
            found.bytes += size or 0
            self._kept.move_to_end(place)
            return found.key

    def _bound(self) -> None:
        while len(self._kept) > self._limits.max_opened + (SEALING in self._kept):
            oldest = next(place for place in self._kept if place is not SEALING)
            self._forget(self._kept.pop(oldest))

    def _forget(self, kept: _Kept | None) -> None:
        if kept is not None:
            kept.key.forget()

    # -- what Watch tells -----------------------------------------------------------------------------------------------

    def changed(self, resource: str) -> None:
        """Forget all of it when the key changed: rotated, disabled, destroyed, deleted, or anything else."""
        if resource == self._resource:
            self.missed()

    def missed(self) -> None:
        """Forget all of it."""
        with self._lock:
            kept, self._kept = self._kept, OrderedDict()
            for one in kept.values():
                self._forget(one)

    def close(self) -> None:
        """Forget all of it, and listen no more."""
        self._following.end()
        self.missed()
