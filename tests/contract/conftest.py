"""What a backend cannot do is not collected: its test file holds a list of that, and a test that the list is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contract.backend import BackendContract

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of families of which a backend has no algorithm."""
    empty = [
        item
        for item in items
        if issubclass(getattr(item, "cls", None) or object, BackendContract)
        and any("empty parameter set" in mark.kwargs.get("reason", "") for mark in item.iter_markers("skip"))
    ]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]
