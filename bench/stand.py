"""Everything that one run measures, each started when a part first asks for it, and ended with the run."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from bench.cases import KEYS, SECRETS, WrongAnswer
from bench.clients import Client, LoadFailed, Pressure, Request, order
from bench.contenders import Loaded
from bench.peers import Kes, OpenBao, PeerMissing, PeersSettings
from bench.processes import LOADGEN, MODULE, Process, StartFailed
from bench.rig import CONNECTIONS, ECHOES, Rig, Setup
from bench.start_peers import start_peers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from bench.rig import Target

P = TypeVar("P")
UNAVAILABLE: Final = (StartFailed, PeerMissing, WrongAnswer, LoadFailed)
"""Why something cannot be measured here."""


class Stand:
    """A context.  What could not be started is not tried again; `missing` says why."""

    def __init__(
        self, peers: PeersSettings, peer_binaries: Path | None = None, hosts: Sequence[str] = tuple(ECHOES)
    ) -> None:
        """hosts: those that are measured, of the ones that there are."""
        self._hosts = hosts
        self._settings = peers
        self._peer_binaries = peer_binaries
        self._exits = ExitStack()
        self._rigs: dict[Setup, Rig] = {}
        self._clients: dict[str, Client] = {}
        self.missing: dict[str, str] = {}
        self.scratch: Path

    def __enter__(self) -> Self:
        self.scratch = Path(self._exits.enter_context(tempfile.TemporaryDirectory(prefix="vaultd-bench-")))
        if self._peer_binaries is not None:
            try:
                self._settings = start_peers(self._peer_binaries, self.scratch / "peers", self._exits, self.missing)
            except BaseException:
                self._exits.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._exits.close()

    def rig(self, setup: Setup) -> Rig:
        """A vault with the keys and secrets of `bench.cases`.  Raises StartFailed, also when it failed before."""
        if setup in self._rigs:
            return self._rigs[setup]
        if setup.name in self.missing:
            raise StartFailed(self.missing[setup.name])
        try:
            rig = self._exits.enter_context(Rig(self.scratch, CONNECTIONS, setup))
            rig.api.create_keys(KEYS)
            rig.api.create_secrets(SECRETS)
        except UNAVAILABLE as error:
            self.missing[setup.name] = str(error)
            raise
        self._rigs[setup] = rig
        return rig

    def host(self, host: str) -> Rig:
        """A vault with one worker on that host.  Raises StartFailed."""
        if host not in self._hosts:
            raise StartFailed(self.missing.setdefault(Setup(host).name, "not asked for: --host"))
        return self.rig(Setup(host))

    @cached_property
    def openbao(self) -> OpenBao:
        """Raises PeerMissing, each time that it is asked for."""
        settings = self._settings.openbao
        return self._peer("OpenBao", lambda: OpenBao(settings) if settings else None)

    @cached_property
    def kes(self) -> Kes:
        """Raises PeerMissing, each time that it is asked for."""
        settings = self._settings.kes
        return self._peer("KES", lambda: Kes(settings) if settings else None)

    def _peer(self, name: str, make: Callable[[], P | None]) -> P:
        if name not in self.missing:
            try:
                if found := make():
                    return found
                self.missing[name] = "not given: --peers, or --peer-binaries"
            except UNAVAILABLE as error:
                self.missing[name] = str(error)
        raise PeerMissing(f"{name}: {self.missing[name]}")

    def loadgen(self, name: str = "peers") -> Client:
        """A client of the same program that loads vaultd: for peers, or by another name, for a load beside the measured one."""
        return self._client(f"loadgen-{name}", [], LOADGEN)

    def python_client(self, module: str) -> Client:
        """A client in Python: of the SDK, or of streams."""
        return self._client(module, [module], MODULE)

    def _client(self, name: str, arguments: list[str], program: Sequence[str]) -> Client:
        if name not in self._clients:
            process = Process(name, arguments, self.scratch, program)
            self._exits.callback(process.stop)
            self._clients[name] = Client(process)
        return self._clients[name]


def available(makers: Iterable[Callable[[], P]]) -> list[P]:
    """What can be had; the stand remembers why the rest cannot."""
    found = []
    for make in makers:
        try:
            found.append(make())
        except UNAVAILABLE:
            continue
    return found


def served(rig: Rig, target: Target, name: str, request: Request, pressure: Pressure) -> Loaded:
    """A contender: a request to a vault, or to its echo."""
    endpoint = rig.endpoint(target)

    def make(seconds: float) -> dict[str, object]:
        return order(endpoint, request, pressure, seconds, rig.connections)

    return Loaded(name, target.meter, rig.client, make, request.items)


def peer(stand: Stand, server: OpenBao | Kes, name: str, request: Request, pressure: Pressure) -> Loaded:
    """A contender: a request to a peer, over as many connections."""

    def make(seconds: float) -> dict[str, object]:
        return order(server.endpoint, request, pressure, seconds, CONNECTIONS)

    return Loaded(name, server.meter, stand.loadgen(), make, request.items)
