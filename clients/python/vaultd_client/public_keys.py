"""What a public key can do by itself: verify, encrypt and encapsulate, with the bytes that the vault gives (docs/formats.md).

`public_use` makes a PublicUse of an answer of GetPublicKey, or None for an algorithm that the installed `cryptography` lacks.  Its
methods give None for anything that is not plainly right or wrong: then the vault is asked, and its answer is the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from vaultd_client.v1 import resources_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.hashes import HashAlgorithm

    from vaultd_client.v1.keys_pb2 import PublicKey

MAX_INPUT_BYTES: Final = 64 * 1024
MAX_SIGNATURE_BYTES: Final = 8 * 1024
MLKEM768_PUBLIC_BYTES: Final = 1184
_HASHES: Final[dict[str, HashAlgorithm]] = {"SHA256": SHA256(), "SHA384": SHA384(), "SHA512": SHA512()}
_COORDINATE_BYTES: Final = {"P256": 32, "SECP256K1": 32, "P384": 48, "P521": 66}


class PublicUse(NamedTuple):
    """What a public key does; None what it does not.

    verify(data, is_digest, signature, p1363) says whether a signature is right.  encrypt(plaintext, associated_data) gives a
    ciphertext.  encapsulate() gives a shared secret and its encapsulation.
    """

    verify: Callable[[bytes, bool, bytes, bool], bool | None] | None = None
    encrypt: Callable[[bytes, bytes], bytes | None] | None = None
    encapsulate: Callable[[], tuple[bytes, bytes]] | None = None


def public_use(public_key: PublicKey) -> PublicUse | None:
    """What a key can do here; None when it can do nothing here."""
    name = resources_pb2.Algorithm.Name(public_key.algorithm).removeprefix("ALGORITHM_")
    try:
        if name == "HPKE_MLKEM768_X25519":
            return _hpke_hybrid(public_key.raw)
        key: Any = load_pem_public_key(public_key.pem.encode())
        family = name.partition("_")[0]
        make = _FAMILIES.get(family)
        return None if make is None else make(key, name)
    except (ImportError, ValueError, UnsupportedAlgorithm, AttributeError):
        return None  # an older `cryptography`, or a key that it does not take: the vault does it


def _rsa(key: Any, name: str) -> PublicUse | None:
    _, scheme, _, hash_name = name.split("_")
    algorithm = _HASHES[hash_name]
    if scheme == "OAEP":
        padding, longest = OAEP(MGF1(algorithm), algorithm, None), key.key_size // 8 - 2 * algorithm.digest_size - 2

        def encrypt(plaintext: bytes, associated_data: bytes) -> bytes | None:
            if associated_data or len(plaintext) > longest:
                return None
            return key.encrypt(plaintext, padding)  # type: ignore[no-any-return]  # of any RSA key

        return PublicUse(encrypt=encrypt)
    # A salt as long as the digest, for verification too.
    signature_padding = PSS(MGF1(algorithm), algorithm.digest_size) if scheme == "PSS" else PKCS1v15()

    def check(signature: bytes, data: bytes, chosen: Any) -> None:
        key.verify(signature, data, signature_padding, chosen)

    return PublicUse(verify=_verifier(check, algorithm, algorithm, Prehashed(algorithm), 0))


def _ec(key: Any, name: str) -> PublicUse:
    _, curve, hash_name = name.split("_")
    algorithm = _HASHES[hash_name]

    def check(signature: bytes, data: bytes, chosen: Any) -> None:
        key.verify(signature, data, chosen)

    whole, prehashed = ECDSA(algorithm), ECDSA(Prehashed(algorithm))
    return PublicUse(verify=_verifier(check, algorithm, whole, prehashed, _COORDINATE_BYTES[curve]))


def _verifier(
    check: Callable[[bytes, bytes, Any], None],
    algorithm: HashAlgorithm,
    whole: Any,
    prehashed: Any,
    coordinate_bytes: int,
) -> Callable[[bytes, bool, bytes, bool], bool | None]:
    def verify(data: bytes, is_digest: bool, signature: bytes, p1363: bool) -> bool | None:
        if is_digest and len(data) != algorithm.digest_size:
            return None
        if p1363:
            if not coordinate_bytes:
                return None
            if len(signature) != 2 * coordinate_bytes:
                return False
            r, s = (
                int.from_bytes(half, "big") for half in (signature[:coordinate_bytes], signature[coordinate_bytes:])
            )
            signature = encode_dss_signature(r, s)
        try:
            check(signature, data, prehashed if is_digest else whole)
        except InvalidSignature:
            return False
        return True

    return verify


def _of_messages(key: Any, name: str) -> PublicUse:
    """Ed25519, Ed448, ML-DSA."""
    del name
    if not hasattr(key, "verify"):
        raise ValueError("no key that verifies")

    def verify(data: bytes, is_digest: bool, signature: bytes, p1363: bool) -> bool | None:
        if is_digest or p1363:
            return None
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return PublicUse(verify=verify)


def _ml(key: Any, name: str) -> PublicUse | None:
    if name.startswith("ML_DSA"):
        return _of_messages(key, name)
    return PublicUse(encapsulate=key.encapsulate)


def _hpke(key: Any, name: str) -> PublicUse:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    del name
    return _sealing(Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM), key)


def _hpke_hybrid(raw: bytes) -> PublicUse:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite

    mlkem = MLKEM768PublicKey.from_public_bytes(raw[:MLKEM768_PUBLIC_BYTES])
    key = MLKEM768X25519PublicKey(mlkem, X25519PublicKey.from_public_bytes(raw[MLKEM768_PUBLIC_BYTES:]))
    return _sealing(Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM), key)


def _sealing(suite: Any, key: Any) -> PublicUse:
    """The associated data is HPKE's `info`."""

    def encrypt(plaintext: bytes, associated_data: bytes) -> bytes | None:
        try:
            return suite.encrypt(plaintext, key, associated_data)  # type: ignore[no-any-return]  # of any suite
        except ValueError:
            return None

    return PublicUse(encrypt=encrypt)


_FAMILIES: Final[dict[str, Callable[[Any, str], PublicUse | None]]] = {
    "RSA": _rsa,
    "EC": _ec,
    "ED25519": _of_messages,
    "ED448": _of_messages,
    "ML": _ml,
    "HPKE": _hpke,
}
