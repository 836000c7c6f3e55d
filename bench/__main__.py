"""The command line: `python -m bench [--quick] [--only PATTERN] [--json FILE] [--profile]`."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cases import CASES, KEYS, SECRETS, WrongAnswer
from bench.floors import measure_floors
from bench.measure import Plan, measure
from bench.processes import StartFailed
from bench.profile_server import ProfilerMissing, find_profiler, profile
from bench.report import describe_machine, to_markdown, token_to_markdown
from bench.rig import LoadFailed, Rig
from bench.token import TOKEN_CASES, Loop, create_token_keys, measure_token, what_is_missing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.cases import Case

DEFAULT = Plan(rounds=8, slice_s=1.0, warm_up_s=0.5, in_flight=8)
QUICK = Plan(rounds=5, slice_s=0.25, warm_up_s=0.15, in_flight=8)


def main() -> int:
    """Measure or profile, and print."""
    options = _parse()
    signal.signal(signal.SIGTERM, _interrupt)
    cases, token_cases = _select(CASES, options.only), _select(TOKEN_CASES, options.only)
    if not cases and not token_cases:
        names = ", ".join(case.name for case in (*CASES, *TOKEN_CASES))
        return _fail(f"no case matches {options.only!r}; there are: {names}")
    missing = what_is_missing() if token_cases else ""
    if missing and not cases:
        return _fail(missing)
    if missing:
        _say(f"bench: no rows for keys in a token: {missing}")
        token_cases = []
    try:
        if options.profile:
            find_profiler()
            if not options.only:
                cases, token_cases = cases[:1], []
        _run(cases, token_cases, options)
    except (StartFailed, LoadFailed, WrongAnswer, ProfilerMissing) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted")
    return 0


def _select(cases: Iterable[Case], pattern: str) -> list[Case]:
    return [case for case in cases if re.search(pattern, case.name, re.IGNORECASE)]


def _run(cases: list[Case], token_cases: list[Case], options: Any) -> None:
    document: dict[str, Any] = {
        "plan": {**vars(_plan(options)), "clients": options.clients, "connections": options.connections}
    }
    if cases:
        with Rig(options.scratch, options.clients, options.connections) as rig:
            rig.api.create_keys(KEYS)
            rig.api.create_secrets(SECRETS)
            document |= _profile(rig, cases, options) if options.profile else _measure(rig, cases, options)
    if token_cases:
        # A vault of its own: the worker's process would otherwise be in every row.
        with Rig(options.scratch, options.clients, options.connections, ["--hsm"]) as rig:
            create_token_keys(rig.api)
            act = _profile if options.profile else _measure_token
            document |= act(rig, token_cases, options)
    if options.json and not options.profile:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def _profile(rig: Rig, cases: list[Case], options: Any) -> dict[str, Any]:
    for case in cases:
        print(profile(rig, case, _plan(options), options.profile_seconds, native=options.native))
    return {}


def _measure(rig: Rig, cases: list[Case], options: Any) -> dict[str, Any]:
    machine = describe_machine(rig)
    floors = measure_floors(0.2 if options.quick else 1.0)
    rows = measure(rig, cases, _plan(options), _say)
    print(to_markdown(machine, rows, floors))
    return {"machine": machine, "floors_us": floors, "rows": [row.as_dict() for row in rows]}


def _measure_token(rig: Rig, cases: list[Case], options: Any) -> dict[str, Any]:
    loop = Loop(rig)
    machine = {**describe_machine(rig), **loop.module}
    rows = measure_token(rig, loop, cases, _plan(options), _say)
    print(token_to_markdown(machine, rows))
    return {"token_machine": machine, "token_rows": [row.as_dict() for row in rows]}


def _parse() -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure vaultd beside a bare grpc.aio echo, and beside a bare loop on a token.",
    )
    parser.add_argument("--quick", action="store_true", help="short rounds: about a minute instead of eight")
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression on the names of cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, plan and every figure there")
    parser.add_argument("--rounds", type=_count, metavar="N")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a slice")
    parser.add_argument("--in-flight", type=_count, metavar="N", help="calls in flight (batches of 100 and more: 2)")
    parser.add_argument("--clients", type=_count, default=1, metavar="N", help="load processes (1)")
    parser.add_argument(
        "--connections", type=_count, default=8, metavar="N", help="connections of each load process (8)"
    )
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where the vault is put for the time of the run")
    parser.add_argument("--profile", action="store_true", help="sample vaultd with py-spy; the first case, or --only's")
    parser.add_argument("--profile-seconds", type=float, default=10.0, metavar="S")
    parser.add_argument("--native", action="store_true", help="with --profile: C functions too (slower sampling)")
    return parser.parse_args()


def _plan(options: Any) -> Plan:
    base = QUICK if options.quick else DEFAULT
    return Plan(
        rounds=options.rounds or base.rounds,
        slice_s=options.seconds or base.slice_s,
        warm_up_s=base.warm_up_s,
        in_flight=options.in_flight or base.in_flight,
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _fail(text: str) -> int:
    _say(f"bench: {text}")
    return 1


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
