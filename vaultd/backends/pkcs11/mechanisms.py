"""How each algorithm is done with PKCS#11: object class, key type, mechanisms.  Worker side; no cryptography of our own.

Mechanisms are those of PKCS#11 2.40, which every module has: digests are made before they come here, ECDSA signatures leave
as r || s, and KWP is the mechanism that vendors named AES_KEY_WRAP_PAD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pkcs11 import MGF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.constants import DEFAULT

from vaultd.backends.pkcs11.direct import FixedMechanism, OaepParameter, PssParameter
from vaultd.backends.pkcs11.messages import Verb

if TYPE_CHECKING:
    from vaultd.backends.pkcs11.direct import DirectSession

_OIDS: Final = {
    "P256": bytes.fromhex("06082a8648ce3d030107"),
    "P384": bytes.fromhex("06052b81040022"),
    "P521": bytes.fromhex("06052b81040023"),
    "SECP256K1": bytes.fromhex("06052b8104000a"),
}
_EDWARDS: Final = {"ED25519": b"\x13\x0cedwards25519", "ED448": b"\x13\x0aedwards448"}
# RFC 8017, section 9.2, note 1: what goes before a digest in PKCS#1 v1.5.
_DIGEST_INFO: Final = {
    "SHA256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "SHA512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_SESSION_OBJECT: Final = {Attribute.TOKEN: False, Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True}


@dataclass(frozen=True, slots=True)
class Way:
    """How one algorithm's keys look in a token, and which mechanism makes them.

    capabilities: what a private or secret key is permitted, and nothing else.  parameters: CKA_EC_PARAMS, or empty.
    """

    key_type: KeyType
    generate: Mechanism
    use: Mechanism
    capabilities: int
    bits: int = 0
    parameters: bytes = b""
    hash: str = ""
    symmetric: bool = False

    @property
    def object_class(self) -> ObjectClass:
        """Of the object that holds the key."""
        return ObjectClass.SECRET_KEY if self.symmetric else ObjectClass.PRIVATE_KEY


_SIGN = MechanismFlag.SIGN
_CIPHER = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
_WRAP = MechanismFlag.WRAP | MechanismFlag.UNWRAP


def _secret(key_type: KeyType, use: Mechanism, capabilities: int, bits: int) -> Way:
    make = Mechanism.AES_KEY_GEN if key_type is KeyType.AES else Mechanism.GENERIC_SECRET_KEY_GEN
    return Way(key_type, make, use, capabilities, bits, symmetric=True)


def _rsa(bits: int, use: Mechanism, hash: str) -> Way:
    permitted = MechanismFlag.DECRYPT if use is Mechanism.RSA_PKCS_OAEP else _SIGN
    return Way(KeyType.RSA, Mechanism.RSA_PKCS_KEY_PAIR_GEN, use, permitted, bits, hash=hash)


def _curve(name: str, use: Mechanism, capabilities: int) -> Way:
    return Way(KeyType.EC, Mechanism.EC_KEY_PAIR_GEN, use, capabilities, parameters=_OIDS[name])


def _edwards(name: str) -> Way:
    make, use = Mechanism.EC_EDWARDS_KEY_PAIR_GEN, Mechanism.EDDSA
    return Way(KeyType.EC_EDWARDS, make, use, _SIGN, parameters=_EDWARDS[name])


WAYS: Final[dict[str, Way]] = {
    "AES_128_GCM": _secret(KeyType.AES, Mechanism.AES_GCM, _CIPHER, 128),
    "AES_256_GCM": _secret(KeyType.AES, Mechanism.AES_GCM, _CIPHER, 256),
    "AES_256_KWP": _secret(KeyType.AES, Mechanism.AES_KEY_WRAP_PAD, _WRAP, 256),
    "AES_256_CMAC": _secret(KeyType.AES, Mechanism.AES_CMAC, _SIGN, 256),
    "HMAC_SHA256": _secret(KeyType.GENERIC_SECRET, Mechanism.SHA256_HMAC, _SIGN, 256),
    "HMAC_SHA384": _secret(KeyType.GENERIC_SECRET, Mechanism.SHA384_HMAC, _SIGN, 384),
    "HMAC_SHA512": _secret(KeyType.GENERIC_SECRET, Mechanism.SHA512_HMAC, _SIGN, 512),
    **{
        f"RSA_{name}_{bits}_{hash}": _rsa(bits, use, hash)
        for name, use in (("PSS", Mechanism.RSA_PKCS_PSS), ("PKCS1", Mechanism.RSA_PKCS))
        for bits in (2048, 3072, 4096)
        for hash in ("SHA256", "SHA512")
    },
    **{
        f"RSA_OAEP_{bits}_{hash}": _rsa(bits, Mechanism.RSA_PKCS_OAEP, hash)
        for bits, hash in ((2048, "SHA256"), (3072, "SHA256"), (4096, "SHA256"), (4096, "SHA512"))
    },
    "EC_P256_SHA256": _curve("P256", Mechanism.ECDSA, _SIGN),
    "EC_P384_SHA384": _curve("P384", Mechanism.ECDSA, _SIGN),
    "EC_P521_SHA512": _curve("P521", Mechanism.ECDSA, _SIGN),
    "EC_SECP256K1_SHA256": _curve("SECP256K1", Mechanism.ECDSA, _SIGN),
    "ECDH_P256": _curve("P256", Mechanism.ECDH1_DERIVE, MechanismFlag.DERIVE),
    "ECDH_P384": _curve("P384", Mechanism.ECDH1_DERIVE, MechanismFlag.DERIVE),
    "ED25519": _edwards("ED25519"),
    "ED448": _edwards("ED448"),
}
"""Algorithms that PKCS#11 can do; whether a token does, it is asked."""

