"""Times and durations as people write and read them."""

from __future__ import annotations

import datetime
import re
from typing import Final

_UNITS_S: Final = {
    "ms": 0.001,
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3_600,
    "d": 86_400,
    "w": 7 * 86_400,
    "y": 365 * 86_400,
}
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_PART: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|min|[smhdwy])")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern})+\s*")
MAX_DURATION_S: Final = 315_576_000_000
"""google/protobuf/duration.proto."""
DURATION_FORMS: Final = "30s, 15m, 12h, 30d, 1h30m"
TIME_FORMS: Final = "2027-01-31, 2027-01-31T09:00:00Z, +30d, -1h or now"


def parse_duration_s(text: str) -> float:
    """Seconds of `90s`, `1h30m`, `30d`, or of a bare number of seconds.  Raises ValueError.  A year has 365 days."""
    if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"no duration; write {DURATION_FORMS}")
    return sum(float(count) * _UNITS_S[unit] for count, unit in _PART.findall(text))


def duration_json(text: str) -> str:
    """A duration as proto JSON has it.  Raises ValueError."""
    seconds = parse_duration_s(text)
    if seconds > MAX_DURATION_S:
        raise ValueError("no duration: it is longer than 10,000 years")
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def parse_time(text: str, now: datetime.datetime) -> datetime.datetime:
    """A moment: a date, an RFC 3339 time (local without an offset), `now`, or a duration from now.  Raises ValueError."""
    said = text.strip()
    if said == "now":
        return now
    if said[:1] in {"+", "-"}:
        shift = datetime.timedelta(seconds=parse_duration_s(said[1:]))
        return now + shift if said[0] == "+" else now - shift
    try:
        found = datetime.datetime.fromisoformat(said)
    except ValueError:
        raise ValueError(f"no time; write {TIME_FORMS}") from None
    return found if found.tzinfo is not None else found.astimezone()


def time_json(text: str) -> str:
    """A moment as proto JSON has it.  Raises ValueError."""
    try:
        moment = parse_time(text, datetime.datetime.now(datetime.UTC)).astimezone(datetime.UTC)
    except OverflowError:
        raise ValueError("no time: it is not in the years 1 to 9999") from None
    return moment.isoformat().replace("+00:00", "Z")


def show_duration(seconds: float) -> str:
    """A duration in its two largest units: `1 h 30 min`."""
    if seconds < 0:
        return f"-{show_duration(-seconds)}"
    if 0 < seconds < 1:
        return f"{seconds * 1000:g} ms"
    left, shown = round(seconds), []
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        if count:
            shown.append(f"{count} {unit}")
    return " ".join(shown[:2]) or "0 s"


def show_time(moment: datetime.datetime, now: datetime.datetime) -> str:
    """A moment in UTC, and how far away it is: `2027-01-31 09:00:00Z (in 3 d)`."""
    distance = (moment - now).total_seconds()
    text = f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M:%S}Z"
    if abs(distance) < 1:
        return f"{text} (now)"
    unit, length = next((each for each in _UNITS if abs(distance) >= 0.95 * each[1]), _UNITS[-1])
    rough = f"{round(abs(distance) / length)} {unit}"
    return f"{text} (in {rough})" if distance > 0 else f"{text} ({rough} ago)"
