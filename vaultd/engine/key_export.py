"""Export: a version's material leaves, wrapped to a recipient's public key.  Only keys that were made `exportable` do this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.utils import CryptographyDeprecationWarning

from vaultd.backends.base import Material
from vaultd.engine.algorithms import ProtectionLevel
from vaultd.engine.catalog import below_minimum, key_not_found, no_backend, version_not_found
from vaultd.engine.key_reads import key_deleted
from vaultd.engine.key_wrapping import KeyWrapping, WrappingMethod
from vaultd.engine.model import ExportedKey, Key, KeyState, KeyVersion, VersionState
from vaultd.errors import FailedPrecondition, InvalidArgument
from vaultd.names import parse_version_name
from vaultd.store.base import RowKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.backends.base import Backend
    from vaultd.engine.ledger import Changes, Intent, Ledger, OpenRow
    from vaultd.names import KeyRef

_X25519_BYTES: Final = 32


def export_info(version_name: str) -> bytes:
    """HPKE's `info` of an exported version."""
    return b"vaultd key export v1 " + version_name.encode("ascii")


def read_recipient(method: WrappingMethod, pem: str, raw: bytes) -> bytes:
    """The recipient's public key as `KeyWrapping.wrap` takes it.  Raises InvalidArgument, PUBLIC_KEY_MISMATCH."""
    takes_raw = method in {WrappingMethod.HPKE_X25519, WrappingMethod.HPKE_MLKEM768_X25519}
    if bool(pem) == bool(raw) or (raw and not takes_raw):
        raise _mismatch("public_key_pem or, for HPKE, public_key_raw must be given, and not both")
    if method is WrappingMethod.HPKE_MLKEM768_X25519:
        if not raw:
            raise _mismatch("HPKE_MLKEM768_X25519 takes public_key_raw")
        return raw
    if raw:
        if len(raw) != _X25519_BYTES:
            raise _mismatch("public_key_raw of HPKE_X25519 must be 32 bytes")
        key = X25519PublicKey.from_public_bytes(raw)
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        read = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm, CryptographyDeprecationWarning):
        raise _mismatch("public_key_pem is not a sound SubjectPublicKeyInfo in PEM") from None
    return read.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _mismatch(text: str) -> InvalidArgument:
    return InvalidArgument("PUBLIC_KEY_MISMATCH", text, field="public_key_pem")


class KeyExport:
    """Wraps versions of exportable keys for others."""

    def __init__(self, ledger: Ledger, backends: Mapping[ProtectionLevel, Backend], wrapping: KeyWrapping) -> None:
        self._ledger = ledger
        self._backends = backends
        self._wrapping = wrapping

    async def export(self, intent: Intent, ref: KeyRef, method: WrappingMethod, recipient: bytes) -> ExportedKey:
        """The material of a version (of a key: its primary one), wrapped.

        With a request id the answer is kept, sealed, and given again as long as that version may be exported.

        Raises NotFound; FailedPrecondition: HSM_KEY_NOT_EXPORTABLE, KEY_NOT_EXPORTABLE, and what a use of the version would
        raise; InvalidArgument, PUBLIC_KEY_MISMATCH.
        """
        known, answer = await self._ledger.answered(intent)
        if known:
            return await self._given_again(answer)
        key = _key_in(await self._ledger.read(RowKey("key", ref.vault, ref.key, 0)))
        at = RowKey("key_version", ref.vault, ref.key, ref.version or key.primary)
        version, row = _version_in(await self._ledger.read(at))
        backend = self._backends.get(key.protection_level)
        if backend is None:
            raise no_backend(key.protection_level)
        if (
            key.protection_level is not ProtectionLevel.HSM
        ):  # of those the backend says why not, which no field can change
            _require_exportable(key, version)
        secret = self._ledger.sealer.open_secret(row.row) if row.row.secret is not None else None
        material = Material(secret, version.reference, version.public_key)
        revealed = await backend.reveal(key.algorithm.name, material)
        wrapped = await self._wrapping.wrap(method, recipient, revealed.secret, export_info(version.name))

        fresh = False

        async def body(changes: Changes) -> ExportedKey:
            nonlocal fresh
            # Once more, in the order of all changes: nothing leaves after a DisableKeyVersion that was acknowledged.
            now = _key_in(await changes.get(RowKey("key", ref.vault, ref.key, 0)))
            _require_exportable(now, _version_in(await changes.get(at))[0])
            fresh = True
            return ExportedKey(version.name, version.algorithm, method.value, wrapped)

        exported = await self._ledger.mutate(intent, body)
        return exported if fresh else await self._given_again(exported)

    async def _given_again(self, stored: ExportedKey) -> ExportedKey:
        """A stored answer, unless its version may not be exported any more; raises as `export` does."""
        ref = parse_version_name(stored.version_name)
        key = _key_in(await self._ledger.read(RowKey("key", ref.vault, ref.key, 0)))
        found = await self._ledger.read(RowKey("key_version", ref.vault, ref.key, ref.version))
        _require_exportable(key, _version_in(found)[0])
        return stored


def _key_in(found: OpenRow | None) -> Key:
    if found is None or found.row.state == KeyState.PURGED.value:
        raise key_not_found()
    key: Key = found.resource()
    if key.state is not KeyState.ACTIVE:
        raise key_deleted()
    return key


def _version_in(found: OpenRow | None) -> tuple[KeyVersion, OpenRow]:
    if found is None:
        raise version_not_found()
    return found.resource(), found


def _require_exportable(key: Key, version: KeyVersion) -> None:
    if not key.exportable:
        raise FailedPrecondition(
            "KEY_NOT_EXPORTABLE", "the key was not made `exportable`, which cannot be changed; its material stays here"
        )
    if version.state is not VersionState.ENABLED:
        raise FailedPrecondition(
            f"KEY_VERSION_{version.state.value}",
            f"the key version is {version.state.value}; only an ENABLED one is exported",
        )
    if version.number < key.min_decrypt:
        raise below_minimum()
