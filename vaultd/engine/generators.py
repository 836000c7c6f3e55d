"""Values of secrets that nobody has to invent: passwords by rules, random bytes, key pairs.

Passwords are uniform over all that keep the rules: no modulo bias, and no place in them where a class always is.
"""

from __future__ import annotations

import os
import secrets
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass, field
from enum import Enum
from math import comb
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from vaultd.errors import InvalidArgument
from vaultd.rotators.base import Value
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MIN_PASSWORD_CHARS: Final = 8
MAX_PASSWORD_CHARS: Final = 128
MAX_RANDOM_BYTES: Final = 4_096
DEFAULT_PASSWORD_CHARS: Final = 32
DEFAULT_RANDOM_BYTES: Final = 32
CLASSES: Final[Mapping[str, str]] = {
    "lowercase": "abcdefghijklmnopqrstuvwxyz",
    "uppercase": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "digits": "0123456789",
    "symbols": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
}
"""Printable ASCII without the space, each character in one class."""
LEAST_BITS: Final = 40
"""Rules that leave less to chance than this are refused: they are a mistake, and a guess on line would do."""


@dataclass(frozen=True, slots=True)
class PasswordRules:
    """What a password is made of.

    least: class -> how many of it at least; classes that are not in it do not occur.  excluded: characters that do not occur.
    """

    length: int = DEFAULT_PASSWORD_CHARS
    least: Mapping[str, int] = field(default_factory=lambda: {"lowercase": 0, "uppercase": 0, "digits": 0})
    excluded: str = ""

    def alphabets(self) -> list[tuple[str, int]]:
        """Characters of each class that are left, and how many of it at least."""
        gone = set(self.excluded)
        return [("".join(c for c in CLASSES[name] if c not in gone), least) for name, least in self.least.items()]


class BytesEncoding(Enum):
    """How random bytes are written down."""

    RAW = "RAW"
    HEX = "HEX"
    BASE64 = "BASE64"
    BASE64URL = "BASE64URL"


@dataclass(frozen=True, slots=True)
class RandomBytesRules:
    """How many random bytes, and how they are written down.  BASE64URL is without padding (RFC 7515)."""

    length: int = DEFAULT_RANDOM_BYTES
    encoding: BytesEncoding = BytesEncoding.RAW


class KeyPairType(Enum):
    """A key pair's algorithm and size."""

    ED25519 = "ED25519"
    X25519 = "X25519"
    EC_P256 = "EC_P256"
    EC_P384 = "EC_P384"
    RSA_3072 = "RSA_3072"
    RSA_4096 = "RSA_4096"


@dataclass(frozen=True, slots=True)
class KeyPairRules:
    """Which key pair: the private key (PKCS #8, PEM) is the payload, the public one (SPKI, PEM) goes beside it."""

    type: KeyPairType = KeyPairType.ED25519


GeneratorRules = PasswordRules | RandomBytesRules | KeyPairRules


def check_rules(rules: GeneratorRules) -> None:
    """Raise InvalidArgument, GENERATOR_RULES, for rules that nothing can keep, or that leave too little to chance."""
    if isinstance(rules, RandomBytesRules):
        if not 16 <= rules.length <= MAX_RANDOM_BYTES:
            raise _bad_rules("random_bytes.length_bytes", f"must be 16 to {MAX_RANDOM_BYTES}")
    elif isinstance(rules, PasswordRules):
        if not MIN_PASSWORD_CHARS <= rules.length <= MAX_PASSWORD_CHARS:
            raise _bad_rules("password.length", f"must be {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS}")
        alphabets = rules.alphabets()
        if not alphabets or any(not alphabet for alphabet, _ in alphabets):
            raise _bad_rules("password.excluded_characters", "must leave something of each class that is asked for")
        if any(least < 0 for _, least in alphabets) or sum(least for _, least in alphabets) > rules.length:
            raise _bad_rules("password", "asks for more characters of the classes than length allows")
        if _ways(alphabets, rules.length)[0][rules.length] < 2**LEAST_BITS:
            raise _bad_rules("password", f"leaves fewer than 2^{LEAST_BITS} passwords; make it longer")


