"""The table of algorithms: what the engine must know of each.  A new algorithm is one row here (CONTRIBUTING.md).

Names fix every parameter; how they compute is the backends' business.  docs/algorithms.md is generated from this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from vaultd.errors import InvalidArgument

KIB: Final = 1024
MAX_PLAINTEXT_BYTES: Final = 64 * KIB
RANDOM_NONCE_MESSAGES: Final = 2**32
"""A random 96-bit nonce may serve this many messages of one key (NIST SP 800-38D, section 8.3)."""


class Purpose(Enum):
    """What a key may be used for."""

    ENCRYPT_DECRYPT = "ENCRYPT_DECRYPT"
    DETERMINISTIC = "DETERMINISTIC"
    ASYMMETRIC_DECRYPT = "ASYMMETRIC_DECRYPT"
    WRAP = "WRAP"
    SIGN = "SIGN"
    MAC = "MAC"
    KEY_AGREEMENT = "KEY_AGREEMENT"
    KEM = "KEM"
    HPKE = "HPKE"


class ProtectionLevel(Enum):
    """Where key material lives."""

    SOFTWARE = "SOFTWARE"
    HSM = "HSM"
    HSM_ENVELOPE = "HSM_ENVELOPE"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm.

    max_input_bytes: largest plaintext, message or key material.  max_messages: how many messages one version may encrypt;
    None where every message has a key or a nonce space of its own.  digest_bytes: length of a digest that Sign and Verify
    take in place of the message; 0 where they take messages only.  self_describing: ciphertexts carry the header of
    docs/formats.md.  public: a public key exists.  standard: where it is specified.
    """

    name: str
    purpose: Purpose
    standard: str
    max_input_bytes: int = MAX_PLAINTEXT_BYTES
    max_messages: int | None = None
    digest_bytes: int = 0
    ec_coordinate_bytes: int = 0
    self_describing: bool = False
    public: bool = False


def _aead(
    name: str, standard: str, max_messages: int | None = None, purpose: Purpose = Purpose.ENCRYPT_DECRYPT
) -> Algorithm:
    return Algorithm(name, purpose, standard, max_messages=max_messages, self_describing=True)


def _rsa_sign(scheme: str, bits: int, digest_bytes: int) -> Algorithm:
    name = f"RSA_{scheme}_{bits}_SHA{digest_bytes * 8}"
    return Algorithm(name, Purpose.SIGN, "RFC 8017, FIPS 186-5", digest_bytes=digest_bytes, public=True)


def _rsa_oaep(bits: int, digest_bytes: int) -> Algorithm:
    limit = bits // 8 - 2 * digest_bytes - 2
    return Algorithm(
        f"RSA_OAEP_{bits}_SHA{digest_bytes * 8}",
        Purpose.ASYMMETRIC_DECRYPT,
        "RFC 8017",
        max_input_bytes=limit,
        public=True,
    )


def _ecdsa(curve: str, digest_bytes: int, coordinate_bytes: int, standard: str) -> Algorithm:
    return Algorithm(
        f"EC_{curve}_SHA{digest_bytes * 8}",
        Purpose.SIGN,
        standard,
        digest_bytes=digest_bytes,
        ec_coordinate_bytes=coordinate_bytes,
        public=True,
    )


def _public(name: str, purpose: Purpose, standard: str, max_input_bytes: int = MAX_PLAINTEXT_BYTES) -> Algorithm:
    return Algorithm(name, purpose, standard, max_input_bytes=max_input_bytes, public=True)


