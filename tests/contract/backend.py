"""The contract of `vaultd.backends.base.Backend`, as tests that every backend passes.

A backend's own file subclasses `BackendContract`, says how to make one, and may narrow `algorithms`.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from vaultd.backends.base import Lane, Material, Operation, OpKind
from vaultd.errors import (
    DeadlineExceeded,
    DecryptionFailed,
    FailedPrecondition,
    InvalidArgument,
    InvalidSignature,
    Unavailable,
    VaultdError,
)
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vaultd.backends.base import Backend, Handle

FAMILIES: dict[str, tuple[str, ...]] = {
    "randomised_cipher": ("AES_128_GCM", "AES_256_GCM", "XAES_256_GCM", "AES_256_GCM_SIV", "CHACHA20_POLY1305"),
    "deterministic_cipher": ("AES_256_SIV",),
    "key_wrap": ("AES_256_KWP",),
    "oaep": ("RSA_OAEP_2048_SHA256", "RSA_OAEP_3072_SHA256", "RSA_OAEP_4096_SHA256", "RSA_OAEP_4096_SHA512"),
    "digest_signature": (
        *(
            f"RSA_{padding}_{bits}_SHA{digest}"
            for padding in ("PSS", "PKCS1")
            for bits in (2048, 3072, 4096)
            for digest in (256, 512)
        ),
        "EC_P256_SHA256",
        "EC_P384_SHA384",
        "EC_P521_SHA512",
        "EC_SECP256K1_SHA256",
    ),
    "message_signature": ("ED25519", "ED448", "ML_DSA_44", "ML_DSA_65", "ML_DSA_87"),
    "mac": ("HMAC_SHA256", "HMAC_SHA384", "HMAC_SHA512", "AES_256_CMAC"),
    "agreement": ("ECDH_P256", "ECDH_P384", "X25519"),
    "kem": ("ML_KEM_768", "ML_KEM_1024"),
    "hpke": ("HPKE_X25519", "HPKE_MLKEM768_X25519"),
}
CIPHERS = ("AES_256_GCM", "HPKE_X25519")
"""One that may be inline, one that never is."""
ALL_ALGORITHMS = tuple(algorithm for family in FAMILIES.values() for algorithm in family)

SYMMETRIC_KEY_BYTES = {
    "AES_128_GCM": 16,
    "AES_256_GCM": 32,
    "XAES_256_GCM": 32,
    "AES_256_GCM_SIV": 32,
    "CHACHA20_POLY1305": 32,
    "AES_256_SIV": 64,
    "AES_256_KWP": 32,
    "HMAC_SHA256": 32,
    "HMAC_SHA384": 48,
    "HMAC_SHA512": 64,
    "AES_256_CMAC": 32,
}
SEED_BYTES = {
    "ML_DSA_44": 32,
    "ML_DSA_65": 32,
    "ML_DSA_87": 32,
    "ML_KEM_768": 64,
    "ML_KEM_1024": 64,
    "HPKE_MLKEM768_X25519": 96,
}
CURVES: dict[str, ec.EllipticCurve] = {
    "EC_P256_SHA256": ec.SECP256R1(),
    "EC_P384_SHA384": ec.SECP384R1(),
    "EC_P521_SHA512": ec.SECP521R1(),
    "EC_SECP256K1_SHA256": ec.SECP256K1(),
    "ECDH_P256": ec.SECP256R1(),
    "ECDH_P384": ec.SECP384R1(),
}
DIGEST_SIGNERS = {OpKind.SIGN_MESSAGE, OpKind.SIGN_DIGEST}
DIGEST_VERIFIERS = {OpKind.VERIFY_MESSAGE, OpKind.VERIFY_DIGEST}
# What the private or symmetric handle does, and what the public one does.
KINDS: dict[str, tuple[set[OpKind], set[OpKind]]] = {
    "randomised_cipher": ({OpKind.ENCRYPT, OpKind.DECRYPT}, set()),
    "deterministic_cipher": ({OpKind.ENCRYPT, OpKind.DECRYPT}, set()),
    "key_wrap": ({OpKind.WRAP, OpKind.UNWRAP}, set()),
    "oaep": ({OpKind.DECRYPT}, {OpKind.ENCRYPT}),
    "digest_signature": (DIGEST_SIGNERS, DIGEST_VERIFIERS),
    "message_signature": ({OpKind.SIGN_MESSAGE}, {OpKind.VERIFY_MESSAGE}),
    "mac": ({OpKind.MAC, OpKind.VERIFY_MAC}, set()),
    "agreement": ({OpKind.DERIVE}, set()),
    "kem": ({OpKind.DECAPSULATE}, {OpKind.ENCAPSULATE}),
    "hpke": ({OpKind.DECRYPT}, {OpKind.ENCRYPT}),
}
MESSAGE = b"the quick brown fox jumps over the lazy dog"
CONTEXT = b"vaults/default/keys/k"


def digest_for(algorithm: str) -> bytes:
    """MESSAGE hashed as the algorithm's name says."""
    return hashlib.new(algorithm.rsplit("_", 1)[1], MESSAGE).digest()


