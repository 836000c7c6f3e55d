"""Every RPC by its command, what goes in, what comes out, and what is said when it goes wrong."""

from __future__ import annotations

import base64
import json
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import click
import pytest

import vaultd_client.v1
from commandline import ctl
from harness import ADMIN, APP, running_server
from vaultd_client.ctl.catalogue import GROUPS, MORE, VERBS
from vaultd_client.ctl.root import main

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "spiffe://dev.vaultd/other"


async def ok(server: Any, *arguments: Any, **options: Any) -> str:
    """What a command prints that is done."""
    done = await ctl(server, *arguments, **options)
    assert done.exit_code == 0, (arguments, done.exit_code, done.stderr)
    return done.stdout


async def told(server: Any, *arguments: Any, **options: Any) -> Any:
    """The JSON that a command prints."""
    return json.loads(await ok(server, *arguments, "--output", "json", **options))


# -- every RPC --------------------------------------------------------------------------------------------------------------


def every_rpc() -> set[str]:
    """The RPCs, from the descriptors."""
    files = [import_module(f"vaultd_client.v1.{one.name}") for one in iter_modules(vaultd_client.v1.__path__)]
    services = [
        service
        for file in files
        if hasattr(file, "DESCRIPTOR")
        for service in file.DESCRIPTOR.services_by_name.values()
    ]
    return {method.name for service in services for method in service.methods}


def command_of(words: str) -> click.Command:
    context, found = click.Context(main, info_name="vaultctl"), main
    for word in words.split():
        assert isinstance(found, click.Group), words
        found = found.get_command(context, word)
        assert found is not None, words
        context = click.Context(found, parent=context, info_name=word)
    return found


async def test_every_rpc_has_exactly_one_command():
    assert sorted(verb.rpc for verb in VERBS) == sorted(every_rpc())
    assert len({verb.command for verb in VERBS}) == len(VERBS)


@pytest.mark.parametrize(
    "words",
    [*(verb.command for verb in VERBS), *MORE, *GROUPS, "call", "completion", "doctor", "health", "profile", "scan"],
)
async def test_every_command_has_a_help_that_says_what_it_does(words):
    command = command_of(words)
    with click.Context(command, info_name=words) as context:
        text = command.get_help(context)
    assert "Usage:" in text
    assert len(command.help or "") > 20


@pytest.mark.parametrize("verb", [verb for verb in VERBS if not verb.by_hand], ids=lambda verb: verb.command)
async def test_options_are_told_apart(verb):
    options = [option for one in command_of(verb.command).params for option in one.opts]
    assert len(set(options)) == len(options)


