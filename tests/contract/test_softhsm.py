"""The HSM backend with a real SoftHSM token: the contract, and what is particular to tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

import softhsm
from contract.backend import ALL_ALGORITHMS, BackendContract, outside_material
from vaultd.backends.pkcs11.backend import HsmBackend
from vaultd.backends.pkcs11.uses import USES
from vaultd.backends.software import SoftwareBackend
from vaultd.errors import FailedPrecondition
from vaultd.secret import Secret

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
    reveals = False

    @classmethod
    async def make_backend(cls, directory: Path) -> HsmBackend:
        return _OwnSoftware([await softhsm.open_slot(directory)], SoftwareBackend())

    @pytest.mark.parametrize("lacking", sorted(LACKS))
    async def test_what_the_token_lacks_is_refused_with_the_reason(self, keys, lacking):
        reason = keys.backend.unsupported(lacking)
        assert "CKM_" in reason
        for refused in (
            keys.backend.generate(lacking, "lacking"),
            keys.backend.import_material(lacking, Secret(outside_material(lacking)), "lacking"),
        ):
            with pytest.raises(FailedPrecondition) as caught:
                await refused
            assert (caught.value.reason, caught.value.text) == ("ALGORITHM_UNAVAILABLE", reason)


def test_list_of_what_the_token_lacks_names_known_algorithms_only():
    assert LACKS <= USES.keys()
