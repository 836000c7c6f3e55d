"""An engine with targets of rotations, and what its tests ask of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson

from engine.engines import OpenEngine, engine_settings, intent
from harness import FakeClock
from vaultd.engine.generators import PasswordRules
from vaultd.engine.rotation_model import Rotation, RotationPolicy, RotationState
from vaultd.engine.secret_access import AccessItem
from vaultd.engine.secrets import NewVersion, SecretSpec
from vaultd.names import SecretRef
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

REF = SecretRef("default", "orders-db")
NAME = str(REF)
S = 1_000_000
HOUR_US = 3600 * S
LIMITS = {"lease_s": 20, "max_attempts": 2, "backoff_s": 0.01, "max_backoff_s": 0.01, "retry_s": 60, "max_retry_s": 600}


class RotatingEngine(OpenEngine):
    """An engine and one secret that rotates."""

    ref = REF

    @property
    def rotations(self) -> Any:
        return self.engine.rotations

    async def settled(self) -> None:
        await self.engine.rotation_runner.settle()
        assert self.faults == []

    async def make_secret(self, payload: bytes | None = None, ref: SecretRef = REF) -> None:
        first = NewVersion(Secret(payload)) if payload is not None else None
        await self.engine.secrets.create(intent(), ref.vault, ref.secret, SecretSpec(), first)

    async def set_policy(self, target: str = "orders-db", ref: SecretRef = REF, **changes: Any) -> Rotation:
        values = {"rules": PasswordRules(), "overlap_us": 0, **changes}
        return await self.rotations.set_policy(intent(), ref, RotationPolicy(target=target, **values), None)

    async def rotate(self, ref: SecretRef = REF) -> Rotation:
        """Ask for a rotation, and wait until nothing is done any more for now."""
        await self.rotations.rotate(intent(), ref)
        await self.settled()
        return await self.rotations.get(ref)

    async def go_on(self, seconds: float = 0.0, ref: SecretRef = REF) -> Rotation:
        """Let time pass, and the scheduler look."""
        self.clock.advance(seconds)
        await self.tick()
        await self.settled()
        return await self.rotations.get(ref)

    async def run_out(self, ref: SecretRef = REF, ticks: int = 30) -> Rotation:
        """Let time pass until the run is over, one way or the other."""
        for _ in range(ticks):
            rotation = await self.go_on(1, ref)
            if rotation.state in {RotationState.IDLE, RotationState.FAILED}:
                return rotation
        raise AssertionError(f"still {rotation}")

    async def served(self, ref: SecretRef = REF) -> bytes:
        _, payload, _ = await self.engine.secret_access.access(AccessItem(str(ref)), None)
        return payload.expose("test")

    async def login(self) -> tuple[str, str]:
        """Role and password that the vault serves."""
        members = orjson.loads(await self.served())
        return members["username"], members["password"]


@asynccontextmanager
async def rotating_engine(
    directory: Path, *targets: dict[str, Any], clock: FakeClock | None = None, **limits: Any
) -> AsyncIterator[RotatingEngine]:
    rotation = {**LIMITS, **limits, "targets": list(targets)}
    opened = RotatingEngine(engine_settings(directory, rotation=rotation), clock or FakeClock())
    try:
        await opened.start()
        yield opened
    finally:
        await opened.stop()
