"""Import jobs, what is imported with them, and what is not; to the microsecond where time decides."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from contract.backend import ALL_ALGORITHMS, OpKind, is_rsa, outside_material, pkcs8
from engine.engines import DAY_US, edit, intent, move_to, move_us, open_engine, query, version
from harness import FakeClock
from vaultd.backends.base import Material, Operation
from vaultd.engine.algorithms import ALGORITHMS, Purpose
from vaultd.engine.key_export import read_recipient
from vaultd.engine.key_import import DEFAULT_TERM_US, MAX_ACTIVE_JOBS, MAX_TERM_US, MEMORY_US, ImportAsk
from vaultd.engine.key_specs import KeyUpdate
from vaultd.engine.key_wrapping import KeyWrapping, WrappingMethod
from vaultd.errors import VaultdError
from vaultd.secret import Secret
from vaultd.services.key_transfer import import_job_message
from vaultd.store.base import RowKey
from vaultd_client import key_wrapping as client

if TYPE_CHECKING:
    from vaultd_client.v1 import key_transfer_pb2 as pb

HPKE = WrappingMethod.HPKE_X25519
RSA = WrappingMethod.RSA_OAEP_3072_SHA256_AES_256_KWP

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refused(awaitable) -> str:
    with pytest.raises(VaultdError) as caught:
        await awaitable
    return caught.value.reason


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vault(tmp_path_factory):
    """One engine, with a job of each kind."""
    async with open_engine(tmp_path_factory.mktemp("import")) as opened:
        for method in WrappingMethod:
            job_id = method.value.lower().replace("_", "-")
            await opened.engine.imports.create_job(intent(), "default", job_id, method, None)
        yield opened


def job_id(method: WrappingMethod) -> str:
    return method.value.lower().replace("_", "-")


async def job_message(opened, method: WrappingMethod = HPKE) -> pb.ImportJob:
    return import_job_message(await opened.engine.imports.get_job("default", job_id(method)))


_counter = iter(range(1, 1_000_000))


async def key_for(opened, algorithm: str, **spec):
    """A key without a version, of an algorithm."""
    purpose = ALGORITHMS[algorithm].purpose
    spec = {"skip_initial_version": True, **spec}
    return await opened.create(f"k{next(_counter)}", purpose=purpose, algorithm=algorithm, **spec)


async def bring_in(opened, ref, algorithm: str, material: bytes, method: WrappingMethod = HPKE, **ask):
    """Wrap as a client does, and import."""
    wrapped = client.wrap_for_import(await job_message(opened, method), material)
    asked = ImportAsk("default", job_id(method), algorithm, wrapped, **ask)
    return await opened.engine.imports.import_version(intent(), ref, asked)


# -- what comes in ------------------------------------------------------------------------------------------------------


# Larger RSA keys take seconds to check; the contract of backends has them.
@pytest.mark.parametrize("algorithm", [name for name in ALL_ALGORITHMS if not is_rsa(name) or "_2048_" in name])
async def test_every_algorithm_comes_in_and_is_the_key_that_was_brought(vault, algorithm):
    material = outside_material(algorithm)
    ref = await key_for(vault, algorithm)
    made = await bring_in(vault, ref, algorithm, material)
    assert (made.number, made.imported, made.algorithm.name) == (1, True, algorithm)
    key = await vault.keys.get_key(ref)
    assert (key.primary, key.newest) == (1, 1)
    row = (await vault.ledger.read(RowKey("key_version", ref.vault, ref.key, 1))).row
    expected = await vault.engine.backends[key.protection_level].import_material(algorithm, Secret(material), "")
    assert made.public_key == expected.public_key
    stored = vault.ledger.sealer.open_secret(row).expose("test")
    assert stored == expected.secret.expose("test")


@pytest.mark.parametrize("method", WrappingMethod)
@pytest.mark.parametrize("algorithm", ["AES_256_GCM", "EC_P256_SHA256", "RSA_PSS_2048_SHA256"])
async def test_every_method_brings_every_form_in(vault, method, algorithm):
    ref = await key_for(vault, algorithm)
    made = await bring_in(vault, ref, algorithm, outside_material(algorithm), method)
    assert made.imported


async def test_a_seed_and_its_pkcs8_are_the_same_key(vault):
    for algorithm in ("ED25519", "X25519", "ML_KEM_768", "ML_DSA_65", "HPKE_X25519"):
        seed = outside_material(algorithm)
        backend = vault.engine.backends[next(iter(vault.engine.backends))]
        taken = await backend.import_material(algorithm, Secret(seed), "")
        outside = (await backend.reveal(algorithm, taken)).secret.expose("test")
        assert outside != seed
        publics = set()
        for material in (seed, outside):
            made = await bring_in(vault, await key_for(vault, algorithm), algorithm, material)
            publics.add(made.public_key)
        assert len(publics) == 1


async def test_an_imported_version_becomes_primary_unless_it_should_not(vault):
    ref = await vault.create("primary", purpose=Purpose.MAC)
    second = await bring_in(vault, ref, "HMAC_SHA256", bytes(32))
    third = await bring_in(vault, ref, "HMAC_SHA256", b"3" * 32, keep_primary=True)
    key = await vault.keys.get_key(ref)
    assert (second.number, third.number, key.primary, key.newest) == (2, 3, 2, 3)
    fresh = await key_for(vault, "HMAC_SHA256")
    await bring_in(vault, fresh, "HMAC_SHA256", bytes(32), keep_primary=True)
    assert (await vault.keys.get_key(fresh)).primary == 1


async def test_an_imported_key_decrypts_and_rotates_like_any_other(vault):
    ref = await key_for(vault, "XAES_256_GCM")
    await bring_in(vault, ref, "XAES_256_GCM", outside_material("XAES_256_GCM"))
    old = await vault.encrypt(ref)
    await vault.key_versions.rotate_key(intent(), ref)
    assert await vault.primary(ref) == 2
    assert await vault.decrypt(ref, old) == b"plaintext"


# -- keys that are made for import --------------------------------------------------------------------------------------


async def test_a_key_that_waits_for_its_first_version_says_so(vault):
    ref = await key_for(vault, "XAES_256_GCM")
    key = await vault.keys.get_key(ref)
    assert (key.primary, key.newest, await vault.keys.list_versions(ref)) == (0, 0, [])
    assert await refused(vault.encrypt(ref)) == "NO_PRIMARY_VERSION"
    await vault.key_versions.rotate_key(intent(), ref)
    assert await vault.primary(ref) == 1


async def test_an_import_only_key_makes_no_version_of_its_own(vault):
    ref = await vault.create("only", purpose=Purpose.MAC, import_only=True)
    key = await vault.keys.get_key(ref)
    assert (key.import_only, key.newest) == (True, 0)
    assert await refused(vault.key_versions.rotate_key(intent(), ref)) == "IMPORT_ONLY"
    period = KeyUpdate({"rotation_period_us": DAY_US, "next_rotation_us": None})
    assert await refused(vault.lifecycle.update_key(intent(), ref, period)) == "IMPORT_ONLY_ROTATION"
    made = await bring_in(vault, ref, "HMAC_SHA256", bytes(32))
    assert made.number == 1
    assert await refused(vault.key_versions.rotate_key(intent(), ref)) == "IMPORT_ONLY"


async def test_an_import_only_key_cannot_be_created_to_rotate(vault):
    assert (
        await refused(vault.create("rotates", purpose=Purpose.MAC, import_only=True, rotation_period_us=DAY_US))
        == "IMPORT_ONLY_ROTATION"
    )


# -- what does not come in ----------------------------------------------------------------------------------------------


async def test_what_does_not_unwrap_is_told_the_same_whatever_is_wrong(vault):
    told = set()
    for method in (HPKE, RSA, WrappingMethod.HPKE_MLKEM768_X25519):
        ref = await key_for(vault, "HMAC_SHA256")
        wrapped = client.wrap_for_import(await job_message(vault, method), b"m" * 32)
        other = client.wrap_for_import(await job_message(vault, method), b"n" * 32)
        size = method.modulus_bytes or 32
        places = sorted({*range(0, len(wrapped), 29), size - 1, size, size + 7, len(wrapped) - 1})
        wrong = [wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in places]
        wrong += [wrapped[:size] + other[size:], wrapped[:-1], wrapped[:-8], wrapped + bytes(8), b"w", bytes(400)]
        if method is RSA:  # a key-encryption key of another length, and a right one that wraps nothing
            public = load_der_public_key((await vault.engine.imports.get_job("default", job_id(RSA))).public_key)
            for kek in (b"k" * 16, b"k" * 33, b"", b"k" * 32):
                sealed = public.encrypt(kek, client._OAEP)
                wrong.append(sealed + aes_key_wrap_with_padding(b"k" * 16, b"m" * 32))
        for blob in wrong:
            with pytest.raises(VaultdError) as caught:
                await vault.engine.imports.import_version(
                    intent(), ref, ImportAsk("default", job_id(method), "HMAC_SHA256", blob)
                )
            told.add((caught.value.code, caught.value.reason, caught.value.text, caught.value.field))
            assert caught.value.__cause__ is None
        assert await vault.keys.list_versions(ref) == []
    assert len(told) == 1
    assert next(iter(told))[:2] == ("INVALID_ARGUMENT", "UNWRAP_FAILED")


async def test_what_was_wrapped_for_another_job_does_not_unwrap(vault):
    imports = vault.engine.imports
    await imports.create_job(intent(), "default", "other", HPKE, None)
    other = import_job_message(await imports.get_job("default", "other"))
    ref = await key_for(vault, "HMAC_SHA256")
    for blob in (
        client.wrap_for_import(other, bytes(32)),
        # To the right key, in the name of another job: HPKE binds the name.
        client.wrap_for_import(_renamed(await job_message(vault), other.name), bytes(32)),
    ):
        asked = ImportAsk("default", job_id(HPKE), "HMAC_SHA256", blob)
        assert await refused(imports.import_version(intent(), ref, asked)) == "UNWRAP_FAILED"


def _renamed(job: pb.ImportJob, name: str) -> pb.ImportJob:
    job.name = name
    return job


RSA_3072 = rsa.generate_private_key(65537, 3072)
WRONG_MATERIAL = {
    "AES_256_GCM": [bytes(16), bytes(31), bytes(33)],
    "AES_256_SIV": [bytes(32)],
    "HMAC_SHA384": [bytes(32), bytes(64)],
    "RSA_PSS_2048_SHA256": [
        pkcs8(RSA_3072),
        pkcs8(ec.generate_private_key(ec.SECP256R1())),
        b"-----BEGIN PRIVATE KEY-----",
    ],
    "EC_P256_SHA256": [pkcs8(ec.generate_private_key(ec.SECP384R1())), pkcs8(ec.generate_private_key(ec.SECP256K1()))],
    "EC_SECP256K1_SHA256": [pkcs8(ec.generate_private_key(ec.SECP256R1()))],
    "ED25519": [bytes(31), bytes(64), pkcs8(ec.generate_private_key(ec.SECP256R1()))],
    "ML_DSA_65": [bytes(31), bytes(4032)],
    "ML_KEM_768": [bytes(63), bytes(2400)],
    "HPKE_MLKEM768_X25519": [bytes(95), bytes(32)],
}


@pytest.mark.parametrize("algorithm", WRONG_MATERIAL)
async def test_material_of_the_wrong_kind_is_told_what_would_fit(vault, algorithm):
    ref = await key_for(vault, algorithm)
    for material in WRONG_MATERIAL[algorithm]:
        with pytest.raises(VaultdError) as caught:
            await bring_in(vault, ref, algorithm, material)
        assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "MATERIAL_MISMATCH")
        assert len(caught.value.text) > 20
    assert await vault.keys.list_versions(ref) == []


async def test_a_point_that_is_not_of_the_private_scalar_is_refused(vault):
    mine, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    points = [key.public_key().public_numbers() for key in (mine, theirs)]
    x, other_x = (point.x.to_bytes(32, "big") for point in points)
    y, other_y = (point.y.to_bytes(32, "big") for point in points)
    ref = await key_for(vault, "EC_P256_SHA256")
    for swap in ((x, other_x), (y, other_y), (x + y, other_x + other_y)):
        assert await refused(bring_in(vault, ref, "EC_P256_SHA256", pkcs8(mine).replace(*swap))) == "MATERIAL_MISMATCH"


async def test_kinds_of_keys_that_are_no_algorithm_here_are_refused_like_any_other(vault):
    def openssl(*arguments: str, data: bytes = b"") -> bytes:
        return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout

    for kind in (("DH", "-pkeyopt", "group:ffdhe2048"), ("SM2",), ("X448",), ("ED25519",)):
        pem = openssl("genpkey", "-algorithm", *kind)
        material = openssl("pkey", "-outform", "DER", data=pem)
        for algorithm in ("EC_P256_SHA256", "RSA_PSS_2048_SHA256", "X25519"):
            ref = await key_for(vault, algorithm)
            assert await refused(bring_in(vault, ref, algorithm, material)) == "MATERIAL_MISMATCH"
        public = openssl("pkey", "-pubout", data=pem).decode()
        source = await vault.create(f"e{next(_counter)}", purpose=Purpose.MAC, exportable=True)
        for method in (RSA, HPKE):
            with pytest.raises(VaultdError) as caught:
                await vault.engine.exports.export(intent(), source, method, read_recipient(method, public, b""))
            assert caught.value.reason == "PUBLIC_KEY_MISMATCH"


async def test_a_public_key_for_signatures_of_rsa_is_a_recipient_or_is_refused(vault):
    """OpenSSL marks it as for PSS only; what wraps to it must not fail in another way."""

    def openssl(*arguments: str, data: bytes = b"") -> bytes:
        return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout

    pem = openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:3072")
    source = await vault.create(f"e{next(_counter)}", purpose=Purpose.MAC, exportable=True)
    recipient = read_recipient(RSA, openssl("pkey", "-pubout", data=pem).decode(), b"")
    exported = await vault.engine.exports.export(intent(), source, RSA, recipient)
    assert len(exported.wrapped) == 384 + 40


async def test_the_algorithm_must_be_the_keys(vault):
    ref = await key_for(vault, "AES_256_GCM")
    assert await refused(bring_in(vault, ref, "XAES_256_GCM", bytes(32))) == "ALGORITHM_MISMATCH"


async def test_a_deleted_key_and_one_that_is_not_there_take_nothing_in(vault):
    ref = await key_for(vault, "HMAC_SHA256")
    await vault.lifecycle.delete_key(intent(), ref, "")
    assert await refused(bring_in(vault, ref, "HMAC_SHA256", bytes(32))) == "KEY_DELETED"
    missing = type(ref)("default", "missing", 0)
    assert await refused(bring_in(vault, missing, "HMAC_SHA256", bytes(32))) == "KEY_NOT_FOUND"


async def test_a_job_of_another_vault_serves_no_key_here(vault):
    await vault.engine.vaults.create(intent(), "tenant", "", {})
    await vault.engine.imports.create_job(intent(), "tenant", "theirs", HPKE, None)
    ref = await key_for(vault, "HMAC_SHA256")
    asked = ImportAsk("tenant", "theirs", "HMAC_SHA256", b"x")
    assert await refused(vault.engine.imports.import_version(intent(), ref, asked)) == "CROSS_VAULT"


async def test_an_etag_that_is_not_the_keys_stops_an_import(vault):
    ref = await key_for(vault, "HMAC_SHA256")
    assert await refused(bring_in(vault, ref, "HMAC_SHA256", bytes(32), etag='"1"')) == "ETAG_MISMATCH"
    etag = (await vault.keys.get_key(ref)).etag
    assert (await bring_in(vault, ref, "HMAC_SHA256", bytes(32), etag=etag)).number == 1


async def test_a_repeated_import_makes_one_version(vault):
    ref = await key_for(vault, "HMAC_SHA256")
    wrapped = client.wrap_for_import(await job_message(vault), bytes(32))
    asked = ImportAsk("default", job_id(HPKE), "HMAC_SHA256", wrapped)
    answers = [await vault.engine.imports.import_version(intent("once"), ref, asked) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert len(await vault.keys.list_versions(ref)) == 1


# -- message budgets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prior", "left"), [(None, 512), (0, 1024), (10, 1014), (1023, 1), (1024, 0), (2**40, 0)])
async def test_what_material_encrypted_elsewhere_is_taken_off_its_budget(tmp_path, prior, left):
    async with open_engine(tmp_path, limits={"messages_per_version": 1024}) as opened:
        await opened.engine.imports.create_job(intent(), "default", job_id(HPKE), HPKE, None)
        ref = await key_for(opened, "AES_256_GCM", import_only=True)
        await bring_in(opened, ref, "AES_256_GCM", bytes(32), prior_messages=prior)
        assert await opened.engine.budgets.messages_left(version(ref, 1), b"u" * 16, 2**32) == left
        for _ in range(min(left, 3)):
            await opened.encrypt(ref)
        if not left:
            assert await refused(opened.encrypt(ref)) == "MESSAGE_BUDGET_EXHAUSTED"
            opened.events.clear()
            await opened.tick()
            await opened.tick()
            assert opened.events == []  # there is nothing that the scheduler could rotate it to


async def test_a_version_that_was_made_here_begins_with_its_whole_budget(vault):
    ref = await vault.create("whole", algorithm="AES_256_GCM")
    assert await vault.engine.budgets.messages_left(version(ref, 1), b"v" * 16, 2**32) == 2**32


# -- jobs ---------------------------------------------------------------------------------------------------------------


async def test_a_job_has_three_days_and_at_most_seven(tmp_path):
    async with open_engine(tmp_path) as opened:
        imports, now_us = opened.engine.imports, opened.clock.us
        job = await imports.create_job(intent(), "default", "three", HPKE, None)
        assert job.expire_us == now_us + DEFAULT_TERM_US == now_us + 3 * DAY_US
        seven = await imports.create_job(intent(), "default", "seven", HPKE, now_us + MAX_TERM_US)
        assert seven.expire_us == now_us + 7 * DAY_US
        for wrong in (now_us, now_us - 1, now_us + MAX_TERM_US + 1):
            assert await refused(imports.create_job(intent(), "default", "wrong", HPKE, wrong)) == "IMPORT_JOB_TERM"


async def test_a_job_serves_until_its_last_microsecond_and_then_not(tmp_path):
    async with open_engine(tmp_path) as opened:
        job = await opened.engine.imports.create_job(intent(), "default", job_id(HPKE), HPKE, None)
        ref = await key_for(opened, "HMAC_SHA256")
        move_to(opened.clock, job.expire_us - 1)
        assert (await bring_in(opened, ref, "HMAC_SHA256", bytes(32))).number == 1
        move_us(opened.clock, 1)  # the scheduler has not come yet
        assert await refused(bring_in(opened, ref, "HMAC_SHA256", bytes(32))) == "IMPORT_JOB_EXPIRED"
        assert (await opened.engine.imports.get_job("default", job_id(HPKE))).state.value == "EXPIRED"


async def test_an_expired_job_loses_its_private_key_and_is_forgotten_later(tmp_path):
    at = RowKey("import_job", "default", "j", 0)
    async with open_engine(tmp_path) as opened:
        job = await opened.engine.imports.create_job(intent(), "default", "j", HPKE, None)
        sealed = (await opened.store.get(at)).secret
        assert sealed is not None
        assert sealed in b"".join(path.read_bytes() for path in tmp_path.glob("vault.db*"))
        move_to(opened.clock, job.expire_us)
        await opened.tick()
        assert ("expire_import_job", job.name, "") in opened.events
        row = await opened.store.get(at)
        assert (row.state, row.secret) == ("EXPIRED", None)
        assert sealed not in b"".join(path.read_bytes() for path in tmp_path.glob("vault.db*"))
        assert (
            await refused(opened.engine.imports.create_job(intent(), "default", "j", HPKE, None)) == "IMPORT_JOB_EXISTS"
        )
        move_us(opened.clock, MEMORY_US - 1)
        await opened.tick()
        assert await opened.store.get(at) is not None
        move_us(opened.clock, 1)
        await opened.tick()
        assert ("forget_import_job", job.name, "") in opened.events
        assert await opened.store.get(at) is None
        assert await refused(opened.engine.imports.get_job("default", "j")) == "IMPORT_JOB_NOT_FOUND"
        await opened.ledger.check(deep=True)


async def test_a_job_outlives_a_restart_and_a_rotation_of_the_root_key(tmp_path):
    clock = FakeClock()
    async with open_engine(tmp_path, clock) as opened:
        await opened.engine.imports.create_job(intent(), "default", job_id(HPKE), HPKE, None)
        await opened.seal.rotate_root(intent(), None)
        await opened.tick()
        assert len(opened.ledger.sealer.ring.terms) == 1  # rows, the job's among them, are under the new term
    async with open_engine(tmp_path, clock) as opened:
        ref = await key_for(opened, "HMAC_SHA256")
        assert (await bring_in(opened, ref, "HMAC_SHA256", bytes(32))).number == 1


async def test_a_job_of_another_row_is_not_used(tmp_path):
    async with open_engine(tmp_path) as opened:
        imports = opened.engine.imports
        for name in (job_id(HPKE), "other"):
            await imports.create_job(intent(), "default", name, HPKE, None)
        ref = await key_for(opened, "HMAC_SHA256")
        ids = dict(query(tmp_path / "vault.db", "SELECT id, secret_id FROM records WHERE kind = 'import_job'"))
        wrapped = client.wrap_for_import(await job_message(opened), bytes(32))
        edit(
            tmp_path / "vault.db",
            (
                "UPDATE secrets SET secret = (SELECT secret FROM secrets WHERE id = ?) WHERE id = ?",
                (ids["other"], ids[job_id(HPKE)]),
            ),
        )
        asked = ImportAsk("default", job_id(HPKE), "HMAC_SHA256", wrapped)
        assert await refused(imports.import_version(intent(), ref, asked)) == "ROW_TAMPERED"


async def test_a_name_is_taken_while_its_job_is_known(vault):
    assert (
        await refused(vault.engine.imports.create_job(intent(), "default", job_id(HPKE), RSA, None))
        == "IMPORT_JOB_EXISTS"
    )
    assert await refused(vault.engine.imports.create_job(intent(), "nowhere", "j", HPKE, None)) == "VAULT_NOT_FOUND"


async def test_a_repeated_creation_makes_one_job(vault):
    jobs = [await vault.engine.imports.create_job(intent("one"), "default", "one", HPKE, None) for _ in range(2)]
    assert jobs[0] == jobs[1]


async def test_a_vault_has_at_most_so_many_active_jobs(tmp_path):
    async with open_engine(tmp_path) as opened:
        imports = opened.engine.imports
        for number in range(MAX_ACTIVE_JOBS):
            await imports.create_job(intent(), "default", f"j{number}", HPKE, None)
        assert await refused(imports.create_job(intent(), "default", "more", HPKE, None)) == "TOO_MANY_IMPORT_JOBS"
        listed = await imports.list_jobs("default", "", 1000)
        assert len(listed) == MAX_ACTIVE_JOBS
        assert [job.id for job in listed] == sorted(job.id for job in listed)
        move_us(opened.clock, DEFAULT_TERM_US)
        await opened.tick()
        assert (await imports.create_job(intent(), "default", "more", HPKE, None)).id == "more"


async def test_a_sealed_vault_makes_and_uses_no_job(tmp_path):
    async with open_engine(tmp_path) as opened:
        await opened.engine.imports.create_job(intent(), "default", job_id(HPKE), HPKE, None)
        ref = await key_for(opened, "HMAC_SHA256")
        wrapped = client.wrap_for_import(await job_message(opened), bytes(32))
        await opened.seal.seal()
        asked = ImportAsk("default", job_id(HPKE), "HMAC_SHA256", wrapped)
        assert await refused(opened.engine.imports.import_version(intent(), ref, asked)) == "SEALED"
        assert await refused(opened.engine.imports.create_job(intent(), "default", "x", HPKE, None)) == "SEALED"


# -- the wrapping itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", WrappingMethod)
async def test_the_engine_opens_what_it_wraps_for_one_purpose_only(vault, method):
    wrapping = KeyWrapping(vault.engine.backends[next(iter(vault.engine.backends))])
    job = await vault.engine.imports.get_job("default", job_id(method))
    row = (await vault.ledger.read(RowKey("import_job", "default", job.id, 0))).row
    pair = Material(vault.ledger.sealer.open_secret(row), b"", job.public_key)
    for size in (1, 16, 32, 63, 64, 4096):
        material = os.urandom(size)
        blob = await wrapping.wrap(method, job.public_key, Secret(material), b"info")
        assert (await wrapping.unwrap(method, pair, blob, b"info")).expose("test") == material
        if not method.modulus_bytes:
            assert await refused(wrapping.unwrap(method, pair, blob, b"another")) == "UNWRAP_FAILED"


async def test_an_imported_key_is_used_by_the_transit_engine_as_any_other(vault):
    for algorithm, kind in (("EC_P256_SHA256", OpKind.SIGN_MESSAGE), ("HMAC_SHA256", OpKind.MAC)):
        ref = await key_for(vault, algorithm)
        await bring_in(vault, ref, algorithm, outside_material(algorithm))
        loaded = await vault.engine.catalog.load(ref)
        handle = await loaded.usable[0].load(vault.ledger)
        assert await loaded.usable[0].backend.use(handle, Operation(kind, b"data"), None)
