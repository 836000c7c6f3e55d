"""A command that is started again when its secrets change; without that, `vaultctl run` is gone before the command begins."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from vaultd_client.ctl.following import TROUBLE
from vaultd_client.injection import InjectionRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaultd_client.ctl.following import Following

PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
OF_TERMINALS: Final = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends them to all that run in its foreground, so the command has them already.  One that somebody sends to
vaultctl alone looks the same."""
ENDING: Final = frozenset({signal.SIGTERM, *OF_TERMINALS})
"""Who sends one wants no next command; others are for whichever runs, such as SIGHUP for one that reads its settings again."""
LOOK: Final = object()

Variables = dict[str, str]


class Running:
    """The command as it runs now."""

    def __init__(self, command: Sequence[str], variables: Variables, news: SimpleQueue[object]) -> None:
        """Start it; raises OSError.  It puts itself among the news when it has ended."""
        self._process = subprocess.Popen(command, env=variables)  # noqa: S603  # what `run` is for
        self._ended = threading.Event()
        self._news = news
        threading.Thread(target=self._wait, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._ended.is_set()

    @property
    def exit_code(self) -> int:
        """Once it has ended."""
        return exit_code_of(self._process.returncode)

    def send(self, number: int) -> bool:
        """Send a signal; False when it has ended."""
        if self.ended:
            return False
        self._process.send_signal(number)
        return True

    def end(self, grace_s: float) -> bool:
        """SIGTERM, and SIGKILL when it takes too long; False when it had ended by itself."""
        if not self.send(signal.SIGTERM):
            return False
        if not self._ended.wait(grace_s):
            self.send(signal.SIGKILL)
            self._ended.wait()
        return True

    def _wait(self) -> None:
        self._process.wait()
        self._ended.set()
        self._news.put(self)


class Supervised:
    """One command, from its first start to the end that it comes to by itself."""

    def __init__(
        self, command: Sequence[str], environment: Callable[[], Variables], following: Following, grace_s: float
    ) -> None:
        """environment: the variables of now; raises TROUBLE or InjectionRefused.  grace_s: from SIGTERM to SIGKILL."""
        self._command = list(command)
        self._environment = environment
        self._following = following
        self._grace_s = grace_s
        self._news: SimpleQueue[object] = SimpleQueue()
        self._running: Running | None = None
        self._replacing = False
        self._is_to_end = False
        self._missed: list[int] = []

    def run(self, first: Variables) -> int:
        """Run it to its end; returns its exit code, or 128 and the signal that ended it.  Whatever is raised, nothing runs then.

        Raises OSError, VaultdError, ConfigurationError.
        """
        self._following.start(lambda: self._news.put(LOOK))
        for each in (*PASSED_ON, *OF_TERMINALS):
            signal.signal(each, lambda number, _frame: self._pass_on(number))
        self._news.put(LOOK)  # `first` was read before the watch began
        try:
            return self._run(first)
        finally:
            if self._running is not None:
                self._running.end(self._grace_s)

    def _run(self, first: Variables) -> int:
        current, running = first, self._start(first)
        while True:
            news = self._news.get()
            if running.ended:
                return running.exit_code
            if news is not LOOK:
                continue  # the end of one that was replaced
            try:
                wanted = self._environment()
            except (*TROUBLE, InjectionRefused) as error:
                self._following.problem(error)
                continue
            if wanted != current:
                if not self._make_room(running):
                    return running.exit_code
                current, running = wanted, self._start(wanted)

    def _make_room(self, running: Running) -> bool:
        """End it for the next one; False when there is none to be, since it had ended by itself, or we were told to end."""
        self._replacing = True
        ended = running.end(self._grace_s)
        self._replacing = False  # what comes from here on is missed, and goes to the next one
        return ended and not self._is_to_end

    def _start(self, variables: Variables) -> Running:
        self._running = running = Running(self._command, variables, self._news)
        for number in self._missed:  # between the end of one and the start of the next
            running.send(number)
        self._missed.clear()
        return running

    def _pass_on(self, number: int) -> None:
        if self._replacing and number in ENDING:
            self._is_to_end = True
        running = self._running
        if running is not None and not running.ended and number in OF_TERMINALS and is_in_foreground():
            return
        if running is None or not running.send(number):
            self._missed.append(number)


def is_in_foreground() -> bool:
    """Whether what a terminal sends comes to us, and so to the command, which is of our process group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False  # we have none, whatever standard input is
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False  # it was hung up
    finally:
        os.close(terminal)


def exit_code_of(returncode: int) -> int:
    """What a shell makes of it: 128 and the signal, where one ended the process."""
    return returncode if returncode >= 0 else 128 - returncode
