"""The `rotation` section: what it accepts, and what it refuses with a line that names the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from vaultd.config import ConfigError, load_settings

if TYPE_CHECKING:
    from pathlib import Path

NAME = "vaults/default/secrets/orders-db"


def postgres(**changes: Any) -> dict[str, Any]:
    target = {
        "name": "orders-db",
        "type": "postgres",
        "secrets": [NAME],
        "host": "db.example.org",
        "database": "orders",
        "users": ["orders_a", "orders_b"],
        "admin": {"username": "rotator", "password": {"path": "pg.password"}},
    }
    return {**target, **changes}


def webhook(**changes: Any) -> dict[str, Any]:
    target = {
        "name": "legacy",
        "type": "webhook",
        "secrets": ["vaults/default"],
        "url": "https://rotate.example.org/v1",
        "ca_file": "tls/rotate-ca.crt",
        "hmac_key": {"credential": "rotate.key"},
    }
    return {**target, **changes}


def load(directory: Path, **rotation: Any):
    document = {
        "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
        "trust_bundles": [{"name": "dev", "ca": "tls/ca.crt", "trust_domain": "dev.vaultd"}],
        "store": {"path": "vault.db"},
        "root_key": {"provider": "file", "path": "root.key"},
        "audit": {"directory": "audit"},
        "rotation": rotation,
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(document))
    return load_settings(directory / "config.yaml").rotation


def test_targets_are_read_and_their_paths_are_of_the_file(tmp_path):
    section = load(tmp_path, targets=[postgres(), webhook()])
    first, second = section.targets
    assert first.admin.password.path == tmp_path / "pg.password"
    assert (first.port, first.tls.mode, first.users) == (5432, "verify-full", ("orders_a", "orders_b"))
    assert second.ca_file == tmp_path / "tls/rotate-ca.crt"


def test_without_a_section_there_are_no_targets(tmp_path):
    assert load(tmp_path).targets == ()


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (postgres(users=["a", "a"]), "two different roles"),
        (postgres(users=["rotator", "b"]), "admin.username"),
        (postgres(users=['a"; DROP ROLE b; --', "b"]), "users"),
        (postgres(secrets=["vaults/default"]), "exactly one secret"),
        (postgres(secrets=[NAME, f"{NAME}-2"]), "exactly one secret"),
        (postgres(secrets=["orders-db"]), "secrets"),
        (postgres(tls={"mode": "disable"}), "on this machine only"),
        (postgres(tls={"mode": "prefer"}), "tls.mode"),
        (postgres(tls={"mode": "verify-ca"}), "needs ca_file"),
        (postgres(admin={"password": {"path": "p"}}), "set username"),
        (postgres(admin={"username": "x", "password": {"secret": NAME}}), "set username"),
        (postgres(admin={"password": {"secret": NAME}}), "cannot hold the admin's password"),
        (postgres(admin={"username": "x", "password": {"path": "p", "environment": "P"}}), "exactly one of"),
        (postgres(admin={"username": "x", "password": "hunter2"}), "password"),
        (postgres(timeout_s=40), "lease_s"),
        (postgres(type="mysql"), "type"),
        (webhook(url="http://rotate.example.org/"), "https"),
        (webhook(url="http://127.0.0.1/"), "https"),
        (webhook(url="https://user:pw@rotate.example.org/"), "without user"),
        (webhook(ca_file=None), "ca_file"),
        (webhook(certificate="c.crt"), "go together"),
        (webhook(secrets=[NAME], hmac_key={"secret": NAME}), "its own webhook"),
        (webhook(surprise=1), "surprise"),
    ],
)
def test_what_is_wrong_with_a_target_is_said_and_not_quoted(tmp_path, problem, said):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, targets=[problem])
    assert "rotation" in str(caught.value)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"targets": [webhook(), webhook()]}, "one name"),
        ({"targets": [postgres(), postgres(name="other")]}, "in common"),
        ({"lease_s": 0.5}, "lease_s"),
        ({"backoff_s": 10, "max_backoff_s": 5}, "max_backoff_s"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_what_is_wrong_with_the_section_is_said(tmp_path, section, said):
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, **section)
