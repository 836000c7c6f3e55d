"""The chain: everything between a host and a service, in order.  Nothing else may see a request.

    errors -> trace -> audit(open) -> identity -> throttle -> parse+validate -> policy -> approval -> audit(intent) -> service
           -> audit(outcome)

Read `Chain.unary` to know the product's guarantees.  `Chain.stream` is the same list for streams, message by message.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.caller import Caller
from vaultd.engine.turns import BulkLane
from vaultd.errors import (
    DataLoss,
    DeadlineExceeded,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unimplemented,
    VaultdError,
)
from vaultd.interceptors.audit import RECEIPT_KEY, Entry, host_of
from vaultd.interceptors.batches import MAX_MESSAGE_BYTES, BatchSteps
from vaultd.interceptors.call import ReaderGone, Reply
from vaultd.interceptors.deadlines import Deadlines
from vaultd.interceptors.errors import CODES, DETAILS_KEY, audit_unavailable, known_error, status_of
from vaultd.interceptors.held_bytes import HeldBytes
from vaultd.interceptors.item_stream import ItemStream
from vaultd.interceptors.items import ItemSteps
from vaultd.interceptors.rounds import Round
from vaultd.interceptors.routes import parse
from vaultd.interceptors.streams import OpenStream, OpenStreams
from vaultd.interceptors.throttle import spend
from vaultd.interceptors.trace import REQUEST_ID_KEY, RequestIds
from vaultd.interceptors.unread_answers import COUNTED_BYTES, UnreadAnswers
from vaultd.services.context import Context, StreamContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from vaultd.engine.refusals import RefusalLog
    from vaultd.interceptors.approvals import ApprovalStep
    from vaultd.interceptors.audit import AuditStep
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.grants import GrantStep
    from vaultd.interceptors.identity import Identity
    from vaultd.interceptors.policy import PolicyStep
    from vaultd.interceptors.routes import Route
    from vaultd.interceptors.rules import Rule
    from vaultd.interceptors.telemetry import TelemetryStep
    from vaultd.interceptors.throttle import Throttle

NOBODY: Final = Caller("")
"""Who asks for the server's own health: nobody looked."""


class ChainLimits:
    """Times of the chain, in seconds, and what streams of operations may hold, in bytes."""

    def __init__(
        self,
        receive_s: float = 10.0,
        unary_s: float = 30.0,
        least_deadline_s: float = 0.05,
        stream_bytes_per_principal: int = 128 * 1024 * 1024,
        stream_bytes: int = 512 * 1024 * 1024,
    ) -> None:
        self.receive_s = receive_s
        self.unary_s = unary_s
        self.least_deadline_s = least_deadline_s
        self.stream_bytes_per_principal = stream_bytes_per_principal
        self.stream_bytes = stream_bytes


