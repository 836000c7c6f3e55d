"""Verify, encrypt and encapsulate here, with public keys that are kept and refreshed.

What is done here the vault neither sees nor meters, so nobody gets it unasked: it takes a LocalKeys.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from vaultd_client.errors import NotFound, PermissionDenied, VaultdError
from vaultd_client.flows import SingleFlight, run, run_async
from vaultd_client.public_keys import MAX_INPUT_BYTES, MAX_SIGNATURE_BYTES, PublicUse, public_use
from vaultd_client.v1 import crypto_pb2, resources_pb2
from vaultd_client.watching import Following, Freshness, Mark

if TYPE_CHECKING:
    from vaultd_client.aio import AsyncClient
    from vaultd_client.flows import Flow
    from vaultd_client.sync import Client
    from vaultd_client.v1.keys_pb2 import PublicKey
    from vaultd_client.v1.resources_pb2 import Key, KeyVersion

MAX_KEYS: Final = 1_000
EXPIRY_MARGIN_S: Final = 60.0
"""So long before a key's expire_time the vault is asked: its clock decides."""
NOTHING: Final = PublicUse()
NAME: Final = re.compile(r"vaults/[^/]+/keys/[^/]+(/versions/[1-9][0-9]*)?")
"""Keys and versions.  What anything else means is the vault's to say."""


class _Local(NamedTuple):
    """A name, and what its public key does here; NOTHING: the vault does it."""

    mark: Mark
    use: PublicUse
    key_version: str
    expires: float | None  # time.time(); then it protects nothing new

    @property
    def protects(self) -> bool:
        """Whether something new may be encrypted here."""
        return self.expires is None or time.time() < self.expires - EXPIRY_MARGIN_S


_NOT_OURS: Final = _Local(Mark("", 0.0, 0, False), NOTHING, "", None)


