"""What is measured: one row of CASES is one row of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from vaultd_client.v1 import crypto_pb2 as pb
from vaultd_client.v1 import crypto_pb2_grpc, keys_pb2, keys_pb2_grpc, resources_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
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

    @property
    def path(self) -> str:
        return f"/vaultd.v1.CryptoService/{self.method}"

    def body(self, encrypt: Callable[[str], bytes]) -> bytes:
        """The serialised request."""
        request = self.request(encrypt)
        if self.method.startswith("Batch"):
            request = getattr(pb, f"{self.method}Request")(items=[request] * self.items)
        return bytes(request.SerializeToString())


def _name(key: str) -> str:
    return f"{VAULT}/keys/{key}"


def _encrypt(key: str) -> Callable[[Any], Any]:
    return lambda encrypt: pb.EncryptRequest(name=_name(key), plaintext=DATA)


def _decrypt(key: str) -> Callable[[Any], Any]:
    return lambda encrypt: pb.DecryptRequest(name=_name(key), ciphertext=encrypt(key))


def _sign(key: str) -> Callable[[Any], Any]:
    return lambda encrypt: pb.SignRequest(name=_name(key), message=DATA)


FEW: Final = 2
"""Calls in flight where each is milliseconds of work: more would only measure the queue."""

CASES: Final = (
    Case("Encrypt AES-256-GCM 64 B", "Encrypt", _encrypt("aes")),
    Case("Encrypt XAES-256-GCM 64 B", "Encrypt", _encrypt("xaes")),
    Case("Decrypt AES-256-GCM 64 B", "Decrypt", _decrypt("aes")),
    Case("Decrypt XAES-256-GCM 64 B", "Decrypt", _decrypt("xaes")),
    Case("Sign P-256", "Sign", _sign("p256")),
    Case("Sign Ed25519", "Sign", _sign("ed25519")),
    Case("Sign RSA-PSS-2048", "Sign", _sign("rsa2048")),
    Case("BatchEncrypt AES x1", "BatchEncrypt", _encrypt("aes")),
    Case("BatchEncrypt AES x10", "BatchEncrypt", _encrypt("aes"), 10),
    Case("BatchEncrypt AES x100", "BatchEncrypt", _encrypt("aes"), 100, FEW),
    Case("BatchEncrypt AES x1000", "BatchEncrypt", _encrypt("aes"), 1_000, FEW),
    Case("BatchEncrypt XAES x1000", "BatchEncrypt", _encrypt("xaes"), 1_000, FEW),
    Case("BatchSign P-256 x100", "BatchSign", _sign("p256"), 100, FEW),
)


class WrongAnswer(Exception):
    """The server refused, or part of a batch failed: there is nothing to measure."""


class Api:
    """The vault through its API, to prepare what is measured."""

    def __init__(self, address: str, tls: Path) -> None:
        self._address = address
        self._tls = tls

    def _channel(self, identity: str) -> Any:
        files = ("ca.crt", f"{identity}.key", f"{identity}.crt")
        credentials = grpc.ssl_channel_credentials(*((self._tls / file).read_bytes() for file in files))
        return grpc.secure_channel(self._address, credentials)

    def create_keys(self) -> None:
        """Make one key of each algorithm."""
        with self._channel("admin") as channel:
            stub = keys_pb2_grpc.KeysServiceStub(channel)
            for key_id, (purpose, algorithm) in KEYS.items():
                key = resources_pb2.Key(purpose=f"KEY_PURPOSE_{purpose}", algorithm=f"ALGORITHM_{algorithm}")
                stub.CreateKey(keys_pb2.CreateKeyRequest(parent=VAULT, key_id=key_id, key=key), timeout=30)

    def bodies(self, cases: list[Case]) -> dict[str, bytes]:
        """The request of each case, once the server has answered it as it should."""
        with self._channel("app") as channel:
            stub = crypto_pb2_grpc.CryptoServiceStub(channel)

            def encrypt(key: str) -> bytes:
                request = pb.EncryptRequest(name=_name(key), plaintext=DATA)
                return bytes(stub.Encrypt(request, timeout=30).ciphertext)

            bodies = {case.name: case.body(encrypt) for case in cases}
            for case in cases:
                answer = channel.unary_unary(case.path)(bodies[case.name], timeout=30)
                _check(case, getattr(pb, f"{case.method}Response").FromString(answer))
        return bodies


def _check(case: Case, response: Any) -> None:
    if not case.method.startswith("Batch"):
        good = bool(response.key_version)
    else:
        good = len(response.results) == case.items and all(result.HasField("result") for result in response.results)
    if not good:
        raise WrongAnswer(f"{case.name}: the answer is not what was asked for")