SHARED_SECRET_BITS: Final = {"ECDH_P256": 256, "ECDH_P384": 384}


_DATA_SPECIFIED: Final = 1  # CKZ_DATA_SPECIFIED


def _fixed(way: Way) -> FixedMechanism:
    if way.use is Mechanism.RSA_PKCS_PSS:
        salt_bytes = int(way.hash.removeprefix("SHA")) // 8
        return FixedMechanism(way.use, PssParameter(Mechanism[way.hash], MGF[way.hash], salt_bytes))
    if way.use is Mechanism.RSA_PKCS_OAEP:
        parameter = OaepParameter(Mechanism[way.hash], MGF[way.hash], _DATA_SPECIFIED, None, 0)
        return FixedMechanism(way.use, parameter)
    return FixedMechanism(way.use)


_FIXED: Final = {
    algorithm: _fixed(way)
    for algorithm, way in WAYS.items()
    if way.use not in {Mechanism.AES_GCM, Mechanism.AES_KEY_WRAP_PAD, Mechanism.ECDH1_DERIVE}
}


def perform(direct: DirectSession, key: Any, algorithm: str, verb: Verb, arguments: list[bytes]) -> bytes:
    """Use a key: exactly one operation of the token, but for WRAP and UNWRAP, which need an object to carry the bytes.

    Raises PKCS11Error, and AttributeError when the token's object does not permit the use.
    """
    way, session = WAYS[algorithm], direct.session
    data = arguments[0]
    if verb is Verb.SIGN:
        _require(key, "sign")
        if way.use is Mechanism.RSA_PKCS:
            data = _DIGEST_INFO[way.hash] + data
        return direct.sign(key.handle, _FIXED[algorithm].address, data)
    if verb is Verb.ENCRYPT or verb is Verb.DECRYPT:
        if way.use is Mechanism.AES_GCM:
            direct.gcm.set(arguments[1], arguments[2])
            mechanism = direct.gcm.address
        else:
            mechanism = _FIXED[algorithm].address
        if verb is Verb.ENCRYPT:
            _require(key, "encrypt")
            return direct.encrypt(key.handle, mechanism, data)
        _require(key, "decrypt")
        return direct.decrypt(key.handle, mechanism, data)
    if verb is Verb.DERIVE:
        bits = SHARED_SECRET_BITS[algorithm]
        parameter = (1, None, data)  # CKD_NULL: the bare x-coordinate
        shared = key.derive_key(
            KeyType.GENERIC_SECRET,
            bits,
            mechanism=way.use,
            mechanism_param=parameter,
            capabilities=0,
            template=_SESSION_OBJECT,
        )
        return _taken(shared)
    if verb is Verb.WRAP:
        carrier = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.GENERIC_SECRET}
        carried = session.create_object({**carrier, Attribute.VALUE: data, **_SESSION_OBJECT})
        try:
            return bytes(key.wrap_key(carried, mechanism=way.use))
        finally:
            carried.destroy()
    if verb is Verb.UNWRAP:
        opened = key.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.GENERIC_SECRET,
            data,
            mechanism=way.use,
            capabilities=0,
            template=_SESSION_OBJECT,
        )
        return _taken(opened)
    raise ValueError("not a use of a key")


