"""The steps of the chain after parsing, for the items of a batch: each is authorised, served and refused by itself.

What items share is done once: a decision for all that name the same resources, a quota for all that use them, a status for all
that fail alike.  Long batches go through in turns (engine/turns.py), so that other callers are answered between them.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from google.rpc.status_pb2 import Status

from vaultd.engine.turns import ITEMS_PER_LOOK, BulkLane
from vaultd.errors import DataLoss, InvalidArgument, PermissionDenied, ResourceExhausted, VaultdError
from vaultd.interceptors.errors import CODES, status_of
from vaultd.interceptors.grants import Granted, GrantsOfBatch
from vaultd.interceptors.throttle import message_cost, spend
from vaultd.services.encoding import head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd.engine.caller import Caller
    from vaultd.engine.refusals import RefusalLog
    from vaultd.interceptors.audit import AuditStep, Entry
    from vaultd.interceptors.grants import GrantStep
    from vaultd.interceptors.policy import PolicyStep
    from vaultd.interceptors.routes import Route
    from vaultd.interceptors.throttle import Throttle
    from vaultd.services.context import Context

MAX_ITEMS: Final = 10_000
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
LEAST_RESULT_BYTES: Final = 64
"""Kept for each item of a batch, so that at least its code and reason fit."""
BYTES_PER_TURN: Final = 256 * 1024
"""A longer answer is put together, and handed to the transport, in a turn of its own."""
MAX_NAMED: Final = 1000
"""Items whose names a refusal is remembered with."""
RESULT: Final = 1
STATUS: Final = 2
"""Fields of an item's outcome."""
_UNDECIDED: Final = object()
_VERSION_OF: Final = itemgetter(1)
_TOO_LARGE: Final = ResourceExhausted("ANSWER_TOO_LARGE", "ANSWER_TOO_LARGE")


