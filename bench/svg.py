"""Line plots as SVG, in text that a browser shows without any script."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH: Final = 640
HEIGHT: Final = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 16, 74
COLOURS: Final = ("#1b6ca8", "#c8553d", "#3c8d53", "#8a5aa8", "#b8860b", "#4d4d4d")


@dataclass(frozen=True)
class Line:
    """A series of points, left to right."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Bar:
    """One bar."""

    name: str
    value: float


def plot(title: str, x_title: str, y_title: str, lines: Sequence[Line]) -> str:
    """Both axes are logarithmic.  Points that are not above zero cannot be shown and are left out."""
    shown = [Line(line.name, tuple(at for at in line.points if at[0] > 0 and at[1] > 0)) for line in lines]
    if not any(line.points for line in shown):
        return _frame(title, [_text(WIDTH / 2, HEIGHT / 2, "nothing was measured", "middle")])
    xs, ys = ([point[axis] for line in shown for point in line.points] for axis in (0, 1))
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    x_at = _scale(x_ticks[0], x_ticks[-1], _LEFT, WIDTH - _RIGHT)
    y_at = _scale(y_ticks[0], y_ticks[-1], HEIGHT - _BOTTOM, _TOP)
    parts = [_rule(x_at(tick), _TOP, x_at(tick), HEIGHT - _BOTTOM) for tick in x_ticks]
    parts += [_text(x_at(tick), HEIGHT - _BOTTOM + 16, label(tick), "middle") for tick in x_ticks]
    parts += [_rule(_LEFT, y_at(tick), WIDTH - _RIGHT, y_at(tick)) for tick in y_ticks]
    parts += [_text(_LEFT - 6, y_at(tick) + 4, label(tick), "end") for tick in y_ticks]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - _BOTTOM + 34, x_title, "middle"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})">{escape(y_title)}</text>'
    )
    for number, line in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" fill="{colour}">'
            f"<title>{escape(line.name)}: {label(x)}, {y:.4g}</title></circle>"
            for x, y in line.points
        ]
    return _frame(title, [*parts, *_legend([line.name for line in shown])])


def bars(title: str, unit: str, values: Sequence[Bar]) -> str:
    """Horizontal bars with their values, on a linear axis from zero."""
    height = 26 * len(values) + 16
    most = max((bar.value for bar in values), default=0.0) or 1.0
    left, room = 270, WIDTH - 270 - 90
    parts = []
    for number, bar in enumerate(values):
        top, length = 8 + 26 * number, room * bar.value / most
        parts.append(_text(left - 8, top + 14, bar.name, "end"))
        parts.append(f'<rect x="{left}" y="{top}" width="{length:.1f}" height="18" fill="{COLOURS[0]}"/>')
        parts.append(_text(left + length + 6, top + 14, f"{bar.value:,.3g} {unit}", "start"))
    return _frame(title, parts, height)


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten, or the powers alone where they are many; the ends lie outside low and high."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 3 else (1,)
    every = [step * 10.0**power for power in powers for step in steps]
    first = max((at for at, tick in enumerate(every) if tick <= low), default=0)
    last = min((at for at, tick in enumerate(every) if tick >= high), default=len(every) - 1)
    return every[first : max(last, first + 1) + 1]


def label(value: float) -> str:
    """Short, as on an axis."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}" if value / size < 100 else f"{value / size:.0f}{suffix}"
    return f"{value:g}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = math.log(high / low)
    return lambda value: start + (end - start) * math.log(value / low) / span


def _legend(names: Sequence[str]) -> list[str]:
    parts: list[str] = []
    x, y = float(_LEFT), HEIGHT - 22
    for number, name in enumerate(names):
        width = 44 + 6.8 * len(name)
        if x + width > WIDTH and x > _LEFT:
            x, y = _LEFT, y + 16
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{x:.0f}" y="{y - 9}" width="14" height="10" fill="{colour}"/>')
        parts.append(_text(x + 19, y, name, "start"))
        x += width
    return parts


def _frame(title: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12" fill="currentColor">'
        + "".join(parts)
        + "</svg>"
    )


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" stroke-opacity="0.15"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
