"""What bad input gets: a clear status with a stable reason, never a fault of ours, never a byte of the input."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from google.protobuf import field_mask_pb2
from google.protobuf.message_factory import GetMessageClass
from wire import (
    ADMIN,
    BATCHES,
    CRYPTO,
    FAILED_PRECONDITION,
    GENEROUS,
    INVALID_ARGUMENT,
    KEYS,
    METHODS,
    MUTATIONS,
    NOT_FOUND,
    OK,
    PERMISSION_DENIED,
    PURPOSE_KEYS,
    SINGLE_KEY_CALLS,
    SINGLES,
    UNAVAILABLE,
    World,
    call,
    call_each,
    key_of,
    reason_in,
    request_class,
    short,
    single_of,
    verdicts,
)

from harness import FakeClock, running_server
from softhsm import hsm_section
from vaultd.interceptors.validate import crc32c
from vaultd_client.v1 import admin_pb2, crypto_pb2, keys_pb2, resources_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANY = sorted(METHODS)
SPIFFE = "spiffe://dev.vaultd"
FORBIDDEN = "vaults/default/keys/forbidden"
UNKNOWN = "vaults/default/keys/unknown"
ALREADY_EXISTS = grpc.StatusCode.ALREADY_EXISTS
ABORTED = grpc.StatusCode.ABORTED
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
MIB = 1024 * 1024

BLIND = [
    "crypto.decapsulate crypto.decrypt crypto.derive crypto.encapsulate crypto.encrypt crypto.generate_data_key",
    "crypto.generate_mac crypto.inspect crypto.reencrypt_from crypto.reencrypt_to crypto.sign crypto.unwrap",
    "crypto.verify crypto.verify_mac crypto.wrap",
    "keys.delete keys.destroy keys.get_public_key keys.grant keys.purge keys.rotate keys.update",
    "keys.backup keys.export keys.import",
]
"""Every permission on a key but keys.get."""


def policy():
    permissions = " ".join(BLIND).split()
    roles = [
        {"name": "blind", "permissions": permissions},
        {"name": "seeing", "permissions": [*permissions, "keys.get"]},
        {"name": "creator", "permissions": ["keys.create"]},
    ]
    bindings = [
        {"members": [f"{SPIFFE}/blind"], "role": "blind", "resource": "vaults/default"},
        {"members": [f"{SPIFFE}/seeing"], "role": "seeing", "resource": "vaults/default"},
        {"members": [f"{SPIFFE}/creator"], "role": "creator", "resource": "vaults"},
    ]
    denies = [{"members": [f"{SPIFFE}/blind"], "permissions": permissions, "resource": FORBIDDEN}]
    return {"roles": roles, "bindings": bindings, "denies": denies}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bad")
    async with running_server(directory, policy=policy(), hsm=[hsm_section(directory / "hsm")], **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        await made.create("default", "forbidden", key_of("ENCRYPT_DECRYPT"))
        for stem in ("blind", "seeing", "creator"):
            server.add_identity(stem, uri=f"{SPIFFE}/{stem}")
        yield made


# -- unknown and forbidden ----------------------------------------------------------------------------------------------

KEY_PATHS = [
    path
    for path in SINGLES
    if path.startswith((CRYPTO, KEYS))
    and short(path)
    not in {
        *("CreateKey", "AdoptKey", "ListKeys", "GetCapabilities", "GenerateRandomBytes"),
        *("GetKey", "ListKeyVersions", "GetKeyVersion", "GetKeyUsage"),
        *("GetGrant", "ListGrants", "RevokeGrant"),
        *("CreateImportJob", "GetImportJob", "ListImportJobs", "RestoreKeyBackup"),
    }
]
"""Methods on a key whose permission is not keys.get itself."""


def aim(request, name: str):
    """The same request on another key."""
    for field in ("name", "source_name", "destination_name", "parent"):
        if field in request.DESCRIPTOR.fields_by_name:
            old = getattr(request, field)
            version = "/versions/1" if "/versions/" in old else ""
            setattr(request, field, name + version)
    if "key" in request.DESCRIPTOR.fields_by_name:
        request.key.name = name
    return request


@pytest.mark.parametrize("path", KEY_PATHS, ids=short)
async def test_unknown_and_forbidden_look_the_same_without_the_permission_to_look(world, path):
    request = await world.kept_request(path)
    client = world.server.client("blind")
    unknown = await call(client, path, aim(request, UNKNOWN))
    forbidden = await call(client, path, aim(request, FORBIDDEN))
    assert unknown.code is PERMISSION_DENIED
    assert unknown.refusal == forbidden.refusal


@pytest.mark.parametrize("path", KEY_PATHS, ids=short)
async def test_unknown_is_not_found_with_the_permission_to_look(world, path):
    request = await world.kept_request(path)
    outcome = await call(world.server.client("seeing"), path, aim(request, UNKNOWN))
    assert (outcome.code, outcome.reason) == (NOT_FOUND, "KEY_NOT_FOUND")


@pytest.mark.parametrize("path", [path for path in BATCHES if path.startswith(CRYPTO)], ids=short)
async def test_unknown_and_forbidden_items_of_a_batch_look_the_same(world, path):
    item = await world.request(single_of(path))
    batch = request_class(path)(items=[aim(item, UNKNOWN), aim(item, FORBIDDEN)])
    unknown, forbidden = (await call(world.server.client("blind"), path, batch)).message().results
    assert unknown.status.code == PERMISSION_DENIED.value[0]
    assert unknown.status == forbidden.status


@pytest.mark.parametrize("path", [f"{CRYPTO}ReEncrypt", f"{CRYPTO}BatchReEncrypt"], ids=short)
@pytest.mark.parametrize("field", ["source_name", "destination_name"])
async def test_unknown_and_forbidden_look_the_same_on_either_side_of_reencrypt(world, path, field):
    statuses = []
    for name in (UNKNOWN, FORBIDDEN):
        item = world.crypto_request("ReEncrypt")
        setattr(item, field, name)
        request = request_class(path)(items=[item]) if path in BATCHES else item
        outcome = await call(world.server.client("blind"), path, request)
        statuses.append(outcome.message().results[0].status if path in BATCHES else outcome.status)
    assert statuses[0].code == PERMISSION_DENIED.value[0]
    assert statuses[0] == statuses[1]


async def test_an_unknown_version_looks_like_a_forbidden_key_without_the_permission_to_look(world):
    outcomes = [
        await call(
            world.server.client("blind"), f"{CRYPTO}Encrypt", crypto_pb2.EncryptRequest(name=name, plaintext=b"x")
        )
        for name in (f"{FORBIDDEN}/versions/1", "vaults/default/keys/enc/versions/9")
    ]
    assert outcomes[0].code is PERMISSION_DENIED
    assert outcomes[0].refusal == outcomes[1].refusal


async def test_an_unknown_version_is_not_found_with_the_permission_to_look(world):
    request = crypto_pb2.EncryptRequest(name="vaults/default/keys/enc/versions/9", plaintext=b"x")
    outcome = await call(world.server.client("seeing"), f"{CRYPTO}Encrypt", request)
    assert (outcome.code, outcome.reason) == (NOT_FOUND, "KEY_VERSION_NOT_FOUND")


async def test_an_unknown_vault_looks_forbidden_to_a_creator_who_may_not_look(world):
    request = keys_pb2.CreateKeyRequest(parent="vaults/nowhere", key_id="a", key=key_of("MAC"))
    outcome = await call(world.server.client("creator"), f"{KEYS}CreateKey", request)
    assert outcome.code is PERMISSION_DENIED


@pytest.mark.parametrize("path", [f"{KEYS}CreateKey", f"{KEYS}ListKeys", f"{CRYPTO}GenerateRandomBytes"], ids=short)
async def test_an_unknown_vault_is_not_found_for_an_administrator(world, path):
    request = await world.request(path)
    request.parent = "vaults/nowhere"
    outcome = await call(world.admin, path, request)
    assert (outcome.code, outcome.reason) == (NOT_FOUND, "VAULT_NOT_FOUND")


# -- bytes that are no request ------------------------------------------------------------------------------------------

MALFORMED = {
    "truncated": b"\x0a\x7fvaults/default",
    "bad-tag": b"\xff" * 12,
    "open-group": b"\x0b" * 200,
    "stray-end-group": b"\x0c",
    "field-zero": b"\x00\x00",
    "wire-type-seven": b"\x0f",
    "long-varint": b"\x08" + b"\xff" * 11,
    "length-beyond-memory": b"\x0a\xff\xff\xff\xff\x0f",
}


@pytest.mark.parametrize("path", ANY, ids=short)
async def test_malformed_protobuf_is_refused_with_a_reason_on_every_method(world, path):
    for name, body in MALFORMED.items():
        outcome = await call(world.admin, path, body)
        assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "REQUEST_MALFORMED"), (path, name)


async def test_a_malformed_request_is_recorded_with_who_sent_it(tmp_path):
    async with running_server(tmp_path, **GENEROUS) as server:
        outcome = await call(server.admin, f"{CRYPTO}Encrypt", MALFORMED["truncated"])
        record = next(record for record in server.audit_records() if record.get("id") == outcome.request_id)
    assert (record["code"], record["reason"]) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    assert record["principal"] == f"{SPIFFE}/admin"


@pytest.mark.parametrize(
    "path",
    [path for path in ANY if any(field.type == field.TYPE_STRING for field in METHODS[path].input_type.fields)],
    ids=short,
)
async def test_text_that_is_not_utf_8_is_malformed(world, path):
    (first, *_) = [field for field in METHODS[path].input_type.fields if field.type == field.TYPE_STRING]
    outcome = await call(world.admin, path, bytes([first.number << 3 | 2, 2]) + b"\xc3\x28")
    assert outcome.reason == "REQUEST_MALFORMED"


@pytest.mark.parametrize("path", [path for path in ANY if path != f"{ADMIN}Seal"], ids=short)
async def test_random_bytes_never_get_more_than_a_clear_status(world, path):
    source = random.Random(path)
    codes = set()
    for size in (1, 2, 3, 5, 8, 13, 21, 64, 500):
        codes.add((await call(world.server.client("blind"), path, source.randbytes(size))).code)
    assert codes <= {OK, INVALID_ARGUMENT, PERMISSION_DENIED}


@pytest.mark.parametrize("path", [path for path in ANY if METHODS[path].input_type.fields], ids=short)
async def test_a_field_of_the_wrong_wire_type_never_passes_for_the_right_one(world, path):
    for field in METHODS[path].input_type.fields:
        length_delimited = field.type in {field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_MESSAGE}
        tag = field.number << 3 | (0 if length_delimited else 1)
        wrong = _varint(tag) + (b"\x01" if length_delimited else bytes(8))
        outcome = await call(world.server.client("blind"), path, wrong)
        assert outcome.code in {INVALID_ARGUMENT, PERMISSION_DENIED, OK}
        assert outcome.code is not OK or path == f"{ADMIN}ListVaults", field.name


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize("path", MUTATIONS, ids=short)
async def test_a_mutation_refuses_a_field_that_it_does_not_know(world, path):
    body = (await world.request(path)).SerializeToString() + _varint(900 << 3) + b"\x01"
    outcome = await call(world.admin, path, body)
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "UNKNOWN_FIELD")


@pytest.mark.parametrize("path", [f"{KEYS}CreateKey", f"{KEYS}UpdateKey", f"{ADMIN}UpdateVault"], ids=short)
async def test_a_mutation_refuses_a_field_that_it_does_not_know_inside_its_resource(world, path):
    request = await world.request(path)
    resource = request.vault if path.startswith(ADMIN) else request.key
    resource.MergeFromString(_varint(900 << 3) + b"\x01")
    outcome = await call(world.admin, path, request)
    assert outcome.reason == "UNKNOWN_FIELD"


async def test_a_read_passes_over_a_field_of_a_newer_client(world):
    body = (await world.request(f"{KEYS}GetKey")).SerializeToString() + _varint(900 << 3) + b"\x01"
    assert (await call(world.admin, f"{KEYS}GetKey", body)).code is OK


@pytest.mark.parametrize("value", [99, -1, 2**31 - 1])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{CRYPTO}Sign", "signature_encoding"),
        (f"{CRYPTO}Verify", "signature_encoding"),
        (f"{CRYPTO}GenerateRandomBytes", "protection_level"),
    ],
)
async def test_an_unknown_enum_value_is_refused(world, path, field, value):
    request = await world.request(path)
    setattr(request, field, value)
    outcome = await call(world.admin, path, request)
    assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "ENUM_UNKNOWN", [field])


@pytest.mark.parametrize("field", ["purpose", "algorithm", "protection_level"])
async def test_an_unknown_enum_value_in_a_new_key_is_refused(world, field):
    request = await world.request(f"{KEYS}CreateKey")
    setattr(request.key, field, 99)
    outcome = await call(world.admin, f"{KEYS}CreateKey", request)
    assert (outcome.code, outcome.fields) == (INVALID_ARGUMENT, [f"key.{field}"])


async def test_a_new_key_without_a_purpose_is_refused(world):
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="aimless")
    outcome = await call(world.admin, f"{KEYS}CreateKey", request)
    assert outcome.reason == "PURPOSE_REQUIRED"


async def test_an_algorithm_of_another_purpose_is_refused(world):
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="torn", key=key_of("SIGN", "AES_256_GCM"))
    outcome = await call(world.admin, f"{KEYS}CreateKey", request)
    assert outcome.reason == "ALGORITHM_PURPOSE_MISMATCH"


async def test_a_protection_level_without_a_backend_is_refused(tmp_path):
    request = keys_pb2.CreateKeyRequest(
        parent="vaults/default",
        key_id="hard",
        key=key_of("MAC", protection_level=resources_pb2.PROTECTION_LEVEL_HSM),
    )
    async with running_server(tmp_path, **GENEROUS) as server:
        outcome = await call(server.admin, f"{KEYS}CreateKey", request)
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "PROTECTION_LEVEL_UNAVAILABLE")


# -- names --------------------------------------------------------------------------------------------------------------

NASTY_IDS = [
    *("", "A", "Payments", "a_b", "a.b", "..", ".", "-a", "a-", "a b", " a", "a ", "a\n", "a\t", "a\x00", "\x00"),
    *("a/b", "/a", "a/", "a//b", "../a", "%61", "a%2fb", "a*", "*", "a?", "a#b", "a:b", "a@b", "a\\b", "~", "$a", "a'"),
    *(
        "ä",
        "\uff41",
        "\u0430",
        "e\u0301",
        "a\u200b",
        "a\u202e",
        "\ufeffa",
        "🔑",
        "İ",
        "\u0131",
        "ß",
        "\u0661",
        "a" * 64,
        "a" * 5000,
    ),
    *("root/../a", "a;b", "<script>", "{a}", "a|b", "${a}", "a,b", '"a"', "a=b"),
]
"""Nothing of this is an id."""


@pytest.mark.parametrize("name", NASTY_IDS, ids=[ascii(name)[:24] for name in NASTY_IDS])
async def test_a_nasty_key_id_is_refused_before_policy(world, name):
    requests = [
        (f"{KEYS}CreateKey", keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=name, key=key_of("MAC"))),
        (f"{KEYS}GetKey", keys_pb2.GetKeyRequest(name=f"vaults/default/keys/{name}")),
        (f"{KEYS}ListKeys", keys_pb2.ListKeysRequest(parent=f"vaults/{name}")),
        (f"{CRYPTO}Encrypt", crypto_pb2.EncryptRequest(name=f"vaults/{name}/keys/enc")),
        (f"{CRYPTO}Decrypt", crypto_pb2.DecryptRequest(name=f"vaults/default/keys/{name}")),
        (f"{CRYPTO}GenerateRandomBytes", crypto_pb2.GenerateRandomBytesRequest(parent=f"vaults/{name}")),
        (f"{ADMIN}CreateVault", admin_pb2.CreateVaultRequest(vault_id=name)),
    ]
    for path, request in requests:
        outcome = await call(world.server.client("blind"), path, request)
        assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "INVALID_NAME"), path


NASTY_NAMES = [
    *("", "/", "vaults", "vaults/", "vaults/default", "vaults/default/keys", "vaults/default/keys/", "keys/enc", "enc"),
    *("/vaults/default/keys/enc", "vaults/default/keys/enc/", "vaults//default/keys/enc", "Vaults/default/keys/enc"),
    *("vaults/default/secrets/enc", "vaults/default/keys/enc/versions", "vaults/default/keys/enc/versions/"),
    *(
        "vaults/default/keys/enc/versions/0",
        "vaults/default/keys/enc/versions/01",
        "vaults/default/keys/enc/versions/-1",
    ),
    *(
        "vaults/default/keys/enc/versions/1.0",
        "vaults/default/keys/enc/versions/+1",
        "vaults/default/keys/enc/versions/\u0661",
    ),
    *(
        "vaults/default/keys/enc/versions/1/",
        "vaults/default/keys/enc/versions/9999999999",
        "vaults/default/keys/enc\n",
    ),
    *("vaults/default/keys/enc/versions/1\n", "vaults/default/keys/enc/versions/latest", "projects/x/keys/enc"),
    *(" vaults/default/keys/enc", "vaults/default/keys/enc ", "vaults/default/../default/keys/enc"),
    "vaults/default/keys/" + "a" * 300,
]


@pytest.mark.parametrize("name", NASTY_NAMES, ids=[ascii(name)[-24:] for name in NASTY_NAMES])
async def test_a_nasty_key_name_is_refused_on_every_method_that_names_one_key(world, name):
    for method in SINGLE_KEY_CALLS:
        request = request_class(CRYPTO + method)(name=name)
        outcome = await call(world.server.client("blind"), CRYPTO + method, request)
        assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "INVALID_NAME", ["name"]), method


@pytest.mark.parametrize("method", ["SetPrimaryVersion", "EnableKeyVersion", "DestroyKeyVersion"])
async def test_a_method_on_versions_refuses_the_name_of_a_key(world, method):
    request = getattr(keys_pb2, f"{method}Request")(name="vaults/default/keys/enc")
    assert (await call(world.admin, KEYS + method, request)).reason == "INVALID_NAME"


@pytest.mark.parametrize("method", ["GetKey", "RotateKey", "DeleteKey", "PurgeKey", "GetKeyUsage"])
async def test_a_method_on_keys_refuses_the_name_of_a_version(world, method):
    request = getattr(keys_pb2, f"{method}Request")(name="vaults/default/keys/enc/versions/1")
    assert (await call(world.admin, KEYS + method, request)).reason == "INVALID_NAME"


async def test_the_longest_id_is_accepted(world):
    assert await world.create("default", "a" * 63, key_of("MAC")) == f"vaults/default/keys/{'a' * 63}"


@pytest.mark.parametrize("request_id", ["a b", "a_b", "ä", "a\n", "a/b", "a" * 65, "\x00"], ids=ascii)
async def test_a_nasty_request_id_is_refused(world, request_id):
    request = await world.request(f"{KEYS}CreateKey")
    request.request_id = request_id
    outcome = await call(world.admin, f"{KEYS}CreateKey", request)
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "INVALID_REQUEST_ID")


# -- limits -------------------------------------------------------------------------------------------------------------

KIB = 1024
BYTES = {
    "plaintext": 64 * KIB,
    "associated_data": 64 * KIB,
    "source_associated_data": 64 * KIB,
    "destination_associated_data": 64 * KIB,
    "message": 64 * KIB,
    "data": 64 * KIB,
    "digest": 64,
    "signature": 8 * KIB,
    "mac": 64,
    "key_material": 8 * KIB,
    "wrapped_key": 8 * KIB + 8,
    "ciphertext": 66 * KIB,
    "peer_public_key": KIB,
    "passphrase": KIB,
    "chain_id": 16,
    "leaf_hash": 32,
    "payload": 64 * KIB,
    "recipient_public_key": 32,
    "recipient_context": KIB,
    "public_key_raw": 2 * KIB,
    "backup": 3584 * KIB,
}
"""Field -> most bytes, as the comments of the protos have it."""
EXCEPTIONS = {"DecapsulateRequest.ciphertext": 1568, "ImportKeyVersionRequest.wrapped_key": 16 * KIB}
TEXTS = {
    "page_token": 512,
    "request_id": 64,
    "principal": 2_048,
    "method": 256,
    "grantee": 2048,
    "reason": 256,
    "content_type": 128,
    "public_key_pem": 4 * KIB,
}
SPELLED = {"RevokeIdentityRequest.principal", "RestoreIdentityRequest.principal"}
"""Refused for its spelling, whatever its size: test_revocation.py."""
NUMBERS = {
    "GenerateDataKeyRequest.length_bytes": (0, 1024),
    "GenerateDataKeyRequest.count": (0, 100),
    "GenerateRandomBytesRequest.length_bytes": (1, 65_536),
}
TESTED_ELSEWHERE = {
    *("name", "parent", "source_name", "destination_name", "key_id", "vault_id", "etag", "items", "page_size"),
    *("key", "token_key", "vault", "update_mask", "admin_principals", "quota_id", "quota", "grant", "rules"),
    # test_secrets.py
    *("secret", "secret_id", "version_metadata", "metadata", "expire_time", "expected_etag", "if_version_not"),
    *("alias", "version"),
    # test_key_transfer.py
    *("import_job", "import_job_id", "prior_messages"),
    # test_policy_api.py
    *("resource", "policy", "policy_resource", "permissions", "circumstances", "incident_id", "unused_for"),
    # test_audit_proofs.py
    *("sequence", "tree_size", "first_sequence", "max_records"),
}


def fields_of_all_requests():
    """(path, field) of every request; of a batch the fields of its items."""
    for path in SINGLES:
        for field in METHODS[path].input_type.fields:
            yield path, field


def limit_of(field: FieldDescriptor) -> int | None:
    full = f"{field.containing_type.name}.{field.name}"
    if field.type == field.TYPE_BYTES:
        return EXCEPTIONS.get(full, BYTES[field.name])
    return TEXTS.get(field.name) if field.type == field.TYPE_STRING and full not in SPELLED else None


SIZED = [
    pytest.param(path, field.name, limit_of(field), id=f"{short(path)}.{field.name}")
    for path, field in fields_of_all_requests()
    if limit_of(field) is not None
]


async def test_every_field_of_every_request_has_a_limit_that_is_tested():
    untested = [
        field.full_name
        for _, field in fields_of_all_requests()
        if limit_of(field) is None
        and f"{field.containing_type.name}.{field.name}" not in NUMBERS
        and field.name not in TESTED_ELSEWHERE
        and f"{field.containing_type.name}.{field.name}" not in SPELLED
        and field.type not in {field.TYPE_BOOL, field.TYPE_ENUM}
        and not field.name.endswith("_crc32c")
    ]
    assert untested == []


def filled(field: FieldDescriptor, size: int):
    return b"a" * size if field.type == field.TYPE_BYTES else "a" * size


@pytest.mark.parametrize(("path", "field", "limit"), SIZED)
async def test_a_field_one_over_its_limit_is_refused_by_its_name(world, path, field, limit):
    request = await world.request(path)
    setattr(request, field, filled(METHODS[path].input_type.fields_by_name[field], limit + 1))
    outcome = await call(world.admin, path, request)
    assert (outcome.code, outcome.fields) == (INVALID_ARGUMENT, [field])
    assert outcome.reason in {"FIELD_SIZE", "INVALID_REQUEST_ID", "PAYLOAD_TOO_LARGE"}


REFUSED_LATER = {
    "Decrypt.ciphertext": ["DECRYPTION_FAILED"],
    "Decrypt.associated_data": ["DECRYPTION_FAILED"],
    "ReEncrypt.ciphertext": ["DECRYPTION_FAILED"],
    "ReEncrypt.source_associated_data": ["DECRYPTION_FAILED"],
    "Sign.digest": ["DIGEST_LENGTH"],
    "Verify.digest": ["DIGEST_LENGTH"],
    "UnwrapKey.wrapped_key": ["DECRYPTION_FAILED"],
    "Decapsulate.ciphertext": ["CIPHERTEXT_LENGTH"],
    "DeriveSharedSecret.peer_public_key": ["PEER_PUBLIC_KEY"],
    "InspectCiphertext.ciphertext": ["NOT_OF_THIS_KEY"],
    "ListKeys.page_token": ["PAGE_TOKEN"],
    "ListKeyVersions.page_token": ["PAGE_TOKEN"],
    "ListGrants.page_token": ["PAGE_TOKEN"],
    "ListImportJobs.page_token": ["PAGE_TOKEN"],
    "ImportKeyVersion.wrapped_key": ["UNWRAP_FAILED"],
    "ExportKeyVersion.public_key_pem": ["PUBLIC_KEY_MISMATCH"],
    "ExportKeyVersion.public_key_raw": ["PUBLIC_KEY_MISMATCH"],
    "RestoreKeyBackup.backup": ["KEY_BACKUP_UNREADABLE"],
    "ListApprovals.page_token": ["PAGE_TOKEN"],
    "ListVaults.page_token": ["PAGE_TOKEN"],
    "ListQuotas.page_token": ["PAGE_TOKEN"],
    "ListOwnQuotas.method": ["QUOTA_METHOD_UNKNOWN"],
    "ReviewAccess.page_token": ["PAGE_TOKEN"],
    "ExplainAccess.method": ["METHOD_NAME"],
    "ListSecrets.page_token": ["PAGE_TOKEN"],
    "ListSecretVersions.page_token": ["PAGE_TOKEN"],
    "ListRotations.page_token": ["PAGE_TOKEN"],
    "AccessSecretVersion.recipient_context": ["RECIPIENT_MISSING"],
    "ListRevokedIdentities.page_token": ["PAGE_TOKEN"],
    "GetInclusionProof.chain_id": ["AUDIT_RECORD_NOT_FOUND"],
    "GetInclusionProof.leaf_hash": ["AUDIT_RECORD_NOT_FOUND"],
    "GetConsistencyProof.chain_id": ["AUDIT_RECORD_NOT_FOUND"],
    "VerifyAudit.chain_id": ["AUDIT_RECORD_NOT_FOUND"],
    "Init.passphrase": ["PASSPHRASE_REFUSED"],
    "Unseal.passphrase": ["PASSPHRASE_REFUSED"],
    "RotateRootKey.passphrase": ["PASSPHRASE_REFUSED"],
}
"""A value of the greatest size is not the right value everywhere: why it is refused then."""


@pytest.mark.parametrize(("path", "field", "limit"), SIZED)
async def test_a_field_at_its_limit_is_not_refused_for_its_size(world, path, field, limit):
    request = await world.request(path)
    setattr(request, field, filled(METHODS[path].input_type.fields_by_name[field], limit))
    outcome = await call(world.admin, path, request)
    reason = outcome.reason if outcome.code is not OK else ""
    assert reason in {"", *REFUSED_LATER.get(f"{short(path)}.{field}", ())}


@pytest.mark.parametrize("full", NUMBERS)
async def test_a_number_within_its_range_passes_and_one_beyond_does_not(world, full):
    request_name, field = full.split(".")
    path = CRYPTO + request_name.removesuffix("Request")
    low, high = NUMBERS[full]
    codes = []
    for value in (low - 1, low, high, high + 1, 2**31 - 1, -(2**31)):
        request = await world.request(path)
        setattr(request, field, value)
        outcome = await call(world.admin, path, request)
        codes.append((outcome.code, outcome.reason if outcome.code is not OK else ""))
    refused = (INVALID_ARGUMENT, "FIELD_RANGE")
    assert codes == [refused, (OK, ""), (OK, ""), refused, refused, refused]


@pytest.mark.parametrize("field", ["signature", "mac", "key_material", "wrapped_key", "peer_public_key"])
async def test_a_required_value_may_not_be_empty(world, field):
    (path,) = {
        path
        for path in SINGLES
        if field in METHODS[path].input_type.fields_by_name and not short(path).startswith(("Generate", "Import"))
    }
    request = await world.request(path)
    request.ClearField(field)
    outcome = await call(world.admin, path, request)
    assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "FIELD_SIZE", [field])


LISTS = [path for path in SINGLES if "page_size" in METHODS[path].input_type.fields_by_name]


@pytest.mark.parametrize("path", LISTS, ids=short)
async def test_a_page_size_above_the_most_is_taken_as_the_most_and_a_negative_one_is_refused(world, path):
    codes = []
    for size in (0, 1000, 1001, 2**31 - 1, -1):
        request = await world.request(path)
        request.page_size = size
        codes.append((await call(world.admin, path, request)).code)
    assert codes == [OK, OK, OK, OK, INVALID_ARGUMENT]


ETAGGED = [path for path in SINGLES if "etag" in METHODS[path].input_type.fields_by_name]


@pytest.mark.parametrize("path", ETAGGED, ids=short)
async def test_an_etag_that_no_server_gave_is_refused(world, path):
    for etag in ("1", '"a"', '""', f'"{"1" * 21}"', '"1', '"1"\n', "\x00", '"\u0661"'):
        request = await world.request(path) if etag == "1" else await world.kept_request(path)
        request.etag = etag
        outcome = await call(world.admin, path, request)
        assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "ETAG_MALFORMED"), etag


LABELS = {
    "64-labels": ({f"k{n}": "v" for n in range(64)}, True),
    "65-labels": ({f"k{n}": "v" for n in range(65)}, False),
    "key-of-63": ({"k" * 63: "v"}, True),
    "key-of-64": ({"k" * 64: "v"}, False),
    "value-of-63": ({"k": "v" * 63}, True),
    "value-of-64": ({"k": "v" * 64}, False),
    "empty-value": ({"k": ""}, True),
    "empty-key": ({"": "v"}, False),
    "key-in-capitals": ({"Kind": "v"}, False),
    "key-of-digits": ({"1": "v"}, False),
    "newline-in-value": ({"k": "v\n"}, False),
    "unicode-value": ({"k": "ä"}, False),
}


@pytest.mark.parametrize("case", LABELS)
async def test_labels_keep_to_their_limits_in_keys_and_vaults(world, case):
    labels, fits = LABELS[case]
    key = await world.request(f"{KEYS}CreateKey")
    key.key.labels.update(labels)
    vault = await world.request(f"{ADMIN}CreateVault")
    vault.vault.labels.update(labels)
    outcomes = [await call(world.admin, f"{KEYS}CreateKey", key), await call(world.admin, f"{ADMIN}CreateVault", vault)]
    reasons = [outcome.reason if outcome.code is not OK else "" for outcome in outcomes]
    assert reasons == ([""] * 2 if fits else ["LABELS"] * 2)


@pytest.mark.parametrize(
    ("text", "fits"), [("a" * 256, True), ("ä" * 256, True), ("a" * 257, False), ("a\n", False), ("\x1b[1m", False)]
)
async def test_a_display_name_is_at_most_256_printable_characters(world, text, fits):
    request = await world.request(f"{ADMIN}CreateVault")
    request.vault.display_name = text
    outcome = await call(world.admin, f"{ADMIN}CreateVault", request)
    assert outcome.code is (OK if fits else INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("field", "seconds", "reason"),
    [
        ("rotation_period", 3599, "ROTATION_PERIOD_RANGE"),
        ("rotation_period", 3600, ""),
        ("rotation_period", 36_525 * 86_400, ""),
        ("rotation_period", 36_525 * 86_400 + 1, "ROTATION_PERIOD_RANGE"),
        ("rotation_period", -1, "DURATION_RANGE"),
        ("rotation_period", 2**62, "DURATION_RANGE"),
        ("destroy_scheduled_duration", 0, ""),
        ("destroy_scheduled_duration", 120 * 86_400, ""),
        ("destroy_scheduled_duration", 120 * 86_400 + 1, "DESTROY_DELAY_RANGE"),
        ("destroy_scheduled_duration", -(2**62), "DURATION_RANGE"),
        ("expire_time", 1, "EXPIRE_TIME_PAST"),
        ("expire_time", 253_402_300_799, ""),
        ("expire_time", 253_402_300_800, "TIME_RANGE"),
        ("expire_time", -1, "TIME_RANGE"),
        ("next_rotation_time", 2**40, "TIME_RANGE"),
        ("next_rotation_time", 4_000_000_000, "ROTATION_PERIOD_MISSING"),
    ],
)
async def test_times_and_durations_of_a_new_key_keep_to_their_limits(world, field, seconds, reason):
    request = await world.request(f"{KEYS}CreateKey")
    getattr(request.key, field).seconds = seconds
    outcome = await call(world.admin, f"{KEYS}CreateKey", request)
    assert (outcome.reason if outcome.code is not OK else "") == reason


@pytest.mark.parametrize("nanos", [-1, 1_000_000_000, 2**31 - 1])
async def test_nanoseconds_out_of_range_are_refused(world, nanos):
    request = await world.request(f"{KEYS}CreateKey")
    request.key.expire_time.seconds = 4_000_000_000
    request.key.expire_time.nanos = nanos
    assert (await call(world.admin, f"{KEYS}CreateKey", request)).reason == "TIME_RANGE"


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ([], "UPDATE_MASK"),
        (["labels"] * 32, ""),
        (["labels"] * 33, "UPDATE_MASK"),
        (["*"], ""),
        (["*", "labels"], "UPDATE_MASK"),
        (["name"], "UPDATE_MASK"),
        (["labels.team"], "UPDATE_MASK"),
        (["Labels"], "UPDATE_MASK"),
        ([""], "UPDATE_MASK"),
    ],
)
@pytest.mark.parametrize("path", [f"{KEYS}UpdateKey", f"{ADMIN}UpdateVault"], ids=short)
async def test_an_update_mask_names_fields_that_may_change(world, path, paths, reason):
    request = await world.request(path)
    request.update_mask.CopyFrom(field_mask_pb2.FieldMask(paths=paths))
    outcome = await call(world.admin, path, request)
    assert (outcome.reason if outcome.code is not OK else "") == reason


@pytest.mark.parametrize(
    "principals",
    [
        [],
        [f"{SPIFFE}/a{n}" for n in range(17)],
        [f"{SPIFFE}/{'a' * 2049}"],
        ["admin"],
        ["group:ops"],
        [f"{SPIFFE}/a"] * 2,
    ],
    ids=["none", "17", "too-long", "no-principal", "group", "twice"],
)
async def test_first_administrators_must_be_1_to_16_principals(tmp_path, principals):
    async with running_server(tmp_path, initialize=False, **GENEROUS) as server:
        request = admin_pb2.InitRequest(admin_principals=principals)
        outcome = await call(server.admin, f"{ADMIN}Init", request)
        state = (await server.admin.admin.GetStatus(admin_pb2.GetStatusRequest())).seal_state
    assert outcome.code is INVALID_ARGUMENT
    assert state == admin_pb2.SEAL_STATE_UNINITIALIZED


async def test_sixteen_first_administrators_are_accepted(tmp_path):
    async with running_server(tmp_path, initialize=False, **GENEROUS) as server:
        request = admin_pb2.InitRequest(admin_principals=[f"{SPIFFE}/a{n}" for n in range(16)])
        status = await server.admin.admin.Init(request)
    assert status.seal_state == admin_pb2.SEAL_STATE_UNSEALED


# -- purposes and states ------------------------------------------------------------------------------------------------

FITTING = {
    "Encrypt": {"enc", "det", "oaep", "hpke"},
    "Decrypt": {"enc", "det", "oaep", "hpke"},
    "ReEncrypt": {"enc", "det", "oaep", "hpke"},
    "Sign": {"sign"},
    "Verify": {"sign"},
    "GenerateMac": {"mac"},
    "VerifyMac": {"mac"},
    "WrapKey": {"wrap"},
    "UnwrapKey": {"wrap"},
    "GenerateDataKey": {"enc"},
    "Encapsulate": {"kem"},
    "Decapsulate": {"kem"},
    "DeriveSharedSecret": {"agree"},
    "InspectCiphertext": {"enc", "det"},
}


async def test_every_method_that_uses_a_key_says_which_purposes_fit():
    assert FITTING.keys() == {short(path) for path in SINGLES if path.startswith(CRYPTO)} - {"GenerateRandomBytes"}


@pytest.mark.parametrize("method", FITTING)
@pytest.mark.parametrize("key_id", PURPOSE_KEYS)
async def test_a_key_of_another_purpose_is_refused_and_of_the_right_one_is_not(world, method, key_id):
    request = world.crypto_request(method, key_name=f"vaults/default/keys/{key_id}")
    outcome = await call(world.admin, CRYPTO + method, request)
    wrong = outcome.code is FAILED_PRECONDITION and outcome.reason == "WRONG_PURPOSE"
    assert wrong is (key_id not in FITTING[method])


@pytest.mark.parametrize("key_id", ["sign", "mac", "wrap", "kem", "agree"])
async def test_a_destination_of_another_purpose_is_refused(world, key_id):
    request = world.crypto_request("ReEncrypt")
    request.destination_name = f"vaults/default/keys/{key_id}"
    outcome = await call(world.admin, f"{CRYPTO}ReEncrypt", request)
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "WRONG_PURPOSE")


@pytest.mark.parametrize("key_id", ["enc", "det", "wrap", "mac"])
async def test_a_symmetric_key_has_no_public_key_to_give(world, key_id):
    request = keys_pb2.GetPublicKeyRequest(name=f"vaults/default/keys/{key_id}")
    outcome = await call(world.admin, f"{KEYS}GetPublicKey", request)
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "NO_PUBLIC_KEY")


@pytest.mark.parametrize("method", [name for name in FITTING if name not in {"ReEncrypt", "InspectCiphertext"}])
@pytest.mark.parametrize("state", ["DISABLED", "DESTROY_SCHEDULED", "DESTROYED"])
async def test_a_version_out_of_use_refuses_every_use(world, state, method):
    key_id = SINGLE_KEY_CALLS[method][0]
    key = key_of(*PURPOSE_KEYS[key_id])
    if state == "DESTROYED":
        key.destroy_scheduled_duration.SetInParent()
    name = await world.create("default", world.fresh_id(), key)
    request = world.crypto_request(method, key_name=name)
    if method == "Decrypt":
        sealed = await world.admin.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"x"))
        request.ciphertext = sealed.ciphertext
    version = f"{name}/versions/1"
    if state == "DISABLED":
        await world.admin.keys.DisableKeyVersion(keys_pb2.DisableKeyVersionRequest(name=version))
    else:
        await world.admin.keys.DestroyKeyVersion(keys_pb2.DestroyKeyVersionRequest(name=version))
    if state == "DESTROYED":
        await world.server.server.engine.scheduler.tick()
    outcome = await call(world.admin, CRYPTO + method, request)
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, f"KEY_VERSION_{state}")


@pytest.mark.parametrize("method", [name for name in FITTING if name != "ReEncrypt"])
async def test_a_deleted_key_refuses_every_use(world, method):
    name = await world.fresh_key(purpose=SINGLE_KEY_CALLS[method][0])
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=name))
    outcome = await call(world.admin, CRYPTO + method, world.crypto_request(method, key_name=name))
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "KEY_DELETED")


async def test_a_purged_key_is_not_found(world):
    name = await world.fresh_key()
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=name))
    await world.admin.keys.PurgeKey(keys_pb2.PurgeKeyRequest(name=name))
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", crypto_pb2.EncryptRequest(name=name))
    assert (outcome.code, outcome.reason) == (NOT_FOUND, "KEY_NOT_FOUND")


async def test_a_key_that_is_not_deleted_is_not_purged(world):
    request = keys_pb2.PurgeKeyRequest(name=await world.fresh_key())
    outcome = await call(world.admin, f"{KEYS}PurgeKey", request)
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "KEY_NOT_DELETED")


async def test_the_name_of_a_key_is_taken_for_ever(world):
    name = await world.fresh_key()
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=name))
    await world.admin.keys.PurgeKey(keys_pb2.PurgeKeyRequest(name=name))
    request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=name.rpartition("/")[2], key=key_of("MAC"))
    outcome = await call(world.admin, f"{KEYS}CreateKey", request)
    assert (outcome.code, outcome.reason) == (ALREADY_EXISTS, "KEY_EXISTS")


async def test_a_vault_with_keys_is_not_deleted(world):
    outcome = await call(world.admin, f"{ADMIN}DeleteVault", admin_pb2.DeleteVaultRequest(name="vaults/default"))
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "VAULT_NOT_EMPTY")


# -- ciphertexts that do not open ---------------------------------------------------------------------------------------

OPENING = {"enc": "Decrypt", "det": "Decrypt", "oaep": "Decrypt", "hpke": "Decrypt", "wrap": "UnwrapKey"}


async def sealed_with(world, key_id: str) -> bytes:
    name = f"vaults/default/keys/{key_id}"
    if key_id == "wrap":
        answer = await world.admin.crypto.WrapKey(
            crypto_pb2.WrapKeyRequest(name=name, key_material=b"0123456789abcdef")
        )
        return answer.wrapped_key
    return (await world.admin.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"plain text"))).ciphertext


def opening(key_id: str, ciphertext: bytes, **fields):
    name = f"vaults/default/keys/{key_id}"
    if key_id == "wrap":
        return crypto_pb2.UnwrapKeyRequest(name=name, wrapped_key=ciphertext)
    return crypto_pb2.DecryptRequest(name=name, ciphertext=ciphertext, **fields)


async def failure(world) -> tuple:
    """What a ciphertext that is plainly wrong gets."""
    return (await call(world.admin, f"{CRYPTO}Decrypt", opening("enc", b""))).refusal


async def test_a_ciphertext_that_does_not_open_has_its_reason(world):
    outcome = await call(world.admin, f"{CRYPTO}Decrypt", opening("enc", b""))
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "DECRYPTION_FAILED")


@pytest.mark.parametrize("key_id", OPENING)
async def test_a_ciphertext_cut_at_any_length_fails_like_every_other(world, key_id):
    sealed = await sealed_with(world, key_id)
    path, least = CRYPTO + OPENING[key_id], 1 if key_id == "wrap" else 0
    cut = [opening(key_id, sealed[:size]) for size in range(least, len(sealed))]
    outcomes = await call_each(world.admin, path, cut)
    assert {outcome.refusal for outcome in outcomes} == {await failure(world)}


@pytest.mark.parametrize("key_id", OPENING)
async def test_a_ciphertext_with_bytes_added_fails_like_every_other(world, key_id):
    sealed = await sealed_with(world, key_id)
    path = CRYPTO + OPENING[key_id]
    outcomes = [await call(world.admin, path, opening(key_id, sealed + bytes(n))) for n in (1, 7, 8, 16)]
    assert {outcome.refusal for outcome in outcomes} == {await failure(world)}


@pytest.mark.parametrize("key_id", ["enc", "det", "hpke", "wrap"])
async def test_a_ciphertext_with_any_bit_flipped_fails_like_every_other(world, key_id):
    sealed = await sealed_with(world, key_id)
    flipped = [opening(key_id, _flip(sealed, bit)) for bit in range(8 * len(sealed))]
    outcomes = await call_each(world.admin, CRYPTO + OPENING[key_id], flipped)
    assert {outcome.refusal for outcome in outcomes} == {await failure(world)}


async def test_an_oaep_ciphertext_with_a_bit_of_any_byte_flipped_fails_like_every_other(world):
    sealed = await sealed_with(world, "oaep")
    flipped = [opening("oaep", _flip(sealed, 8 * at + at % 8)) for at in range(len(sealed))]
    outcomes = await call_each(world.admin, f"{CRYPTO}Decrypt", flipped)
    assert {outcome.refusal for outcome in outcomes} == {await failure(world)}


def _flip(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ (1 << bit)).to_bytes(len(data), "big")


@pytest.mark.parametrize("key_id", ["enc", "det", "hpke"])
async def test_wrong_associated_data_fails_like_every_other(world, key_id):
    sealed = await sealed_with(world, key_id)
    outcome = await call(world.admin, f"{CRYPTO}Decrypt", opening(key_id, sealed, associated_data=b"wrong"))
    assert outcome.refusal == await failure(world)


@pytest.mark.parametrize("key_id", OPENING)
async def test_a_ciphertext_of_another_key_fails_like_every_other(world, key_id):
    name = await world.fresh_key(purpose=key_id)
    sealed = await sealed_with(world, key_id)
    request = opening(key_id, sealed)
    request.name = name
    outcome = await call(world.admin, CRYPTO + OPENING[key_id], request)
    assert outcome.refusal == await failure(world)


async def test_a_ciphertext_of_another_version_than_the_named_one_fails_like_every_other(world):
    name = await world.fresh_key()
    old = await world.admin.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"x"))
    await world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name))
    request = crypto_pb2.DecryptRequest(name=f"{name}/versions/2", ciphertext=old.ciphertext)
    outcome = await call(world.admin, f"{CRYPTO}Decrypt", request)
    assert outcome.refusal == await failure(world)


async def test_a_header_changed_to_another_existing_version_fails_like_every_other(world):
    name = await world.fresh_key()
    old = (await world.admin.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"x"))).ciphertext
    await world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name))
    forged = old[:17] + (2).to_bytes(4, "big") + old[21:]
    outcome = await call(world.admin, f"{CRYPTO}Decrypt", crypto_pb2.DecryptRequest(name=name, ciphertext=forged))
    assert outcome.refusal == await failure(world)


async def test_a_batch_item_that_does_not_open_has_the_status_of_the_single_call(world):
    sealed = await sealed_with(world, "enc")
    batch = crypto_pb2.BatchDecryptRequest(items=[opening("enc", sealed), opening("enc", _flip(sealed, 0))])
    good, bad = (await call(world.admin, f"{CRYPTO}BatchDecrypt", batch)).message().results
    assert good.result.plaintext == b"plain text"
    assert (bad.status.message, bad.status.SerializeToString()) == (await failure(world))[1:]


async def test_reencrypt_of_what_does_not_open_fails_like_every_other(world):
    request = world.crypto_request("ReEncrypt")
    request.ciphertext = b"nonsense"
    assert (await call(world.admin, f"{CRYPTO}ReEncrypt", request)).refusal == await failure(world)


async def test_associated_data_is_refused_where_it_would_be_bound_to_nothing(world):
    for path, request in (
        (f"{CRYPTO}Encrypt", crypto_pb2.EncryptRequest(name="vaults/default/keys/oaep", associated_data=b"x")),
        (f"{CRYPTO}Decrypt", opening("oaep", bytes(256), associated_data=b"x")),
    ):
        outcome = await call(world.admin, path, request)
        assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "CONTEXT_NOT_SUPPORTED"), path


@pytest.mark.parametrize("size", [1, 1087, 1089, 1568])
async def test_an_encapsulation_of_the_wrong_length_is_refused(world, size):
    request = crypto_pb2.DecapsulateRequest(name="vaults/default/keys/kem", ciphertext=bytes(size))
    outcome = await call(world.admin, f"{CRYPTO}Decapsulate", request)
    assert outcome.code is INVALID_ARGUMENT


PEERS = {
    "short": bytes(31),
    "long": bytes(33),
    "all-zero": bytes(32),
    "order-one": b"\x01" + bytes(31),
    "der-of-nothing": b"0\x00",
    "random": random.Random(7).randbytes(1024),
}


@pytest.mark.parametrize("case", PEERS)
async def test_a_bad_public_key_of_a_peer_is_refused(world, case):
    request = crypto_pb2.DeriveSharedSecretRequest(name="vaults/default/keys/agree", peer_public_key=PEERS[case])
    outcome = await call(world.admin, f"{CRYPTO}DeriveSharedSecret", request)
    assert outcome.code is INVALID_ARGUMENT


async def test_sign_without_an_input_is_refused(world):
    request = crypto_pb2.SignRequest(name="vaults/default/keys/sign")
    assert (await call(world.admin, f"{CRYPTO}Sign", request)).reason == "INPUT_MISSING"


@pytest.mark.parametrize("size", [0, 31, 33, 64])
async def test_a_digest_of_the_wrong_length_is_refused(world, size):
    request = crypto_pb2.SignRequest(name="vaults/default/keys/sign", digest=bytes(size))
    assert (await call(world.admin, f"{CRYPTO}Sign", request)).reason == "DIGEST_LENGTH"


# -- checksums ----------------------------------------------------------------------------------------------------------

SUMMED = [
    pytest.param(path, field.name, id=f"{short(path)}.{field.name}")
    for path, field in fields_of_all_requests()
    if field.name.endswith("_crc32c")
]
COVERED = {"input_crc32c": "message"}


@pytest.mark.parametrize(("path", "field"), SUMMED)
async def test_a_checksum_that_does_not_match_is_refused(world, path, field):
    request = await world.request(path)
    data = getattr(request, COVERED.get(field, field.removesuffix("_crc32c")))
    setattr(request, field, crc32c(data) ^ 1)
    outcome = await call(world.admin, path, request)
    assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "CHECKSUM_MISMATCH", [field])


@pytest.mark.parametrize(("path", "field"), SUMMED)
async def test_a_checksum_that_matches_is_accepted(world, path, field):
    request = await world.request(path)
    data = getattr(request, COVERED.get(field, field.removesuffix("_crc32c")))
    setattr(request, field, crc32c(data))
    assert (await call(world.admin, path, request)).code is OK


ANSWERED_SUMS = {
    "Encrypt": ("plaintext", "ciphertext"),
    "Decrypt": ("ciphertext", "plaintext"),
    "ReEncrypt": ("ciphertext", "ciphertext"),
    "Sign": ("input", "signature"),
    "GenerateMac": ("data", "mac"),
    "WrapKey": ("key_material", "wrapped_key"),
    "UnwrapKey": ("wrapped_key", "key_material"),
}


@pytest.mark.parametrize("method", ANSWERED_SUMS)
async def test_an_answer_carries_a_checksum_when_the_request_did_and_not_otherwise(world, method):
    given, answered = ANSWERED_SUMS[method]
    request = world.crypto_request(method)
    plain = (await call(world.admin, CRYPTO + method, request)).message()
    data = getattr(request, COVERED.get(f"{given}_crc32c", given))
    setattr(request, f"{given}_crc32c", crc32c(data))
    summed = (await call(world.admin, CRYPTO + method, request)).message()
    assert not plain.HasField(f"{answered}_crc32c")
    assert getattr(summed, f"{answered}_crc32c") == crc32c(getattr(summed, answered))


# -- batches and sizes --------------------------------------------------------------------------------------------------


async def test_more_calls_at_once_than_streams_of_a_connection_are_all_answered(world):
    request = world.crypto_request("GenerateRandomBytes")
    calls = [call(world.admin, f"{CRYPTO}GenerateRandomBytes", request) for _ in range(200)]
    outcomes = await asyncio.gather(*calls)
    assert {(outcome.code, outcome.text) for outcome in outcomes} == {(OK, "")}


@pytest.mark.parametrize("path", BATCHES, ids=short)
async def test_an_empty_batch_is_refused(world, path):
    outcome = await call(world.admin, path, request_class(path)())
    assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "BATCH_SIZE", ["items"])


@pytest.mark.parametrize("path", BATCHES, ids=short)
async def test_a_batch_of_one_item_too_many_is_refused(world, path):
    item = GetMessageClass(METHODS[path].input_type.fields_by_name["items"].message_type)()
    outcome = await call(world.admin, path, request_class(path)(items=[item] * 10_001))
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "BATCH_SIZE")


async def test_a_batch_of_ten_thousand_items_is_answered_item_by_item_in_order(world):
    items = [crypto_pb2.GenerateMacRequest(name="vaults/default/keys/mac", data=b"%d" % (n % 7)) for n in range(10_000)]
    outcome = await call(world.admin, f"{CRYPTO}BatchGenerateMac", crypto_pb2.BatchGenerateMacRequest(items=items))
    codes = [result.result.mac for result in outcome.message().results]
    assert len(codes) == 10_000
    assert codes == codes[:7] * 1428 + codes[:4]
    assert len(set(codes)) == 7


async def test_ten_thousand_items_that_all_fail_fit_into_one_answer(world):
    items = [crypto_pb2.EncryptRequest(name="Nonsense")] * 10_000
    outcome = await call(world.admin, f"{CRYPTO}BatchEncrypt", crypto_pb2.BatchEncryptRequest(items=items))
    assert len(outcome.message().results) == 10_000
    assert verdicts(outcome) == {(INVALID_ARGUMENT, "INVALID_NAME")}


async def test_answers_that_do_not_fit_say_so_and_the_others_arrive(world):
    item = crypto_pb2.EncryptRequest(name="vaults/default/keys/enc", plaintext=bytes(360))
    outcome = await call(world.admin, f"{CRYPTO}BatchEncrypt", crypto_pb2.BatchEncryptRequest(items=[item] * 10_000))
    results = outcome.message().results
    answered = [result for result in results if result.HasField("result")]
    refused = [result.status for result in results if result.HasField("status")]
    assert len(outcome.body) <= 4 * MIB
    assert len(results) == len(answered) + len(refused) == 10_000
    assert len(answered) > 5_000
    assert {(status.code, reason_in(status)) for status in refused} == {
        (RESOURCE_EXHAUSTED.value[0], "ANSWER_TOO_LARGE")
    }


async def test_a_small_answer_still_fits_after_a_large_one_did_not(world):
    large = crypto_pb2.EncryptRequest(name="vaults/default/keys/enc", plaintext=bytes(64_000))
    small = crypto_pb2.EncryptRequest(name="vaults/default/keys/enc", plaintext=b"x")
    fill = crypto_pb2.EncryptRequest(name="vaults/default/keys/enc", plaintext=bytes(1050))
    items = [fill] * 3_300 + [large] * 9 + [small] * 10
    outcome = await call(world.admin, f"{CRYPTO}BatchEncrypt", crypto_pb2.BatchEncryptRequest(items=items))
    results = outcome.message().results
    assert results[3_308].status.code == RESOURCE_EXHAUSTED.value[0]
    assert [result.WhichOneof("outcome") for result in results[-10:]] == ["result"] * 10


async def test_a_bad_item_fails_alone_among_good_ones(world):
    good = crypto_pb2.EncryptRequest(name="vaults/default/keys/enc", plaintext=b"x")
    bad = [
        (crypto_pb2.EncryptRequest(name="Nonsense"), "INVALID_NAME"),
        (crypto_pb2.EncryptRequest(name=good.name, plaintext=bytes(65_537)), "FIELD_SIZE"),
        (crypto_pb2.EncryptRequest(name=UNKNOWN), "KEY_NOT_FOUND"),
        (crypto_pb2.EncryptRequest(name="vaults/default/keys/mac"), "WRONG_PURPOSE"),
        (crypto_pb2.EncryptRequest(name=good.name, plaintext_crc32c=1), "CHECKSUM_MISMATCH"),
    ]
    items = [item for one, _ in bad for item in (good, one)]
    outcome = await call(world.admin, f"{CRYPTO}BatchEncrypt", crypto_pb2.BatchEncryptRequest(items=items))
    results = outcome.message().results
    assert [result.WhichOneof("outcome") for result in results] == ["result", "status"] * len(bad)
    assert [reason_in(result.status) for result in results[1::2]] == [reason for _, reason in bad]


async def test_a_message_of_more_than_4_mib_is_refused(world):
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", bytes(4 * MIB + 1))
    assert outcome.code is RESOURCE_EXHAUSTED


async def test_a_message_of_exactly_4_mib_is_read(world):
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", b"\xff" * (4 * MIB))
    assert outcome.reason == "REQUEST_MALFORMED"


async def test_headers_of_more_than_16_kib_are_refused(world):
    outcome = await call(world.admin, f"{CRYPTO}Encrypt", b"", metadata=[("x-long", "a" * 20_000)])
    assert outcome.code is RESOURCE_EXHAUSTED


# -- methods and streams ------------------------------------------------------------------------------------------------

STRANGE_METHODS = [
    *("/vaultd.v1.CryptoService/Guess", "/vaultd.v1.CryptoService/encrypt", "/vaultd.v1.CryptoService/Encrypt/"),
    *("/vaultd.v1.CryptoService//Encrypt", "//vaultd.v1.CryptoService/Encrypt", "/vaultd.v1.cryptoservice/Encrypt"),
    *("/vaultd.v2.CryptoService/Encrypt", "/vaultd.v1.CryptoService/Encrypt%00", "/vaultd.v1.CryptoService/", "/x/y"),
    *("/CryptoService/Encrypt", "/vaultd.v1.CryptoService/Encrypt?x=1", "/vaultd.v1.CertificatesService/Issue"),
]


@pytest.mark.parametrize("path", STRANGE_METHODS)
async def test_an_unknown_method_is_unimplemented_and_its_path_is_not_recorded(world, path):
    outcome = await call(world.admin, path, b"")
    assert outcome.code is UNIMPLEMENTED
    assert path.encode() not in outcome.seen()
    records = [record for record in world.server.audit_records() if record.get("reason") == "METHOD_UNKNOWN"]
    assert {record["method"] for record in records} == {"unknown"}


async def test_a_call_that_ends_without_a_message_is_refused(world):
    stream = world.admin.channel.stream_unary(f"{CRYPTO}Encrypt")
    with pytest.raises(grpc.aio.AioRpcError, match="carried no message") as refused:
        await stream(iter(()), timeout=10)
    assert refused.value.code() is INVALID_ARGUMENT


def impatient(**limits):
    return {"limits": {**GENEROUS["limits"], **limits}}


async def never():
    """A caller that opens a stream and says nothing."""
    await asyncio.Event().wait()
    yield b""


async def test_a_caller_that_sends_nothing_is_given_up_on(tmp_path):
    async with running_server(tmp_path, **impatient(receive_timeout_s=0.2)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.admin.channel.stream_unary(f"{CRYPTO}Encrypt")(never(), timeout=20)
        records = [record for record in server.audit_records() if record.get("reason") == "DEADLINE_EXCEEDED"]
    assert refused.value.code() is DEADLINE_EXCEEDED
    assert [record["principal"] for record in records] == [f"{SPIFFE}/admin"]


async def test_silent_callers_do_not_keep_others_out_for_longer_than_the_receive_timeout(tmp_path):
    limits = impatient(receive_timeout_s=0.3, unary_in_flight=20, unary_in_flight_per_principal=20)
    async with running_server(tmp_path, **limits) as server:
        silent = [server.admin.channel.stream_unary(f"{CRYPTO}Encrypt")(never(), timeout=20) for _ in range(20)]
        ended = await asyncio.gather(*silent, return_exceptions=True)
        after = await call(
            server.app, f"{CRYPTO}GenerateRandomBytes", World(server).crypto_request("GenerateRandomBytes")
        )
    assert {error.code() for error in ended} == {DEADLINE_EXCEEDED}
    assert after.code is OK


async def test_a_deadline_too_short_to_be_met_is_refused_at_once(tmp_path):
    async with running_server(tmp_path, **impatient(least_deadline_ms=10_000)) as server:
        request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=1)
        outcome = await call(server.admin, f"{CRYPTO}GenerateRandomBytes", request, timeout=5)
        patient = await call(server.admin, f"{CRYPTO}GenerateRandomBytes", request, timeout=20)
    assert (outcome.code, outcome.reason) == (DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert patient.code is OK


async def test_a_flood_is_refused_with_a_time_to_come_back(tmp_path):
    limits = {"limits": {"read": {"per_second": 1, "burst": 2}}}
    async with running_server(tmp_path, clock=FakeClock(), **limits) as server:
        outcomes = [
            await call(server.admin, f"{KEYS}ListKeys", keys_pb2.ListKeysRequest(parent="vaults/default"))
            for _ in range(4)
        ]
    last = outcomes[-1]
    assert (last.code, last.reason) == (RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    assert any("RetryInfo" in detail.type_url for detail in last.status.details)
    assert any("QuotaFailure" in detail.type_url for detail in last.status.details)


# -- retries, etags, pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [path for path in MUTATIONS if short(path) not in {"Init", "Seal", "Unseal", "BackupKey"}], ids=short
)
async def test_a_repeated_request_id_gets_the_same_answer(world, path):
    request = await world.request(path)
    request.request_id = world.fresh_id()
    first = await call(world.admin, path, request)
    again = await call(world.admin, path, request)
    assert first.code is again.code is OK
    if path != f"{ADMIN}RotateRootKey":
        assert first.body == again.body


async def test_a_repeated_rotation_makes_one_version(world):
    request = keys_pb2.RotateKeyRequest(name=await world.fresh_key(), request_id=world.fresh_id())
    answers = [(await call(world.admin, f"{KEYS}RotateKey", request)).message().name for _ in range(3)]
    key = await world.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=request.name))
    assert set(answers) == {f"{request.name}/versions/2"}
    assert key.newest_version == 2


async def test_a_root_key_rotation_repeated_starts_one_term(world):
    request = admin_pb2.RotateRootKeyRequest(request_id=world.fresh_id())
    terms = [(await call(world.admin, f"{ADMIN}RotateRootKey", request)).message().term for _ in range(2)]
    assert terms[0] == terms[1]


@pytest.mark.parametrize("path", [f"{KEYS}CreateKey", f"{ADMIN}CreateVault", f"{KEYS}RotateKey"], ids=short)
async def test_a_request_id_with_another_body_is_refused(world, path):
    first, other = await world.request(path), await world.request(path)
    first.request_id = other.request_id = world.fresh_id()
    assert (await call(world.admin, path, first)).code is OK
    outcome = await call(world.admin, path, other)
    assert (outcome.code, outcome.reason) == (ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_request_id_is_the_callers_own(world):
    name, request_id = await world.fresh_key(), world.fresh_id()
    request = keys_pb2.RotateKeyRequest(name=name, request_id=request_id)
    versions = [
        (await call(client, f"{KEYS}RotateKey", request)).message().name
        for client in (world.admin, world.server.client("blind"))
    ]
    assert versions == [f"{name}/versions/2", f"{name}/versions/3"]


async def test_a_request_id_is_the_methods_own(world):
    name, request_id = await world.fresh_key(), world.fresh_id()
    await world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name, request_id=request_id))
    deleted = await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=name, request_id=request_id))
    assert deleted.state == resources_pb2.KEY_STATE_DELETED


async def test_a_replay_is_authorised_again(tmp_path):
    async with running_server(tmp_path, **GENEROUS) as server:
        world = World(server)
        request = keys_pb2.RotateKeyRequest(name=await world.fresh_key(), request_id="once")
        assert (await call(server.admin, f"{KEYS}RotateKey", request)).code is OK
        outcome = await call(server.app, f"{KEYS}RotateKey", request)
    assert outcome.code is PERMISSION_DENIED


@pytest.mark.parametrize("path", ETAGGED, ids=short)
async def test_an_etag_that_is_not_the_present_one_aborts(world, path):
    request = await world.request(path)
    request.etag = '"99999999"'
    outcome = await call(world.admin, path, request)
    assert (outcome.code, outcome.reason) == (ABORTED, "ETAG_MISMATCH")


async def test_an_etag_changes_with_every_update_and_the_present_one_passes(world):
    name = await world.fresh_key()
    read = await world.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=name))
    request = keys_pb2.UpdateKeyRequest(
        key=resources_pb2.Key(name=name, labels={"a": "b"}, etag=read.etag),
        update_mask=field_mask_pb2.FieldMask(paths=["labels"]),
    )
    first = await call(world.admin, f"{KEYS}UpdateKey", request)
    second = await call(world.admin, f"{KEYS}UpdateKey", request)
    assert first.message().etag != read.etag
    assert (second.code, second.reason) == (ABORTED, "ETAG_MISMATCH")


async def test_two_different_etags_in_one_request_are_refused(world):
    request = await world.request(f"{KEYS}UpdateKey")
    request.etag, request.key.etag = '"1"', '"2"'
    outcome = await call(world.admin, f"{KEYS}UpdateKey", request)
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "ETAG_CONFLICT")


async def test_pages_together_are_the_whole_list(world):
    seen, token = [], ""
    while True:
        request = keys_pb2.ListKeysRequest(parent="vaults/default", page_size=7, page_token=token)
        page = await world.admin.keys.ListKeys(request)
        seen += [key.name for key in page.keys]
        token = page.next_page_token
        if not token:
            break
    whole = await world.admin.keys.ListKeys(keys_pb2.ListKeysRequest(parent="vaults/default", page_size=1000))
    assert seen == [key.name for key in whole.keys]
    assert len(seen) > 7


async def page_tokens(world) -> dict[str, str]:
    """A token of each list."""
    vault = await world.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id=world.fresh_id()))
    key = await world.fresh_key()
    await world.admin.keys.RotateKey(keys_pb2.RotateKeyRequest(name=key))
    keys = await world.admin.keys.ListKeys(keys_pb2.ListKeysRequest(parent="vaults/default", page_size=1))
    versions = await world.admin.keys.ListKeyVersions(keys_pb2.ListKeyVersionsRequest(parent=key, page_size=1))
    vaults = await world.admin.admin.ListVaults(admin_pb2.ListVaultsRequest(page_size=1))
    assert vault.name
    return {
        "keys": keys.next_page_token,
        "versions": versions.next_page_token,
        "vaults": vaults.next_page_token,
    }


async def test_a_token_of_another_list_is_refused(world):
    tokens = await page_tokens(world)
    asked = {
        "keys": (f"{KEYS}ListKeys", keys_pb2.ListKeysRequest(parent="vaults/default")),
        "versions": (f"{KEYS}ListKeyVersions", keys_pb2.ListKeyVersionsRequest(parent="vaults/default/keys/enc")),
        "vaults": (f"{ADMIN}ListVaults", admin_pb2.ListVaultsRequest()),
    }
    for kind, (path, request) in asked.items():
        for other, token in tokens.items():
            if other == kind == "keys" or other == kind == "vaults":
                continue
            request.page_token = token
            outcome = await call(world.admin, path, request)
            assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "PAGE_TOKEN"), (kind, other)


async def test_a_token_is_of_its_query_only(world):
    token = (await page_tokens(world))["keys"]
    request = keys_pb2.ListKeysRequest(parent="vaults/default", page_token=token, show_deleted=True)
    assert (await call(world.admin, f"{KEYS}ListKeys", request)).reason == "PAGE_TOKEN"


async def test_a_token_with_any_character_changed_is_refused(world):
    token = (await page_tokens(world))["keys"]
    for at in range(len(token) - 1):  # the last character holds bits that base64 does not use
        other = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        request = keys_pb2.ListKeysRequest(parent="vaults/default", page_token=other)
        assert (await call(world.admin, f"{KEYS}ListKeys", request)).reason == "PAGE_TOKEN", at


@pytest.mark.parametrize("token", ["a", "====", "ä", "%00", "A" * 22, "/+/+", "not a token"])
async def test_a_token_that_no_server_gave_is_refused(world, token):
    request = keys_pb2.ListKeysRequest(parent="vaults/default", page_token=token)
    outcome = await call(world.admin, f"{KEYS}ListKeys", request)
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, "PAGE_TOKEN")


# -- sealed -------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sealed(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("sealed"), **GENEROUS) as server:
        made = World(server)
        await made.furnish("default")
        for path in ANY:
            await made.kept_request(path)
        await server.admin.admin.Seal(admin_pb2.SealRequest())
        yield made


@pytest.mark.parametrize(
    "path", [path for path in ANY if short(path) not in {"GetStatus", "Init", "Unseal"}], ids=short
)
async def test_a_sealed_server_answers_nothing_else_but_that_it_is_sealed(sealed, path):
    outcome = await call(sealed.admin, path, await sealed.kept_request(path))
    assert verdicts(outcome) == {(UNAVAILABLE, "SEALED")}


async def test_a_sealed_server_tells_an_operator_its_status(sealed):
    outcome = await call(sealed.admin, f"{ADMIN}GetStatus")
    assert outcome.message().seal_state == admin_pb2.SEAL_STATE_SEALED


@pytest.mark.parametrize("method", ["GetStatus", "Init", "Unseal"])
async def test_a_sealed_server_answers_nobody_but_operators(sealed, method):
    outcome = await call(sealed.server.app, ADMIN + method, await sealed.kept_request(ADMIN + method))
    assert outcome.code in {UNAVAILABLE, PERMISSION_DENIED}


async def test_a_sealed_server_is_not_initialised_again(sealed):
    outcome = await call(sealed.admin, f"{ADMIN}Init", admin_pb2.InitRequest(admin_principals=[f"{SPIFFE}/admin"]))
    assert (outcome.code, outcome.reason) == (FAILED_PRECONDITION, "ALREADY_INITIALIZED")


async def test_an_operator_unseals_and_every_key_works_again(tmp_path):
    async with running_server(tmp_path, **GENEROUS) as server:
        world = World(server)
        await world.furnish("default")
        await server.admin.admin.Seal(admin_pb2.SealRequest())
        status = await server.admin.admin.Unseal(admin_pb2.UnsealRequest())
        outcome = await call(server.admin, f"{CRYPTO}Decrypt", world.crypto_request("Decrypt"))
    assert status.seal_state == admin_pb2.SEAL_STATE_UNSEALED
    assert outcome.message().plaintext == b"plain text"
