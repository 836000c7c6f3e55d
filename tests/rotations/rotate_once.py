"""A process that imports everything once, and for each line of its input (failpoint, time, directory) forks another one that
rotates the secret in that directory, and dies there.  Says how each ended: the number of a signal, negative, or its exit code."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import FakeClock
from rotations.world import rotating_engine
from vaultd import failpoints


async def rotate(directory: Path, now_us: int) -> None:
    target = orjson.loads((directory / "target.json").read_bytes())
    async with rotating_engine(directory, target, clock=FakeClock(now_us)) as vault:
        await vault.rotate()
        await vault.run_out()


def main() -> None:
    for line in sys.stdin:
        failpoint, now_us, directory = line.rstrip("\n").split(" ", 2)
        pid = os.fork()
        if pid == 0:
            # As if VAULTD_FAILPOINT had been set when the module was imported.
            failpoints._ARMED, failpoints._NTH = failpoint, 1
            try:
                asyncio.run(rotate(Path(directory), int(now_us)))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


main()
