"""RSA: OAEP encryption, PSS and PKCS#1 v1.5 signatures (RFC 8017).  Decryption with PKCS#1 v1.5 is not offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import exceptions
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_private_key

from vaultd.backends.base import Lane, OpKind
from vaultd.backends.primitives.der import check_digest, load_private_der, load_public_der, write_pair
from vaultd.backends.primitives.scheme import KeyPairScheme, check_no_context, material_mismatch, wrong_purpose
from vaultd.errors import DecryptionFailed, InvalidArgument, InvalidSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

    from vaultd.backends.base import Operation
    from vaultd.backends.primitives.scheme import Encoded

_EXPONENT = 65537
# FIPS 186-5 A.1.1: 2^16 < e < 2^256, odd.
_EXPONENT_LIMIT = 1 << 256


class RsaEncoding:
    """PKCS#8 and SubjectPublicKeyInfo of one size of modulus."""

    __slots__ = ("_modulus_bits",)
    generation_lane: Lane = Lane.KEY_GENERATION

    def __init__(self, modulus_bits: int) -> None:
        self._modulus_bits = modulus_bits

    def generate(self) -> rsa.RSAPrivateKey:
        """Make a new key with exponent 65537."""
        return rsa.generate_private_key(_EXPONENT, self._modulus_bits)

    def parse(self, material: bytes) -> rsa.RSAPrivateKey:
        """Read PKCS#8 DER; `cryptography` checks that primes and exponents belong together."""
        private = load_private_der(material)
        if not isinstance(private, rsa.RSAPrivateKey):
            raise material_mismatch("the material is not an RSA key")
        self._check(private.public_key())
        return private

    def write(self, private: rsa.RSAPrivateKey) -> Encoded:
        """Encode as PKCS#8 and SubjectPublicKeyInfo."""
        return write_pair(private)

    def write_out(self, private: rsa.RSAPrivateKey) -> Encoded:
        """The same."""
        return write_pair(private)

    def read(self, secret: bytes) -> rsa.RSAPrivateKey:
        """Read what `write` gave, without the check of `parse`: 50 to 300 ms, for bytes that were sealed by us."""
        try:
            private = load_der_private_key(secret, None, unsafe_skip_rsa_key_validation=True)
        except (ValueError, TypeError, exceptions.UnsupportedAlgorithm):
            raise material_mismatch("the material is not an unencrypted PKCS#8 key in DER") from None
        if not isinstance(private, rsa.RSAPrivateKey):
            raise material_mismatch("the material is not an RSA key")
        self._check(private.public_key())
        return private

    def read_public(self, public_key: bytes) -> rsa.RSAPublicKey:
        """Read SubjectPublicKeyInfo."""
        public = load_public_der(public_key)
        if not isinstance(public, rsa.RSAPublicKey):
            raise material_mismatch("the public key is not an RSA key")
        self._check(public)
        return public

    def _check(self, public: rsa.RSAPublicKey) -> None:
        if public.key_size != self._modulus_bits:
            raise material_mismatch(f"the algorithm takes an RSA modulus of exactly {self._modulus_bits} bits")
        exponent = public.public_numbers().e
        if not (_EXPONENT <= exponent < _EXPONENT_LIMIT and exponent % 2):
            raise material_mismatch("the public exponent must be odd, at least 65537 and below 2^256")


class OaepPrivateKey:
    """Opens RSA-OAEP."""

    __slots__ = ("_key", "_padding")

    def __init__(self, key: rsa.RSAPrivateKey, padding: OAEP) -> None:
        self._key = key
        self._padding = padding

    def perform(self, operation: Operation) -> bytes:
        """DECRYPT."""
        kind, data, context = operation
        if kind is not OpKind.DECRYPT:
            raise wrong_purpose()
        check_no_context(context)
        try:
            return self._key.decrypt(data, self._padding)
        except ValueError:
            raise DecryptionFailed from None


