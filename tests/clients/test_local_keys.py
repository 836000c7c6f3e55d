"""Public keys that are used here: with the server's answers, errors and bytes, and no longer than the server would use them."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import count

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from sdk_rig import PATIENT, VAULT, Audit, async_client, sync_client
from test_envelope import Told, live

from harness import running_server
from vaultd_client import AsyncLocalKeys, FailedPrecondition, LocalKeys, NotFound, PermissionDenied, VaultdError
from vaultd_client.v1 import resources_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")
DIGESTS = {"SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}
NAMES = [name.removeprefix("ALGORITHM_") for name in resources_pb2.Algorithm.keys()]
SIGNING = [
    name for name in NAMES if name.startswith(("RSA_PSS", "RSA_PKCS1", "EC_", "ED", "ML_DSA")) and "4096" not in name
]
ENCRYPTING = [name for name in NAMES if name.startswith(("RSA_OAEP", "HPKE")) and "4096" not in name]
ENCAPSULATING = [name for name in NAMES if name.startswith("ML_KEM")]
PURPOSES = {"RSA_OAEP": "ASYMMETRIC_DECRYPT", "HPKE": "HPKE", "ML_KEM": "KEM"}
KEYS = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("local"), **PATIENT) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def admin(server):
    async with async_client(server, "admin") as client:
        await live(client)
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def local(admin):
    async with AsyncLocalKeys(admin) as local:
        yield local


async def make(admin, algorithm: str, **fields) -> str:
    purpose = next((purpose for begin, purpose in PURPOSES.items() if algorithm.startswith(begin)), "SIGN")
    key = {"purpose": f"KEY_PURPOSE_{purpose}", "algorithm": f"ALGORITHM_{algorithm}", **fields}
    return (await admin.create_key(VAULT, f"local-{next(KEYS)}", key)).name


async def outcome(call):
    """An answer's bytes, or what kind of error and why."""
    try:
        return (await call).SerializeToString()
    except VaultdError as error:
        return type(error), error.reason


READ = ["GetKey", "GetKeyVersion", "GetPublicKey"]


def calls(audit: Audit) -> list[str]:
    return [method for method in audit.methods() if method != "Watch"]


def uses(audit: Audit) -> list[str]:
    return [method for method in calls(audit) if method not in READ]


# -- the same answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", SIGNING)
async def test_signatures_are_verified_here_as_there(server, admin, local, algorithm):
    key = await make(admin, algorithm)
    encodings = [None, "SIGNATURE_ENCODING_DER", *(["SIGNATURE_ENCODING_P1363"] if algorithm.startswith("EC_") else [])]
    digest = hashlib.new(DIGESTS[algorithm.rpartition("_")[2]], b"m").digest() if "SHA" in algorithm else None
    cases = []
    for encoding in encodings:
        right = (await admin.sign(key, b"m", signature_encoding=encoding)).signature
        flipped = right[:-1] + bytes([right[-1] ^ 1])
        for signature in (right, flipped, right[:-1], right + b"\0", b"\0" * len(right), b"x"):
            for message in (b"m", b"n", b""):
                cases.append(({"message": message}, signature, encoding))
            if digest is not None:
                cases.append(({"digest": digest}, signature, encoding))
    audit = Audit(server)
    here = [
        await outcome(local.verify(key, **data, signature=signature, signature_encoding=encoding))
        for data, signature, encoding in cases
    ]
    assert uses(audit) == []
    there = await asyncio.gather(
        *(
            outcome(admin.verify(key, **data, signature=signature, signature_encoding=encoding))
            for data, signature, encoding in cases
        )
    )
    assert here == list(there)
    assert b"\x08\x01" in {answer[:2] for answer in here}


@pytest.mark.parametrize("algorithm", ENCRYPTING)
async def test_what_is_encrypted_here_opens_there(server, admin, local, algorithm):
    key = await make(admin, algorithm)
    context = b"context" if algorithm.startswith("HPKE") else b""
    audit = Audit(server)
    sealed = [await local.encrypt(key, plaintext, context) for plaintext in (b"", b"m", b"m" * 190)]
    assert uses(audit) == []
    assert len({one.ciphertext for one in sealed}) == 3
    for one, plaintext in zip(sealed, (b"", b"m", b"m" * 190), strict=True):
        assert one.key_version == f"{key}/versions/1"
        assert (await admin.decrypt(one.key_version, one.ciphertext, context)).plaintext == plaintext
        there = await admin.encrypt(key, plaintext, context)
        assert len(there.ciphertext) == len(one.ciphertext)


@pytest.mark.parametrize("algorithm", ENCAPSULATING)
async def test_what_is_encapsulated_here_is_decapsulated_there(server, admin, local, algorithm):
    key = await make(admin, algorithm)
    audit = Audit(server)
    made = await local.encapsulate(key)
    assert uses(audit) == []
    opened = await admin.decapsulate(made.key_version, made.ciphertext)
    assert opened.shared_secret == made.shared_secret


