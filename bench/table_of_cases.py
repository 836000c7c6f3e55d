"""`python -m bench cases`: RPCs beside the bare echo, keys in a token beside a bare loop, or a profile of one of them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.cases import CASES, KEYS, SECRETS
from bench.floors import measure_floors
from bench.machine import describe_machine
from bench.measure import measure
from bench.profile_server import find_profiler, profile
from bench.report import to_markdown, token_to_markdown
from bench.rig import Rig, Setup
from bench.token import TOKEN_CASES, Loop, create_token_keys, measure_token, what_is_missing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.cases import Case
    from bench.measure import Plan


class NothingToMeasure(Exception):
    """No case has such a name, or what it needs is not there."""


@dataclass(frozen=True)
class Wanted:
    """What the command line asked for.  profile_s: sample for so long instead of measuring; 0 measures."""

    pattern: str
    plan: Plan
    setup: Setup
    connections: int
    scratch: Path | None
    json_file: Path | None
    floors_s: float
    profile_s: float = 0.0
    native: bool = False


def measure_cases(wanted: Wanted) -> None:
    """Measure or profile, and print.  Raises NothingToMeasure."""
    cases, token_cases = _select(CASES, wanted.pattern), _select(TOKEN_CASES, wanted.pattern)
    if not cases and not token_cases:
        names = ", ".join(case.name for case in (*CASES, *TOKEN_CASES))
        raise NothingToMeasure(f"no case matches {wanted.pattern!r}; there are: {names}")
    missing = what_is_missing() if token_cases else ""
    if missing and not cases:
        raise NothingToMeasure(missing)
    if missing:
        _say(f"bench: no rows for keys in a token: {missing}")
        token_cases = []
    if wanted.profile_s:
        find_profiler()
        if not wanted.pattern:
            cases, token_cases = cases[:1], []
    document = _run(cases, token_cases, wanted)
    if wanted.json_file and not wanted.profile_s:
        wanted.json_file.write_text(json.dumps(document, indent=1) + "\n")


def _select(cases: Iterable[Case], pattern: str) -> list[Case]:
    return [case for case in cases if re.search(pattern, case.name, re.IGNORECASE)]


def _run(cases: list[Case], token_cases: list[Case], wanted: Wanted) -> dict[str, Any]:
    document: dict[str, Any] = {"plan": {**vars(wanted.plan), "connections": wanted.connections}}
    if cases:
        with Rig(wanted.scratch, wanted.connections, wanted.setup) as rig:
            rig.api.create_keys(KEYS)
            rig.api.create_secrets(SECRETS)
            document |= _profile(rig, cases, wanted) if wanted.profile_s else _measure(rig, cases, wanted)
    if token_cases:
        # A vault of its own: the worker's process would otherwise be in every row.
        setup = Setup(wanted.setup.host, wanted.setup.workers, ("--hsm",))
        with Rig(wanted.scratch, wanted.connections, setup) as rig:
            create_token_keys(rig.api)
            act = _profile if wanted.profile_s else _measure_token
            document |= act(rig, token_cases, wanted)
    return document


def _profile(rig: Rig, cases: list[Case], wanted: Wanted) -> dict[str, Any]:
    for case in cases:
        print(profile(rig, case, wanted.plan, wanted.profile_s, native=wanted.native))
    return {}


def _measure(rig: Rig, cases: list[Case], wanted: Wanted) -> dict[str, Any]:
    machine = describe_machine()
    floors = measure_floors(wanted.floors_s)
    rows = measure(rig, cases, wanted.plan, _say)
    print(to_markdown(machine, rows, floors))
    return {"machine": machine, "floors_us": floors, "rows": [row.as_dict() for row in rows]}


def _measure_token(rig: Rig, cases: list[Case], wanted: Wanted) -> dict[str, Any]:
    loop = Loop(rig)
    machine = {**describe_machine(), **loop.module}
    rows = measure_token(rig, loop, cases, wanted.plan, _say)
    print(token_to_markdown(machine, rows))
    return {"token_machine": machine, "token_rows": [row.as_dict() for row in rows]}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
