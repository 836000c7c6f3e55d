"""The programs of clients/python/examples and of the SDK's documents, each run as it is printed."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from harness import running_server

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "clients/python/examples"
DOCUMENTS = [
    ROOT / "clients/python/README.md",
    *(ROOT / f"docs/{name}.md" for name in ("sdk", "envelope", "integrations")),
]


def programs(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


RUNNER = """
import json, sys
for program in json.load(sys.stdin):
    exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    print("done")
"""


async def run(server, stem: str, programs: list[str]) -> list[str]:
    """What each of them prints, one after the other in one process with the variables of an identity."""
    tls = server.directory / "tls"
    environment = {
        "VAULTD_ADDR": server.address,
        "VAULTD_CA": str(tls / "ca.crt"),
        "VAULTD_CERT": str(tls / f"{stem}.crt"),
        "VAULTD_KEY": str(tls / f"{stem}.key"),
    }
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", RUNNER, cwd=server.directory, env=environment, **pipes
    )
    out, err = await process.communicate(json.dumps(programs).encode())
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    told = out.decode().split("done\n")[:-1]
    assert len(told) == len(programs)
    return told


@pytest.mark.slow
async def test_every_program_that_is_written_down_runs(tmp_path):
    example = {path.stem: path.read_text() for path in EXAMPLES.glob("*.py")}
    async with running_server(tmp_path) as server:
        written = [programs(path) for path in DOCUMENTS]
        in_documents = [program for each in written for program in each]
        made, again, *documents = await run(server, "admin", [example["keys"], example["keys"], *in_documents])
        assert re.search(r"INVALID_ARGUMENT INVALID_NAME \['key_id'\] \S+", made)
        assert "there already: KEY_EXISTS" in again
        assert all(written)
        assert all(documents)
        names = ("encrypt", "concurrent", "sign")
        encrypted, together, signed = await run(server, "app", [example[name] for name in names])
        assert "opened: 4111" in encrypted
        assert "not for order 18: DECRYPTION_FAILED" in encrypted
        assert int(re.search(r"in (\d+) calls", together)[1]) < 20
        assert "verified with vaults/default/keys/release/versions/1" in signed
        assert set(example) == {"keys", *names}
