"""Served calls are counted in lots; whoever reads finds each of them."""

from types import SimpleNamespace
from typing import Any

import pytest

from vaultd.interceptors.meter import IDLE_S, LOT, CallMeter
from vaultd.telemetry.cells import OTHER

PATH = "/vaultd.v1.CryptoService/Encrypt"
APP = "spiffe://example.org/app"


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> CallMeter:
    return CallMeter(clock, max_vaults=2)


def ended(
    meter: CallMeter, clock: Clock, reason: str = "", vault: str = "v", took_s: float = 0.0004, path: str = PATH
) -> None:
    rule = SimpleNamespace(audited=("name",))
    entry: Any = SimpleNamespace(
        route=SimpleNamespace(path=path, rule=rule, batch=False),
        principal=APP,
        fields={"name": f"vaults/{vault}/keys/k"},
        bytes_in=3,
        started=clock.now_s - took_s,
        outcome=("PERMISSION_DENIED" if reason else "OK", reason, 0 if reason else 5),
    )
    meter.ended(entry)


@pytest.mark.parametrize("calls", [1, LOT - 1, LOT, LOT + 1, 3 * LOT])
def test_every_served_call_is_counted_once_whenever_somebody_reads(meter, clock, calls):
    for _ in range(calls):
        ended(meter, clock)
    for _ in range(2):
        (((_, method, code), cell),) = meter.durations()
        assert (method, code, sum(cell.counts)) == (PATH[1:], "OK", calls)
        assert cell.counts[2] == calls
        assert cell.total == pytest.approx(calls * 0.0004)
        assert dict(meter.vaults())["v", "ok"] == calls
        assert meter.payload_bytes() == [(("in",), 3 * calls), (("out",), 5 * calls)]


def test_each_reader_finds_what_waits_to_be_counted(meter, clock):
    ended(meter, clock)
    assert meter.payload_bytes() == [(("in",), 3), (("out",), 5)]
    ended(meter, clock)
    assert dict(meter.vaults())["v", "ok"] == 2
    ended(meter, clock)
    assert dict(meter.principals())[OTHER, "ok"] == 3
    ended(meter, clock)
    assert dict(meter.principals())[APP, "ok"] == 1


def test_a_refusal_is_counted_under_the_vault_of_a_call_that_succeeded_before_it(meter, clock):
    ended(meter, clock)
    ended(meter, clock, "PERMISSION_DENIED")
    ended(meter, clock, "PERMISSION_DENIED", vault="unseen")
    assert dict(meter.vaults()) == {("v", "ok"): 1, ("v", "refused"): 1, (OTHER, "ok"): 0, (OTHER, "refused"): 1}
    assert dict(meter.refusals.read()) == {("PERMISSION_DENIED", "PERMISSION_DENIED"): 2}


def test_a_principal_was_last_seen_when_it_called_and_not_when_that_was_counted(meter, clock):
    ended(meter, clock)
    list(meter.principals())
    ended(meter, clock)
    clock.now_s += IDLE_S + 1
    assert (APP, "ok") not in dict(meter.principals())


def test_a_lot_of_long_ago_does_not_make_a_busy_principal_idle(meter, clock):
    ended(meter, clock)
    dict(meter.principals())  # it has a label
    ended(meter, clock, path="/second")  # counted after those of the other method, whatever comes there later
    clock.now_s += IDLE_S
    ended(meter, clock)
    clock.now_s += 1
    assert dict(meter.principals())[APP, "ok"] == 2
