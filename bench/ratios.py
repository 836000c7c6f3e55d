"""`python -m bench check`: today's ratios beside the stored ones, with repeats before it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import baseline
from bench.baseline import TOLERANCE, Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.figures import Figure
    from bench.run import Run


class UnknownRatios(Exception):
    """There is nothing to compare with."""


def store_ratios(run: Run, parts: Sequence[str], file: Path) -> None:
    """Measure, and make it the baseline; ratios that cannot be measured here stay as they were."""
    run.measure(parts)
    keep = baseline.read(file) if file.exists() else {}
    baseline.write(run.figures(), run.machine, keep, file)


def check_ratios(run: Run, parts: Sequence[str], file: Path, repeats: int, say: Callable[[str], None]) -> bool:
    """Whether none is worse, and every part could be measured.  What looks worse is measured again before it counts."""
    if not file.exists():
        raise UnknownRatios(f"{file} is not there: python -m bench check --update")
    stored = baseline.read(file)
    attempts: list[list[Figure]] = []
    for attempt in range(repeats + 1):
        run.measure(parts)
        attempts.append([figure for part in parts for figure in _figures(run, part)])
        worse = [each for each in compare(stored, attempts) if each.failed]
        if not worse or attempt == repeats:
            break
        keys = {each.key for each in worse}
        parts = [part for part in parts if keys & {figure.key for figure in _figures(run, part)}]
        say(f"again, to be sure: {', '.join(sorted(keys))}")
    for part, why in run.failures.items():
        say(f"FAILED {part} could not be measured: {why}")
    return _tell(compare(stored, attempts), stored, say) and not run.failures


def _figures(run: Run, part: str) -> list[Figure]:
    return run.findings[part].figures if part in run.findings else []


def _tell(compared: list[Comparison], stored: dict[str, baseline.Stored], say: Callable[[str], None]) -> bool:
    for each in compared:
        say(str(each))
    for key in sorted(set(stored) - {each.key for each in compared}):
        say(f"?      {key}: not measured here")
    failed = [each for each in compared if each.failed]
    if not compared:
        raise UnknownRatios("none of the stored ratios could be measured")
    say(f"{len(failed)} of {len(compared)} ratios are more than {TOLERANCE:.0%} worse than stored")
    return not failed
