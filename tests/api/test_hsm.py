"""Keys in a token, through the API: made, used, rotated, taken over, destroyed; and what is said when that cannot be."""

from __future__ import annotations

import grpc
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import duration_pb2
from wire import ADMIN, CRYPTO, GENEROUS, KEYS, OK, World, call, key_of

from harness import FakeClock, running_server
from softhsm import LABEL, hsm_section, put_key
from vaultd.backends.base import Lane
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.pkcs11.slot import Request
from vaultd.names import KeyRef
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, resources_pb2

HSM = resources_pb2.PROTECTION_LEVEL_HSM
ENVELOPE = resources_pb2.PROTECTION_LEVEL_HSM_ENVELOPE
DAY_S = 86_400


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hsm")
    clock = FakeClock()
    async with running_server(directory, clock=clock, hsm=[hsm_section(directory / "hsm")], **GENEROUS) as server:
        made = World(server)
        made.clock = clock
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def labels_in_token(world, name: str) -> bool:
    """Whether the token holds a key of this label, as pkcs11-tool would show it."""
    slot = world.server.server.slots[0]
    for algorithm in ("EC_P256_SHA256", "AES_256_GCM", "HMAC_SHA256"):
        if await slot.ask(Request("FIND", Verb.FIND, (b"", algorithm, name)), None, Lane.KEY_GENERATION):
            return True
    return False


async def version_of(world, name: str) -> resources_pb2.KeyVersion:
    return await world.admin.keys.GetKeyVersion(keys_pb2.GetKeyVersionRequest(name=name))


async def test_key_of_a_token_signs_and_its_public_key_verifies(world):
    name = await world.create("default", world.fresh_id(), key_of("SIGN", "EC_P256_SHA256", protection_level=HSM))
    answer = await world.admin.crypto.Sign(crypto_pb2.SignRequest(name=name, message=b"a message"))
    public = await world.admin.keys.GetPublicKey(keys_pb2.GetPublicKeyRequest(name=name))
    load_pem_public_key(public.pem.encode()).verify(answer.signature, b"a message", ec.ECDSA(SHA256()))
    verify = crypto_pb2.VerifyRequest(name=name, message=b"a message", signature=answer.signature)
    assert (await world.admin.crypto.Verify(verify)).valid


async def test_attestation_says_that_the_key_was_born_in_the_token_and_cannot_leave(world):
    name = await world.create("default", world.fresh_id(), key_of("SIGN", "EC_P256_SHA256", protection_level=HSM))
    attestation = (await version_of(world, name)).attestation
    assert (attestation.slot, attestation.token_label) == ("main", LABEL)
    assert attestation.object_label == f"{name}/versions/1"
    assert len(attestation.object_id) == 16
    told = {
        field: getattr(attestation, field) for field in ("sensitive", "always_sensitive", "never_extractable", "local")
    }
    assert set(told.values()) == {True}
    assert attestation.HasField("extractable")
    assert attestation.extractable is False
    software = await world.fresh_key()
    assert not (await version_of(world, software)).HasField("attestation")


async def test_encryption_in_a_token_binds_associated_data_and_counts_messages(world):
    key = key_of("ENCRYPT_DECRYPT", protection_level=HSM)
    name = await world.create("default", world.fresh_id(), key)
    assert (
        await world.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=name))
    ).algorithm == resources_pb2.ALGORITHM_AES_256_GCM
    sealed = await world.admin.crypto.Encrypt(
        crypto_pb2.EncryptRequest(name=name, plaintext=b"x", associated_data=b"a")
    )
    opened = crypto_pb2.DecryptRequest(name=name, ciphertext=sealed.ciphertext, associated_data=b"a")
    assert (await world.admin.crypto.Decrypt(opened)).plaintext == b"x"
    opened.associated_data = b"b"
    assert (await call(world.admin, f"{CRYPTO}Decrypt", opened)).reason == "DECRYPTION_FAILED"
    usage = await world.admin.keys.GetKeyUsage(keys_pb2.GetKeyUsageRequest(name=name))
    assert usage.versions[0].messages_left == 2**32 - 1


async def test_batch_of_tokens_and_software_keeps_its_order(world):
    keys = [
        await world.create("default", world.fresh_id(), key_of("MAC", "HMAC_SHA256", protection_level=level))
        for level in (HSM, resources_pb2.PROTECTION_LEVEL_SOFTWARE, ENVELOPE)
    ]
    items = [crypto_pb2.GenerateMacRequest(name=keys[at % 3], data=b"%d" % at) for at in range(90)]
    answer = await world.admin.crypto.BatchGenerateMac(crypto_pb2.BatchGenerateMacRequest(items=items))
    checks = [
        crypto_pb2.VerifyMacRequest(name=item.name, data=item.data, mac=result.result.mac)
        for item, result in zip(items, answer.results, strict=True)
    ]
    checked = await world.admin.crypto.BatchVerifyMac(crypto_pb2.BatchVerifyMacRequest(items=checks))
    assert [result.result.valid for result in checked.results] == [True] * 90


