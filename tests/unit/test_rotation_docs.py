"""docs/rotation.md names every reason that a rotation can fail for, and nothing else; its code for webhooks works."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import vaultd
from vaultd.engine import rotation_runner, rotation_steps
from vaultd.rotators import postgres
from vaultd.rotators.webhook import signature
from vaultd.secret import Secret

ROOT = Path(vaultd.__file__).parent
PAGE = (ROOT.parent / "docs/rotation.md").read_text()
OF_THE_SECRET = {"TOO_MANY_VERSIONS"}
"""Reasons of FailedPrecondition, which docs/errors.md explains."""


def test_every_reason_of_a_failure_is_on_the_page():
    given = set(postgres.LASTING_STATES.values()) | {rotation_steps.CANCELLED, rotation_steps.INTERRUPTED}
    given |= set(rotation_runner._WORDS) | OF_THE_SECRET | {"POSTGRES_ERROR", "WEBHOOK_REFUSED"}
    for path in (*ROOT.glob("rotators/*.py"), ROOT / "rotation_targets.py", ROOT / "engine/rotation_runner.py"):
        given |= set(re.findall(r'RotatorFailed\(\s*"([A-Z_]+)"', path.read_text()))
    given |= {"CREDENTIAL_MISSING"}
    table = PAGE.split("| Reason | Meaning |")[1].split("\n\n")[0]
    first = "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([A-Z_]+)`", first)) == given


def test_the_verifier_of_the_page_takes_our_signature_and_no_other():
    scope: dict = {}
    exec(PAGE.split("```python\n")[1].split("```")[0], scope)  # noqa: S102  # the page is ours
    key, body, path, now = b"k" * 32, b'{"version":1}', "/rotate?x=1", str(int(time.time()))
    good = {"Vaultd-Timestamp": now, "Vaultd-Signature": f"v1={signature(Secret(key), now, path, body)}"}
    assert scope["is_genuine"](key, path, good, body)
    assert not scope["is_genuine"](key, path, good, body + b" ")
    assert not scope["is_genuine"](key, "/other", good, body)
    assert not scope["is_genuine"](b"x" * 32, path, good, body)
    old = str(int(now) - 301)
    late = {"Vaultd-Timestamp": old, "Vaultd-Signature": f"v1={signature(Secret(key), old, path, body)}"}
    assert not scope["is_genuine"](key, path, late, body)


def test_the_example_of_the_page_is_a_body_as_it_is_sent():
    example = PAGE.split("```json\n")[2].split("```")[0].strip()
    assert list(json.loads(example)) == ["version", "stage", "run", "secret", "old", "new"]
