"""Every configuration of docs/identity.md is one that vaultd takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from vaultd.config import load_settings
from vaultd.engine.clock import SystemClock
from vaultd.issuers import TokenIssuers

PAGE = Path(__file__).resolve().parents[2] / "docs/identity.md"
SNIPPETS = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
REST = {
    "tls": {"certificate": "tls/server.crt", "key": "tls/server.key"},
    "trust_bundles": [{"name": "workloads", "ca": "tls/ca.crt", "trust_domain": "example.org"}],
    "store": {"path": "vault.db"},
    "root_key": {"provider": "file", "path": "root.key"},
    "audit": {"directory": "audit"},
}


def test_the_page_has_snippets():
    assert len(SNIPPETS) >= 6


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_is_a_configuration(tmp_path, snippet):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**REST, **yaml.safe_load(snippet)}))
    settings = load_settings(config)
    issuers = TokenIssuers(settings.jwt, SystemClock(), lambda *_: None)
    assert (issuers.tokens is not None) == bool(settings.jwt.issuers)
