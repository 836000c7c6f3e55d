"""Import, export and backup over the wire: vaultctl with keys that OpenSSL made, tokens, approvals, and what the log says."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key
from wire import GENEROUS, INVALID_ARGUMENT, KEYS, NOT_FOUND, PERMISSION_DENIED, World, call, key_of

import commandline
from contract.backend import outside_material, pkcs8
from harness import APP, FakeClock, running_server
from softhsm import hsm_section
from vaultd_client.key_wrapping import Recipient, unwrap_exported, wrap_for_import
from vaultd_client.v1 import approval_pb2, crypto_pb2, keys_pb2, resources_pb2
from vaultd_client.v1 import key_transfer_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

HSM = resources_pb2.PROTECTION_LEVEL_HSM
ENVELOPE = resources_pb2.PROTECTION_LEVEL_HSM_ENVELOPE
DAY_S = 86_400
MESSAGE = b"signed here, verified there"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("transfer")
    clock = FakeClock()
    async with running_server(directory, clock=clock, hsm=[hsm_section(directory / "hsm")], **GENEROUS) as server:
        made = World(server)
        made.clock = clock
        yield made


def openssl(*arguments: Any, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=True).stdout


async def ctl(world: World, *arguments: Any, data: bytes = b"") -> tuple[int, str]:
    """vaultctl within this process; exit code and all that it said."""
    done = await commandline.ctl(world.server, *arguments, data=data)
    return done.exit_code, done.output


async def import_file(world: World, path: Any, algorithm: str, *options: Any, data: bytes = b"") -> str:
    """Create a key of what is in a file; its name."""
    name = f"vaults/default/keys/{world.fresh_id()}"
    from vaultd.engine.algorithms import ALGORITHMS

    purpose = ALGORITHMS[algorithm].purpose.value
    arguments = ("keys", "import", name, path, "--create", "--algorithm", algorithm, "--purpose", purpose, *options)
    # The cheapest job: this is about what is in it.
    code, said = await ctl(world, *arguments, "--method", "HPKE_X25519", data=data)
    assert (code, said) == (0, f"{name}/versions/1\n")
    return name


# -- keys that OpenSSL made ---------------------------------------------------------------------------------------------

CURVES = {
    "EC_P256_SHA256": "P-256",
    "EC_P384_SHA384": "P-384",
    "EC_P521_SHA512": "P-521",
    "EC_SECP256K1_SHA256": "secp256k1",
}
SIGNERS = ["RSA_PSS_2048_SHA256", "RSA_PKCS1_2048_SHA512", *CURVES, "ED25519", "ED448"]


def make_key(algorithm: str, path: Path) -> Path:
    if algorithm.startswith("RSA"):
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path)
    elif algorithm in CURVES:
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{CURVES[algorithm]}", "-out", path)
    else:
        openssl("genpkey", "-algorithm", algorithm, "-out", path)
    return path


def verify(algorithm: str, private: Path, signature: bytes, scratch: Path) -> None:
    """Let OpenSSL verify with the public half of its own key; raises CalledProcessError."""
    public = scratch / "public.pem"
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    (scratch / "signature").write_bytes(signature)
    (scratch / "message").write_bytes(MESSAGE)
    if algorithm.startswith("ED"):
        signed = ("-rawin", "-in", scratch / "message", "-sigfile", scratch / "signature")
        openssl("pkeyutl", "-verify", "-pubin", "-inkey", public, *signed)
        return
    digest = f"-sha{algorithm.rpartition('SHA')[2]}"
    padding = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest") if "PSS" in algorithm else ()
    openssl("dgst", digest, *padding, "-verify", public, "-signature", scratch / "signature", scratch / "message")


@pytest.mark.parametrize("algorithm", SIGNERS)
async def test_a_key_pair_of_openssl_goes_in_and_openssl_verifies_what_it_signs(world, tmp_path, algorithm):
    private = make_key(algorithm, tmp_path / "private.pem")
    name = await import_file(world, private, algorithm)
    signed = await world.admin.crypto.Sign(crypto_pb2.SignRequest(name=name, message=MESSAGE))
    verify(algorithm, private, signed.signature, tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        verify(algorithm, private, signed.signature[:-1] + bytes([signed.signature[-1] ^ 1]), tmp_path)


async def test_the_older_forms_of_private_keys_and_encrypted_ones_go_in(world, tmp_path):
    """PKCS#1, SEC1, DER of each, and PKCS#8 under a passphrase."""
    (tmp_path / "passphrase").write_text("open sesame\n")
    rsa, ec = (make_key(name, tmp_path / name) for name in ("RSA_PSS_2048_SHA256", "EC_P256_SHA256"))
    forms = {
        "pkcs1.pem": ("RSA_PSS_2048_SHA256", ["rsa", "-in", rsa, "-traditional"]),
        "pkcs1.der": ("RSA_PSS_2048_SHA256", ["rsa", "-in", rsa, "-traditional", "-outform", "DER"]),
        "sec1.pem": ("EC_P256_SHA256", ["ec", "-in", ec]),
        "sec1.der": ("EC_P256_SHA256", ["ec", "-in", ec, "-outform", "DER"]),
        "pkcs8.der": ("EC_P256_SHA256", ["pkey", "-in", ec, "-outform", "DER"]),
        "locked.pem": ("EC_P256_SHA256", ["pkcs8", "-topk8", "-in", ec, "-passout", f"file:{tmp_path / 'passphrase'}"]),
    }
    for form, (algorithm, arguments) in forms.items():
        openssl(*arguments, "-out", tmp_path / form)
        locked = ("--passphrase-file", tmp_path / "passphrase") if form == "locked.pem" else ()
        name = await import_file(world, tmp_path / form, algorithm, *locked)
        signed = await world.admin.crypto.Sign(crypto_pb2.SignRequest(name=name, message=MESSAGE))
        verify(algorithm, rsa if algorithm.startswith("RSA") else ec, signed.signature, tmp_path)


