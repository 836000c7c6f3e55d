"""Quotas to and from messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.buckets import MAX_COUNT, MAX_PERIOD_US, MIN_PERIOD_US, Window
from vaultd.engine.quota_store import QuotaSpec
from vaultd.engine.quotas import CLASSES
from vaultd.errors import InvalidArgument
from vaultd.services.convert import duration_us, set_time
from vaultd_client.v1 import quota_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaultd.engine.model import Quota
    from vaultd.engine.quotas import Left

UPDATABLE: Final = ("classes", "methods", "windows")
_NUMBERS: Final[dict[str, Any]] = {name: pb.QuotaClass.Value(f"QUOTA_CLASS_{name.upper()}") for name in CLASSES}
_NAMES: Final = {number: name for name, number in _NUMBERS.items()}


def read_spec(quota: pb.Quota) -> QuotaSpec:
    """What a request says of a quota; raises InvalidArgument."""
    return QuotaSpec(quota.subject, quota.resource, read_classes(quota), tuple(quota.methods), read_windows(quota))


def read_fields(quota: pb.Quota, paths: Sequence[str]) -> dict[str, Any]:
    """The updatable fields that an update names; raises InvalidArgument."""
    readers = {"classes": read_classes, "methods": lambda quota: tuple(quota.methods), "windows": read_windows}
    return {path: readers[path](quota) for path in paths}


def read_classes(quota: pb.Quota) -> tuple[str, ...]:
    """The classes by name; raises InvalidArgument."""
    if not all(number in _NAMES for number in quota.classes):
        raise InvalidArgument(
            "ENUM_UNKNOWN", "quota.classes has a value that this server does not know", field="quota.classes"
        )
    return tuple(_NAMES[number] for number in quota.classes)


def read_windows(quota: pb.Quota) -> tuple[Window, ...]:
    """The windows; raises InvalidArgument."""
    windows = []
    for at, window in enumerate(quota.windows):
        path = f"quota.windows[{at}]"
        period_us = duration_us(window, "period", f"{path}.period") or 0
        if not MIN_PERIOD_US <= period_us <= MAX_PERIOD_US:
            raise _range(f"{path}.period", "a millisecond to 366 days")
        if not 1 <= window.count <= MAX_COUNT:
            raise _range(f"{path}.count", f"1 to {MAX_COUNT:,}")
        if not 0 <= window.burst <= MAX_COUNT:
            raise _range(f"{path}.burst", f"0 to {MAX_COUNT:,}")
        windows.append(Window(window.count, period_us, window.burst))
    return tuple(windows)


def _range(path: str, span: str) -> InvalidArgument:
    return InvalidArgument("FIELD_RANGE", f"{path} must be {span}", field=path)


def quota_message(quota: Quota, left: Sequence[Left] = ()) -> pb.Quota:
    """A quota as the wire has it, with what is left where that is given."""
    message = pb.Quota(
        name=quota.name if quota.revision else quota.id,
        subject=quota.subject,
        resource=quota.resource,
        classes=[_NUMBERS[name] for name in quota.classes],
        methods=quota.methods,
        etag=quota.etag if quota.revision else "",
    )
    for window in quota.windows:
        shown = message.windows.add(count=window.count, burst=window.burst, durable=window.durable)
        shown.period.FromMicroseconds(window.period_us)
        for state in left:
            if state.window == window:
                shown.left = state.left
                set_time(shown.full_time, state.full_us)
    if quota.revision:
        set_time(message.create_time, quota.create_us)
        set_time(message.update_time, quota.update_us)
    return message


def own_message(quota: Quota, left: Sequence[Left]) -> pb.Quota:
    """A quota for a caller that it counts: nothing in it tells of others."""
    shared = quota.subject == ""
    message = quota_message(quota, () if shared else left)
    message.ClearField("subject")
    message.ClearField("etag")
    return message
