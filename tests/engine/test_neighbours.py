"""Two engines of one server, told of each other: sealed and opened together, and no staler than a call."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from engine.engines import POLICY, OpenEngine, engine_settings, intent, version
from harness import FakeClock
from vaultd.engine.seal import SealState
from vaultd.errors import FailedPrecondition
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSPHRASE = Secret(b"correct horse battery staple")
ANOTHER = Secret(b"quite another passphrase")
BY_PASSPHRASE = {"root_key": {"provider": "passphrase"}}


class Neighbour:
    """The other engine, without a process between them."""

    def __init__(self) -> None:
        self.sealed = False
        self.seals = 0
        self.engine: OpenEngine
        self.commits = 0

    def committed(self) -> None:
        self.commits += 1

    async def settled(self) -> None:
        await self.engine.engine.feed.poll()

    async def seal(self) -> None:
        await self.engine.seal.seal_here()

    async def open(self, keys: Mapping[str, Secret], seals: int) -> bool:
        await self.engine.seal.unseal_with(keys)
        return self.seals == seals

    async def share(self, keys: Mapping[str, Secret]) -> None:
        self.engine.seal.take_over(keys)


@asynccontextmanager
async def pair(directory, **overrides):
    """Two engines that are each other's neighbour; the vault is made by the first, and opens in both."""
    settings = engine_settings(directory, **overrides)
    of_one, of_two = Neighbour(), Neighbour()
    one, two = (OpenEngine(settings, FakeClock(), neighbours) for neighbours in (of_one, of_two))
    of_one.engine, of_two.engine = two, one
    await one.open()
    await two.open()
    await two.seal.start()
    assert two.seal.state is SealState.UNINITIALIZED
    await one.seal.init(POLICY, PASSPHRASE if overrides else None)
    try:
        yield one, two
    finally:
        await one.stop()
        await two.stop()


async def test_a_vault_that_is_made_in_one_is_open_in_both(tmp_path):
    async with pair(tmp_path) as (one, two):
        assert two.seal.state is SealState.UNSEALED
        ref = await one.create()
        assert await two.decrypt(ref, await one.encrypt(ref)) == b"plaintext"


async def test_a_change_is_in_force_in_the_other_when_it_returns(tmp_path):
    async with pair(tmp_path) as (one, two):
        ref = await one.create()
        await two.encrypt(ref)
        await one.key_versions.disable_version(intent(), version(ref, 1), "")
        with pytest.raises(FailedPrecondition):
            await two.encrypt(ref)
        await two.key_versions.enable_version(intent(), version(ref, 1), "")
        assert await one.encrypt(ref)


async def test_who_seals_one_seals_both(tmp_path):
    async with pair(tmp_path) as (one, two):
        await two.seal.seal()
        assert (one.seal.state, two.seal.state) == (SealState.SEALED, SealState.SEALED)
        await one.seal.unseal(None)
        assert (one.seal.state, two.seal.state) == (SealState.UNSEALED, SealState.UNSEALED)


async def test_a_passphrase_that_one_was_given_opens_both(tmp_path):
    async with pair(tmp_path, **BY_PASSPHRASE) as (one, two):
        ref = await one.create()
        await one.seal.seal()
        assert one.seal.root_keys() == two.seal.root_keys() == {}
        await two.seal.unseal(PASSPHRASE)
        assert one.seal.state is SealState.UNSEALED
        assert await one.decrypt(ref, await two.encrypt(ref)) == b"plaintext"


async def test_unseal_of_one_that_is_open_opens_the_other(tmp_path):
    async with pair(tmp_path, **BY_PASSPHRASE) as (one, two):
        await two.seal.seal_here()
        await one.seal.unseal(PASSPHRASE)
        assert two.seal.state is SealState.UNSEALED


async def test_a_root_key_that_one_rotated_to_another_passphrase_is_followed_by_the_other(tmp_path):
    async with pair(tmp_path, **BY_PASSPHRASE) as (one, two):
        ref = await one.create()
        sealed = await two.encrypt(ref)
        await one.seal.rotate_root(intent(), ANOTHER)
        assert two.ledger.sealer.term == 2
        assert SealState.SEALED not in two.seal_states[-1:]
        assert await two.decrypt(ref, sealed) == b"plaintext"
        await two.seal.rotate_root(intent(), PASSPHRASE)
        assert one.ledger.sealer.term == 3
        await one.seal.seal()
        await one.seal.unseal(PASSPHRASE)
        assert two.seal.state is SealState.UNSEALED


async def test_one_that_starts_while_the_vault_is_sealed_stays_sealed(tmp_path):
    async with pair(tmp_path) as (one, two):
        await one.seal.seal()
        late = Neighbour()
        late.sealed, late.engine = True, two
        third = OpenEngine(one.settings, FakeClock(), late)
        await third.open()
        await third.seal.start()
        assert third.seal.state is SealState.SEALED
        await third.stop()
