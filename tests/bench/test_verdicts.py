"""Aims, stored ratios and estimates: what counts as met, and what as worse."""

import pytest

from bench import baseline
from bench.aims import AIMS, judge
from bench.baseline import Stored, compare
from bench.figures import Figure
from bench.ratios import UnknownRatios, check_ratios
from bench.references import estimate
from bench.run import CHECKED, PARTS
from bench.slices import Spread


def figure(key: str, *values: float, better="lower", **more) -> Figure:
    return Figure(key, Spread.of(values), better, **more)


def outcome_of(aim_figure: str, *figures: Figure, absent=None, missing=None):
    return next(each for each in judge(figures, absent or {}, missing or {}) if each.aim.figure == aim_figure)


ECHO = "Encrypt on grpc.aio / its echo"
FASTER = "Encrypt on Envoy / on grpc.aio, calls a second"


def test_an_aim_is_met_at_its_limit_and_missed_beyond():
    assert outcome_of(ECHO, figure(ECHO, 1.35)).verdict == "met"
    assert outcome_of(ECHO, figure(ECHO, 1.36)).verdict == "missed"


def test_what_is_better_when_higher_is_missed_below_its_limit():
    assert outcome_of(FASTER, figure(FASTER, 2.2, better="higher")).verdict == "met"
    assert outcome_of(FASTER, figure(FASTER, 2.1, better="higher")).verdict == "missed"


def test_an_aim_without_a_figure_is_not_met_and_says_what_is_missing():
    found = outcome_of(FASTER, missing={"KES": "no KES", "vaultd --host envoy": "no envoy"})
    assert (found.verdict, found.why) == ("not measured", "no envoy")
    assert outcome_of(FASTER, absent={"encrypt": "calls failed"}).why == "calls failed"


def test_an_aim_whose_calls_were_refused_is_missed():
    found = outcome_of(FASTER, absent={FASTER: "refused", "encrypt": "no"})
    assert (found.verdict, found.why) == ("missed", "refused")


def test_every_aim_names_a_part_that_there_is_and_figures_are_named_once():
    assert {aim.part for aim in AIMS} <= set(PARTS)
    assert set(CHECKED) <= set(PARTS)
    assert len({aim.figure for aim in AIMS}) == len(AIMS)


@pytest.mark.parametrize(
    ("better", "now", "failed"),
    [
        ("lower", 1.14, False),
        ("lower", 1.16, True),
        ("lower", 0.5, False),
        ("higher", 0.88, False),
        ("higher", 0.86, True),
    ],
)
def test_a_ratio_fails_when_it_is_more_than_15_percent_worse(better, now, failed):
    (found,) = compare({"k": Stored(1.0, better)}, [[figure("k", now, better=better)]])
    assert found.failed is failed


def test_of_several_attempts_the_median_counts():
    stored = {"k": Stored(1.0, "lower")}
    assert not compare(stored, [[figure("k", 1.5)], [figure("k", 1.0)], [figure("k", 1.1)]])[0].failed
    assert compare(stored, [[figure("k", 1.5)], [figure("k", 1.0)], [figure("k", 1.2)]])[0].failed


class Scripted:
    """A run whose parts come out as they are told."""

    machine = dict.fromkeys(("date", "commit", "cpu", "cores", "grpcio", "python"), "-")

    def __init__(self, *attempts: float) -> None:
        self.attempts = list(attempts)
        self.measured: list[tuple[str, ...]] = []
        self.findings = {}
        self.failures = {}

    def measure(self, parts) -> None:
        from bench.figures import Findings

        self.measured.append(tuple(parts))
        value = self.attempts.pop(0)
        for part in parts:
            self.findings[part] = Findings([figure("shaky", value), figure("sound", 1.0)] if part == "batches" else [])

    def figures(self):
        return [each for findings in self.findings.values() for each in findings.figures]


@pytest.fixture
def stored(tmp_path):
    file = tmp_path / "baseline.json"
    baseline.write([figure("shaky", 1.0), figure("sound", 1.0)], Scripted.machine, {}, file)
    return file


def test_what_looks_worse_is_measured_again_and_alone_before_it_fails(stored):
    said = []
    run = Scripted(1.3, 1.0)
    assert check_ratios(run, CHECKED, stored, 2, said.append)  # the median of 1.3 and 1.0 is not 15 % worse
    assert run.measured == [CHECKED, ("batches",)]
    assert said[0] == "again, to be sure: shaky"
    run = Scripted(1.3, 1.3, 1.3)
    assert not check_ratios(run, CHECKED, stored, 2, said.append)
    assert "WORSE  shaky: 1 -> 1.3, +30%, median of 3" in said
    assert said[-1] == "1 of 2 ratios are more than 15% worse than stored"


def test_a_part_that_fails_fails_the_check(stored):
    said = []
    run = Scripted(1.0)
    run.failures["sdk"] = "calls failed"
    assert not check_ratios(run, CHECKED, stored, 2, said.append)
    assert "FAILED sdk could not be measured: calls failed" in said


def test_a_check_without_any_stored_ratio_is_no_success(tmp_path, stored):
    with pytest.raises(UnknownRatios):
        check_ratios(Scripted(1.0), CHECKED, tmp_path / "none.json", 0, print)
    baseline.write([figure("of another host", 1.0)], Scripted.machine, {}, tmp_path / "other.json")
    with pytest.raises(UnknownRatios):
        check_ratios(Scripted(1.0), CHECKED, tmp_path / "other.json", 0, print)


def test_ratios_are_stored_and_no_times_no_estimates_and_no_peers(tmp_path):
    figures = [
        figure("a / b", 1.23456),
        figure("an item", 7.0, unit="us"),
        figure("a / KES", 2.0),
        figure("a / c", 1.0, estimated=True),
        figure("a / d", 1.0, kept=False),
    ]
    file = tmp_path / "baseline.json"
    baseline.write(figures, Scripted.machine, {"kept": Stored(3.0, "higher"), "a / b": Stored(9.0, "lower")}, file)
    assert baseline.read(file) == {"a / b": Stored(1.235, "lower"), "kept": Stored(3.0, "higher")}


def test_a_missing_peer_is_estimated_from_its_stored_figure_scaled_by_the_echo():
    rows = {"echo on grpc.aio": 400.0, "Encrypt on grpc.aio": 855.0}
    (found,) = estimate([], rows, "1.76.0", None)
    assert found.key == "Encrypt on grpc.aio / OpenBao"
    assert found.estimated
    assert found.spread.median == pytest.approx(0.5)  # the echo costs twice what it did, so the peer does, too
    assert estimate([figure(found.key, 1.0)], rows, "1.76.0", None) == []  # measured: nothing to estimate
