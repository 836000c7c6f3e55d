"""System calls that are over in about a microsecond, made without giving up the interpreter.

`os` gives up the GIL around every system call.  A thread that waits for it takes it then, and the event loop, which has to have it
back a moment later, is put to sleep and woken: for calls so brief, several times what they cost themselves.  Where Python runs
inside Envoy, whose threads wait for the interpreter with every request, that was a fifth of a request.

While such a call lasts no thread runs Python, so it must be one that the event loop has to wait for anyway: a disk that takes long
to accept a record holds up every call, here as through `os`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# What it loads keeps the GIL; `CDLL` would not.
_C: Final = ctypes.PyDLL(None, use_errno=True)
_C_ALONE: Final = ctypes.PyDLL(None)
"""The same for calls of which nobody asks why they failed, which is cheaper."""


def _declare(library: ctypes.PyDLL, name: str, *arguments: Any) -> Callable[..., int] | None:
    if not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        return None  # off_t, and what there is, may differ
    function = getattr(library, name, None)
    if function is not None:
        function.restype, function.argtypes = ctypes.c_ssize_t, arguments
    return function


_pwrite: Final = _declare(_C, "pwrite", ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
_getrandom: Final = _declare(_C_ALONE, "getrandom", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)
_buffers: Final = {size: ctypes.c_char * size for size in (12, 24)}


def pwrite(fd: int, content: bytes, offset: int) -> int:
    """`os.pwrite`, for some kilobytes to the page cache: the number of bytes that were written.  Raises OSError."""
    if _pwrite is None:
        return os.pwrite(fd, content, offset)
    written = _pwrite(fd, content, len(content), offset)
    if written < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return written


def random_nonce(size: int) -> bytes:
    """`os.urandom`, for a nonce of 12 or 24 bytes, which the kernel gives as a whole or not at all (getrandom(2))."""
    if _getrandom is None:
        return os.urandom(size)
    buffer = _buffers[size]()  # its own: another thread may draw before this one is copied
    return buffer.raw if _getrandom(buffer, size, 0) == size else os.urandom(size)
