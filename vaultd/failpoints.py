"""Named places at which a crash test may kill the process.

`tests/reliability` and the store's tests start a process with `VAULTD_FAILPOINT=name` (dies at the first hit) or
`VAULTD_FAILPOINT=name:N` (at the Nth), let it work, and look at what it left behind: every acknowledged write must be
there.  The process dies by SIGKILL, so nothing flushes, rolls back or closes.

The variable is read once, at import.  Unset, as in production, a hit is one comparison.
"""

from __future__ import annotations

import itertools
import os
import signal


def _parse(value: str | None) -> tuple[str | None, int]:
    if not value:
        return None, 0
    name, _, count = value.partition(":")
    return name, int(count or 1)


_ARMED, _NTH = _parse(os.environ.get("VAULTD_FAILPOINT"))
_HITS = itertools.count(1)


def hit(name: str) -> None:
    """Kill this process if the failpoint is armed and this is its turn; else do nothing."""
    if name == _ARMED and next(_HITS) == _NTH:
        os.kill(os.getpid(), signal.SIGKILL)
