"""Elliptic curves in Weierstrass form: ECDSA (FIPS 186-5, SEC 2) and ECDH (NIST SP 800-56A)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import exceptions
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from vaultd.backends.base import Lane, OpKind
from vaultd.backends.primitives.der import check_digest, load_private_der, load_public_der, write_pair
from vaultd.backends.primitives.public_only import NoPublicUse
from vaultd.backends.primitives.scheme import KeyPairScheme, check_no_context, material_mismatch, wrong_purpose
from vaultd.errors import InvalidArgument, InvalidSignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

    from vaultd.backends.base import Operation
    from vaultd.backends.primitives.scheme import Encoded


class EcEncoding:
    """PKCS#8 and SubjectPublicKeyInfo on one named curve."""

    __slots__ = ("_curve",)
    generation_lane: Lane = Lane.BATCH

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self._curve = curve

    def generate(self) -> ec.EllipticCurvePrivateKey:
        """Make a new key."""
        return ec.generate_private_key(self._curve)

    def parse(self, material: bytes) -> ec.EllipticCurvePrivateKey:
        """Read PKCS#8 DER; `cryptography` refuses a public point that is not of the private scalar."""
        private = load_private_der(material)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise material_mismatch("the material is not an elliptic-curve key")
        self._check(private.curve)
        return private

    def write(self, private: ec.EllipticCurvePrivateKey) -> Encoded:
        """Encode as PKCS#8 and SubjectPublicKeyInfo."""
        return write_pair(private)

    def write_out(self, private: ec.EllipticCurvePrivateKey) -> Encoded:
        """The same."""
        return write_pair(private)

    def read(self, secret: bytes) -> ec.EllipticCurvePrivateKey:
        """Read what `write` gave."""
        return self.parse(secret)

    def read_public(self, public_key: bytes) -> ec.EllipticCurvePublicKey:
        """Read SubjectPublicKeyInfo."""
        public = load_public_der(public_key)
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise material_mismatch("the public key is not an elliptic-curve key")
        self._check(public.curve)
        return public

    def _check(self, curve: ec.EllipticCurve) -> None:
        if curve.name != self._curve.name:
            raise material_mismatch(f"the algorithm takes keys on {self._curve.name}")


class EcdsaSigningKey:
    """Signs with ECDSA; signatures are DER."""

    __slots__ = ("_hash", "_key", "_message", "_prehashed")

    def __init__(self, key: ec.EllipticCurvePrivateKey, algorithm: HashAlgorithm) -> None:
        self._key = key
        self._hash = algorithm
        self._message = ec.ECDSA(algorithm)
        self._prehashed = ec.ECDSA(Prehashed(algorithm))

    def perform(self, operation: Operation) -> bytes:
        """SIGN_MESSAGE or SIGN_DIGEST."""
        kind, data, context = operation
        if kind is OpKind.SIGN_MESSAGE:
            check_no_context(context)
            return self._key.sign(data, self._message)
        if kind is OpKind.SIGN_DIGEST:
            check_no_context(context)
            check_digest(data, self._hash)
            return self._key.sign(data, self._prehashed)
        raise wrong_purpose()


class EcdsaVerifyingKey:
    """Verifies ECDSA; OpenSSL refuses a signature that is not the one DER encoding of its numbers."""

    __slots__ = ("_hash", "_key", "_message", "_prehashed")

    def __init__(self, key: ec.EllipticCurvePublicKey, algorithm: HashAlgorithm) -> None:
        self._key = key
        self._hash = algorithm
        self._message = ec.ECDSA(algorithm)
        self._prehashed = ec.ECDSA(Prehashed(algorithm))

    def perform(self, operation: Operation) -> bytes:
        """VERIFY_MESSAGE or VERIFY_DIGEST."""
        kind, data, signature = operation
        try:
            if kind is OpKind.VERIFY_MESSAGE:
                self._key.verify(signature, data, self._message)
            elif kind is OpKind.VERIFY_DIGEST:
                check_digest(data, self._hash)
                self._key.verify(signature, data, self._prehashed)
            else:
                raise wrong_purpose()
        except exceptions.InvalidSignature:
            raise InvalidSignature from None
        return b""


class EcdhKey:
    """Agrees on the x-coordinate of the shared point."""

    __slots__ = ("_curve", "_key")

    def __init__(self, key: ec.EllipticCurvePrivateKey, curve: ec.EllipticCurve) -> None:
        self._key = key
        self._curve = curve

    def perform(self, operation: Operation) -> bytes:
        """DERIVE."""
        kind, data, context = operation
        if kind is not OpKind.DERIVE:
            raise wrong_purpose()
        check_no_context(context)
        return self._key.exchange(ec.ECDH(), read_peer(self._curve, data))


def read_peer(curve: ec.EllipticCurve, data: bytes) -> ec.EllipticCurvePublicKey:
    """Read the public key of the other side, an uncompressed point or SubjectPublicKeyInfo.  Raises InvalidArgument."""
    # Both ways of reading check that the point is on the curve, which is what invalid-curve attacks rest on.
    point_bytes = 1 + 2 * ((curve.key_size + 7) // 8)
    try:
        if len(data) == point_bytes and data[0] == 4:
            return ec.EllipticCurvePublicKey.from_encoded_point(curve, data)
        public = load_public_der(data)
    except (ValueError, InvalidArgument):
        public = None
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != curve.name:
        raise InvalidArgument(
            "PEER_PUBLIC_KEY",
            f"the peer's public key must be a point on {curve.name}: "
            f"uncompressed, {point_bytes} bytes, or SubjectPublicKeyInfo in DER",
        )
    return public


def ecdsa(
    curve: ec.EllipticCurve, algorithm: HashAlgorithm
) -> KeyPairScheme[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]:
    """ECDSA with one curve and one hash."""
    return KeyPairScheme(
        EcEncoding(curve),
        lambda private: EcdsaSigningKey(private, algorithm),
        lambda public: EcdsaVerifyingKey(public, algorithm),
    )


def ecdh(curve: ec.EllipticCurve) -> KeyPairScheme[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]:
    """ECDH with cofactor 1: every point on the curve is in the group."""
    return KeyPairScheme(EcEncoding(curve), lambda private: EcdhKey(private, curve), NoPublicUse)
