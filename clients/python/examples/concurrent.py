"""A thousand tasks, each of which awaits a call of its own; they reach the server in a handful of batches."""

import asyncio

from vaultd_client import AsyncClient, CallInfo

KEY = "vaults/default/keys/orders"


async def main() -> None:
    async with AsyncClient.from_env() as vault:
        infos = [CallInfo() for _ in range(1000)]
        rows = await asyncio.gather(*(vault.encrypt(KEY, b"row %d" % n, info=info) for n, info in enumerate(infos)))
        opened = await asyncio.gather(*(vault.decrypt(KEY, row.ciphertext) for row in rows))
    print(len(rows), "rows encrypted in", len({info.request_id for info in infos}), "calls")
    print("the last of them:", opened[-1].plaintext.decode())


asyncio.run(main())
