"""Public keys as people use them: PEM, JWK, raw."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from vaultd.engine.algorithms import Purpose
from vaultd.errors import FailedPrecondition

if TYPE_CHECKING:
    from vaultd.engine.model import KeyVersion

_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}
_USES: Final = {Purpose.SIGN: "sig", Purpose.ASYMMETRIC_DECRYPT: "enc"}
_SHA_BITS: Final = {32: "256", 48: "384", 64: "512"}


@dataclass(frozen=True, slots=True)
class EncodedPublicKey:
    """Each form is empty where none is standardised for the algorithm."""

    pem: str
    jwk: str
    raw: bytes


def encode_public_key(version: KeyVersion) -> EncodedPublicKey:
    """Encode the public part of a version; raises FailedPrecondition when there is none."""
    if not version.algorithm.public:
        raise FailedPrecondition("NO_PUBLIC_KEY", f"{version.algorithm.name} is symmetric: it has no public key")
    if version.algorithm.name == "HPKE_MLKEM768_X25519":
        return EncodedPublicKey("", "", version.public_key)
    key = load_der_public_key(version.public_key)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    jwk = _jwk(key, version)
    raw = b"" if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) else _raw(key)
    return EncodedPublicKey(pem, orjson.dumps(jwk).decode() if jwk else "", raw)


def _raw(key: Any) -> bytes:
    return bytes(key.public_bytes_raw())


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _b64_int(value: int, size: int) -> str:
    return _b64(value.to_bytes(size, "big"))


def _jwk(key: Any, version: KeyVersion) -> dict[str, str]:
    algorithm = version.algorithm
    jwk: dict[str, str] = {}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        jwk = {
            "kty": "RSA",
            "n": _b64_int(numbers.n, key.key_size // 8),
            "e": _b64_int(numbers.e, (numbers.e.bit_length() + 7) // 8),
        }
        bits = _SHA_BITS[64 if algorithm.name.endswith("SHA512") else 32]
        names = {"PSS": f"PS{bits}", "PKCS1": f"RS{bits}", "OAEP": f"RSA-OAEP-{bits}"}
        jwk["alg"] = names[algorithm.name.split("_")[1]]
    elif isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        size = (key.key_size + 7) // 8
        jwk = {"kty": "EC", "crv": _CURVES[key.curve.name], "x": _b64_int(point.x, size), "y": _b64_int(point.y, size)}
        if algorithm.purpose is Purpose.SIGN:
            jwk["alg"] = "ES256K" if key.curve.name == "secp256k1" else f"ES{_SHA_BITS[algorithm.digest_bytes]}"
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey | x25519.X25519PublicKey):
        curve = {32: "Ed25519", 57: "Ed448"}[len(_raw(key))] if algorithm.purpose is Purpose.SIGN else "X25519"
        jwk = {"kty": "OKP", "crv": curve, "x": _b64(_raw(key))}
        if algorithm.purpose is Purpose.SIGN:
            jwk["alg"] = curve
    elif isinstance(key, mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey):
        jwk = {"kty": "AKP", "alg": algorithm.name.replace("_", "-"), "pub": _b64(_raw(key))}
    elif isinstance(key, mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey):
        return {}
    use = _USES.get(algorithm.purpose)
    if use is not None:
        jwk["use"] = use
    jwk["kid"] = version.name
    return jwk
