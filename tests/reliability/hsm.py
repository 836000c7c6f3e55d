"""Keys in a token, under load and while the token fails: what callers got, and what the token holds in the end.

    python tests/reliability/hsm.py mixed --seconds 300 --seed 1
    python tests/reliability/hsm.py faults --faults 100 --seed 1
    python tests/reliability/hsm.py lag --keys 20 --seed 1

A server process, mTLS on 127.0.0.1, a SoftHSM token and a SQLite file in a directory that is gone afterwards; the callers are
in this process.  JSON lines tell how it goes, the last one sums up; exit code 1 when anything was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hsm_answers import LARGE, Tally, Vault
from hsm_callers import MIXED, PATIENT, USES
from hsm_rig import SLOT, Rig, furnish, make_rig, section_of, unbalanced
from processes import percentile

from softhsm import FaultyToken

TRY_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
FAULTS = ("close", "logout", "removed", "error", "crash", "hang", "killed", "away")
"""What tests/faultmodule.c does when it is told to, a SIGKILL of the worker, and a token that is pulled for a while."""
LONGEST_AWAY_S = 1.5
OPERATION_TIMEOUT_S = 1.0
"""For `faults`: a module that hangs is noticed after so long, and that counts as recovery."""
MOST_RECOVERY_S = 3.0
MOST_LOGINS = 2
MOST_LAG_S = 0.020
GIVE_UP_S = 30.0
PROGRESS_S = 10.0


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


# -- mixed --------------------------------------------------------------------------------------------------------------


async def mixed(arguments: argparse.Namespace, directory: Path, exits: ExitStack) -> int:
    """Everything at once, for minutes, on a token that works."""
    tally = Tally()
    vault = Vault((), random.Random(arguments.seed).randbytes(32))
    rig = make_rig(directory, section_of(directory / "token"), vault, tally)
    exits.callback(rig.server.kill)
    rig.server.start()
    began_s = time.monotonic()
    async with rig.connected(arguments.connections):
        await furnish(rig)
        await rig.see_worker()
        async with rig.load(arguments.callers, arguments.seed, MIXED) as tasks:
            await progress(rig, tasks, arguments.seconds)
        elapsed_s = time.monotonic() - began_s
        await rig.use_everything()
        await rig.see_worker()
        alive = rig.server.running
        balance = await rig.balance()
    events = rig.events()
    crashes = (not alive) + (len(rig.workers) - 1) + events.total()
    violations = tally.violations() + crashes + unbalanced(balance)
    say(
        campaign="mixed",
        seed=arguments.seed,
        callers=arguments.callers,
        seconds=round(elapsed_s, 1),
        calls=tally.calls.total(),
        operations=tally.items,
        by_call=dict(tally.calls),
        slowest_s={what: round(slowest_s, 2) for what, slowest_s in tally.slowest_s.items()},
        worker_processes=len(rig.workers),
        events=dict(events),
        refusals=dict(tally.refusals),
        wrong=dict(tally.wrong),
        unexpected=dict(tally.unexpected),
        examples=tally.examples,
        token=balance,
        violations=violations,
    )
    return violations


async def progress(rig: Rig, tasks: list[asyncio.Task[None]], seconds: float) -> None:
    """Tell how it goes, until the time is over or a caller failed."""
    began_s = told_s = time.monotonic()
    while (now_s := time.monotonic()) < began_s + seconds and not any(task.done() for task in tasks):
        await asyncio.sleep(min(1.0, began_s + seconds - now_s))
        await rig.see_worker()
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            say(
                elapsed_s=round(now_s - began_s),
                calls=rig.tally.calls.total(),
                operations=rig.tally.items,
                keys=len(rig.vault.keys),
                workers=len(rig.workers),
                refusals=rig.tally.refusals.total(),
                wrong=rig.tally.wrong.total(),
                unexpected=rig.tally.unexpected.total(),
            )


# -- faults -------------------------------------------------------------------------------------------------------------


class Health:
    """What the health component of the slot said, and when."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, bool]] = []

    async def follow(self, channel: grpc.aio.Channel) -> None:
        """Watch until cancelled; the server ends connections of a certain age."""
        while True:
            try:
                request = health_pb2.HealthCheckRequest(service=f"hsm:{SLOT}")
                async for answer in health_pb2_grpc.HealthStub(channel).Watch(request):
                    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
                    if not self.changes or self.changes[-1][1] is not serving:
                        self.changes.append((time.monotonic(), serving))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)

    def serving_again(self, since_s: float) -> float:
        """When it said SERVING after it had said NOT_SERVING since a moment; 0 when it did not yet."""
        away = False
        for at_s, serving in self.changes:
            away = away or (at_s >= since_s and not serving)
            if away and serving:
                return at_s
        return 0.0


