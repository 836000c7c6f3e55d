"""A run from end to end, with slices too short to mean anything, and what it reads from others."""

import os

import pytest
import yaml
from click.testing import CliRunner

from bench.__main__ import main
from bench.aims import AIMS
from bench.clients import LoadFailed, Pressure
from bench.contenders import Turns
from bench.figures import Findings
from bench.measure import Plan
from bench.openssl import OpensslFailed, Speed, bytes_per_s, signatures_per_s
from bench.pace import Pace
from bench.page import to_html
from bench.parts import latency, workers
from bench.peers import PeerMissing, PeersSettings, read_peers
from bench.run import Run
from bench.slices import Slice
from bench.stand import Stand

SHORT = Turns(1, 0.05, 0.05)
BLINK = Pace(SHORT, SHORT, SHORT, SHORT, 0.05, Plan(1, 0.05, 0.05, 8), Plan(1, 0.05, 0.05, 8), 0.01)


@pytest.mark.slow
def test_a_run_measures_what_is_there_and_names_what_is_not(capsys):
    said = []
    with Stand(PeersSettings(), hosts=("grpc",)) as stand:
        run = Run(stand, BLINK, said.append)
        run.measure(["encrypt", "callers"])
        document = run.document()
    assert run.failures == {}
    figures = {figure["key"]: figure["median"] for figure in document["figures"]}
    assert figures["Encrypt on grpc.aio / its echo"] > 0
    assert document["missing"]["KES"].startswith("not given")
    aims = {aim["figure"]: aim["verdict"] for aim in document["aims"]}
    assert aims["Encrypt on grpc.aio / its echo"] in ("met", "missed")
    assert aims["Encrypt on Envoy / KES"] == "not measured"
    assert {aim["command"] for aim in document["aims"]} == {"python -m bench run encrypt"}
    (curve,) = document["parts"]["callers"]["curves"]["calls in flight"]
    assert [point["at"] for point in curve["points"]] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert "calls a second, closed loop" in to_html(document)


def slice_of(p50_ms: int, p99_ms: int) -> Slice:
    return Slice(1_000, 1.0, 1.0, 0.0, 0.0, [p50_ms * 1_000] * 900 + [p99_ms * 1_000] * 100)


@pytest.mark.parametrize("refuses", [True, False])
def test_saturation_is_the_highest_rate_that_is_kept_up_with(refuses):
    asked = []

    def load(pressure: Pressure, seconds: float) -> Slice:
        asked.append((pressure.rate, seconds))
        if pressure.rate > limit and refuses:
            raise LoadFailed("calls failed")
        return slice_of(1, 10 if pressure.rate <= limit else 51)

    limit = 850.0
    rate, found = latency.saturation(load, 1_000.0, 3.0)
    assert rate == pytest.approx(810)
    assert found.percentile_ms(99.0) == 10
    assert asked == [(1_000.0, 3.0), (0.0, 0.5), (pytest.approx(900), 3.0), (0.0, 0.5), (pytest.approx(810), 3.0)]
    limit = 100.0
    with pytest.raises(LoadFailed, match="no rate from 1,000 to 200"):
        latency.saturation(load, 1_000.0, 3.0)


def test_calls_that_are_all_slow_beside_others_do_not_excuse_their_own_p99():
    findings = Findings()
    latency.compare("grpc.aio", [slice_of(1, 3)], {latency.BESIDE: [slice_of(50, 100)]}, findings)
    figures = {
        figure.key.removeprefix("p99 / p50 at half of saturation on grpc.aio, "): figure for figure in findings.figures
    }
    assert figures[latency.ALONE].spread.median == 3
    assert figures[latency.BESIDE].spread.median == 100
    assert figures[f"{latency.BESIDE}, to their own p50"].spread.median == 2


def test_what_is_aimed_at_with_workers_is_measured_under_that_name():
    measured = {
        f"two workers / {other}, {what}, {load.counted} a second"
        for load in workers.LOADS
        for what in load.cases
        for other in ("one worker", "one worker on one core")
    }
    assert {aim.figure for aim in AIMS if aim.part == "workers"} <= measured