class BatchSteps:
    """Serves batches whose call was admitted and parsed."""

    def __init__(
        self,
        throttle: Throttle,
        policy: PolicyStep,
        grants: GrantStep,
        audit: AuditStep,
        refusals: RefusalLog,
        on_data_loss: Callable[[DataLoss], None],
        lane: BulkLane,
    ) -> None:
        self._throttle = throttle
        self._policy = policy
        self._grants = grants
        self._audit = audit
        self._refusals = refusals
        self._on_data_loss = on_data_loss
        self._lane = lane

    async def serve(self, route: Route, request: Any, context: Context, entry: Entry) -> bytes:
        """Validate and authorise each item; the service sees only those that passed.  Returns the encoded answer."""
        items = request.items
        count, size, method = len(items), entry.bytes_in, route.rule.method
        if not 1 <= count <= MAX_ITEMS:
            raise InvalidArgument("BATCH_SIZE", f"items must be 1 to {MAX_ITEMS}", field="items")
        throttle, principal, lane = self._throttle, context.caller.principal, self._lane
        lease = throttle.admit_items(principal, method, count, size)
        if lease is not None:
            await spend(lease, throttle.admit_items, principal, method, count, size)
        batch = _Batch(route, items)
        for start in range(0, count, ITEMS_PER_LOOK):
            if count > ITEMS_PER_LOOK and lane.over():
                await lane.next_turn()
            await self._pass(batch, context.caller, items[start : start + ITEMS_PER_LOOK], start)
        if batch.requests and throttle.meters(method):
            await self._meter(batch, principal, message_cost(size) + count - 1)
        if self._audit.holds_calls:
            self._audit.require_sinks()
        outcomes = await route.serve(batch.requests, context) if batch.requests else []
        await self._take(batch, context.caller, outcomes)
        body = await _encode(batch, lane)
        if self._audit.records_items:
            await self._record_items(entry, batch, outcomes)
        entry.name_items(batch.names, batch.versions, count, batch.errors, batch.decided)
        batch.by_grants.record(entry)
        self._remember(entry, batch)
        await lane.let_go(batch.answers, outcomes, batch.requests, batch.places)
        return body

    async def _pass(self, batch: _Batch, caller: Caller, piece: Sequence[Any], start: int) -> None:
        """Policy and validation, for a piece of the list."""
        route, verdicts, errors = batch.route, batch.verdicts, batch.errors
        requests, places = batch.requests, batch.places
        named = list(map(batch.name_of, piece))
        if named.count(named[0]) == len(named):
            if named[0] not in verdicts:
                verdicts[named[0]] = await self._decide(batch, caller, piece[0], named[0])
            if verdicts[named[0]] is None and route.validate.plain(piece):
                requests += piece
                places.extend(range(start, start + len(piece)))
                batch.names[named[0]] += len(named)
                return
        names: list[Any] = []
        validate = route.validate.rest
        for at, (item, name) in enumerate(zip(piece, named, strict=True), start):
            verdict = verdicts.get(name, _UNDECIDED)
            if verdict is not None:
                if verdict is _UNDECIDED:
                    verdict = verdicts[name] = await self._decide(batch, caller, item, name)
                if verdict is not None and type(verdict) is not Granted:
                    errors[at] = verdict
                    continue
            names.append(name)
            try:
                validate(item)
            except VaultdError as error:
                errors[at] = error
                continue
            if verdict is not None and (refused := await batch.by_grants.spend(verdict, item)) is not None:
                errors[at] = refused
            else:
                requests.append(item)
                places.append(at)
        batch.names.update(names)

    async def _decide(self, batch: _Batch, caller: Caller, item: Any, name: Any) -> Any:
        """A verdict, as `_Batch.verdicts` has them."""
        verdict = self._verdict_now(batch, caller, item, name)
        return await self._verdict(batch, caller, item, name) if verdict is _UNDECIDED else verdict

    def _verdict_now(self, batch: _Batch, caller: Caller, item: Any, name: Any) -> Any:
        """What `_verdict` says where nothing has to be waited for, else _UNDECIDED: a batch may name thousands of resources."""
        try:
            batch.route.validate.names(item)
            binding = self._policy.permits(caller, batch.route.rule, item)
        except VaultdError as error:
            return error
        if binding is None:
            return _UNDECIDED
        batch.decided[name] = binding
        return None

    async def _verdict(self, batch: _Batch, caller: Caller, item: Any, name: Any) -> VaultdError | Granted | None:
        """Why items with these names are refused, or the grants that each of them uses, or None.  Notes what allows them."""
        rule = batch.route.rule
        try:
            try:
                batch.decided[name] = await self._policy.require(caller, rule, item)
            except PermissionDenied as refused:
                return await self._grants.look_up(refused, caller, rule, item)
        except VaultdError as error:
            return error
        return None

    async def _meter(self, batch: _Batch, principal: str, ahead: int) -> None:
        """Quotas of vaults and keys, and weights: items with the same names are admitted or refused together."""
        throttle, method, requests = self._throttle, batch.route.rule.method, batch.requests
        groups: dict[Any, list[int]] = {}
        for at, name in enumerate(map(batch.name_of, requests)):
            groups.setdefault(name, []).append(at)
        over: dict[int, VaultdError] = {}
        for name, members in groups.items():
            asked = (principal, method, name, len(members), ahead)
            try:
                lease = throttle.admit_uses(*asked)
                if lease is not None:
                    await spend(lease, throttle.admit_uses, *asked)
            except VaultdError as error:
                over.update(dict.fromkeys(members, error))
        if over:
            batch.errors.update((batch.places[at], error) for at, error in over.items())
            batch.places = [place for at, place in enumerate(batch.places) if at not in over]
            batch.requests = [request for at, request in enumerate(requests) if at not in over]

    async def _take(self, batch: _Batch, caller: Caller, outcomes: list[Any]) -> None:
        """Sort what the service said: answers, and why items failed."""
        answers, places = batch.answers, batch.places
        openings: dict[int, bytes] = {}

        def opening(size: int) -> bytes:
            made = openings[size] = _opening(RESULT, size)
            return made

        for start in range(0, len(outcomes), ITEMS_PER_LOOK):
            if start and self._lane.over():
                await self._lane.next_turn()
            stop = start + ITEMS_PER_LOOK
            used: list[str] = []
            piece, where = outcomes[start:stop], places[start:stop]
            if where[-1] - where[0] == len(where) - 1 and {tuple}.issuperset(map(type, piece)):
                answers[where[0] : where[-1] + 1] = [
                    (openings.get(len(answer)) or opening(len(answer))) + answer for answer, _ in piece
                ]
                batch.versions.update(map(_VERSION_OF, piece))
                continue
            for at, outcome in zip(where, piece, strict=True):
                if type(outcome) is tuple:
                    answer, version = outcome
                    size = len(answer)
                    answers[at] = (openings.get(size) or opening(size)) + answer
                    used.append(version)
                    continue
                batch.errors[at] = await self._policy.disguise(outcome, caller, batch.route.rule, batch.items[at])
                if isinstance(outcome, DataLoss):
                    self._on_data_loss(outcome)
            batch.versions.update(used)

    async def _record_items(self, entry: Entry, batch: _Batch, outcomes: list[Any]) -> None:
        """A record for each item, where the configuration asks for it."""
        versions = {
            at: outcome[1] for at, outcome in zip(batch.places, outcomes, strict=True) if type(outcome) is tuple
        }
        for start in range(0, len(batch.items), ITEMS_PER_LOOK):
            if start and self._lane.over():
                await self._lane.next_turn()
            for at, item in enumerate(batch.items[start : start + ITEMS_PER_LOOK], start):
                name = batch.name_of(item)
                verdict, error = batch.verdicts[name], batch.errors.get(at)
                allowed = verdict is None or type(verdict) is Granted
                version = versions.get(at, "") if error is None else ""
                self._audit.item(entry, at, name if allowed else None, version, error)

    def _remember(self, entry: Entry, batch: _Batch) -> None:
        # Only what policy refused: those names were validated.
        refused = (at for at, error in batch.errors.items() if error.code == "PERMISSION_DENIED")
        forbidden = list(islice(refused, MAX_NAMED))
        if forbidden:
            names: dict[str, None] = {}
            for at in forbidden:
                name = batch.name_of(batch.items[at])
                names.update(dict.fromkeys(name if isinstance(name, tuple) else (name,)))
            error = batch.errors[forbidden[0]]
            path = batch.route.path
            self._refusals.note(entry.request_id, entry.principal, path, tuple(names), error.code, error.reason)


