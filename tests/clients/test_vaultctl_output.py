"""What goes in and comes out of vaultctl: forms, payloads, secrets, pages, refusals, exit codes; and as a real process."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import signal
import sys
from typing import Any

import pytest
import pytest_asyncio
import yaml

from commandline import VAULTCTL, ctl, environment_of, vaultctl
from harness import APP, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

VERSION = "vaults/default/keys/orders/versions/1"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("ctl"), limits={"overload_delay_ms": 0}) as running:
        running.add_identity("nobody", uri="spiffe://dev.vaultd/nobody")
        for key, purpose in (("orders", "encrypt_decrypt"), ("signer", "sign"), ("tags", "mac")):
            done = await ctl(running, "keys", "create", key, "--purpose", purpose, "--label", "team=a")
            assert done.exit_code == 0, done.stderr
        yield running


async def ok(server: Any, *arguments: Any, **options: Any) -> Any:
    """The result of a command that is done."""
    done = await ctl(server, *arguments, **options)
    assert done.exit_code == 0, (arguments, done.exit_code, done.stderr)
    return done


# -- forms ------------------------------------------------------------------------------------------------------------------


async def test_a_resource_is_a_list_of_its_fields_for_people(server):
    lines = (await ok(server, "keys", "get", "orders")).stdout.splitlines()
    shown = dict(line.split(None, 1) for line in lines)
    assert shown["name"] == "vaults/default/keys/orders"
    assert (shown["purpose"], shown["labels"]) == ("ENCRYPT_DECRYPT", "team=a")
    assert shown["create_time"].endswith(" ago)") or shown["create_time"].endswith("(now)")


async def test_json_has_every_field_by_the_name_of_the_protos(server):
    key = json.loads((await ok(server, "keys", "get", "orders", "--output", "json")).stdout)
    assert (key["purpose"], key["exportable"], key["newest_version"]) == ("KEY_PURPOSE_ENCRYPT_DECRYPT", False, 1)
    said = yaml.safe_load((await ok(server, "-o", "yaml", "keys", "get", "orders")).stdout)
    assert said == key


async def test_fields_choose_what_is_shown_in_every_form(server):
    table = (await ok(server, "keys", "list", "--fields", "name,labels")).stdout.splitlines()
    assert table[0].split() == ["NAME", "LABELS"]
    assert table[1].split() == ["vaults/default/keys/orders", "team=a"]
    listed = json.loads((await ok(server, "keys", "list", "--fields", "name", "--output", "json")).stdout)
    assert {"name": "vaults/default/keys/orders"} in listed["keys"]
    one = json.loads(
        (await ok(server, "keys", "get", "orders", "--fields", "state,labels.team", "--output", "json")).stdout
    )
    assert one == {"state": "KEY_STATE_ACTIVE", "labels.team": "a"}
    done = await ctl(server, "keys", "list", "--fields", "colour")
    assert (done.exit_code, "no field `colour`" in done.stderr) == (2, True)


async def test_lists_come_whole_or_as_long_as_they_may_be(server):
    for number in range(5):
        await ok(server, "secrets", "create", f"page-{number}")
    listed = json.loads((await ok(server, "secrets", "list", "--output", "json", "--limit", "3")).stdout)
    assert len(listed["secrets"]) == 3
    assert listed["next_page_token"]
    whole = json.loads((await ok(server, "secrets", "list", "--output", "json")).stdout)
    assert len(whole["secrets"]) >= 5
    assert whole["next_page_token"] == ""


# -- payloads ---------------------------------------------------------------------------------------------------------------


async def test_bytes_go_through_pipes_as_they_are(server):
    plain = bytes(range(256))
    sealed = (await ok(server, "crypto", "encrypt", "orders", "--associated-data", "aad", data=plain)).stdout_bytes
    opened = await ok(server, "crypto", "decrypt", "orders", "-", "--associated-data-hex", b"aad".hex(), data=sealed)
    assert opened.stdout_bytes == plain
    refused = await ctl(server, "crypto", "decrypt", "orders", data=sealed)
    assert (refused.exit_code, "DECRYPTION_FAILED" in refused.stderr) == (1, True)


async def test_a_secret_goes_in_and_out_and_no_table_shows_it(server, tmp_path):
    put = await ok(server, "secrets", "put", "db", "--trim", data=b"hunter2\n")
    assert put.stdout == "vaults/default/secrets/db/versions/1\n"
    assert (await ok(server, "secrets", "put", "db", data=b"hunter3")).stdout.endswith("/versions/2\n")
    assert (await ok(server, "secrets", "access", "db/1")).stdout_bytes == b"hunter2"
    table = (await ok(server, "secrets", "access", "db", "--output", "table")).stdout
    assert "hunter" not in table
    assert "<7 bytes;" in table
    assert "hunter3" in (await ok(server, "secrets", "access", "db", "--output", "table", "--reveal")).stdout
    document = json.loads((await ok(server, "secrets", "access", "db", "--output", "json")).stdout)
    assert document["payload"] == "aHVudGVyMw=="
    out = tmp_path / "value"
    await ok(server, "secrets", "access", "db", "--out", out)
    assert (out.read_bytes(), out.stat().st_mode & 0o777) == (b"hunter3", 0o600)
    again = await ctl(server, "secrets", "access", "db", "--out", out)
    assert (again.exit_code, "exists" in again.stderr) == (2, True)


async def test_what_is_secret_is_no_option_since_others_see_command_lines(server):
    for arguments in (
        ("crypto", "encrypt", "orders", "--plaintext", "x"),
        ("secrets", "add", "db", "--payload", "x"),
        ("admin", "unseal", "--passphrase", "x"),
        ("crypto", "wrap", "orders", "--key-material-base64", "eA=="),
    ):
        done = await ctl(server, *arguments)
        assert (done.exit_code, "No such option" in done.stderr) == (2, True)


async def test_a_wrong_signature_is_exit_code_1(server):
    signature = (await ok(server, "crypto", "sign", "signer", "--message", "m", "--output", "raw")).stdout_bytes
    right = ("crypto", "verify", "signer", "--message", "m", "--signature-file", "-")
    assert (await ok(server, *right, data=signature)).stdout.split()[:2] == ["valid", "yes"]
    wrong = await ctl(server, "crypto", "verify", "signer", "--message", "n", "--signature-file", "-", data=signature)
    assert (wrong.exit_code, wrong.stdout.split()[:2]) == (1, ["valid", "no"])


async def test_batches_take_and_give_json_lines_and_items_fail_by_themselves(server):
    name = "vaults/default/keys/tags"
    lines = [json.dumps({"name": name, "data": "aGk="}), "", json.dumps({"name": f"{name}-nowhere", "data": "aGk="})]
    done = await ctl(server, "crypto", "batch", "mac", data="\n".join(lines).encode())
    first, second = map(json.loads, done.stdout.splitlines())
    assert len(first["result"]["mac"]) == 44
    assert second["status"]["code"] == 5
    assert (done.exit_code, done.stderr.splitlines()[0]) == (1, "vaultctl: 1 items failed")
    broken = await ctl(server, "crypto", "batch", "mac", data=b"{}\nnot json\n")
    assert (broken.exit_code, "line 2: this is no JSON" in broken.stderr) == (2, True)


async def test_a_stream_with_a_bad_line_says_so(server):
    done = await ctl(server, "crypto", "stream", data=b"[not json\n")
    assert (done.exit_code, "line 1: this is no JSON" in done.stderr) == (2, True)


async def test_ciphertexts_move_to_the_newest_version_in_their_order(server, tmp_path):
    await ok(server, "keys", "create", "moving", "--purpose", "encrypt_decrypt")
    name = "vaults/default/keys/moving"
    items = [json.dumps({"name": name, "plaintext": "aGk=", "associated_data": "YWFk"})] * 3
    batch = await ok(server, "crypto", "batch", "encrypt", data="\n".join(items).encode())
    sealed = [json.loads(line)["result"]["ciphertext"] for line in batch.stdout.splitlines()]
    await ok(server, "keys", "rotate", "moving")
    source, out = tmp_path / "old", tmp_path / "new"
    source.write_text("".join(f"{one}\tYWFk\n" for one in sealed) + "AAAA\n")
    done = await ctl(server, "crypto", "reencrypt-all", "moving", source, "--out", out)
    moved = out.read_text().splitlines()
    again = await ctl(server, "crypto", "reencrypt-all", "moving", data=out.read_bytes())
    assert again.stdout_bytes == out.read_bytes()
    assert "0 moved, 3 on the newest version already, 1 failed" in again.stderr
    assert done.exit_code == 1
    assert "3 moved, 0 on the newest version already, 1 failed" in done.stderr
    assert f"{source}:4: " in done.stderr
    assert moved[3] == "AAAA"
    for line, before in zip(moved[:3], sealed, strict=True):
        ciphertext, _, associated = line.partition("\t")
        assert ciphertext != before
        assert associated == "YWFk"
        inspected = await ok(server, "crypto", "inspect", "moving", "--ciphertext-base64", ciphertext)
        assert f"{name}/versions/2" in inspected.stdout
        arguments = ("--ciphertext-base64", ciphertext, "--associated-data", "aad")
        assert (await ok(server, "crypto", "decrypt", "moving", *arguments)).stdout_bytes == b"hi"


@pytest.mark.parametrize("line", [b"no base64!", b"\xff\xfe", "AAAA\tä".encode()])
async def test_a_line_that_is_no_ciphertext_leaves_no_file_in_the_way_of_the_next_try(server, tmp_path, line):
    source, out = tmp_path / "old", tmp_path / "new"
    source.write_bytes(b"AAAA\n" + line + b"\n")
    again = ("crypto", "reencrypt-all", "orders", source, "--out", out)
    for _ in range(2):
        done = await ctl(server, *again)
        assert (done.exit_code, done.stderr) == (2, "vaultctl: line 2 is no base64\n")
    source.write_bytes(b"")
    assert (await ok(server, *again)).stderr == ""
    assert out.read_bytes() == b""
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["new", "old"]
    assert "exists: choose another name" in (await ctl(server, *again)).stderr


@pytest.mark.parametrize("text", ["-_8", "-_8=", " -_\n8 ", "+/8=", "+/8"])
async def test_base64_is_taken_in_either_alphabet_with_or_without_padding(server, text):
    done = await ok(server, "crypto", "mac", "tags", "--data-base64", text, "--output", "raw")
    assert (
        done.stdout_bytes
        == (await ok(server, "crypto", "mac", "tags", "--data-hex", "fbff", "--output", "raw")).stdout_bytes
    )


async def test_any_rpc_is_called_with_json(server, tmp_path):
    request = tmp_path / "request.json"
    request.write_text('{"name": "vaults/default/keys/orders"}')
    for method in ("GetKey", "KeysService/GetKey", "/vaultd.v1.KeysService/GetKey", "vaultd.v1.KeysService/GetKey"):
        assert json.loads((await ok(server, "call", method, "--json", f"@{request}")).stdout)["newest_version"] == 1
    stream = await ok(server, "call", "TailAudit", "--json", '{"afterSequence": 0, "stop_at_end": true}')
    assert all(json.loads(line)["chain_id"] for line in stream.stdout.splitlines())
    for arguments, text in {
        ("call", "GetNothing"): "there is no RPC",
        ("call", "CryptoService/GetKey"): "there is no RPC",
        ("call", "GetKey", "--json", "[1"): "this is no JSON",
        ("call", "GetKey", "--json", '{"nam": 1}'): 'no field named "nam"',
        ("call", "PurgeKey", "--json", '{"name": "vaults/default/keys/orders"}'): "--yes",
    }.items():
        done = await ctl(server, *arguments)
        assert (done.exit_code, text in done.stderr) == (2, True), done.stderr


# -- what is said when it goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "identity", "exit_code", "told"),
    [
        (("keys", "get", "nowhere"), "admin", 3, "KEY_NOT_FOUND"),
        (("keys", "get", "orders"), "nobody", 4, "PERMISSION_DENIED"),
        (("keys", "create", "orders", "--purpose", "sign"), "admin", 5, "KEY_EXISTS"),
        (("keys", "update", "orders", "--label", "a=b", "--etag", '"999"'), "admin", 5, "ETAG_MISMATCH"),
        (("keys", "create", "Wrong", "--purpose", "sign"), "admin", 1, "INVALID_NAME"),
        (("keys", "create", "some"), "admin", 2, "Missing option '--purpose'"),
        (("keys", "create", "some", "--purpose", "baking"), "admin", 2, "is not one of"),
        (("keys", "create", "some", "--purpose", "sign", "--expire-time", "soon"), "admin", 2, "`soon` is no time"),
        (
            ("keys", "create", "some", "--purpose", "sign", "--expire-time", f"+{'9' * 30}d"),
            "admin",
            2,
            "d` is no time",
        ),
        (
            ("keys", "create", "some", "--purpose", "sign", "--expire-time", f"+{'9' * 400}d"),
            "admin",
            2,
            "d` is no time",
        ),
        (
            ("keys", "create", "some", "--purpose", "sign", "--expire-time", "0001-01-01T00:00+12:00"),
            "admin",
            2,
            "no time",
        ),
        (("keys", "update", "orders", "--rotation-period", "30 apples"), "admin", 2, "is no duration"),
        (("keys", "update", "orders", "--rotation-period", f"{'9' * 30}d"), "admin", 2, "is no duration"),
        (("crypto", "decrypt", "orders", "--ciphertext-base64", "aGk!k"), "admin", 2, "this is no base64"),
        (("crypto", "decrypt", "orders", "--ciphertext-base64", "aGk=aGk="), "admin", 2, "this is no base64"),
        (("render", "-", "--on-change", "a 'b"), "admin", 2, "this is no command: No closing quotation"),
        (
            ("profile", "add", "p", "h:1", "--token-command", "a 'b"),
            "admin",
            2,
            "this is no command: No closing quotation",
        ),
        (("keys", "update", "orders"), "admin", 2, "nothing is to be changed"),
        (("crypto", "decrypt", "orders", "/nonexistent/file"), "admin", 2, "/nonexistent/file: No such file"),
        (("crypto", "decrypt", "orders", "--ciphertext-hex", "xyz"), "admin", 2, "not hexadecimal"),
        (("keys", "purge", "orders"), "admin", 2, "say --yes"),
        (("keys", "list", "--output", "raw"), "admin", 2, "no bytes"),
        (("key", "list"), "admin", 2, "Did you mean keys?"),
        (("keys", "rotat", "orders"), "admin", 2, "Did you mean rotate?"),
    ],
)
async def test_each_kind_of_failure_has_its_exit_code(server, arguments, identity, exit_code, told):
    done = await ctl(server, *arguments, identity=identity)
    assert (done.exit_code, told in done.stderr, done.stdout) == (exit_code, True, ""), done.stderr


async def test_what_will_be_lost_is_said_before_it_is(server):
    done = await ctl(server, "keys", "purge", "orders")
    assert "vaults/default/keys/orders is erased with all its versions" in done.stderr
    assert (await ok(server, "keys", "get", "orders")).exit_code == 0


async def test_a_refusal_is_json_for_who_wants_json(server):
    done = await ctl(server, "keys", "get", "nowhere", "--output", "json")
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["reason"], error["exit_code"]) == ("NOT_FOUND", "KEY_NOT_FOUND", 3)
    assert error["request_id"]
    usage = await ctl(server, "keys", "create", "x", "--output", "json")
    assert json.loads(usage.stderr)["error"]["exit_code"] == 2


async def test_a_request_that_needs_approval_is_told_how_to_be_made_again(tmp_path):
    rules = tmp_path / "rules.yaml"
    methods = ["DeleteKey", "PurgeKey", "SetPolicy"]
    rule = {"id": "all", "methods": methods, "resource": "/", "approvers": [APP], "required": 1}
    rules.write_text(yaml.safe_dump({"rules": [rule]}))

    async def approved(*arguments: Any) -> str:
        """Ask, have it approved, and return what the refusal says to add."""
        asked = await ctl(server, *arguments)
        assert asked.exit_code == 5, asked.stderr
        (hint,) = (line for line in asked.stderr.splitlines() if line.startswith("  next: "))
        await ok(server, "approvals", "approve", hint.split()[2], identity="app")
        return hint.split("with ")[1]

    async with running_server(tmp_path / "server") as server:
        await ok(server, "keys", "create", "k", "--purpose", "sign")
        await ok(server, "approvals", "rules", "set", rules, "--yes")
        delete = ("keys", "delete", "k", "--yes")
        await ok(server, *delete, *(await approved(*delete)).split())
        assert "DELETED" in (await ok(server, "keys", "get", "k")).stdout
        policy = tmp_path / "policy.yaml"
        policy.write_text((await ok(server, "policy", "get")).stdout + "groups: [{name: new, members: []}]\n")
        apply = ("policy", "apply", policy, "--yes")
        await ok(server, *apply, *(await approved(*apply)).split())
        assert "new" in (await ok(server, "policy", "get")).stdout
        purge = {"name": "vaults/default/keys/k"}
        request_id = (await approved("call", "PurgeKey", "--yes", "--json", json.dumps(purge))).split('"')[3]
        again = json.dumps({**purge, "request_id": request_id})
        await ok(server, "call", "PurgeKey", "--yes", "--json", again)
        assert (await ctl(server, "keys", "get", "k")).exit_code == 3


# -- profiles ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    return {
        **dict.fromkeys(("VAULTD_ADDR", "VAULTD_CA", "VAULTD_CERT", "VAULTD_KEY"), ""),
        "XDG_CONFIG_HOME": str(tmp_path),
    }


async def add_profile(server: Any, config: dict[str, str], name: str, stem: str, *more: str) -> None:
    tls = server.directory / "tls"
    files = ("--ca", tls / "ca.crt", "--cert", tls / f"{stem}.crt", "--key", tls / f"{stem}.key")
    await ok(server, "profile", "add", name, server.address, *files, *more, **config)


async def test_profiles_say_where_the_server_is_and_who_calls(server, config):
    await add_profile(server, config, "admin", "admin")
    await add_profile(server, config, "app", "app", "--vault", "default", "--output", "json")
    assert "orders" in (await ok(server, "keys", "list", **config)).stdout  # the first one is current
    assert (await ctl(server, "keys", "rotate", "tags", "--profile", "app", **config)).exit_code == 4
    await ok(server, "profile", "use", "app", **config)
    assert (await ctl(server, "keys", "rotate", "tags", **config)).exit_code == 4
    assert (await ok(server, "keys", "rotate", "tags", VAULTD_PROFILE="admin", **config)).exit_code == 0
    listed = (await ok(server, "profile", "list", **config)).stdout.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [["admin", server.address], ["*", "app"]]
    assert yaml.safe_load((await ok(server, "profile", "show", **config)).stdout)["output"] == "json"
    await ok(server, "profile", "remove", "app", **config)
    gone = await ctl(server, "keys", "list", "--profile", "app", **config)
    assert (gone.exit_code, "has no profile `app`; there are admin" in gone.stderr) == (2, True)


async def test_variables_go_before_the_profile_and_a_flag_before_both(server, config):
    await add_profile(server, config, "app", "app")
    admin = environment_of(server) | {"XDG_CONFIG_HOME": config["XDG_CONFIG_HOME"]}
    assert (await ok(server, "keys", "rotate", "tags", **admin)).exit_code == 0
    assert (await ctl(server, "keys", "rotate", "tags", "--profile", "app", **admin)).exit_code == 4
    tls = server.directory / "tls"
    flags = ("--cert", tls / "admin.crt", "--key", tls / "admin.key")
    assert (await ok(server, *flags, "--profile", "app", "keys", "rotate", "tags", **admin)).exit_code == 0


async def test_a_profile_file_that_others_may_write_to_is_not_used(server, config, tmp_path):
    await add_profile(server, config, "app", "app")
    path = tmp_path / "vaultd" / "config.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o664)
    done = await ctl(server, "keys", "list", **config)
    assert (done.exit_code, "others may write" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ({"address": "a:1", "token": "eyJ"}, "has `token`, which is not one of"),
        ({"address": "a:1", "certificate": "c"}, "`certificate` and `key` go together"),
        ({"address": "a:1", "token_file": "t", "token_command": ["x"]}, "say one of"),
        ({"ca": "c"}, "lacks `address`"),
    ],
)
async def test_a_faulty_profile_is_refused_with_its_place(server, config, tmp_path, profile, told):
    path = tmp_path / "vaultd" / "config.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({"current": "p", "profiles": {"p": profile}}))
    path.chmod(0o600)
    done = await ctl(server, "keys", "list", **config)
    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr


async def test_the_sdk_knows_the_profile_of_the_environment(server, config, monkeypatch):
    from vaultd_client import Client, ConfigurationError

    await add_profile(server, config, "app", "app")
    for name, value in config.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="VAULTD_ADDR"):
        Client.from_env()  # a program does not take up what a person works with
    monkeypatch.setenv("VAULTD_PROFILE", "app")
    with Client.from_env() as vault:
        assert (await asyncio.to_thread(vault.encrypt, "vaults/default/keys/orders", b"x")).key_version == VERSION


async def test_tokens_come_from_a_command(server, config, tmp_path):
    from vaultd_client import ConfigurationError
    from vaultd_client.token_command import EARLY_S, UNKNOWN_LIFE_S, TokenCommand

    counter, now = tmp_path / "count", [1_000_000.0]
    payload = base64.urlsafe_b64encode(json.dumps({"exp": now[0] + 600}).encode()).decode().rstrip("=")
    script = tmp_path / "print-token"
    script.write_text(f"#!/bin/sh\necho x >> {counter}\necho a.{payload}.$(wc -l < {counter} | tr -d ' ')\n")
    script.chmod(0o755)
    command = TokenCommand([str(script)], lambda: now[0])
    assert (command(), command()) == (f"a.{payload}.1", f"a.{payload}.1")
    assert command.soon() == f"a.{payload}.1"
    now[0] += 600 - EARLY_S
    assert await command.soon() == f"a.{payload}.2"
    now[0] += UNKNOWN_LIFE_S  # this one has expired, and is asked for each time
    assert command() == f"a.{payload}.3"
    for wrong, told in (
        (["/nonexistent"], "No such file"),
        (["false"], "exit code 1"),
        (["echo", "a", "b"], "nothing else"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            TokenCommand(wrong)()
    await ok(server, "profile", "add", "ci", server.address, "--token-command", "false", **config)
    done = await ctl(server, "keys", "list", **config)
    assert (done.exit_code, "`false`, which is to print a token, failed with exit code 1" in done.stderr) == (2, True)


async def test_a_token_command_that_fails_is_run_once_for_all_who_wait(tmp_path):
    from vaultd_client import ConfigurationError
    from vaultd_client.token_command import REST_S, TokenCommand

    now, runs, begun = [1_000_000.0], tmp_path / "runs", tmp_path / "begun"
    os.mkfifo(begun)
    script = f"echo x >> {runs}; echo > {begun}; exit 1"
    command = TokenCommand(["sh", "-c", script], lambda: now[0])
    callers = [asyncio.create_task(asyncio.to_thread(command)) for _ in range(4)]
    await asyncio.to_thread(begun.read_text)
    failed = await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), 60)
    assert [(type(error), "exit code 1" in str(error)) for error in failed] == [(ConfigurationError, True)] * 4
    assert runs.read_text() == "x\n"
    now[0] += REST_S
    again = asyncio.create_task(asyncio.to_thread(command))
    await asyncio.to_thread(begun.read_text)
    with pytest.raises(ConfigurationError):
        await again
    assert runs.read_text() == "x\n" * 2


# -- on a terminal ----------------------------------------------------------------------------------------------------------


ON_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
"""A process of its own gives the terminal: this one has threads, which do not survive a fork."""


async def terminal(
    server: Any, *arguments: str, question: bytes = b"", answer: bytes = b"", **environment: str
) -> tuple[int, str]:
    """Run the command on a terminal, answer its question, and return exit code and all that it showed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ON_TERMINAL, str(VAULTCTL), *arguments),
        env={**os.environ, **environment_of(server), "TERM": "xterm-256color", "COLUMNS": "120", **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    shown = b""
    async with asyncio.timeout(60):
        while part := await process.stdout.read(65_536):
            shown += part
            if question and question in shown:
                process.stdin.write(answer)
                question = b""
        return await process.wait(), shown.decode()


async def test_colours_are_for_terminals_and_for_who_wants_them(server):
    code, shown = await terminal(server, "keys", "get", "orders")
    assert (code, "\x1b[32mACTIVE" in shown) == (0, True)
    code, shown = await terminal(server, "keys", "get", "orders", NO_COLOR="1")
    assert (code, "ACTIVE" in shown, "\x1b[32m" in shown) == (0, True, False)
    assert "\x1b" not in (await ok(server, "keys", "get", "orders")).stdout


async def test_a_name_is_whole_on_a_narrow_terminal(server):
    code, shown = await terminal(server, "keys", "list", COLUMNS="70")
    assert (code, "vaults/default/keys/orders" in shown) == (0, True)


async def test_a_person_is_asked_and_may_say_no(server):
    await ok(server, "keys", "create", "doomed", "--purpose", "mac")
    delete = ("keys", "delete", "doomed")
    code, shown = await terminal(server, *delete, question=b"[y/N]:", answer=b"n\n")
    assert (code, "nothing was changed" in shown) == (1, True)
    code, shown = await terminal(server, *delete, question=b"[y/N]:", answer=b"y\n")
    assert (code, "DELETED" in shown) == (0, True)


async def test_a_value_is_typed_without_being_shown_and_bytes_do_not_reach_a_terminal(server):
    code, shown = await terminal(server, "secrets", "put", "typed", question=b"Value:", answer=b"typed-in-the-dark\n")
    assert (code, "dark" in shown) == (0, False)
    assert await terminal(server, "secrets", "access", "typed") == (0, "typed-in-the-dark\r\n")
    await ok(server, "secrets", "put", "bytes", data=b"\x1b]0;owned\x07")
    code, shown = await terminal(server, "secrets", "access", "bytes")
    assert (code, "\x1b]0" in shown, "no text" in shown) == (2, False, True)


async def test_long_work_shows_a_bar_on_a_terminal_only(server):
    code, shown = await terminal(server, "audit", "verify")
    assert (code, "audit records" in shown) == (0, True)
    done = await ok(server, "audit", "verify")
    assert (done.stdout.split()[:2], done.stderr) == (["intact", "yes"], "")


# -- as a process -----------------------------------------------------------------------------------------------------------


async def test_help_is_there_at_once():
    """It costs hardly more than the start of a Python with click, on whatever machine."""

    async def processor_s(*command: object, **environment: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = await asyncio.create_subprocess_exec(
            *map(str, command), env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert out
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    words = {"_VAULTCTL_COMPLETE": "bash_complete", "COMP_WORDS": "vaultctl keys ", "COMP_CWORD": "2"}
    start = [await processor_s(sys.executable, "-c", "import click; print(1)") for _ in range(3)]
    for arguments, environment in ((["--help"], {}), (["keys", "create", "--help"], {}), ([], words)):
        assert min([await processor_s(VAULTCTL, *arguments, **environment) for _ in range(3)]) < 6 * min(start)


async def test_help_and_completion_load_no_grpc():
    code = (
        "import sys; from vaultd_client.ctl.root import main\n"
        "try: main(['keys', 'create', '--help'], prog_name='vaultctl')\n"
        "except SystemExit: pass\n"
        "print(sorted({'grpc', 'google.protobuf', 'rich', 'cryptography', 'yaml'} & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "[]"


async def test_a_pipe_that_is_closed_is_no_traceback(server):
    words = f"'{VAULTCTL}' keys capabilities --output json | head -n 1"
    process = await asyncio.create_subprocess_shell(
        words,
        env={**os.environ, **environment_of(server)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (out, err) == (b"{\n", b"")


async def test_a_watch_prints_as_it_comes_and_ends_by_an_interrupt(server):
    process = await asyncio.create_subprocess_exec(
        *(VAULTCTL, "watch", "vaults/default/keys", "--kind", "key", "--after-revision", "0"),
        env={**os.environ, **environment_of(server)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert b"CREATED   KEY               vaults/default/keys/orders" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err.strip()) == (130, b"")


async def test_bash_completes_commands_options_and_names_of_the_server(server):
    async def complete(line: str) -> set[str]:
        script = (
            'source <("$VAULTCTL" completion bash)\n'
            f"COMP_WORDS=({line}); COMP_CWORD=$(({len(line.split())} - 1))\n"
            '[[ "$LINE" == *" " ]] && { COMP_WORDS+=(""); COMP_CWORD=$((COMP_CWORD + 1)); }\n'
            "_vaultctl_completion vaultctl; printf '%s\\n' \"${COMPREPLY[@]}\"\n"
        )
        path = f"{VAULTCTL.parent}:{os.environ['PATH']}"
        environment = {**os.environ, **environment_of(server), "PATH": path, "VAULTCTL": str(VAULTCTL), "LINE": line}
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        return set(out.decode().split())

    assert {"keys", "secrets", "crypto"} <= await complete("vaultctl ")
    assert await complete("vaultctl crypto encr") == {"encrypt"}
    assert await complete("vaultctl keys create x --purp") == {"--purpose"}
    assert await complete("vaultctl keys get or") == {"orders"}
    assert await complete("vaultctl keys versions get orders/") == {"orders/1"}
    assert await complete("vaultctl --addr 127.0.0.1:1 keys get or") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_completion_is_printed_for_each_shell(server, shell):
    code, out, _ = await vaultctl(server, "completion", shell)
    assert (code, "_VAULTCTL_COMPLETE" in out) == (0, True)