class Chain:
    """The steps, in order, for every call of every host."""

    def __init__(
        self,
        routes: Mapping[str, Route],
        identity: Identity,
        throttle: Throttle,
        policy: PolicyStep,
        grants: GrantStep,
        approvals: ApprovalStep,
        audit: AuditStep,
        telemetry: TelemetryStep,
        refusals: RefusalLog,
        on_incident: Callable[[str, BaseException], None],
        on_data_loss: Callable[[DataLoss], None],
        limits: ChainLimits | None = None,
        lane: BulkLane | None = None,
    ) -> None:
        self._routes = routes
        self._identity = identity
        self._throttle = throttle
        self._policy = policy
        self._grants = grants
        self._approvals = approvals
        self._audit = audit
        self._telemetry = telemetry
        self._refusals = refusals
        self._on_incident = on_incident
        self._on_data_loss = on_data_loss
        self._limits = limits or ChainLimits()
        self._request_ids = RequestIds()
        self._deadlines = Deadlines()
        self._open_streams = OpenStreams(identity, policy)
        self._lane = lane or BulkLane()
        self._batches = BatchSteps(throttle, policy, grants, audit, refusals, on_data_loss, self._lane)
        self._items = ItemSteps(
            routes,
            identity,
            throttle,
            policy,
            grants,
            audit,
            self._deadlines,
            on_incident,
            on_data_loss,
            self._remember,
            telemetry.ended,
            HeldBytes(self._limits.stream_bytes_per_principal, self._limits.stream_bytes),
            self._limits.receive_s,
            self._limits.unary_s,
        )
        self.unread = UnreadAnswers(self._limits.stream_bytes_per_principal, self._limits.stream_bytes)
        self._finishing: set[asyncio.Task[Reply]] = set()
        self._round = Round(
            audit, self._over, lambda entry, error: self._refuse(entry, known_error(error, on_incident)), on_incident
        )
        self._streaming = frozenset(method for method, route in routes.items() if route.streaming)
        self._synced = frozenset(route.path for route in routes.values() if audit.waits(route.rule))
        self._waiting = frozenset(route.path for route in routes.values()) if audit.holds_calls else self._synced
        """Whose answers wait for more than that their record is written."""

    def serves(self, method: str) -> bool:
        """Whether there is such a method."""
        return method in self._routes

    def streams(self, method: str) -> bool:
        """Whether the host must use `stream` for this method."""
        return method in self._streaming

    async def unary(self, call: Call) -> Reply:
        """Serve one unary call.  HELD, where the host can wait and the answer comes when the round is over."""
        entry = self._open(call)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that runs is in a task
        audit, throttle, deadlines = self._audit, self._throttle, self._deadlines
        try:
            route = self._routes.get(call.method)
            if route is None:
                raise _unknown_method()  # recorded all the same
            entry.route, rule = route, route.rule
            if rule.open:
                return await self._serve_open(route, call, entry)
            audit.require_room()
            entry.credential = self._identity.credential(call)
            caller = self._identity.at_once(call) or await self._identity.identify(call)
            principal = entry.principal = caller.principal
            if self.unread.held:
                self.unread.require_room(principal)
            throttle.unary.enter(principal)
            try:
                now = monotonic()
                if not route.batch:
                    self._lane.single(now)
                deadline = self._deadline(call, now)
                # Who sends nothing holds a place only so long.
                deadlines.watch(task, now + self._limits.receive_s)
                body = await call.receive()
                deadlines[task] = deadline
                method, size = rule.method, len(body or b"")
                entry.bytes_in = size
                lease = throttle.admit_message(principal, method, size)
                if lease is not None:
                    await spend(lease, throttle.admit_message, principal, method, size)
                request = parse(route, body)
                context = Context(caller, call.method, deadline)
                if route.batch:
                    answer = await self._batches.serve(route, request, context, entry)
                    return self._finish(entry, route, answer) or await self._finish_later(entry, route, answer)
                route.validate.names(request)
                route.validate.rest(request, size)
                entry.fields = route.audited(request)
                try:
                    binding = self._policy.permits(caller, rule, request)
                    if binding is None:
                        binding = await self._policy.require(caller, rule, request)
                    entry.decision = "allowed"
                    entry.binding = binding
                except PermissionDenied as refused:
                    entry.deny(refused)
                    await self._grants.require(refused, caller, rule, request, entry)
                    entry.allow("")
                if throttle.meters(method):
                    lease = throttle.admit_use(principal, rule, request, size)
                    if lease is not None:
                        await spend(lease, throttle.admit_use, principal, rule, request, size)
                if audit.holds_calls:
                    audit.require_sinks()
                if not rule.mutation:
                    try:
                        response = await route.serve(request, context)
                    except NotFound as error:
                        raise await self._policy.disguise(error, caller, rule, request) from None
                    answer = _body(entry, rule, response)
                    return self._finish(entry, route, answer) or await self._finish_later(entry, route, answer)
                # No deadline from here on: a mutation that began is finished and recorded, whoever still waits for it.
                deadlines.pop(task, None)
                audit.correlate(entry, request)
                return await self._mutate(route, request, body or b"", context, entry)
            finally:
                deadlines.pop(task, None)
                if not entry.handed_over:
                    throttle.unary.leave(principal)
        except asyncio.CancelledError:
            if self._deadlines.take_expired(task):
                return self._refuse(entry, _too_late())
            if not entry.handed_over:
                self._record(entry, "CANCELLED", "CANCELLED")
                entry.outcome = ("CANCELLED", "CANCELLED", 0)
            raise
        except TimeoutError:
            return self._refuse(entry, _too_late())
        except Exception as error:  # the one broad except: what is not a VaultdError is INTERNAL with an incident id
            return self._refuse(entry, known_error(error, self._on_incident))
        finally:
            if not entry.handed_over:
                self._telemetry.ended(entry)

    # -- steps ----------------------------------------------------------------------------------------------------------

    def _open(self, call: Call) -> Entry:
        trace, span = self._telemetry.begin(call)
        entry = Entry(call, self._request_ids.fresh(), trace, self._audit.now_s())
        if span is not None:
            entry.span = span
        return entry

    def _deadline(self, call: Call, now: float) -> float:
        """The client's deadline or ours, whichever is first, in `time.monotonic()` seconds: the loop's clock is that."""
        latest = now + self._limits.unary_s
        asked = call.deadline
        if asked is None:
            return latest
        if asked - now < self._limits.least_deadline_s:
            raise _too_late()
        return min(asked, latest)

    async def _mutate(self, route: Route, request: Any, body: bytes, context: Context, entry: Entry) -> Reply:
        """Approval, intent, act and outcome as one task that outlives its caller: what is done is recorded as done."""

        async def act() -> Reply:
            try:
                approval = await self._approvals.require(route.rule, request, body, context, entry)
                await self._audit.intent(entry)
                try:
                    async with self._approvals.using(approval):
                        response = await route.serve(request, context)
                except NotFound as error:
                    raise await self._policy.disguise(error, context.caller, route.rule, request) from None
                answer = _body(entry, route.rule, response)
                _require_fits(answer)
                receipt = await self._audit.mutation_outcome(entry, len(answer))
                entry.outcome = ("OK", "", len(answer))
                return Reply(answer, 0, "", _trailing(entry, receipt))
            except Exception as error:  # as in unary: the same mapping, inside the task that outlives the call
                return self._refuse(entry, known_error(error, self._on_incident))
            finally:
                self._telemetry.ended(entry)

        def settle(done: asyncio.Task[Reply]) -> None:
            # Not before: who gives up on mutations must not have more of them under way than who waits.
            self._finishing.discard(done)
            self._throttle.unary.leave(context.principal)

        task = asyncio.get_running_loop().create_task(act())
        self._finishing.add(task)
        task.add_done_callback(settle)
        entry.handed_over = True
        reply = await asyncio.shield(task)
        if len(reply.body) >= COUNTED_BYTES:
            entry.call.sent = self.unread.hold(entry.principal, len(reply.body))
        return reply

    async def finish(self) -> None:
        """Wait for mutations whose callers are gone, and answer what is held."""
        self._round.end()
        while self._finishing:
            await asyncio.wait(self._finishing)

    async def _serve_open(self, route: Route, call: Call, entry: Entry) -> Reply:
        """The server's own health: answers without identity, policy or record, and says nothing of keys or callers."""
        peer = host_of(call.peer.address)
        self._throttle.streams.enter(peer)  # who sends nothing holds a place here, too
        try:
            async with asyncio.timeout(self._limits.receive_s):
                request = parse(route, await call.receive())
            route.validate.rest(request)
            response = await route.serve(request, Context(NOBODY, call.method, call.deadline))
        finally:
            self._throttle.streams.leave(peer)
        entry.outcome = ("OK", "", 0)
        return Reply(response.SerializeToString(), 0, "", ((REQUEST_ID_KEY, entry.request_id),))

    def _finish(self, entry: Entry, route: Route, body: bytes) -> Reply | None:
        """Release a small reply, once it is recorded.  None, and nothing done, where the record has to be waited for."""
        size = len(body)
        if size >= COUNTED_BYTES or route.path in self._waiting:
            return None
        if entry.call.answer is not None:
            return self._round.add(asyncio.get_running_loop(), entry, body)
        receipt = self._audit.served(entry, size)
        entry.outcome = ("OK", "", size)
        return Reply(body, 0, "", ((REQUEST_ID_KEY, entry.request_id), (RECEIPT_KEY, receipt)))

    def _over(self, entry: Entry) -> None:
        """A call that was handed over has its outcome."""
        try:
            self._throttle.unary.leave(entry.principal)
        finally:
            self._telemetry.ended(entry)

    async def _finish_later(self, entry: Entry, route: Route, body: bytes) -> Reply:
        """Release any reply, once it is recorded, and its record durable, or with the sinks that every call needs, or both."""
        size = len(body)
        if size >= COUNTED_BYTES:
            _require_fits(body)
            self.unread.require_room(entry.principal, size)
        if route.path in self._synced:
            receipt: bytes | None = await self._audit.durable_outcome(entry, size)
        else:
            receipt = self._audit.outcome(entry, "OK", "", size)
        if self._audit.holds_calls:
            await self._audit.delivered(entry)
        entry.outcome = ("OK", "", size)
        if size >= COUNTED_BYTES:
            entry.call.sent = self.unread.hold(entry.principal, size)
        return Reply(body, 0, "", _trailing(entry, receipt))

    def _refuse(self, entry: Entry, error: VaultdError) -> Reply:
        if isinstance(error, DataLoss):
            self._on_data_loss(error)
        receipt, recorded = self._record(entry, error.code, error.reason)
        if not recorded:
            error = audit_unavailable()
        entry.outcome = (error.code, error.reason, 0)
        self._remember(entry, error)
        status = status_of(error)
        trailing = (*_trailing(entry, receipt), (DETAILS_KEY, status.SerializeToString()))
        return Reply(b"", CODES[error.code], error.text, trailing)

    def _remember(self, entry: Entry, error: VaultdError) -> None:
        """Keep what ExplainAccess may be asked for: of the request, only names that were validated."""
        values = entry.fields.values()
        named = tuple(value for value in values if isinstance(value, str) and (value == "/" or value[:7] == "vaults/"))
        method = entry.route.path if entry.route is not None else ""
        incident = error.metadata.get("incident", "")
        self._refusals.note(entry.request_id, entry.principal, method, named, error.code, error.reason, incident)

    def _record(self, entry: Entry, code: str, reason: str) -> tuple[bytes | None, bool]:
        try:
            return self._audit.outcome(entry, code, reason, entry.bytes_out), True
        except Exception as error:  # a log that cannot be written, or a record that cannot
            known_error(error, self._on_incident)
            return None, False

    # -- streams --------------------------------------------------------------------------------------------------------

    async def stream(self, call: Call) -> Reply:
        """Serve a stream.  Its messages go through `call.send`; what is returned is its status.

        Admitted like a unary call; that it is open is durable before its first answer, and its end is recorded with counts.
        """
        entry = self._open(call)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that runs is in a task
        stream: OpenStream | None = None
        try:
            route = entry.route = self._routes.get(call.method)
            if route is None:
                raise _unknown_method()
            if route.rule.open:
                return await self._stream_open(route, call, entry)
            self._audit.require_room()
            entry.credential = self._identity.credential(call)
            caller = await self._identity.identify(call)
            principal = entry.principal = caller.principal
            make = ItemStream if route.rule.each else OpenStream
            stream = make(call, caller, entry.credential, route, task)
            self._throttle.streams.enter(principal)
            try:
                with self._open_streams.holding(stream):
                    await self._serve_stream(stream, entry, task)
            finally:
                self._deadlines.pop(task, None)
                self._throttle.streams.leave(principal)
                stream.tell(entry)
            receipt = self._audit.outcome(entry, "OK", "", entry.bytes_out)
            entry.outcome = ("OK", "", entry.bytes_out)
            return Reply(b"", 0, "", _trailing(entry, receipt))
        except asyncio.CancelledError:
            if stream is not None and stream.ended is not None:
                task.uncancel()
                return self._refuse(entry, stream.named(stream.ended))
            if self._deadlines.take_expired(task):
                return self._refuse(entry, _too_late())
            late = call.deadline is not None and task.get_loop().time() >= call.deadline
            code = "DEADLINE_EXCEEDED" if late else "CANCELLED"
            self._record(entry, code, code)
            entry.outcome = (code, code, entry.bytes_out)
            raise
        except ReaderGone:
            self._record(entry, "CANCELLED", "CANCELLED")
            entry.outcome = ("CANCELLED", "CANCELLED", entry.bytes_out)
            return Reply(b"", CODES["CANCELLED"], "", ())
        except Exception as error:  # as in unary: what is not a VaultdError is INTERNAL with an incident id
            known = known_error(error, self._on_incident)
            return self._refuse(entry, stream.named(known) if stream is not None else known)
        finally:
            self._telemetry.ended(entry)

    async def _serve_stream(self, stream: OpenStream, entry: Entry, task: asyncio.Task[Any]) -> None:
        """The steps of a unary call, for a request that is answered by many messages."""
        call, route, caller = stream.call, stream.route, stream.caller
        principal, rule, throttle = caller.principal, route.rule, self._throttle
        now = task.get_loop().time()
        if call.deadline is not None and call.deadline - now < self._limits.least_deadline_s:
            raise _too_late()
        if isinstance(stream, ItemStream):
            await self._items.serve(stream, entry)
            return
        self._deadlines.watch(task, now + self._limits.receive_s)
        body = await stream.receive()
        self._deadlines.pop(task, None)
        size = len(body or b"")
        lease = throttle.admit_message(principal, rule.method, size)
        if lease is not None:
            await spend(lease, throttle.admit_message, principal, rule.method, size)
        request = parse(route, body)
        route.validate.names(request)
        route.validate.rest(request)
        entry.name(request)
        try:
            entry.allow(await self._policy.require(caller, rule, request))
        except PermissionDenied as refused:
            entry.deny(refused)
            raise
        if throttle.meters(rule.method):
            lease = throttle.admit_use(principal, rule, request, size)
            if lease is not None:
                await spend(lease, throttle.admit_use, principal, rule, request, size)
        stream.request = request
        await self._audit.opened(entry)
        async with aclosing(
            route.serve(request, StreamContext(caller, call.method, call.deadline, stream.resume))
        ) as answers:
            async for answer in answers:
                await stream.send(answer if isinstance(answer, bytes) else answer.SerializeToString())

    async def recheck_streams(self) -> None:
        """End streams that would not be let in now.  Called about twice a second."""
        await self._open_streams.recheck()

    def drain_streams(self) -> None:
        """The server stops: streams end, and say so."""
        self._open_streams.drain()

    async def _stream_open(self, route: Route, call: Call, entry: Entry) -> Reply:
        """A stream of the server's own (health, reflection): bounded in number, a message at a time, and not recorded."""
        streams = self._throttle.streams
        if not call.peer.certificates:  # anybody may come this far there, and watchers hold places
            entry.credential = self._identity.credential(call)
            entry.principal = (await self._identity.identify(call)).principal
        peer = host_of(call.peer.address)
        streams.enter(peer)
        try:
            async with aclosing(
                route.serve(self._requests(route, call), Context(NOBODY, call.method, None))
            ) as answers:
                async for answer in answers:
                    await call.send(answer.SerializeToString())
        except TimeoutError:
            return self._refuse(entry, _too_late())
        finally:
            streams.leave(peer)
        return Reply(b"", 0, "", ((REQUEST_ID_KEY, entry.request_id),))

    async def _requests(self, route: Route, call: Call) -> AsyncIterator[Any]:
        async with asyncio.timeout(self._limits.receive_s):
            body = await call.receive()
        while body is not None:
            request = parse(route, body)
            route.validate.rest(request)
            yield request
            body = await call.receive()


