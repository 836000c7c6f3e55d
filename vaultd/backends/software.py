"""Keys in the server's memory, used through the `cryptography` package."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, final

from vaultd.backends.backlog import too_late
from vaultd.backends.base import Lane, Material, Revealed
from vaultd.backends.pool import DEFAULT_MAX_QUEUED, Call, WorkPool
from vaultd.backends.primitives.catalogue import SCHEMES
from vaultd.backends.primitives.scheme import Encoded, SymmetricScheme, material_mismatch
from vaultd.errors import FailedPrecondition, InvalidArgument, VaultdError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.backends.base import Handle, Operation, TokenKey
    from vaultd.backends.primitives.catalogue import Scheme
    from vaultd.backends.primitives.scheme import Key
    from vaultd.secret import Secret

_new_call = tuple.__new__  # half the price of Call(...), of which a batch makes thousands

# About a millisecond of inline operations, after which other calls on the event loop get their turn.
_INLINE_RUN = 256

_SWIFT = frozenset(
    {
        "EC_P256_SHA256/private",
        "ECDH_P256/private",
        "ED25519/private",
        "ED25519/public",
        "X25519/private",
        "ML_KEM_768/private",
        "ML_KEM_768/public",
        "ML_KEM_1024/private",
        "ML_KEM_1024/public",
        *(f"RSA_{scheme}_2048_SHA{bits}/public" for scheme in ("PSS", "PKCS1") for bits in (256, 512)),
    }
)
"""Operations of 25 to 110 us.  A lone one costs 250 us more CPU through a thread than on the event loop (`make bench`)."""

_IN_TURNS = frozenset({"EC_P256_SHA256/private", "ED25519/private"})
"""Operations of 20 to 35 us.  Two threads do about as many in a second as the event loop alone, for a quarter more CPU: after each
of them a thread waits for the interpreter's lock, and is woken for it (docs/performance/hot-path.md)."""


@final
class PooledHandle:
    """One part of a key pair, whose operations are for the pool's threads; `cryptography`'s keys are safe on any."""

    __slots__ = ("cost_class", "in_turns", "perform", "swift")
    inline: bool = False
    perform: Callable[[Operation], bytes]
    """Do it now, on this thread."""

    def __init__(self, key: Key, cost_class: str) -> None:
        self.perform = key.perform
        self.cost_class = cost_class
        self.in_turns = cost_class in _IN_TURNS
        self.swift = cost_class in _SWIFT
        """Whether a lone operation is cheaper here and now than through a thread."""


