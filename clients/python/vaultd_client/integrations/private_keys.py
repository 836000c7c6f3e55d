"""Private keys of the `cryptography` package whose private part is in the vault.

    key = remote_private_key(vault, "vaults/default/keys/ca")
    certificate = builder.sign(key, hashes.SHA256())

They are what `cryptography` and the libraries on it (x509 builders, PyJWT, joserfc) expect: subclasses of rsa.RSAPrivateKey,
ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey and x25519.X25519PrivateKey.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from vaultd_client.errors import UsageError
from vaultd_client.v1 import resources_pb2

if TYPE_CHECKING:
    from cryptography.hazmat.primitives._asymmetric import AsymmetricPadding

    from vaultd_client.sync import Client

Buffer = bytes | bytearray | memoryview

_DIGEST_LENGTH: Final = padding.PSS.DIGEST_LENGTH
_EXISTING: Final = frozenset(name.removeprefix("ALGORITHM_") for name in resources_pb2.Algorithm.keys())


class RemoteKey:
    """The private part of one version of a key, by what the vault does with it.

    It stays with its version when the key is rotated, since signatures must fit the public key that was handed out with it; a
    new remote_private_key() is of the new primary version.  Threads may share it.  Each use is one call, which raises VaultdError.
    """

    def __init__(self, vault: Client, name: str, algorithm: str, public_key: Any, jwk: dict[str, str]) -> None:
        self._vault = vault
        self._name = name
        self._algorithm = algorithm
        self._public_key = public_key
        self._jwk = jwk

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name} {self._algorithm}>"

    @property
    def name(self) -> str:
        """Full name of the version."""
        return self._name

    @property
    def algorithm(self) -> str:
        """Such as `RSA_PSS_3072_SHA256`: it fixes hash and padding."""
        return self._algorithm

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as a JSON Web Key (RFC 7517)."""
        return dict(self._jwk)

    @property
    def kid(self) -> str:
        """The key id of its JSON Web Key: the name of the version."""
        return self._jwk["kid"]

    def public_key(self) -> Any:
        """The public key, of `cryptography`, as it was asked for once."""
        return self._public_key

    def private_bytes(self, *_form: Any, **_named: Any) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(
            f"the private key of {self._name} stays in the vault: it signs and decrypts, and cannot be written out"
        )

    def private_bytes_raw(self) -> NoReturn:
        """Raises UsageError."""
        self.private_bytes()

    def private_numbers(self) -> NoReturn:
        """Raises UsageError."""
        self.private_bytes()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # there is one private key, and it is not here

    def _sign_digest(self, data: Buffer, algorithm: hashes.HashAlgorithm | utils.Prehashed) -> bytes:
        """Sign what was hashed here: so the size of data has no limit, and none of it travels."""
        if isinstance(algorithm, utils.Prehashed):
            digest = bytes(data)
            if len(digest) != algorithm.digest_size:
                raise ValueError(f"a digest of {algorithm.digest_size} bytes was announced, and {len(digest)} came")
        else:
            context = hashes.Hash(algorithm)
            context.update(data)
            digest = context.finalize()
        return self._vault.sign(self._name, digest=digest).signature

    def _refuse(self, asked: str, *, wanted: str = "") -> NoReturn:
        way = f"create a key of algorithm {wanted}" if wanted in _EXISTING else "no algorithm of vaultd does that"
        raise UnsupportedAlgorithm(f"{self._name} is {self._algorithm}, which fixes all parameters; for {asked} {way}")


class RemoteRSAPrivateKey(RemoteKey, rsa.RSAPrivateKey):
    """An RSA key that signs (PSS or PKCS #1 v1.5) or decrypts (OAEP), as its algorithm says."""

    @property
    def key_size(self) -> int:
        """Bits of the modulus."""
        return int(self._public_key.key_size)

    def sign(
        self,
        data: Buffer,
        padding: AsymmetricPadding,
        algorithm: hashes.HashAlgorithm | utils.Prehashed | utils.NoDigestInfo,
    ) -> bytes:
        """Raises UnsupportedAlgorithm when padding or hash are not those of the key."""
        if isinstance(algorithm, utils.NoDigestInfo):
            self._refuse("signatures without DigestInfo")
        asked = _hash_of(algorithm)
        scheme, problem = _signature_scheme(padding, asked)
        wanted = f"RSA_{scheme}_{self.key_size}_{_spelled(asked)}"
        if problem:
            self._refuse(problem)
        if wanted != self._algorithm:
            self._refuse(f"{scheme} signatures with {asked.name}", wanted=wanted)
        return self._sign_digest(data, algorithm)

    def decrypt(self, ciphertext: bytes, padding: AsymmetricPadding) -> bytes:
        """Raises UnsupportedAlgorithm when padding is not that of the key, DecryptionFailed when it does not open."""
        scheme, asked = _decryption_scheme(padding)
        wanted = f"RSA_{scheme}_{self.key_size}_{asked}"
        if wanted != self._algorithm:
            self._refuse(f"decryption with {scheme} {asked}".rstrip(), wanted=wanted)
        return self._vault.decrypt(self._name, ciphertext).plaintext


