"""Streams whose messages are lists of operations: each is served as the single call is, and its result is withheld until it is
recorded.

What comes in one message and uses one key goes through the steps together.  Groups do not wait for each other, so an RSA signature
holds up no encryption; and what is ready when the transport can take more goes out in one message.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from vaultd.errors import DataLoss, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, VaultdError
from vaultd.interceptors.audit import Entry
from vaultd.interceptors.errors import audit_unavailable, known_error, status_of
from vaultd.interceptors.grants import uses_of
from vaultd.interceptors.routes import parse
from vaultd.interceptors.throttle import spend
from vaultd.services.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vaultd.engine.caller import Caller
    from vaultd.interceptors.audit import AuditStep
    from vaultd.interceptors.deadlines import Deadlines
    from vaultd.interceptors.grants import Granted, GrantStep
    from vaultd.interceptors.held_bytes import HeldBytes
    from vaultd.interceptors.identity import Identity
    from vaultd.interceptors.item_stream import ItemStream
    from vaultd.interceptors.policy import PolicyStep
    from vaultd.interceptors.routes import Route
    from vaultd.interceptors.throttle import Throttle
    from vaultd.services.crypto_stream import Operation
    from vaultd.services.encoding import Encoded

MAX_GROUP: Final = 250
MAX_GROUP_BYTES: Final = 512 * 1024
"""Of what goes through the steps together: between two groups others get their turn."""
MAX_GROUP_ANSWER_BYTES: Final = 1024 * 1024
"""What the answers of a group may have, that they fit into a message however they turn out."""
MAX_PAUSE_S: Final = 1.0
"""How long a stream is not read, at most, after a quota refused one of its operations: a flood must not buy parsing."""


class _Item:
    __slots__ = ("entry", "error", "operation", "result", "slot")

    def __init__(self, operation: Operation, entry: Entry, slot: Any, result: Any) -> None:
        self.operation = operation
        self.entry = entry
        self.slot = slot
        self.result = result
        self.error: VaultdError | None = None


class ItemSteps:
    """The steps of the chain, for groups of operations."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        identity: Identity,
        throttle: Throttle,
        policy: PolicyStep,
        grants: GrantStep,
        audit: AuditStep,
        deadlines: Deadlines,
        on_incident: Callable[[str, BaseException], None],
        on_data_loss: Callable[[DataLoss], None],
        remember: Callable[[Entry, VaultdError], None],
        ended: Callable[[Entry], None],
        held: HeldBytes,
        receive_s: float,
        operation_s: float,
    ) -> None:
        self._routes = routes
        self._batches = {path.replace("/Batch", "/"): route.serve for path, route in routes.items() if route.batch}
        self._identity = identity
        self._throttle = throttle
        self._policy = policy
        self._grants = grants
        self._audit = audit
        self._deadlines = deadlines
        self._on_incident = on_incident
        self._on_data_loss = on_data_loss
        self._remember = remember
        self._ended = ended
        self._held = held
        self._receive_s = receive_s
        self._operation_s = operation_s

    async def serve(self, stream: ItemStream, entry: Entry) -> None:
        """Serve a stream that was admitted, until its caller has no more to send, or an error ends it.

        What was read is answered before the status goes out, except after a cancellation.
        """
        stream.entry = entry
        self._policy.require_loaded()
        with self._held.share(stream.caller.principal) as stream.share:
            try:
                await self._serve_all(stream)
            finally:
                stream.give_back()

    async def _serve_all(self, stream: ItemStream) -> None:
        writer = asyncio.get_running_loop().create_task(stream.write_all())
        writer.add_done_callback(stream.ended_by)
        try:
            stopped = await self._read_all(stream)
            while stream.tasks:
                await asyncio.wait(stream.tasks)
            last = stream.session.last() if stopped is None else b""
            if last:
                stream.put(last, 0, 0)
            stream.closing = True
            stream.ready.set()
            await writer
        except asyncio.CancelledError:
            if stream.failure is not None:
                stream.task.uncancel()
                raise stream.failure from None
            raise
        finally:
            stream.over = True
            under_way = [*stream.tasks, writer]
            for one in under_way:
                one.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        if stopped is not None:
            raise stopped

    async def _read_all(self, stream: ItemStream) -> VaultdError | None:
        """Read messages and start their groups.  Returns why it stopped, None at the caller's end."""
        task, now = stream.task, asyncio.get_running_loop().time
        self._deadlines.watch(task, now() + self._receive_s)
        part_begun = True

        def on_part(length: int) -> None:
            nonlocal part_begun
            stream.hold_part(length)
            if not part_begun:  # what has begun must become whole; between messages a stream may be silent for long
                part_begun = True
                self._deadlines.watch(task, now() + self._receive_s)

        while stream.stopping is None:
            stream.reading = True
            try:
                await stream.has_room()
                body = await stream.receive(on_part)
                if part_begun:
                    part_begun = False
                    self._deadlines.pop(task, None)
                if stream.pause_s:
                    pause_s, stream.pause_s = stream.pause_s, 0.0
                    await asyncio.sleep(pause_s)
            except asyncio.CancelledError:
                if stream.stopping is None or stream.ended is not None or stream.failure is not None:
                    raise
                task.uncancel()
                return stream.stopping
            except VaultdError as error:  # of what has come of a message
                return error
            finally:
                stream.reading = False
            try:
                if stream.received <= 1 and body is not None:
                    await self._open(stream)
                if body is None and stream.received:
                    return None
                stream.caller = await self._identity.identify(stream.call)
                stream.share.check()
                message = parse(stream.route, body)
                stream.route.validate.rest(message)
                operations = stream.session.read(message)
            except VaultdError as error:
                return error
            await self._start(stream, operations)
        return stream.stopping

    async def _open(self, stream: ItemStream) -> None:
        principal, method = stream.caller.principal, stream.route.rule.method
        lease = self._throttle.admit_message(principal, method, 0)
        if lease is not None:
            await spend(lease, self._throttle.admit_message, principal, method, 0)
        await self._audit.opened(stream.entry)

    async def _start(self, stream: ItemStream, operations: list[Operation]) -> None:
        """Start the groups of a message, each as soon as there is room for its answers."""
        groups: dict[Any, list[Operation]] = {}
        sizes: dict[Any, tuple[int, int]] = {}
        for operation in operations:
            route = self._routes.get(operation.method)
            key = (operation.method, route.rule.names(operation.request) if route is not None else "")
            group = groups.setdefault(key, [])
            group.append(operation)
            size, answers = sizes.get(key, (0, 0))
            size, answers = sizes[key] = size + operation.size, answers + operation.answer
            if len(group) == MAX_GROUP or size >= MAX_GROUP_BYTES or answers >= MAX_GROUP_ANSWER_BYTES:
                del groups[key], sizes[key]
                await self._start_group(stream, group)
        for group in groups.values():
            await self._start_group(stream, group)

    async def _start_group(self, stream: ItemStream, group: list[Operation]) -> None:
        await stream.has_room_for_answers()
        reserved = sum(operation.size + operation.answer for operation in group)
        stream.begin(len(group), reserved)
        task = asyncio.get_running_loop().create_task(self._serve_group(stream, group, reserved))
        stream.tasks.add(task)
        task.add_done_callback(stream.ended_by)

    async def _serve_group(self, stream: ItemStream, group: list[Operation], reserved: int) -> None:
        route = self._routes.get(group[0].method, stream.route)
        session, response = stream.session, stream.session.response()
        of_stream, started = stream.entry, self._audit.now_s()
        items = []
        for operation in group:
            entry = Entry(stream.call, f"{of_stream.request_id}-{operation.id}", of_stream.trace, started)
            entry.route, entry.principal, entry.credential = route, stream.caller.principal, stream.credential
            entry.bytes_in = operation.size
            entry.fields["stream"] = of_stream.request_id
            items.append(_Item(operation, entry, *session.slot(response, operation)))
        try:
            self._audit.require_room()
            await self._admit(stream, route, items)
            if route is stream.route:
                raise InvalidArgument(
                    "OPERATION_MISSING", "the operation asks for nothing that this server knows", field="request"
                )
            await self._serve(stream, route, items)
        except asyncio.CancelledError:
            for item in items:
                self._record(item, "CANCELLED", "CANCELLED", 0)
                self._ended(item.entry)
            raise
        except Exception as error:  # of the whole group; what is not a VaultdError is INTERNAL with an incident id
            known = known_error(error, self._on_incident)
            for item in items:
                item.error = item.error or known
        await self._close(stream, route, items)
        for item in items:
            if item.error is not None:
                item.entry.outcome = (item.error.code, item.error.reason, 0)
            self._ended(item.entry)
        session.finish(response, [(item.slot, item.error) for item in items])
        stream.put(response.SerializeToString(), len(items), reserved)

    async def _admit(self, stream: ItemStream, route: Route, items: list[_Item]) -> None:
        """Each operation is a message, also one that asks for nothing; what is refused has its error, and pauses the stream."""
        throttle, principal, method = self._throttle, stream.caller.principal, route.rule.method
        for item in items:
            size = item.operation.size
            try:
                lease = throttle.admit_message(principal, method, size)
                if lease is not None:
                    await spend(lease, throttle.admit_message, principal, method, size)
            except ResourceExhausted as error:
                item.error = error
                stream.pause_s = min(MAX_PAUSE_S, error.retry_after_s or MAX_PAUSE_S)

    async def _serve(self, stream: ItemStream, route: Route, items: list[_Item]) -> None:
        """The steps after the throttle, in the order of a batch: names, policy, fields, grants, quotas of the resource, sinks,
        service.
        """
        caller, rule, throttle = stream.caller, route.rule, self._throttle
        principal, method = caller.principal, rule.method
        items = [item for item in items if item.error is None]
        if not items:
            return
        granted = await self._allow(route, caller, items)
        metered = throttle.meters(method)
        for item in items:
            request = item.operation.request
            try:
                route.validate.rest(request)
                item.entry.name(request)
                if granted is not None:
                    names = await granted.spend(uses_of(request))
                    if not names:
                        raise granted.refused
                    item.entry.fields["grant"] = names[0] if len(names) == 1 else names
                if metered:
                    size = item.operation.size
                    lease = throttle.admit_use(principal, rule, request, size)
                    if lease is not None:
                        await spend(lease, throttle.admit_use, principal, rule, request, size)
            except VaultdError as error:
                item.error = error
        items = [item for item in items if item.error is None]
        if items:
            if self._audit.holds_calls:
                self._audit.require_sinks()
            await self._use(stream, route, items)

    async def _allow(self, route: Route, caller: Caller, items: list[_Item]) -> Granted | None:
        """The decision about a group, all of which have the same names: raises, or says which grants give it."""
        request = items[0].operation.request
        route.validate.names(request)
        granted = None
        binding = ""
        try:
            binding = await self._policy.require(caller, route.rule, request)
        except PermissionDenied as refused:
            for item in items:
                item.entry.deny(refused)
            granted = await self._grants.look_up(refused, caller, route.rule, request)
        for item in items:
            item.entry.allow(binding)
        return granted

    async def _use(self, stream: ItemStream, route: Route, items: list[_Item]) -> None:
        until = asyncio.get_running_loop().time() + self._operation_s
        deadline = stream.call.deadline
        context = Context(stream.caller, route.path, until if deadline is None else min(deadline, until))
        method = route.rule.method
        serve = stream.session.serving(method) or self._batches.get(method)
        requests = [item.operation.request for item in items]
        if serve is None:
            outcomes = await asyncio.gather(*(self._one(route, request, context) for request in requests))
        else:
            outcomes = await serve(requests, context)
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, VaultdError):
                item.error = outcome
                continue
            answer, version = outcome
            item.result.SetInParent()
            item.result.MergeFromString(answer)
            if version:
                item.entry.fields[route.rule.used] = version

    async def _one(self, route: Route, request: Any, context: Context) -> Encoded | VaultdError:
        try:
            answer = await route.serve(request, context)
        except Exception as error:  # of one operation of a group; as everywhere
            return known_error(error, self._on_incident)
        return answer.SerializeToString(), str(getattr(answer, route.rule.used, ""))

    async def _close(self, stream: ItemStream, route: Route, items: list[_Item]) -> None:
        """Record each item; until that is done its result does not leave."""
        statuses: dict[tuple[str, str], Any] = {}
        durably: dict[_Item, tuple[bytes | None, bool]] = {}
        if route is not stream.route and self._audit.waits(route.rule):
            served = [item for item in items if item.error is None]
            # They share what waits for the disk.
            recorded = await asyncio.gather(*map(self._record_durably, served))
            durably = dict(zip(served, recorded, strict=True))
        for item in items:
            error, receipt = item.error, None
            if item in durably:
                receipt, written = durably[item]
            elif error is None:
                receipt, written = self._record(item, "OK", "", item.result.ByteSize())
            else:
                if isinstance(error, NotFound):
                    error = await self._policy.disguise(error, stream.caller, route.rule, item.operation.request)
                if isinstance(error, DataLoss):
                    self._on_data_loss(error)
                receipt, written = self._record(item, error.code, error.reason, 0)
            if not written:
                error = audit_unavailable()
            item.error = error
            if error is not None:
                alike = (error.reason, error.text)
                if alike not in statuses:
                    statuses[alike] = status_of(error)
                    self._remember(item.entry, error)
                item.slot.status.CopyFrom(statuses[alike])
            if item.operation.receipt and receipt is not None:
                item.slot.receipt.MergeFromString(receipt)
        if self._audit.holds_calls:
            await self._deliver(items)

    async def _deliver(self, items: list[_Item]) -> None:
        """Withhold what the sinks that every call needs do not acknowledge; the log then says both, as of single calls."""
        served = [item for item in items if item.error is None]
        if not served:
            return
        try:
            await self._audit.delivered(served[-1].entry)
        except VaultdError as error:
            status = status_of(error)
            self._remember(served[-1].entry, error)
            for item in served:
                item.error = error
                item.slot.status.CopyFrom(status)
                with suppress(VaultdError):  # nothing more to withhold where the log fails as well
                    self._audit.outcome(item.entry, error.code, error.reason, 0)

    def _record(self, item: _Item, code: str, reason: str, bytes_out: int) -> tuple[bytes | None, bool]:
        item.entry.outcome = (code, reason, bytes_out)
        try:
            return self._audit.outcome(item.entry, code, reason, bytes_out), True
        except VaultdError:
            return None, False

    async def _record_durably(self, item: _Item) -> tuple[bytes | None, bool]:
        bytes_out = item.result.ByteSize()
        item.entry.outcome = ("OK", "", bytes_out)
        try:
            return await self._audit.durable_outcome(item.entry, bytes_out), True
        except VaultdError:
            return None, False
