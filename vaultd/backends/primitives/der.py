"""Keys in DER, PKCS#8 and SubjectPublicKeyInfo, and the check that digests and keys of several algorithms share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from cryptography.utils import CryptographyDeprecationWarning

from vaultd.backends.primitives.scheme import Encoded, material_mismatch
from vaultd.errors import InvalidArgument
from vaultd.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
    from cryptography.hazmat.primitives.hashes import HashAlgorithm
    from cryptography.hazmat.primitives.serialization import KeySerializationEncryption


class DerPublicKey(Protocol):
    """A public key that encodes itself."""

    def public_bytes(self, encoding: Encoding, format: PublicFormat) -> bytes: ...


class DerPrivateKey(Protocol):
    """A private key that encodes itself."""

    def private_bytes(
        self, encoding: Encoding, format: PrivateFormat, encryption_algorithm: KeySerializationEncryption
    ) -> bytes: ...

    def public_key(self) -> DerPublicKey: ...


def load_private_der(material: bytes) -> PrivateKeyTypes:
    """Read unencrypted PKCS#8.  Raises InvalidArgument."""
    try:
        return load_der_private_key(material, None)
    except (ValueError, TypeError, UnsupportedAlgorithm, CryptographyDeprecationWarning):
        # TypeError: the key is encrypted.  The warning: it is of a kind that is no algorithm here, such as Diffie-Hellman,
        # where warnings are errors.  None of their texts is passed on.
        raise material_mismatch("the material is not a sound, unencrypted PKCS#8 key in DER") from None


def load_public_der(public_key: bytes) -> PublicKeyTypes:
    """Read SubjectPublicKeyInfo.  Raises InvalidArgument."""
    try:
        return load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm, CryptographyDeprecationWarning):
        raise material_mismatch("the public key is not a sound SubjectPublicKeyInfo in DER") from None


def write_pair(private: DerPrivateKey) -> Encoded:
    """Encode as PKCS#8 and SubjectPublicKeyInfo."""
    secret = Secret(private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return Encoded(secret, write_public(private.public_key()))


def write_public(public: DerPublicKey) -> bytes:
    """Encode as SubjectPublicKeyInfo."""
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def check_digest(digest: bytes, algorithm: HashAlgorithm) -> None:
    """Refuse what cannot be a digest of the algorithm's hash."""
    if len(digest) != algorithm.digest_size:
        raise InvalidArgument("DIGEST_LENGTH", f"the algorithm signs digests of exactly {algorithm.digest_size} bytes")
