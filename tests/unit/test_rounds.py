"""Calls that are recorded together: none is answered before it is recorded, and one that cannot be is not the others' fault."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import orjson

from vaultd.audit.folding import RefusalFolder
from vaultd.audit.log import AuditLog
from vaultd.engine.clock import SystemClock
from vaultd.errors import Unavailable
from vaultd.interceptors.audit import AuditStep, Entry
from vaultd.interceptors.call import Call, Peer, Reply
from vaultd.interceptors.errors import known_error
from vaultd.interceptors.rounds import HELD, MOST, Round


class Served:
    """Calls as a host and the chain have them."""

    def __init__(self, directory, audit: AuditStep) -> None:
        self.directory = directory
        self.audit = audit
        self.events: list[tuple[str, str]] = []
        self.recorded_at_answers: list[int] = []
        self.incidents: list[str] = []
        self.round = Round(audit, self._ended, self._refuse, lambda _, error: self.incidents.append(str(error)))

    def _ended(self, entry) -> None:
        if entry.fields.get("fault") == "end":
            raise RuntimeError("end")
        self.events.append(("ended", entry.outcome[0]))

    def _refuse(self, entry, error) -> Reply:
        known = known_error(error, lambda *_: None)
        entry.outcome = (known.code, known.reason, 0)
        return Reply(b"", 1, known.reason, ())

    def _answered(self, reply: Reply) -> None:
        if reply.body == b"fault":
            raise RuntimeError("answer")
        self.events.append(("answered", reply.text or reply.body.decode()))
        self.recorded_at_answers.append(len(self.records()))

    def serve(self, body: bytes, **fields) -> None:
        call = Call("/method", Peer("ipv4:127.0.0.1:1", b""), (), None, None, None)
        call.answer = self._answered
        entry = Entry(call, f"id-{body.decode()}", "", self.audit.now_s())
        entry.fields.update(fields)
        assert self.round.add(asyncio.get_running_loop(), entry, body) is HELD
        assert entry.handed_over

    def records(self) -> list[dict[str, object]]:
        lines = [line for path in sorted(self.directory.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
        return [record for record in map(orjson.loads, lines) if record["event"] == "call"]


@asynccontextmanager
async def serving(tmp_path):
    clock = SystemClock()
    log = AuditLog(tmp_path / "audit", now=clock.now_us)
    await log.open()
    try:
        yield Served(tmp_path / "audit", AuditStep(log, RefusalFolder(), clock)), log
    finally:
        await log.close()


async def test_calls_of_a_round_are_all_recorded_before_the_first_is_answered(tmp_path):
    async with serving(tmp_path) as (served, _):
        for body in (b"a", b"b", b"c"):
            served.serve(body)
        assert (served.events, served.records()) == ([], [])
        await asyncio.sleep(0)
        assert served.events == [("ended", "OK")] * 3 + [("answered", body) for body in "abc"]
        assert served.recorded_at_answers == [3, 3, 3]
        assert [(record["id"], record["code"], record["bytes_out"]) for record in served.records()] == [
            (f"id-{body}", "OK", 1) for body in "abc"
        ]
        served.serve(b"next")
        await asyncio.sleep(0)
        assert served.events[-1] == ("answered", "next")


async def test_no_call_of_a_round_that_cannot_be_recorded_is_answered(tmp_path):
    async with serving(tmp_path) as (served, log):
        (tmp_path / "audit").rename(tmp_path / "away")
        log.check()
        for body in (b"a", b"b"):
            served.serve(body)
        await asyncio.sleep(0)
        assert served.events == [("ended", Unavailable.code)] * 2 + [("answered", "AUDIT_UNAVAILABLE")] * 2
        (tmp_path / "away").rename(tmp_path / "audit")
        served.serve(b"c")
        await asyncio.sleep(0)
        assert served.events[-1] == ("answered", "c")
        assert [record["id"] for record in served.records()] == ["id-c"]


async def test_a_record_that_cannot_be_written_refuses_its_own_call_alone(tmp_path):
    async with serving(tmp_path) as (served, _):
        served.serve(b"a")
        served.serve(b"b", name=object())
        served.serve(b"c")
        await asyncio.sleep(0)
        assert [what for kind, what in served.events if kind == "answered"] == ["a", "INTERNAL", "c"]
        assert [record["id"] for record in served.records()] == ["id-a", "id-c"]


async def test_a_round_has_no_more_calls_than_one_write_takes(tmp_path):
    async with serving(tmp_path) as (served, _):
        for at in range(MOST + 1):
            served.serve(b"%d" % at)
        assert len(served.recorded_at_answers) == MOST
        assert set(served.recorded_at_answers) == {MOST}
        served.round.end()
        assert len(served.recorded_at_answers) == MOST + 1
        await asyncio.sleep(0)
        assert len(served.records()) == MOST + 1


async def test_what_goes_wrong_with_one_call_is_reported_and_keeps_no_other_from_its_answer(tmp_path):
    async with serving(tmp_path) as (served, _):
        served.serve(b"a", fault="end")
        served.serve(b"fault")
        served.serve(b"c")
        await asyncio.sleep(0)
        assert [what for kind, what in served.events if kind == "answered"] == ["a", "c"]
        assert served.incidents == ["end", "answer"]
