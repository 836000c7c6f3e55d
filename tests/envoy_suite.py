"""Runs tests inside Envoy: `python tests/envoy_suite.py [-n PROCESSES] [PYTEST ARGUMENT ...] FILE|DIRECTORY ...`.

The files are dealt out to so many Envoys, by their length.  What pytest says of each is printed when it is over.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from vaultd.config import EnvoySection
from vaultd.envoy_process import EnvoyProcess

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS = 5


def deal(files: list[Path], processes: int) -> list[list[Path]]:
    """Files for each process, about as long."""
    hands: list[list[Path]] = [[] for _ in range(processes)]
    lengths = [0] * processes
    for file in sorted(files, key=lambda file: -file.stat().st_size):
        shortest = lengths.index(min(lengths))
        hands[shortest].append(file)
        lengths[shortest] += file.stat().st_size
    return [hand for hand in hands if hand]


async def run(files: list[Path], options: list[str]) -> int:
    """The exit code of pytest, in an Envoy of its own."""
    environment = {"VAULTD_TEST_HOST": "envoy"}
    envoy = await EnvoyProcess.start(EnvoySection(), "envoy_inside:app", environment, drain_s=1)
    try:
        envoy.tell(arguments=[*options, *map(str, files)])
        return await envoy.wait()
    finally:
        await envoy.close()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1, help="Envoys")
    arguments, rest = parser.parse_known_args()
    paths = [Path(word) for word in rest if not word.startswith("-") and Path(word.partition("::")[0]).exists()]  # noqa: ASYNC240  # before anything runs
    options = [word for word in rest if Path(word) not in paths]
    files = [file for path in paths for file in (sorted(path.glob("test_*.py")) if path.is_dir() else [path])]
    codes = await asyncio.gather(*(run(hand, options) for hand in deal(files, arguments.n)))
    return max((code for code in codes if code != NO_TESTS), default=NO_TESTS)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