async def test_rotation_by_schedule_makes_a_new_key_in_the_token(world):
    period = duration_pb2.Duration(seconds=DAY_S)
    key = key_of("SIGN", "EC_P256_SHA256", protection_level=HSM, rotation_period=period)
    name = await world.create("default", world.fresh_id(), key)
    world.clock.advance(DAY_S + 1)
    await world.server.server.engine.scheduler.tick()
    rotated = await world.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=name))
    assert rotated.primary_version == f"{name}/versions/2"
    first, second = [(await version_of(world, f"{name}/versions/{number}")).attestation for number in (1, 2)]
    assert first.object_id != second.object_id
    assert second.object_label == f"{name}/versions/2"


async def test_destroyed_version_leaves_the_token(world):
    delay = duration_pb2.Duration(seconds=DAY_S)
    key = key_of("SIGN", "EC_P256_SHA256", protection_level=HSM, destroy_scheduled_duration=delay)
    name = await world.create("default", world.fresh_id(), key)
    version = f"{name}/versions/1"
    await world.admin.keys.DestroyKeyVersion(keys_pb2.DestroyKeyVersionRequest(name=version))
    assert await labels_in_token(world, version)
    world.clock.advance(DAY_S + 1)
    await world.server.server.engine.scheduler.tick()
    assert (await version_of(world, version)).state == resources_pb2.KEY_VERSION_STATE_DESTROYED
    assert not await labels_in_token(world, version)


async def test_purged_key_leaves_the_token_with_all_its_versions(world):
    name = await world.create("default", world.fresh_id(), key_of("SIGN", "EC_P256_SHA256", protection_level=HSM))
    await world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name))
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=name))
    assert await labels_in_token(world, f"{name}/versions/2")
    await world.admin.keys.PurgeKey(keys_pb2.PurgeKeyRequest(name=name))
    assert not any([await labels_in_token(world, f"{name}/versions/{number}") for number in (1, 2)])


async def test_refused_creation_leaves_nothing_in_the_token(world):
    key = key_of("SIGN", "EC_P256_SHA256", protection_level=HSM)
    taken = world.fresh_id()
    await world.create("default", taken, key)
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=taken, key=key)
    before = await rows(world)
    assert (await call(world.admin, f"{KEYS}CreateKey", request)).code is grpc.StatusCode.ALREADY_EXISTS
    assert await rows(world) == before


async def rows(world) -> int:
    """How many objects of the token are accounted for."""
    store = world.server.server.engine.store
    return len(await store.list("token_object", "", "", 10_000))


async def test_repeated_creation_is_answered_once_and_makes_one_object(world):
    key = key_of("SIGN", "EC_P256_SHA256", protection_level=HSM)
    request = keys_pb2.CreateKeyRequest(
        parent="vaults/default", key_id=world.fresh_id(), key=key, request_id=world.fresh_id()
    )
    before = await rows(world)
    answers = [await call(world.admin, f"{KEYS}CreateKey", request) for _ in range(3)]
    assert len({answer.body for answer in answers}) == 1
    assert await rows(world) == before + 1


@pytest.mark.parametrize(
    ("purpose", "algorithm"), [("ASYMMETRIC_DECRYPT", "RSA_OAEP_3072_SHA256"), ("KEM", "ML_KEM_768")]
)
async def test_what_the_token_cannot_do_is_refused_at_creation_with_the_reason(world, purpose, algorithm):
    key = key_of(purpose, algorithm, protection_level=HSM)
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=world.fresh_id(), key=key)
    outcome = await call(world.admin, f"{KEYS}CreateKey", request)
    assert outcome.reason == "ALGORITHM_UNAVAILABLE"
    assert "token" in outcome.text


async def test_capabilities_are_those_of_the_token(world):
    answer = await world.admin.keys.GetCapabilities(keys_pb2.GetCapabilitiesRequest(parent="vaults/default"))
    able = {(one.protection_level, one.algorithm) for one in answer.capabilities}
    assert (HSM, resources_pb2.ALGORITHM_ED25519) in able
    assert (HSM, resources_pb2.ALGORITHM_RSA_OAEP_3072_SHA256) not in able
    assert (ENVELOPE, resources_pb2.ALGORITHM_ML_DSA_65) in able
    assert not answer.unavailable_levels


