"""One page of metrics from those of all workers.

Each sample gets the label `worker`, and sums are left to who asks: a counter of a worker that was replaced begins at 0 again, which
`rate()` understands of a series of its own and not of a sum.  What is a number of the store and not of a process is given once, as
the first worker says it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LABEL: Final = "worker"
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?(\})?")


def merge(pages: Mapping[int, str], once: Collection[str]) -> str:
    """Join pages in the text format of Prometheus or OpenMetrics.  `once`: families that are the same for all workers."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    end = ""
    for at, (worker, page) in enumerate(sorted(pages.items())):
        name = ""
        for line in page.splitlines():
            if line == "# EOF":
                end = "# EOF\n"
            elif line.startswith("#"):
                name = line.split(" ", 3)[2]
                described, _ = families.setdefault(name, ([], []))
                if line not in described:
                    described.append(line)
            elif line and name not in once:
                families.setdefault(name, ([], []))[1].append(_labelled(line, worker))
            elif line and at == 0:
                families[name][1].append(line)
    lines = [line for described, samples in families.values() for line in (*described, *samples)]
    return "".join(f"{line}\n" for line in lines) + end


def _labelled(line: str, worker: int) -> str:
    match = _SAMPLE.match(line)
    if match is None:
        return line
    name, opened, closed = match.groups()
    rest = line[match.end() :]
    label = f'{LABEL}="{worker}"'
    if opened is None:
        return f"{name}{{{label}}}{rest}"
    return f"{name}{{{label}}}{rest}" if closed else f"{name}{{{label},{rest}"
