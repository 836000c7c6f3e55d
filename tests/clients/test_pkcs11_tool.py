"""Real pkcs11-tool and softhsm2-util beside a server: what each makes in the token, the other finds and uses."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import sys
from dataclasses import dataclass

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc.aio import AioRpcError

from harness import running_server, status_of
from softhsm import LABEL, hsm_section
from vaultd import softhsm
from vaultd.backends.pkcs11.slot import SlotState
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

HSM = resources_pb2.PROTECTION_LEVEL_HSM
ENVELOPE = resources_pb2.PROTECTION_LEVEL_HSM_ENVELOPE
# What no key that vaultd makes is without.
BORN_AND_KEPT_HERE = "sensitive, always sensitive, never extractable, local"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Listed:
    """An object as pkcs11-tool lists it."""

    kind: str
    label: str
    object_id: str
    usage: str
    access: str


class Token:
    """The server's token, by the tools of others."""

    def __init__(self, directory) -> None:
        self._environment = {
            **os.environ,
            **softhsm.environment(directory),
            "PIN": (directory / "pin").read_text().strip(),
        }
        self.pin = self._environment["PIN"]

    async def tool(self, *arguments: object) -> str:
        module = ("--module", softhsm.find_module(), "--token-label", LABEL, "--login", "--pin", "env:PIN")
        return await self.run("pkcs11-tool", *module, *arguments)

    async def run(self, *command: object) -> str:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def listed(self, label: str) -> list[Listed]:
        """The objects of this label."""
        found: list[dict[str, str]] = []
        for line in (await self.tool("--list-objects")).splitlines():
            name, _, value = line.strip().partition(":")
            if not line.startswith(" "):
                found.append({"kind": line.partition(";")[0]})
            elif found:
                found[-1][name] = value.strip()
        return [
            Listed(one["kind"], one["label"], one.get("ID", ""), one.get("Usage", ""), one.get("Access", ""))
            for one in found
            if one.get("label") == label
        ]


class World:
    """A server with a token, and names for what a test makes."""

    def __init__(self, server, token: Token, directory) -> None:
        self.server, self.token, self.directory = server, token, directory
        self.crypto, self.keys = server.admin.crypto, server.admin.keys
        self._numbers = itertools.count(1)

    def fresh(self, stem: str) -> tuple[str, str]:
        """A label and a CKA_ID that no other test uses."""
        number = next(self._numbers)
        return f"{stem} {number}", f"{0xC0FFEE00 + number:x}"

    async def create(self, purpose: str, algorithm: str = "", level: int = HSM) -> str:
        request = keys_pb2.CreateKeyRequest(
            parent="vaults/default", key_id=f"k{next(self._numbers)}", key=key_of(purpose, algorithm, level)
        )
        return (await self.keys.CreateKey(request)).name

    async def adopt(self, purpose: str, algorithm: str, **token_key: object) -> str:
        request = keys_pb2.AdoptKeyRequest(
            parent="vaults/default",
            key_id=f"k{next(self._numbers)}",
            key=key_of(purpose, algorithm, HSM),
            token_key=keys_pb2.TokenKey(**token_key),
        )
        return (await self.keys.AdoptKey(request)).name

    async def version(self, name: str) -> resources_pb2.KeyVersion:
        return await self.keys.GetKeyVersion(keys_pb2.GetKeyVersionRequest(name=name))

    async def sign(self, name: str, message: bytes) -> bytes:
        return (await self.crypto.Sign(crypto_pb2.SignRequest(name=name, message=message))).signature

    async def verifies(self, name: str, message: bytes, signature: bytes) -> bool:
        request = crypto_pb2.VerifyRequest(name=name, message=message, signature=signature)
        return (await self.crypto.Verify(request)).valid

    async def purge(self, name: str) -> None:
        await self.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=name))
        await self.keys.PurgeKey(keys_pb2.PurgeKeyRequest(name=name))