_ROWS: Final = (
    # Random 96-bit nonces collide too often past 2^32 messages: counted per version, see engine/usage.py.
    _aead("AES_128_GCM", "NIST SP 800-38D", RANDOM_NONCE_MESSAGES),
    _aead("AES_256_GCM", "NIST SP 800-38D", RANDOM_NONCE_MESSAGES),
    # None: every message has a key of its own, derived from a 24-byte random nonce.
    _aead("XAES_256_GCM", "C2SP XAES-256-GCM"),
    # None: derives keys per nonce and survives repeats; 2^48 messages keep the bounds of RFC 8452, section 9.
    _aead("AES_256_GCM_SIV", "RFC 8452"),
    _aead("CHACHA20_POLY1305", "RFC 8439", RANDOM_NONCE_MESSAGES),
    _aead("AES_256_SIV", "RFC 5297", purpose=Purpose.DETERMINISTIC),
    Algorithm("AES_256_KWP", Purpose.WRAP, "RFC 5649, NIST SP 800-38F", max_input_bytes=8 * KIB),
    _rsa_oaep(2048, 32),
    _rsa_oaep(3072, 32),
    _rsa_oaep(4096, 32),
    _rsa_oaep(4096, 64),
    *(_rsa_sign(scheme, bits, size) for scheme in ("PSS", "PKCS1") for bits in (2048, 3072, 4096) for size in (32, 64)),
    _ecdsa("P256", 32, 32, "FIPS 186-5"),
    _ecdsa("P384", 48, 48, "FIPS 186-5"),
    _ecdsa("P521", 64, 66, "FIPS 186-5"),
    _ecdsa("SECP256K1", 32, 32, "SEC 2"),
    _public("ED25519", Purpose.SIGN, "RFC 8032"),
    _public("ED448", Purpose.SIGN, "RFC 8032"),
    Algorithm("HMAC_SHA256", Purpose.MAC, "FIPS 198-1"),
    Algorithm("HMAC_SHA384", Purpose.MAC, "FIPS 198-1"),
    Algorithm("HMAC_SHA512", Purpose.MAC, "FIPS 198-1"),
    Algorithm("AES_256_CMAC", Purpose.MAC, "NIST SP 800-38B"),
    _public("ECDH_P256", Purpose.KEY_AGREEMENT, "NIST SP 800-56A", KIB),
    _public("ECDH_P384", Purpose.KEY_AGREEMENT, "NIST SP 800-56A", KIB),
    _public("X25519", Purpose.KEY_AGREEMENT, "RFC 7748", KIB),
    _public("ML_KEM_768", Purpose.KEM, "FIPS 203", 1088),
    _public("ML_KEM_1024", Purpose.KEM, "FIPS 203", 1568),
    _public("ML_DSA_44", Purpose.SIGN, "FIPS 204"),
    _public("ML_DSA_65", Purpose.SIGN, "FIPS 204"),
    _public("ML_DSA_87", Purpose.SIGN, "FIPS 204"),
    _public("HPKE_X25519", Purpose.HPKE, "RFC 9180"),
    _public("HPKE_MLKEM768_X25519", Purpose.HPKE, "RFC 9180, draft-ietf-hpke-pq"),
)

ALGORITHMS: Final = {row.name: row for row in _ROWS}

_DEFAULTS: Final = {
    Purpose.ENCRYPT_DECRYPT: "XAES_256_GCM",
    Purpose.DETERMINISTIC: "AES_256_SIV",
    Purpose.ASYMMETRIC_DECRYPT: "RSA_OAEP_3072_SHA256",
    Purpose.WRAP: "AES_256_KWP",
    Purpose.SIGN: "EC_P256_SHA256",
    Purpose.MAC: "HMAC_SHA256",
    Purpose.KEY_AGREEMENT: "X25519",
    Purpose.KEM: "ML_KEM_768",
    Purpose.HPKE: "HPKE_X25519",
}


def default_algorithm(purpose: Purpose, level: ProtectionLevel) -> Algorithm:
    """Choose for a caller who named only a purpose."""
    if purpose is Purpose.ENCRYPT_DECRYPT and level is ProtectionLevel.HSM:
        return ALGORITHMS["AES_256_GCM"]
    if purpose is Purpose.KEY_AGREEMENT and level is ProtectionLevel.HSM:
        return ALGORITHMS["ECDH_P256"]
    return ALGORITHMS[_DEFAULTS[purpose]]


def choose_algorithm(purpose: Purpose, name: str | None, level: ProtectionLevel) -> Algorithm:
    """Return the algorithm for a new key; raises InvalidArgument when it does not fit the purpose."""
    if name is None:
        return default_algorithm(purpose, level)
    algorithm = ALGORITHMS[name]
    if algorithm.purpose is not purpose:
        raise InvalidArgument(
            "ALGORITHM_PURPOSE_MISMATCH",
            f"{name} is an algorithm of purpose {algorithm.purpose.value}; GetCapabilities lists what fits",
            field="key.algorithm",
        )
    return algorithm