async def test_errors_are_those_of_the_server(admin, local):
    signer, rsa, oaep = [await make(admin, name) for name in ("ED25519", "RSA_PSS_2048_SHA256", "RSA_OAEP_2048_SHA256")]
    aead = (await admin.create_key(VAULT, f"local-{next(KEYS)}", {"purpose": "KEY_PURPOSE_ENCRYPT_DECRYPT"})).name
    p1363 = {"signature_encoding": "SIGNATURE_ENCODING_P1363"}
    calls = [
        lambda one: one.verify(signer, b"m", b""),
        lambda one: one.verify(signer, b"m", bytes(8193)),
        lambda one: one.verify(signer, bytes(65_537), b"x"),
        lambda one: one.verify(signer, digest=bytes(32), signature=b"x"),
        lambda one: one.verify(signer, b"m", b"x", **p1363),
        lambda one: one.verify(rsa, b"m", b"x", **p1363),
        lambda one: one.verify(rsa, digest=bytes(31), signature=b"x"),
        lambda one: one.verify(oaep, b"m", b"x"),
        lambda one: one.verify(f"{VAULT}/keys/nowhere", b"m", b"x"),
        lambda one: one.verify(f"{signer}/versions/2", b"m", b"x"),
        lambda one: one.verify(f"{signer}/versions/x", b"m", b"x"),
        lambda one: one.verify("nonsense", b"m", b"x"),
        lambda one: one.encrypt(oaep, bytes(191)),
        lambda one: one.encrypt(oaep, b"m", b"context"),
        lambda one: one.encrypt(aead, bytes(65_537)),
        lambda one: one.encrypt(signer, b"m"),
        lambda one: one.encapsulate(signer),
    ]
    here = [await outcome(call(local)) for call in calls]
    assert here == [await outcome(call(admin)) for call in calls]
    assert all(isinstance(one, tuple) for one in here)
    for wrong in ((), (b"m", b"x", b"d" * 32)):
        with pytest.raises(TypeError):
            await local.verify(signer, *wrong[:1], signature=b"x", digest=wrong[2] if wrong else None)
    with pytest.raises(ValueError, match="NO_SUCH"):
        await local.verify(signer, b"m", b"x", signature_encoding="NO_SUCH")


async def test_names_that_the_server_does_not_take_are_not_taken_here(admin, local):
    key = await make(admin, "ED25519")
    first = (await admin.sign(key, b"m")).key_version
    await admin.rotate_key(key)
    signature = (await admin.sign(key, b"m")).signature
    assert not (await local.verify(first, b"m", signature)).valid
    for wrong in ("/version/1", "/1", "/versions/1/x", "/versions/01", "/versions/latest", "/versions/", "/"):
        here = await outcome(local.verify(key + wrong, b"m", signature))
        assert here == await outcome(admin.verify(key + wrong, b"m", signature))
        assert isinstance(here, tuple)


async def test_an_aead_key_is_used_by_the_server(server, admin, local):
    aead = (await admin.create_key(VAULT, f"local-{next(KEYS)}", {"purpose": "KEY_PURPOSE_ENCRYPT_DECRYPT"})).name
    audit = Audit(server)
    sealed = await local.encrypt(aead, b"m", b"aad")
    assert uses(audit) == ["Encrypt"]
    assert (await admin.decrypt(aead, sealed.ciphertext, b"aad")).plaintext == b"m"


async def test_no_bytes_verify_here_that_do_not_there(server, admin):
    """Mutated signatures of P-256, in both encodings: DER is where verifiers differ."""
    key = await make(admin, "EC_P256_SHA256")
    encodings = ("SIGNATURE_ENCODING_DER", "SIGNATURE_ENCODING_P1363")
    signatures = {one: (await admin.sign(key, b"m", signature_encoding=one)).signature for one in encodings}

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def compare(data) -> None:
        encoding = data.draw(st.sampled_from(encodings))
        changed = bytearray(signatures[encoding])
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(changed)))
            changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        signature = bytes(changed) or b"\0"
        here = local.verify(key, b"m", signature, signature_encoding=encoding)
        assert here == client.verify(key, b"m", signature, signature_encoding=encoding)

    with sync_client(server, "admin") as client, LocalKeys(client) as local:
        await asyncio.to_thread(compare)


# -- and no longer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["disable", "destroy", "delete"])
async def test_what_the_server_no_longer_verifies_is_not_verified_here(admin, local, change):
    key = await make(admin, "ED25519")
    signature = (await admin.sign(key, b"m")).signature
    assert (await local.verify(key, b"m", signature)).valid
    assert (await local.verify(f"{key}/versions/1", b"m", signature)).valid
    told = Told(admin.follow_changes(), key)
    await {
        "disable": lambda: admin.disable_key_version(f"{key}/versions/1"),
        "destroy": lambda: admin.destroy_key_version(f"{key}/versions/1"),
        "delete": lambda: admin.delete_key(key),
    }[change]()
    await told.wait()
    for name in (key, f"{key}/versions/1"):
        with pytest.raises(FailedPrecondition):
            await local.verify(name, b"m", signature)


