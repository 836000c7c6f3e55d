"""The software backend: the contract, and what is particular to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from contract.backend import ALL_ALGORITHMS, SYMMETRIC_KEY_BYTES, BackendContract, outside_material, pkcs8
from vaultd.backends.base import Operation, OpKind
from vaultd.backends.software import SoftwareBackend
from vaultd.errors import InvalidArgument, ResourceExhausted
from vaultd.secret import Secret

PROTO = Path(__file__).parents[2] / "protos" / "vaultd" / "v1" / "resources.proto"


class TestSoftwareBackend(BackendContract):
    @classmethod
    async def make_backend(cls, directory: Path) -> SoftwareBackend:
        return SoftwareBackend()


@pytest.fixture
async def backend():
    backend = SoftwareBackend(threads=1, max_queued=64)
    yield backend
    await backend.close()


def test_contract_covers_every_algorithm_of_the_wire():
    on_the_wire = set(re.findall(r"^  ALGORITHM_(\w+) = \d+;", PROTO.read_text(), re.MULTILINE))
    assert on_the_wire == {*ALL_ALGORITHMS, "UNSPECIFIED"}


@pytest.mark.parametrize("algorithm", [name for name in ALL_ALGORITHMS if not name.startswith("RSA")])
async def test_symmetric_handles_alone_are_for_the_event_loop(backend, algorithm):
    material = await backend.generate(algorithm, "")
    handle = await backend.load(algorithm, material)
    assert handle.inline is (algorithm in SYMMETRIC_KEY_BYTES)
    if material.public_key:
        assert backend.load_public(algorithm, material.public_key).inline is False
    assert handle.in_turns is (handle.inline or algorithm in {"EC_P256_SHA256", "ED25519"})


async def test_symmetric_material_is_stored_as_it_came(backend):
    material = outside_material("AES_256_SIV")
    taken = await backend.import_material("AES_256_SIV", Secret(material), "")
    assert taken.secret.expose("test") == material
    assert (taken.reference, taken.public_key) == (b"", b"")


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [
        ("ED25519", ed25519.Ed25519PrivateKey.generate()),
        ("X25519", x25519.X25519PrivateKey.generate()),
        ("HPKE_X25519", x25519.X25519PrivateKey.generate()),
        ("ML_DSA_65", mldsa.MLDSA65PrivateKey.generate()),
        ("ML_KEM_768", mlkem.MLKEM768PrivateKey.generate()),
    ],
)
async def test_raw_keys_are_also_taken_in_as_pkcs8_and_stored_raw(backend, algorithm, private):
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for material in (private.private_bytes_raw(), pkcs8(private)):
        taken = await backend.import_material(algorithm, Secret(material), "")
        assert taken.secret.expose("test") == private.private_bytes_raw()
        assert taken.public_key == spki


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [
        ("ED25519", x25519.X25519PrivateKey.generate()),
        ("X25519", ed25519.Ed25519PrivateKey.generate()),
        ("ML_DSA_44", mldsa.MLDSA65PrivateKey.generate()),
        ("ML_KEM_1024", mlkem.MLKEM768PrivateKey.generate()),
        ("RSA_PSS_2048_SHA256", rsa.generate_private_key(65537, 1024)),  # noqa: S505  # it must be refused
        ("RSA_PSS_2048_SHA256", rsa.generate_private_key(65537, 2056)),
        ("RSA_PSS_2048_SHA256", rsa.generate_private_key(3, 2048)),
        ("RSA_PSS_2048_SHA256", ec.generate_private_key(ec.SECP256R1())),
        ("EC_P256_SHA256", ec.generate_private_key(ec.SECP256K1())),
        ("EC_SECP256K1_SHA256", ec.generate_private_key(ec.SECP256R1())),
    ],
)
async def test_pkcs8_of_a_near_miss_is_refused(backend, algorithm, private):
    with pytest.raises(InvalidArgument) as caught:
        await backend.import_material(algorithm, Secret(pkcs8(private)), "")
    assert caught.value.reason == "MATERIAL_MISMATCH"


async def test_encrypted_pkcs8_is_refused(backend):
    private = ec.generate_private_key(ec.SECP256R1())
    locked = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    with pytest.raises(InvalidArgument) as caught:
        await backend.import_material("EC_P256_SHA256", Secret(locked), "")
    assert caught.value.reason == "MATERIAL_MISMATCH"


async def test_private_scalar_with_the_point_of_another_is_refused(backend):
    mine, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    points = [one.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) for one in (mine, theirs)]
    with pytest.raises(InvalidArgument) as caught:
        await backend.import_material("EC_P256_SHA256", Secret(pkcs8(mine).replace(*points)), "")
    assert caught.value.reason == "MATERIAL_MISMATCH"


async def test_rsa_primes_that_are_not_of_the_modulus_are_refused(backend):
    private = rsa.generate_private_key(65537, 2048)
    prime = private.private_numbers().p.to_bytes(128, "big")
    broken = pkcs8(private).replace(prime, prime[:-1] + bytes([prime[-1] ^ 2]))
    assert broken != pkcs8(private)
    with pytest.raises(InvalidArgument) as caught:
        await backend.import_material("RSA_PSS_2048_SHA256", Secret(broken), "")
    assert caught.value.reason == "MATERIAL_MISMATCH"


async def test_rsa_public_key_with_a_small_exponent_is_refused(backend):
    public = rsa.generate_private_key(3, 2048).public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidArgument) as caught:
        backend.load_public("RSA_PSS_2048_SHA256", spki)
    assert caught.value.reason == "MATERIAL_MISMATCH"


async def test_rsa_public_key_with_an_even_exponent_is_refused(backend):
    public = rsa.generate_private_key(65537, 2048).public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki.endswith(b"\x02\x03\x01\x00\x01")
    with pytest.raises(InvalidArgument) as caught:
        backend.load_public("RSA_PSS_2048_SHA256", spki[:-1] + b"\x02")
    assert caught.value.reason == "MATERIAL_MISMATCH"


async def test_hpke_to_a_public_key_of_low_order_is_refused(backend):
    spki = x25519.X25519PublicKey.from_public_bytes(bytes(32)).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    handle = backend.load_public("HPKE_X25519", spki)
    with pytest.raises(InvalidArgument) as caught:
        await backend.use(handle, Operation(OpKind.ENCRYPT, b"x"), None)
    assert caught.value.reason == "PUBLIC_KEY"


async def test_batch_larger_than_the_queue_is_refused_at_once(backend):
    handle = await backend.load("ED25519", await backend.generate("ED25519", ""))
    work = [(handle, Operation(OpKind.SIGN_MESSAGE, b"x"))]
    assert len(await backend.use_many(work * 64, None)) == 64
    with pytest.raises(ResourceExhausted) as caught:
        await backend.use_many(work * 65, None)
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.retry_after_s > 0
    assert backend.queue_depth == 0


async def test_handle_of_another_backend_is_not_used(backend):
    class ForeignHandle:
        inline = False

        def perform(self, operation: Operation) -> bytes:
            raise AssertionError("a foreign handle was used")

    with pytest.raises(TypeError):
        await backend.use(ForeignHandle(), Operation(OpKind.SIGN_MESSAGE, b""), None)


def test_pkcs8_helper_writes_what_it_says():
    private = ed25519.Ed25519PrivateKey.generate()
    assert pkcs8(private) == private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
