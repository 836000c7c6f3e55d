"""docs/vaultctl.md and docs/scan.md as they are written: their shell blocks one after another, with a real `vaultd dev`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from clients.test_grpcurl import REPOSITORY, serving
from clients.test_import_recipe import shell_blocks

PAGES = [REPOSITORY / "docs" / "vaultctl.md", REPOSITORY / "docs" / "scan.md"]


@pytest.mark.slow
async def test_the_pages_work_as_they_are_written(tmp_path):
    async with serving(tmp_path / ".vaultd-dev") as vault:
        vaultctl, scan = (shell_blocks(page) for page in PAGES)
        script = "\n".join(["set -euo pipefail", *vaultctl, *scan[:1]]).replace("127.0.0.1:7443", vault.address)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("VAULTD_")}
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=tmp_path,
            env={
                **inherited,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "XDG_CONFIG_HOME": str(tmp_path / "config"),
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, (said[-2000:], err.decode()[-2000:])
    assert "hello" in said
    assert "vaults/default/secrets/db/versions/1\ncorrect horse" in said
    assert "nothing is in the way" in said
    assert (tmp_path / "release.pem").read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert (tmp_path / "records.jsonl").read_text().count("\n") > 5
    assert (tmp_path / ".vaultd-scan.json").exists()