def key_of(purpose: str, algorithm: str, level: int) -> resources_pb2.Key:
    return resources_pb2.Key(
        purpose=f"KEY_PURPOSE_{purpose}",
        algorithm=f"ALGORITHM_{algorithm}" if algorithm else None,
        protection_level=level,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tools")
    async with running_server(directory, hsm=[hsm_section(directory / "hsm")]) as server:
        yield World(server, Token(directory / "hsm"), directory)


@pytest.mark.parametrize(
    ("purpose", "algorithm", "usages"),
    [
        ("SIGN", "EC_P256_SHA256", {"Private Key Object": "sign", "Public Key Object": "verify"}),
        ("SIGN", "RSA_PSS_2048_SHA256", {"Private Key Object": "sign", "Public Key Object": "verify"}),
        ("KEY_AGREEMENT", "ECDH_P256", {"Private Key Object": "derive"}),
        ("ENCRYPT_DECRYPT", "AES_256_GCM", {"Secret Key Object": "encrypt, decrypt"}),
        ("WRAP", "AES_256_KWP", {"Secret Key Object": "wrap, unwrap"}),
        ("MAC", "HMAC_SHA256", {"Secret Key Object": "none"}),  # it signs; of secret keys the tool lists `verify` only
    ],
)
async def test_a_key_is_listed_under_the_name_of_its_version_and_may_do_one_thing(world, purpose, algorithm, usages):
    name = await world.create(purpose, algorithm)
    listed = await world.token.listed(f"{name}/versions/1")
    object_id = (await world.version(name)).attestation.object_id.hex()
    assert {one.object_id for one in listed} == {object_id}
    held = {one.kind: one for one in listed}
    for kind, usage in usages.items():
        assert usage in held[kind].usage
        if kind != "Public Key Object":
            assert held[kind].access == BORN_AND_KEPT_HERE
    others = {"encrypt", "decrypt", "sign", "wrap", "unwrap", "derive"} - set(", ".join(usages.values()).split(", "))
    secret = next(one for kind, one in held.items() if kind != "Public Key Object")
    assert not others & set(secret.usage.split(", "))


async def test_each_version_is_an_object_of_its_own_and_a_purged_key_leaves_none(world):
    name = await world.create("SIGN", "EC_P256_SHA256")
    await world.keys.RotateKey(keys_pb2.RotateKeyRequest(name=name))
    first, second = [await world.token.listed(f"{name}/versions/{number}") for number in (1, 2)]
    assert len(first) == len(second) == 2
    assert first[0].object_id != second[0].object_id
    await world.purge(name)
    assert not await world.token.listed(f"{name}/versions/1")
    assert not await world.token.listed(f"{name}/versions/2")


async def test_envelope_keys_share_the_one_key_that_is_listed_for_them(world):
    names = [await world.create("ENCRYPT_DECRYPT", level=ENVELOPE) for _ in range(2)]
    (wrapping,) = await world.token.listed("vaultd envelope key")
    assert (wrapping.kind, wrapping.access) == ("Secret Key Object", BORN_AND_KEPT_HERE)
    assert not [one for name in names for one in await world.token.listed(f"{name}/versions/1")]


async def test_root_key_is_listed_with_the_beginning_of_its_id(world, tmp_path):
    section = hsm_section(world.directory / "hsm")
    root_key = {"provider": "pkcs11", "slot": "main"}
    async with running_server(tmp_path, hsm=[section], root_key=root_key) as server:
        ref = (await server.server.engine.store.ring()).root_ref
    (listed,) = await world.token.listed(f"vaultd root key {ref[:8]}")
    assert (listed.object_id, listed.access) == (ref, BORN_AND_KEPT_HERE)


async def test_pkcs11_tool_signs_with_a_key_of_the_api(world, tmp_path):
    name = await world.create("SIGN", "EC_P256_SHA256")
    object_id = (await world.version(name)).attestation.object_id.hex()
    (tmp_path / "digest").write_bytes(hashlib.sha256(b"signed elsewhere").digest())
    how = ("--sign", "--mechanism", "ECDSA", "--signature-format", "openssl", "--id", object_id)
    await world.token.tool(*how, "--input-file", tmp_path / "digest", "--output-file", tmp_path / "signature")
    assert await world.verifies(name, b"signed elsewhere", (tmp_path / "signature").read_bytes())


@pytest.mark.parametrize(
    ("made", "algorithm"),
    [
        (("--keypairgen", "--key-type", "EC:prime256v1"), "EC_P256_SHA256"),
        (("--keypairgen", "--key-type", "EC:secp384r1"), "EC_P384_SHA384"),
        (("--keypairgen", "--key-type", "rsa:2048"), "RSA_PSS_2048_SHA256"),
        (("--keypairgen", "--key-type", "EC:edwards25519"), "ED25519"),
    ],
)
async def test_key_pair_of_pkcs11_tool_is_taken_over_and_signs(world, made, algorithm):
    label, object_id = world.fresh("theirs")
    await world.token.tool(*made, "--usage-sign", "--label", label, "--id", object_id)
    name = await world.adopt("SIGN", algorithm, object_label=label)
    assert await world.verifies(name, b"m", await world.sign(name, b"m"))
    version = await world.version(name)
    assert version.imported
    assert version.attestation.object_id.hex() == object_id
    assert version.attestation.local


@pytest.mark.parametrize(
    ("made", "purpose", "algorithm"),
    [
        (("--key-type", "AES:32", "--usage-decrypt"), "ENCRYPT_DECRYPT", "AES_256_GCM"),
        (("--key-type", "GENERIC:32", "--usage-sign"), "MAC", "HMAC_SHA256"),
    ],
)
async def test_secret_key_of_pkcs11_tool_is_taken_over_and_its_attestation_tells_what_it_lacks(
    world, made, purpose, algorithm
):
    label, object_id = world.fresh("theirs")
    await world.token.tool("--keygen", *made, "--label", label, "--id", object_id, "--extractable")
    name = await world.adopt(purpose, algorithm, object_id=bytes.fromhex(object_id))
    if purpose == "MAC":
        assert (await world.crypto.GenerateMac(crypto_pb2.GenerateMacRequest(name=name, data=b"d"))).mac
    else:
        sealed = await world.crypto.Encrypt(crypto_pb2.EncryptRequest(name=name, plaintext=b"p"))
        decrypt = crypto_pb2.DecryptRequest(name=name, ciphertext=sealed.ciphertext)
        assert (await world.crypto.Decrypt(decrypt)).plaintext == b"p"
    attestation = (await world.version(name)).attestation
    assert (attestation.extractable, attestation.never_extractable) == (True, False)
    assert (attestation.sensitive, attestation.always_sensitive) == (False, False)


async def test_key_that_softhsm2_util_imported_is_taken_over_and_is_the_one_of_the_file(world, tmp_path):
    label, object_id = world.fresh("imported")
    private = ec.generate_private_key(ec.SECP256R1())
    file = tmp_path / "key.pem"
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    into = ("--token", LABEL, "--label", label, "--id", object_id, "--pin", world.token.pin)
    await world.token.run("softhsm2-util", "--import", file, *into)
    name = await world.adopt("SIGN", "EC_P256_SHA256", object_label=label)
    private.public_key().verify(await world.sign(name, b"m"), b"m", ec.ECDSA(SHA256()))
    attestation = (await world.version(name)).attestation
    assert (attestation.local, attestation.always_sensitive, attestation.never_extractable) == (False, False, False)


async def refusal(call) -> str:
    with pytest.raises(AioRpcError) as caught:
        await call
    return status_of(caught.value).message


async def test_key_without_its_public_part_is_refused_with_the_reason(world, tmp_path):
    label, object_id = world.fresh("half")
    file = tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    into = ("--token", LABEL, "--label", label, "--id", object_id, "--pin", world.token.pin)
    await world.token.run("softhsm2-util", "--import", file, "--no-public-key", *into)
    assert "no public key object" in await refusal(world.adopt("SIGN", "EC_P256_SHA256", object_label=label))


async def test_key_that_shares_its_id_is_refused_since_destroying_one_would_destroy_both(world):
    label, object_id = world.fresh("twin")
    pair = ("--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign")
    await world.token.tool(*pair, "--label", label, "--id", object_id)
    await world.token.tool("--keygen", "--key-type", "AES:32", "--label", f"{label} aes", "--id", object_id)
    assert "CKA_ID" in await refusal(world.adopt("SIGN", "EC_P256_SHA256", object_label=label))


async def test_purge_of_a_taken_over_key_spares_a_key_that_got_the_same_id_later(world):
    label, object_id = world.fresh("twin")
    pair = ("--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign")
    await world.token.tool(*pair, "--label", label, "--id", object_id)
    name = await world.adopt("SIGN", "EC_P256_SHA256", object_label=label)
    await world.token.tool("--keygen", "--key-type", "AES:32", "--label", f"{label} aes", "--id", object_id)
    await world.purge(name)
    assert await world.token.listed(label)
    assert await world.token.listed(f"{label} aes")
    # Its owner gives it another id, and the scheduler comes again.
    other = world.fresh("")[1]
    await world.token.tool("--type", "secrkey", "--label", f"{label} aes", "--set-id", other, "--id", object_id)
    await destroy_what_is_due(world)
    assert not await world.token.listed(label)
    assert await world.token.listed(f"{label} aes")


async def test_purge_takes_the_key_pair_and_leaves_the_certificate_of_others(world, tmp_path):
    label, object_id = world.fresh("certified")
    pair = ("--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign")
    await world.token.tool(*pair, "--label", label, "--id", object_id)
    name = await world.adopt("SIGN", "EC_P256_SHA256", object_label=label)
    certificate = x509.load_pem_x509_certificate((world.directory / "tls/server.crt").read_bytes())
    (tmp_path / "certificate.der").write_bytes(certificate.public_bytes(Encoding.DER))
    write = ("--write-object", tmp_path / "certificate.der", "--type", "cert")
    await world.token.tool(*write, "--label", label, "--id", object_id)
    await world.purge(name)
    assert [one.kind for one in await world.token.listed(label)] == ["Certificate Object"]


# pkcs11-tool takes --undestroyable and does not heed it.
MAKE_INDESTRUCTIBLE = """
import os, sys, pkcs11
module, token, label, object_id = sys.argv[1:]
with pkcs11.lib(module).get_token(token_label=token).open(rw=True, user_pin=os.environ["PIN"]) as session:
    template = {pkcs11.Attribute.DESTROYABLE: False}
    session.generate_key(
        pkcs11.KeyType.AES, 256, id=bytes.fromhex(object_id), label=label, store=True, template=template
    )
"""


async def test_purge_of_an_indestructible_object_is_done_and_disturbs_nobody(world):
    label, object_id = world.fresh("for ever")
    made = (sys.executable, "-c", MAKE_INDESTRUCTIBLE, softhsm.find_module(), LABEL, label, object_id)
    await world.token.run(*made)
    name = await world.adopt("ENCRYPT_DECRYPT", "AES_256_GCM", object_label=label)
    slot = world.server.server.slots[0]
    recoveries = slot.recoveries
    await world.purge(name)
    await destroy_what_is_due(world)
    assert await world.token.listed(label)
    assert (slot.state, slot.recoveries) == (SlotState.SERVING, recoveries)
    tried = [one for one in world.server.audit_records() if one["event"] == "erase_token_object_failed"]
    assert tried[-1]["reason"] == "HSM_REFUSED"


async def destroy_what_is_due(world) -> None:
    engine = world.server.server.engine
    engine.scheduler._retry_at.clear()
    await engine.scheduler.tick()
