"""A run as one HTML file: tables, and plots in it.  Nothing is fetched and no script runs."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from bench.machine import machine_line
from bench.svg import Bar, Line, bars, plot
from bench.tables import AIM_HEADER, FIGURE_HEADER, ROW_HEADER, aim_cells, figure_cells, last_line, row_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: 13px }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
.met { color: #2b7a3d } .missed { color: #c0392b } .unknown { color: #8a8a8a }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; width: min(38rem, 100%) } figcaption { font-weight: 600 }
.scroll { overflow-x: auto } code { font-size: 12px }
"""
_PLOTS: Final = {
    "latency against load": (
        ("p99 latency against load, open loop", "calls a second, offered", "p99, ms", "p99_ms"),
        ("median latency against load, open loop", "calls a second, offered", "p50, ms", "p50_ms"),
        ("server CPU of a call against load", "calls a second, offered", "us", "cpu_us"),
    ),
    "calls in flight": (
        ("calls a second, closed loop", "calls in flight", "calls a second", "items_per_s"),
        ("p99 latency, closed loop", "calls in flight", "p99, ms", "p99_ms"),
    ),
    "size of a batch": (
        ("server CPU of an item", "items in a batch", "us", "item_cpu_us"),
        ("items a second", "items in a batch", "items a second", "items_per_s"),
    ),
}
"""By the title of the curves: what is drawn of them."""
CPU_BARS: Final = "Encrypt, 64 bytes, AES-256-GCM; 8 in flight"


def to_html(document: Mapping[str, Any]) -> str:
    """The whole document."""
    body = [
        "<h1>vaultd: a run of the benchmarks</h1>",
        f"<p>{escape(machine_line(document['machine']))}. It took {document['took_s'] / 60:.1f} minutes. "
        f"<strong>{escape(document['pace']['caution'])}</strong></p>",
        *(["<h2>What was aimed at</h2>", _aims(document["aims"])] if document["aims"] else []),
        *_absent(document),
        *_plots(document),
        "<h2>Figures</h2>",
        "<p>CPU is what the kernel accounts to all processes of the server. Rates and latencies include the client, which "
        "shares the cores. Everything is on: mTLS, policy, quotas, audit.</p>",
    ]
    for part in document["parts"].values():
        for title, rows in part["rows"].items():
            body += [f"<h3>{escape(title)}</h3>", _table(ROW_HEADER, map(row_cells, rows))]
        body += [f"<p>{escape(note)}</p>" for note in part["notes"]]
    body += ["<h3>Ratios of neighbours in time</h3>", _table(FIGURE_HEADER, map(figure_cells, document["figures"]))]
    body += [
        "<h2>The machine</h2>",
        _table(("", ""), [[name, str(value)] for name, value in document["machine"].items()]),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>vaultd: benchmarks</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _aims(aims: Sequence[Mapping[str, Any]]) -> str:
    classes = {"met": "met", "missed": "missed", "not measured": "unknown"}
    rows = []
    for aim in aims:
        cells = [f"<td>{escape(cell)}</td>" for cell in aim_cells(aim)]
        cells[4] = cells[4].replace("<td>", f'<td class="{classes[aim["verdict"]]}">')
        cells[5] = f"<td><code>{escape(aim['command'])}</code></td>"
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _wrap(AIM_HEADER, rows)


def _absent(document: Mapping[str, Any]) -> list[str]:
    said = {**document["missing"], **document["failures"]}
    if not said:
        return []
    items = "".join(f"<li>{escape(name)}: {escape(last_line(why))}</li>" for name, why in said.items())
    return [f"<p>Not in this run:</p><ul>{items}</ul>"]


def _plots(document: Mapping[str, Any]) -> list[str]:
    figures = []
    for part in document["parts"].values():
        for title, curves in part["curves"].items():
            for caption, x_title, y_title, what in _PLOTS[title]:
                lines = [_line(curve, what) for curve in curves]
                figures.append(_figure(caption, plot(caption, x_title, y_title, lines)))
        if rows := part["rows"].get(CPU_BARS):
            values = [Bar(row["name"], row["item_cpu_us"]) for row in rows]
            figures.append(_figure("server CPU of one encryption", bars("server CPU of one encryption", "us", values)))
    return ["<h2>Plots</h2>", *figures] if figures else []


def _line(curve: Mapping[str, Any], what: str) -> Line:
    points = ((point["at"], point[what]) for point in curve["points"] if point[what] is not None)
    return Line(curve["name"], tuple(points))


def _figure(caption: str, drawing: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawing}</figure>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return _wrap(header, ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows])


def _wrap(header: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in header)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
