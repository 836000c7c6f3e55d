"""What a token can do, found out by trying.  Worker side.

A mechanism in a token's list says little: SoftHSM lists OAEP and does it with SHA-1 only.  So each family is tried with a
session key, which leaves nothing behind.  A token that makes no session keys is believed its list; each key is tried when it
is made, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pkcs11 import KeyType, Mechanism, exceptions

from vaultd.backends.pkcs11.mechanisms import WAYS, generate, perform
from vaultd.backends.pkcs11.messages import Verb

if TYPE_CHECKING:
    from vaultd.backends.pkcs11.direct import DirectSession

_POINTS: Final = {
    "ECDH_P256": bytes.fromhex(
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    ),
    "ECDH_P384": bytes.fromhex(
        "04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7"
        "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f"
    ),
}
"""The base points, as peers for a trial agreement."""
_DIGEST_BYTES: Final = {"SHA256": 32, "SHA384": 48, "SHA512": 64}

_NO_SESSION_KEYS: Final = (
    exceptions.SessionReadOnly,
    exceptions.TemplateInconsistent,
    exceptions.FunctionNotSupported,
    exceptions.AttributeValueInvalid,  # YubiHSM 2, of CKA_TOKEN
)
"""What a token answers that keeps every key."""

PARTIAL_KWP: Final = "multiples of 8 bytes"
"""What is said of a token whose padded key wrap does not pad as RFC 5649 does."""


def capabilities(token: Any, direct: DirectSession) -> dict[str, str]:
    """For each algorithm that cannot be used the reason, and `PARTIAL_KWP` where that is the case."""
    listed = token.slot.get_mechanisms()
    lacking: dict[str, str] = {}
    rsa: dict[int, Any] = {}
    for algorithm, way in WAYS.items():
        missing = [mechanism for mechanism in (way.generate, way.use) if mechanism not in listed]
        if missing:
            lacking[algorithm] = f"the token does not offer {_name(missing[0])}"
            continue
        if way.key_type is KeyType.RSA:
            sizes = token.slot.get_mechanism_info(way.generate)
            if not sizes.min_key_length <= way.bits <= sizes.max_key_length:
                lacking[algorithm] = f"the token makes no RSA keys of {way.bits} bits"
                continue
        reason = _try(direct, algorithm, rsa)
        if reason:
            lacking[algorithm] = reason
    return lacking


def _name(mechanism: Mechanism) -> str:
    return f"CKM_{mechanism.name}"


def _try(direct: DirectSession, algorithm: str, rsa: dict[int, Any]) -> str:
    way, session = WAYS[algorithm], direct.session
    try:
        if way.key_type is KeyType.RSA:
            # The smallest serves for all sizes, one key for all that sign: larger ones, and more of them, would take seconds.
            if way.capabilities not in rsa:
                rsa[way.capabilities] = generate(session, algorithm, b"\0", "vaultd probe", stored=False)
            key, public = rsa[way.capabilities]
        else:
            key, public = generate(session, algorithm, b"\0", "vaultd probe", stored=False)
    except _NO_SESSION_KEYS:
        return ""
    except exceptions.PKCS11Error:
        return f"the token lists {_name(way.generate)} and does not make such a key"
    try:
        return _exercise(direct, algorithm, key, public)
    except (exceptions.PKCS11Error, ValueError):
        return f"the token lists {_name(way.use)} and does not do it as this algorithm needs it"
    finally:
        if way.key_type is not KeyType.RSA:
            key.destroy()


def _exercise(direct: DirectSession, algorithm: str, key: Any, public: Any) -> str:
    way = WAYS[algorithm]
    if way.use is Mechanism.AES_GCM:
        # Two nonces, equal and not the same bytes: some HSMs draw their own and write it over the one that they were given.
        nonce, again = (bytes.fromhex("000102030405060708090a0b") for _ in range(2))
        sealed = perform(direct, key, algorithm, Verb.ENCRYPT, [b"probe", nonce, b"aad"])
        opened = perform(direct, key, algorithm, Verb.DECRYPT, [sealed, again, b"aad"])
        return "" if opened == b"probe" and len(sealed) == 21 else "the token's AES-GCM does not open what it sealed"
    if way.use is Mechanism.AES_KEY_WRAP_PAD:
        for length in (16, 9):
            data = bytes(range(length))
            wrapped = perform(direct, key, algorithm, Verb.WRAP, [data])
            if perform(direct, key, algorithm, Verb.UNWRAP, [wrapped]) != data:
                return PARTIAL_KWP if length == 9 else "the token does not unwrap what it wrapped"
        return ""
    if way.use is Mechanism.ECDH1_DERIVE:
        perform(direct, key, algorithm, Verb.DERIVE, [_POINTS[algorithm]])
        return ""
    if way.use is Mechanism.RSA_PKCS_OAEP:
        sealed = perform(direct, public, algorithm, Verb.ENCRYPT, [b"probe"])
        return "" if perform(direct, key, algorithm, Verb.DECRYPT, [sealed]) == b"probe" else "OAEP does not open"
    perform(direct, key, algorithm, Verb.SIGN, [bytes(_DIGEST_BYTES.get(algorithm.rsplit("_", 1)[-1], 32))])
    return ""