async def test_what_openssl_encrypted_for_its_rsa_key_opens_here(world, tmp_path):
    private = make_key("RSA", tmp_path / "private.pem")
    name = await import_file(world, private, "RSA_OAEP_2048_SHA256")
    modes = ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")
    options = [word for mode in modes for word in ("-pkeyopt", mode)]
    sealed = openssl("pkeyutl", "-encrypt", "-inkey", private, *options, data=MESSAGE)
    opened = await world.admin.crypto.Decrypt(crypto_pb2.DecryptRequest(name=name, ciphertext=sealed))
    assert opened.plaintext == MESSAGE


@pytest.mark.parametrize("algorithm", ["X25519", "ECDH_P256"])
async def test_openssl_agrees_with_an_imported_key_on_a_secret(world, tmp_path, algorithm):
    made = "X25519" if algorithm == "X25519" else "EC_P256_SHA256"
    mine, theirs = (make_key(made, tmp_path / name) for name in ("mine.pem", "theirs.pem"))
    name = await import_file(world, mine, algorithm)
    openssl("pkey", "-in", mine, "-pubout", "-out", tmp_path / "mine.pub")
    peer = openssl("pkey", "-in", theirs, "-pubout", "-outform", "DER")
    derive = crypto_pb2.DeriveSharedSecretRequest(name=name, peer_public_key=peer)
    ours = (await world.admin.crypto.DeriveSharedSecret(derive)).shared_secret
    assert ours == openssl("pkeyutl", "-derive", "-inkey", theirs, "-peerkey", tmp_path / "mine.pub")


