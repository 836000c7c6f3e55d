"""A crash in the middle of a change: what the files held at that moment, opened by another engine."""

from __future__ import annotations

import itertools
import shutil
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from engine.engines import OpenEngine, engine_settings, intent
from vaultd import failpoints
from vaultd.errors import VaultdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from harness import FakeClock

FLUSHED = "ledger.flushed"
"""All is written and nothing is committed: after the crash nothing has happened."""
COMMITTED = "ledger.committed"
"""All is committed and nobody was told: after the crash all of it has happened."""


class Crashed(BaseException):
    """The process died here.  No handler of the server's may catch it."""


class CrashingEngine:
    """An engine whose process can be made to die at a failpoint, and which is then started again on what it left."""

    def __init__(self, directory: Path, clock: FakeClock, **overrides: Any) -> None:
        self._parent = directory
        self._clock = clock
        self._overrides = overrides
        self._numbers = itertools.count()
        self._directory = directory / "start"
        self._directory.mkdir()
        self._hit = failpoints.hit
        self._armed = ""
        self.opened = self._new()

    def _new(self) -> OpenEngine:
        return OpenEngine(engine_settings(self._directory, **self._overrides), self._clock)

    async def start(self) -> None:
        """Open, and from now on listen to failpoints."""
        await self.opened.start()
        failpoints.hit = self._die

    async def stop(self) -> None:
        """Close, and give the failpoints back."""
        failpoints.hit = self._hit
        await self.opened.stop()

    def _die(self, name: str) -> None:
        if name == self._armed:
            self._armed = ""
            left = self._parent / f"crash-{next(self._numbers)}"
            shutil.copytree(self._directory, left)
            self._directory = left
            raise Crashed

    async def crash_in(self, point: str, call: Callable[[], Awaitable[object]]) -> bool:
        """Make a call during which the process dies at a failpoint, and start again; whether it came that far."""
        self._armed = point
        try:
            await call()
        except Crashed:
            await self.opened.crash()
            self.opened = self._new()
            await self.opened.start()
            return True
        finally:
            self._armed = ""
        return False


class Refused(Exception):
    """What a model says of a call that the engine must refuse."""


class CrashingHistories(RuleBasedStateMachine):
    """Histories of an engine beside a model, in which the process may die in the middle of any mutation.

    A subclass has `loop`, `clock`, `engine` (a CrashingEngine) and `model`, whose methods raise Refused(reason) or move it.
    """

    loop: Any
    clock: FakeClock
    engine: CrashingEngine
    model: Any

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[int, Any, Any]] = []
        self.point = ""

    @property
    def opened(self) -> OpenEngine:
        return self.engine.opened

    def engine_and_model_agree(self) -> None:
        raise NotImplementedError

    def both(self, expect: Any, call: Any) -> Any:
        """Do a call in the model and in the engine; both do it, or both refuse it for the same reason."""
        reason, wanted = "", None
        try:
            wanted = expect()
        except Refused as refusal:
            reason = str(refusal)
        if reason:
            with pytest.raises(VaultdError) as refused:
                self.loop.run(call())
            assert refused.value.reason == reason
            return None
        answer = self.loop.run(call())
        if isinstance(wanted, int) and hasattr(answer, "number"):
            assert answer.number == wanted
        return answer

    def mutate(self, expect: Any, call: Any) -> None:
        """Like `both`, under a fresh request id that `retry` may use again.  When a crash is due it comes first, and then the
        same request again, as a caller without an answer makes it."""
        request = intent(f"r{len(self.requests)}")
        point, self.point = self.point, ""
        happened = self.die(point, expect, lambda: call(request)) if point else False
        if happened:
            answer = self.loop.run(call(request))  # the model has moved already: a retry changes nothing more
        else:
            answer = self.both(expect, lambda: call(request))
        self.requests.append((self.clock.us, lambda: call(request), answer))

    def die(self, point: str, expect: Any, call: Any) -> bool:
        """Die in the middle of a call: nothing of it is there when it was not committed, and else all of it.  Says which."""
        before = deepcopy(self.model)
        try:
            expect()
        except Refused:
            with pytest.raises(VaultdError):
                self.loop.run(self.engine.crash_in(point, call))
            self.model = before
            return False
        assert self.loop.run(self.engine.crash_in(point, call))
        if point == FLUSHED:
            self.model = before
        self.engine_and_model_agree()
        return point == COMMITTED

    def tick(self) -> None:
        """Let the scheduler do what is due, and let it die over that first when a crash is."""
        point, self.point = self.point, ""
        if point:  # perhaps nothing is due, and then nothing dies
            self.loop.run(self.engine.crash_in(point, lambda: self.opened.tick()))
        self.loop.run(self.opened.tick())

    @rule(point=st.sampled_from([FLUSHED, COMMITTED]))
    def crash_in_the_next_change(self, point: str) -> None:
        self.point = point
