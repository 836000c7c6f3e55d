"""The reports: whole, self-contained, and drawn from the document alone."""

import json
import re
from xml.etree import ElementTree

import pytest

from bench.aims import judge
from bench.contenders import Summary
from bench.figures import Curve, Figure, Findings, Point
from bench.page import CPU_BARS, to_html
from bench.slices import Spread
from bench.svg import Bar, Line, bars, label, plot, ticks
from bench.tables import to_markdown

ROW = Summary("a <b> & c", 1, 3, 100, 1_234.5, 300.0, 300.0, p50_ms=1.5, p99_ms=3.0)
CURVES = {
    title: [Curve("one & only", tuple(Point(at, ROW) for at in (10, 100)))]
    for title in ("latency against load", "calls in flight", "size of a batch")
}


def parse(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)  # noqa: S314 - our own


@pytest.fixture
def document():
    figures = [Figure("Encrypt on grpc.aio / its echo", Spread.of([1.2, 1.3, 1.4]))]
    findings = Findings(figures, {CPU_BARS: [ROW]}, CURVES, ["a note"])
    machine = {
        name: "x"
        for name in ("date", "commit", "cpu", "cores", "kernel", "python", "grpcio", "protobuf", "cryptography")
    }
    missing = {"KES": "not given"}
    made = {
        "machine": {**machine, "load_average": [0.1, 0.2, 0.3]},
        "took_s": 60.0,
        "pace": {"caution": "a quick run"},
        "missing": missing,
        "failures": {"workers": "it said\nError: no such option"},
        "aims": [outcome.as_dict() for outcome in judge(figures, {}, missing)],
        "figures": [figure.as_dict() for figure in figures],
        "parts": {"encrypt": findings.as_dict()},
    }
    return json.loads(json.dumps(made))


def test_the_page_fetches_nothing_and_runs_nothing(document):
    page = to_html(document)
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|\bsrc=|\bhref=|\bon\w+=", page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}


def test_the_page_has_every_plot_and_what_it_shows_is_escaped(document):
    page = to_html(document)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 8
    for drawing in drawings:
        parse(drawing)
    assert "a <b> & c" not in page
    assert "a &lt;b&gt; &amp; c" in page


def test_both_reports_tell_verdicts_and_what_is_not_there(document):
    for text in (to_html(document), to_markdown(document)):
        assert "1.30 x" in text
        assert "Error: no such option" in text
        assert "not measured: not given" in text
        assert "python -m bench run encrypt" in text
        assert "a note" in text
        assert "a quick run" in text


def test_a_markdown_table_has_as_many_cells_in_each_line(document):
    lines = [line for line in to_markdown(document).splitlines() if line.startswith("|")]
    assert len(lines) > 20
    for line in lines:
        assert line.endswith(" |")


def test_a_plot_marks_each_point_and_survives_having_none():
    drawing = parse(plot("t", "x", "y", [Line("a", ((1, 2), (10, 20), (0, 5)))]))
    assert len(drawing.findall(".//{*}circle")) == 2  # zero has no place on a logarithmic axis
    assert "nothing was measured" in plot("t", "x", "y", [Line("a", ())])


def test_bars_are_as_long_as_their_values():
    drawing = parse(bars("t", "us", [Bar("a", 10), Bar("b", 5)]))
    first, second = (float(bar.get("width")) for bar in drawing.findall(".//{*}rect"))
    assert first == pytest.approx(2 * second)


def test_ticks_enclose_what_is_shown():
    assert ticks(3, 40) == [2, 5, 10, 20, 50]
    assert ticks(1, 10_000) == [1, 10, 100, 1_000, 10_000]
    assert ticks(7, 7)[0] <= 7 <= ticks(7, 7)[-1]
    assert [label(value) for value in (0.05, 20, 5_000, 2_000_000)] == ["0.05", "20", "5k", "2M"]
