"""A server that executes one approved rotation of the root key and says so; VAULTD_FAILPOINT says where it dies."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import running_server
from vaultd_client.v1 import admin_pb2


async def main(directory: Path) -> None:
    async with running_server(directory) as server:
        print("serving", flush=True)
        await server.client("asker").admin.RotateRootKey(admin_pb2.RotateRootKeyRequest())
        print("executed", flush=True)


asyncio.run(main(Path(sys.argv[1])))
