"""Records as events of the Open Cybersecurity Schema Framework (OCSF 1.3): API Activity, or Authentication for a caller
whom vaultd did not accept.

docs/audit-sinks.md has the table.  `unmapped` has the chain's own fields and everything that OCSF has no place for, and
`raw_data` the very line of the log, which the receipt's leaf hash is over.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from vaultd.audit.shipping.severity import Severity, severity_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vaultd.audit.shipping.base import Origin, Record

OCSF_VERSION: Final = "1.3.0"
MAX_RESOURCES: Final = 100
"""Of a batch's keys, those that an event lists; `unmapped` has all of them."""

_API_ACTIVITY: Final = (6, "Application Activity", 6003, "API Activity")
_AUTHENTICATION: Final = (3, "Identity & Access Management", 3002, "Authentication")
_LOGON: Final = (1, "Logon")
_CREATE, _READ, _UPDATE, _DELETE, _OTHER = (1, "Create"), (2, "Read"), (3, "Update"), (4, "Delete"), 99
_ACTIVITIES: Final = {
    **dict.fromkeys(("Create", "Add", "Import", "Init", "Backup"), _CREATE),
    **dict.fromkeys(
        ("Get", "List", "Access", "BatchAccess", "Export", "Inspect", "Explain", "Test", "Review", "Tail", "Watch"),
        _READ,
    ),
    **dict.fromkeys(
        ("Update", "Set", "Rotate", "Enable", "Disable", "Undelete", "Restore", "Approve", "Seal", "Unseal"), _UPDATE
    ),
    **dict.fromkeys(("Delete", "Destroy", "Purge", "Revoke", "Cancel"), _DELETE),
}
"""By the verb that a method begins with.  A use of a key (Encrypt, Sign) is Other, under its own name."""
_SEVERITIES: Final = {
    Severity.INFO: (1, "Informational"),
    Severity.NOTICE: (1, "Informational"),
    Severity.WARNING: (3, "Medium"),
    Severity.ERROR: (4, "High"),
    Severity.CRITICAL: (5, "Critical"),
}
_CODES: Final = {
    code: number
    for number, code in enumerate(
        (
            "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
            "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
            "UNAUTHENTICATED"
        ).split()
    )
}
_RESOURCE_TYPES: Final = {
    "keys": "key",
    "versions": "version",
    "secrets": "secret",
    "vaults": "vault",
    "grants": "grant",
}
_MAPPED: Final = frozenset(
    {"time", "event", "id", "method", "principal", "peer", "code", "reason", "folded", "credential"}
)
"""Fields that have a place of their own.  `latency_us` stays in `unmapped` too: OCSF's `duration` is in milliseconds."""


