"""A process that unseals the vault in a directory and restores a key's backup; VAULTD_FAILPOINT says where it dies."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.engines import intent, open_engine


async def main(directory: Path) -> None:
    async with open_engine(directory) as vault:
        print("unsealed", flush=True)
        await vault.engine.key_backups.restore(intent("restore"), "default", (directory / "key.backup").read_bytes())
        print("restored", flush=True)


asyncio.run(main(Path(sys.argv[1])))
