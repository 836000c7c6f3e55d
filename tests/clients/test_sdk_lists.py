"""Lists over all their pages."""

from __future__ import annotations

import asyncio

import pytest
from sdk_rig import PATIENT, VAULT, Audit, async_client, create_keys, sync_client

from harness import running_server
from vaultd_client import NotFound


async def test_a_list_is_gone_over_page_by_page(tmp_path):
    async with running_server(tmp_path, **PATIENT) as server:
        await create_keys(server)
        audit = Audit(server)
        names = [f"{VAULT}/keys/{key}" for key in ("aead", "mac", "signer", "wrap")]
        async with async_client(server, "admin") as admin:
            assert [key.name async for key in admin.iter_keys(VAULT, page_size=3)] == names
            assert [one.name async for one in admin.iter_key_versions(names[0])] == [f"{names[0]}/versions/1"]
            assert [secret async for secret in admin.iter_secrets(VAULT)] == []
            with pytest.raises(NotFound):
                await anext(admin.iter_keys("vaults/nowhere"))
        assert audit.methods() == ["ListKeys", "ListKeys", "ListKeyVersions", "ListSecrets", "ListKeys"]

        def blocking() -> list[str]:
            with sync_client(server, "admin") as admin:
                keys = admin.iter_keys(VAULT, page_size=1)
                assert next(keys).name == names[0]
                assert audit.methods()[5:] == ["ListKeys"]
                return [key.name for key in keys]

        assert await asyncio.to_thread(blocking) == names[1:]