def _require(key: Any, use: str) -> None:
    """python-pkcs11 gives an object the methods that its attributes permit."""
    if not hasattr(key, use):
        raise AttributeError(use)


def _taken(carrier: Any) -> bytes:
    try:
        return bytes(carrier[Attribute.VALUE])
    finally:
        carrier.destroy()


def generate(session: Any, algorithm: str, object_id: bytes, label: str, *, stored: bool = True) -> tuple[Any, Any]:
    """Make a key that never leaves the token; return its secret or private object, and its public one or None."""
    way = WAYS[algorithm]
    private = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
    named: dict[str, Any] = {"id": object_id, "label": label, "store": stored, "mechanism": way.generate}
    if way.symmetric:
        key = session.generate_key(way.key_type, way.bits, capabilities=way.capabilities, template=private, **named)
        return key, None
    public = {name: False for name in (Attribute.ENCRYPT, Attribute.WRAP, Attribute.VERIFY)}
    if way.capabilities & MechanismFlag.SIGN:
        public[Attribute.VERIFY] = True
    if way.capabilities & MechanismFlag.DECRYPT:
        public[Attribute.ENCRYPT] = True
    if way.key_type is KeyType.RSA:
        made = session.generate_keypair(
            way.key_type,
            way.bits,
            capabilities=way.capabilities,
            public_template=public,
            private_template=private,
            **named,
        )
    else:
        domain = session.create_domain_parameters(way.key_type, {Attribute.EC_PARAMS: way.parameters}, local=True)
        made = domain.generate_keypair(
            capabilities=way.capabilities, public_template=public, private_template=private, **named
        )
    public_key, private_key = made
    return private_key, public_key


def unwrap_into(session: Any, algorithm: str, object_id: bytes, label: str, kek: bytes, wrapped: bytes) -> Any:
    """Import: a passing session key opens the wrapping inside the token, and what comes out never leaves it."""
    way = WAYS[algorithm]
    hidden: dict[Attribute, Any] = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
    if way.key_type is KeyType.EC_EDWARDS:
        # PKCS#11 2.40 has no PKCS#8 form of these keys to unwrap: `wrapped` is the bare private key.
        return session.create_object(
            {
                Attribute.CLASS: way.object_class,
                Attribute.KEY_TYPE: way.key_type,
                Attribute.EC_PARAMS: way.parameters,
                Attribute.VALUE: wrapped,
                Attribute.ID: object_id,
                Attribute.LABEL: label,
                Attribute.TOKEN: True,
                Attribute.SIGN: True,
                **hidden,
            }
        )
    passing = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.VALUE: kek,
            Attribute.TOKEN: False,
            Attribute.UNWRAP: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
        }
    )
    template = dict(hidden)
    if not way.symmetric:
        # python-pkcs11 writes every use into a template, and a private key knows only those that are private: DEFAULT
        # takes one out again.
        template |= dict.fromkeys((Attribute.ENCRYPT, Attribute.WRAP, Attribute.VERIFY), DEFAULT)
    try:
        return passing.unwrap_key(
            way.object_class,
            way.key_type,
            wrapped,
            id=object_id,
            label=label,
            store=True,
            mechanism=Mechanism.AES_KEY_WRAP_PAD,
            capabilities=way.capabilities,
            template=template,
        )
    finally:
        passing.destroy()