def rsa_bits(algorithm: str) -> int:
    """The modulus size in the algorithm's name."""
    return int(algorithm.split("_")[2])


def is_rsa(algorithm: str) -> bool:
    """Whether making a key is slow."""
    return algorithm.startswith("RSA_")


def pkcs8(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """Unencrypted PKCS#8 DER."""
    return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


_RSA_MATERIAL: dict[int, bytes] = {}


def outside_material(algorithm: str) -> bytes:
    """Key material as somebody else would bring it."""
    if algorithm in SYMMETRIC_KEY_BYTES:
        return os.urandom(SYMMETRIC_KEY_BYTES[algorithm])
    if algorithm in SEED_BYTES:
        return os.urandom(SEED_BYTES[algorithm])
    if algorithm in CURVES:
        return pkcs8(ec.generate_private_key(CURVES[algorithm]))
    if is_rsa(algorithm):
        bits = rsa_bits(algorithm)
        if bits not in _RSA_MATERIAL:
            _RSA_MATERIAL[bits] = pkcs8(rsa.generate_private_key(65537, bits))
        return _RSA_MATERIAL[bits]
    raw = {
        "ED25519": ed25519.Ed25519PrivateKey,
        "ED448": ed448.Ed448PrivateKey,
        "X25519": x25519.X25519PrivateKey,
        "HPKE_X25519": x25519.X25519PrivateKey,
    }
    return raw[algorithm].generate().private_bytes_raw()


def flips(data: bytes) -> list[bytes]:
    """The data with each one of its bits inverted."""
    number = int.from_bytes(data, "big")
    return [(number ^ 1 << bit).to_bytes(len(data), "big") for bit in range(8 * len(data))]


def byte_flips(data: bytes, stride: int) -> list[bytes]:
    """The data with one bit inverted in every stride-th byte, and in the last one."""
    places = sorted({*range(0, len(data), stride), len(data) - 1})
    return [data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :] for place in places]


def cuts(data: bytes) -> list[bytes]:
    """Every proper beginning of the data, and the data with one more byte."""
    return [data[:length] for length in range(len(data))] + [data + b"\0"]


@dataclass(frozen=True)
class LoadedKey:
    """A key, both ways."""

    material: Material
    private: Handle
    public: Handle | None