async def test_capabilities_name_what_the_token_lacks_in_the_words_of_the_refusal(world):
    answer = await world.admin.keys.GetCapabilities(keys_pb2.GetCapabilitiesRequest(parent="vaults/default"))
    able = {(one.protection_level, one.algorithm) for one in answer.capabilities}
    unable = {(one.protection_level, one.algorithm): one.reason for one in answer.unsupported}
    assert not able & unable.keys()
    assert len(able) + len(unable) == 3 * (len(resources_pb2.Algorithm.values()) - 1)
    assert all(unable.values())
    key = key_of("ASYMMETRIC_DECRYPT", "RSA_OAEP_3072_SHA256", protection_level=HSM)
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=world.fresh_id(), key=key)
    refused = await call(world.admin, f"{KEYS}CreateKey", request)
    assert refused.text == unable[HSM, resources_pb2.ALGORITHM_RSA_OAEP_3072_SHA256]


async def test_token_that_pads_otherwise_wraps_whole_blocks_only(world):
    name = await world.create("default", world.fresh_id(), key_of("WRAP", protection_level=HSM))
    wrapped = await world.admin.crypto.WrapKey(crypto_pb2.WrapKeyRequest(name=name, key_material=bytes(32)))
    unwrap = crypto_pb2.UnwrapKeyRequest(name=name, wrapped_key=wrapped.wrapped_key)
    assert (await world.admin.crypto.UnwrapKey(unwrap)).key_material == bytes(32)
    request = crypto_pb2.WrapKeyRequest(name=name, key_material=bytes(33))
    assert (await call(world.admin, f"{CRYPTO}WrapKey", request)).reason == "KEY_MATERIAL_LENGTH"


async def test_random_bytes_come_from_the_token_when_asked_of_it(world):
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=65_536, protection_level=HSM)
    first, second = [(await world.admin.crypto.GenerateRandomBytes(request)).data for _ in range(2)]
    assert len(first) == 65_536
    assert first != second


# -- envelope keys ------------------------------------------------------------------------------------------------------


async def test_envelope_keys_share_a_token_key_and_run_in_software(world):
    before = await rows(world)
    names = [
        await world.create("default", world.fresh_id(), key_of("ENCRYPT_DECRYPT", protection_level=ENVELOPE))
        for _ in range(3)
    ]
    assert await rows(world) <= before + 2  # the token's key, and its name, when they are the first
    sealed = await world.admin.crypto.Encrypt(crypto_pb2.EncryptRequest(name=names[0], plaintext=b"x"))
    world.server.server.engine.catalog.forget_all()
    decrypt = crypto_pb2.DecryptRequest(name=names[0], ciphertext=sealed.ciphertext)
    assert (await world.admin.crypto.Decrypt(decrypt)).plaintext == b"x"
    ref = KeyRef("default", names[0].rpartition("/")[2], 0)
    loaded = world.server.server.engine.catalog.cached(ref)
    assert loaded.primary.handle.inline
    assert not await labels_in_token(world, f"{names[0]}/versions/1")


# -- keys that a token holds already ------------------------------------------------------------------------------------


def adoption(world, token_key: keys_pb2.TokenKey, purpose: str = "SIGN", algorithm: str = "EC_P256_SHA256"):
    key = key_of(purpose, algorithm, protection_level=HSM)
    return keys_pb2.AdoptKeyRequest(parent="vaults/default", key_id=world.fresh_id(), key=key, token_key=token_key)


async def test_key_of_somebody_else_is_taken_over_by_its_id(world):
    object_id = await put_key(world.server.server.slots[0], "EC_P256_SHA256", "legacy signer")
    key = await world.admin.keys.AdoptKey(adoption(world, keys_pb2.TokenKey(object_id=object_id)))
    version = await version_of(world, key.name)
    assert version.imported
    assert (version.attestation.object_id, version.attestation.object_label) == (object_id, "legacy signer")
    answer = await world.admin.crypto.Sign(crypto_pb2.SignRequest(name=key.name, message=b"m"))
    verify = crypto_pb2.VerifyRequest(name=key.name, message=b"m", signature=answer.signature)
    assert (await world.admin.crypto.Verify(verify)).valid
    assert (await world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=key.name))).name.endswith("/versions/2")


async def test_key_is_taken_over_by_its_label_when_only_one_has_it(world):
    slot = world.server.server.slots[0]
    await put_key(slot, "HMAC_SHA256", "payroll")
    token_key = keys_pb2.TokenKey(slot="main", object_label="payroll")
    key = await world.admin.keys.AdoptKey(adoption(world, token_key, "MAC", "HMAC_SHA256"))
    await put_key(slot, "HMAC_SHA256", "twins")
    await put_key(slot, "HMAC_SHA256", "twins")
    twins = adoption(world, keys_pb2.TokenKey(object_label="twins"), "MAC", "HMAC_SHA256")
    assert (await call(world.admin, f"{KEYS}AdoptKey", twins)).reason == "HSM_REFUSED"
    assert key.state == resources_pb2.KEY_STATE_ACTIVE


