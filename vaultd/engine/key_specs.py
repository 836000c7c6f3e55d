"""What callers ask of keys, and whether they may: every rule that needs nothing but the request and the key as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from vaultd.engine.algorithms import Algorithm, ProtectionLevel, Purpose
from vaultd.engine.clock import DAY_US, SECOND_US
from vaultd.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaultd.engine.model import Key

MIN_ROTATION_US: Final = 3600 * SECOND_US
MAX_ROTATION_US: Final = 36_525 * DAY_US
MAX_DESTROY_DELAY_US: Final = 120 * DAY_US


@dataclass(frozen=True, slots=True)
class LifecycleLimits:
    """Delays that protect against haste; the configuration sets them."""

    default_destroy_delay_us: int = 30 * DAY_US
    min_destroy_delay_us: int = DAY_US
    deletion_retention_us: int = 30 * DAY_US


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a caller asks of a new key.  None is the default."""

    purpose: Purpose
    algorithm: str | None = None
    protection_level: ProtectionLevel = ProtectionLevel.SOFTWARE
    labels: Mapping[str, str] | None = None
    rotation_period_us: int | None = None
    next_rotation_us: int | None = None
    expire_us: int | None = None
    notice_us: int | None = None
    exportable: bool = False
    destroy_delay_us: int | None = None
    purge_protection: bool = False
    import_only: bool = False
    min_decrypt: int = 0
    skip_initial_version: bool = False


@dataclass(frozen=True, slots=True)
class KeyUpdate:
    """Fields to change, by their names in Key, and the etag that must match when it is not empty."""

    fields: Mapping[str, Any]
    etag: str = ""


def updated(key: Key, update: KeyUpdate, now_us: int) -> Key:
    """The key with these fields; raises InvalidArgument and FailedPrecondition for what it may not become."""
    fields = dict(update.fields)
    if key.purge_protection and fields.get("purge_protection") is False:
        raise FailedPrecondition(
            "PURGE_PROTECTION_STAYS", "purge_protection cannot be cleared", field="key.purge_protection"
        )
    expire_us = fields.get("expire_us")
    if expire_us != key.expire_us:
        check_expiry(expire_us, now_us)
    if "rotation_period_us" in fields or "next_rotation_us" in fields:
        period = fields.get("rotation_period_us", key.rotation_period_us)
        unchanged = fields.get("next_rotation_us") == key.next_rotation_us
        due = None if unchanged else fields.get("next_rotation_us")
        keep = period == key.rotation_period_us and (unchanged or "next_rotation_us" not in fields)
        if not keep:
            if key.import_only and period is not None:
                raise rotates_by_import()
            period, due = check_rotation(key.algorithm, period, due, now_us)
            fields |= {"rotation_period_us": period, "next_rotation_us": due}
    check_notice(fields.get("notice_us", key.notice_us), fields.get("rotation_period_us", key.rotation_period_us))
    if any(name in fields and fields[name] != getattr(key, name) for name in ("expire_us", "notice_us")):
        fields["noticed_us"] = None  # what is announced anew may be sooner than what was
    minimum = fields.get("min_decrypt", key.min_decrypt)
    if minimum != key.min_decrypt:
        check_minimum(minimum, key.primary or key.newest)
    return replace(key, **fields)


def check_rotation(
    algorithm: Algorithm, period_us: int | None, next_us: int | None, now_us: int
) -> tuple[int | None, int | None]:
    """Period and time of the next rotation; raises InvalidArgument."""
    if period_us is None:
        if next_us is not None:
            raise InvalidArgument(
                "ROTATION_PERIOD_MISSING", "next_rotation_time needs rotation_period", field="key.rotation_period"
            )
        return None, None
    if not MIN_ROTATION_US <= period_us <= MAX_ROTATION_US:
        raise InvalidArgument(
            "ROTATION_PERIOD_RANGE", "rotation_period must be 1 hour to 100 years", field="key.rotation_period"
        )
    if next_us is not None and next_us <= now_us:
        raise InvalidArgument(
            "ROTATION_TIME_PAST", "next_rotation_time must be in the future", field="key.next_rotation_time"
        )
    return period_us, next_us if next_us is not None else now_us + period_us


def check_notice(notice_us: int | None, period_us: int | None) -> None:
    """Raise InvalidArgument unless a notice is shorter than what it is given before."""
    if notice_us is not None and not 0 < notice_us <= (period_us or MAX_ROTATION_US):
        raise InvalidArgument(
            "ROTATION_NOTICE_RANGE",
            "notice_period must be more than nothing, and at most rotation_period",
            field="key.notice_period",
        )


def check_expiry(expire_us: int | None, now_us: int) -> None:
    """Raise InvalidArgument for a time that is over."""
    if expire_us is not None and expire_us <= now_us:
        raise InvalidArgument("EXPIRE_TIME_PAST", "expire_time must be in the future", field="key.expire_time")


def check_minimum(minimum: int, most: int) -> None:
    """Raise InvalidArgument for a minimum version above the one that is used."""
    if not 0 <= minimum <= most:
        raise InvalidArgument(
            "MIN_DECRYPT_VERSION_RANGE",
            "min_decrypt_version must be 0 to the number of the primary version",
            field="key.min_decrypt_version",
        )


def check_destroy_delay(asked_us: int | None, limits: LifecycleLimits) -> int:
    """How long a version waits for its destruction; raises InvalidArgument."""
    if asked_us is None:
        return max(limits.default_destroy_delay_us, limits.min_destroy_delay_us)
    if not limits.min_destroy_delay_us <= asked_us <= MAX_DESTROY_DELAY_US:
        raise InvalidArgument(
            "DESTROY_DELAY_RANGE",
            f"destroy_scheduled_duration must be {limits.min_destroy_delay_us // SECOND_US} s "
            f"to {MAX_DESTROY_DELAY_US // SECOND_US} s here",
            field="key.destroy_scheduled_duration",
        )
    return asked_us


def rotates_by_import() -> InvalidArgument:
    """The error of a rotation period where versions are imported."""
    return InvalidArgument(
        "IMPORT_ONLY_ROTATION", "a key whose versions are imported cannot rotate by itself", field="key.rotation_period"
    )
