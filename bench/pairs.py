"""One state of the code, or of what it runs on, beside another: `python -m bench.pairs --tree DIR`, or `--python FILE`.

The first server is this checkout with this interpreter.  The second one is that of another checkout (`git worktree add DIR
COMMIT`), or has another interpreter, which may have another grpcio.  Both are loaded in turns, and so are their bare echoes; the
order changes with each round, and a ratio is the median of neighbours.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cases import CASES, KEYS, SECRETS
from bench.clients import Pressure, Request
from bench.processes import ROOT
from bench.rig import Rig
from bench.slices import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.rig import Target

ECHO = Request("/bench.Echo/Echo", bytes(range(64)))


class Other(Rig):
    """A vault of a checkout, run by an interpreter."""

    def __init__(self, tree: Path, python: Path) -> None:
        super().__init__()
        self._program = ("env", f"PYTHONPATH={tree}:{tree / 'clients/python'}", str(python), "-m")

    def _target(self, name: str, arguments: list[str], program: Sequence[str] = ()) -> Target:
        del program
        return super()._target(name, arguments, self._program)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.pairs", description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, metavar="DIR", help="checkout of the second server")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), metavar="FILE", help="what runs it")
    parser.add_argument("--only", default="Encrypt AES-256-GCM 64", metavar="PATTERN", help="on the names of cases")
    parser.add_argument("--rounds", type=int, default=10, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="length of a slice")
    options = parser.parse_args()
    cases = [case for case in CASES if re.search(options.only, case.name)]
    with (
        Other(ROOT, Path(sys.executable)) as first,
        Other(options.tree.absolute(), options.python.absolute()) as second,
    ):
        rigs = (first, second)
        for rig in rigs:
            rig.api.create_keys(KEYS)
            rig.api.create_secrets(SECRETS)
        requests = [rig.api.requests(cases) for rig in rigs]

        def load(at: int, name: str, in_flight: int) -> float:
            rig = rigs[at]
            target, request = (rig.vaultd, requests[at][name]) if name else (rig.echo, ECHO)
            return rig.load(target, request, Pressure(in_flight), options.seconds).item_cpu_us

        print("| case | first, us | second, us | second / first | half of the pairs within |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for name, in_flight in [("", 8), *((case.name, case.in_flight or 8) for case in cases)]:
            load(0, name, in_flight), load(1, name, in_flight)
            pairs = []
            for number in range(options.rounds):
                order = (0, 1) if number % 2 else (1, 0)
                cost = {at: load(at, name, in_flight) for at in order}
                pairs.append((cost[0], cost[1]))
            ratio = Spread.of(b / a for a, b in pairs)
            costs = [Spread.of(column).median for column in zip(*pairs, strict=True)]
            print(
                f"| {name or 'bare echo'} | {costs[0]:.1f} | {costs[1]:.1f} | {ratio.median:.2f} x "
                f"| {ratio.low:.2f} to {ratio.high:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
