"""The chain: everything between a host and a service, in order.  Nothing else may see a request.

    errors -> trace -> audit(open) -> identity -> throttle -> parse+validate -> policy -> approval -> audit(intent) -> service
           -> audit(outcome)

Read `Chain.unary` to know the product's guarantees.  `Chain.stream` is the same list for streams, message by message.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.caller import Caller
from vaultd.errors import (
    DataLoss,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unimplemented,
    VaultdError,
)
from vaultd.interceptors.audit import RECEIPT_KEY, host_of
from vaultd.interceptors.call import ReaderGone, Reply
from vaultd.interceptors.deadlines import Deadlines
from vaultd.interceptors.errors import CODES, DETAILS_KEY, audit_unavailable, known_error, status_of
from vaultd.interceptors.grants import Granted, GrantsOfBatch
from vaultd.interceptors.held_bytes import HeldBytes
from vaultd.interceptors.item_stream import ItemStream
from vaultd.interceptors.items import ItemSteps
from vaultd.interceptors.routes import parse
from vaultd.interceptors.streams import OpenStream, OpenStreams
from vaultd.interceptors.throttle import message_cost, spend
from vaultd.interceptors.trace import REQUEST_ID_KEY, RequestIds
from vaultd.services.context import Context, StreamContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from vaultd.engine.refusals import RefusalLog
    from vaultd.interceptors.approvals import ApprovalStep
    from vaultd.interceptors.audit import AuditStep, Entry
    from vaultd.interceptors.call import Call
    from vaultd.interceptors.grants import GrantStep
    from vaultd.interceptors.identity import Identity
    from vaultd.interceptors.policy import PolicyStep
    from vaultd.interceptors.routes import Route
    from vaultd.interceptors.telemetry import TelemetryStep
    from vaultd.interceptors.throttle import Throttle

MAX_ITEMS: Final = 10_000
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
LEAST_RESULT_BYTES: Final = 64
"""Kept for each item of a batch, so that at least its code and reason fit."""
RESULT_FRAME_BYTES: Final = 10
"""Tags and lengths around one result."""
_UNDECIDED: Final = object()
NOBODY: Final = Caller("")
"""Who asks for the server's own health: nobody looked."""
ITEMS_PER_TURN: Final = 1000
"""Items of a batch that one step looks at between two turns of the event loop."""


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
        self._finishing: set[asyncio.Task[Reply]] = set()
        self._synced = frozenset(route.path for route in routes.values() if audit.waits(route.rule))

    def serves(self, method: str) -> bool:
        """Whether there is such a method."""
        return method in self._routes

    def streams(self, method: str) -> bool:
        """Whether the host must use `stream` for this method."""
        route = self._routes.get(method)
        return route is not None and route.streaming

    async def unary(self, call: Call) -> Reply:
        """Serve one unary call."""
        entry = self._open(call)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that runs is in a task
        try:
            route = entry.route = self._find(call.method)  # unknown method: UNIMPLEMENTED, recorded all the same
            if route.rule.open:
                return await self._serve_open(route, call, entry)
            self._audit.require_room()
            entry.credential = self._identity.credential(call)
            caller = await self._identity.identify(call)
            principal = entry.principal = caller.principal
            in_flight = self._throttle.unary
            in_flight.enter(principal)
            try:
                now = task.get_loop().time()
                deadline = self._deadline(call, now)
                # Who sends nothing holds a place only so long.
                self._deadlines.watch(task, now + self._limits.receive_s)
                body = await call.receive()
                self._deadlines.watch(task, deadline)
                entry.bytes_in = len(body or b"")
                throttle, method, size = self._throttle, route.rule.method, entry.bytes_in
                lease = throttle.admit_message(principal, method, size)
                if lease is not None:
                    await spend(lease, lambda: throttle.admit_message(principal, method, size))
                request = parse(route, body)
                context = Context(caller, call.method, deadline)
                if route.batch:
                    return await self._finish(entry, route, await self._serve_batch(route, request, context, entry))
                route.validate.names(request)
                route.validate.rest(request)
                entry.name(request)
                try:
                    entry.allow(await self._policy.require(caller, route.rule, request))
                except PermissionDenied as refused:
                    entry.deny(refused)
                    await self._grants.require(refused, caller, route.rule, request, entry)
                    entry.allow("")
                if throttle.meters(method):
                    lease = throttle.admit_use(principal, route.rule, request, size)
                    if lease is not None:
                        await spend(lease, lambda: throttle.admit_use(principal, route.rule, request, size))
                if self._audit.holds_calls:
                    self._audit.require_sinks()
                if not route.rule.mutation:
                    try:
                        response = await route.serve(request, context)
                    except NotFound as error:
                        raise await self._policy.disguise(error, caller, route.rule, request) from None
                    return await self._finish(entry, route, response)
                # No deadline from here on: a mutation that began is finished and recorded, whoever still waits for it.
                self._deadlines.leave(task)
                self._audit.correlate(entry, request)
                return await self._mutate(route, request, body or b"", context, entry)
            finally:
                self._deadlines.leave(task)
                if not entry.handed_over:
                    in_flight.leave(principal)
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
        entry = self._audit.open(call, self._request_ids.fresh(), trace)
        entry.span = span
        return entry

    def _find(self, method: str) -> Route:
        route = self._routes.get(method)
        if route is None:
            raise Unimplemented("METHOD_UNKNOWN", "this server has no such method; reflection or the protos list them")
        return route

    def _deadline(self, call: Call, now: float) -> float:
        """The client's deadline or ours, whichever is first, in `time.monotonic()` seconds: the loop's clock is that."""
        latest = now + self._limits.unary_s
        if call.deadline is None:
            return latest
        if call.deadline - now < self._limits.least_deadline_s:
            raise _too_late()
        return min(call.deadline, latest)

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
                answer = _body(entry, response)
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
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Wait for mutations whose callers are gone."""
        while self._finishing:
            await asyncio.wait(self._finishing)

    async def _serve_batch(self, route: Route, request: Any, context: Context, entry: Entry) -> Any:
        """Validate and authorise each item; the service sees only those that passed.  An item fails by itself."""
        items = request.items
        if not 1 <= len(items) <= MAX_ITEMS:
            raise InvalidArgument("BATCH_SIZE", f"items must be 1 to {MAX_ITEMS}", field="items")
        caller, rule = context.caller, route.rule
        throttle, principal, method, count, size = (
            self._throttle,
            caller.principal,
            rule.method,
            len(items),
            entry.bytes_in,
        )
        lease = throttle.admit_items(principal, method, count, size)
        if lease is not None:
            await spend(lease, lambda: throttle.admit_items(principal, method, count, size))
        response: Any = route.response()
        add = response.results.add
        slots, requests, results, places = [], [], [], []
        names: list[Any] = []
        errors: dict[int, VaultdError] = {}
        verdicts: dict[Any, Any] = {}  # items that name the same keys share a decision
        decided: dict[Any, str] = {}
        by_grants = GrantsOfBatch()
        name_of, validate = rule.names, route.validate.rest
        next_turn = ITEMS_PER_TURN
        for at, item in enumerate(items):
            if at == next_turn:
                next_turn += ITEMS_PER_TURN
                await asyncio.sleep(0)
            slot = add()
            slots.append(slot)
            name = name_of(item)
            verdict = verdicts.get(name, _UNDECIDED)
            if verdict is _UNDECIDED:
                verdict = self._verdict_now(route, caller, item, name, decided)
                if verdict is _UNDECIDED:
                    verdict = await self._verdict(route, caller, item, name, decided)
                verdicts[name] = verdict
            if verdict is not None and type(verdict) is not Granted:
                errors[at] = verdict
                continue
            names.append(name)
            try:
                validate(item)
            except VaultdError as error:
                errors[at] = error
                continue
            if verdict is not None and (refused := await by_grants.spend(verdict, item)) is not None:
                errors[at] = refused
            else:
                requests.append(item)
                results.append(slot.result)
                places.append(at)
        if requests and throttle.meters(method):
            over = await self._meter_batch(route, principal, requests, message_cost(size) + count - 1)
            if over:
                errors.update((places[at], error) for at, error in over.items())
                kept = [at for at in range(len(requests)) if at not in over]
                requests, results, places = ([each[at] for at in kept] for each in (requests, results, places))
        if self._audit.holds_calls:
            self._audit.require_sinks()
        outcomes = await route.serve(requests, results, context) if requests else []
        versions = []
        for at, outcome in zip(places, outcomes, strict=True):
            if at % ITEMS_PER_TURN == ITEMS_PER_TURN - 1:
                await asyncio.sleep(0)
            if isinstance(outcome, VaultdError):
                errors[at] = await self._policy.disguise(outcome, caller, rule, items[at])
                if isinstance(outcome, DataLoss):
                    self._on_data_loss(outcome)
            else:
                versions.append(outcome)
        await put_statuses(slots, errors)
        trim(response, slots, errors)
        if len(items) > ITEMS_PER_TURN:
            await asyncio.sleep(0)
        if self._audit.records_items:
            await self._record_items(entry, items, verdicts, places, outcomes, errors)
        entry.name_items(names, versions, len(items), errors, decided)
        by_grants.record(entry)
        self._remember_items(entry, name_of, items, errors)
        return response

    async def _meter_batch(
        self, route: Route, principal: str, requests: list[Any], ahead: int
    ) -> dict[int, VaultdError]:
        """Quotas of vaults and keys, and weights: items with the same names are admitted or refused together."""
        throttle, method = self._throttle, route.rule.method
        groups: dict[Any, list[int]] = {}
        for at, name in enumerate(map(route.rule.names, requests)):
            groups.setdefault(name, []).append(at)
        refused: dict[int, VaultdError] = {}
        for name, members in groups.items():
            admit = partial(throttle.admit_uses, principal, method, name, len(members), ahead)
            try:
                lease = admit()
                if lease is not None:
                    await spend(lease, admit)
            except VaultdError as error:
                refused.update(dict.fromkeys(members, error))
        return refused

    async def _record_items(
        self,
        entry: Entry,
        items: Any,
        verdicts: Mapping[Any, Any],
        places: list[int],
        outcomes: list[Any],
        errors: Mapping[int, VaultdError],
    ) -> None:
        """A record for each item, where the configuration asks for it."""
        name_of = entry.route.rule.names if entry.route is not None else lambda item: None
        versions = {at: outcome for at, outcome in zip(places, outcomes, strict=True) if isinstance(outcome, str)}
        for at, item in enumerate(items):
            if at % ITEMS_PER_TURN == ITEMS_PER_TURN - 1:
                await asyncio.sleep(0)
            name = name_of(item)
            allowed = verdicts[name] is None or type(verdicts[name]) is Granted
            error = errors.get(at)
            self._audit.item(entry, at, name if allowed else None, versions.get(at, "") if error is None else "", error)

    def _verdict_now(self, route: Route, caller: Caller, item: Any, name: Any, decided: dict[Any, str]) -> Any:
        """What `_verdict` says where nothing has to be waited for, else _UNDECIDED: a batch may name thousands of resources."""
        try:
            route.validate.names(item)
            binding = self._policy.permits(caller, route.rule, item)
        except VaultdError as error:
            return error
        if binding is None:
            return _UNDECIDED
        decided[name] = binding
        return None

    async def _verdict(
        self, route: Route, caller: Caller, item: Any, name: Any, decided: dict[Any, str]
    ) -> VaultdError | Granted | None:
        """Why items with these names are refused, or the grants that each of them uses, or None.  Notes what allows them."""
        try:
            try:
                decided[name] = await self._policy.require(caller, route.rule, item)
            except PermissionDenied as refused:
                return await self._grants.look_up(refused, caller, route.rule, item)
        except VaultdError as error:
            return error
        return None

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

    async def _finish(self, entry: Entry, route: Route, response: Any) -> Reply:
        """Release the reply, once it is recorded; durably, where the configuration says so for this class."""
        body = _body(entry, response)
        if route.path in self._synced:
            receipt: bytes | None = await self._audit.durable_outcome(entry, len(body))
        else:
            receipt = self._audit.outcome(entry, "OK", "", len(body))
        if self._audit.holds_calls:
            await self._audit.delivered(entry)
        entry.outcome = ("OK", "", len(body))
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

    def _remember_items(
        self, entry: Entry, name_of: Callable[[Any], Any], items: Any, errors: Mapping[int, VaultdError]
    ) -> None:
        # Only what policy refused: those names were validated.
        forbidden = [at for at, error in errors.items() if error.code == "PERMISSION_DENIED"]
        if forbidden and entry.route is not None:
            names: dict[str, None] = {}
            for at in forbidden[:ITEMS_PER_TURN]:
                name = name_of(items[at])
                names.update(dict.fromkeys(name if isinstance(name, tuple) else (name,)))
            error = errors[forbidden[0]]
            path = entry.route.path
            self._refusals.note(entry.request_id, entry.principal, path, tuple(names), error.code, error.reason)

    def _record(self, entry: Entry, code: str, reason: str) -> tuple[bytes | None, bool]:
        try:
            return self._audit.outcome(entry, code, reason, entry.bytes_out), True
        except VaultdError:
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
            route = entry.route = self._find(call.method)
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
                self._deadlines.leave(task)
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
        self._deadlines.leave(task)
        size = len(body or b"")
        lease = throttle.admit_message(principal, rule.method, size)
        if lease is not None:
            await spend(lease, lambda: throttle.admit_message(principal, rule.method, size))
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
                await spend(lease, lambda: throttle.admit_use(principal, rule, request, size))
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


def _body(entry: Entry, response: Any) -> bytes:
    if entry.route is not None:
        rule = entry.route.rule
        version = getattr(response, rule.used, "")
        if version:
            entry.fields[rule.used] = version
        for told in rule.told:
            entry.fields[told] = getattr(response, told)
    body: bytes = response.SerializeToString()
    if len(body) > MAX_MESSAGE_BYTES:  # the transport would refuse it after it was recorded as answered
        raise ResourceExhausted("ANSWER_TOO_LARGE", "the answer is larger than 4 MiB; ask for less in one call")
    return body


async def put_statuses(slots: list[Any], errors: dict[int, VaultdError]) -> None:
    """Write why items failed.  Thousands may fail alike: each different status is built once."""
    built: dict[tuple[str, str], Any] = {}
    for done, (at, error) in enumerate(errors.items(), start=1):
        if done % ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)
        alike = (error.reason, error.text)
        if alike not in built:
            built[alike] = status_of(error)
        slots[at].status.CopyFrom(built[alike])


def trim(response: Any, slots: list[Any], errors: dict[int, VaultdError]) -> None:
    """Keep the response within the size of a message: answers that do not fit say so, and may be asked for again."""
    if response.ByteSize() <= MAX_MESSAGE_BYTES:
        return
    room = MAX_MESSAGE_BYTES - LEAST_RESULT_BYTES * (len(slots) + 1)
    for at, slot in enumerate(slots):
        size = slot.ByteSize() + RESULT_FRAME_BYTES
        if size <= room:
            room -= size
        else:
            error = errors.setdefault(at, ResourceExhausted("ANSWER_TOO_LARGE", "ANSWER_TOO_LARGE"))
            slot.Clear()
            # As small as can be, within what is kept for each: there may be thousands of them.
            slot.status.code, slot.status.message = CODES[error.code], error.reason


def _trailing(entry: Entry, receipt: bytes | None) -> tuple[tuple[str, str | bytes], ...]:
    if receipt is None:
        return ((REQUEST_ID_KEY, entry.request_id),)
    return ((REQUEST_ID_KEY, entry.request_id), (RECEIPT_KEY, receipt))


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("DEADLINE_EXCEEDED", "the call could not be served within its deadline; allow it more time")
