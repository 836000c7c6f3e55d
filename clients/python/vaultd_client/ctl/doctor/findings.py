"""What was found: one line each, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "FAIL"
SKIP: Final = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.  status: ok, warn, FAIL or skip; advice: what to do unless it is ok."""

    check: str
    status: str
    text: str
    advice: str = ""


@dataclass
class Findings:
    """All of them, in order."""

    found: list[Finding] = field(default_factory=list)

    def ok(self, check: str, text: str) -> None:
        """It is as it should be."""
        self.found.append(Finding(check, OK, text))

    def warn(self, check: str, text: str, advice: str) -> None:
        """It works, and will not for ever, or not for everybody."""
        self.found.append(Finding(check, WARN, text, advice))

    def fail(self, check: str, text: str, advice: str) -> None:
        """It keeps calls from being made."""
        self.found.append(Finding(check, FAIL, text, advice))

    def skip(self, check: str, text: str) -> None:
        """It could not be looked at."""
        self.found.append(Finding(check, SKIP, text))

    @property
    def failed(self) -> list[Finding]:
        return [one for one in self.found if one.status == FAIL]
