"""Signed tokens (JWS, RFC 7515) and their keys (JWK, RFC 7517), read strictly; the signature itself is joserfc's to verify.

What a token says of itself chooses nothing but an entry of a table that the configuration and the issuer filled: its `alg` must
be one that the issuer may use and that fits the key, its `kid` must name a key of the issuer, and headers that bring a key or
change how the token is read (`jwk`, `jku`, `x5u`, `x5c`, `crit`, `b64` and those of encryption) are refused.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from joserfc import jwk, jws
from joserfc.errors import JoseError

from vaultd.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from joserfc._rfc7515.model import JWSAlgModel

MAX_TOKEN_CHARS: Final = 6 * 1024
"""What fits beside other headers into the 8 KiB of metadata that the transport takes for sure."""
MAX_JWKS_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 100
MAX_KID_CHARS: Final = 256
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_FITTING: Final = {
    ("RSA", ""): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""Which algorithms a key is for, by its type and curve.  Symmetric keys are for none."""
_REFUSED: Final = frozenset(
    {"jku", "jwk", "x5u", "x5c", "crit", "b64", "enc", "zip", "epk", "apu", "apv", "iv", "tag", "p2s", "p2c"}
)
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_PART: Final = re.compile(r"[A-Za-z0-9_-]+")


class JwksError(Exception):
    """A key set cannot be used.  The text says why."""


@dataclass(frozen=True, slots=True, eq=False)
class VerificationKey:
    """A public key of an issuer, and the algorithms that it may be used with."""

    kid: str
    algorithms: frozenset[str]
    thumbprint: str
    key: Any


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A well-formed token.  Nothing in it is true before `verify_signature`."""

    text: str
    algorithm: str
    kid: str
    claims: Mapping[str, Any]


class _Registry(jws.JWSRegistry):
    """The algorithms of `_FITTING`, without joserfc's warnings: which of them to allow is the configuration's decision."""

    def get_alg(self, name: str) -> JWSAlgModel:
        return self.algorithms[name]


_REGISTRY: Final = _Registry(strict_check_header=False)


def parse_token(text: str) -> UnverifiedToken:
    """Take a token apart; raises Unauthenticated."""
    if len(text) > MAX_TOKEN_CHARS:
        raise Unauthenticated("TOKEN_TOO_LARGE", f"the token must be at most {MAX_TOKEN_CHARS:,} characters")
    parts = text.split(".")
    if len(parts) != 3:
        raise _malformed()
    try:
        header, claims = (_strict_json(_decode(part)) for part in parts[:2])
        if parts[2]:  # without one it is refused as well, but for its algorithm or for its signature
            _decode(parts[2])
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise _malformed()
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not _REFUSED.isdisjoint(header):
        raise Unauthenticated(
            "TOKEN_HEADER_REFUSED",
            "the token's header brings a key, or names an extension or an encryption, and that is not accepted",
        )
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Unauthenticated(
            "TOKEN_HEADER_REFUSED", "the token's header says that it is no JWT for access or identity"
        )
    if not isinstance(algorithm, str):
        raise bad_algorithm()
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARS:
        kid = ""
    return UnverifiedToken(text, algorithm, kid, claims)


def verify_signature(token: UnverifiedToken, key: VerificationKey) -> None:
    """Raise Unauthenticated unless the key signed the token."""
    if token.algorithm not in key.algorithms:
        raise bad_algorithm()
    try:
        jws.deserialize_compact(token.text, key.key, algorithms=[token.algorithm], registry=_REGISTRY)
    except (JoseError, ValueError, TypeError):
        raise Unauthenticated(
            "TOKEN_SIGNATURE", "the token's signature does not verify with its issuer's key"
        ) from None


def bad_algorithm() -> Unauthenticated:
    """The refusal of `none`, of HMAC, and of what the issuer or the key is not for."""
    return Unauthenticated(
        "TOKEN_ALGORITHM", "the token's algorithm is not one that its issuer and its key are configured for"
    )


def parse_jwks(content: bytes, algorithms: Collection[str]) -> dict[str, VerificationKey]:
    """Read a key set; keys that no allowed algorithm fits are left out.  Raises JwksError, also when none is left."""
    if len(content) > MAX_JWKS_BYTES:
        raise JwksError(f"it is larger than {MAX_JWKS_BYTES:,} bytes")
    try:
        document = _strict_json(content)
    except (ValueError, RecursionError):
        raise JwksError("it is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise JwksError(f"it is not a key set of at most {MAX_KEYS} keys")
    found: dict[str, VerificationKey] = {}
    for entry in entries:
        key = _verification_key(entry, algorithms) if isinstance(entry, dict) else None
        if key is None:
            continue
        if key.kid in found:
            raise JwksError("two keys have one kid")
        found[key.kid] = key
    if not found:
        raise JwksError("it has no public signature key with a kid that fits an allowed algorithm")
    return found


def _verification_key(entry: dict[str, Any], algorithms: Collection[str]) -> VerificationKey | None:
    kid, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    fitting = _FITTING.get((str(entry.get("kty")), str(entry.get("crv", ""))), ())
    allowed = frozenset(name for name in fitting if name in algorithms and entry.get("alg", name) == name)
    if (
        not allowed
        or not isinstance(kid, str)
        or not 0 < len(kid) <= MAX_KID_CHARS
        or entry.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or "d" in entry  # a private key that was published is nobody's any more
    ):
        return None
    try:
        public: dict[str, Any] = {name: entry[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in entry}
        if entry["kty"] == "RSA":
            bits = int.from_bytes(_decode(entry["n"])).bit_length()
            if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
                return None
        key: Any = jwk.import_key(public)
        return VerificationKey(kid, allowed, key.thumbprint(), key)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _malformed() -> Unauthenticated:
    return Unauthenticated("TOKEN_MALFORMED", "the token is not a signed JWT in its compact form")


def _decode(part: str) -> bytes:
    """Decode base64url in its one spelling; raises ValueError."""
    if not _PART.fullmatch(part):
        raise ValueError
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise ValueError
    return decoded


def _strict_json(content: bytes) -> Any:
    """Parse JSON in which no name appears twice and every number is one; raises ValueError, RecursionError."""
    return json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError
    return values


def _no_constant(name: str) -> None:
    del name
    raise ValueError
