"""Latency at half of what the server can do: open loops, alone and while others are at work."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from bench.background import MOST, batches_at_work, keys_at_work
from bench.clients import LoadFailed, Pressure
from bench.contenders import summarize
from bench.figures import Figure, Findings
from bench.parts.batches import batch
from bench.parts.calls import ENCRYPT, ON
from bench.slices import Slice, Spread
from bench.stand import UNAVAILABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.pace import Pace
    from bench.rig import Rig
    from bench.stand import Stand

SATURATING: Final = Pressure(64)
SHARE: Final = 0.5
STEP: Final = 0.9
LEAST: Final = 0.2
KEEPS_UP_MS: Final = 50.0
"""With a p99 above it, calls pile up."""
ALONE: Final = "alone"
BESIDE_BATCHES: Final = "beside batches of 10,000"
BESIDE_KEYS: Final = "beside RSA-4096 keys"
BESIDE: Final = "beside batches of 10,000 and RSA-4096 keys"


def measure_latency(stand: Stand, pace: Pace) -> Findings:
    """Unary Encrypt on each host."""
    findings = Findings()
    for host in ON:
        try:
            rig = stand.host(host)
        except UNAVAILABLE:
            continue
        _measure(stand, rig, ON[host], pace, findings)
    return findings


def _measure(stand: Stand, rig: Rig, host: str, pace: Pace, findings: Findings) -> None:
    large = batch("aes", MOST)
    request = rig.api.requests([large])[large.name]
    other = stand.loadgen(f"others on {host}")
    alone: list[Slice] = []
    beside: dict[str, list[Slice]] = {BESIDE_BATCHES: [], BESIDE_KEYS: [], BESIDE: []}
    refused: dict[str, str] = {}
    rig.load(rig.vaultd, ENCRYPT, SATURATING, pace.latency.warm_up_s)
    most = rig.load(rig.vaultd, ENCRYPT, SATURATING, max(0.5, pace.latency.slice_s / 3)).items_per_s
    rate, fastest = saturation(partial(rig.load, rig.vaultd, ENCRYPT), most, pace.latency.slice_s)
    half = Pressure(rate=rate * SHARE)
    for _ in range(pace.latency.rounds):
        alone.append(rig.load(rig.vaultd, ENCRYPT, half, pace.latency.slice_s))
        for name, slices in beside.items():
            if name in refused:
                continue
            try:
                with ExitStack() as others:
                    if name != BESIDE_KEYS:
                        others.enter_context(batches_at_work(rig, other, request, pace.latency.slice_s))
                    if name != BESIDE_BATCHES:
                        others.enter_context(keys_at_work(rig))
                    slices.append(rig.load(rig.vaultd, ENCRYPT, half, pace.latency.slice_s))
            except LoadFailed as error:
                refused[name] = str(error).splitlines()[0]
    for name, why in refused.items():
        # A server that refuses calls at half of what it can do has no latency to speak of: nor has the line a figure.
        beside[name].clear()
        findings.absent[_key(host, name)] = why
    for name, slices in {"as fast as it keeps up": [fastest], ALONE: alone, **beside}.items():
        if slices:
            rows = findings.rows.setdefault("Open loop at half of saturation, unary Encrypt", [])
            rows.append(summarize(f"{host}, {name}", slices))
    findings.notes.append(
        f"{host} keeps up with {rate:,.0f} calls a second that begin at fixed times, each by itself; 64 callers who wait get "
        f"{most:,.0f}, for they send together what was answered together."
    )
    compare(host, alone, beside, findings)


def saturation(load: Callable[[Pressure, float], Slice], most: float, seconds: float) -> tuple[float, Slice]:
    """The highest rate of calls that begin at fixed times which the server keeps up with, and a slice of it.

    `most`, what callers get who wait, is tried first, then each time a tenth less.  Raises LoadFailed where it keeps up with no
    rate down to a fifth of that.
    """
    rate = most
    while rate >= most * LEAST:
        with suppress(LoadFailed):
            found = load(Pressure(rate=rate), seconds)
            if found.percentile_ms(99.0) <= KEEPS_UP_MS:
                return rate, found
        load(Pressure(1), seconds / 6)  # until what was queued is gone
        rate *= STEP
    raise LoadFailed(f"it keeps up with no rate from {most:,.0f} to {most * LEAST:,.0f} calls a second")


def compare(host: str, alone: Sequence[Slice], beside: Mapping[str, Sequence[Slice]], findings: Findings) -> None:
    """What became of the p99, to the undisturbed p50."""
    ratios = {ALONE: [quiet.percentile_ms(99.0) / quiet.percentile_ms(50.0) for quiet in alone]}
    for name, slices in beside.items():
        # Against the undisturbed p50: were every call slow, their own p50 would excuse their p99.
        ratios[name] = [
            busy.percentile_ms(99.0) / quiet.percentile_ms(50.0) for quiet, busy in zip(alone, slices, strict=False)
        ]
        ratios[f"{name}, to their own p50"] = [busy.percentile_ms(99.0) / busy.percentile_ms(50.0) for busy in slices]
    findings.figures += [Figure(_key(host, name), Spread.of(values)) for name, values in ratios.items() if values]
    if alone:
        lateness = max(each.latest_ms for each in (*alone, *(busy for slices in beside.values() for busy in slices)))
        findings.notes.append(
            f"{host}: the latest call began {lateness:.1f} ms after its time, which is in its latency."
        )


def _key(host: str, name: str) -> str:
    return f"p99 / p50 at half of saturation on {host}, {name}"