async def test_codes_of_openssl_verify_with_an_imported_key(world, tmp_path):
    for algorithm, size in (("HMAC_SHA256", 32), ("HMAC_SHA384", 48), ("HMAC_SHA512", 64)):
        key = openssl("rand", size)
        name = await import_file(world, "-", algorithm, "--encoding", "hex", data=key.hex().encode() + b"\n")
        digest = f"-sha{algorithm.removeprefix('HMAC_SHA')}"
        code = openssl("dgst", digest, "-binary", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", data=MESSAGE)
        request = crypto_pb2.VerifyMacRequest(name=name, data=MESSAGE, mac=code)
        assert (await world.admin.crypto.VerifyMac(request)).valid
    key = openssl("rand", "-base64", 32)
    name = await import_file(world, "-", "AES_256_CMAC", "--encoding", "base64", data=key)
    import base64

    hexkey = base64.b64decode(key).hex()
    code = openssl("mac", "-cipher", "AES-256-CBC", "-macopt", f"hexkey:{hexkey}", "-binary", "CMAC", data=MESSAGE)
    assert (await world.admin.crypto.VerifyMac(crypto_pb2.VerifyMacRequest(name=name, data=MESSAGE, mac=code))).valid


async def test_what_openssl_wrapped_unwraps_with_an_imported_key(world, tmp_path):
    path = tmp_path / "kek"
    path.write_bytes(openssl("rand", 32))
    name = await import_file(world, path, "AES_256_KWP")
    wrapped = openssl("enc", "-id-aes256-wrap-pad", "-iv", "A65959A6", "-K", path.read_bytes().hex(), data=b"k" * 21)
    unwrapped = await world.admin.crypto.UnwrapKey(crypto_pb2.UnwrapKeyRequest(name=name, wrapped_key=wrapped))
    assert unwrapped.key_material == b"k" * 21


@pytest.mark.parametrize("algorithm", ["AES_128_GCM", "AES_256_GCM", "XAES_256_GCM", "AES_256_SIV"])
async def test_a_raw_key_encrypts_and_its_bytes_are_what_the_format_says(world, tmp_path, algorithm):
    key = outside_material(algorithm)
    (tmp_path / "raw").write_bytes(key)
    name = await import_file(world, tmp_path / "raw", algorithm)
    sealed = await world.admin.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=MESSAGE))
    ciphertext = sealed.ciphertext
    opened = await world.admin.crypto.Decrypt(crypto_pb2.DecryptRequest(name=name, ciphertext=ciphertext))
    assert opened.plaintext == MESSAGE
    if algorithm.endswith("_GCM") and not algorithm.startswith("X"):
        assert AESGCM(key).decrypt(ciphertext[21:33], ciphertext[33:], ciphertext[:21]) == MESSAGE


@pytest.mark.parametrize("algorithm", ["ML_DSA_65", "ML_KEM_768", "HPKE_X25519", "HPKE_MLKEM768_X25519"])
async def test_seeds_go_in(world, tmp_path, algorithm):
    (tmp_path / "seed").write_bytes(openssl("rand", len(outside_material(algorithm))))
    name = await import_file(world, tmp_path / "seed", algorithm)
    public = await world.admin.keys.GetPublicKey(keys_pb2.GetPublicKeyRequest(name=name))
    assert public.algorithm == resources_pb2.Algorithm.Value(f"ALGORITHM_{algorithm}")
    assert public.raw


async def test_vaultctl_imports_from_its_standard_input_as_a_process_and_wraps_by_every_method(world, tmp_path):
    name = await import_file(world, make_key("ED25519", tmp_path / "first.pem"), "ED25519")
    for number, method in enumerate(pb.WrappingMethod.keys()[1:], start=2):
        made = make_key("ED25519", tmp_path / "next.pem")
        code, said = await ctl(
            world, "keys", "import", name, made, "--method", method.removeprefix("WRAPPING_METHOD_"), "--keep-primary"
        )
        assert (code, said) == (0, f"{name}/versions/{number}\n"), method
    code, out, err = await commandline.vaultctl(world.server, "keys", "import", name, str(tmp_path / "first.pem"))
    assert (code, out, err) == (0, f"{name}/versions/6\n", "")


