"""What every root-key provider promises: a test class per provider inherits this."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import pytest

from vaultd.errors import DataLoss, FailedPrecondition
from vaultd.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from vaultd.backends.rootkeys import RootKeyProvider

RING = Secret(b"the key ring, of no particular length")
AAD = b"ring generation 7"


class Place(Protocol):
    """Where a provider keeps its keys, as its operator sees it."""

    passphrase: Secret | None

    def connect(self) -> RootKeyProvider:
        """Make a provider on this place, as a new process does."""
        ...

    def operator_rotates(self) -> None:
        """Do what the operator must do before prepare_next."""
        ...


def opened(secret: Secret) -> bytes:
    return secret.expose("compared in a test")


class RootKeyContract:
    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
        raise NotImplementedError

    async def test_what_is_wrapped_unwraps_in_the_next_process(self, place):
        first = place.connect()
        ref = await first.create(place.passphrase)
        wrapped = await first.wrap(ref, RING, AAD)
        assert opened(await place.connect().unwrap(ref, wrapped, AAD, place.passphrase)) == opened(RING)

    async def test_two_wrappings_of_the_same_differ_and_hide_it(self, place):
        provider = place.connect()
        ref = await provider.create(place.passphrase)
        wrapped = {await provider.wrap(ref, RING, AAD) for _ in range(10)}
        assert len(wrapped) == 10
        assert not any(opened(RING) in w for w in wrapped)

    async def test_an_empty_secret_wraps(self, place):
        provider = place.connect()
        ref = await provider.create(place.passphrase)
        wrapped = await provider.wrap(ref, Secret(b""), b"")
        assert opened(await provider.unwrap(ref, wrapped, b"", place.passphrase)) == b""

    async def test_other_associated_data_is_a_mismatch(self, place):
        provider = place.connect()
        ref = await provider.create(place.passphrase)
        wrapped = await provider.wrap(ref, RING, AAD)
        with pytest.raises(DataLoss) as error:
            await provider.unwrap(ref, wrapped, AAD + b"x", place.passphrase)
        assert error.value.reason == "ROOT_KEY_MISMATCH"

    async def test_every_flipped_byte_and_every_truncation_is_a_mismatch(self, place):
        provider = place.connect()
        ref = await provider.create(place.passphrase)
        wrapped = await provider.wrap(ref, RING, AAD)
        passphrase = None  # the key is in memory, or the provider needs none
        flipped = [wrapped[:i] + bytes([wrapped[i] ^ 1]) + wrapped[i + 1 :] for i in range(len(wrapped))]
        for bad in [*flipped, *(wrapped[:n] for n in range(len(wrapped))), wrapped + b"\0"]:
            with pytest.raises(DataLoss) as error:
                await provider.unwrap(ref, bad, AAD, passphrase)
            assert error.value.reason == "ROOT_KEY_MISMATCH"

    async def test_a_wrapping_is_bound_to_its_ref(self, place):
        provider = place.connect()
        old = await provider.create(place.passphrase)
        place.operator_rotates()
        new = await provider.prepare_next(place.passphrase)
        wrapped = await provider.wrap(old, RING, AAD)
        with pytest.raises(DataLoss) as error:
            await provider.unwrap(new, wrapped, AAD, None)
        assert error.value.reason == "ROOT_KEY_MISMATCH"

    async def test_a_root_key_that_is_not_there_is_missing(self, place):
        provider = place.connect()
        await provider.create(place.passphrase)
        with pytest.raises(FailedPrecondition) as error:
            await provider.wrap("0123456789abcdef", RING, AAD)
        assert error.value.reason == "ROOT_KEY_MISSING"

    async def test_rotation_keeps_both_keys_until_the_old_one_is_retired(self, place):
        provider = place.connect()
        old = await provider.create(place.passphrase)
        under_old = await provider.wrap(old, RING, AAD)
        place.operator_rotates()
        new = await provider.prepare_next(place.passphrase)
        assert new != old
        under_new = await provider.wrap(new, RING, AAD)
        assert opened(await provider.unwrap(old, under_old, AAD, None)) == opened(RING)
        assert opened(await provider.unwrap(new, under_new, AAD, None)) == opened(RING)
        await provider.unwrap(new, under_new, AAD, place.passphrase)
        await provider.retire(old)
        await provider.retire(old)
        assert opened(await provider.unwrap(new, under_new, AAD, None)) == opened(RING)

    async def test_retiring_what_is_not_there_changes_nothing(self, place):
        provider = place.connect()
        ref = await provider.create(place.passphrase)
        wrapped = await provider.wrap(ref, RING, AAD)
        await provider.retire("0123456789abcdef")
        assert opened(await provider.unwrap(ref, wrapped, AAD, None)) == opened(RING)

    async def test_the_root_key_in_use_stays_whatever_is_retired(self, place):
        provider = place.connect()
        ref = await provider.create(place.passphrase)
        wrapped = await provider.wrap(ref, RING, AAD)
        place.operator_rotates()
        for _ in range(2):  # as the only key, and beside another
            with suppress(FailedPrecondition):
                await provider.retire(ref)
            assert opened(await provider.unwrap(ref, wrapped, AAD, None)) == opened(RING)
            await provider.prepare_next(place.passphrase)

    async def test_a_crash_between_prepare_and_retire_leaves_both_usable_and_rotation_possible(self, place):
        crashed = place.connect()
        old = await crashed.create(place.passphrase)
        under_old = await crashed.wrap(old, RING, AAD)
        place.operator_rotates()
        new = await crashed.prepare_next(place.passphrase)
        under_new = await crashed.wrap(new, RING, AAD)
        for ref, wrapped in ((new, under_new), (old, under_old)):
            assert opened(await place.connect().unwrap(ref, wrapped, AAD, place.passphrase)) == opened(RING)

        after = place.connect()
        await after.unwrap(old, under_old, AAD, place.passphrase)
        again = await after.prepare_next(place.passphrase)
        assert again != old
        under_again = await after.wrap(again, RING, AAD)
        await after.unwrap(again, under_again, AAD, place.passphrase)
        await after.retire(old)
        assert opened(await place.connect().unwrap(again, under_again, AAD, place.passphrase)) == opened(RING)

    async def test_create_again_keeps_what_is_wrapped_usable(self, place):
        provider = place.connect()
        ref = await provider.create(place.passphrase)
        wrapped = await provider.wrap(ref, RING, AAD)
        await place.connect().create(place.passphrase)
        assert opened(await place.connect().unwrap(ref, wrapped, AAD, place.passphrase)) == opened(RING)

    async def test_no_error_text_or_ref_holds_the_secret(self, place):
        provider = place.connect()
        ref = await provider.create(place.passphrase)
        wrapped = await provider.wrap(ref, RING, AAD)
        with pytest.raises(DataLoss) as error:
            await provider.unwrap(ref, wrapped, b"other", place.passphrase)
        assert opened(RING).decode() not in error.value.text
        assert ref not in error.value.text