class Injector:
    """Makes a token fail, and sees what becomes of it."""

    def __init__(self, rig: Rig, token: FaultyToken, health: Health, chooser: random.Random) -> None:
        self._rig = rig
        self._token = token
        self._health = health
        self._chooser = chooser
        self._answers: list[tuple[float, float]] = []
        rig.tally.on_token_answer = self._answered

    def _answered(self, began_s: float, ended_s: float) -> None:
        self._answers.append((began_s, ended_s))

    async def inject(self, number: int, fault: str) -> dict[str, Any]:
        """One fault, from its beginning until the token serves again."""
        tally, token = self._rig.tally, self._token
        logins, refusals = token.logins, tally.refusals.copy()
        begun_s = time.monotonic()
        ended_s = await self._make(fault)
        self._answers.clear()
        recovered_s = await self._recovered(begun_s, ended_s)
        refused = tally.refusals - refusals
        return {
            "fault": number,
            "kind": fault,
            "lasted_s": round(ended_s - begun_s, 3),
            "recovery_s": round(recovered_s - ended_s, 3) if recovered_s else None,
            "logins": token.logins - logins,
            "refused": dict(refused),
            "wrong": tally.wrong.total(),
            "unexpected": tally.unexpected.total(),
        }

    async def _make(self, fault: str) -> float:
        """Returns when the fault was over; for a module that hangs or failed, the moment when it did."""
        token = self._token
        if fault == "away":
            token.take_away()
            await asyncio.sleep(self._chooser.uniform(0.1, LONGEST_AWAY_S))
            token.bring_back()
        elif fault == "killed":
            os.kill(await self._seen_worker(), signal.SIGKILL)
        else:
            token.tell(fault)
            for _ in range(int(GIVE_UP_S * 1000)):
                if token.took(fault):
                    break
                await asyncio.sleep(0.001)
        return time.monotonic()

    async def _seen_worker(self) -> int:
        """The worker's process, once there is one: 0 would be ourselves."""
        while True:
            pid = await self._rig.see_worker()
            if pid:
                return pid
            await asyncio.sleep(0.01)

    async def _recovered(self, begun_s: float, ended_s: float) -> float:
        """When the first call that began after the fault was answered by a token that serves again; 0 when none was."""
        while time.monotonic() < ended_s + GIVE_UP_S:
            serving_s = max(self._health.serving_again(begun_s), ended_s)
            if serving_s > ended_s or self._health.serving_again(begun_s):
                good = [done_s for since_s, done_s in self._answers if since_s >= ended_s and done_s >= serving_s]
                if good:
                    return min(good)
            await asyncio.sleep(0.002)
        return 0.0


async def faults(arguments: argparse.Namespace, directory: Path, exits: ExitStack) -> int:
    """A token that fails again and again while callers go on."""
    chooser = random.Random(arguments.seed)
    token = FaultyToken(directory)
    tally, health = Tally(), Health()
    vault = Vault(TRY_AGAIN, chooser.randbytes(32))
    section = section_of(
        token.token,
        module=token.module,
        environment=token.environment,
        operation_timeout_s=OPERATION_TIMEOUT_S,
    )
    rig = make_rig(directory, section, vault, tally)
    exits.callback(rig.server.kill)
    rig.server.start()
    plan = [FAULTS[at % len(FAULTS)] for at in range(arguments.faults)]
    chooser.shuffle(plan)
    outcomes = []
    async with rig.connected(arguments.connections):
        await furnish(rig)
        watching = asyncio.create_task(health.follow(rig.clients[0].channel))
        injector = Injector(rig, token, health, chooser)
        async with rig.load(arguments.callers, arguments.seed, PATIENT) as tasks:
            for number, fault in enumerate(plan):
                await asyncio.sleep(chooser.uniform(0.2, 1.0))
                outcomes.append(await injector.inject(number, fault))
                say(**outcomes[-1])
                if any(task.done() for task in tasks):
                    break
        await rig.use_everything()
        watching.cancel()
        alive = rig.server.running
        balance = await rig.balance()
    return sum_up_faults(arguments, rig, outcomes, balance, alive=alive)


