"""Turns: who runs when."""

from dataclasses import dataclass

from bench.contenders import Turns, summarize, take_turns
from bench.slices import Slice


@dataclass
class Noting:
    """Notes that it ran, and for how long."""

    name: str
    log: list

    def run(self, seconds: float) -> Slice:
        self.log.append((self.name, seconds))
        return Slice(1, seconds, len(self.log) / 1e6, 0.0, 0.0, (), items=2)


def test_contenders_take_turns_and_the_first_of_a_round_moves_on():
    log = []
    contenders = [Noting(name, log) for name in "ABC"]
    measured = take_turns(contenders, Turns(rounds=3, slice_s=2.0, warm_up_s=1.0))
    assert "".join(name for name, _ in log) == "ABC" + "ABC" + "BCA" + "CAB"
    assert [seconds for _, seconds in log] == [1.0] * 3 + [2.0] * 9
    assert {name: len(slices) for name, slices in measured.items()} == {"A": 3, "B": 3, "C": 3}


def test_warming_up_is_in_no_figure():
    log = []
    measured = take_turns([Noting("A", log)], Turns(rounds=2, slice_s=1.0))
    assert [round(each.cpu_us) for each in measured["A"]] == [2, 3]


def test_a_summary_has_medians_of_slices_and_percentiles_of_all_calls():
    slices = [
        Slice(200, 1.0, cpu_s, 0.0, peak, [milliseconds * 1_000] * 200, items=10)
        for cpu_s, peak, milliseconds in ((0.2, 5, 1), (0.4, 9, 1), (0.6, 7, 50))
    ]
    found = summarize("A", slices)
    assert (found.calls, found.items, found.slices) == (600, 10, 3)
    assert (found.cpu_us, found.item_cpu_us, found.peak_mib) == (2_000, 200, 9)
    assert (found.p50_ms, found.p99_ms, found.p999_ms) == (1, 50, None)
