"""The audit step: a record of every call, written before its reply is released.

Fields come from the rules table (validated names), from the answer (the key version), and from the chain itself.  Payloads
have no way in.  Refusals beyond a few per identity, reason and second are counted and written as one record.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from vaultd.audit.shipping.shipper import WAIT_S, Shipper
from vaultd.audit.walk import REVISION
from vaultd.engine.clock import SECOND_US
from vaultd.errors import Unavailable
from vaultd.services.encoding import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vaultd.audit.folding import RefusalFolder
    from vaultd.audit.log import AuditLog, Receipt
    from vaultd.engine.clock import Clock
    from vaultd.errors import PermissionDenied, VaultdError
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.routes import Route
    from vaultd.interceptors.rules import Rule
    from vaultd.telemetry.spans import Span

_FOLDED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED"}
_FOLDED_REASONS = {"AUDIT_DISK_LOW", "TOO_MANY_IN_FLIGHT"}
"""Refusals of other codes that come in floods."""
RECEIPT_KEY = "vaultd-receipt-bin"


class _HasKeyVersion(Protocol):
    key_version: str


class Entry:
    """What will be said of one call.  Opened when it arrives, closed when its outcome is known."""

    principal = ""
    credential = ""
    """`certificate`, `token`, both or `none`; nothing of the credential itself."""
    decision = ""
    """`allowed` or `denied`, once policy was asked."""
    binding = ""
    """The entry of the policy that decided."""
    route: Route | None = None
    bytes_in = 0
    bytes_out = 0
    """Of a stream: in all its messages."""
    handed_over = False
    """True once a task of its own will record the outcome."""
    intended = False
    """True once an intent may be in the log: it gets an outcome of its own, or it would read as a crash."""
    outcome = ("UNKNOWN", "UNKNOWN", 0)
    """Status, reason and bytes of the answer, as they were last known; for metrics and traces."""
    span: Span | None = None
    """Of a call that is sampled, until it ends."""
    sequence = 0
    """Of the last record that was written of the call."""
    patience_s = WAIT_S
    """What is left of the time that the call may wait for audit sinks."""

    def __init__(self, call: Call, request_id: str, trace: str, started: float) -> None:
        self.call = call
        self.request_id = request_id
        self.trace = trace
        self.started = started
        self.fields: dict[str, Any] = {}

    def allow(self, binding: str) -> None:
        """Policy allows the call, by this entry of it; empty where a grant or the resource itself does."""
        self.decision, self.binding = "allowed", binding

    def deny(self, refused: PermissionDenied) -> None:
        """Policy refuses the call.  A grant may still allow it."""
        self.decision, self.binding = "denied", refused.decided_by

    def name(self, request: Any) -> None:
        """Take the audited fields of a validated request."""
        if self.route is not None:
            self.fields.update(self.route.audited(request))

    def name_items(
        self,
        names: Mapping[Any, int],
        versions: Mapping[str, int],
        items: int,
        errors: Mapping[int, VaultdError],
        decided: Mapping[Any, str],
    ) -> None:
        """Say of a batch: how many items, which resources and versions, what allowed them, and every failure by its reason.

        `names` counts the validated names of the items that were allowed: one per item, or a tuple for each where the rule
        audits several fields.  `versions` counts those that answered.  `decided`: by name the entry of the policy that allows it.
        """
        route = self.route
        if route is None:
            return
        bindings: dict[str, int] = {}
        for name, count in names.items():
            if name in decided:
                binding = decided[name]
                bindings[binding] = bindings.get(binding, 0) + count
        if bindings:
            self.fields["bindings"] = bindings
        audited = route.rule.audited
        if len(audited) == 1:
            self.fields[audited[0]] = dict(names)
        else:
            for at, path in enumerate(audited):
                column: Counter[Any] = Counter()
                for name, count in names.items():
                    column[name[at]] += count
                self.fields[path] = dict(column)
        self.fields[route.rule.used] = dict(versions)
        self.fields["items"] = items
        if errors:
            failures: dict[str, list[int]] = {}
            for at, error in sorted(errors.items()):
                failures.setdefault(error.reason, []).append(at)
            self.fields["failures"] = failures


class AuditStep:
    """Writes intents and outcomes.  Whatever cannot be written raises Unavailable, and the reply is withheld."""

    def __init__(
        self,
        log: AuditLog,
        folder: RefusalFolder,
        clock: Clock,
        shipper: Shipper | None = None,
        revision: Callable[[], int] = lambda: 0,
        synced: frozenset[str] = frozenset({"mutation"}),
        correlate: Callable[[str], str] = lambda value: "",
        *,
        records_items: bool = False,
    ) -> None:
        """`revision`: of the store, as this process wrote it last.  `synced`: classes of calls whose records wait for the disk.

        correlate: a MAC of a value that must not be in the log but recognised in it.  records_items: whether each item of a batch
        gets a record.
        """
        self._correlate = correlate
        self.records_items = records_items
        self._log = log
        self._shipper = shipper or Shipper()
        self.holds_calls = self._shipper.holds_calls
        """Whether `delivered` is to be awaited before the answer of a call that changes nothing."""
        self._folder = folder
        self._clock = clock
        self.now_s = clock.monotonic_s
        """When something began, for latencies."""
        self._revision = revision
        self._synced = synced
        self._unwritten: list[dict[str, object]] = []

    async def intent(self, entry: Entry) -> None:
        """Make durable what is about to be done, and have the sinks that mutations need acknowledge it."""
        self._shipper.require_for_mutation()
        entry.intended = True
        receipt = await self._write(self._record(entry, "intent"))
        if self._shipper.holds_mutations:
            entry.patience_s = await self._shipper.mutation_delivered(receipt.sequence, entry.patience_s)

    def correlate(self, entry: Entry, request: Any) -> None:
        """Let the retries of a mutation be recognised by its `request_id`, which is the caller's and stays out."""
        request_id = getattr(request, "request_id", "")
        if request_id and (mac := self._correlate(request_id)):
            entry.fields["request_id_hmac"] = mac

    def item(self, entry: Entry, at: int, name: Any, version: str, error: VaultdError | None) -> None:
        """Record one item of a batch, before the batch itself.  `name`: where it was validated and allowed, else None."""
        route = entry.route
        record: dict[str, Any] = {"event": "item", "id": entry.request_id, "principal": entry.principal, "item": at}
        if route is not None:
            record["method"] = route.path
            if name is not None:
                audited = route.rule.audited
                record.update(zip(audited, name if len(audited) > 1 else (name,), strict=True))
            if version:
                record[route.rule.used] = version
        record["code"] = "OK" if error is None else error.code
        if error is not None:
            record["reason"] = error.reason
        self._log.append(record)

    async def opened(self, entry: Entry) -> None:
        """Make durable that a stream begins, and have the sinks that every call needs acknowledge it."""
        entry.intended = True
        receipt = await self._log.append_durable(self._record(entry, "open"))
        if self.holds_calls:
            entry.patience_s = await self._shipper.call_delivered(receipt.sequence, entry.patience_s)

    def served(self, entry: Entry, bytes_out: int) -> bytes:
        """Record the end of a call that was served and waits for no sink; the serialised receipt."""
        return serialize(self._log.append(self._outcome(entry, "OK", "", bytes_out)))

    def outcome(self, entry: Entry, code: str, reason: str, bytes_out: int) -> bytes | None:
        """Record the end of a call; the serialised receipt, or None when the record was folded into another."""
        # Nothing is folded into a log that cannot be written: the append below raises, and the answer is withheld.
        floods = code in _FOLDED or reason in _FOLDED_REASONS
        if floods and not entry.intended and self._log.serving and self._fold(entry, reason):
            return None
        receipt = self._log.append(self._outcome(entry, code, reason, bytes_out))
        entry.sequence = receipt.sequence
        return serialize(receipt)

    def outcomes(self, served: Sequence[tuple[Entry, bytes]]) -> list[bytes]:
        """Record the end of calls that were served, each with its answer, with one write; their serialised receipts.

        Raises like `outcome`, and then none is recorded.
        """
        records = [self._outcome(entry, "OK", "", len(body)) for entry, body in served]
        return [serialize(receipt) for receipt in self._log.append_all(records)]

    def require_sinks(self) -> None:
        """Raise Unavailable while a sink that every call needs is known to fail: the answer would be withheld."""
        self._shipper.require_for_call()

    async def delivered(self, entry: Entry) -> None:
        """Wait until the sinks that every call needs have the outcome, two seconds at most; raises Unavailable."""
        await self._shipper.call_delivered(entry.sequence, entry.patience_s)

    async def mutation_outcome(self, entry: Entry, bytes_out: int) -> bytes:
        """Record the end of a mutation that was done, and how far the store has come; on stable storage when it returns, and
        with the sinks that mutations need.

        A store that is put back to before it is found by that.
        """
        record = self._outcome(entry, "OK", "", bytes_out)
        record[REVISION] = self._revision()
        receipt = await self._write(record)
        if self._shipper.holds_mutations:
            entry.patience_s = await self._shipper.mutation_delivered(receipt.sequence, entry.patience_s)
        return serialize(receipt)

    def require_room(self) -> None:
        """Raise Unavailable while the disk has room for records of refusals only."""
        if not self._log.has_room:
            raise Unavailable(
                "AUDIT_DISK_LOW",
                "the disk of the audit log is nearly full: free space, or raise its limit",
                retry_after_s=5,
            )

    def waits(self, rule: Rule) -> bool:
        """Whether the records of these calls are on stable storage before the answer goes out."""
        return ("mutation" if rule.mutation else rule.cost) in self._synced

    async def durable_outcome(self, entry: Entry, bytes_out: int) -> bytes:
        """Record the end of a call that was served; on stable storage when it returns."""
        receipt = await self._log.append_durable(self._outcome(entry, "OK", "", bytes_out))
        entry.sequence = receipt.sequence
        return serialize(receipt)

    async def _write(self, record: dict[str, Any]) -> Receipt:
        if "mutation" in self._synced:
            return await self._log.append_durable(record)
        return self._log.append(record)

    def _fold(self, entry: Entry, reason: str) -> bool:
        who = entry.principal or host_of(entry.call.peer.address)
        return not self._folder.note(who, reason, self._clock.now_us())

    def _outcome(self, entry: Entry, code: str, reason: str, bytes_out: int) -> dict[str, Any]:
        record = self._record(entry, "call")
        record["code"] = code
        if reason:
            record["reason"] = reason
        record["bytes_in"] = entry.bytes_in
        record["bytes_out"] = bytes_out
        record["latency_us"] = int((self.now_s() - entry.started) * 1e6)
        return record

    def event(self, event: str, **fields: str) -> None:
        """Record something that the server did by itself."""
        self._log.append({"event": event, **fields})

    async def durable_event(self, event: str, **fields: str) -> None:
        """Record what a command, or the server by itself, is about to do; on stable storage when it returns, and with the
        sinks that mutations need.
        """
        receipt = await self._log.append_durable({"event": event, **fields})
        await self._shipper.mutation_delivered(receipt.sequence)

    def write_folded(self) -> None:
        """Write what was counted in seconds that are over.  What a failed write leaves, the next call writes."""
        self._write_until(self._clock.now_us())

    def write_last_folded(self) -> None:
        """Write all that was counted: the server stops."""
        self._write_until(self._clock.now_us() + SECOND_US)

    def _write_until(self, now_us: int) -> None:
        self._unwritten += self._folder.drain(now_us)
        while self._unwritten:
            self._log.append(self._unwritten[0])
            del self._unwritten[0]

    @staticmethod
    def _record(entry: Entry, event: str) -> dict[str, Any]:
        route = entry.route
        record: dict[str, Any] = {
            "event": event,
            "id": entry.request_id,
            # The path of a method that does not exist is the caller's invention and stays out.
            "method": route.path if route is not None else "unknown",
            "principal": entry.principal,
            "peer": entry.call.peer.address,
        }
        if entry.credential:
            record["credential"] = entry.credential
        if entry.trace:
            record["trace_id"] = entry.trace
        if entry.decision:
            record["decision"] = entry.decision
            if entry.binding:
                record["binding"] = entry.binding
        fields = entry.fields
        if record.keys().isdisjoint(fields):
            record.update(fields)
        else:  # a request's `principal` is not the caller
            record.update((f"request_{name}" if name in record else name, value) for name, value in fields.items())
        return record


def serialize(receipt: Receipt) -> bytes:
    """The AuditReceipt that goes out in trailing metadata: its three fields, of which none is ever empty."""
    chain_id, sequence, leaf_hash = receipt
    return b"\x0a\x10%b\x10%b\x1a\x20%b" % (chain_id, varint(sequence), leaf_hash)


def host_of(address: str) -> str:
    """The address without its port, which every connection chooses anew."""
    return address.rpartition(":")[0]
