"""Threads whose work may wait: the kernel gives them a smaller part, and lets them wait for it."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from contextlib import suppress
from typing import Final

NICE: Final = 5
"""How much less urgent such threads are, as nice(1) counts: each gets a third of what another thread gets where all processors are
busy.  With 10, a tenth, keys of a busy machine were not ready within their deadlines."""
SLICE_NS: Final = 100_000_000
"""For how long such a thread wants to run at a time, the most that Linux takes.  Its part stays the same; it comes later and in one
piece, and whoever wakes up with a shorter wish goes first.  Linux before 6.12 takes no notice."""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
"""Number of the system call, which the C library lacks for the most part."""
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""`struct sched_attr`: size, policy, flags, nice, priority, runtime, deadline, period."""


def stand_back() -> None:
    """Let the calling thread be one of them, as far as the system permits; a real-time or idle policy it keeps as it is."""
    thread = threading.get_native_id()
    with suppress(OSError):  # then it is as urgent as the others
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)
    number = _SCHED_SETATTR.get(platform.machine())
    with suppress(OSError, AttributeError):
        policy = os.sched_getscheduler(thread)
        if number is not None and policy in (os.SCHED_OTHER, os.SCHED_BATCH):
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, policy, 0, nice, 0, SLICE_NS, 0, 0)
            ctypes.CDLL(None).syscall(number, thread, attributes, 0)