async def test_vaultctl_says_what_is_wrong_with_a_file(world, tmp_path):
    name = await import_file(world, make_key("ED25519", tmp_path / "key.pem"), "ED25519")
    (tmp_path / "rubbish.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "raw").write_bytes(bytes(31))
    other = make_key("EC_P256_SHA256", tmp_path / "other.pem")
    wrong = {
        ("keys", "import", name, tmp_path / "rubbish.pem"): "no private key that can be read",
        ("keys", "import", name, tmp_path / "empty"): "is empty",
        ("keys", "import", name, tmp_path / "missing"): "No such file",
        ("keys", "import", name, tmp_path / "raw", "--encoding", "hex"): "is not hex",
        ("keys", "import", name, tmp_path / "raw"): "MATERIAL_MISMATCH",
        ("keys", "import", name, other): "MATERIAL_MISMATCH",
        ("keys", "import", f"{name}-nowhere", other): "--create",
        ("keys", "import", name, other, "--algorithm", "EC_P256_SHA256"): "ALGORITHM_MISMATCH",
        ("keys", "import", name, other, "--job", "vaults/default/importJobs/nowhere"): "IMPORT_JOB_NOT_FOUND",
        ("keys", "export", name, tmp_path / "out"): "--plaintext",
        ("keys", "export", name, tmp_path / "out", "--plaintext"): "KEY_NOT_EXPORTABLE",
        ("keys", "restore", "vaults/default", tmp_path / "raw"): "KEY_BACKUP_UNREADABLE",
        ("keys", "backup", name, tmp_path / "raw"): "exists",
    }
    for arguments, text in wrong.items():
        code, said = await ctl(world, *arguments)
        asked = "\n  request: " in said  # otherwise nothing was asked of the server
        assert (code in {1, 3, 5} if asked else code == 2, text in said) == (True, True), (arguments, code, said)


# -- export, backup -----------------------------------------------------------------------------------------------------


async def test_vaultctl_exports_what_it_imported(world, tmp_path):
    private = make_key("EC_P384_SHA384", tmp_path / "private.pem")
    name = await import_file(world, private, "EC_P384_SHA384", "--exportable")
    assert await ctl(world, "keys", "export", name, tmp_path / "out.pem", "--plaintext") == (0, "")
    before, after = (
        load_pem_private_key(path.read_bytes(), None).private_numbers() for path in (private, tmp_path / "out.pem")
    )
    assert before == after
    assert (tmp_path / "out.pem").stat().st_mode & 0o777 == 0o600
    code, said = await ctl(world, "keys", "export", name, tmp_path / "out.pem", "--plaintext")
    assert (code, "exists" in said) == (2, True)
    recipient = tmp_path / "recipient.pem"
    openssl("genpkey", "-algorithm", "X25519", "-out", recipient)
    openssl("pkey", "-in", recipient, "-pubout", "-out", tmp_path / "recipient.pub")
    options = ("--to", tmp_path / "recipient.pub", "--method", "HPKE_X25519")
    assert await ctl(world, "keys", "export", name, tmp_path / "wrapped", *options) == (0, "")
    answer = pb.ExportKeyVersionResponse(
        key_version=f"{name}/versions/1", wrapped_key=(tmp_path / "wrapped").read_bytes()
    )
    opened = unwrap_exported(answer, load_pem_private_key(recipient.read_bytes(), None))
    assert load_der_private_key(opened, None).private_numbers() == before


async def test_vaultctl_backs_a_key_up_and_restores_it(world, tmp_path):
    name = await world.fresh_key(purpose="mac")
    code = (await world.admin.crypto.GenerateMac(crypto_pb2.GenerateMacRequest(name=name, data=MESSAGE))).mac
    assert await ctl(world, "keys", "backup", name, tmp_path / "key.backup") == (0, "")
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=name))
    await world.admin.keys.PurgeKey(keys_pb2.PurgeKeyRequest(name=name))
    assert await ctl(world, "keys", "restore", "vaults/default", tmp_path / "key.backup") == (0, f"{name}\n")
    request = crypto_pb2.VerifyMacRequest(name=name, data=MESSAGE, mac=code)
    assert (await world.admin.crypto.VerifyMac(request)).valid


