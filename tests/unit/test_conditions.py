"""Conditions: what may be written, what it means, and that whatever goes wrong fails closed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from vaultd.engine.conditions import (
    MAX_CLAIM_VALUES,
    MAX_CONDITION_CHARS,
    ConditionInvalid,
    Facts,
    Question,
    compile_condition,
)
from vaultd.engine.policy import MAX_ASKED, MAX_CONDITIONS, Conditional, Decision, Policy, PolicyEngine
from vaultd.errors import InvalidArgument

APP = "spiffe://example.org/app"
KEY = "vaults/default/keys/orders"
# 2027-01-15, a Friday, 08:00:00 UTC
NOW_US = 1_800_000_000_000_000
CLAIMS = {"groups": ["ops", "dev"], "email": "a@example.org", "level": 3, "nested": {"a": [1, 2]}}
LABELS = {"env": "dev", "team": "payments"}


def holds(text: str, *, claims: Any = CLAIMS, labels: Any = LABELS, now_us: int = NOW_US) -> bool | None:
    facts = Facts("/vaultd.v1.CryptoService/Encrypt", now_us, claims, labels)
    return compile_condition(text).holds(Question(APP, "crypto.encrypt", KEY, facts))


@pytest.mark.parametrize(
    "text",
    [
        "true",
        'principal == "spiffe://example.org/app"',
        'principal.startsWith("spiffe://example.org/")',
        'request.method == "/vaultd.v1.CryptoService/Encrypt"',
        'request.method.endsWith("/Encrypt")',
        'request.permission in ["crypto.encrypt", "crypto.decrypt"]',
        'request.time < timestamp("2027-02-01T00:00:00Z")',
        'request.time - duration("1h") > timestamp("2027-01-01T00:00:00Z")',
        "request.time.getHours() == 8 && request.time.getDayOfWeek() == 5",
        'resource.name == "vaults/default/keys/orders"',
        'resource.labels.env == "dev"',
        'resource.labels["team"] == "payments"',
        "has(resource.labels.env) && !has(resource.labels.owner)",
        '"env" in resource.labels',
        '"ops" in claims.groups',
        'claims.groups.exists(g, g == "dev")',
        'claims.groups.all(g, size(g) == 3) && claims.email.contains("@")',
        "claims.level >= 2 && claims.level < 10",
        "claims.nested.a[1] == 2",
        '!has(claims.absent) || claims.absent == "x"',
        'claims.level > 5 ? false : "exists" != "nothing"',
    ],
)
def test_a_condition_that_is_true_holds(text: str) -> None:
    assert holds(text) is True


@pytest.mark.parametrize(
    "text", ["false", 'resource.labels.env == "prod"', "request.time.getHours() < 8", 'claims.level == "3"']
)
def test_a_condition_that_is_false_does_not_hold(text: str) -> None:
    assert holds(text) is False


@pytest.mark.parametrize(
    "text",
    [
        'resource.labels.owner == "x"',
        "claims.absent == 1",
        "claims.level.a == 1",
        "claims.email > 3",
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        'int("x") == 1',
        'timestamp("yesterday") < request.time',
        "1",
        '"true"',
        "claims.groups",
        "claims.nested.a[7] == 1",
        "claims.email.startsWith(1)",
    ],
)
def test_a_condition_that_cannot_be_evaluated_to_a_boolean_fails(text: str) -> None:
    assert holds(text) is None


@pytest.mark.parametrize(
    "claims",
    [{"level": 2**80}, {"level": float("nan")}, {"level": object()}, {1: 2}, {"level": {"level": b"\xff"}}],
)
def test_claims_of_any_kind_fail_at_worst(claims: dict[Any, Any]) -> None:
    assert holds("claims.level == 3", claims=claims) in {None, False}


@pytest.mark.parametrize(("size", "expected"), [(MAX_CLAIM_VALUES - 2, True), (MAX_CLAIM_VALUES - 1, None)])
def test_claims_are_bounded_in_number(size: int, expected: bool | None) -> None:
    assert holds("claims.level == 3", claims={"level": 3, "many": list(range(size))}) is expected


def test_deeply_nested_claims_do_no_harm() -> None:
    nested: Any = 1
    for _ in range(900):
        nested = [nested]
    assert holds("claims.level == 3", claims={"level": nested}) in {None, False}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "1 +",
        "principal ==",
        "request",
        "request.tme",
        'request["time"] == request.time',
        "resource",
        "resource.owner == 1",
        "nobody == 1",
        ".principal == 1",
        "type(1) == int",
        "foo(1)",
        'principal.matches("a+")',
        "claims.a.transformList(i, v, v) == []",
        'request.time.getHours("Europe/Berlin") == 1',
        "[1].exists(x, [2].exists(y, x == y))",
        "[1].exists(x, claims.a == x)",
        "[1].exists(x, x + x == 2)",
        "[1].exists(x, ([x, 2] + [3])[0] == 1)",
        "[1].map(x, x) == [1]",
        "claims.groups.filter(x, true) == []",
        "[1].exists(x, [2] . all (y, y == x))",
        "[1].exists(principal, true)",
        'r"a" == principal',
        'b"a" == principal',
        '"""a""" == principal',
        "'''a''' == principal",
        '"a\\"b" == principal',
        '"a\nb" == principal',
        "true // why",
        "true /* why */",
        "`principal` == 1",
        "true\x00",
        "true; false",
        "claims.?a == 1",
        "principal == 'ä",
        "1 + " * 9 + "1 == 10",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ConditionInvalid) as refused:
        compile_condition(text)
    assert "nobody" not in str(refused.value)
    assert "foo" not in str(refused.value)


def test_a_condition_is_bounded_in_length() -> None:
    padded = "true" + " " * (MAX_CONDITION_CHARS - 4)
    compile_condition(padded)
    with pytest.raises(ConditionInvalid, match="1,000"):
        compile_condition(padded + " ")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 498 + "true" + ")" * 498,
        "!" * 990 + "true",
        "[" * 498 + "]" * 498,
        "size(" * 160 + "1" + ")" * 160,
        "claims" + ".a" * 490,
        "&&".join(["true"] * 166),
        "true?" * 90 + "true" + ":true" * 90,
        "{1:" * 240 + "1" + "}" * 240,
        "1" * 1000,
        "-" * 999 + "1",
    ],
)
def test_no_shape_of_a_condition_does_harm(text: str) -> None:
    try:
        assert holds(text) in {True, False, None}
    except ConditionInvalid:
        pass


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1," * 240 + "1].all(x, x in [" + "2," * 240 + "1])",
        "claims.many.all(x, x in [" + "2," * 450 + "1] || true)",
        " && ".join(["claims.many.exists(g, g == 8)"] * 30),
        " + ".join(["claims.many"] * 9) + " == claims.many",
    ],
)
def test_the_dearest_conditions_are_cheap_enough(text: str) -> None:
    many = {"many": list(range(MAX_CLAIM_VALUES - 1))}
    holds(text, claims=many)  # compiled
    begun = time.thread_time()
    holds(text, claims=many)
    assert time.thread_time() - begun < 0.25


# Conditions in a policy.


def bound(condition: str, role: str = "crypto-user") -> dict[str, Any]:
    return {"members": [APP], "role": role, "resource": "vaults/default", "condition": condition}


def barred(condition: str) -> dict[str, Any]:
    entry = {"members": [APP], "permissions": ["crypto.encrypt"], "resource": "vaults"}
    return entry | {"condition": condition}


def engine(**sections: Any) -> PolicyEngine:
    return PolicyEngine(Policy.parse(sections))


FACTS = Facts("/m", NOW_US, CLAIMS, LABELS)


def test_a_binding_applies_while_its_condition_holds() -> None:
    decisions = engine(bindings=[bound('resource.labels.env == "dev"')])
    reason = "bindings[0] gives crypto-user on vaults/default"
    assert decisions.decide(APP, "crypto.encrypt", KEY, FACTS) == Decision(True, reason, "vaults/default")
    other = Facts("/m", NOW_US, CLAIMS, {"env": "prod"})
    assert decisions.decide(APP, "crypto.encrypt", KEY, other) == Decision(False, "no binding")


def test_a_binding_whose_condition_fails_does_not_apply() -> None:
    decisions = engine(bindings=[bound('resource.labels.owner == "x"')])
    assert not decisions.allows(APP, "crypto.encrypt", KEY, FACTS)


def test_without_facts_no_conditional_binding_applies_and_every_conditional_deny_does() -> None:
    assert not engine(bindings=[bound("true")]).allows(APP, "crypto.encrypt", KEY)
    assert not engine(bindings=[{"members": [APP], "role": "admin", "resource": "/"}], denies=[barred("false")]).allows(
        APP, "crypto.encrypt", KEY
    )


@pytest.mark.parametrize(
    ("condition", "applies"),
    [("true", True), ("false", False), ('resource.labels.owner == "x"', True), ("1", True), ("claims.x", True)],
)
def test_a_deny_applies_unless_its_condition_is_false(condition: str, applies: bool) -> None:
    everything = {"members": [APP], "role": "admin", "resource": "/"}
    decisions = engine(bindings=[everything], denies=[barred(condition)])
    assert decisions.allows(APP, "crypto.encrypt", KEY, FACTS) is not applies


def test_an_unconditional_binding_decides_before_a_conditional_one() -> None:
    everything = {"members": [APP], "role": "admin", "resource": "/"}
    decisions = engine(bindings=[bound("true"), everything])
    assert decisions.decide(APP, "crypto.encrypt", KEY, FACTS).reason == "bindings[1] gives admin on /"


def test_a_decision_without_conditions_is_kept_and_one_with_them_is_made_anew() -> None:
    decisions = engine(bindings=[bound("request.time.getHours() == 8"), bound("true", "signer")])
    at_nine = Facts("/m", NOW_US + 3_600_000_000)
    assert decisions.allows(APP, "crypto.encrypt", KEY, FACTS)
    assert not decisions.allows(APP, "crypto.encrypt", KEY, at_nine)
    assert isinstance(decisions.look_up(APP, "crypto.encrypt", KEY), Conditional)
    assert decisions.look_up(APP, "keys.purge", KEY) is decisions.look_up(APP, "keys.purge", KEY)
    assert isinstance(decisions.look_up(APP, "keys.purge", KEY), Decision)


def test_only_conditions_that_ask_for_labels_need_them() -> None:
    def needs(condition: str) -> bool:
        found = engine(bindings=[bound(condition)]).look_up(APP, "crypto.sign", KEY)
        assert isinstance(found, Conditional)
        return found.needs_labels

    assert needs('resource.labels.env == "dev"')
    assert needs("has(resource.labels.env)")
    assert not needs('resource.name != "resource.labels"')
    assert not needs("has(claims.resource.labels)")


@pytest.mark.parametrize("section", ["bindings", "denies"])
@pytest.mark.parametrize("condition", ["", "1 +", "CANARY()", 7, None, ["true"]])
def test_a_faulty_condition_is_a_fault_of_the_policy_at_its_path(section: str, condition: Any) -> None:
    make = bound if section == "bindings" else barred
    with pytest.raises(InvalidArgument) as refused:
        Policy.parse({section: [make("true"), make(condition)]})
    assert (refused.value.reason, refused.value.field) == ("POLICY_INVALID", f"{section}[1].condition")
    assert "CANARY" not in refused.value.text


def test_conditions_are_bounded_in_number() -> None:
    Policy.parse({"bindings": [bound("true")] * MAX_CONDITIONS})
    with pytest.raises(InvalidArgument, match="conditions"):
        Policy.parse({"bindings": [bound("true")] * MAX_CONDITIONS, "denies": [barred("true")]})


def test_one_decision_asks_a_bounded_number_of_conditions_and_beyond_it_fails_closed() -> None:
    some = [bound("false")] * MAX_ASKED
    assert engine(bindings=[*some[1:], bound("true")]).allows(APP, "crypto.encrypt", KEY, FACTS)
    assert not engine(bindings=[*some, bound("true")]).allows(APP, "crypto.encrypt", KEY, FACTS)
    everything = {"members": [APP], "role": "admin", "resource": "/"}
    denies = [barred("false")] * MAX_ASKED
    assert engine(bindings=[everything], denies=denies).allows(APP, "crypto.encrypt", KEY, FACTS)
    assert not engine(bindings=[everything], denies=[*denies, barred("false")]).allows(
        APP, "crypto.encrypt", KEY, FACTS
    )


def test_a_policy_with_conditions_survives_its_document() -> None:
    document = {"roles": [], "groups": [], "bindings": [bound("true"), bound("false")], "denies": [barred("true")]}
    assert Policy.parse(document).to_document() == document