def _body(entry: Entry, rule: Rule, response: Any) -> bytes:
    """The encoded answer; what the record says of it is noted."""
    body: bytes
    if type(response) is tuple:  # a service may have encoded it, and names the version that was used
        body, entry.fields[rule.used] = response
        return body
    version = getattr(response, rule.used, "")
    if version:
        entry.fields[rule.used] = version
    for told in rule.told:
        entry.fields[told] = getattr(response, told)
    body = response.SerializeToString()
    return body


def _require_fits(body: bytes) -> None:
    """Before it is recorded as answered."""
    if len(body) > MAX_MESSAGE_BYTES:  # the transport would refuse it
        raise ResourceExhausted("ANSWER_TOO_LARGE", "the answer is larger than 4 MiB; ask for less in one call")


def _trailing(entry: Entry, receipt: bytes | None) -> tuple[tuple[str, str | bytes], ...]:
    if receipt is None:
        return ((REQUEST_ID_KEY, entry.request_id),)
    return ((REQUEST_ID_KEY, entry.request_id), (RECEIPT_KEY, receipt))


def _unknown_method() -> Unimplemented:
    return Unimplemented("METHOD_UNKNOWN", "this server has no such method; reflection or the protos list them")


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("DEADLINE_EXCEEDED", "the call could not be served within its deadline; allow it more time")