class _Batch:
    """What is known of the items so far."""

    __slots__ = (
        "answers",
        "by_grants",
        "decided",
        "errors",
        "items",
        "name_of",
        "names",
        "places",
        "requests",
        "route",
        "verdicts",
        "versions",
    )

    def __init__(self, route: Route, items: Sequence[Any]) -> None:
        self.route = route
        self.items = items
        self.name_of = route.rule.names
        self.verdicts: dict[Any, Any] = {}
        """By names: None where policy allows, grants, or why all items with these names are refused."""
        self.decided: dict[Any, str] = {}
        """By names: the entry of the policy that allows them."""
        self.names: Counter[Any] = Counter()
        """Of the items that policy or a grant allows."""
        self.by_grants = GrantsOfBatch()
        self.requests: list[Any] = []
        self.places: list[int] = []
        """What the service gets, and where in the batch it is."""
        self.answers = [b""] * len(items)
        """By place, as they go out."""
        self.versions: Counter[str] = Counter()
        """That gave them."""
        self.errors: dict[int, VaultdError] = {}


def _opening(field: int, size: int) -> bytes:
    """What goes before an outcome of so many bytes: field 1 of the response, a message that holds it in its own field."""
    inner = head(field, size)
    return head(1, len(inner) + size) + inner


def _framed_status(status: Status) -> bytes:
    encoded: bytes = status.SerializeToString()
    return _opening(STATUS, len(encoded)) + encoded


async def _encode(batch: _Batch, lane: BulkLane) -> bytes:
    """The answer to the call, within the size of a message: answers that do not fit say so, and may be asked for again."""
    answers, errors = batch.answers, batch.errors
    # Thousands may fail alike: each different status is built once.
    built: dict[tuple[str, str], bytes] = {}
    for done, (at, error) in enumerate(errors.items(), start=1):
        if done % ITEMS_PER_LOOK == 0 and lane.over():
            await lane.next_turn()
        alike = (error.reason, error.text)
        status = built.get(alike)
        if status is None:
            status = built[alike] = _framed_status(status_of(error))
        answers[at] = status
    size = sum(map(len, answers))
    if size > MAX_MESSAGE_BYTES:
        room = MAX_MESSAGE_BYTES - LEAST_RESULT_BYTES * (len(answers) + 1)
        for at, answer in enumerate(answers):
            if at % ITEMS_PER_LOOK == 0 and lane.over():
                await lane.next_turn()
            if len(answer) <= room:
                room -= len(answer)
            else:
                error = errors.setdefault(at, _TOO_LARGE)
                # As small as can be, within what is kept for each: there may be thousands of them.
                answers[at] = _framed_status(Status(code=CODES[error.code], message=error.reason))
    if size > BYTES_PER_TURN:
        await lane.next_turn()
    return b"".join(answers)
