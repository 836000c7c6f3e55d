"""The directory of `vaultd dev`: certificates, configuration and policy, made once and kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import yaml

from vaultd import softhsm
from vaultd.devpki import create_dev_pki

if TYPE_CHECKING:
    from pathlib import Path

ADMIN: Final = "spiffe://dev.vaultd/admin"
APP: Final = "spiffe://dev.vaultd/app"
TRUST_DOMAIN: Final = "dev.vaultd"
HSM_LABEL: Final = "vaultd dev"

POLICY: Final = {
    "bindings": [
        {"members": [APP], "role": "crypto-user", "resource": "vaults/default"},
        {"members": [APP], "role": "secret-reader", "resource": "vaults/default"},
    ]
}


def create_dev_directory(
    directory: Path,
    listen: str,
    *,
    hsm: bool = False,
    metrics: str | None = None,
    workers: int | None = None,
    host: str | None = None,
) -> Path:
    """Make what is missing; returns the path of config.yaml, which is all that is in force.

    `hsm` adds a SoftHSM token, once; raises SoftHsmMissing where SoftHSM is not installed.  `metrics` is where the plaintext
    listener is from now on, `workers` how many processes serve, and `host` how calls arrive.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    address = listen.rpartition(":")[0].strip("[]")
    create_dev_pki(directory / "tls", hosts=[address])
    config = directory / "config.yaml"
    document: dict[str, Any] = {
        "listen": listen,
        "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": "tls/ca.crt", "trust_domain": TRUST_DOMAIN}],
        "operators": [ADMIN],
        "store": {"path": "vault.db"},
        "root_key": {"provider": "file", "path": "root.key"},
        "audit": {"directory": "audit"},
        "lifecycle": {"min_destroy_delay_s": 0},
        "reflection": True,
        "log": {"level": "info", "format": "console"},
    }
    if config.exists():
        kept = yaml.safe_load(config.read_text())
        document = {**document, **kept, "listen": listen}
    if hsm and not document.get("hsm"):
        token = directory / "hsm"
        softhsm.make_token(token, HSM_LABEL)
        document["hsm"] = [
            {
                "name": "dev",
                "module": str(softhsm.find_module()),
                "token_label": HSM_LABEL,
                "pin": {"path": "hsm/pin"},
                "environment": softhsm.environment(token.resolve()),
            }
        ]
    if metrics:
        document["metrics"] = {**document.get("metrics", {}), "listen": metrics}
    if host is not None:
        document["host"] = host
    if workers is not None:
        document["workers"] = workers
    _write(config, document)
    if not (directory / "policy.yaml").exists():
        _write(directory / "policy.yaml", POLICY)
    return config


def _write(path: Path, document: object) -> None:
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    temporary.replace(path)


def grpcurl_line(directory: Path, address: str) -> str:
    """A command that works as printed, from the directory where the server was started."""
    tls = directory / "tls"
    return (
        f"grpcurl -cacert {tls}/ca.crt -cert {tls}/admin.crt -key {tls}/admin.key "
        f"{address} vaultd.v1.AdminService/GetStatus"
    )
