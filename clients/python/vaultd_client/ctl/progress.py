"""Progress bars on standard error, for people who wait; nothing where nobody sees them."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bar:
    """How far something has come.  Without a terminal it keeps that to itself."""

    def __init__(self, bar: Any = None, task: Any = None) -> None:
        self._bar = bar
        self._task = task

    def update(self, done: float, total: float | None = None) -> None:
        """So much is done, of so much."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, **({} if total is None else {"total": total}))

    def describe(self, text: str) -> None:
        """What is being worked on."""
        if self._bar is not None:
            self._bar.update(self._task, description=text)


@contextmanager
def progress(what: str, total: float | None = None, *, is_bytes: bool = False) -> Iterator[Bar]:
    """A bar while the block runs, if standard error is a terminal; it is gone afterwards."""
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    counted = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), counted, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Bar(bar, bar.add_task(what, total=total))
