"""Runs tests inside Envoy: `python tests/envoy_suite.py [-n PROCESSES] [PYTEST ARGUMENT ...] FILE|DIRECTORY ...`.

The files are dealt out by their length, and so many Envoys run at once.
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
HANDS_PER_PROCESS = 4
"""Each hand of files has a fresh Envoy: none of them has hundreds of servers behind it, and none waits long for the others."""


def deal(files: list[Path], count: int) -> list[list[Path]]:
    """Hands of files, about as long."""
    hands: list[list[Path]] = [[] for _ in range(count)]
    lengths = [0] * count
    for length, file in sorted(
        ((Path(str(file).partition("::")[0]).stat().st_size, file) for file in files), reverse=True
    ):
        shortest = lengths.index(min(lengths))
        hands[shortest].append(file)
        lengths[shortest] += length
    return [hand for hand in hands if hand]


async def run(files: list[Path], options: list[str]) -> int:
    """The exit code of pytest, in an Envoy of its own."""
    envoy = await EnvoyProcess.start(EnvoySection(), "envoy_inside:app", drain_s=1)
    try:
        envoy.tell(arguments=[*options, *map(str, files)])
        return await envoy.wait()
    finally:
        await envoy.close()


def parse() -> tuple[int, list[Path], list[str]]:
    """How many Envoys, the files, and what is for pytest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1, help="Envoys")
    arguments, rest = parser.parse_known_args()
    paths = [Path(word) for word in rest if not word.startswith("-") and Path(word.partition("::")[0]).exists()]
    options = [word for word in rest if Path(word) not in paths]
    files = [file for path in paths for file in (sorted(path.glob("test_*.py")) if path.is_dir() else [path])]
    return arguments.n, files, options


async def main(processes: int, files: list[Path], options: list[str]) -> int:
    """The worst exit code of all of them."""
    turns = asyncio.Semaphore(processes)

    async def play(hand: list[Path]) -> int:
        async with turns:
            return await run(hand, options)

    codes = await asyncio.gather(*map(play, deal(files, processes * HANDS_PER_PROCESS)))
    return max((code for code in codes if code != NO_TESTS), default=NO_TESTS)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*parse())))