def sum_up_faults(
    arguments: argparse.Namespace, rig: Rig, outcomes: list[dict[str, Any]], balance: dict[str, Any], *, alive: bool
) -> int:
    tally, events = rig.tally, rig.events()
    recoveries = {
        kind: [one["recovery_s"] or GIVE_UP_S for one in outcomes if kind in {one["kind"], "all"}]
        for kind in ("all", *FAULTS)
    }
    slow = [one["fault"] for one in outcomes if (one["recovery_s"] or GIVE_UP_S) > MOST_RECOVERY_S]
    many_logins = [one["fault"] for one in outcomes if one["logins"] > MOST_LOGINS]
    strange = {name: count for name, count in events.items() if name not in {"hsm_worker_lost", "hsm_down"}}
    violations = tally.violations() + len(slow) + len(many_logins) + len(strange) + (not alive) + unbalanced(balance)
    say(
        campaign="faults",
        seed=arguments.seed,
        callers=arguments.callers,
        faults=len(outcomes),
        calls=tally.calls.total(),
        operations=tally.items,
        recovery_s={
            kind: {name: percentile(times, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
            for kind, times in recoveries.items()
            if times
        },
        slow=slow,
        most_logins=max(one["logins"] for one in outcomes),
        many_logins=many_logins,
        events=dict(events),
        refusals=dict(tally.refusals),
        wrong=dict(tally.wrong),
        unexpected=dict(tally.unexpected),
        examples=tally.examples,
        token=balance,
        violations=violations,
    )
    return violations + (len(outcomes) < arguments.faults)


# -- lag ----------------------------------------------------------------------------------------------------------------


async def lag(arguments: argparse.Namespace, directory: Path, exits: ExitStack) -> int:
    """How late the server's event loop is while the token makes large keys and callers go on."""
    tally = Tally()
    vault = Vault((), random.Random(arguments.seed).randbytes(32))
    command = (str(Path(__file__).with_name("lag_server.py")),)
    rig = make_rig(directory, section_of(directory / "token"), vault, tally, command)
    exits.callback(rig.server.kill)
    rig.server.start()
    phases: dict[str, tuple[float, float, int]] = {}
    took: list[float] = []

    async def one_key(at: int) -> None:
        began_s = time.monotonic()
        await rig.caller(at, "large", "maker").make(f"large-{at}", LARGE, own=True)
        took.append(time.monotonic() - began_s)
        say(key=at, made_in_s=round(took[-1], 2))

    async def phase(name: str, work: Any) -> None:
        began_s, calls = time.monotonic(), tally.calls.total()
        await work
        phases[name] = (began_s, time.monotonic(), tally.calls.total() - calls)

    async def make_keys() -> None:
        async with asyncio.timeout(arguments.seconds):
            for at in range(0, arguments.keys, 2):
                await asyncio.gather(one_key(at), one_key(at + 1))

    async with rig.connected(arguments.connections):
        await furnish(rig)
        await phase("idle", asyncio.sleep(5))
        async with rig.load(arguments.callers, arguments.seed, USES, arguments.callers / arguments.rate):
            await asyncio.sleep(1)  # sessions find the keys
            await phase("load", asyncio.sleep(15))
            await phase("load and key generation", make_keys())
    samples = json.loads(await asyncio.to_thread(rig.server.stop) or "[]")
    figures = {name: lag_figures(samples, *bounds) for name, bounds in phases.items()}
    late = figures["load and key generation"]["p99_ms"] > MOST_LAG_S * 1000
    violations = tally.violations() + rig.events().total() + late + (len(took) < arguments.keys)
    say(
        campaign="lag",
        seed=arguments.seed,
        callers=arguments.callers,
        keys=len(took),
        key_s={"p50": round(percentile(took, 0.5), 2), "max": round(max(took), 2)},
        lag=figures,
        events=dict(rig.events()),
        wrong=dict(tally.wrong),
        unexpected=dict(tally.unexpected),
        examples=tally.examples,
        violations=violations,
    )
    return violations


def lag_figures(samples: list[list[float]], began_s: float, ended_s: float, calls: int) -> dict[str, float]:
    late_ms = [1000 * late_s for at_s, late_s in samples if began_s <= at_s <= ended_s]
    return {
        "samples": len(late_ms),
        "calls_per_s": round(calls / (ended_s - began_s)),
        **{f"p{share}_ms": round(percentile(late_ms, share / 100), 2) for share in (50, 90, 99)},
        "max_ms": round(max(late_ms), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    campaigns = parser.add_subparsers(required=True)
    for campaign, callers in ((mixed, 64), (faults, 32), (lag, 16)):
        one = campaigns.add_parser(campaign.__name__, help=campaign.__doc__)
        one.set_defaults(campaign=campaign)
        one.add_argument("--seed", type=int, default=1)
        one.add_argument("--callers", type=int, default=callers, help="at the same time")
        one.add_argument("--connections", type=int, default=4, help="mTLS connections that the callers share")
        if campaign is faults:
            one.add_argument("--faults", type=int, default=100)
        else:
            seconds = 300.0 if campaign is mixed else 180.0
            one.add_argument("--seconds", type=float, default=seconds, help="how long, or how long at most")
        if campaign is lag:
            one.add_argument("--keys", type=int, default=20, help="RSA-4096 keys to make")
            one.add_argument(
                "--rate", type=float, default=200.0, help="rounds of calls a second, if the server keeps up"
            )
    arguments = parser.parse_args()
    say(campaign=arguments.campaign.__name__, seed=arguments.seed, callers=arguments.callers)
    with ExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="vaultd-hsm-")))
        return 1 if asyncio.run(arguments.campaign(arguments, directory, exits)) else 0


if __name__ == "__main__":
    sys.exit(main())
