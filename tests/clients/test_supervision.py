"""Commands that are started again when their secrets change, and what follows the secrets."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from queue import SimpleQueue

import pytest
import pytest_asyncio
from sdk_rig import PATIENT, VAULT, async_client, wire_to

from harness import FakeClock, running_server
from tokens import AUDIENCE, ISSUER, TokenIssuer
from vaultd_client import Client, ConfigurationError
from vaultd_client.ctl.following import Following
from vaultd_client.ctl.supervision import OF_TERMINALS, PASSED_ON, Supervised

SECRET = f"{VAULT}/secrets/followed"


@pytest_asyncio.fixture
async def tokens(tmp_path):
    """A server that takes tokens, and one of them."""
    issuer = TokenIssuer(FakeClock(time.time_ns() // 1_000))
    (tmp_path / "ci.jwks").write_bytes(issuer.jwks())
    section = {"id": "ci", "issuer": ISSUER, "audiences": [AUDIENCE], "jwks_file": tmp_path / "ci.jwks"}
    policy = {"bindings": [{"members": ["jwt:ci:app"], "role": "secret-reader", "resource": VAULT}]}
    listen = {"listen_tls": "127.0.0.1:0", "jwt": {"issuers": [section]}}
    async with running_server(tmp_path, policy=policy, **listen, **PATIENT) as server:
        yield server, issuer.token(sub="app")


@pytest.mark.asyncio
async def test_secrets_are_followed_on_after_a_token_that_could_not_be_had(tokens, capfd):
    server, token = tokens
    faults = ["the token file is empty"]
    broken = threading.Event()

    def provide() -> str:
        if broken.is_set() and faults:
            raise ConfigurationError(faults.pop())
        return token

    ca = server.directory / "tls/ca.crt"
    async with (
        async_client(server, "admin") as admin,
        wire_to(f"127.0.0.1:{server.server.tls_port}") as wire,
    ):
        await admin.create_secret(VAULT, "followed", payload=b"one")
        with Client(wire.address, ca=ca, token=provide) as client:
            told: SimpleQueue[None] = SimpleQueue()
            await asyncio.to_thread(Following(client, [SECRET], pause_s=0).start, lambda: told.put(None))
            broken.set()
            wire.cut()
            await asyncio.to_thread(told.get, timeout=60)  # it is open again: look at what happened meanwhile
            await admin.add_secret_version(SECRET, b"two")
            await asyncio.to_thread(told.get, timeout=60)
            await asyncio.to_thread(client.close)
    assert capfd.readouterr().err == "vaultctl: nothing was changed\nthe token file is empty\n"


class Told:
    """Follows nothing: the first look is all there is."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def start(self, tell) -> None:
        """Nothing changes by itself."""
        self.tell = tell

    def problem(self, error: Exception) -> None:
        """Keep what was told."""
        self.problems.append(str(error))


@pytest.fixture
def supervise(tmp_path):
    """Runs a script of sh, which has said `ready` to `fifo` before it is looked what its variables are now."""
    handlers = {number: signal.getsignal(number) for number in (*PASSED_ON, *OF_TERMINALS)}
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def run(script: str, look, following: Told) -> int:
        supervised: list[Supervised] = []

        def environment() -> dict[str, str]:
            said = fifo.read_text()
            return look(said, supervised[0])

        variables = {**os.environ, "FIFO": str(fifo), "ROUND": "1"}
        supervised.append(Supervised(["sh", "-c", script], environment, following, 30))
        return supervised[0].run(variables)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


ENDLESS = "echo $$ > $FIFO; while :; do sleep 0.05; done"


def test_a_token_that_cannot_be_had_leaves_the_command_as_it_is(supervise):
    def look(said: str, _: Supervised) -> dict[str, str]:
        os.kill(int(said), signal.SIGTERM)
        raise ConfigurationError("the token file is empty")

    following = Told()
    assert supervise(f"trap 'exit 7' TERM; {ENDLESS}", look, following) == 7
    assert following.problems == ["the token file is empty"]


def test_a_fault_leaves_no_command_behind(supervise):
    pids: list[int] = []

    def look(said: str, _: Supervised) -> dict[str, str]:
        pids.append(int(said))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        supervise(ENDLESS, look, Told())
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_command_that_ended_while_its_variables_were_asked_for_is_not_run_again(supervise, tmp_path):
    def look(said: str, supervised: Supervised) -> dict[str, str]:
        running = supervised._running
        assert running is not None
        assert running._ended.wait(30)
        return {**os.environ, "FIFO": "/dev/null", "ROUND": said}

    assert supervise(f"echo $ROUND >> {tmp_path}/ran; echo 2 > $FIFO; exit 3", look, Told()) == 3
    assert (tmp_path / "ran").read_text() == "1\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_that_comes_while_the_next_command_is_made_room_for_ends_both(supervise, tmp_path, number):
    def look(_: str, __: Supervised) -> dict[str, str]:
        return {**os.environ, "FIFO": "/dev/null"}

    traps = f"trap '' INT; trap 'kill -{number} $PPID; exit 9' TERM"
    script = f"echo ran >> {tmp_path}/ran; {traps}; test -p $FIFO || exit 5; {ENDLESS}"
    assert supervise(script, look, Told()) == 9
    assert (tmp_path / "ran").read_text() == "ran\n"


ON_A_TERMINAL = """
import os, sys
from vaultd_client.ctl.supervision import is_in_foreground
print(is_in_foreground())
os.open(sys.argv[1], os.O_RDWR)  # the first terminal of a session is its own
print(is_in_foreground(), flush=True)
if os.fork() == 0:
    os.setpgid(0, 0)
    print(is_in_foreground(), flush=True)
else:
    os.wait()
"""


@pytest.mark.parametrize("redirected", [True, False])
def test_whom_a_terminal_sends_its_signals_does_not_depend_on_standard_input(redirected):
    ours, terminal = os.openpty()
    stdin = subprocess.DEVNULL if redirected else terminal
    command = [sys.executable, "-c", ON_A_TERMINAL, os.ttyname(terminal)]
    try:
        done = subprocess.run(
            command, stdin=stdin, capture_output=True, text=True, start_new_session=True, check=True, timeout=60
        )
    finally:
        os.close(terminal)
        os.close(ours)
    assert done.stdout.split() == ["False", "True", "False"]