class RemoteEllipticCurvePrivateKey(RemoteKey, ec.EllipticCurvePrivateKey):
    """A key on a NIST curve, or on secp256k1, that signs or agrees on secrets, as its algorithm says."""

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        curve: ec.EllipticCurve = self._public_key.curve
        return curve

    @property
    def key_size(self) -> int:
        """Bits of the curve's order."""
        return self.curve.key_size

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """A DER signature; raises UnsupportedAlgorithm when the hash is not that of the key."""
        asked: Any = signature_algorithm.algorithm
        spelled = _spelled(_hash_of(asked))
        if not self._algorithm.startswith("EC_") or not self._algorithm.endswith(f"_{spelled}"):
            self._refuse(f"ECDSA with {_hash_of(asked).name}", wanted=f"EC_{_CURVES.get(self.curve.name)}_{spelled}")
        if getattr(signature_algorithm, "deterministic_signing", False):
            self._refuse("deterministic nonces (RFC 6979)")
        return self._sign_digest(data, asked)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """The raw shared secret, for a KDF; raises UnsupportedAlgorithm when the key signs."""
        if not self._algorithm.startswith("ECDH_"):
            self._refuse("agreement on secrets", wanted=f"ECDH_{_CURVES.get(self.curve.name)}")
        return _shared_secret(self._vault, self._name, peer_public_key)


class RemoteEd25519PrivateKey(RemoteKey, ed25519.Ed25519PrivateKey):
    """An Ed25519 key."""

    def sign(self, data: Buffer) -> bytes:
        """A signature (RFC 8032) of at most 64 KiB: Ed25519 signs no digests."""
        return self._vault.sign(self._name, bytes(data)).signature


class RemoteEd448PrivateKey(RemoteKey, ed448.Ed448PrivateKey):
    """An Ed448 key."""

    def sign(self, data: Buffer) -> bytes:
        """A signature (RFC 8032) of at most 64 KiB: Ed448 signs no digests."""
        return self._vault.sign(self._name, bytes(data)).signature


class RemoteX25519PrivateKey(RemoteKey, x25519.X25519PrivateKey):
    """An X25519 key."""

    def exchange(self, peer_public_key: x25519.X25519PublicKey) -> bytes:
        """The raw shared secret (RFC 7748), for a KDF."""
        return _shared_secret(self._vault, self._name, peer_public_key)


_CURVES: Final = {"secp256r1": "P256", "secp384r1": "P384", "secp521r1": "P521", "secp256k1": "SECP256K1"}
_CLASSES: Final[dict[type[Any], type[RemoteKey]]] = {
    rsa.RSAPublicKey: RemoteRSAPrivateKey,
    ec.EllipticCurvePublicKey: RemoteEllipticCurvePrivateKey,
    ed25519.Ed25519PublicKey: RemoteEd25519PrivateKey,
    ed448.Ed448PublicKey: RemoteEd448PrivateKey,
    x25519.X25519PublicKey: RemoteX25519PrivateKey,
}


def remote_private_key(vault: Client, name: str) -> Any:
    """The private key of a key's primary version, or of the version that is named, as an object of `cryptography`.

    One call, GetPublicKey.  Raises VaultdError, and UnsupportedAlgorithm for algorithms that `cryptography` has no such class for.
    """
    found = vault.get_public_key(name)
    algorithm = resources_pb2.Algorithm.Name(found.algorithm).removeprefix("ALGORITHM_")
    classes = _CLASSES
    if algorithm.startswith("ML_DSA_"):
        try:
            from vaultd_client.integrations.post_quantum_keys import CLASSES as classes
        except ImportError:
            raise UnsupportedAlgorithm(
                f"{found.key_version} is {algorithm}, which this cryptography does not have"
            ) from None
    if found.jwk and not algorithm.startswith("HPKE_"):
        public_key = load_pem_public_key(found.pem.encode("ascii"))
        for kind, remote in classes.items():
            if isinstance(public_key, kind):
                return remote(vault, found.key_version, algorithm, public_key, json.loads(found.jwk))
    raise UnsupportedAlgorithm(f"{found.key_version} is {algorithm}: use the methods of the client")


def _hash_of(algorithm: Any) -> hashes.HashAlgorithm:
    asked = algorithm._algorithm if isinstance(algorithm, utils.Prehashed) else algorithm
    if not isinstance(asked, hashes.HashAlgorithm):
        raise TypeError("name a hash algorithm of cryptography.hazmat.primitives.hashes")
    return asked


def _spelled(algorithm: hashes.HashAlgorithm) -> str:
    return algorithm.name.upper()


def _signature_scheme(asked: AsymmetricPadding, algorithm: hashes.HashAlgorithm) -> tuple[str, str]:
    """What the padding is called in names of algorithms, and what in it no algorithm has."""
    if isinstance(asked, padding.PKCS1v15):
        return "PKCS1", ""
    if not isinstance(asked, padding.PSS):
        raise TypeError("RSA signatures have padding PSS or PKCS1v15")
    salt = asked._salt_length
    if salt is not _DIGEST_LENGTH and salt != algorithm.digest_size:
        return "PSS", "PSS with a salt that is not as long as the digest (say salt_length=PSS.DIGEST_LENGTH)"
    if asked.mgf._algorithm.name != algorithm.name:
        return "PSS", "PSS with another hash in MGF1"
    return "PSS", ""


def _decryption_scheme(asked: AsymmetricPadding) -> tuple[str, str]:
    if not isinstance(asked, padding.OAEP):
        return "PKCS1v15", ""
    if asked._label:
        return "OAEP with a label and", _spelled(asked.algorithm)
    if asked.mgf._algorithm.name != asked.algorithm.name:
        return "OAEP with another hash in MGF1 and", _spelled(asked.algorithm)
    return "OAEP", _spelled(asked.algorithm)


def _shared_secret(vault: Client, name: str, peer_public_key: Any) -> bytes:
    peer = peer_public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return vault.derive_shared_secret(name, peer).shared_secret
