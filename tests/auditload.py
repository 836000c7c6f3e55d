"""Callers that encrypt, sign and make keys all the time, and what they are told while the audit log or a sink of it fails."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import reason_of
from vaultd.audit.reader import AuditReader, RecordsMissing
from vaultd_client.v1 import crypto_pb2, keys_pb2, resources_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from auditfaults import Fault
    from harness import Client

WITHIN_S = 2.0
"""How soon a fault must be noticed: refusals, health."""
PATIENCE_S = 60.0
"""After which a campaign gives up; far beyond what is allowed."""
PACE_S = 0.01
REASONS = {"AUDIT_UNAVAILABLE", "AUDIT_SINK_UNAVAILABLE"}


@dataclass(frozen=True)
class Reply:
    """One call, by a caller's clock (monotonic seconds)."""

    kind: str
    began_s: float
    ended_s: float
    reason: str
    """"" for an answer."""
    sequence: int = 0
    leaf_hash: bytes = b""


class Load:
    """Callers at work.  Every reply is kept."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._ids = itertools.count()
        self._arrived = asyncio.Event()
        self.replies: list[Reply] = []

    @asynccontextmanager
    async def running(self, callers: int) -> AsyncIterator[Load]:
        """Make two keys, and call until the end of the block."""
        for key_id, purpose in (
            ("enc", resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT),
            ("sign", resources_pb2.KEY_PURPOSE_SIGN),
        ):
            key = resources_pb2.Key(purpose=purpose)
            request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=f"{self._prefix}-{key_id}", key=key)
            await self._client.keys.CreateKey(request)
        tasks = [asyncio.create_task(self._call_on(kind)) for _, kind in zip(range(callers), itertools.cycle("esc"))]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _call_on(self, kind: str) -> None:
        while True:
            await self._one(kind)
            await asyncio.sleep(PACE_S)

    def _call(self, kind: str) -> Any:
        key = f"vaults/default/keys/{self._prefix}-"
        if kind == "e":
            return self._client.crypto.Encrypt(
                crypto_pb2.EncryptRequest(name=f"{key}enc", plaintext=b"attack at dawn"), timeout=PATIENCE_S
            )
        if kind == "s":
            return self._client.crypto.Sign(crypto_pb2.SignRequest(name=f"{key}sign", message=b"x"), timeout=PATIENCE_S)
        name = f"{self._prefix}-{next(self._ids)}"
        made = resources_pb2.Key(purpose=resources_pb2.KEY_PURPOSE_ENCRYPT_DECRYPT)
        request = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id=name, key=made, request_id=name)
        return self._client.keys.CreateKey(request, timeout=PATIENCE_S)

    async def _one(self, kind: str) -> None:
        began_s, reason, sequence, leaf_hash = time.monotonic(), "", 0, b""
        call = self._call(kind)
        try:
            await call
            for key, value in await call.trailing_metadata():
                if key == "vaultd-receipt-bin":
                    receipt = resources_pb2.AuditReceipt.FromString(value)
                    sequence, leaf_hash = receipt.sequence, receipt.leaf_hash
        except grpc.aio.AioRpcError as error:
            try:
                reason = reason_of(error)
            except AssertionError:
                reason = error.code().name
        self.replies.append(Reply(kind, began_s, time.monotonic(), reason, sequence, leaf_hash))
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()

    async def until(self, wanted: Callable[[Reply], bool], since: int) -> Reply:
        """The first reply, from the one with this number on, that is as wanted."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                arrived = self._arrived
                for reply in self.replies[since:]:
                    if wanted(reply):
                        return reply
                since = len(self.replies)
                await arrived.wait()

    async def all_kinds_answered(self) -> None:
        """Return once each kind of call that begins from now on was answered."""
        now_s, since = time.monotonic(), len(self.replies)
        for kind in "esc":
            await self.until(
                lambda reply, kind=kind: reply.kind == kind and reply.began_s > now_s and not reply.reason, since
            )


class HealthWatch:
    """What health said of a name, and when."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bool]] = []
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def running(self, channel: grpc.aio.Channel, name: str) -> AsyncIterator[HealthWatch]:
        """Listen until the end of the block."""

        async def listen() -> None:
            async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name)):
                serving = answer.status == health_pb2.HealthCheckResponse.SERVING
                self.heard.append((time.monotonic(), serving))
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()

        task = asyncio.create_task(listen())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await task

    async def until(self, *, serving: bool, since_s: float) -> float:
        """When health said so, at that time or later; it may have said so before and not have changed since."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                changed = self._changed
                if self.heard and self.heard[-1][1] is serving and self.heard[-1][0] < since_s:
                    return since_s
                for at_s, said in self.heard:
                    if said is serving and at_s >= since_s:
                        return at_s
                await changed.wait()