async def test_fields_of_a_new_key_are_all_there(world):
    key = key_of(
        "ENCRYPT_DECRYPT",
        "AES_256_GCM",
        exportable=True,
        purge_protection=True,
        labels={"team": "a"},
        min_decrypt_version=1,
    )
    key.rotation_period.FromSeconds(DAY_S)
    key.expire_time.FromMicroseconds(world.clock.us + 2 * DAY_S * 1_000_000)
    key.destroy_scheduled_duration.FromSeconds(DAY_S)
    name = await world.create("default", world.fresh_id(), key)
    made = await world.admin.keys.GetKey(keys_pb2.GetKeyRequest(name=name))
    for field in ("exportable", "purge_protection", "labels", "rotation_period", "expire_time", "min_decrypt_version"):
        assert getattr(made, field) == getattr(key, field), field
    assert made.destroy_scheduled_duration == key.destroy_scheduled_duration
    assert made.next_rotation_time.ToMicroseconds() == world.clock.us + DAY_S * 1_000_000
    assert (made.purpose, made.algorithm, made.import_only) == (key.purpose, key.algorithm, False)


# -- import jobs over the wire ------------------------------------------------------------------------------------------


async def test_a_job_tells_what_to_wrap_to_and_is_listed_until_it_is_forgotten(world):
    made = []
    for method in pb.WrappingMethod.values():
        job = pb.ImportJob(wrapping_method=method)
        request = pb.CreateImportJobRequest(parent="vaults/default", import_job_id=world.fresh_id(), import_job=job)
        made.append(await world.admin.keys.CreateImportJob(request))
    assert made[0].wrapping_method == pb.WRAPPING_METHOD_RSA_OAEP_3072_SHA256_AES_256_KWP
    assert [bool(job.public_key_pem) for job in made] == [True, True, True, True, False]
    assert [len(job.public_key_raw) for job in made] == [0, 0, 0, 32, 1216]
    for job in made:
        assert job.state == pb.IMPORT_JOB_STATE_ACTIVE
        assert job.expire_time.ToMicroseconds() == job.create_time.ToMicroseconds() + 3 * DAY_S * 1_000_000
        assert await world.admin.keys.GetImportJob(pb.GetImportJobRequest(name=job.name)) == job
    seen, token = [], ""
    while True:
        page = await world.admin.keys.ListImportJobs(
            pb.ListImportJobsRequest(parent="vaults/default", page_size=2, page_token=token)
        )
        assert len(page.import_jobs) <= 2
        seen += page.import_jobs
        token = page.next_page_token
        if not token:
            break
    assert [job.name for job in seen] == sorted(job.name for job in seen)
    assert {job.name for job in made} <= {job.name for job in seen}


NASTY = [
    "",
    "x",
    "vaults/default",
    "vaults/default/importJobs/",
    "vaults/default/importjobs/j",
    "vaults/default/importJobs/J",
]
NASTY += ["vaults/default/importJobs/a/b", "vaults/../importJobs/j", "vaults/default/importJobs/j\n", "v" * 300]


@pytest.mark.parametrize("name", NASTY, ids=[ascii(name)[-24:] for name in NASTY])
async def test_a_nasty_name_of_a_job_is_refused(world, name):
    outcome = await call(world.admin, f"{KEYS}GetImportJob", pb.GetImportJobRequest(name=name))
    assert (outcome.code, outcome.reason, outcome.fields) == (INVALID_ARGUMENT, "INVALID_NAME", ["name"])
    request = await world.request(f"{KEYS}ImportKeyVersion")
    request.import_job = name
    outcome = await call(world.admin, f"{KEYS}ImportKeyVersion", request)
    assert (outcome.reason, outcome.fields) == ("INVALID_NAME", ["import_job"])


