"""`vaultctl policy`, against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from commandline import run_here as vaultctl
from harness import ADMIN, APP, running_server
from vaultd.engine.policy import Policy
from vaultd_client.policy_files import dump_policy, read_policy, read_tests
from vaultd_client.schema import DocumentInvalid, check, load_schema, load_yaml
from vaultd_client.v1 import policy_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER = "spiffe://dev.vaultd/owner"
POLICY: dict[str, list[dict[str, Any]]] = {
    "roles": [{"name": "mine", "permissions": ["crypto.sign"]}],
    "groups": [{"name": "ops", "members": [OWNER]}],
    "bindings": [
        {"members": [APP], "role": "crypto-user", "resource": "vaults/default"},
        {"members": ["group:ops"], "role": "vault-operator", "resource": "vaults/default"},
        {"members": [ADMIN], "role": "admin", "resource": "/"},
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory):
    seed = {**POLICY, "bindings": POLICY["bindings"][:-1]}
    async with running_server(tmp_path_factory.mktemp("policy"), policy=seed) as running:
        running.add_identity("owner", uri=OWNER)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def server(running, tmp_path):
    policy = read_policy(Path(write(tmp_path / "seed.yaml", POLICY)))
    await running.admin.admin.SetPolicy(policy_pb2.SetPolicyRequest(resource="/", policy=policy))
    return running


def write(path: Path, document: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    return str(path)


def with_binding(resource: str, role: str, *members: str) -> dict[str, Any]:
    added = {"members": list(members), "role": role, "resource": resource}
    return {**POLICY, "bindings": [*POLICY["bindings"], added]}


async def test_what_get_prints_is_the_policy_and_differs_in_nothing(server, tmp_path):
    code, out, _ = await vaultctl(server, "policy", "get")
    assert (code, yaml.safe_load(out)) == (0, POLICY)
    assert await vaultctl(server, "policy", "diff", write(tmp_path / "p.yaml", out)) == (0, "", "")


async def test_a_difference_is_shown_and_is_exit_code_1(server, tmp_path):
    path = write(tmp_path / "p.yaml", with_binding("vaults/default", "signer", OWNER))
    code, out, _ = await vaultctl(server, "policy", "diff", path)
    assert code == 1
    assert out.startswith("--- server /\n+++ ")
    assert "+  role: signer\n" in out


async def test_apply_shows_the_difference_and_makes_it_so(server, tmp_path):
    path = write(tmp_path / "p.yaml", with_binding("vaults/default", "signer", OWNER))
    code, out, _ = await vaultctl(server, "policy", "apply", path, "--yes")
    assert code == 0
    assert "+  role: signer\n" in out
    assert out.endswith("policy of / set: 1 entries added, 0 removed\n")
    assert (await vaultctl(server, "policy", "diff", path))[0] == 0
    code, out, _ = await vaultctl(server, "policy", "apply", path, "--yes")
    assert (code, "already" in out) == (0, True)


async def test_apply_changes_nothing_when_nobody_can_be_asked(server, tmp_path):
    path = write(tmp_path / "p.yaml", with_binding("vaults/default", "signer", OWNER))
    code, _, err = await vaultctl(server, "policy", "apply", path)
    assert (code, "--yes" in err) == (2, True)
    assert (await vaultctl(server, "policy", "diff", path))[0] == 1


async def test_the_administrator_of_a_vault_applies_the_policy_of_its_vault(server, tmp_path):
    bindings = [*POLICY["bindings"][:2], {"members": [APP], "role": "key-admin", "resource": "vaults/default"}]
    path = write(tmp_path / "vault.yaml", {"bindings": bindings})
    arguments = ("policy", "apply", path, "--resource", "vaults/default", "--yes")
    code, out, err = await vaultctl(server, *arguments, identity="owner")
    assert (code, err) == (0, "")
    assert "1 entries added" in out
    bindings[2]["role"] = "admin"
    write(tmp_path / "vault.yaml", {"bindings": bindings})
    code, _, err = await vaultctl(server, *arguments, identity="owner")
    assert code == 4
    assert err.startswith("vaultctl: POLICY_GRANTS_TOO_MUCH: ")
    assert err.splitlines()[0].endswith("(at bindings[2])")


async def test_a_refusal_of_the_server_says_what_why_and_what_next(server):
    code, out, err = await vaultctl(server, "policy", "get", identity="app")
    assert (code, out) == (4, "")
    what, hint, request = err.splitlines()
    assert what.startswith("vaultctl: PERMISSION_DENIED: ")
    assert "vaultctl policy explain --incident-id" in hint
    assert request.startswith("  request: ")
    assert request.removeprefix("  request: ") in hint


@pytest.mark.parametrize(
    ("environment", "exit_code", "told"),
    [
        ({"VAULTD_ADDR": ""}, 2, "VAULTD_ADDR"),
        ({"VAULTD_CERT": "/nonexistent.crt"}, 2, "/nonexistent.crt cannot be read: No such file"),
        ({"VAULTD_ADDR": "127.0.0.1:1"}, 6, "UNREACHABLE"),
    ],
)
async def test_a_server_that_is_not_reached_has_its_exit_code(server, environment, exit_code, told):
    code, _, err = await vaultctl(server, "policy", "get", **environment)
    assert (code, told in err) == (exit_code, True)


async def test_flags_go_before_the_environment(server):
    tls = server.directory / "tls"
    flags = ("--cert", str(tls / "admin.crt"), "--key", str(tls / "admin.key"))
    assert (await vaultctl(server, *flags, "policy", "get", identity="app"))[0] == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bindings: [{members: [], role: admin, resource: /}]", "bindings[0].members is empty"),
        ("binding: []", "has `binding`, which is not one of roles, groups, bindings, denies"),
        ("bindings: [{role: admin, resource: /}]", "bindings[0] lacks `members`"),
        ("bindings:\n- {members: ['dns:a'], role: a, resource: vaults/}", "bindings[0].resource must match"),
        ("bindings: []\nbindings: []", "a key is given twice"),
        ("roles: [{name: 7, permissions: [keys.get]}]", "roles[0].name must be text"),
        ("[", "this is no YAML"),
        ("", "must be a mapping"),
    ],
)
async def test_a_faulty_file_is_refused_with_the_place_of_the_fault(tmp_path, text, told):
    path = write(tmp_path / "p.yaml", text)
    with pytest.raises(DocumentInvalid) as refused:
        read_policy(Path(path))
    assert str(refused.value).startswith(f"{path}: ")
    assert told in str(refused.value)


async def test_a_faulty_file_is_one_line_and_exit_code_2(server, tmp_path):
    path = write(tmp_path / "p.yaml", "binding: []")
    code, out, err = await vaultctl(server, "policy", "diff", path)
    assert (code, out) == (2, "")
    assert err == (
        f"vaultctl: {path}: the document has `binding`, which is not one of roles, groups, bindings, denies\n"
    )


TESTS = """
policy: policy.yaml
tests:
  - name: the application encrypts in working hours
    given:
      identity: spiffe://dev.vaultd/app
      call: Encrypt
      resource: vaults/default/keys/orders
      claims: {team: [a, b], level: 3}
      labels: {env: dev}
      time: 2027-01-31T09:00:00Z
    expect: allow
  - name: and not at night
    given:
      identity: spiffe://dev.vaultd/app
      call: /vaultd.v1.CryptoService/Encrypt
      resource: vaults/default/keys/orders
      claims: {team: [a, b], level: 3}
      labels: {env: dev}
      time: "2027-01-31T23:00:00Z"
    expect: deny
  - given: {identity: "spiffe://dev.vaultd/app", permission: keys.purge, resource: vaults/default/keys/orders}
    expect: deny