class OcsfFormat:
    """Turns a record into one line of OCSF JSON."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._product = {
            "name": "vaultd",
            "vendor_name": "vaultd",
            "version": origin.version,
            "uid": origin.chain_id,
        }
        self._server = {"hostname": origin.host, "svc_name": "vaultd"}

    def __call__(self, record: Record) -> bytes:
        fields = record.fields
        refused = fields.get("event") == "call" and fields.get("code") == "UNAUTHENTICATED"
        event = self._authentication(fields) if refused else self._api_activity(fields)
        return orjson.dumps({**self._common(record), **event})

    def _common(self, record: Record) -> dict[str, Any]:
        fields = record.fields
        severity, severity_name = _SEVERITIES[severity_of(fields)]
        code, reason = fields.get("code"), fields.get("reason")
        leaf_hash = hashlib.sha256(b"\0" + record.line).hexdigest()
        common: dict[str, Any] = {
            "time": unix_ms(fields.get("time")),
            "severity_id": severity,
            "severity": severity_name,
            "metadata": {
                "version": OCSF_VERSION,
                "product": self._product,
                "uid": f"{self._origin.chain_id}:{record.sequence}",
                "sequence": record.sequence,
                "log_name": "audit",
                "log_provider": "vaultd",
                "original_time": str(fields.get("time", "")),
                "event_code": str(fields.get("event", "")),
            },
            "unmapped": {
                **{name: value for name, value in fields.items() if name not in _MAPPED},
                "chain_id": self._origin.chain_id,
                "leaf_hash": leaf_hash,
            },
            "raw_data": record.line.decode(),
        }
        if fields.get("id"):
            common["metadata"]["correlation_uid"] = fields["id"]
        if isinstance(code, str):
            succeeded = code == "OK"
            common |= {"status_id": 1 if succeeded else 2, "status": "Success" if succeeded else "Failure"}
            common["status_code"] = code
        else:
            common |= {"status_id": 0, "status": "Unknown"}
        if isinstance(reason, str) and reason:
            common["status_detail"] = reason
        if isinstance(fields.get("latency_us"), int):
            common["duration"] = fields["latency_us"] // 1000
        if isinstance(fields.get("folded"), int):
            common["count"] = max(1, fields["folded"])
        return common

    def _api_activity(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        method = fields.get("method")
        service, _, operation = (
            method.strip("/").rpartition("/") if isinstance(method, str) else ("", "", str(fields.get("event", "")))
        )
        activity, activity_name = activity_of(operation)
        api: dict[str, Any] = {"operation": operation or "unknown", "version": "v1"}
        if service:
            api["service"] = {"name": service}
        if fields.get("id"):
            api["request"] = {"uid": fields["id"]}
        code = fields.get("code")
        if isinstance(code, str):
            api["response"] = {"code": _CODES.get(code, 2), "message": code}
            if code != "OK":
                api["response"]["error"] = fields.get("reason") or code
        event = {
            **_class(_API_ACTIVITY, activity, activity_name),
            "message": " ".join(filter(None, (operation, str(fields.get("event", "")), code, fields.get("reason")))),
            "api": api,
            "actor": {"user": _user(fields.get("principal"))},
            "src_endpoint": _endpoint(fields.get("peer")) or self._server,
            "dst_endpoint": self._server,
        }
        if resources := list(_resources(fields)):
            event["resources"] = resources
        return event

    def _authentication(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        event = {
            **_class(_AUTHENTICATION, *_LOGON),
            "message": f"caller not accepted: {fields.get('reason', '')}",
            "user": _user(fields.get("principal")),
            "service": {"name": "vaultd", "uid": self._origin.chain_id},
            "dst_endpoint": self._server,
            "auth_protocol_id": 99,
            "auth_protocol": str(fields.get("credential") or "unknown"),
            "logon_type_id": 3,
            "logon_type": "Network",
            "is_remote": True,
        }
        if endpoint := _endpoint(fields.get("peer")):
            event["src_endpoint"] = endpoint
        return event


def activity_of(operation: str) -> tuple[int, str]:
    """OCSF's activity of a method, by its verb."""
    for length in range(len(operation), 0, -1):
        # Verbs end where the next word begins: `Set` is not the verb of `Settle`.
        if (length == len(operation) or operation[length].isupper()) and operation[:length] in _ACTIVITIES:
            return _ACTIVITIES[operation[:length]]
    return _OTHER, operation or "unknown"


def unix_ms(text: Any) -> int:
    """Milliseconds since the Unix epoch; 0 for what is no time."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError):
        return 0
    return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000


def _class(of: tuple[int, str, int, str], activity: int, activity_name: str) -> dict[str, Any]:
    category_uid, category_name, class_uid, class_name = of
    return {
        "category_uid": category_uid,
        "category_name": category_name,
        "class_uid": class_uid,
        "class_name": class_name,
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": class_uid * 100 + activity,
        "type_name": f"{class_name}: {activity_name}",
    }


def _user(principal: Any) -> dict[str, Any]:
    if not isinstance(principal, str) or not principal:
        return {"name": "unknown", "type_id": 0, "type": "Unknown"}
    kind = (3, "System") if principal.startswith("vaultd:") else (99, "Workload")
    return {"uid": principal, "name": principal, "type_id": kind[0], "type": kind[1]}


def _endpoint(peer: Any) -> dict[str, Any] | None:
    """gRPC's spelling of an address: `ipv4:127.0.0.1:50000`, `ipv6:[::1]:50000` (also with %5B and %5D)."""
    if not isinstance(peer, str):
        return None
    kind, _, address = peer.partition(":")
    host, _, port = address.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return {"ip": host.replace("%5B", "[").replace("%5D", "]").strip("[]"), "port": int(port)}


def _resources(fields: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    seen: set[str] = set()
    for field, value in fields.items():
        if field in _MAPPED:
            continue
        names = [value] if isinstance(value, str) else value if isinstance(value, list | dict) else ()
        for name in names:
            if isinstance(name, str) and name.startswith("vaults/") and name not in seen:
                if len(seen) == MAX_RESOURCES:
                    return
                seen.add(name)
                kind = name.rstrip("/").split("/")[-2]
                yield {"name": name, "uid": name, "type": _RESOURCE_TYPES.get(kind, "resource")}