async def test_object_is_taken_over_once_in_all_vaults(world):
    slot = world.server.server.slots[0]
    object_id = await put_key(slot, "EC_P256_SHA256", "wanted twice")
    await world.admin.keys.AdoptKey(adoption(world, keys_pb2.TokenKey(object_id=object_id)))
    again = adoption(world, keys_pb2.TokenKey(object_id=object_id))
    assert (await call(world.admin, f"{KEYS}AdoptKey", again)).reason == "TOKEN_KEY_IN_USE"
    name = await world.create("default", world.fresh_id(), key_of("SIGN", "EC_P256_SHA256", protection_level=HSM))
    ours = (await version_of(world, name)).attestation.object_id
    stolen = adoption(world, keys_pb2.TokenKey(object_id=ours))
    assert (await call(world.admin, f"{KEYS}AdoptKey", stolen)).reason == "TOKEN_KEY_IN_USE"


async def test_vaults_own_keys_in_the_token_are_not_taken_over(world):
    await world.create("default", world.fresh_id(), key_of("ENCRYPT_DECRYPT", protection_level=ENVELOPE))
    request = adoption(world, keys_pb2.TokenKey(object_label="vaultd envelope key"), "ENCRYPT_DECRYPT", "AES_256_GCM")
    assert (await call(world.admin, f"{KEYS}AdoptKey", request)).reason == "HSM_REFUSED"


@pytest.mark.parametrize(
    ("token_key", "reason"),
    [
        ({}, "TOKEN_KEY_REQUIRED"),
        ({"slot": "main"}, "TOKEN_KEY_REQUIRED"),
        ({"object_id": b"nobody"}, "TOKEN_KEY_NOT_FOUND"),
        ({"object_label": "nobody"}, "TOKEN_KEY_NOT_FOUND"),
        ({"slot": "elsewhere", "object_id": b"nobody"}, "HSM_SLOT_UNKNOWN"),
        ({"object_id": bytes(65)}, "FIELD_SIZE"),
        ({"object_label": "l" * 257}, "FIELD_SIZE"),
        ({"object_label": "a\nb"}, "FIELD_SIZE"),
        ({"slot": "s" * 33, "object_id": b"x"}, "FIELD_SIZE"),
    ],
)
async def test_bad_descriptions_of_a_token_key_are_refused(world, token_key, reason):
    outcome = await call(world.admin, f"{KEYS}AdoptKey", adoption(world, keys_pb2.TokenKey(**token_key)))
    assert outcome.reason == reason


@pytest.mark.parametrize(
    ("made", "purpose", "algorithm"),
    [
        ("EC_P256_SHA256", "SIGN", "EC_P384_SHA384"),
        ("EC_P256_SHA256", "SIGN", "RSA_PSS_2048_SHA256"),
        ("AES_128_GCM", "ENCRYPT_DECRYPT", "AES_256_GCM"),
        ("ECDH_P256", "SIGN", "EC_P256_SHA256"),
        ("HMAC_SHA256", "MAC", "HMAC_SHA512"),
        # Of the right type and length; what the object is permitted shows only when it is used.
        ("AES_256_KWP", "ENCRYPT_DECRYPT", "AES_256_GCM"),
        ("AES_256_GCM", "WRAP", "AES_256_KWP"),
        ("AES_256_GCM", "MAC", "AES_256_CMAC"),
    ],
)
async def test_object_that_does_not_fit_the_algorithm_is_refused(world, made, purpose, algorithm):
    object_id = await put_key(world.server.server.slots[0], made, "misfit")
    request = adoption(world, keys_pb2.TokenKey(object_id=object_id), purpose, algorithm)
    outcome = await call(world.admin, f"{KEYS}AdoptKey", request)
    assert outcome.code in {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT}
    assert outcome.reason in {"HSM_REFUSED", "MATERIAL_MISMATCH"}


async def test_only_keys_that_stay_in_the_token_are_taken_over(world):
    request = adoption(world, keys_pb2.TokenKey(object_id=b"x"))
    request.key.protection_level = resources_pb2.PROTECTION_LEVEL_SOFTWARE
    assert (await call(world.admin, f"{KEYS}AdoptKey", request)).reason == "PROTECTION_LEVEL_REQUIRED"


# -- health -------------------------------------------------------------------------------------------------------------


async def test_slot_is_a_component_of_the_status(world):
    status = await world.admin.admin.GetStatus(admin_pb2.GetStatusRequest())
    assert "hsm:main" in str(status)
    assert (await call(world.admin, f"{ADMIN}GetStatus")).code is OK