@dataclass(frozen=True)
class Outcome:
    """One fault.  Times are in seconds: from the fault to the first refusal (or until it had healed itself) and to health, from
    mending to both again.
    """

    fault: str
    at_s: tuple[float, float]
    """When it happened, and when it was mended."""
    refused_s: float
    health_s: float
    recovered_s: float
    refusals: int
    answered_after: int
    """Calls that began after the first refusal and were answered before the fault was mended: must be none."""
    answered_before: int
    """Calls that began after the fault and were answered before it was noticed."""
    other_reasons: list[str]
    slowest_refusal_s: float

    def faulty(self, within_s: float = WITHIN_S) -> list[str]:
        """What is not as promised."""
        limits = {
            "refused_s": self.refused_s > within_s + 0.5,
            "health_s": self.health_s > within_s + 0.5,
            "answered_after": self.answered_after > 0,
            "other_reasons": bool(self.other_reasons),
            "slowest_refusal_s": self.slowest_refusal_s > within_s + 1,
        }
        return [name for name, broken in limits.items() if broken]

    def as_dict(self) -> dict[str, object]:
        told = {name: value for name, value in asdict(self).items() if name != "at_s"}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in told.items()}


async def healed(fault: Fault) -> float:
    """When a fault had healed itself."""
    until_s = time.monotonic() + PATIENCE_S
    while not fault.is_healed():
        if time.monotonic() > until_s:
            raise TimeoutError
        await asyncio.sleep(PACE_S)  # files do not tell
    return time.monotonic()


async def go_through(name: str, fault: Fault, load: Load, health: HealthWatch, hold_s: float) -> Outcome:
    """Let a fault happen while everything works, hold it for a while after it was noticed, mend it, and see it work again."""
    await load.all_kinds_answered()
    await health.until(serving=True, since_s=time.monotonic())
    since = len(load.replies)
    fault_s = time.monotonic()
    fault.inject()
    injected_s = time.monotonic()
    if fault.heals_itself:
        noticed_s = await healed(fault)
        health_s = injected_s  # health is looked at twice a second, and the log went on before
    else:
        noticed_s = (await load.until(lambda reply: reply.reason in REASONS, since)).ended_s
        health_s = await health.until(serving=False, since_s=fault_s)
    await asyncio.sleep(hold_s)
    mended_s = time.monotonic()
    fault.mend()
    await load.all_kinds_answered()
    recovered_s = time.monotonic()
    if not fault.heals_itself:
        recovered_s = max(recovered_s, await health.until(serving=True, since_s=mended_s))
    during = [reply for reply in load.replies[since:] if reply.began_s > injected_s and reply.ended_s < mended_s]
    answered = [reply for reply in during if not reply.reason]
    refused = [reply for reply in load.replies[since:] if reply.reason]
    return Outcome(
        fault=name,
        at_s=(injected_s, mended_s),
        refused_s=noticed_s - injected_s,
        health_s=health_s - injected_s,
        recovered_s=recovered_s - mended_s,
        refusals=len(refused),
        answered_after=0 if fault.heals_itself else sum(reply.began_s > noticed_s for reply in answered),
        answered_before=sum(reply.began_s <= noticed_s for reply in answered),
        other_reasons=sorted({reply.reason for reply in refused} - REASONS),
        slowest_refusal_s=max((reply.ended_s - reply.began_s for reply in refused), default=0.0),
    )


def unrecorded(directory: Path, replies: Iterable[Reply]) -> list[int]:
    """Numbers of answers whose receipts name no record of the log, or another one."""
    hashes: dict[int, bytes] = {}
    reader = AuditReader(directory)
    try:
        while True:
            try:
                records = reader.read()
            except RecordsMissing:
                continue
            if not records:
                break
            hashes.update((one.sequence, hashlib.sha256(b"\0" + one.line).digest()) for one in records)
    finally:
        reader.close()
    return [reply.sequence for reply in replies if not reply.reason and hashes.get(reply.sequence) != reply.leaf_hash]
