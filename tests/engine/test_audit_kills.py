"""The campaign of tests/reliability/audit_receipts.py, small: one SIGKILL under load, and every receipt is found and proved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).resolve().parents[1] / "reliability" / "audit_receipts.py"


@pytest.mark.slow
def test_every_receipt_is_found_and_proved_after_a_kill_under_load():
    arguments = ["--calls", "600", "--kills", "1", "--clients", "16", "--no-failpoints"]
    done = subprocess.run(
        [sys.executable, CAMPAIGN, *arguments], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kill, summary = (json.loads(line) for line in done.stdout.splitlines())
    assert kill["missing"] == 0
    assert summary["receipts"] > 20
    assert (summary["unproved"], summary["given_twice"], summary["verifies"]) == (0, 0, True)