async def test_after_a_rotation_the_new_version_is_used(admin, local):
    key = await make(admin, "HPKE_X25519")
    assert (await local.encrypt(key, b"m")).key_version == f"{key}/versions/1"
    told = Told(admin.follow_changes(), key)
    await admin.rotate_key(key)
    await told.wait()
    assert (await local.encrypt(key, b"m")).key_version == f"{key}/versions/2"
    assert (await local.encrypt(f"{key}/versions/1", b"m")).key_version == f"{key}/versions/1"
    told = Told(admin.follow_changes(), key)
    await admin.update_key({"name": key, "min_decrypt_version": 2}, {"paths": ["min_decrypt_version"]})
    await told.wait()
    with pytest.raises(FailedPrecondition) as raised:
        await local.encrypt(f"{key}/versions/1", b"m")
    assert raised.value.reason == "KEY_VERSION_BELOW_MINIMUM"


async def test_near_its_end_a_key_protects_only_what_the_server_lets_it(server, admin, local):
    import datetime

    def end(seconds: float) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)

    soon, later = [await make(admin, "HPKE_X25519", expire_time=end(seconds)) for seconds in (50, 5_000)]
    audit = Audit(server)
    await local.encrypt(later, b"m")
    assert uses(audit) == []
    await local.encrypt(soon, b"m")
    assert uses(audit) == ["Encrypt"]


async def test_when_watch_is_silent_a_key_is_read_again(server, admin):
    key = await make(admin, "ED25519")
    signature = (await admin.sign(key, b"m")).signature
    async with async_client(server, "admin") as client, AsyncLocalKeys(client) as local:
        await live(client)
        changes = client.follow_changes()
        await local.verify(key, b"m", signature)
        audit = Audit(server)
        at = changes.clock()
        changes.clock = lambda: at + 100
        changes._heard = at + 95
        await local.verify(key, b"m", signature)
        assert calls(audit) == []
        changes._heard = at + 85
        await local.verify(key, b"m", signature)
        assert calls(audit) == READ


async def test_who_may_not_get_the_key_asks_the_server(server, admin):
    key = await make(admin, "ED25519")
    signature = (await admin.sign(key, b"m")).signature
    async with async_client(server, "app") as app, AsyncLocalKeys(app) as local:
        audit = Audit(server)
        for _ in range(3):
            assert (await local.verify(key, b"m", signature)).valid
        assert calls(audit) == ["GetKey", "Verify", "Verify", "Verify"]
        changes, at = app.follow_changes(), app.follow_changes().clock()
        changes.clock = lambda: at + 299
        assert (await local.verify(key, b"m", signature)).valid
        assert calls(audit).count("GetKey") == 1  # each would be a refusal in the audit log
        with pytest.raises(PermissionDenied):
            await local.verify(f"{VAULT}/keys/nowhere", b"m", signature)


async def test_many_callers_read_a_key_once_and_threads_may_share(server, admin):
    key = await make(admin, "EC_P384_SHA384")
    signature = (await admin.sign(key, b"m")).signature

    def blocking() -> None:
        from concurrent.futures import ThreadPoolExecutor

        with sync_client(server, "admin") as client, LocalKeys(client) as local, ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda n: local.verify(key, b"m" if n % 2 else b"n", signature).valid, range(200)))
            assert answers == [bool(n % 2) for n in range(200)]
            with pytest.raises(NotFound):
                local.verify(f"{VAULT}/keys/nowhere", b"m", signature)
            assert local.encrypt(sealer, b"m").key_version == f"{sealer}/versions/1"
            assert len(local.encapsulate(kem).shared_secret) == 32

    sealer, kem = [await make(admin, name) for name in ("HPKE_X25519", "ML_KEM_768")]
    audit = Audit(server)
    await asyncio.to_thread(blocking)
    assert audit.methods().count("GetPublicKey") == 3
    async with AsyncLocalKeys(admin) as local:
        audit = Audit(server)
        await asyncio.gather(*(local.verify(key, b"m", signature) for _ in range(100)))
    assert calls(audit) == READ


async def test_one_who_is_cancelled_leaves_the_others_their_answer(admin, local):
    key = await make(admin, "ED25519")
    signature = (await admin.sign(key, b"m")).signature
    tasks = [asyncio.create_task(local.verify(key, b"m", signature)) for _ in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[2].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = [type(one).__name__ for one in outcomes]
    assert kinds == ["CancelledError", "VerifyResponse", "CancelledError", "VerifyResponse", "VerifyResponse"]