class KeyCabinet:
    """Keys of a backend, generated once for a class of tests: RSA takes its time."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._keys: dict[str, LoadedKey] = {}

    async def get(self, algorithm: str) -> LoadedKey:
        """The key of this algorithm that all tests share."""
        if algorithm not in self._keys:
            self._keys[algorithm] = await self.make(algorithm)
        return self._keys[algorithm]

    async def make(self, algorithm: str) -> LoadedKey:
        """A new key."""
        return await self.load(algorithm, await self.backend.generate(algorithm, "contract"))

    async def take_in(self, algorithm: str, material: bytes) -> LoadedKey:
        """An imported key."""
        return await self.load(algorithm, await self.backend.import_material(algorithm, Secret(material), "contract"))

    async def load(self, algorithm: str, material: Material) -> LoadedKey:
        """A key, from what the store keeps of it."""
        public = self.backend.load_public(algorithm, material.public_key) if material.public_key else None
        return LoadedKey(material, await self.backend.load(algorithm, material), public)

    async def use(self, handle: Handle | None, kind: OpKind, data: bytes, context: bytes = b"") -> bytes:
        """One operation without a deadline."""
        assert handle is not None
        return await self.backend.use(handle, Operation(kind, data, context), None)

    async def fails(
        self, error: type[VaultdError], handle: Handle | None, kind: OpKind, data: bytes, context: bytes = b""
    ) -> VaultdError:
        """One operation that must fail with exactly this error, saying nothing of what was put in."""
        with pytest.raises(error) as caught:
            await self.use(handle, kind, data, context)
        assert type(caught.value) is error
        assert caught.value.__cause__ is None
        for secret in (data, context):
            assert len(secret) < 8 or repr(secret)[2:-1] not in str(caught.value)
        return caught.value


async def prove_use(keys: KeyCabinet, algorithm: str, key: LoadedKey) -> None:
    """Do with a key what it is for, there and back."""
    family = next(name for name, members in FAMILIES.items() if algorithm in members)
    if family in ("randomised_cipher", "deterministic_cipher", "oaep", "hpke"):
        context = b"" if family == "oaep" else CONTEXT
        sealed = await keys.use(key.public or key.private, OpKind.ENCRYPT, MESSAGE, context)
        assert await keys.use(key.private, OpKind.DECRYPT, sealed, context) == MESSAGE
    elif family in ("digest_signature", "message_signature"):
        signature = await keys.use(key.private, OpKind.SIGN_MESSAGE, MESSAGE)
        assert await keys.use(key.public, OpKind.VERIFY_MESSAGE, MESSAGE, signature) == b""
        await keys.fails(InvalidSignature, key.public, OpKind.VERIFY_MESSAGE, MESSAGE + b".", signature)
    elif family == "mac":
        code = await keys.use(key.private, OpKind.MAC, MESSAGE)
        assert await keys.use(key.private, OpKind.VERIFY_MAC, MESSAGE, code) == b""
    elif family == "key_wrap":
        wrapped = await keys.use(key.private, OpKind.WRAP, bytes(range(32)))
        assert await keys.use(key.private, OpKind.UNWRAP, wrapped) == bytes(range(32))
    elif family == "kem":
        made = await keys.use(key.public, OpKind.ENCAPSULATE, b"")
        assert await keys.use(key.private, OpKind.DECAPSULATE, made[32:]) == made[:32]
    else:
        other = await keys.make(algorithm)
        mine = await keys.use(key.private, OpKind.DERIVE, other.material.public_key)
        assert mine == await keys.use(other.private, OpKind.DERIVE, key.material.public_key)
        assert any(mine)


@pytest.mark.asyncio(loop_scope="class")
class BackendContract:
    """What every backend promises."""

    algorithms: ClassVar[tuple[str, ...]] = ALL_ALGORITHMS
    wrap_multiple: ClassVar[int] = 1
    """Of how many bytes key material must be to be wrapped: a token may not pad as RFC 5649 does."""
    reveals: ClassVar[bool] = True
    """Whether key material can leave at all."""

    @classmethod
    async def make_backend(cls, directory: Path) -> Backend:
        """Make a new one, that keeps what it must keep in the directory."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A test that takes `algorithm` runs for all of them; one that takes `mac`, say, for those of that family."""
        for name, members in (("algorithm", ALL_ALGORITHMS), ("cipher", CIPHERS), *FAMILIES.items()):
            if name in metafunc.fixturenames:
                metafunc.parametrize(
                    name,
                    [
                        pytest.param(member, marks=[pytest.mark.slow] if is_rsa(member) else [])
                        for member in members
                        if member in self.algorithms
                    ],
                )

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def keys(cls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KeyCabinet]:
        backend = await cls.make_backend(tmp_path_factory.mktemp("backend"))
        yield KeyCabinet(backend)
        await backend.close()

    # Support.

    async def test_supported_algorithms_are_said_to_be(self, keys: KeyCabinet) -> None:
        supported = {name for name in ALL_ALGORITHMS if keys.backend.unsupported(name) is None}
        assert supported == set(self.algorithms)

    @pytest.mark.parametrize("name", ["", "RC4", "ALGORITHM_AES_256_GCM", "aes_256_gcm", "RSA_PSS_1024_SHA256"])
    async def test_unknown_algorithm_is_refused_everywhere(self, keys: KeyCabinet, name: str) -> None:
        assert keys.backend.unsupported(name)
        with pytest.raises(InvalidArgument) as caught:
            await keys.backend.generate(name, "contract")
        assert caught.value.reason == "UNSUPPORTED_ALGORITHM"
        with pytest.raises(InvalidArgument):
            await keys.backend.import_material(name, Secret(bytes(32)), "contract")
        with pytest.raises(InvalidArgument):
            await keys.backend.load(name, Material(Secret(bytes(32)), b"", b""))
        with pytest.raises(InvalidArgument):
            keys.backend.load_public(name, b"")

    async def test_generated_key_does_what_it_is_for(self, keys: KeyCabinet, algorithm: str) -> None:
        await prove_use(keys, algorithm, await keys.get(algorithm))

    async def test_key_works_again_after_a_reload_of_its_material(self, keys: KeyCabinet, algorithm: str) -> None:
        key = await keys.get(algorithm)
        await prove_use(keys, algorithm, await keys.load(algorithm, key.material))

    async def test_two_generated_keys_differ(self, keys: KeyCabinet) -> None:
        for algorithm in ("AES_256_GCM", "EC_P256_SHA256"):
            first, second = [await keys.backend.generate(algorithm, "contract") for _ in range(2)]
            if first.secret is None or second.secret is None:
                assert first.reference != second.reference
            else:
                assert first.secret.expose("test") != second.secret.expose("test")

    async def test_operations_of_other_kinds_are_refused(self, keys: KeyCabinet, algorithm: str) -> None:
        family = next(name for name, members in FAMILIES.items() if algorithm in members)
        private_kinds, public_kinds = KINDS[family]
        key = await keys.get(algorithm)
        for kind in set(OpKind) - private_kinds:
            error = await keys.fails(InvalidArgument, key.private, kind, b"")
            assert error.reason == "WRONG_PURPOSE"
        if key.public is not None:
            for kind in set(OpKind) - public_kinds:
                error = await keys.fails(InvalidArgument, key.public, kind, b"")
                assert error.reason == "WRONG_PURPOSE"

    async def test_only_key_pairs_have_a_public_key(self, keys: KeyCabinet, algorithm: str) -> None:
        key = await keys.get(algorithm)
        assert bool(key.material.public_key) == (algorithm not in SYMMETRIC_KEY_BYTES)
        if algorithm in SYMMETRIC_KEY_BYTES:
            with pytest.raises(InvalidArgument) as caught:
                keys.backend.load_public(algorithm, bytes(32))
            assert caught.value.reason == "NO_PUBLIC_KEY"

    async def test_public_key_of_another_algorithm_is_refused(self, keys: KeyCabinet, algorithm: str) -> None:
        if algorithm in SYMMETRIC_KEY_BYTES:
            return
        other = "EC_P521_SHA512" if algorithm != "EC_P521_SHA512" else "EC_P384_SHA384"
        foreign = ec.generate_private_key(CURVES[other]).public_key()
        own = (await keys.get(algorithm)).material.public_key
        spki = foreign.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for public_key in (b"", b"junk", own[:-1], spki):
            with pytest.raises(InvalidArgument) as caught:
                keys.backend.load_public(algorithm, public_key)
            assert caught.value.reason == "MATERIAL_MISMATCH"

    # Ciphers.

    async def test_cipher_opens_what_it_sealed_at_every_size(self, keys: KeyCabinet, randomised_cipher: str) -> None:
        await self._check_cipher_sizes(keys, randomised_cipher)

    async def test_siv_opens_what_it_sealed_at_every_size(self, keys: KeyCabinet, deterministic_cipher: str) -> None:
        await self._check_cipher_sizes(keys, deterministic_cipher)

    async def _check_cipher_sizes(self, keys: KeyCabinet, algorithm: str) -> None:
        key = await keys.get(algorithm)
        for size in (0, 1, 15, 16, 17, 64, 65_536):
            for context in (b"", CONTEXT, bytes(5000)):
                plaintext = os.urandom(size)
                sealed = await keys.use(key.private, OpKind.ENCRYPT, plaintext, context)
                assert await keys.use(key.private, OpKind.DECRYPT, sealed, context) == plaintext

    async def test_same_plaintext_never_gives_the_same_ciphertext(
        self, keys: KeyCabinet, randomised_cipher: str
    ) -> None:
        key = await keys.get(randomised_cipher)
        nonce_bytes = 24 if randomised_cipher == "XAES_256_GCM" else 12
        sealed = [await keys.use(key.private, OpKind.ENCRYPT, MESSAGE, CONTEXT) for _ in range(64)]
        assert len({one[:nonce_bytes] for one in sealed}) == 64
        assert {len(one) for one in sealed} == {nonce_bytes + len(MESSAGE) + 16}

    async def test_siv_gives_the_same_ciphertext_for_the_same_input_only(
        self, keys: KeyCabinet, deterministic_cipher: str
    ) -> None:
        key = await keys.get(deterministic_cipher)
        inputs = [(MESSAGE, CONTEXT), (MESSAGE, CONTEXT), (MESSAGE, b""), (MESSAGE + b"\0", CONTEXT)]
        first, again, other_context, other_message = [
            await keys.use(key.private, OpKind.ENCRYPT, *one) for one in inputs
        ]
        assert first == again
        assert len({first, other_context, other_message}) == 3
        assert len(first) == 16 + len(MESSAGE)

    async def test_no_altered_ciphertext_opens(self, keys: KeyCabinet, randomised_cipher: str) -> None:
        await self._check_cipher_tampering(keys, randomised_cipher)

    async def test_no_altered_siv_ciphertext_opens(self, keys: KeyCabinet, deterministic_cipher: str) -> None:
        await self._check_cipher_tampering(keys, deterministic_cipher)

    async def _check_cipher_tampering(self, keys: KeyCabinet, algorithm: str) -> None:
        """Every bit of nonce, ciphertext and tag; every truncation; other contexts; another key."""
        key = await keys.get(algorithm)
        sealed = await keys.use(key.private, OpKind.ENCRYPT, MESSAGE[:16], CONTEXT)
        texts = set()
        for altered in flips(sealed) + cuts(sealed):
            texts.add(str(await keys.fails(DecryptionFailed, key.private, OpKind.DECRYPT, altered, CONTEXT)))
        for context in (b"", CONTEXT[:-1], CONTEXT + b"\0", CONTEXT.upper()):
            texts.add(str(await keys.fails(DecryptionFailed, key.private, OpKind.DECRYPT, sealed, context)))
        other = await keys.make(algorithm)
        texts.add(str(await keys.fails(DecryptionFailed, other.private, OpKind.DECRYPT, sealed, CONTEXT)))
        assert len(texts) == 1

    # Key wrapping.

    async def test_key_wrap_opens_what_it_wrapped_at_every_size(self, keys: KeyCabinet, key_wrap: str) -> None:
        key = await keys.get(key_wrap)
        for size in (size for size in (*range(1, 41), 4096, 4099) if size % self.wrap_multiple == 0):
            material = os.urandom(size)
            wrapped = await keys.use(key.private, OpKind.WRAP, material)
            assert len(wrapped) == -(-size // 8) * 8 + 8
            assert await keys.use(key.private, OpKind.UNWRAP, wrapped) == material

    async def test_no_altered_wrapping_opens(self, keys: KeyCabinet, key_wrap: str) -> None:
        key = await keys.get(key_wrap)
        for material in (one for one in (b"k", b"seven b", bytes(32)) if len(one) % self.wrap_multiple == 0):
            wrapped = await keys.use(key.private, OpKind.WRAP, material)
            for altered in flips(wrapped) + cuts(wrapped) + [wrapped + bytes(8)]:
                await keys.fails(DecryptionFailed, key.private, OpKind.UNWRAP, altered)

    async def test_nothing_cannot_be_wrapped(self, keys: KeyCabinet, key_wrap: str) -> None:
        error = await keys.fails(InvalidArgument, (await keys.get(key_wrap)).private, OpKind.WRAP, b"")
        assert error.reason == "KEY_MATERIAL_EMPTY"

    # Encryption to a public key.

    async def test_oaep_takes_its_longest_plaintext_and_no_more(self, keys: KeyCabinet, oaep: str) -> None:
        key = await keys.get(oaep)
        longest = rsa_bits(oaep) // 8 - 2 * len(digest_for(oaep)) - 2
        for size in (0, 1, longest):
            plaintext = os.urandom(size)
            sealed = await keys.use(key.public, OpKind.ENCRYPT, plaintext)
            assert len(sealed) == rsa_bits(oaep) // 8
            assert await keys.use(key.private, OpKind.DECRYPT, sealed) == plaintext
        error = await keys.fails(InvalidArgument, key.public, OpKind.ENCRYPT, bytes(longest + 1))
        assert error.reason == "PLAINTEXT_TOO_LONG"

    async def test_no_altered_oaep_ciphertext_opens(self, keys: KeyCabinet, oaep: str) -> None:
        key = await keys.get(oaep)
        sealed = await keys.use(key.public, OpKind.ENCRYPT, MESSAGE)
        size = len(sealed)
        altered = [*byte_flips(sealed, 64), b"", sealed[:-1], sealed[1:], sealed + b"\0", bytes(size), b"\xff" * size]
        texts = {str(await keys.fails(DecryptionFailed, key.private, OpKind.DECRYPT, one)) for one in altered}
        assert len(texts) == 1

    async def test_oaep_takes_no_context(self, keys: KeyCabinet, oaep: str) -> None:
        key = await keys.get(oaep)
        sealed = await keys.use(key.public, OpKind.ENCRYPT, MESSAGE)
        for error in (
            await keys.fails(InvalidArgument, key.public, OpKind.ENCRYPT, MESSAGE, CONTEXT),
            await keys.fails(InvalidArgument, key.private, OpKind.DECRYPT, sealed, CONTEXT),
        ):
            assert error.reason == "CONTEXT_NOT_SUPPORTED"

    async def test_hpke_opens_what_was_sealed_at_every_size(self, keys: KeyCabinet, hpke: str) -> None:
        key = await keys.get(hpke)
        overhead = {"HPKE_X25519": 32, "HPKE_MLKEM768_X25519": 1120}[hpke] + 16
        for size in (0, 1, 64, 65_536):
            for context in (b"", CONTEXT):
                plaintext = os.urandom(size)
                sealed = await keys.use(key.public, OpKind.ENCRYPT, plaintext, context)
                assert len(sealed) == size + overhead
                assert await keys.use(key.private, OpKind.DECRYPT, sealed, context) == plaintext

    async def test_no_altered_hpke_ciphertext_opens(self, keys: KeyCabinet, hpke: str) -> None:
        key = await keys.get(hpke)
        sealed = await keys.use(key.public, OpKind.ENCRYPT, MESSAGE, CONTEXT)
        # RFC 7748 masks the top bit of an X25519 share, but HPKE hashes the share as it was sent.
        altered = byte_flips(sealed, 7) + [sealed[:length] for length in range(0, len(sealed), 13)]
        for one in [*altered, sealed[:-1], sealed + b"\0", bytes(len(sealed))]:
            await keys.fails(DecryptionFailed, key.private, OpKind.DECRYPT, one, CONTEXT)
        for context in (b"", CONTEXT[:-1], CONTEXT + b"\0"):
            await keys.fails(DecryptionFailed, key.private, OpKind.DECRYPT, sealed, context)
        other = await keys.make(hpke)
        await keys.fails(DecryptionFailed, other.private, OpKind.DECRYPT, sealed, CONTEXT)

    # Signatures.

    async def test_message_and_digest_signatures_are_the_same_thing(
        self, keys: KeyCabinet, digest_signature: str
    ) -> None:
        key = await keys.get(digest_signature)
        digest = digest_for(digest_signature)
        of_message = await keys.use(key.private, OpKind.SIGN_MESSAGE, MESSAGE)
        of_digest = await keys.use(key.private, OpKind.SIGN_DIGEST, digest)
        for signature in (of_message, of_digest):
            assert await keys.use(key.public, OpKind.VERIFY_MESSAGE, MESSAGE, signature) == b""
            assert await keys.use(key.public, OpKind.VERIFY_DIGEST, digest, signature) == b""

    async def test_digest_of_another_length_is_refused(self, keys: KeyCabinet, digest_signature: str) -> None:
        key = await keys.get(digest_signature)
        digest = digest_for(digest_signature)
        for wrong in (b"", digest[:-1], digest + b"\0", digest[:20]):
            for handle, kind in ((key.private, OpKind.SIGN_DIGEST), (key.public, OpKind.VERIFY_DIGEST)):
                error = await keys.fails(InvalidArgument, handle, kind, wrong)
                assert error.reason == "DIGEST_LENGTH"

    async def test_no_altered_signature_of_a_digest_verifies(self, keys: KeyCabinet, digest_signature: str) -> None:
        key = await keys.get(digest_signature)
        signature = await keys.use(key.private, OpKind.SIGN_MESSAGE, MESSAGE)
        altered = [*byte_flips(signature, 9), *cuts(signature)[::17], signature[:-1], signature + b"\0"]
        for one in [*altered, b"\x30\x00", bytes(len(signature)), b"\xff" * len(signature)]:
            await keys.fails(InvalidSignature, key.public, OpKind.VERIFY_MESSAGE, MESSAGE, one)
            await keys.fails(InvalidSignature, key.public, OpKind.VERIFY_DIGEST, digest_for(digest_signature), one)
        for message in (b"", MESSAGE[:-1], MESSAGE + b"\0"):
            await keys.fails(InvalidSignature, key.public, OpKind.VERIFY_MESSAGE, message, signature)

    async def test_no_altered_signature_of_a_message_verifies(self, keys: KeyCabinet, message_signature: str) -> None:
        key = await keys.get(message_signature)
        signature = await keys.use(key.private, OpKind.SIGN_MESSAGE, MESSAGE)
        altered = [*byte_flips(signature, 37), signature[:-1], signature[1:], signature + b"\0", b""]
        for one in [*altered, bytes(len(signature))]:
            await keys.fails(InvalidSignature, key.public, OpKind.VERIFY_MESSAGE, MESSAGE, one)
        for message in (b"", MESSAGE[:-1], MESSAGE + b"\0"):
            await keys.fails(InvalidSignature, key.public, OpKind.VERIFY_MESSAGE, message, signature)
        other = await keys.make(message_signature)
        await keys.fails(InvalidSignature, other.public, OpKind.VERIFY_MESSAGE, MESSAGE, signature)

    async def test_empty_and_long_messages_are_signed(self, keys: KeyCabinet, message_signature: str) -> None:
        key = await keys.get(message_signature)
        for message in (b"", bytes(100_000)):
            signature = await keys.use(key.private, OpKind.SIGN_MESSAGE, message)
            assert await keys.use(key.public, OpKind.VERIFY_MESSAGE, message, signature) == b""

    async def test_signing_takes_no_context(self, keys: KeyCabinet, message_signature: str) -> None:
        key = await keys.get(message_signature)
        error = await keys.fails(InvalidArgument, key.private, OpKind.SIGN_MESSAGE, MESSAGE, CONTEXT)
        assert error.reason == "CONTEXT_NOT_SUPPORTED"

    # Codes.

    async def test_only_the_whole_unaltered_code_verifies(self, keys: KeyCabinet, mac: str) -> None:
        key = await keys.get(mac)
        code = await keys.use(key.private, OpKind.MAC, MESSAGE)
        for altered in flips(code) + cuts(code):
            await keys.fails(InvalidSignature, key.private, OpKind.VERIFY_MAC, MESSAGE, altered)
        for message in (b"", MESSAGE[:-1], MESSAGE + b"\0"):
            await keys.fails(InvalidSignature, key.private, OpKind.VERIFY_MAC, message, code)
        other = await keys.make(mac)
        await keys.fails(InvalidSignature, other.private, OpKind.VERIFY_MAC, MESSAGE, code)

    async def test_code_of_a_message_is_always_the_same(self, keys: KeyCabinet, mac: str) -> None:
        key = await keys.get(mac)
        for message in (b"", MESSAGE, bytes(100_000)):
            codes = {await keys.use(key.private, OpKind.MAC, message) for _ in range(3)}
            assert len(codes) == 1
            assert await keys.use(key.private, OpKind.VERIFY_MAC, message, codes.pop()) == b""

    # Agreement and encapsulation.

    async def test_both_sides_agree_however_the_peer_is_written(self, keys: KeyCabinet, agreement: str) -> None:
        mine, theirs = await keys.get(agreement), await keys.make(agreement)
        public = load_der_public_key(theirs.material.public_key)
        if isinstance(public, ec.EllipticCurvePublicKey):
            bare = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        else:
            bare = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        secrets = {
            await keys.use(mine.private, OpKind.DERIVE, theirs.material.public_key),
            await keys.use(mine.private, OpKind.DERIVE, bare),
            await keys.use(theirs.private, OpKind.DERIVE, mine.material.public_key),
        }
        assert len(secrets) == 1
        assert len(secrets.pop()) == (48 if agreement == "ECDH_P384" else 32)

    async def test_unsound_peer_is_refused(self, keys: KeyCabinet, agreement: str) -> None:
        key = await keys.get(agreement)
        own = key.material.public_key
        foreign_curve = ec.SECP256K1() if agreement == "ECDH_P256" else ec.SECP256R1()
        foreign = ec.generate_private_key(foreign_curve).public_key()
        peers = [
            b"",
            b"\0",
            b"junk",
            own[:-1],
            own + b"\0",
            bytes(32),
            b"\x01" + bytes(31),
            b"\x04" + bytes(64),
            b"\x04" + bytes(96),
            b"\x04" + b"\xff" * 64,
            b"\x06" + own[-64:],
            b"\x07" + own[-96:],
            foreign.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            foreign.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
            foreign.public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
        ]
        for peer in peers:
            error = await keys.fails(InvalidArgument, key.private, OpKind.DERIVE, peer)
            assert error.reason == "PEER_PUBLIC_KEY"

    async def test_altered_encapsulation_gives_another_secret(self, keys: KeyCabinet, kem: str) -> None:
        key = await keys.get(kem)
        made = await keys.use(key.public, OpKind.ENCAPSULATE, b"")
        secret, ciphertext = made[:32], made[32:]
        assert await keys.use(key.private, OpKind.DECAPSULATE, ciphertext) == secret
        for altered in byte_flips(ciphertext, 97):
            other = await keys.use(key.private, OpKind.DECAPSULATE, altered)
            assert len(other) == 32
            assert other != secret

    async def test_encapsulation_of_another_length_is_refused(self, keys: KeyCabinet, kem: str) -> None:
        key = await keys.get(kem)
        ciphertext = (await keys.use(key.public, OpKind.ENCAPSULATE, b""))[32:]
        for wrong in (b"", ciphertext[:-1], ciphertext + b"\0"):
            error = await keys.fails(InvalidArgument, key.private, OpKind.DECAPSULATE, wrong)
            assert error.reason == "CIPHERTEXT_LENGTH"

    async def test_encapsulations_differ_and_take_no_input(self, keys: KeyCabinet, kem: str) -> None:
        key = await keys.get(kem)
        first, second = [await keys.use(key.public, OpKind.ENCAPSULATE, b"") for _ in range(2)]
        assert first[:32] != second[:32]
        assert first[32:] != second[32:]
        error = await keys.fails(InvalidArgument, key.public, OpKind.ENCAPSULATE, b"x")
        assert error.reason == "UNEXPECTED_DATA"

    # Import.

    async def test_imported_key_does_what_it_is_for(self, keys: KeyCabinet, algorithm: str) -> None:
        key = await keys.take_in(algorithm, outside_material(algorithm))
        await prove_use(keys, algorithm, key)

    async def test_material_that_does_not_fit_is_refused(self, keys: KeyCabinet, algorithm: str) -> None:
        right = outside_material(algorithm)
        other_curve = (
            "EC_P384_SHA384" if CURVES.get(algorithm, ec.SECP256R1()).name != "secp384r1" else "EC_P256_SHA256"
        )
        for wrong in (b"", right[:-1], right + b"\0", bytes(33), outside_material(other_curve)):
            with pytest.raises(InvalidArgument) as caught:
                await keys.backend.import_material(algorithm, Secret(wrong), "contract")
            assert caught.value.reason == "MATERIAL_MISMATCH"
            assert caught.value.__cause__ is None

    # Export.

    async def test_material_leaves_so_that_it_can_come_in_again_or_not_at_all(
        self, keys: KeyCabinet, algorithm: str
    ) -> None:
        key = await keys.get(algorithm)
        if not self.reveals:
            with pytest.raises(FailedPrecondition) as caught:
                await keys.backend.reveal(algorithm, key.material)
            assert caught.value.reason == "HSM_KEY_NOT_EXPORTABLE"
            return
        revealed = await keys.backend.reveal(algorithm, key.material)
        assert revealed.public_key == key.material.public_key
        exposed = revealed.secret.expose("test")
        if algorithm not in {*SYMMETRIC_KEY_BYTES, "HPKE_MLKEM768_X25519"}:
            public = load_der_private_key(exposed, None).public_key()
            assert public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == revealed.public_key
        again = await keys.take_in(algorithm, exposed)
        assert again.material.public_key == key.material.public_key
        assert (await keys.backend.reveal(algorithm, again.material)).secret.expose("test") == exposed

    # Batches, deadlines, lanes, the end.

    async def test_batch_answers_in_order_and_items_fail_by_themselves(self, keys: KeyCabinet) -> None:
        cipher = (await keys.get("AES_256_GCM")).private
        signer = await keys.get("EC_P256_SHA256")
        sealed = await keys.use(cipher, OpKind.ENCRYPT, MESSAGE, CONTEXT)
        assert signer.public is not None
        signature = await keys.use(signer.private, OpKind.SIGN_MESSAGE, MESSAGE)
        work: list[tuple[Handle, Operation]] = []
        for index in range(300):
            work += [
                (cipher, Operation(OpKind.DECRYPT, sealed if index != 7 else sealed[:-1], CONTEXT)),
                (signer.private, Operation(OpKind.SIGN_DIGEST, bytes(32) if index != 8 else bytes(31))),
                (signer.public, Operation(OpKind.VERIFY_MESSAGE, MESSAGE if index != 9 else b"", signature)),
            ]
        outcomes = await keys.backend.use_many(work, None)
        failures = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, VaultdError)}
        assert {index: type(failure) for index, failure in failures.items()} == {
            7 * 3: DecryptionFailed,
            8 * 3 + 1: InvalidArgument,
            9 * 3 + 2: InvalidSignature,
        }
        assert {outcomes[index] for index in range(0, 900, 3) if index not in failures} == {MESSAGE}
        assert {outcomes[index] for index in range(2, 900, 3) if index not in failures} == {b""}
        signatures = [outcomes[index] for index in range(1, 900, 3) if index not in failures]
        checks = [(signer.public, Operation(OpKind.VERIFY_DIGEST, bytes(32), one)) for one in signatures]  # type: ignore[arg-type]  # failures were sorted out
        assert await keys.backend.use_many(checks, None) == [b""] * 299

    async def test_batch_keeps_each_item_with_its_own_answer(self, keys: KeyCabinet) -> None:
        cipher = (await keys.get("AES_256_GCM")).private
        key = await keys.get("HPKE_X25519" if "HPKE_X25519" in self.algorithms else "AES_128_GCM")
        texts = [b"%d" % index for index in range(100)]
        sealed = await keys.backend.use_many(
            [
                (handle, Operation(OpKind.ENCRYPT, text))
                for text in texts
                for handle in (cipher, key.public or key.private)
            ],
            None,
        )
        work = [
            ((cipher, key.private)[index % 2], Operation(OpKind.DECRYPT, one))
            for index, one in enumerate(sealed)
            if isinstance(one, bytes)
        ]
        assert await keys.backend.use_many(work, None) == [text for text in texts for _ in range(2)]

    async def test_empty_batch_has_no_answers(self, keys: KeyCabinet) -> None:
        assert await keys.backend.use_many([], None) == []

    async def test_nothing_begins_after_its_deadline(self, keys: KeyCabinet, cipher: str) -> None:
        key = await keys.get(cipher)
        operation = Operation(OpKind.ENCRYPT, MESSAGE)
        handle = key.public or key.private
        past = time.monotonic() - 0.001
        with pytest.raises(DeadlineExceeded):
            await keys.backend.use(handle, operation, past)
        with pytest.raises(DeadlineExceeded):
            await keys.backend.use_many([(handle, operation)] * 3, past)

    @pytest.mark.parametrize("lane", list(Lane))
    async def test_every_lane_gets_through_before_a_late_deadline(
        self, keys: KeyCabinet, cipher: str, lane: Lane
    ) -> None:
        key = await keys.get(cipher)
        deadline = time.monotonic() + 60
        operation = Operation(OpKind.ENCRYPT, MESSAGE, CONTEXT)
        sealed = await keys.backend.use(key.public or key.private, operation, deadline, lane)
        opened = await keys.backend.use(key.private, Operation(OpKind.DECRYPT, sealed, CONTEXT), deadline, lane)
        assert opened == MESSAGE

    async def test_key_may_be_destroyed_twice(self, keys: KeyCabinet) -> None:
        material = await keys.backend.generate("AES_256_GCM", "contract")
        await keys.backend.destroy(material)
        await keys.backend.destroy(material)
        await prove_use(keys, "AES_256_GCM", await keys.get("AES_256_GCM"))

    async def test_random_bytes_have_their_length_and_differ(self, keys: KeyCabinet) -> None:
        for length in (0, 1, 32, 1024):
            assert len(await keys.backend.random_bytes(length)) == length
        assert len({await keys.backend.random_bytes(16) for _ in range(100)}) == 100

    async def test_closed_backend_is_unavailable(self, tmp_path: Path) -> None:
        backend = await self.make_backend(tmp_path)
        material = await backend.generate("EC_P256_SHA256", "contract")
        handle = await backend.load("EC_P256_SHA256", material)
        await backend.close()
        await backend.close()
        with pytest.raises(Unavailable):
            await backend.use(handle, Operation(OpKind.SIGN_MESSAGE, MESSAGE), None)
        with pytest.raises(Unavailable):
            await backend.use_many([(handle, Operation(OpKind.SIGN_MESSAGE, MESSAGE))], None)

    async def test_material_and_handles_print_no_secret(self, keys: KeyCabinet, algorithm: str) -> None:
        key = await keys.take_in(algorithm, material := outside_material(algorithm))
        shown = "".join(repr(one) + str(one) for one in (key.material, key.private, key.public))
        if algorithm in CURVES:
            private = load_der_private_key(material, None)
            assert isinstance(private, ec.EllipticCurvePrivateKey)
            scalar = private.private_numbers().private_value
            sensitive = scalar.to_bytes((private.key_size + 7) // 8, "big")
        else:
            sensitive = material[-32:]
        for form in (repr(sensitive)[2:-1], sensitive.hex(), repr(material)[2:-1]):
            assert form not in shown