def scenario(tmp_path: Path) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """A command for each RPC, in an order in which each of them finds what it needs."""
    rules, policy = tmp_path / "rules.yaml", tmp_path / "policy.yaml"
    rules.write_text("rules: []\n")
    encrypt = json.dumps({"name": "vaults/default/keys/orders", "plaintext": "aGk="})
    items = {
        "encrypt": encrypt,
        "decrypt": json.dumps({"name": "vaults/default/keys/orders", "ciphertext": "aGk="}),
        "reencrypt": json.dumps({"source_name": "vaults/default/keys/orders", "ciphertext": "aGk="}),
        "sign": json.dumps({"name": "vaults/default/keys/signer", "message": "aGk="}),
        "verify": json.dumps({"name": "vaults/default/keys/signer", "message": "aGk=", "signature": "aGk="}),
        "mac": json.dumps({"name": "vaults/default/keys/tags", "data": "aGk="}),
        "verify-mac": json.dumps({"name": "vaults/default/keys/tags", "data": "aGk=", "mac": "aGk="}),
        "wrap": json.dumps({"name": "vaults/default/keys/wrapper", "key_material": "aGk="}),
        "unwrap": json.dumps({"name": "vaults/default/keys/wrapper", "wrapped_key": "aGk="}),
    }
    operations = json.dumps({"operations": [{"id": 1, "encrypt": json.loads(encrypt)}]})
    yes = "--yes"
    steps: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("admin status", [], {}),
        ("admin init", ["--admin-principal", ADMIN], {"fails": True}),
        ("admin unseal", [], {}),
        ("admin rotate-root-key", [], {}),
        ("vaults create", ["acme", "--display-name", "Acme", "--label", "team=a"], {}),
        ("vaults get", ["acme"], {}),
        ("vaults list", [], {}),
        ("vaults update", ["acme", "--label", "team=b", "--clear", "display-name"], {}),
        ("vaults delete", ["acme", yes], {}),
        (
            "quotas create",
            ["bulk", "--resource", "vaults/default", "--class", "symmetric", "--window", "1000000/1s"],
            {},
        ),
        ("quotas get", ["bulk"], {}),
        ("quotas list", [], {}),
        ("quotas update", ["bulk", "--window", "2000000/1s:5000000", "--window", "9000000/1h"], {}),
        ("quotas mine", ["orders", "CryptoService.Encrypt"], {}),
        ("quotas delete", ["bulk"], {}),
        ("approvals rules get", [], {}),
        ("approvals rules set", [rules, yes], {}),
        ("approvals list", [], {}),
        ("approvals get", ["0" * 32], {"fails": True}),
        ("approvals approve", ["0" * 32], {"fails": True}),
        ("approvals reject", ["0" * 32], {"fails": True}),
        ("approvals cancel", ["0" * 32], {"fails": True}),
        ("policy get", [], {}),
        ("policy apply", [policy, yes], {"policy": policy}),
        ("policy check", ["orders", "crypto.encrypt", "keys.purge"], {}),
        ("policy explain", ["--principal", APP, "--method", "Encrypt", "--resource", "orders"], {}),
        ("policy review", ["vaults/default"], {}),
        ("identities revoke", [OTHER, "--reason", "lost", yes], {}),
        ("identities list", [], {}),
        ("identities restore", [OTHER], {}),
        ("watch", ["--after-revision", "0", "--count", "1"], {}),
        ("audit proof", ["1"], {}),
        ("audit consistency", ["1"], {}),
        ("audit verify", [], {}),
        ("audit tail", ["--after-sequence", "0", "--limit", "3"], {}),
        ("crypto encrypt", ["orders", "--output", "raw"], {"data": b"plain", "keep": "ciphertext"}),
        ("crypto decrypt", ["orders"], {"use": "ciphertext"}),
        ("crypto reencrypt", ["orders"], {"use": "ciphertext"}),
        ("crypto inspect", ["orders"], {"use": "ciphertext"}),
        ("crypto sign", ["signer", "--message", "hi", "--output", "raw"], {"keep": "signature"}),
        ("crypto verify", ["signer", "--message", "hi", "--signature-file", "-"], {"use": "signature"}),
        ("crypto mac", ["tags", "--data", "hi", "--output", "raw"], {"keep": "mac"}),
        ("crypto verify-mac", ["tags", "--data", "hi", "--mac-file", "-"], {"use": "mac"}),
        ("crypto wrap", ["wrapper"], {"data": b"k" * 32, "keep": "wrapped"}),
        ("crypto unwrap", ["wrapper"], {"use": "wrapped"}),
        ("crypto data-key", ["orders", "--count", "2", "--include-plaintext"], {}),
        ("keys create", ["kem", "--purpose", "kem"], {}),
        ("crypto encapsulate", ["kem", "--reveal"], {}),
        ("crypto decapsulate", ["kem"], {"data": bytes(1088)}),
        ("keys create", ["agree", "--purpose", "key_agreement", "--algorithm", "x25519"], {}),
        ("crypto derive", ["agree"], {"data": bytes.fromhex("09" + "00" * 31)}),
        ("crypto random", ["16"], {}),
        *((f"crypto batch {name}", [], {"data": (item + "\n").encode(), "any": True}) for name, item in items.items()),
        ("crypto stream", [], {"data": operations.encode()}),
        ("crypto reencrypt-all", ["orders"], {"use": "ciphertext", "base64": True}),
        ("keys adopt", ["adopted", "--purpose", "sign", "--object-label", "x"], {"fails": True}),
        ("keys get", ["orders"], {}),
        ("keys list", [], {}),
        ("keys update", ["orders", "--rotation-period", "30d", "--label", "a=b"], {}),
        ("keys rotate", ["orders"], {}),
        ("keys set-primary", ["orders/1"], {}),
        ("keys versions list", ["orders"], {}),
        ("keys versions get", ["orders/2"], {}),
        ("keys versions disable", ["orders/2"], {}),
        ("keys versions enable", ["orders/2"], {}),
        ("keys versions destroy", ["orders/2", yes], {}),
        ("keys versions restore", ["orders/2"], {}),
        ("keys public-key", ["signer"], {}),
        ("keys capabilities", [], {}),
        ("keys usage", ["orders"], {}),
        ("keys delete", ["agree", yes], {}),
        ("keys undelete", ["agree"], {}),
        ("keys delete", ["agree", yes], {}),
        ("keys backup", ["kem", tmp_path / "kem.backup"], {}),
        ("keys purge", ["agree", yes], {}),
        ("keys restore", ["default", tmp_path / "kem.backup"], {"fails": True}),
        (
            "grants create",
            ["orders", "--grantee", APP, "--permission", "crypto.encrypt", "--expire-time", "+1d"],
            {"name": "grant"},
        ),
        ("grants get", ["GRANT"], {}),
        ("grants list", [], {}),
        ("grants revoke", ["GRANT"], {}),
        ("import-jobs create", ["job"], {}),
        ("import-jobs get", ["job"], {}),
        ("import-jobs list", [], {}),
        ("keys import", ["tags", tmp_path / "material"], {"material": tmp_path / "material"}),
        ("keys export", ["orders", tmp_path / "exported", "--plaintext"], {"fails": True}),
        (
            "secrets create",
            ["db", "--owner", "team-a", "--metadata", '{"a": 1}', "--expire-time", "+30d", "--payload-file", "-"],
            {"data": b"1"},
        ),
        ("secrets get", ["db"], {}),
        ("secrets list", [], {}),
        ("secrets update", ["db", "--owner", "team-b", "--version-ttl", "30d"], {}),
        ("secrets add", ["db"], {"data": b"second"}),
        ("secrets access", ["db"], {}),
        ("secrets batch-access", [], {"data": b'{"name": "vaults/default/secrets/db"}\n'}),
        ("secrets versions list", ["db"], {}),
        ("secrets versions get", ["db/1"], {}),
        ("secrets versions disable", ["db/1"], {}),
        ("secrets versions enable", ["db/1"], {}),
        ("secrets set-alias", ["db", "stable", "--version", "db/1"], {}),
        ("secrets versions destroy", ["db/1", yes], {}),
        ("rotations set", ["db", "--password", "--password-length", "24", "--rotation-period", "30d"], {}),
        ("rotations get", ["db"], {}),
        ("rotations list", [], {}),
        ("rotations run", ["db"], {"any": True}),
        ("rotations cancel", ["db"], {"any": True}),
        ("rotations delete", ["db"], {"any": True}),
        ("secrets delete", ["db", yes], {"any": True}),
        ("secrets undelete", ["db"], {"any": True}),
        ("secrets purge", ["db", yes], {"any": True}),
        ("admin seal", [yes], {}),
    ]
    return steps


