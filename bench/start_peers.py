"""Starts OpenBao and KES as they are measured: TLS, audit on, keys made; from a directory that has `bao` and `kes`."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.clients import Endpoint, Request
from bench.peers import Kes, KesSettings, OpenBao, OpenBaoSettings, PeerMissing, PeersSettings, call
from bench.processes import StartFailed, Talker
from vaultd.devpki import create_dev_pki

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

START_TIMEOUT_S: Final = 60.0
KEYS: Final = {"aes": "aes256-gcm96", "rsa2048": "rsa-2048", "p256": "ecdsa-p256", "ed25519": "ed25519"}
"""OpenBao's types of the keys that we ask it for."""
_POLICY: Final = 'path "transit/*" { capabilities = ["create", "update", "read"] }'


def start_peers(binaries: Path, directory: Path, exits: ExitStack, missing: dict[str, str]) -> PeersSettings:
    """Start what is in `binaries`; it ends with `exits`.  missing: gets what did not start, and why."""
    starts = {"openbao": (OpenBao.name, "bao", _start_openbao), "kes": (Kes.name, "kes", _start_kes)}
    found: dict[str, Any] = {}
    for key, (name, program, start) in starts.items():
        try:
            found[key] = start(binaries / program, directory / key, exits)
        except (PeerMissing, StartFailed) as error:
            missing[name] = str(error)
    return PeersSettings(**found)


def write_peers(peers: PeersSettings, file: Path) -> None:
    """As `--peers` reads it."""
    file.write_text(yaml.safe_dump(peers.model_dump(mode="json", exclude_none=True), sort_keys=False))


def _start_openbao(program: Path, directory: Path, exits: ExitStack) -> OpenBaoSettings:
    """A development server, which keeps everything in memory: the fastest that it can be."""
    directory.mkdir(parents=True)
    (directory / "tls").mkdir()
    audit = directory / "audit.hcl"
    audit.write_text(f'audit "file" "log" {{\n  options {{ file_path = "{directory}/audit.log" }}\n}}\n')
    root, address = secrets.token_urlsafe(24), _free_address()
    # The root token is known to this directory alone; what is measured has a token of its own, with a policy.
    arguments = ["server", "-dev", "-dev-tls", "-dev-no-store-token", "-log-level=warn", f"-config={audit}"]
    arguments += [f"-dev-listen-address={address}", f"-dev-tls-cert-dir={directory / 'tls'}"]
    process = Talker("openbao", arguments, directory, [str(program)], {"BAO_DEV_ROOT_TOKEN_ID": root})
    exits.callback(process.stop)
    ca = directory / "tls" / "vault-ca.pem"
    endpoint = Endpoint(address, ca)

    def ask(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = Request(path, json.dumps(body).encode(), grpc=False, method=method, headers={"X-Vault-Token": root})
        return call(endpoint, request)

    _wait(process, lambda: ca.exists() and ask("GET", "/v1/sys/health", {}))
    ask("POST", "/v1/sys/mounts/transit", {"type": "transit"})
    for key, kind in KEYS.items():
        ask("POST", f"/v1/transit/keys/{key}", {"type": kind})
    ask("PUT", "/v1/sys/policies/acl/bench", {"policy": _POLICY})
    token = ask("POST", "/v1/auth/token/create", {"policies": ["bench"], "ttl": "24h"})["auth"]["client_token"]
    token_file = directory / "token"
    _write_private(token_file, token)
    if not (directory / "audit.log").exists():
        raise PeerMissing("OpenBao writes no audit log")
    keys = {key: key for key in KEYS}
    return OpenBaoSettings(address=address, pid=process.pid, ca=ca, token_file=token_file, keys=keys)


def _start_kes(program: Path, directory: Path, exits: ExitStack) -> KesSettings:
    """With keys in files, and audit lines on its standard output, which goes to a file."""
    directory.mkdir(parents=True)
    tls = directory / "tls"
    create_dev_pki(tls, hosts=["127.0.0.1"])
    identity = _identity(tls / "app.crt")
    address = _free_address()
    config = {
        "version": "v1",
        "address": address,
        "admin": {"identity": "disabled"},
        "tls": {"key": str(tls / "server.key"), "cert": str(tls / "server.crt"), "ca": str(tls / "ca.crt")},
        "policy": {"bench": {"allow": ["/v1/key/encrypt/*", "/v1/key/decrypt/*"], "identities": [identity]}},
        "cache": {"expiry": {"any": "5m0s", "unused": "5m0s"}},
        "log": {"error": "on", "audit": "on"},
        "keys": [{"name": "aes"}],
        "keystore": {"fs": {"path": str(directory / "keys")}},
    }
    file = directory / "config.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    process = Talker("kes", ["server", "--config", str(file), "--auth", "on"], directory, [str(program)])
    exits.callback(process.stop)
    _wait(process, lambda: _answers(address))
    return KesSettings(
        address=address, pid=process.pid, ca=tls / "ca.crt", cert=tls / "app.crt", key=tls / "app.key", key_name="aes"
    )


def _identity(certificate: Path) -> str:
    """How KES names a caller: the SHA-256 of its public key."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _wait(process: Talker, ready: Any) -> None:
    """Raises PeerMissing when it has not answered in time."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.runs():
        try:
            if ready():
                return
        except PeerMissing:
            pass
        time.sleep(0.1)
    raise PeerMissing(process.describe_failure())


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def _write_private(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