class Accounts:
    """A meter of three processes, with what each has used whenever it is asked."""

    def __init__(self, *used: tuple[float, float, float]) -> None:
        self._used = iter(used)

    def each_cpu_s(self):
        return dict(enumerate(next(self._used)))


class Fleet:
    name = "Sign, two workers"

    def __init__(self, meter: Accounts) -> None:
        self.meter = meter

    def run(self, seconds: float) -> Slice:
        return slice_of(1, 1)


def test_how_evenly_workers_shared_the_load_is_said_without_the_slice_that_warmed_them_up():
    weighed = workers.Weighed(Fleet(Accounts((0, 0, 0), (0, 1, 0), (0, 1, 0), (0, 4, 3), (1, 4, 3), (1, 4.5, 3.5))))
    for _ in range(3):
        weighed.run(1.0)
    assert weighed.shares == [1.0, 0.5, 0.5]
    assert workers.balance(weighed) == (
        "Sign, two workers: the busier one took 50% of their CPU, in half of the slices 50% to 50%."
    )


def test_a_program_that_is_no_peer_is_missing_and_says_what_it_said(tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "kes"
    program.write_text("#!/bin/sh\necho not today >&2\nexit 3\n")
    program.chmod(0o700)
    with Stand(PeersSettings(), tmp_path / "bin") as stand:
        with pytest.raises(PeerMissing, match="not today"):
            _ = stand.kes
        with pytest.raises(PeerMissing, match="bao is not there"):
            _ = stand.openbao


def test_openssl_speed_is_read_for_signatures_and_for_ciphers():
    assert signatures_per_s("+H:x\n+F2:2:2048:1740.594060:28654.019802\n") == pytest.approx(1740.59, abs=0.01)
    assert signatures_per_s("+F6:0:253:Ed25519:18584.000000:6603.000000") == 18584
    assert bytes_per_s("+H:64\n+F:25:AES-256-GCM:144118099.64\n") == pytest.approx(144118099.64)
    with pytest.raises(OpensslFailed):
        signatures_per_s("usage: openssl speed")


@pytest.mark.slow
def test_openssl_speed_runs_on_this_machine():
    measured = Speed("openssl", "ed25519", 2).run(1.0)
    assert measured.items_per_cpu_s > 100
    assert measured.server_cpu_s == 2


PEERS = {"kes": {"address": "127.0.0.1:1", "pid": 1, "ca": "ca", "cert": "c", "key": "k", "key_name": "aes"}}


def test_peers_are_read_from_a_file_and_what_is_unknown_in_it_is_refused(tmp_path):
    file = tmp_path / "peers.yaml"
    file.write_text(yaml.safe_dump(PEERS))
    assert read_peers(file).kes.key_name == "aes"
    assert read_peers(file).openbao is None
    file.write_text(yaml.safe_dump({"kes": {**PEERS["kes"], "token": "t"}}))
    with pytest.raises(PeerMissing, match="token"):
        read_peers(file)


def test_a_peer_that_does_not_run_or_does_not_answer_is_missing_and_asked_once(tmp_path):
    gone = PeersSettings.model_validate({"kes": {**PEERS["kes"], "pid": 2**22 + 1}})
    with Stand(gone) as stand:
        for _ in range(2):
            with pytest.raises(PeerMissing, match="there is no process"):
                _ = stand.kes
    silent = PeersSettings.model_validate({"kes": {**PEERS["kes"], "pid": os.getpid(), "ca": str(tmp_path / "no")}})
    with Stand(silent) as stand, pytest.raises(PeerMissing):
        _ = stand.kes


def test_options_without_a_command_are_those_of_the_table_of_cases():
    ended = CliRunner().invoke(main, ["--only", "no such case"])
    assert ended.exit_code == 1
    assert "no case matches" in ended.output
    assert "must-show" in CliRunner().invoke(main, ["--help"]).output