class _PublicKeys:
    """Those that are kept, and what both clients do with them, as flows."""

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        self._harmless = Freshness(freshness.max_age_s, freshness.max_age_s)
        """Of keys that do nothing here: whatever became of them, the vault is asked."""
        self._following = Following(self)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Local] = OrderedDict()
        self._flights: SingleFlight[_Local] = SingleFlight()

    def verify(
        self,
        name: str,
        message: bytes | None,
        signature: bytes,
        digest: bytes | None,
        encoding: resources_pb2.SignatureEncoding | str | None,
        timeout_s: float | None,
    ) -> Flow[crypto_pb2.VerifyResponse]:
        p1363 = encoding in ("SIGNATURE_ENCODING_P1363", resources_pb2.SIGNATURE_ENCODING_P1363)
        known = p1363 or encoding in (None, 0, "SIGNATURE_ENCODING_UNSPECIFIED", *_DER)
        data = message if digest is None else digest
        if known and data is not None and (message is None or digest is None) and _verifiable(data, signature):
            local = yield from self._find(name)
            if local.use.verify is not None:
                valid = local.use.verify(data, digest is not None, signature, p1363)
                if valid is not None:
                    return crypto_pb2.VerifyResponse(valid=valid, key_version=local.key_version)
        return (  # type: ignore[no-any-return]  # what a step gives is Any
            yield lambda client: client.verify(
                name, message, signature, digest=digest, signature_encoding=encoding, timeout_s=timeout_s
            )
        )

    def encrypt(
        self, name: str, plaintext: bytes, associated_data: bytes, timeout_s: float | None
    ) -> Flow[crypto_pb2.EncryptResponse]:
        if max(len(plaintext), len(associated_data)) <= MAX_INPUT_BYTES:
            local = yield from self._find(name)
            if local.use.encrypt is not None and local.protects:
                ciphertext = local.use.encrypt(plaintext, associated_data)
                if ciphertext is not None:
                    return crypto_pb2.EncryptResponse(ciphertext=ciphertext, key_version=local.key_version)
        return (  # type: ignore[no-any-return]  # what a step gives is Any
            yield lambda client: client.encrypt(name, plaintext, associated_data, timeout_s=timeout_s)
        )

    def encapsulate(self, name: str, timeout_s: float | None) -> Flow[crypto_pb2.EncapsulateResponse]:
        local = yield from self._find(name)
        if local.use.encapsulate is not None and local.protects:
            secret, ciphertext = local.use.encapsulate()
            return crypto_pb2.EncapsulateResponse(
                ciphertext=ciphertext, shared_secret=secret, key_version=local.key_version
            )
        return (  # type: ignore[no-any-return]  # what a step gives is Any
            yield lambda client: client.encapsulate(name, timeout_s=timeout_s)
        )

    # -- what is kept ---------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> Flow[_Local]:
        if NAME.fullmatch(name) is None:
            return _NOT_OURS
        with self._lock:
            found = self._kept.get(name)
            if found is not None:
                freshness = self._harmless if found.use is NOTHING else self._freshness
                if self._following.fresh(found.mark, freshness):
                    self._kept.move_to_end(name)
                    return found
                del self._kept[name]
        return (yield from self._flights.fetch(name, lambda: self._fetch(name)))

    def _fetch(self, name: str) -> Flow[_Local]:
        changes = yield from self._following.begin()
        mark = changes.mark(name)
        try:
            local = yield from _read(name, mark)
        except (PermissionDenied, NotFound):
            local = _Local(mark.unwatched(), NOTHING, "", None)
        except VaultdError:
            return _Local(mark, NOTHING, "", None)  # not kept; what the vault says of the call itself is what counts
        with self._lock:
            if self._following.keeps(changes, mark):
                self._kept[name] = local
                while len(self._kept) > MAX_KEYS:
                    self._kept.popitem(last=False)
        return local

    def changed(self, resource: str) -> None:
        """Forget what is of a key that changed."""
        with self._lock:
            for name in [name for name, local in self._kept.items() if local.mark.resource == resource]:
                del self._kept[name]

    def missed(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._kept.clear()

    def close(self) -> None:
        """Forget all of it, and listen no more."""
        self._following.end()
        self.missed()


_DER: Final = ("SIGNATURE_ENCODING_DER", resources_pb2.SIGNATURE_ENCODING_DER)


def _verifiable(data: bytes, signature: bytes) -> bool:
    return len(data) <= MAX_INPUT_BYTES and 1 <= len(signature) <= MAX_SIGNATURE_BYTES


def _read(name: str, mark: Mark) -> Flow[_Local]:
    """Key, version and public key.  GetKey is also how we know that Watch tells us of the key.  Raises VaultdError."""
    key: Key = yield lambda client: client.get_key(mark.resource)
    version_name = name if "/versions/" in name else key.primary_version
    number = version_name.rpartition("/")[2]
    usable = key.state == resources_pb2.KEY_STATE_ACTIVE and number.isdecimal()
    if not usable or int(number) < key.min_decrypt_version:
        return _Local(mark, NOTHING, "", None)
    version: KeyVersion = yield lambda client: client.get_key_version(version_name)
    if version.state != resources_pb2.KEY_VERSION_STATE_ENABLED:
        return _Local(mark, NOTHING, "", None)
    public: PublicKey = yield lambda client: client.get_public_key(version_name)
    expires = key.expire_time.ToNanoseconds() / 1e9 if key.HasField("expire_time") else None
    return _Local(mark, public_use(public) or NOTHING, public.key_version, expires)


class LocalKeys:
    """The public halves of keys of a vault.  Threads may share it.

    `verify`, `encrypt` and `encapsulate` take and give what those of Client do.  They are done here where that is possible, with
    every algorithm that has a public key and that the installed `cryptography` has; else, and whenever anything is unsure, by the
    vault, whose answers and errors are then given.

    A version that was disabled, scheduled for destruction, or whose key was deleted, is used here no more as soon as Watch told of
    it; while Watch is silent, at most `freshness.max_unwatched_s` after it was read; and `freshness.max_age_s` in any case.  The
    caller needs `keys.get` and `keys.get_public_key`; without them everything goes to the vault.  The vault neither records nor
    meters what is done here, nor asks its policy.
    """

    def __init__(self, client: Client, freshness: Freshness | None = None) -> None:
        self._client = client
        self._keys = _PublicKeys(freshness or Freshness())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all keys.  Idempotent; the client stays open."""
        self._keys.close()

    def verify(
        self,
        name: str,
        message: bytes | None = None,
        signature: bytes = b"",
        *,
        digest: bytes | None = None,
        signature_encoding: resources_pb2.SignatureEncoding | str | None = None,
        timeout_s: float | None = None,
    ) -> crypto_pb2.VerifyResponse:
        """Verify a signature over a message or a digest.  Raises VaultdError."""
        flow = self._keys.verify(name, message, signature, digest, signature_encoding, timeout_s)
        return run(flow, self._client)

    def encrypt(
        self, name: str, plaintext: bytes, associated_data: bytes = b"", *, timeout_s: float | None = None
    ) -> crypto_pb2.EncryptResponse:
        """Encrypt to an RSA or HPKE key; with others the vault encrypts.  Raises VaultdError."""
        return run(self._keys.encrypt(name, plaintext, associated_data, timeout_s), self._client)

    def encapsulate(self, name: str, *, timeout_s: float | None = None) -> crypto_pb2.EncapsulateResponse:
        """Make a shared secret and its encapsulation.  Raises VaultdError."""
        return run(self._keys.encapsulate(name, timeout_s), self._client)


class AsyncLocalKeys:
    """LocalKeys for AsyncClient.  What is done here runs on the event loop: microseconds, RSA about 50 of them."""

    def __init__(self, client: AsyncClient, freshness: Freshness | None = None) -> None:
        self._client = client
        self._keys = _PublicKeys(freshness or Freshness())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all keys.  Idempotent; the client stays open."""
        self._keys.close()

    async def verify(
        self,
        name: str,
        message: bytes | None = None,
        signature: bytes = b"",
        *,
        digest: bytes | None = None,
        signature_encoding: resources_pb2.SignatureEncoding | str | None = None,
        timeout_s: float | None = None,
    ) -> crypto_pb2.VerifyResponse:
        """Verify a signature over a message or a digest.  Raises VaultdError."""
        flow = self._keys.verify(name, message, signature, digest, signature_encoding, timeout_s)
        return await run_async(flow, self._client)

    async def encrypt(
        self, name: str, plaintext: bytes, associated_data: bytes = b"", *, timeout_s: float | None = None
    ) -> crypto_pb2.EncryptResponse:
        """Encrypt to an RSA or HPKE key; with others the vault encrypts.  Raises VaultdError."""
        return await run_async(self._keys.encrypt(name, plaintext, associated_data, timeout_s), self._client)

    async def encapsulate(self, name: str, *, timeout_s: float | None = None) -> crypto_pb2.EncapsulateResponse:
        """Make a shared secret and its encapsulation.  Raises VaultdError."""
        return await run_async(self._keys.encapsulate(name, timeout_s), self._client)
