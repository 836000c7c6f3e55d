"""Callers that use keys of a token all day, and check every answer themselves.

A signature is verified with `cryptography` and the public key of the version that the answer names; a ciphertext must give its
own plaintext back; a MAC of a key whose value is known is computed here, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from google.protobuf import duration_pb2
from hsm_answers import ALGORITHMS, PARENT, REPEAT_S, Asker, Expected, Key, Sealed, Tally, Vault, signature_holds

from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from harness import Client

HSM = resources_pb2.PROTECTION_LEVEL_HSM
MAX_OWN_KEYS = 4
MAX_LIVE_VERSIONS = 3
RACE_ITEMS = 200
OWN_ALGORITHMS = ("EC_P256_SHA256", "ED25519", "AES_256_GCM", "HMAC_SHA256") * 2 + ("RSA_PSS_2048_SHA256",)

MIXED = {
    "sign": 48,
    "sign_many": 12,
    "encrypt": 40,
    "encrypt_many": 10,
    "open_again": 16,
    "open_tampered": 5,
    "mac": 20,
    "mac_many": 6,
    "wrap": 6,
    "agree": 6,
    "draw": 4,
    "create": 4,
    "rotate": 3,
    "retire": 3,
    "purge": 3,
    "race": 1,
}
"""How often callers do what, when a token works: everything."""
PATIENT = {name: weight for name, weight in MIXED.items() if name != "race"}
"""While tokens fail.  Nobody destroys what another one uses: then NOT_FOUND would be an answer."""
USES = {"sign": 5, "sign_many": 1, "encrypt": 3, "mac": 2}
"""Uses only."""


class Caller:
    """One of many.  It does one thing after the other."""

    def __init__(self, client: Client, vault: Vault, tally: Tally, chooser: random.Random, name: str) -> None:
        self._client = client
        self._vault = vault
        self._tally = tally
        self._chooser = chooser
        self._name = name
        self._asker = Asker(name, vault, tally)

    async def run(self, weights: Mapping[str, int], stop: asyncio.Event, interval_s: float = 0.0) -> None:
        """Do what comes, at most once an interval, until told to stop; what is under way is finished."""
        names, counts = list(weights), list(weights.values())
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._chooser.uniform(0, interval_s)
        while not stop.is_set():
            if interval_s:
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                due_s = max(due_s + interval_s, loop.time())
            what = self._chooser.choices(names, counts)[0]
            if await getattr(self, f"_{what}")() is False:
                await asyncio.sleep(REPEAT_S / 2)  # refused: the token is away, or soon back

    def _bytes(self, most: int) -> bytes:
        return self._chooser.randbytes(self._chooser.randint(1, most))

    def _pick(self, purpose: str) -> Key:
        """A key that all share, or one of our own."""
        mine = [key for key in self._mine() if ALGORITHMS[key.algorithm] == purpose]
        return self._chooser.choice([*self._vault.shared(purpose), *mine])

    def _mine(self) -> list[Key]:
        return [
            key for key in self._vault.keys.values() if key.own and key.name.startswith(f"{PARENT}/keys/{self._name}-")
        ]

    def _number(self, what: str, key: Key, version_name: str) -> int:
        """The version that an answer names."""
        name, _, number = version_name.rpartition("/versions/")
        if name != key.name or not number.isdigit():
            self._tally.is_wrong(f"{what} names another key's version", f"{key.name}: {version_name}")
            return 0
        return int(number)

    # -- signing --------------------------------------------------------------------------------------------------------

    async def public_key(self, version_name: str) -> Any:
        """Of one version; asked for once."""
        known = self._vault.publics.get(version_name)
        if known is None:
            request = keys_pb2.GetPublicKeyRequest(name=version_name)
            answer = await self._asker.insist("GetPublicKey", self._client.keys.GetPublicKey, request)
            if answer is None:
                return None
            known = self._vault.publics[version_name] = load_pem_public_key(answer.pem.encode())
        return known

    async def _check_signature(self, what: str, key: Key, message: bytes, signature: bytes, version_name: str) -> None:
        if not self._number(what, key, version_name):
            return
        public = await self.public_key(version_name)
        if public is None or not signature_holds(public, message, signature, key.algorithm):
            self._tally.is_wrong(f"{what} {key.algorithm}", f"{version_name} message {message.hex()}")

    async def _sign(self) -> bool:
        key = self._pick("SIGN")
        message = self._bytes(300)
        request = crypto_pb2.SignRequest(name=key.name, message=message)
        prehashed = self._chooser.random() < 0.3 and key.algorithm in {"EC_P256_SHA256", "RSA_PSS_2048_SHA256"}
        if prehashed:
            request.digest = hashlib.sha256(message).digest()
        bare = self._chooser.random() < 0.3 and key.algorithm == "EC_P256_SHA256"
        if bare:
            request.signature_encoding = resources_pb2.SIGNATURE_ENCODING_P1363
        answer = await self._asker.ask("Sign", self._client.crypto.Sign, request)
        if answer is None:
            return False
        signature = answer.signature
        if bare:
            if len(signature) != 64:
                self._tally.is_wrong("Sign P1363", f"{len(signature)} bytes")
                return True
            signature = encode_dss_signature(
                int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            )
        await self._check_signature("Sign", key, message, signature, answer.key_version)
        return True

    async def _sign_many(self) -> bool:
        keys = [self._pick("SIGN") for _ in range(self._chooser.randint(2, 40))]
        items = [crypto_pb2.SignRequest(name=key.name, message=self._bytes(100)) for key in keys]
        results = await self._asker.ask_many(
            "BatchSign", self._client.crypto.BatchSign, crypto_pb2.BatchSignRequest(items=items)
        )
        for key, item, result in zip(keys, items, results, strict=False):
            if result is not None:
                await self._check_signature("BatchSign", key, item.message, result.signature, result.key_version)
        return any(results)

    # -- encrypting -----------------------------------------------------------------------------------------------------

    async def _encrypt(self) -> bool:
        key = self._pick("ENCRYPT_DECRYPT")
        plaintext, data = self._bytes(1_000), self._bytes(40)
        request = crypto_pb2.EncryptRequest(name=key.name, plaintext=plaintext, associated_data=data)
        answer = await self._asker.ask("Encrypt", self._client.crypto.Encrypt, request)
        if answer is None:
            return False
        number = self._number("Encrypt", key, answer.key_version)
        sealed = Sealed(key, number, answer.ciphertext, plaintext, data)
        if not key.own:
            self._vault.sealed.append(sealed)
        return await self.reopen(sealed)

    async def reopen(self, sealed: Sealed) -> bool:
        """Decrypt what was encrypted before."""
        request = crypto_pb2.DecryptRequest(
            name=sealed.key.name, ciphertext=sealed.ciphertext, associated_data=sealed.associated_data
        )
        answer = await self._asker.ask("Decrypt", self._client.crypto.Decrypt, request, self._endings(sealed))
        if answer is None:
            return False
        if (
            answer.plaintext != sealed.plaintext
            or self._number("Decrypt", sealed.key, answer.key_version) != sealed.number
        ):
            self._tally.is_wrong("Decrypt", f"{answer.key_version} {sealed.ciphertext.hex()}")
        return True

    def _endings(self, *used: Sealed) -> Expected:
        """Refusals that are right when somebody asked for the end of what is used."""

        def reasons() -> list[str]:
            found = []
            for sealed in used:
                if sealed.number in sealed.key.doomed:
                    found += ["KEY_VERSION_DESTROY_SCHEDULED", "KEY_VERSION_DESTROYED"]
            return found

        return reasons

    async def _open_again(self) -> bool:
        return not self._vault.sealed or await self.reopen(self._chooser.choice(self._vault.sealed))

    async def _open_tampered(self) -> bool:
        """A ciphertext that was touched is refused, and the token is not taken to be sick for it."""
        if not self._vault.sealed:
            return True
        sealed = self._chooser.choice(self._vault.sealed)
        touched = bytearray(sealed.ciphertext)
        touched[-1 - self._chooser.randrange(20)] ^= 1 << self._chooser.randrange(8)
        request = crypto_pb2.DecryptRequest(
            name=sealed.key.name, ciphertext=bytes(touched), associated_data=sealed.associated_data
        )
        endings = self._endings(sealed)
        answer = await self._asker.ask(
            "Decrypt of a touched ciphertext",
            self._client.crypto.Decrypt,
            request,
            lambda: ("DECRYPTION_FAILED", *endings()),
        )
        if answer is not None:
            self._tally.is_wrong("a touched ciphertext was opened", sealed.key.name)
        return True

    async def _encrypt_many(self) -> bool:
        keys = [self._pick("ENCRYPT_DECRYPT") for _ in range(self._chooser.randint(2, 60))]
        items = [
            crypto_pb2.EncryptRequest(name=key.name, plaintext=self._bytes(100), associated_data=self._bytes(10))
            for key in keys
        ]
        crypto = self._client.crypto
        results = await self._asker.ask_many(
            "BatchEncrypt", crypto.BatchEncrypt, crypto_pb2.BatchEncryptRequest(items=items)
        )
        made = [
            Sealed(
                key,
                self._number("BatchEncrypt", key, result.key_version),
                result.ciphertext,
                item.plaintext,
                item.associated_data,
            )
            for key, item, result in zip(keys, items, results, strict=False)
            if result is not None
        ]
        if not made:
            return False
        self._vault.sealed.extend([sealed for sealed in made if not sealed.key.own][:5])
        asked = crypto_pb2.BatchDecryptRequest(
            items=[
                crypto_pb2.DecryptRequest(
                    name=sealed.key.name, ciphertext=sealed.ciphertext, associated_data=sealed.associated_data
                )
                for sealed in made
            ]
        )
        opened = await self._asker.ask_many("BatchDecrypt", crypto.BatchDecrypt, asked, self._endings(*made))
        for sealed, result in zip(made, opened, strict=False):
            if result is not None and result.plaintext != sealed.plaintext:
                self._tally.is_wrong("BatchDecrypt", f"{result.key_version} {sealed.ciphertext.hex()}")
        return any(opened)

    # -- authenticating -------------------------------------------------------------------------------------------------

    def _check_mac(self, what: str, key: Key, data: bytes, mac: bytes, version_name: str) -> None:
        """Computed here where the key is known; everywhere a version has one MAC for the same data."""
        self._number(what, key, version_name)
        if key.name.endswith("/known"):
            right = hmac.digest(self._vault.known_mac, data, "sha256")
        else:
            right = self._vault.macs.setdefault((version_name, data), mac)
        if mac != right:
            self._tally.is_wrong(f"{what} {key.algorithm}", f"{version_name} data {data.hex()}")

    def _mac_data(self) -> bytes:
        """Something new, or one of a few that everybody asks for."""
        return self._bytes(200) if self._chooser.random() < 0.5 else b"shared %d" % self._chooser.randrange(50)

    async def _mac(self) -> bool:
        key, data = self._pick("MAC"), self._mac_data()
        crypto = self._client.crypto
        answer = await self._asker.ask(
            "GenerateMac", crypto.GenerateMac, crypto_pb2.GenerateMacRequest(name=key.name, data=data)
        )
        if answer is None:
            return False
        self._check_mac("GenerateMac", key, data, answer.mac, answer.key_version)
        touched = self._chooser.random() < 0.3
        mac = bytes([answer.mac[0] ^ 1]) + answer.mac[1:] if touched else answer.mac
        request = crypto_pb2.VerifyMacRequest(name=answer.key_version, data=data, mac=mac)
        used = Sealed(key, self._number("GenerateMac", key, answer.key_version), b"", b"", b"")
        verdict = await self._asker.ask("VerifyMac", crypto.VerifyMac, request, self._endings(used))
        if verdict is not None and verdict.valid is touched:
            self._tally.is_wrong("VerifyMac", f"{answer.key_version} said {verdict.valid}")
        return verdict is not None

    async def _mac_many(self) -> bool:
        keys = [self._pick("MAC") for _ in range(self._chooser.randint(2, 60))]
        items = [crypto_pb2.GenerateMacRequest(name=key.name, data=self._mac_data()) for key in keys]
        request = crypto_pb2.BatchGenerateMacRequest(items=items)
        results = await self._asker.ask_many("BatchGenerateMac", self._client.crypto.BatchGenerateMac, request)
        for key, item, result in zip(keys, items, results, strict=False):
            if result is not None:
                self._check_mac("BatchGenerateMac", key, item.data, result.mac, result.key_version)
        return any(results)

    # -- wrapping, agreeing, drawing ------------------------------------------------------------------------------------

    async def _wrap(self) -> bool:
        key = self._pick("WRAP")
        material = self._chooser.randbytes(8 * self._chooser.randint(2, 16))
        crypto = self._client.crypto
        wrapped = await self._asker.ask(
            "WrapKey", crypto.WrapKey, crypto_pb2.WrapKeyRequest(name=key.name, key_material=material)
        )
        if wrapped is None:
            return False
        request = crypto_pb2.UnwrapKeyRequest(name=wrapped.key_version, wrapped_key=wrapped.wrapped_key)
        used = Sealed(key, self._number("WrapKey", key, wrapped.key_version), b"", b"", b"")
        opened = await self._asker.ask("UnwrapKey", crypto.UnwrapKey, request, self._endings(used))
        if opened is not None and opened.key_material != material:
            self._tally.is_wrong("UnwrapKey", f"{opened.key_version} {wrapped.wrapped_key.hex()}")
        return opened is not None

    async def _agree(self) -> bool:
        key = self._pick("KEY_AGREEMENT")
        passing = ec.generate_private_key(ec.SECP256R1())
        point = passing.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        request = crypto_pb2.DeriveSharedSecretRequest(name=key.name, peer_public_key=point)
        answer = await self._asker.ask("DeriveSharedSecret", self._client.crypto.DeriveSharedSecret, request)
        if answer is None:
            return False
        if self._number("DeriveSharedSecret", key, answer.key_version):
            public = await self.public_key(answer.key_version)
            if public is None or passing.exchange(ec.ECDH(), public) != answer.shared_secret:
                self._tally.is_wrong("DeriveSharedSecret", answer.key_version)
        return True

    async def _draw(self) -> bool:
        """Random bytes of the token, which never come twice."""
        request = crypto_pb2.GenerateRandomBytesRequest(parent=PARENT, length_bytes=32, protection_level=HSM)
        answer = await self._asker.ask("GenerateRandomBytes", self._client.crypto.GenerateRandomBytes, request)
        if answer is None:
            return False
        if len(answer.data) != 32 or answer.data in self._vault.drawn:
            self._tally.is_wrong("GenerateRandomBytes", answer.data.hex())
        self._vault.drawn.add(answer.data)
        return True

    # -- making and destroying keys -------------------------------------------------------------------------------------

    async def make(self, key_id: str, algorithm: str, *, own: bool = False) -> Key | None:
        """Create a key."""
        key = resources_pb2.Key(
            purpose=resources_pb2.KeyPurpose.Value(f"KEY_PURPOSE_{ALGORITHMS[algorithm]}"),
            algorithm=resources_pb2.Algorithm.Value(f"ALGORITHM_{algorithm}"),
            protection_level=HSM,
            destroy_scheduled_duration=duration_pb2.Duration(seconds=0),
        )
        request = keys_pb2.CreateKeyRequest(parent=PARENT, key_id=key_id, key=key)
        made = await self._asker.insist("CreateKey", self._client.keys.CreateKey, request)
        if made is None:
            return None
        known = self._vault.keys[made.name] = Key(made.name, algorithm, own=own)
        return known

    async def adopt(self, key_id: str, object_id: bytes) -> None:
        """Take over the HMAC key whose value everybody here knows."""
        key = resources_pb2.Key(
            purpose=resources_pb2.KEY_PURPOSE_MAC, algorithm=resources_pb2.ALGORITHM_HMAC_SHA256, protection_level=HSM
        )
        request = keys_pb2.AdoptKeyRequest(
            parent=PARENT, key_id=key_id, key=key, token_key=keys_pb2.TokenKey(object_id=object_id)
        )
        made = await self._asker.insist("AdoptKey", self._client.keys.AdoptKey, request)
        if made is not None:
            self._vault.keys[made.name] = Key(made.name, "HMAC_SHA256")

    async def _create(self) -> bool:
        if len(self._mine()) >= MAX_OWN_KEYS:
            return await self._purge()
        algorithm = self._chooser.choice(OWN_ALGORITHMS)
        key = await self.make(f"{self._name}-{self._asker.fresh()}", algorithm, own=True)
        return key is not None and await self.use(key, 1)

    async def use(self, key: Key, number: int) -> bool:
        """Use one version of a key, as its purpose says."""
        version, crypto = key.version(number), self._client.crypto
        purpose, message = ALGORITHMS[key.algorithm], self._bytes(50)
        if purpose == "SIGN":
            signed = await self._asker.ask("Sign", crypto.Sign, crypto_pb2.SignRequest(name=version, message=message))
            if signed is not None:
                await self._check_signature("Sign", key, message, signed.signature, signed.key_version)
            return signed is not None
        if purpose == "ENCRYPT_DECRYPT":
            request = crypto_pb2.EncryptRequest(name=version, plaintext=message)
            sealed = await self._asker.ask("Encrypt", crypto.Encrypt, request)
            return sealed is not None and await self.reopen(Sealed(key, number, sealed.ciphertext, message, b""))
        if purpose == "MAC":
            request = crypto_pb2.GenerateMacRequest(name=version, data=message)
            answer = await self._asker.ask("GenerateMac", crypto.GenerateMac, request)
            if answer is not None:
                self._check_mac("GenerateMac", key, message, answer.mac, answer.key_version)
            return answer is not None
        return True

    async def _rotate(self) -> bool:
        keys = [key for key in (*self._mine(), *self._everyones()) if len(key.live()) < MAX_LIVE_VERSIONS]
        if not keys:
            return await self._retire()
        key = self._chooser.choice(keys)
        request = keys_pb2.RotateKeyRequest(name=key.name)
        made = await self._asker.insist("RotateKey", self._client.keys.RotateKey, request)
        if made is None:
            return False
        number = self._number("RotateKey", key, made.name)
        key.newest = max(key.newest, number)
        return number in key.doomed or await self.use(key, number)

    def _everyones(self) -> list[Key]:
        """Shared keys that may be rotated: the known one has but one value."""
        return [key for key in self._vault.keys.values() if not key.own and not key.name.endswith("/known")]

    async def _retire(self) -> bool:
        """Destroy the oldest version of a key that has newer ones; others may be using it."""
        keys = [key for key in (*self._mine(), *self._everyones()) if len(key.live()) > 1]
        if not keys:
            return True
        key = self._chooser.choice(keys)
        number = key.live()[0]
        key.doomed.add(number)
        request = keys_pb2.DestroyKeyVersionRequest(name=key.version(number))
        return await self._asker.insist("DestroyKeyVersion", self._client.keys.DestroyKeyVersion, request) is not None

    async def _purge(self) -> bool:
        """Destroy a key of our own with all its versions."""
        mine = self._mine()
        return not mine or await self._end(self._chooser.choice(mine))

    async def _end(self, key: Key) -> bool:
        self._vault.keys.pop(key.name)
        keys = self._client.keys
        if await self._asker.insist("DeleteKey", keys.DeleteKey, keys_pb2.DeleteKeyRequest(name=key.name)) is None:
            return False
        return await self._asker.insist("PurgeKey", keys.PurgeKey, keys_pb2.PurgeKeyRequest(name=key.name)) is not None

    async def _race(self) -> bool:
        """Destroy a key while a batch uses it: each item is right, or is refused because the key is gone."""
        algorithm = self._chooser.choice(("EC_P256_SHA256", "ED25519", "RSA_PSS_2048_SHA256"))
        key = await self.make(f"{self._name}-{self._asker.fresh()}", algorithm, own=True)
        if key is None:
            return False
        await self.public_key(key.version(1))
        items = [crypto_pb2.SignRequest(name=key.name, message=self._bytes(20)) for _ in range(RACE_ITEMS)]
        request = crypto_pb2.BatchSignRequest(items=items)
        crypto = self._client.crypto
        results, _ = await asyncio.gather(
            self._asker.ask_many(
                "BatchSign of a key that ends",
                crypto.BatchSign,
                request,
                lambda: ("KEY_DELETED", "KEY_NOT_FOUND", "KEY_VERSION_DESTROYED"),
            ),
            self._end(key),
        )
        for item, result in zip(items, results, strict=False):
            if result is not None:
                await self._check_signature("BatchSign", key, item.message, result.signature, result.key_version)
        return True