"""
CANDIDATE = {
    "bindings": [
        {
            "members": [APP],
            "role": "crypto-user",
            "resource": "vaults/default",
            "condition": 'request.time.getHours() >= 8 && request.time.getHours() < 18 && "a" in claims.team '
            '&& claims.level == 3 && resource.labels.env == "dev" && request.method.endsWith("/Encrypt")',
        },
        {"members": [ADMIN], "role": "admin", "resource": "/"},
    ]
}


async def test_expectations_that_are_met_are_exit_code_0(server, tmp_path):
    write(tmp_path / "policy.yaml", CANDIDATE)
    code, out, err = await vaultctl(server, "policy", "test", write(tmp_path / "tests.yaml", TESTS))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "ok    the application encrypts in working hours",
        "ok    and not at night",
        f"ok    {APP} keys.purge vaults/default/keys/orders",
        "3 passed, 0 failed",
    ]


async def test_an_expectation_that_is_not_met_is_exit_code_1_and_says_why(server, tmp_path):
    write(tmp_path / "policy.yaml", CANDIDATE)
    tests = TESTS.replace("expect: allow", "expect: deny")
    code, out, _ = await vaultctl(server, "policy", "test", write(tmp_path / "tests.yaml", tests))
    assert code == 1
    assert (
        "FAIL  the application encrypts in working hours: allowed, not denied (crypto.encrypt: bindings[0] gives" in out
    )
    assert out.endswith("2 passed, 1 failed\n")


async def test_without_a_policy_the_one_in_force_is_tested(server, tmp_path):
    tests = [
        {"given": {"identity": APP, "call": "Sign", "resource": "vaults/default"}, "expect": "allow"},
        {"given": {"identity": APP, "call": "Sign", "resource": "vaults/other"}, "expect": "deny"},
        {"given": {"identity": OWNER, "permission": "policy.set", "resource": "vaults/default"}, "expect": "allow"},
    ]
    code, out, _ = await vaultctl(server, "policy", "test", write(tmp_path / "tests.yaml", {"tests": tests}))
    assert (code, out.splitlines()[-1]) == (0, "3 passed, 0 failed")


async def test_a_policy_of_one_vault_is_tested_where_it_belongs(server, tmp_path):
    write(tmp_path / "v.yaml", {"bindings": [{"members": [APP], "role": "signer", "resource": "vaults/default"}]})
    given = {"identity": APP, "resource": "vaults/default/keys/k"}
    tests = [
        {"given": {**given, "call": "Sign"}, "expect": "allow"},
        {"given": {**given, "call": "Encrypt"}, "expect": "deny"},
    ]
    document = {"policy": "v.yaml", "resource": "vaults/default", "tests": tests}
    path = write(tmp_path / "tests.yaml", document)
    assert (await vaultctl(server, "policy", "test", path, identity="owner"))[0] == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"identity": APP, "resource": "/"}, "needs either `call` or `permission`"),
        ({"identity": APP, "resource": "/", "call": "x", "permission": "keys.get"}, "needs either"),
        ({"identity": APP, "resource": "/", "call": "x", "time": "tomorrow"}, "given.time must match"),
        ({"identity": APP, "resource": "/", "call": "x", "time": "2027-13-31T00:00:00Z"}, "given.time is no time"),
        ({"identity": "app", "resource": "/", "call": "x"}, "given.identity must match"),
        ({"identity": APP, "resource": "/", "call": "x", "claim": {}}, "has `claim`"),
    ],
)
async def test_a_faulty_test_is_refused_with_the_place_of_the_fault(tmp_path, given, told):
    path = write(tmp_path / "tests.yaml", {"tests": [{"given": given, "expect": "allow"}]})
    with pytest.raises(DocumentInvalid) as refused:
        read_tests(Path(path))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"identity": APP, "resource": "/", "call": "Nothing"}, "METHOD_NAME"),
        ({"identity": APP, "resource": "/", "permission": "keys.nothing"}, "PERMISSION_UNKNOWN"),
    ],
)
async def test_a_test_that_the_server_refuses_is_exit_code_2(server, tmp_path, given, told):
    path = write(tmp_path / "tests.yaml", {"tests": [{"given": given, "expect": "allow"}]})
    code, _, err = await vaultctl(server, "policy", "test", path)
    assert (code, told in err) == (2, True), err


async def test_the_schemas_are_printed(server):
    for name in ("policy", "policy-test"):
        code, out, _ = await vaultctl(server, "policy", "schema", name)
        assert (code, json.loads(out)) == (0, load_schema(name))


async def test_the_schema_takes_what_the_server_takes(tmp_path):
    document = {
        **CANDIDATE,
        "groups": [{"name": "g", "members": ["dns:a.example.org", "jwt:k8s:system:x"]}],
        "denies": [{"members": ["group:g"], "permissions": ["keys.get"], "resource": "vaults/a/secrets/b"}],
    }
    schema = load_schema("policy")
    check(load_yaml(yaml.safe_dump(document)), schema, schema)
    path = Path(write(tmp_path / "p.yaml", document))
    assert Policy.parse(yaml.safe_load(dump_policy(read_policy(path)))) == Policy.parse(document)


async def test_an_empty_policy_is_a_file_too(tmp_path):
    path = Path(write(tmp_path / "p.yaml", dump_policy(policy_pb2.Policy())))
    assert read_policy(path) == policy_pb2.Policy()


async def test_a_file_of_tests_names_the_missing_policy(tmp_path):
    path = Path(write(tmp_path / "t.yaml", TESTS))
    with pytest.raises(FileNotFoundError, match=r"policy\.yaml"):
        read_tests(path)
    with pytest.raises(DocumentInvalid, match="tests is empty"):
        read_tests(Path(write(tmp_path / "t2.yaml", {"tests": []})))
