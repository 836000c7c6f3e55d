"""Who waits for whom in front of a token."""

from __future__ import annotations

import asyncio

import pytest

from softhsm import make_slot, put_key, slot_settings
from vaultd.backends.base import Lane
from vaultd.backends.pkcs11.messages import Verb
from vaultd.backends.pkcs11.slot import Request

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

ALGORITHM = "EC_P256_SHA256"


async def test_what_is_online_overtakes_a_batch_that_is_under_way(tmp_path):
    slot = make_slot(slot_settings(tmp_path), lambda name, serving: None)
    await slot.open()
    try:
        request = Request("sign", Verb.SIGN, (await put_key(slot, ALGORITHM, "lanes"), ALGORITHM, bytes(32)))
        batch = slot.submit([request] * 5_000, None, Lane.BATCH)
        for _ in range(20):
            assert len(await slot.ask(request, None, Lane.ONLINE)) == 64
        assert not batch.done()
        assert {len(signature) for signature in await batch} == {64}
    finally:
        await slot.close()


async def test_a_batch_that_the_worker_has_goes_on_while_there_is_always_something_online(tmp_path):
    slot = make_slot(slot_settings(tmp_path), lambda name, serving: None)
    await slot.open()
    try:
        request = Request("sign", Verb.SIGN, (await put_key(slot, ALGORITHM, "lanes"), ALGORITHM, bytes(32)))
        batch = slot.submit([request] * 8, None, Lane.BATCH)
        await asyncio.sleep(0)  # it is sent
        online = [slot.submit([request] * 50, None, Lane.ONLINE) for _ in range(4)]
        while not batch.done():
            await online.pop(0)
            online.append(slot.submit([request] * 50, None, Lane.ONLINE))
        assert {len(signature) for signature in await batch} == {64}
        for waiting in online:
            await waiting
    finally:
        await slot.close()
