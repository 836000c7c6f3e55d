"""The command line: `python -m bench COMMAND`; without one, `cases`."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from bench.baseline import FILE as BASELINE
from bench.cases import WrongAnswer
from bench.clients import LoadFailed
from bench.machine import machine_line
from bench.pace import FULL, QUICK
from bench.page import to_html
from bench.peers import PeerMissing, PeersSettings, read_peers
from bench.processes import StartFailed
from bench.profile_server import ProfilerMissing
from bench.ratios import UnknownRatios, check_ratios, store_ratios
from bench.rig import CONNECTIONS, ECHOES, Setup
from bench.run import CHECKED, JUDGED, PARTS, Run
from bench.stand import Stand
from bench.start_peers import start_peers, write_peers
from bench.table_of_cases import NothingToMeasure, Wanted, measure_cases
from bench.tables import aims_to_markdown, to_markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FAILURES: Final = (
    LoadFailed,
    NothingToMeasure,
    PeerMissing,
    ProfilerMissing,
    StartFailed,
    UnknownRatios,
    WrongAnswer,
)


class _CasesByDefault(click.Group):
    """Options without a command are those of `cases`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = ["cases", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except _FAILURES as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_CasesByDefault, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure vaultd: beside a bare echo on the same host, beside the cryptography alone, and beside other key servers.

    docs/performance.md says what each figure means.
    """
    signal.signal(signal.SIGTERM, _interrupt)


def _file(*names: str, **more: Any) -> Callable[..., Any]:
    return click.option(*names, type=click.Path(path_type=Path), **more)


@dataclass(frozen=True)
class _How:
    """What all commands that measure with a stand are told."""

    quick: bool
    hosts: tuple[str, ...]
    peers: Path | None
    peer_binaries: Path | None

    @contextmanager
    def running(self) -> Iterator[Run]:
        """A run, as long as its stand is there."""
        settings = read_peers(self.peers) if self.peers else PeersSettings()
        with Stand(settings, self.peer_binaries, self.hosts) as stand:
            yield Run(stand, QUICK if self.quick else FULL, _say)


def _of_a_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of these commands; their callback gets them as one, `how`."""

    @click.option("--quick", is_flag=True, help="Short slices: to see that everything runs.")
    @click.option(
        "--host",
        "hosts",
        type=click.Choice(list(ECHOES)),
        multiple=True,
        default=tuple(ECHOES),
        help="One, or again both.",
    )
    @_file("--peers", metavar="FILE", help="Peers that run: addresses, credentials and pids, in YAML.")
    @_file("--peer-binaries", metavar="DIR", help="Start the peers whose programs (bao, kes) are there.")
    @wraps(command)
    def with_how(
        *arguments: Any,
        quick: bool,
        hosts: tuple[str, ...],
        peers: Path | None,
        peer_binaries: Path | None,
        **more: Any,
    ) -> Any:
        return command(*arguments, how=_How(quick, hosts, peers, peer_binaries), **more)

    return cast("Callable[..., Any]", with_how)


@main.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@_of_a_run
@_file("--out", metavar="DIR", help="Write run.json, run.md and run.html there.")
def run(parts: tuple[str, ...], how: _How, out: Path | None) -> None:
    """Measure everything, or some PARTS, and print tables; a part that cannot run says so and stops no other."""
    with how.running() as measured:
        measured.measure(parts or tuple(PARTS))
        document = measured.document()
    if out:
        _write(document, out)
    print(to_markdown(document), end="")


@main.command("must-show")
@_of_a_run
@_file("--out", metavar="DIR", help="Write run.json, run.md and run.html there.")
def must_show(how: _How, out: Path | None) -> None:
    """Measure what was aimed at, and print each aim, what came of it, and the command that measures it alone."""
    with how.running() as measured:
        measured.measure(JUDGED)
        document = measured.document()
    if out:
        _write(document, out)
    print(machine_line(document["machine"]), aims_to_markdown(document["aims"]), sep="\n\n")


@main.command()
@click.argument("parts", nargs=-1, type=click.Choice(CHECKED))
@_of_a_run
@_file("--baseline", "file", default=BASELINE, show_default="docs/performance/baseline.json", metavar="FILE")
@click.option("--repeats", type=click.IntRange(0), default=2, show_default=True, help="For what looks worse.")
@click.option("--update", is_flag=True, help="Store what is measured instead of comparing it.")
def check(parts: tuple[str, ...], how: _How, file: Path, repeats: int, *, update: bool) -> None:
    """Compare ratios, all or those of some PARTS, with the stored ones; exit 1 when one is 15 % worse after the repeats."""
    with how.running() as measured:
        if update:
            store_ratios(measured, parts or CHECKED, file)
            _say(f"bench: wrote {file}")
        elif not check_ratios(measured, parts or CHECKED, file, repeats, print):
            raise SystemExit(1)


@main.command()
@click.argument("document", type=click.Path(path_type=Path, exists=True))
@_file("--out", metavar="DIR", default=Path(), show_default="here")
def report(document: Path, out: Path) -> None:
    """Write the Markdown and HTML reports of a run.json again."""
    _write(json.loads(document.read_text()), out)


@main.command("start-peers")
@click.argument("binaries", type=click.Path(path_type=Path, exists=True))
@_file("--write", metavar="FILE", required=True, help="Where --peers finds them.")
def start_peers_command(binaries: Path, write: Path) -> None:
    """Start the programs `bao` and `kes` of the directory BINARIES as they are measured, until interrupted."""
    with ExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="vaultd-peers-")))
        missing: dict[str, str] = {}
        peers = start_peers(binaries, directory, exits, missing)
        write_peers(peers, write)
        exits.callback(write.unlink, missing_ok=True)
        for name, why in missing.items():
            _say(f"bench: {name}: {why}")
        for name, peer in peers:
            print(f"{name}: {peer.address if peer else 'not started'}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return


@main.command()
@click.option("--quick", is_flag=True, help="Short rounds: about a minute instead of eight.")
@click.option("--only", default="", metavar="PATTERN", help="Regular expression on the names of cases.")
@_file("--json", "json_file", metavar="FILE", help="Write machine, plan and every figure there.")
@click.option("--host", type=click.Choice(list(ECHOES)), default="grpc", show_default=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(1))
@click.option("--seconds", type=float, help="Length of a slice.")
@click.option("--in-flight", type=click.IntRange(1), help="Calls in flight (batches of 100 and more: 2).")
@click.option("--connections", type=click.IntRange(1), default=CONNECTIONS, show_default=True)
@_file("--scratch", metavar="DIR", help="Where the vault is put for the time of the run.")
@click.option("--profile", is_flag=True, help="Sample vaultd with py-spy; the first case, or --only's.")
@click.option("--profile-seconds", type=float, default=10.0, show_default=True)
@click.option("--native", is_flag=True, help="With --profile: C functions, too (slower sampling).")
def cases(quick: bool, only: str, host: str, workers: int, connections: int, **more: Any) -> None:
    """Each RPC beside the bare echo on the same host, in a closed loop; keys in a token beside a bare loop."""
    pace = QUICK if quick else FULL
    given = {"rounds": more["rounds"], "slice_s": more["seconds"], "in_flight": more["in_flight"]}
    measure_cases(
        Wanted(
            pattern=only,
            plan=replace(pace.lone_table, **{name: value for name, value in given.items() if value is not None}),
            setup=Setup(host, workers),
            connections=connections,
            scratch=more["scratch"],
            json_file=more["json_file"],
            floors_s=pace.floors_s,
            profile_s=more["profile_seconds"] if more["profile"] else 0.0,
            native=more["native"],
        )
    )


def _write(document: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps(document, indent=1) + "\n")
    (directory / "run.md").write_text(to_markdown(document))
    (directory / "run.html").write_text(to_html(document))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="python -m bench")