async def test_a_job_that_is_not_there_looks_forbidden_to_who_may_not_look(world):
    request = pb.GetImportJobRequest(name="vaults/default/importJobs/nowhere")
    assert (await call(world.server.app, f"{KEYS}GetImportJob", request)).code is PERMISSION_DENIED
    outcome = await call(world.admin, f"{KEYS}GetImportJob", request)
    assert (outcome.code, outcome.reason) == (NOT_FOUND, "IMPORT_JOB_NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "field", "value", "reason"),
    [
        ("CreateImportJob", "import_job", pb.ImportJob(wrapping_method=99), "ENUM_UNKNOWN"),
        ("CreateImportJob", "import_job_id", "A", "INVALID_NAME"),
        ("ImportKeyVersion", "algorithm", 0, "ALGORITHM_REQUIRED"),
        ("ImportKeyVersion", "algorithm", 99, "ENUM_UNKNOWN"),
        ("ImportKeyVersion", "prior_messages", -1, "FIELD_RANGE"),
        ("ImportKeyVersion", "wrapped_key", b"", "FIELD_SIZE"),
        ("ImportKeyVersion", "wrapped_key_crc32c", 1, "CHECKSUM_MISMATCH"),
        ("ImportKeyVersion", "parent", "vaults/default", "INVALID_NAME"),
        ("ExportKeyVersion", "wrapping_method", 0, "WRAPPING_METHOD_REQUIRED"),
        ("ExportKeyVersion", "wrapping_method", 99, "ENUM_UNKNOWN"),
        ("ExportKeyVersion", "public_key_raw", b"", "PUBLIC_KEY_MISMATCH"),
        ("RestoreKeyBackup", "backup", b"", "FIELD_SIZE"),
    ],
)
async def test_a_request_that_lacks_something_says_what(world, path, field, value, reason):
    request = await world.request(f"{KEYS}{path}")
    if hasattr(value, "DESCRIPTOR"):
        getattr(request, field).CopyFrom(value)
    else:
        setattr(request, field, value)
    outcome = await call(world.admin, f"{KEYS}{path}", request)
    assert (outcome.code, outcome.reason) == (INVALID_ARGUMENT, reason)


# -- keys in tokens -----------------------------------------------------------------------------------------------------

IN_TOKENS = [
    "AES_256_GCM",
    "HMAC_SHA256",
    "EC_P256_SHA256",
    "RSA_PSS_2048_SHA256",
    "ED25519",
    "ECDH_P256",
    "AES_256_KWP",
]


async def empty_key(world: World, algorithm: str, **fields: Any) -> str:
    from vaultd.engine.algorithms import ALGORITHMS

    request = keys_pb2.CreateKeyRequest(
        parent="vaults/default",
        key_id=world.fresh_id(),
        key=key_of(ALGORITHMS[algorithm].purpose.value, algorithm, **fields),
        skip_initial_version=True,
    )
    return (await world.admin.keys.CreateKey(request)).name


async def bring_in(world: World, name: str, algorithm: str, material: bytes) -> resources_pb2.KeyVersion:
    job = await world.import_job("default")
    request = pb.ImportKeyVersionRequest(
        parent=name,
        import_job=job.name,
        algorithm=f"ALGORITHM_{algorithm}",
        wrapped_key=wrap_for_import(job, material),
    )
    return await world.admin.keys.ImportKeyVersion(request)