class SoftwareBackend:
    """The backend of protection level SOFTWARE: every algorithm, with nothing to connect to.

    Symmetric operations run on the event loop (a thread hop costs fifty of them), and so does a lone private-key
    operation that costs less than the hop; all others, and every batch, run in a `WorkPool`, which starts with the first
    of them, on the loop that is running then.  `threads` is the number of CPUs by default.
    """

    protection_level: str = "SOFTWARE"

    def __init__(self, threads: int | None = None, max_queued: int = DEFAULT_MAX_QUEUED) -> None:
        self._pool = WorkPool(threads, max_queued)

    @property
    def queue_depth(self) -> int:
        """Operations that are waiting for a thread, for metrics."""
        return self._pool.queue_depth

    @property
    def pool(self) -> WorkPool:
        """The threads, for metrics."""
        return self._pool

    def unsupported(self, algorithm: str) -> str | None:
        """Say why the algorithm cannot be used here, or None when it can."""
        return None if algorithm in SCHEMES else "no such algorithm is known to this server"

    def reserve(self) -> bytes:
        """Nothing: a key whose record was lost exists nowhere."""
        return b""

    async def generate(self, algorithm: str, label: str, reference: bytes = b"") -> Material:
        """Make a new key.  Label and reference are for tokens; here they go unused."""
        del label, reference
        scheme = _find_scheme(algorithm)
        if isinstance(scheme, SymmetricScheme):
            return Material(scheme.generate(), b"", b"")
        call = Call(f"{algorithm}/generate", scheme.generate, ())
        return _to_material(await self._pool.run(call, None, scheme.generation_lane))

    async def import_material(self, algorithm: str, secret: Secret, label: str, reference: bytes = b"") -> Material:
        """Take material in: raw bytes, or PKCS#8 DER for key pairs, where it is the only form for RSA and EC.

        Raises InvalidArgument, reason MATERIAL_MISMATCH, unless it is a sound key of exactly this algorithm.
        """
        del label, reference
        scheme = _find_scheme(algorithm)
        if isinstance(scheme, SymmetricScheme):
            scheme.load(secret)
            return Material(secret, b"", b"")
        # Checking RSA's primes takes a third of a second: as long as making a key.
        call = Call(f"{algorithm}/import", scheme.take_in, (secret,))
        return _to_material(await self._pool.run(call, None, scheme.generation_lane))

    async def adopt(self, algorithm: str, source: TokenKey) -> Material:
        """Refuse: there is no token."""
        del algorithm, source
        raise FailedPrecondition(
            "ADOPTION_UNSUPPORTED", "only keys of protection level HSM are taken over from a token"
        )

    async def reveal(self, algorithm: str, material: Material) -> Revealed:
        """Give the material away, with the public part that it gives.  RSA's primes are not checked again."""
        scheme = _find_scheme(algorithm)
        if material.secret is None:
            raise material_mismatch("a software key has its material with it")
        if isinstance(scheme, SymmetricScheme):
            return Revealed(*scheme.reveal(material.secret))
        call = Call(f"{algorithm}/load", scheme.reveal, (material.secret,))
        return Revealed(*await self._pool.run(call, None))

    async def load(self, algorithm: str, material: Material) -> Handle:
        """Make a handle for the private or symmetric part.

        Seeds are expanded and points computed here, in the pool; RSA is not checked again, for what is stored was
        checked when it came in.
        """
        scheme = _find_scheme(algorithm)
        if material.secret is None:
            raise material_mismatch("a software key has its material with it")
        if isinstance(scheme, SymmetricScheme):
            return scheme.load(material.secret)
        key = await self._pool.run(Call(f"{algorithm}/load", scheme.load, (material.secret,)), None)
        return PooledHandle(key, f"{algorithm}/private")

    def load_public(self, algorithm: str, public_key: bytes) -> Handle:
        """Make a handle for the public part.  Raises InvalidArgument for symmetric algorithms, which have none."""
        scheme = _find_scheme(algorithm)
        if isinstance(scheme, SymmetricScheme):
            raise InvalidArgument("NO_PUBLIC_KEY", "a key of a symmetric algorithm has no public part")
        return PooledHandle(scheme.load_public(public_key), f"{algorithm}/public")

    async def use(
        self, handle: Handle, operation: Operation, deadline: float | None, lane: Lane = Lane.ONLINE
    ) -> bytes:
        """Do one operation.

        Raises ResourceExhausted at once when the queue is full or too long for the deadline, and DeadlineExceeded when
        it passes while the operation waits for its turn.
        """
        if handle.inline or (isinstance(handle, PooledHandle) and handle.swift):
            self._pool.require_open()
            if deadline is not None and time.monotonic() >= deadline:
                raise too_late()
            return handle.perform(operation)
        return await self._pool.run(_to_call(handle, operation), deadline, lane)

    async def use_many(
        self, work: Sequence[tuple[Handle, Operation]], deadline: float | None
    ) -> list[bytes | VaultdError]:
        """Do many operations; one outcome each, in order.

        Raises, with none of them done, when the deadline is past already or the pool refuses its share of them.
        """
        _check_deadline(deadline)
        outcomes: list[bytes | VaultdError] = [b""] * len(work)
        pooled = [index for index, (handle, _) in enumerate(work) if not handle.inline]
        pending = self._pool.submit([_to_call(*work[index]) for index in pooled], deadline)
        try:
            if len(pooled) == len(work):
                return await pending
            await self._perform_inline(work, outcomes, deadline)
            for index, outcome in zip(pooled, await pending, strict=True):
                outcomes[index] = outcome
        finally:
            pending.cancel()
        return outcomes

    async def destroy(self, material: Material) -> None:
        """Do nothing: the key is gone when the caller has dropped its bytes and its handles."""
        del material

    async def random_bytes(self, length: int) -> bytes:
        """Random bytes from the operating system."""
        return os.urandom(length)

    async def close(self) -> None:
        """Stop the threads; queued operations fail with Unavailable.  Idempotent."""
        await self._pool.close()

    async def _perform_inline(
        self, work: Sequence[tuple[Handle, Operation]], outcomes: list[bytes | VaultdError], deadline: float | None
    ) -> None:
        late: VaultdError | None = None
        done = 0
        for index, (handle, operation) in enumerate(work):
            if not handle.inline:
                continue
            try:
                outcomes[index] = late or handle.perform(operation)
            except VaultdError as error:
                outcomes[index] = error
            done += 1
            if done % _INLINE_RUN == 0:
                await asyncio.sleep(0)
                if _is_past(deadline):
                    late = too_late()


def _find_scheme(algorithm: str) -> Scheme:
    scheme = SCHEMES.get(algorithm)
    if scheme is None:
        raise InvalidArgument("UNSUPPORTED_ALGORITHM", "no such algorithm is known to this server")
    return scheme


def _to_material(encoded: Encoded) -> Material:
    return Material(encoded.secret, b"", encoded.public_key)


def _to_call(handle: Handle, operation: Operation) -> Call[bytes]:
    if not isinstance(handle, PooledHandle):
        raise TypeError("the handle is of another backend")
    return _new_call(Call, (handle.cost_class, handle.perform, (operation,)))


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _check_deadline(deadline: float | None) -> None:
    if _is_past(deadline):
        raise too_late()
