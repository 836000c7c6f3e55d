"""Logs say what the server did, and nothing of what callers sent."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from http import HTTPStatus
from pathlib import Path

import pytest
import structlog

from vaultd.errors import Unavailable
from vaultd.secret import Secret
from vaultd.telemetry.log import configure_logging

CANARY = "canary-5e1f"


@pytest.fixture(autouse=True)
def logging_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines(capsys):
    """Configure JSON at level debug, and read what was logged since."""
    configure_logging("debug", json=True)

    def read() -> list[dict]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return [json.loads(line) for line in captured.err.splitlines()]

    return read


def fail_with_canary() -> None:
    hidden = CANARY
    raise ValueError(f"bad input {hidden}")


def test_a_line_is_json_with_level_event_and_utc_time(lines):
    structlog.get_logger().info("started", port=7443)
    (line,) = lines()
    timestamp = line.pop("timestamp")
    assert timestamp.endswith("Z")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()) < 60
    assert line == {"event": "started", "level": "info", "port": 7443}


def test_console_lines_are_for_people(capsys):
    configure_logging("info", json=False)
    structlog.get_logger().warning("disk slow", wait_ms=12, payload=CANARY.encode())
    text = capsys.readouterr().err
    assert "warning" in text
    assert "disk slow" in text
    assert "wait_ms=12" in text
    assert "<11 bytes>" in text
    assert CANARY not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("critical", ["critical"]),
    ],
)
def test_the_level_is_a_threshold(capsys, level, heard):
    configure_logging(level, json=True)
    logger = structlog.get_logger()
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(logger, name)("x")
    assert [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()] == heard


@pytest.mark.parametrize("level", ["", "INFO", "trace", "notset"])
def test_a_level_that_is_none_is_refused(level):
    with pytest.raises(ValueError, match="log level"):
        configure_logging(level, json=True)


def test_context_variables_are_in_every_line(lines):
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger().info("x")
    assert lines()[0]["request_id"] == "r1"


class Colour(Enum):
    RED = CANARY


class Token(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return CANARY


@dataclass
class Request:
    body: bytes = CANARY.encode()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (CANARY.encode(), "<11 bytes>"),
        (bytearray(CANARY.encode()), "<11 bytes>"),
        (memoryview(CANARY.encode()), "<11 bytes>"),
        (Secret(CANARY.encode()), "<11 bytes>"),
        ([1, {"deep": (CANARY.encode(),)}], [1, {"deep": ["<11 bytes>"]}]),
        ({CANARY.encode(): 1}, {"<11 bytes>": 1}),
        (Request(), "<Request>"),
        (ValueError(CANARY), "<ValueError>"),
        (Colour.RED, "Colour.RED"),
        (Token("plain"), "plain"),
        (Path("/var/lib"), "/var/lib"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (None, None),
        (1.5, 1.5),
    ],
)
def test_values_are_shown_without_their_bytes(lines, value, shown):
    structlog.get_logger().info("x", value=value)
    assert lines()[0]["value"] == shown


def test_secrets_bound_to_a_logger_are_dropped_too(lines):
    structlog.get_logger().bind(key=Secret(b"k" * 32)).info("x")
    assert lines()[0]["key"] == "<32 bytes>"


@pytest.mark.parametrize("value", [2**70, "\ud800"])
def test_what_json_cannot_say_is_logged_all_the_same(lines, value):
    structlog.get_logger().info("x", value=value)
    assert len(lines()) == 1


def test_an_endless_structure_is_logged_in_part(lines):
    endless: list[object] = []
    endless.append(endless)
    structlog.get_logger().info("x", value=endless)
    assert len(lines()) == 1


def test_an_exception_is_type_and_place_without_text_or_locals(lines, capsys):
    try:
        fail_with_canary()
    except ValueError:
        structlog.get_logger().exception("call failed")
    (line,) = lines()
    assert CANARY not in json.dumps(line)
    assert line["exception"]["type"] == "ValueError"
    *_, last = line["exception"]["stack"]
    file, number, function = last.rsplit(":", 2)
    assert Path(file) == Path(__file__)
    assert number.isdigit()
    assert function == "fail_with_canary"


def test_causes_and_groups_are_described_alike(lines):
    try:
        try:
            fail_with_canary()
        except ValueError as e:
            raise ExceptionGroup(CANARY, [KeyError(CANARY), OSError(28, CANARY)]) from e
    except ExceptionGroup as e:
        structlog.get_logger().error("x", exc_info=e)
    (line,) = lines()
    assert CANARY not in json.dumps(line)
    described = line["exception"]
    assert [inner["type"] for inner in described["exceptions"]] == ["KeyError", "OSError"]
    assert described["exceptions"][1]["errno"] == 28
    assert described["cause"]["type"] == "ValueError"


def test_our_own_errors_keep_reason_and_text(lines):
    structlog.get_logger().error("x", exc_info=Unavailable("AUDIT_UNAVAILABLE", "the audit log cannot be written"))
    described = lines()[0]["exception"]
    assert described["type"] == "vaultd.errors.Unavailable"
    assert (described["reason"], described["text"]) == ("AUDIT_UNAVAILABLE", "the audit log cannot be written")


def test_exc_info_without_an_exception_is_no_error(lines):
    structlog.get_logger().error("x", exc_info=True)
    assert "exception" not in lines()[0]


def test_other_libraries_are_heard_from_warning_up(lines):
    logging.getLogger("grpc._channel").info("not heard")
    logging.getLogger("grpc._channel").warning("heard")
    (line,) = lines()
    assert (line["event"], line["logger"], line["level"]) == ("heard", "grpc._channel", "warning")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("message", "arguments", "shown"),
    [
        (
            "Unexpected %s raised by %s after %d ms",
            (ValueError(CANARY), CANARY, 5),
            "Unexpected <ValueError> raised by <str> after 5 ms",
        ),
        ("%(who)s failed", ({"who": CANARY},), "<str> failed"),
        ("%d is no plain number", (HTTPStatus.OK,), "%d is no plain number"),
        (f"Task exception was never retrieved\nfuture: {CANARY}", (), "Task exception was never retrieved"),
        (f"Exception in callback f('{CANARY}')", (), "Exception in callback f"),
        (ValueError(CANARY), (), "<ValueError>"),
        (f"<{CANARY}>", (), "<13 characters>"),
    ],
)
def test_what_was_put_into_their_texts_stays_out(lines, message, arguments, shown):
    logging.getLogger("asyncio").error(message, *arguments)
    (line,) = lines()
    assert line["event"] == shown
    assert CANARY not in json.dumps(line)


def test_their_exceptions_are_described_like_ours(lines):
    try:
        fail_with_canary()
    except ValueError:
        logging.getLogger("grpc._server").exception("Exception calling application: %s", CANARY)
    (line,) = lines()
    assert CANARY not in json.dumps(line)
    assert line["event"] == "Exception calling application: <str>"
    assert line["exception"]["type"] == "ValueError"


async def test_a_task_and_a_callback_that_fail_under_asyncio_leak_nothing(lines):
    loop = asyncio.get_running_loop()

    def callback(argument: bytes) -> None:
        raise ValueError(argument)

    loop.call_soon(callback, CANARY.encode())
    turn = loop.create_future()
    loop.call_soon(turn.set_result, None)
    await turn
    (line,) = lines()
    assert CANARY not in json.dumps(line)
    assert line["logger"] == "asyncio"
    assert line["exception"]["type"] == "ValueError"


def test_configuring_again_does_not_repeat_lines(capsys):
    for _ in range(3):
        configure_logging("info", json=True)
    logging.getLogger("x").error("once")
    structlog.get_logger().error("once")
    assert len(capsys.readouterr().err.splitlines()) == 2
