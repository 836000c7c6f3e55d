"""Structured logs of the server's own doings, on stderr.

Nothing that came from a caller gets out through here by accident: bytes and secrets become their length, objects their
type, exceptions their type and place.  Texts of exceptions are left out unless they are ours (errors.py promises that
those carry no input).  Other libraries' records are treated alike: their constant text stays, what was put into it does
not.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import suppress
from datetime import date
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
import structlog

from vaultd.errors import VaultdError
from vaultd.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_MAX_DEPTH: Final = 8
_CONSTANT_TEXT: Final = re.compile(r"[\w .,:;'!/-]*")


def configure_logging(level: str, json: bool) -> None:
    """Send structlog and stdlib logging to stderr: one JSON object a line, or text for a console.

    `level` is for vaultd; other libraries are heard from WARNING up.  May be called again.
    """
    if level not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}")
    threshold = getattr(logging, level.upper())
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        drop_secrets,
        *(
            [_render_json]
            if json
            else [_exception_as_text, structlog.dev.ConsoleRenderer(colors=False, sort_keys=False)]
        ),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        context_class=dict,
        logger_factory=_StderrLogger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for other in root.handlers[:]:
        root.removeHandler(other)
    root.addHandler(_ForeignHandler(processors))
    root.setLevel(max(threshold, logging.WARNING))
    # gRPC's core logs a stack for each request that it cannot decode itself, such as a path that is not UTF-8: whoever
    # sends thousands would fill the disk.  Errors of our own never get there, the chain reports them as incidents.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)


def describe_exception(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Replace exc_info by `exception`: types and `file:line:function` only, causes included."""
    del logger, name
    event.pop("stack_info", None)
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()[1]
    elif isinstance(given, tuple):
        given = given[1]
    if isinstance(given, BaseException):
        event["exception"] = _describe(given, _MAX_DEPTH)
    return event


def drop_secrets(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Replace bytes and secrets, at any depth, by their length, and objects by their type."""
    del logger, name
    return {_safe_key(key): _safe(value, _MAX_DEPTH) for key, value in event.items()}


def _safe(value: Any, depth: int) -> Any:
    if isinstance(value, Secret | bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(value, memoryview):
        return f"<{value.nbytes} bytes>"
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, PurePath | UUID):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if depth and isinstance(value, dict):
        return {_safe_key(key): _safe(item, depth - 1) for key, item in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_safe(item, depth - 1) for item in value]
    return f"<{type(value).__name__}>"


def _safe_key(key: Any) -> str:
    return key if type(key) is str else str(_safe(key, 0))


def _describe(error: BaseException, depth: int) -> dict[str, object]:
    kind = type(error)
    described: dict[str, object] = {
        "type": kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
        "stack": _stack(error.__traceback__),
    }
    if isinstance(error, VaultdError):
        described |= {"reason": error.reason, "text": error.text}
    if isinstance(error, OSError) and error.errno is not None:
        described["errno"] = error.errno
    if not depth:
        return described
    if isinstance(error, BaseExceptionGroup):
        described["exceptions"] = [_describe(inner, depth - 1) for inner in error.exceptions]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        described["cause"] = _describe(cause, depth - 1)
    return described


def _stack(traceback: TracebackType | None) -> list[str]:
    lines = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        lines.append(f"{code.co_filename}:{traceback.tb_lineno}:{code.co_name}")
        traceback = traceback.tb_next
    return lines


def _render_json(logger: WrappedLogger, name: str, event: EventDict) -> str:
    del logger, name
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # an integer beyond 64 bits or a lone surrogate
        return orjson.dumps({key: ascii(value) for key, value in event.items()}).decode()


def _exception_as_text(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """The console shows an exception as a string only."""
    del logger, name
    if "exception" in event:
        event["exception"] = orjson.dumps(event["exception"], option=orjson.OPT_INDENT_2).decode()
    return event


def _write_line(text: str) -> None:
    """Write to stderr as it is now.  A log that cannot be written stops nothing: the audit log is the one that must be."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class _StderrLogger:
    """What structlog's bound loggers end in."""

    def __init__(self, *names: str) -> None:
        del names

    def msg(self, message: str) -> None:
        _write_line(message)

    debug = info = warning = error = critical = msg


class _ForeignHandler(logging.Handler):
    """Takes a stdlib record through the processors."""

    def __init__(self, processors: Sequence[Processor]) -> None:
        super().__init__()
        self._processors = processors

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        rendered: Any = {"event": _constant_text(record), "logger": record.name}
        if record.exc_info:
            rendered["exc_info"] = record.exc_info
        try:
            for process in self._processors:
                rendered = process(None, level, rendered)
        except (TypeError, ValueError, KeyError, AttributeError):
            rendered = f"{level}: a record of {record.name} cannot be shown"  # logging must not fail whoever logs
        _write_line(str(rendered))


def _constant_text(record: logging.LogRecord) -> str:
    """The text of a record without what was put into it.

    With arguments, numbers stay and the rest becomes its type.  Without, the text was formatted by the library (asyncio
    puts `repr(exception)` and callback arguments there): its first line counts up to the first bracket, quotation mark
    or sign.
    """
    message = record.msg
    if not isinstance(message, str):
        return f"<{type(message).__name__}>"
    if not record.args:
        match = _CONSTANT_TEXT.match(message)
        return (match[0] if match else "").strip() or f"<{len(message)} characters>"
    arguments: Any = record.args
    try:
        if isinstance(arguments, dict):
            return message % {key: _placeholder(value) for key, value in arguments.items()}
        return message % tuple(_placeholder(value) for value in arguments)
    except (TypeError, ValueError, KeyError):
        return message


def _placeholder(value: object) -> object:
    return value if type(value) in (bool, int, float) else f"<{type(value).__name__}>"
