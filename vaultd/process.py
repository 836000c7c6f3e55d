"""What is set for a whole process that holds keys."""

from __future__ import annotations

import resource
import sys


def harden_process() -> None:
    """No core dumps, and no other process of this user may read our memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        set_dumpable = 4
        ctypes.CDLL(None, use_errno=True).prctl(set_dumpable, 0, 0, 0, 0)