class OaepPublicKey:
    """Encrypts with RSA-OAEP."""

    __slots__ = ("_key", "_max_plaintext_bytes", "_padding")

    def __init__(self, key: rsa.RSAPublicKey, padding: OAEP, digest_bytes: int) -> None:
        self._key = key
        self._padding = padding
        self._max_plaintext_bytes = key.key_size // 8 - 2 * digest_bytes - 2

    def perform(self, operation: Operation) -> bytes:
        """ENCRYPT."""
        kind, data, context = operation
        if kind is not OpKind.ENCRYPT:
            raise wrong_purpose()
        check_no_context(context)
        if len(data) > self._max_plaintext_bytes:
            raise InvalidArgument(
                "PLAINTEXT_TOO_LONG", f"the algorithm encrypts at most {self._max_plaintext_bytes} bytes"
            )
        return self._key.encrypt(data, self._padding)


class RsaSigningKey:
    """Signs with one padding and one hash."""

    __slots__ = ("_hash", "_key", "_padding", "_prehashed")

    def __init__(self, key: rsa.RSAPrivateKey, padding: PSS | PKCS1v15, algorithm: HashAlgorithm) -> None:
        self._key = key
        self._padding = padding
        self._hash = algorithm
        self._prehashed = Prehashed(algorithm)

    def perform(self, operation: Operation) -> bytes:
        """SIGN_MESSAGE or SIGN_DIGEST."""
        kind, data, context = operation
        if kind is OpKind.SIGN_MESSAGE:
            check_no_context(context)
            return self._key.sign(data, self._padding, self._hash)
        if kind is OpKind.SIGN_DIGEST:
            check_no_context(context)
            check_digest(data, self._hash)
            return self._key.sign(data, self._padding, self._prehashed)
        raise wrong_purpose()


class RsaVerifyingKey:
    """Verifies with one padding, of which every parameter must match, and one hash."""

    __slots__ = ("_hash", "_key", "_padding", "_prehashed")

    def __init__(self, key: rsa.RSAPublicKey, padding: PSS | PKCS1v15, algorithm: HashAlgorithm) -> None:
        self._key = key
        self._padding = padding
        self._hash = algorithm
        self._prehashed = Prehashed(algorithm)

    def perform(self, operation: Operation) -> bytes:
        """VERIFY_MESSAGE or VERIFY_DIGEST."""
        kind, data, signature = operation
        try:
            if kind is OpKind.VERIFY_MESSAGE:
                self._key.verify(signature, data, self._padding, self._hash)
            elif kind is OpKind.VERIFY_DIGEST:
                check_digest(data, self._hash)
                self._key.verify(signature, data, self._padding, self._prehashed)
            else:
                raise wrong_purpose()
        except exceptions.InvalidSignature:
            raise InvalidSignature from None
        return b""


def rsa_oaep(modulus_bits: int, algorithm: HashAlgorithm) -> KeyPairScheme[rsa.RSAPrivateKey, rsa.RSAPublicKey]:
    """OAEP with the same hash in MGF1, and no label."""
    padding = OAEP(MGF1(algorithm), algorithm, None)
    return KeyPairScheme(
        RsaEncoding(modulus_bits),
        lambda private: OaepPrivateKey(private, padding),
        lambda public: OaepPublicKey(public, padding, algorithm.digest_size),
    )


def rsa_pss(modulus_bits: int, algorithm: HashAlgorithm) -> KeyPairScheme[rsa.RSAPrivateKey, rsa.RSAPublicKey]:
    """PSS with the same hash in MGF1, and a salt as long as the digest, for verification too."""
    return _rsa_signature(modulus_bits, PSS(MGF1(algorithm), algorithm.digest_size), algorithm)


def rsa_pkcs1(modulus_bits: int, algorithm: HashAlgorithm) -> KeyPairScheme[rsa.RSAPrivateKey, rsa.RSAPublicKey]:
    """Signatures of PKCS#1 v1.5."""
    return _rsa_signature(modulus_bits, PKCS1v15(), algorithm)


def _rsa_signature(
    modulus_bits: int, padding: PSS | PKCS1v15, algorithm: HashAlgorithm
) -> KeyPairScheme[rsa.RSAPrivateKey, rsa.RSAPublicKey]:
    return KeyPairScheme(
        RsaEncoding(modulus_bits),
        lambda private: RsaSigningKey(private, padding, algorithm),
        lambda public: RsaVerifyingKey(public, padding, algorithm),
    )
