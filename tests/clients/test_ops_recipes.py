"""docs/ops.md as it is written: every command, one after another, with real grpcurl against one `vaultd dev`."""

from __future__ import annotations

import asyncio
import os
import re

import pytest

from clients.test_grpcurl import GRPCURL, REPOSITORY, serving
from clients.test_import_recipe import shell_blocks

PAGE = REPOSITORY / "docs" / "ops.md"


@pytest.mark.slow
async def test_every_recipe_works_as_it_is_written(tmp_path):
    async with serving(tmp_path / ".vaultd-dev") as vault:
        blocks = shell_blocks(PAGE)
        # Of a failure, bash says which command it was.
        script = "\n".join(["set -euo pipefail", "trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR", *blocks])
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script.replace("127.0.0.1:7443", vault.address)),
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{GRPCURL.parent}:{os.environ['PATH']}"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        said, told = out.decode(), err.decode()
        assert process.returncode == 0, (said[-2000:], told[-2000:])
    assert said.count("watched for 2 seconds\n") == 2
    assert set(re.findall(r"Code: (\w+)", told)) == {"DeadlineExceeded"}  # of the two watches
    assert said.count('"plaintext": "aGVsbG8="') == 1
    assert '"name": "vaults/default/keys/orders/versions/3"' not in said  # one request id, one rotation
    assert '"keys.delete"' in said  # what the refused caller lacked
    assert '"resumeToken"' in said
    assert "laptop stolen, ticket 4711" in said
