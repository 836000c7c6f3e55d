"""docs/import-export.md as it is written: its shell blocks one after another, with real OpenSSL, vaultctl and grpcurl."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from clients.test_grpcurl import GRPCURL, REPOSITORY, serving

PAGE = REPOSITORY / "docs" / "import-export.md"
README = REPOSITORY / "README.md"


def shell_blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def functions() -> str:
    """The README's short names."""
    (block,) = [block for block in shell_blocks(README) if block.startswith("vault() {")]
    return block


@pytest.mark.slow
async def test_the_page_works_as_it_is_written(tmp_path):
    async with serving(tmp_path / ".vaultd-dev") as vault:
        script = "\n".join(["set -euo pipefail", functions(), *shell_blocks(PAGE)])
        script = script.replace("127.0.0.1:7443", vault.address)
        path = f"{GRPCURL.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        said = out.decode()
        assert process.returncode == 0, (said[-2000:], err.decode()[-2000:])
        assert "vaults/default/keys/imported-signer/versions/1\n" in said
        assert "vaults/default/keys/imported-mac/versions/1\n" in said
        assert said.count("the same\n") == 2  # what went in is what the server has; what came out is what was exported
        assert said.rstrip().endswith("}")
        key = await vault.call("KeysService/GetKey", {"name": "vaults/default/keys/leaving"})
        assert (key["minDecryptVersion"], key["newestVersion"]) == (2, 2)
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {"kek.bin", "key.pem", "key.pkcs8", "opened.der"}
    assert (tmp_path / "leaving.pem").stat().st_mode & 0o777 == 0o600
