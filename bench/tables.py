"""A run as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bench.machine import machine_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

AIM_HEADER: Final = ("aim", "limit", "got", "half of the pairs within", "verdict", "command")
ROW_HEADER: Final = (
    "",
    "items/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "server CPU us/call",
    "± %",
    "us/item",
    "busy %",
    "client CPU us/call",
    "peak MiB",
    "PSS MiB",
)
FIGURE_HEADER: Final = ("ratio", "median", "half of the pairs within", "pairs")


def to_markdown(document: Mapping[str, Any]) -> str:
    """The whole document."""
    blocks = [f"{machine_line(document['machine'])}; it took {document['took_s'] / 60:.1f} minutes."]
    blocks += [f"**{document['pace']['caution']}**"] if document["pace"]["caution"] else []
    blocks += [aims_to_markdown(document["aims"])] if document["aims"] else []
    blocks += [f"Not here: {name}: {last_line(why)}" for name, why in document["missing"].items()]
    blocks += [f"Not measured: {name}: {last_line(why)}" for name, why in document["failures"].items()]
    for part in document["parts"].values():
        for title, rows in part["rows"].items():
            blocks += [f"### {title}", table(ROW_HEADER, map(row_cells, rows))]
        for title, curves in part["curves"].items():
            blocks += [f"### {title[0].upper()}{title[1:]}", table((title, *ROW_HEADER[1:]), _curve_cells(curves))]
        blocks += part["notes"]
    if document["figures"]:
        blocks += ["### Ratios of neighbours in time", table(FIGURE_HEADER, map(figure_cells, document["figures"]))]
    return "\n\n".join(blocks) + "\n"


def aims_to_markdown(aims: Iterable[Mapping[str, Any]]) -> str:
    """Each line that must show, its limit, and what it was."""
    return table(AIM_HEADER, map(aim_cells, aims))


def aim_cells(aim: Mapping[str, Any]) -> list[str]:
    """As in AIM_HEADER."""
    if aim["got"] is None:
        return [
            aim["text"],
            f"{aim['limit']:g}",
            "-",
            "-",
            f"{aim['verdict']}: {last_line(aim['why'])}",
            aim["command"],
        ]
    sign, unit = ("<=" if aim["better"] == "lower" else ">="), f" {aim['unit']}"
    verdict = f"{aim['verdict']}, estimated" if aim["estimated"] else aim["verdict"]
    within = f"{_number(aim['low'])} to {_number(aim['high'])}"
    limit, got = f"{sign} {aim['limit']:g}{unit}", f"{_number(aim['got'])}{unit}"
    return [aim["text"], limit, got, within, verdict, aim["command"]]


def row_cells(row: Mapping[str, Any]) -> list[str]:
    """As in ROW_HEADER."""
    return [
        row["name"],
        f"{row['items_per_s']:,.0f}",
        *(_ms(row[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "p999_ms")),
        f"{row['cpu_us']:,.0f}" if row["cpu_us"] >= 10 else f"{row['cpu_us']:.1f}",
        f"{row['cpu_spread'] * 100:.0f}",
        f"{row['item_cpu_us']:,.1f}",
        f"{row['busy'] * 100:.0f}",
        f"{row['client_cpu_us']:,.0f}",
        f"{row['peak_mib']:.0f}",
        f"{row['pss_mib']:.0f}",
    ]


def figure_cells(figure: Mapping[str, Any]) -> list[str]:
    """As in FIGURE_HEADER."""
    within = f"{_number(figure['low'])} to {_number(figure['high'])}"
    name = f"{figure['key']} (estimated)" if figure["estimated"] else figure["key"]
    return [name, f"{_number(figure['median'])} {figure['unit']}", within, str(len(figure["values"]))]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are numbers where all of their cells look so."""
    body = [list(row) for row in rows]
    aligned = ["---:" if body and all(_is_number(row[at]) for row in body) else "---" for at in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, aligned, *body))


def last_line(text: str) -> str:
    """Of what a process said when it failed."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no reason is known"


def _curve_cells(curves: Iterable[Mapping[str, Any]]) -> Iterable[list[str]]:
    for curve in curves:
        for point in curve["points"]:
            yield [f"{curve['name']}, {point['at']:,.0f}", *row_cells(point)[1:]]


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(",", "").replace(".", "").isdigit()
