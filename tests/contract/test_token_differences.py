"""Tokens that do some things otherwise than SoftHSM: found out when they are tried, never by a key that is lost."""

from __future__ import annotations

import pytest

import softhsm
from vaultd.backends.base import Operation, OpKind
from vaultd.backends.pkcs11.backend import HsmBackend
from vaultd.backends.pkcs11.root_key import Pkcs11RootKey
from vaultd.backends.pkcs11.slot import TokenSlot
from vaultd.backends.software import SoftwareBackend
from vaultd.errors import VaultdError


class Rig:
    """A slot on a token with a peculiarity, and the backend over it."""

    def __init__(self, directory, **peculiarity):
        token = softhsm.FaultyToken(directory, **peculiarity)
        settings = softhsm.slot_settings(token.token, selector=token.selector, environment=token.environment)
        self.slot = TokenSlot(settings, lambda name, serving: None)
        self.software = SoftwareBackend()
        self.backend = HsmBackend([self.slot], self.software)

    async def __aenter__(self):
        await self.slot.open()
        return self

    async def __aexit__(self, *failure):
        await self.backend.close()
        await self.software.close()


async def reason_of(call) -> str:
    with pytest.raises(VaultdError) as caught:
        await call
    return caught.value.reason


async def test_token_that_draws_its_own_nonce_has_no_gcm(tmp_path):
    async with Rig(tmp_path, FAULT_OWN_NONCE="1") as rig:
        assert "AES_GCM" in rig.backend.unsupported("AES_256_GCM")
        assert rig.backend.unsupported("EC_P256_SHA256") is None
        assert await reason_of(rig.backend.generate("AES_256_GCM", "own nonce")) == "ALGORITHM_UNAVAILABLE"


async def test_root_key_that_does_not_open_what_it_wrapped_is_never_used(tmp_path):
    async with Rig(tmp_path, FAULT_OWN_NONCE="1") as rig:
        provider = Pkcs11RootKey(rig.slot)
        assert await reason_of(provider.create(None)) == "HSM_REFUSED"
        assert await reason_of(provider.prepare_next(None)) == "HSM_REFUSED"


async def test_token_without_session_keys_is_believed_its_list_and_each_key_is_tried(tmp_path):
    async with Rig(tmp_path, FAULT_NO_SESSION_KEYS="1") as rig:
        assert rig.slot.lacking == {}
        material = await rig.backend.generate("EC_P256_SHA256", "believed")
        handle = await rig.backend.load("EC_P256_SHA256", material)
        assert await rig.backend.use(handle, Operation(OpKind.SIGN_MESSAGE, b"m"), None)
        assert await reason_of(rig.backend.generate("RSA_OAEP_2048_SHA256", "tried")) == "HSM_REFUSED"


async def test_token_that_the_module_does_not_show_is_said_to_be_that(tmp_path):
    rig = Rig(tmp_path)
    for file in (tmp_path / "token/tokens").iterdir():
        file.rename(tmp_path / file.name)
    async with rig:
        assert "the module shows no such token" in rig.slot.unavailable().text
