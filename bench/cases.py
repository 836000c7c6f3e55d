"""What is measured: one row of CASES is one row of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from bench.clients import Request
from vaultd_client.v1 import crypto_pb2 as pb
from vaultd_client.v1 import crypto_pb2_grpc, keys_pb2, keys_pb2_grpc, resources_pb2, secrets_pb2, secrets_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

VAULT: Final = "vaults/default"
DATA: Final = bytes(range(64))

KEYS: Final = {
    "aes": ("ENCRYPT_DECRYPT", "AES_256_GCM"),
    "xaes": ("ENCRYPT_DECRYPT", "UNSPECIFIED"),  # the server's own choice for software keys is XAES_256_GCM
    "p256": ("SIGN", "EC_P256_SHA256"),
    "rsa2048": ("SIGN", "RSA_PSS_2048_SHA256"),
    "ed25519": ("SIGN", "ED25519"),
}
"""Purpose and algorithm of the keys that CASES use."""
SECRETS: Final = 100
"""Secrets of 64 bytes that CASES use."""


@dataclass(frozen=True)
class Case:
    """One RPC with one body, sent again and again.

    request: makes the message, given a function that encrypts; for a batch, of one item.  in_flight: None for the default
    of the command line.
    """

    name: str
    method: str
    request: Callable[[Callable[[str], bytes]], Any]
    items: int = 1
    in_flight: int | None = None
    service: str = "CryptoService"

    @property
    def path(self) -> str:
        return f"/vaultd.v1.{self.service}/{self.method}"

    @property
    def messages(self) -> Any:
        """The module of its messages."""
        return secrets_pb2 if self.service == "SecretsService" else pb

    def body(self, encrypt: Callable[[str], bytes]) -> bytes:
        """The serialised request."""
        if self.service == "SecretsService":
            request = access_many(self.items) if self.method.startswith("Batch") else self.request(encrypt)
            return bytes(request.SerializeToString())
        request = self.request(encrypt)
        if self.method.startswith("Batch"):
            request = getattr(pb, f"{self.method}Request")(items=[request] * self.items)
        return bytes(request.SerializeToString())


def key_name(key: str) -> str:
    """The resource name of one of our keys."""
    return f"{VAULT}/keys/{key}"


def encrypt_with(key: str) -> Callable[[Any], Any]:
    """Makes requests that encrypt DATA."""
    return lambda encrypt: pb.EncryptRequest(name=key_name(key), plaintext=DATA)


def decrypt_with(key: str) -> Callable[[Any], Any]:
    """Makes requests that decrypt what was encrypted once."""
    return lambda encrypt: pb.DecryptRequest(name=key_name(key), ciphertext=encrypt(key))


def sign_with(key: str) -> Callable[[Any], Any]:
    """Makes requests that sign DATA."""
    return lambda encrypt: pb.SignRequest(name=key_name(key), message=DATA)


def access(number: int = 0) -> secrets_pb2.AccessSecretVersionRequest:
    """Asks for the version in service of one of our secrets."""
    return secrets_pb2.AccessSecretVersionRequest(name=f"{VAULT}/secrets/s{number}")


def access_many(items: int) -> secrets_pb2.BatchAccessSecretVersionsRequest:
    """Asks for as many different secrets."""
    return secrets_pb2.BatchAccessSecretVersionsRequest(items=[access(number) for number in range(items)])


FEW: Final = 2
"""Calls in flight where each is milliseconds of work: more would only measure the queue."""

CASES: Final = (
    Case("Encrypt AES-256-GCM 64 B", "Encrypt", encrypt_with("aes")),
    Case("Encrypt XAES-256-GCM 64 B", "Encrypt", encrypt_with("xaes")),
    Case("Decrypt AES-256-GCM 64 B", "Decrypt", decrypt_with("aes")),
    Case("Decrypt XAES-256-GCM 64 B", "Decrypt", decrypt_with("xaes")),
    Case("Sign P-256", "Sign", sign_with("p256")),
    Case("Sign Ed25519", "Sign", sign_with("ed25519")),
    Case("Sign RSA-PSS-2048", "Sign", sign_with("rsa2048")),
    Case("BatchEncrypt AES x1", "BatchEncrypt", encrypt_with("aes")),
    Case("BatchEncrypt AES x10", "BatchEncrypt", encrypt_with("aes"), 10),
    Case("BatchEncrypt AES x100", "BatchEncrypt", encrypt_with("aes"), 100, FEW),
    Case("BatchEncrypt AES x1000", "BatchEncrypt", encrypt_with("aes"), 1_000, FEW),
    Case("BatchEncrypt XAES x1000", "BatchEncrypt", encrypt_with("xaes"), 1_000, FEW),
    Case("BatchSign P-256 x100", "BatchSign", sign_with("p256"), 100, FEW),
    Case("AccessSecretVersion 64 B", "AccessSecretVersion", lambda _: access(), service="SecretsService"),
    Case(
        "BatchAccessSecretVersions x100",
        "BatchAccessSecretVersions",
        lambda _: access(),
        SECRETS,
        FEW,
        service="SecretsService",
    ),
)


class WrongAnswer(Exception):
    """The server refused, or part of a batch failed: there is nothing to measure."""


class Api:
    """The vault through its API, to prepare what is measured."""

    def __init__(self, address: str, tls: Path) -> None:
        self._address = address
        self._tls = tls
        self._made = 0

    def _channel(self, identity: str) -> Any:
        files = ("ca.crt", f"{identity}.key", f"{identity}.crt")
        credentials = grpc.ssl_channel_credentials(*((self._tls / file).read_bytes() for file in files))
        return grpc.secure_channel(self._address, credentials)

    def create_keys(self, keys: Mapping[str, tuple[str, str]], protection_level: str = "UNSPECIFIED") -> None:
        """Make keys: purpose and algorithm, by id."""
        with self._channel("admin") as channel:
            stub = keys_pb2_grpc.KeysServiceStub(channel)
            for key_id, (purpose, algorithm) in keys.items():
                key = resources_pb2.Key(
                    purpose=f"KEY_PURPOSE_{purpose}",
                    algorithm=f"ALGORITHM_{algorithm}",
                    protection_level=f"PROTECTION_LEVEL_{protection_level}",
                )
                stub.CreateKey(keys_pb2.CreateKeyRequest(parent=VAULT, key_id=key_id, key=key), timeout=30)

    def new_key_ids(self, prefix: str) -> Iterator[str]:
        """Without end, and none twice."""
        while True:
            self._made += 1
            yield f"{prefix}-{self._made}"

    def create_secrets(self, count: int) -> None:
        """Make secrets that hold DATA."""
        with self._channel("admin") as channel:
            stub = secrets_pb2_grpc.SecretsServiceStub(channel)
            for number in range(count):
                request = secrets_pb2.CreateSecretRequest(parent=VAULT, secret_id=f"s{number}", payload=DATA)
                stub.CreateSecret(request, timeout=30)

    def requests(self, cases: Sequence[Case]) -> dict[str, Request]:
        """The request of each case, once the server has answered it as it should."""
        with self._channel("app") as channel:
            stub = crypto_pb2_grpc.CryptoServiceStub(channel)

            def encrypt(key: str) -> bytes:
                request = pb.EncryptRequest(name=key_name(key), plaintext=DATA)
                return bytes(stub.Encrypt(request, timeout=30).ciphertext)

            bodies = {case.name: case.body(encrypt) for case in cases}
            for case in cases:
                answer = channel.unary_unary(case.path)(bodies[case.name], timeout=30)
                _check(case, getattr(case.messages, f"{case.method}Response").FromString(answer))
        return {case.name: Request(case.path, bodies[case.name], case.items) for case in cases}


def _check(case: Case, response: Any) -> None:
    if not case.method.startswith("Batch"):
        good = bool(response.version if case.service == "SecretsService" else response.key_version)
    else:
        good = len(response.results) == case.items and all(result.HasField("result") for result in response.results)
    if not good:
        raise WrongAnswer(f"{case.name}: the answer is not what was asked for")