@pytest.mark.parametrize("algorithm", IN_TOKENS)
async def test_material_goes_into_a_token_and_does_not_leave_it_again(world, algorithm):
    name = await empty_key(world, algorithm, protection_level=HSM, exportable=True)
    material = outside_material(algorithm)
    made = await bring_in(world, name, algorithm, material)
    assert made.imported
    assert (made.attestation.local, made.attestation.never_extractable) == (False, False)
    software = await empty_key(world, algorithm)
    await bring_in(world, software, algorithm, material)
    if algorithm == "EC_P256_SHA256":
        signed = await world.admin.crypto.Sign(crypto_pb2.SignRequest(name=name, message=MESSAGE))
        request = crypto_pb2.VerifyRequest(name=software, message=MESSAGE, signature=signed.signature)
        assert (await world.admin.crypto.Verify(request)).valid
    elif algorithm == "HMAC_SHA256":
        codes = {
            (await world.admin.crypto.GenerateMac(crypto_pb2.GenerateMacRequest(name=one, data=MESSAGE))).mac
            for one in (name, software)
        }
        assert len(codes) == 1
    export = pb.ExportKeyVersionRequest(
        name=name,
        wrapping_method=pb.WRAPPING_METHOD_HPKE_MLKEM768_X25519,
        public_key_raw=Recipient().public_key_raw,
    )
    for path, request in (("ExportKeyVersion", export), ("BackupKey", pb.BackupKeyRequest(name=name))):
        outcome = await call(world.admin, f"{KEYS}{path}", request)
        assert outcome.reason == "HSM_KEY_NOT_EXPORTABLE"
        assert "token" in outcome.text


async def test_material_that_does_not_fit_leaves_no_object_in_the_token(world):
    name = await empty_key(world, "EC_P256_SHA256", protection_level=HSM)
    objects = world.server.server.engine.store
    before = len(await objects.list("token_object", "", "", 1000))
    from cryptography.hazmat.primitives.asymmetric import ec

    job = await world.import_job("default")
    wrapped = wrap_for_import(job, pkcs8(ec.generate_private_key(ec.SECP384R1())))
    request = pb.ImportKeyVersionRequest(
        parent=name, import_job=job.name, algorithm="ALGORITHM_EC_P256_SHA256", wrapped_key=wrapped
    )
    assert (await call(world.admin, f"{KEYS}ImportKeyVersion", request)).reason == "MATERIAL_MISMATCH"
    assert len(await objects.list("token_object", "", "", 1000)) == before


async def test_an_algorithm_that_the_token_lacks_says_why(world):
    name = "vaults/default/keys/lacking"
    request = keys_pb2.CreateKeyRequest(
        parent="vaults/default",
        key_id="lacking",
        key=key_of("ENCRYPT_DECRYPT", "XAES_256_GCM", protection_level=HSM),
        skip_initial_version=True,
    )
    outcome = await call(world.admin, f"{KEYS}CreateKey", request)
    assert (outcome.reason, "HSM_ENVELOPE" in outcome.text) == ("ALGORITHM_UNAVAILABLE", True)
    outcome = await call(world.admin, f"{KEYS}GetKey", keys_pb2.GetKeyRequest(name=name))
    assert outcome.code is NOT_FOUND


async def test_an_envelope_key_is_imported_exported_and_restored(world):
    name = await empty_key(world, "XAES_256_GCM", protection_level=ENVELOPE, exportable=True)
    material = os.urandom(32)
    await bring_in(world, name, "XAES_256_GCM", material)
    sealed = await world.admin.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=MESSAGE))
    recipient = Recipient()
    export = pb.ExportKeyVersionRequest(
        name=name,
        wrapping_method=pb.WRAPPING_METHOD_HPKE_MLKEM768_X25519,
        public_key_raw=recipient.public_key_raw,
    )
    assert recipient.open(await world.admin.keys.ExportKeyVersion(export)) == material
    backup = await world.admin.keys.BackupKey(pb.BackupKeyRequest(name=name))
    await world.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=name))
    await world.admin.keys.PurgeKey(keys_pb2.PurgeKeyRequest(name=name))
    restore = pb.RestoreKeyBackupRequest(parent="vaults/default", backup=backup.backup)
    assert (await world.admin.keys.RestoreKeyBackup(restore)).name == name
    opened = await world.admin.crypto.Decrypt(crypto_pb2.DecryptRequest(name=name, ciphertext=sealed.ciphertext))
    assert opened.plaintext == MESSAGE


