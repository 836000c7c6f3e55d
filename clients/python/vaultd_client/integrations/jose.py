"""JSON Web Keys of a vault (RFC 7517), and keys with which JOSE libraries sign.

PyJWT takes a RemoteKey as it is; joserfc takes what joserfc_key() makes of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from vaultd_client.v1 import resources_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from vaultd_client.integrations.private_keys import RemoteKey
    from vaultd_client.sync import Client

Jwk = dict[str, str]

_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "RSA": ("e", "kty", "n"),
    "EC": ("crv", "kty", "x", "y"),
    "OKP": ("crv", "kty", "x"),
    "AKP": ("alg", "kty", "pub"),
}
"""What identifies a key, in the order of RFC 7638 (RFC 8037 for OKP)."""
_ENABLED: Final = resources_pb2.KEY_VERSION_STATE_ENABLED


def thumbprint(jwk: Mapping[str, str]) -> str:
    """The SHA-256 thumbprint of a public key (RFC 7638): a key id that says nothing about where the key is."""
    required = {member: jwk[member] for member in _REQUIRED[jwk["kty"]]}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).decode().rstrip("=")


def jwks(vault: Client, names: Iterable[str], *, kid: Callable[[Jwk], str] | None = None) -> dict[str, list[Jwk]]:
    """The JWK set of all enabled versions of keys, the newest first, for verifiers.  Ask again when a key was rotated.

    kid: makes the key id of its JWK, such as `thumbprint`; by default it is the name of the version.  Members of Ed25519 and
    Ed448 keys have no `alg`, since libraries disagree on its name (EdDSA, or RFC 9864's Ed25519).  Raises VaultdError.
    """
    keys = []
    for name in names:
        for version in reversed([one for one in _versions(vault, name) if one.state == _ENABLED]):
            jwk: Jwk = json.loads(vault.get_public_key(version.name).jwk)
            if jwk["kty"] == "OKP":
                jwk.pop("alg", None)
            if kid is not None:
                jwk["kid"] = kid(jwk)
            keys.append(jwk)
    return {"keys": keys}


def joserfc_key(key: RemoteKey, *, kid: Callable[[Jwk], str] | None = None) -> Any:
    """A key of joserfc that signs in the vault.  Its JWK is the public one, with the key id that jwks() publishes."""
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    jwk = key.jwk
    if jwk["kty"] == "OKP":
        jwk.pop("alg", None)
    if kid is not None:
        jwk["kid"] = kid(jwk)
    kinds: dict[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    return kinds[jwk["kty"]](key, jwk)


def _versions(vault: Client, name: str) -> Iterator[resources_pb2.KeyVersion]:
    token = ""
    while True:
        page = vault.list_key_versions(name, page_token=token)
        yield from page.key_versions
        token = page.next_page_token
        if not token:
            return
