"""Records as OCSF events: what OCSF 1.3 requires of a class is there, and nothing of the record is lost."""

from __future__ import annotations

import hashlib

import orjson
import pytest

from vaultd.audit.shipping.base import Origin, Record
from vaultd.audit.shipping.ocsf import MAX_RESOURCES, OcsfFormat, activity_of
from vaultd.audit.shipping.severity import Severity, severity_of

ORIGIN = Origin("cd" * 16, "vault-1", "9.9.9")
BASE = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
REQUIRED = {6003: BASE | {"actor", "api", "src_endpoint"}, 3002: BASE | {"user", "service"}}
CALL = {
    "seq": 7,
    "time": "2026-11-24T02:55:00.123456Z",
    "event": "call",
    "id": "f00d-1",
    "method": "/vaultd.v1.CryptoService/Sign",
    "principal": "spiffe://dev.vaultd/app",
    "peer": "ipv4:10.0.0.9:50001",
    "credential": "certificate",
    "name": "vaults/default/keys/k",
    "key_version": "vaults/default/keys/k/versions/3",
    "code": "OK",
    "bytes_in": 64,
    "bytes_out": 96,
    "latency_us": 12_345,
    "prev": "ee" * 32,
}


def event_of(**fields):
    record = {name: value for name, value in {**CALL, **fields}.items() if value is not None}
    made = orjson.loads(OcsfFormat(ORIGIN)(Record(record["seq"], orjson.dumps(record), record)))
    assert REQUIRED[made["class_uid"]] <= set(made)
    assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]
    assert made["metadata"]["version"] == "1.3.0"
    assert made["metadata"]["product"]["vendor_name"] == "vaultd"
    return made


def test_a_call_is_api_activity():
    event = event_of()
    assert (event["class_uid"], event["category_uid"], event["activity_id"], event["activity_name"]) == (
        6003,
        6,
        99,
        "Sign",
    )
    assert event["time"] == 1795488900_123
    assert (event["status_id"], event["status_code"], event["severity_id"]) == (1, "OK", 1)
    assert event["api"]["operation"] == "Sign"
    assert event["api"]["service"] == {"name": "vaultd.v1.CryptoService"}
    assert event["api"]["response"] == {"code": 0, "message": "OK"}
    assert event["actor"]["user"]["uid"] == "spiffe://dev.vaultd/app"
    assert event["src_endpoint"] == {"ip": "10.0.0.9", "port": 50001}
    assert [(one["type"], one["name"]) for one in event["resources"]] == [
        ("key", "vaults/default/keys/k"),
        ("version", "vaults/default/keys/k/versions/3"),
    ]
    assert event["duration"] == 12
    assert event["metadata"]["correlation_uid"] == "f00d-1"


def test_the_chain_s_own_fields_and_the_very_line_are_kept():
    line = orjson.dumps(CALL)
    event = event_of()
    assert event["unmapped"]["seq"] == event["metadata"]["sequence"] == 7
    assert event["unmapped"]["prev"] == "ee" * 32
    assert event["unmapped"]["chain_id"] == "cd" * 16
    assert event["unmapped"]["leaf_hash"] == hashlib.sha256(b"\0" + line).hexdigest()
    assert event["raw_data"].encode() == line
    assert event["metadata"]["uid"] == f"{'cd' * 16}:7"


def test_a_refusal_says_why():
    event = event_of(code="PERMISSION_DENIED", reason="NO_BINDING")
    assert (event["status_id"], event["status_detail"], event["severity_id"]) == (2, "NO_BINDING", 3)
    assert event["api"]["response"] == {"code": 7, "message": "PERMISSION_DENIED", "error": "NO_BINDING"}


def test_a_caller_who_is_not_accepted_is_a_failed_authentication():
    event = event_of(code="UNAUTHENTICATED", reason="CERTIFICATE_REVOKED", principal="", peer="ipv6:%5B::1%5D:50000")
    assert (event["class_uid"], event["category_uid"], event["activity_name"]) == (3002, 3, "Logon")
    assert event["user"] == {"name": "unknown", "type_id": 0, "type": "Unknown"}
    assert (event["auth_protocol_id"], event["auth_protocol"], event["is_remote"]) == (99, "certificate", True)
    assert event["src_endpoint"] == {"ip": "::1", "port": 50000}
    assert (event["status_id"], event["status_detail"]) == (2, "CERTIFICATE_REVOKED")


def test_an_event_of_the_server_itself_has_the_server_as_its_source():
    fields = dict.fromkeys(set(CALL) - {"seq", "time"})
    event = event_of(
        **{**fields, "event": "version_destroyed", "principal": "vaultd:scheduler", "resource": "vaults/a/keys/b"}
    )
    assert event["src_endpoint"] == {"hostname": "vault-1", "svc_name": "vaultd"}
    assert event["api"]["operation"] == "version_destroyed"
    assert event["actor"]["user"]["type"] == "System"
    assert (event["status_id"], event["resources"][0]["name"]) == (0, "vaults/a/keys/b")


def test_folded_refusals_have_a_count():
    fields = dict.fromkeys(set(CALL) - {"seq", "time"})
    event = event_of(**{**fields, "event": "refusals_folded", "reason": "NO_BINDING", "folded": 1_234})
    assert (event["count"], event["severity_id"]) == (1_234, 3)


def test_a_batch_names_its_resources_up_to_a_bound_and_keeps_all_in_unmapped():
    names = {f"vaults/default/keys/k{number}": 1 for number in range(1_000)}
    event = event_of(name=names)
    assert len(event["resources"]) == MAX_RESOURCES
    assert event["unmapped"]["name"] == names


@pytest.mark.parametrize(
    ("operation", "activity"),
    [
        ("CreateKey", "Create"),
        ("GetKey", "Read"),
        ("BatchAccessSecretVersions", "Read"),
        ("SetPolicy", "Update"),
        ("DestroyKeyVersion", "Delete"),
        ("Seal", "Update"),
        ("Encrypt", "Encrypt"),
        ("Settle", "Settle"),
        ("", "unknown"),
    ],
)
def test_activities_go_by_the_verb(operation, activity):
    assert activity_of(operation)[1] == activity


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"code": "OK"}, Severity.INFO),
        ({"code": "UNAUTHENTICATED"}, Severity.WARNING),
        ({"code": "DATA_LOSS"}, Severity.CRITICAL),
        ({"event": "segment_abandoned"}, Severity.CRITICAL),
        ({"event": "something_new"}, Severity.NOTICE),
        ({"event": ["x"]}, Severity.NOTICE),
    ],
)
def test_severity_is_of_the_code_and_then_of_the_event(fields, severity):
    assert severity_of(fields) is severity
