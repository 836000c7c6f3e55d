"""Other key servers beside which vaultd is measured: where they are, and what they are asked.

`--peers FILE` names a YAML file such as `python -m bench start-peers` writes; docs/performance/peers.md says how to build them.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.accounting import Meter
from bench.cases import DATA
from bench.clients import Endpoint, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXT: Final = base64.b64encode(DATA).decode()
PROBE_TIMEOUT_S: Final = 10.0


class PeerMissing(Exception):
    """It is not there, or does not answer as it should."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    pid: int
    """Its process: what it and its descendants cost is its cost."""
    ca: Path


class OpenBaoSettings(_Settings):
    """Keys of the transit engine at `mount`, by what they are for; token_file holds the caller's token."""

    token_file: Path
    mount: str = "transit"
    keys: dict[str, str]


class KesSettings(_Settings):
    """The caller's certificate and key, and the name of an AES-256 key."""

    cert: Path
    key: Path
    key_name: str


class PeersSettings(BaseModel):
    """The file of `--peers`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    openbao: OpenBaoSettings | None = None
    kes: KesSettings | None = None


def read_peers(file: Path) -> PeersSettings:
    """Raises PeerMissing when the file cannot be read or says something else."""
    try:
        return PeersSettings.model_validate(yaml.safe_load(file.read_text()) or {})
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise PeerMissing(f"{file}: {error}") from error


class OpenBao:
    """OpenBao's transit engine, over TLS with a token."""

    name = "OpenBao"

    def __init__(self, settings: OpenBaoSettings) -> None:
        """Asks everything once.  Raises PeerMissing."""
        self._settings = settings
        self.meter = _meter(self.name, settings.pid)
        self.endpoint = Endpoint(settings.address, settings.ca)
        try:
            token = settings.token_file.read_text().strip()
        except OSError as error:
            raise PeerMissing(f"{self.name}: {error}") from error
        self._headers = {"X-Vault-Token": token, "Content-Type": "application/json"}
        _ask(self.endpoint, self.encrypt(), "ciphertext")
        _ask(self.endpoint, self.encrypt_batch(2), "batch_results")
        for key in SIGNATURES:
            _ask(self.endpoint, self.sign(key), "signature")

    def encrypt(self) -> Request:
        """64 bytes with AES-256-GCM."""
        return self._request(f"encrypt/{self._settings.keys['aes']}", {"plaintext": _TEXT})

    def encrypt_batch(self, items: int) -> Request:
        """As many in one call."""
        body = {"batch_input": [{"plaintext": _TEXT}] * items}
        return self._request(f"encrypt/{self._settings.keys['aes']}", body, items)

    def sign(self, key: str) -> Request:
        """64 bytes with one of SIGNATURES."""
        return self._request(f"sign/{self._settings.keys[key]}", {"input": _TEXT, **SIGNATURES[key]})

    def _request(self, path: str, body: Mapping[str, Any], items: int = 1) -> Request:
        return Request(
            path=f"/v1/{self._settings.mount}/{path}",
            body=json.dumps(body).encode(),
            items=items,
            grpc=False,
            method="PUT",
            headers=self._headers,
        )


SIGNATURES: Final[Mapping[str, Mapping[str, str]]] = {
    "rsa2048": {"signature_algorithm": "pss", "hash_algorithm": "sha2-256", "salt_length": "hash"},
    "p256": {"hash_algorithm": "sha2-256"},
    "ed25519": {},
}
"""What is said with a request to sign, by our name of the key: what vaultd's algorithms fix."""


class Kes:
    """MinIO KES, over mTLS."""

    name = "KES"

    def __init__(self, settings: KesSettings) -> None:
        """Asks once.  Raises PeerMissing."""
        self._settings = settings
        self.meter = _meter(self.name, settings.pid)
        self.endpoint = Endpoint(settings.address, settings.ca, settings.cert, settings.key)
        _ask(self.endpoint, self.encrypt(), "ciphertext")

    def encrypt(self) -> Request:
        """64 bytes."""
        return Request(
            path=f"/v1/key/encrypt/{self._settings.key_name}",
            body=json.dumps({"plaintext": _TEXT}).encode(),
            grpc=False,
            method="PUT",
            headers={"Content-Type": "application/json"},
        )


def _meter(name: str, pid: int) -> Meter:
    if not Path(f"/proc/{pid}").exists():
        raise PeerMissing(f"{name}: there is no process {pid}; start it again and name its new pid")
    return Meter(pid)


def call(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """One call outside any measurement.  Raises PeerMissing when it is not answered with success."""
    url = f"https://{endpoint.address}{request.path}"
    asked = urllib.request.Request(url, request.body or None, dict(request.headers), method=request.method)
    try:
        context = ssl.create_default_context(cafile=str(endpoint.ca))
        if endpoint.cert:
            context.load_cert_chain(endpoint.cert, endpoint.key)
        with urllib.request.urlopen(asked, timeout=PROBE_TIMEOUT_S, context=context) as answer:  # noqa: S310 - https above
            said = answer.read()
    except urllib.error.HTTPError as error:
        raise PeerMissing(f"{request.path}: {error.code} {error.read()[:300].decode(errors='replace')}") from error
    except OSError as error:
        raise PeerMissing(f"{endpoint.address}: {error}") from error
    return json.loads(said) if said.strip() else {}


def _ask(endpoint: Endpoint, request: Request, expected: str) -> None:
    answer = call(endpoint, request)
    if expected not in answer.get("data", answer):
        raise PeerMissing(f"{endpoint.address}{request.path}: the answer has no {expected}")