# -- approval, and the audit log ----------------------------------------------------------------------------------------


async def test_an_export_under_approval_waits_and_is_answered_once_it_is_approved(world):
    name = await world.create("default", world.fresh_id(), key_of("MAC", exportable=True))
    rule = approval_pb2.ApprovalRule(
        id="exports", methods=[f"{KEYS}ExportKeyVersion"], resource=name, approvers=[APP], required=1
    )
    await world.admin.admin.SetApprovalRules(approval_pb2.SetApprovalRulesRequest(rules=[rule]))
    recipient = Recipient()
    request = pb.ExportKeyVersionRequest(
        name=name,
        wrapping_method=pb.WRAPPING_METHOD_HPKE_MLKEM768_X25519,
        public_key_raw=recipient.public_key_raw,
        request_id=world.fresh_id(),
    )
    waiting = await call(world.admin, f"{KEYS}ExportKeyVersion", request)
    assert waiting.reason == "APPROVAL_REQUIRED"
    listed = await world.admin.admin.ListApprovals(approval_pb2.ListApprovalsRequest())
    (asked,) = [one for one in listed.approvals if one.resources[0] == name]
    assert "WRAPPING_METHOD_HPKE_MLKEM768_X25519" in asked.request
    await world.server.app.admin.ApproveRequest(approval_pb2.ApproveRequestRequest(name=asked.name))
    first = await world.admin.keys.ExportKeyVersion(request)
    assert len(recipient.open(first)) == 32
    assert await world.admin.keys.ExportKeyVersion(request) == first  # a retry needs no second approval
    request.request_id = ""
    assert (await call(world.admin, f"{KEYS}ExportKeyVersion", request)).reason == "APPROVAL_REQUIRED"
    await world.admin.admin.SetApprovalRules(approval_pb2.SetApprovalRulesRequest())


async def test_the_log_names_what_left_and_came_and_holds_none_of_it(world):
    material = os.urandom(32)
    name = await empty_key(world, "HMAC_SHA256", exportable=True)
    made = await bring_in(world, name, "HMAC_SHA256", material)
    recipient = Recipient()
    export = pb.ExportKeyVersionRequest(
        name=name,
        wrapping_method=pb.WRAPPING_METHOD_HPKE_MLKEM768_X25519,
        public_key_raw=recipient.public_key_raw,
    )
    wrapped = (await world.admin.keys.ExportKeyVersion(export)).wrapped_key
    backup = (await world.admin.keys.BackupKey(pb.BackupKeyRequest(name=name))).backup
    records = [record for record in world.server.audit_records() if name in (record.get("name"), record.get("parent"))]
    told = [(record["event"], record["method"].rpartition("/")[2], record.get("key_version", "")) for record in records]
    for method in ("ImportKeyVersion", "ExportKeyVersion", "BackupKey"):
        assert [event for event, of, _ in told if of == method] == ["intent", "call"]
    assert ("call", "ExportKeyVersion", made.name) in told
    (imported,) = [r for r in records if r["event"] == "call" and r["method"].endswith("ImportKeyVersion")]
    assert imported["import_job"] == (await world.import_job("default")).name
    log = str(world.server.audit_records())
    stored = b"".join(path.read_bytes() for path in world.server.directory.glob("vault.db*"))
    for secret in (material, wrapped, backup):
        assert secret.hex() not in log
        assert secret not in stored
    assert world.server.server.engine.ledger.unsealed