async def test_every_command_makes_its_call(tmp_path):
    kept: dict[str, bytes] = {}
    reached: set[str] = set()
    async with running_server(tmp_path / "server", limits={"overload_delay_ms": 0}) as server:
        for key, purpose in (("orders", "encrypt_decrypt"), ("signer", "sign"), ("tags", "mac"), ("wrapper", "wrap")):
            await ok(server, "keys", "create", key, "--purpose", purpose)
        for words, arguments, how in scenario(tmp_path):
            (verb,) = (one for one in VERBS if one.command == words)
            if "policy" in how:
                how["policy"].write_text(await ok(server, "policy", "get") + "groups: [{name: new, members: []}]\n")
            if "material" in how:
                how["material"].write_bytes(bytes(32))
            said = [kept["grant"].decode() if one == "GRANT" else one for one in arguments]
            data = kept[how["use"]] if "use" in how else how.get("data", b"")
            data = base64.b64encode(data) + b"\n" if how.get("base64") else data
            if "name" in how:
                kept[how["name"]] = (await told(server, *words.split(), *said))["name"].encode()
            else:
                done = await ctl(server, *words.split(), *said, data=data)
                fine = done.exit_code == 0
                assert how.get("any") or fine is not how.get("fails", False), (
                    words,
                    done.exit_code,
                    done.stderr,
                    done.stdout,
                )
                if "keep" in how:
                    kept[how["keep"]] = done.stdout_bytes
            methods = {record.get("method", "").rpartition("/")[2] for record in server.audit_records()[-12:]}
            assert verb.rpc in methods, (words, methods, done.stderr)
            reached.add(verb.rpc)
    assert reached == every_rpc()