def makes_passwords(rules: GeneratorRules) -> bool:
    """Whether values are printable ASCII on one line."""
    if isinstance(rules, RandomBytesRules):
        return rules.encoding is not BytesEncoding.RAW
    return isinstance(rules, PasswordRules)


def _bad_rules(field: str, problem: str) -> InvalidArgument:
    return InvalidArgument("GENERATOR_RULES", f"{field} {problem}", field=field)


def generate(rules: GeneratorRules) -> Value:
    """A fresh value.  RSA keys take a second, and long passwords with minimums milliseconds: call it in a thread."""
    if isinstance(rules, PasswordRules):
        return Value(Secret(_password(rules).encode("ascii")), "text/plain; charset=us-ascii")
    if isinstance(rules, RandomBytesRules):
        raw = os.urandom(rules.length)
        content_type = (
            "application/octet-stream" if rules.encoding is BytesEncoding.RAW else "text/plain; charset=us-ascii"
        )
        return Value(Secret(_ENCODERS[rules.encoding](raw)), content_type)
    key = _KEY_MAKERS[rules.type]()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Value(Secret(private), "application/x-pem-file", {"public_key": public.decode("ascii")})


_ENCODERS: Final[Mapping[BytesEncoding, Callable[[bytes], bytes]]] = {
    BytesEncoding.RAW: bytes,
    BytesEncoding.HEX: lambda raw: raw.hex().encode(),
    BytesEncoding.BASE64: b64encode,
    BytesEncoding.BASE64URL: lambda raw: urlsafe_b64encode(raw).rstrip(b"="),
}
_PrivateKey = ed25519.Ed25519PrivateKey | x25519.X25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_KEY_MAKERS: Final[Mapping[KeyPairType, Callable[[], _PrivateKey]]] = {
    KeyPairType.ED25519: ed25519.Ed25519PrivateKey.generate,
    KeyPairType.X25519: x25519.X25519PrivateKey.generate,
    KeyPairType.EC_P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    KeyPairType.EC_P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    KeyPairType.RSA_3072: lambda: rsa.generate_private_key(65_537, 3_072),
    KeyPairType.RSA_4096: lambda: rsa.generate_private_key(65_537, 4_096),
}


def _password(rules: PasswordRules) -> str:
    """One of all passwords that keep the rules, each as likely as any other.

    How many characters each class gets is drawn by how many passwords have so many; then which, then where.
    """
    alphabets = rules.alphabets()
    if not any(least for _, least in alphabets):
        all_of_them = "".join(alphabet for alphabet, _ in alphabets)
        return "".join(secrets.choice(all_of_them) for _ in range(rules.length))
    left = rules.length
    chosen: list[str] = []
    ways = _ways(alphabets, left)
    for at, (alphabet, least) in enumerate(alphabets):
        ticket = secrets.randbelow(ways[at][left])
        for count in range(least, left + 1):
            ticket -= comb(left, count) * len(alphabet) ** count * ways[at + 1][left - count]
            if ticket < 0:
                break
        chosen += [secrets.choice(alphabet) for _ in range(count)]
        left -= count
    secrets.SystemRandom().shuffle(chosen)
    return "".join(chosen)


def _ways(alphabets: Sequence[tuple[str, int]], length: int) -> list[list[int]]:
    """`[at][n]`: how many strings of n characters the classes from `at` on can make and keep their minimums."""
    ways = [[1] + [0] * length]
    for alphabet, least in reversed(alphabets):
        after, size = ways[0], len(alphabet)
        counts = [
            sum(comb(n, count) * size**count * after[n - count] for count in range(least, n + 1) if after[n - count])
            for n in range(length + 1)
        ]
        ways.insert(0, counts)
    return ways
