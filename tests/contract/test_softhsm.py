"""The HSM backend with a real SoftHSM token: the contract, and what is particular to tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

import softhsm
from contract.backend import ALL_ALGORITHMS, BackendContract
from vaultd.backends.pkcs11.backend import HsmBackend
from vaultd.backends.pkcs11.uses import USES
from vaultd.backends.software import SoftwareBackend

LACKS = {
    line.split()[0]
    for line in (Path(__file__).parent / "softhsm-lacks.txt").read_text().splitlines()
    if line and not line.startswith("#")
}


class _OwnSoftware(HsmBackend):
    """Closes its software backend, too, which the server closes by itself."""

    async def close(self) -> None:
        await super().close()
        await self._software.close()


class TestSoftHsm(BackendContract):
    algorithms = tuple(name for name in ALL_ALGORITHMS if name in USES and name not in LACKS)
    wrap_multiple = 8

    @classmethod
    async def make_backend(cls, directory: Path) -> HsmBackend:
        return _OwnSoftware([await softhsm.open_slot(directory)], SoftwareBackend())


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    directory = tmp_path_factory.mktemp("token")
    softhsm.slot_settings(directory)
    return directory


@pytest.fixture
async def slot(token):
    slot = await softhsm.open_slot(token)
    yield slot
    await slot.close()


def test_list_of_what_the_token_lacks_names_known_algorithms_only():
    assert LACKS <= USES.keys()
