"""Which kinds of rows watchers hear of, and what a scope takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vaultd.engine.permissions import PERMISSIONS
from vaultd.engine.policy import PolicyEngine, seed_policy
from vaultd.engine.watch import Scope
from vaultd.engine.watched import INTERNAL, WATCHED, Event, event_of
from vaultd.store.base import Change, RowKey
from vaultd_client.v1 import watch_pb2

ENGINE = Path(__file__).resolve().parents[2] / "vaultd/engine"
KIND = re.compile(
    r'^(?:[A-Z]+_)?(?:KIND|USES): Final = "([a-z_]+)"|RowKey\("([a-z_]+)"|put_resource\("([a-z_]+)"', re.M
)


def test_every_kind_of_row_is_shown_or_is_known_to_be_internal():
    found = {name for path in ENGINE.glob("*.py") for match in KIND.findall(path.read_text()) for name in match if name}
    assert found == WATCHED.keys() | INTERNAL
    assert WATCHED.keys().isdisjoint(INTERNAL)


def test_every_kind_has_its_value_and_its_permission():
    values = {name.removeprefix("RESOURCE_KIND_") for name, _ in watch_pb2.ResourceKind.items()}
    assert {watched.kind for watched in WATCHED.values()} == values - {"UNSPECIFIED"}
    assert {watched.permission for watched in WATCHED.values()} <= PERMISSIONS


@pytest.mark.parametrize(
    ("key", "name", "on"),
    [
        (RowKey("vault", "", "a", 0), "vaults/a", "vaults/a"),
        (RowKey("key", "a", "k", 0), "vaults/a/keys/k", "vaults/a/keys/k"),
        (RowKey("key_version", "a", "k", 3), "vaults/a/keys/k/versions/3", "vaults/a/keys/k/versions/3"),
        (RowKey("secret_version", "a", "s", 2), "vaults/a/secrets/s/versions/2", "vaults/a/secrets/s/versions/2"),
        (RowKey("grants", "a", "k", 0), "vaults/a/keys/k/grants", "vaults/a/keys/k"),
        (RowKey("quota", "", "a/q", 0), "vaults/a/quotas/q", "vaults/a"),
        (RowKey("quota", "", "/q", 0), "quotas/q", "/"),
        (RowKey("import_job", "a", "j", 0), "vaults/a/importJobs/j", "vaults/a"),
        (RowKey("policy", "", "policy", 0), "policy", "/"),
    ],
)
def test_a_row_has_the_name_of_its_resource_and_is_decided_on_what_get_is(key, name, on):
    event = event_of(Change(7, key, "update", 1))
    assert event is not None
    assert (event.name, event.on, event.revision) == (name, on, 7)


def test_a_notice_is_an_update_without_an_etag():
    event = event_of(Change(7, RowKey("key", "a", "k", 0), "notice", 1))
    assert event is not None
    assert (event.event, event.etag) == ("update", "")


def test_rows_that_only_moved_to_another_term_and_internal_ones_are_not_shown():
    assert event_of(Change(7, RowKey("key", "a", "k", 0), "reseal", 1)) is None
    assert event_of(Change(7, RowKey("budget", "a", "k", 1), "update", 1)) is None


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("/", True),
        ("vaults", True),
        ("vaults/a", True),
        ("vaults/a/keys", True),
        ("vaults/a/keys/k", True),
        ("vaults/a/keys/k/versions", False),
        ("vaults/ab", False),
        ("vaults/a/keys/k2", False),
        ("vaults/a/ke", False),
    ],
)
def test_a_scope_takes_whole_segments(prefix, wanted):
    name = "vaults/a/keys/k"
    assert Scope(prefix, frozenset()).wants(Event(1, "KEY", name, "update", "", 1, "keys.get", name)) is wanted


@pytest.mark.parametrize(
    ("bound_on", "resource", "may"),
    [
        ("/", "vaults/a", True),
        ("vaults/a", "/", True),
        ("vaults/a", "vaults", True),
        ("vaults/a", "vaults/a/keys/k", True),
        ("vaults/a/keys/k", "vaults/a", True),
        ("vaults/a/keys/k", "vaults/a/keys/k2", False),
        ("vaults/a", "vaults/ab", False),
        ("vaults/ab", "vaults/a", False),
    ],
)
@pytest.mark.parametrize("condition", ["", "resource.labels.team == 'a'"])
def test_some_permission_is_held_on_a_resource_above_it_or_below_it(bound_on, resource, may, condition):
    binding = {"members": ["spiffe://x/app"], "role": "auditor", "resource": bound_on}
    document = {"bindings": [binding | ({"condition": condition} if condition else {})]}
    engine = PolicyEngine(seed_policy(["spiffe://x/admin"], document))
    assert engine.holds_some("spiffe://x/app", ["keys.get"], resource) is may
    assert not engine.holds_some("spiffe://x/app", ["keys.rotate"], resource)
    assert not engine.holds_some("spiffe://x/stranger", ["keys.get"], resource)
