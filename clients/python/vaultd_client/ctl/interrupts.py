"""Ctrl-C: the command ends, and soon.

Python raises KeyboardInterrupt wherever the main thread is, within the locks of gRPC's channels, too.  Such a lock may then be
released twice, which is a RuntimeError, or never, and closing the channel waits for it for ever.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from vaultd_client.ctl.failures import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE_S: Final = 3
"""What an interrupted command has to take back what it began."""


class Interrupt:
    """Whether it came: what is raised after it is its doing."""

    came = False


@contextmanager
def ended_by_interrupt() -> Iterator[Interrupt]:
    """An interrupt raises KeyboardInterrupt in the block, as ever; a process that goes on for GRACE_S all the same ends then.

    Does nothing where somebody else sees to interrupts, as a program that runs us does.
    """
    interrupt = Interrupt()
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def give_up(_number: int, _frame: object) -> NoReturn:
        os._exit(INTERRUPTED)

    def raise_it(_number: int, _frame: object) -> NoReturn:
        interrupt.came = True
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(GRACE_S)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, raise_it)
    try:
        yield interrupt
    finally:
        # After an interrupt the end of the process may hang as well: the alarm stays.
        if signal.getsignal(signal.SIGINT) is raise_it:
            signal.signal(signal.SIGINT, signal.default_int_handler)
