"""`vaultctl scan`: copies of secrets are found however they are written down, and nothing that is written tells a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import secrets
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from commandline import VAULTCTL, ctl, environment_of
from harness import APP, running_server
from vaultd_client.ctl.scan.index import write_index
from vaultd_client.ctl.scan.marks import Mark, marks_of
from vaultd_client.ctl.scan.trees import OVERLAP_BYTES, WINDOW_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPOSITORY = Path(__file__).resolve().parents[2]
SCANNER = "spiffe://dev.vaultd/scanner"
PARTIAL = "spiffe://dev.vaultd/partial"
TOKEN = secrets.token_urlsafe(24).replace("-", "x")
PASSWORD = "p@ss w0rd!" + secrets.token_hex(3)
PEM = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
BINARY = secrets.token_bytes(32)
DOCUMENT = json.dumps({"username": "application", "host": "db.internal.example.org", "password": secrets.token_hex(12)})
URL = f"postgresql://app:{quote(secrets.token_hex(8) + '/+')}@db.example.org/orders"
STORED = {
    "token": TOKEN.encode(),
    "odd": PASSWORD.encode(),
    "pem": PEM,
    "binary": BINARY,
    "document": DOCUMENT.encode(),
    "url": URL.encode(),
    "short": b"hunter2",
}
POLICY = {
    "roles": [
        {"name": "scanner", "permissions": ["crypto.verify_mac"]},
        {"name": "reader", "permissions": ["secrets.access"]},
        {"name": "lister", "permissions": ["secrets.list"]},
        {"name": "maker", "permissions": ["crypto.generate_mac"]},
    ],
    "bindings": [
        {"members": [APP], "role": "reader", "resource": "vaults/default"},
        {"members": [SCANNER], "role": "scanner", "resource": "vaults/default/keys/scan"},
        {"members": [PARTIAL], "role": "lister", "resource": "vaults/default"},
        {"members": [PARTIAL], "role": "reader", "resource": "vaults/default/secrets/token"},
        {"members": [PARTIAL], "role": "maker", "resource": "vaults/default/keys/scan"},
    ],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(
        tmp_path_factory.mktemp("ctl"), policy=POLICY, limits={"overload_delay_ms": 0}
    ) as running:
        running.add_identity("scanner", uri=SCANNER)
        running.add_identity("partial", uri=PARTIAL)
        await ctl(running, "keys", "create", "scan", "--purpose", "mac")
        for name, value in STORED.items():
            done = await ctl(running, "secrets", "put", name, data=value)
            assert done.exit_code == 0, done.stderr
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "index.json"
    done = await ctl(server, "scan", "index", "-o", path)
    assert done.exit_code == 0, done.stderr
    return path


def version(name: str) -> str:
    return f"vaults/default/secrets/{name}/versions/1"


async def found_in(
    server: Any, *arguments: Any, identity: str = "scanner"
) -> tuple[int, set[tuple[str, int, str, str]]]:
    """The exit code, and the name, line, secret and spelling of each copy."""
    done = await ctl(server, "scan", *arguments, "--output", "json", identity=identity)
    for value in STORED.values():
        for said in (done.stdout_bytes, done.stderr_bytes):
            assert value not in said
            assert base64.b64encode(value) not in said
    copies = map(json.loads, done.stdout.splitlines())
    return done.exit_code, {
        (Path(one["path"]).name, one["line"], one["version"].split("/")[3], one["how"]) for one in copies
    }


# -- what is looked for -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "marks"),
    [
        (b"hunter2", set()),
        (b"hunter2hunter2\n", {Mark(b"hunter2hunter2")}),
        (b"correct horse battery staple", {Mark(b"correct horse battery staple", 28)}),
        (b"aaaaaaaaaaaa aaaaaaaaaaaa", set()),
        (b'{"id": "0123456789abcdef0123", "token": "abcdefgh1234"}', {Mark(b"abcdefgh1234")}),
        (b"USER=application-user\nexport PASSWORD='abcdefgh1234'\n# a comment\n", {Mark(b"abcdefgh1234")}),
        (b"https://user:abcd%2Fefgh1234@host/", {Mark(b"abcd/efgh1234", 13)}),
        (b"apiVersion: v1\nkind: Config\nclusters: certificate-authority-data\n", set()),
        (bytes(range(128, 144)), {Mark(bytes(range(128, 144)))}),
        (b"\xff\xfe", set()),
        (b"", set()),
    ],
)
async def test_the_parts_of_a_secret_that_no_text_has_by_chance(payload, marks):
    assert marks_of(payload) == marks


async def test_every_line_of_a_pem_key_is_no_mark_and_its_longest_words_are():
    marks = marks_of(PEM)
    assert 1 <= len(marks) <= 4
    assert all(len(mark.content) >= 16 and mark.content in PEM for mark in marks)


# -- where it is found ------------------------------------------------------------------------------------------------------


def spellings(value: bytes) -> dict[str, bytes]:
    """A value as files have it."""
    text = value.decode()
    return {
        "plain.env": b"A=b\nTOKEN='" + value + b"'\n",
        "basic.txt": b"\n\nAuthorization: Basic " + base64.b64encode(b"user:" + value) + b"\n",
        "kubernetes.yaml": b"data:\n  value: " + base64.b64encode(value) + b"\n",
        "helm.txt": base64.b64encode(b'{"data": "' + base64.b64encode(value) + b'"}'),
        "hex.txt": b"x: " + value.hex().encode() + b"\n",
        "url.sh": b"curl https://user:" + quote(text, safe="").encode() + b"@host/\n",
        "config.json": json.dumps({"value": "\n".join([text, "x"])}).encode(),
        "settings.xml": b"<a value=" + b'"' + text.replace("&", "&amp;").encode() + b'"/>',
        "utf16.txt": f"first\n{text}\n".encode("utf-16"),
        "program.bin": bytes(range(256)) + b"\0" + value + b"\0" + bytes(64),
    }


LINES = {"plain.env": 2, "basic.txt": 3, "kubernetes.yaml": 2, "utf16.txt": 2, "program.bin": 2}


@pytest.mark.parametrize("name", ["token", "odd"])
async def test_a_secret_is_found_however_it_is_written_down(server, index, tmp_path, name):
    for file, content in spellings(STORED[name]).items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "clean.txt").write_text("nothing to see\n" * 100)
    code, copies = await found_in(server, tmp_path, "--index", index)
    assert code == 1
    assert {secret for _, _, secret, _ in copies} == {name}
    assert {file for file, *_ in copies} == set(spellings(STORED[name]))
    assert {file: line for file, line, *_ in copies} == dict.fromkeys(spellings(STORED[name]), 1) | LINES
    assert ("helm.txt", 1, name, "base64, base64") in copies


async def test_parts_of_documents_keys_and_urls_are_found_and_binary_keys_too(server, index, tmp_path):
    document = json.loads(DOCUMENT)
    files = {
        "app.properties": f"db.host={document['host']}\ndb.password={document['password']}\n".encode(),
        "key.json": json.dumps({"key": PEM.decode()}).encode(),
        "key.pem": PEM,
        "key.bin": BINARY,
        "key.hex": BINARY.hex().encode(),
        "key.b64": base64.b64encode(BINARY) + b"\n",
        "database.yaml": b"url: " + URL.encode(),
        "harmless.txt": f"{document['username']} {document['host']}\nhunter2\n-----BEGIN PRIVATE KEY-----\n".encode(),
    }
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    code, copies = await found_in(server, tmp_path, "--index", index)
    assert code == 1
    assert {(file, secret) for file, _, secret, _ in copies} == {
        ("app.properties", "document"),
        ("key.json", "pem"),
        ("key.pem", "pem"),
        ("key.bin", "binary"),
        ("key.hex", "binary"),
        ("key.b64", "binary"),
        ("database.yaml", "url"),
    }
    assert ("app.properties", 2, "document", "plain") in copies


async def test_a_copy_is_found_in_a_file_of_any_size(server, index, tmp_path):
    line = b"x" * 99 + b"\n"
    for at in (WINDOW_BYTES - 10, 2 * WINDOW_BYTES - OVERLAP_BYTES):
        before = line * (at // len(line))
        (tmp_path / "large").write_bytes(before + b"t=" + TOKEN.encode() + b"\n" + line * 1000)
        code, copies = await found_in(server, tmp_path / "large", "--index", index)
        assert (code, copies) == (1, {("large", len(before) // len(line) + 1, "token", "plain")})


async def test_without_an_index_the_secrets_that_one_may_read_are_compared_here(server, tmp_path):
    (tmp_path / "a.txt").write_bytes(TOKEN.encode())
    assert await found_in(server, tmp_path, identity="admin") == (1, {("a.txt", 1, "token", "plain")})
    done = await ctl(server, "scan", tmp_path)
    assert "secrets/short/versions/1 is too short or too ordinary" in done.stderr
    # Who may not list secrets names them, and may read them.
    assert (await found_in(server, tmp_path, identity="app"))[0] == 2
    assert (await found_in(server, tmp_path, "--secret", "odd", identity="app")) == (0, set())
    named = await found_in(server, tmp_path, "--secret", "odd", "--secret", "token", identity="app")
    assert named == (1, {("a.txt", 1, "token", "plain")})


# -- what it tells ----------------------------------------------------------------------------------------------------------


async def test_an_index_holds_no_secret_and_nothing_that_confirms_a_guess(server, index):
    text = index.read_text()
    document = json.loads(text)
    for value in STORED.values():
        for form in (value.decode("latin-1"), value.hex(), base64.b64encode(value).decode()):
            assert form not in text
    entries = [one for found in document["versions"].values() for one in found]
    assert {key for one in entries for key in one} <= {"tag", "mac", "length"}
    assert all(0 <= one["tag"] < 2**16 for one in entries)
    assert version("short") not in document["versions"]
    again = index.with_name("again.json")
    assert (await ctl(server, "scan", "index", "-o", again)).exit_code == 0
    tags = [
        {one["tag"] for found in json.loads(path.read_text())["versions"].values() for one in found}
        for path in (index, again)
    ]
    assert tags[0] != tags[1]  # the salt is another one each time


async def test_an_index_is_written_past_links_that_others_put_there(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.write_text("kept")
    path = tmp_path / "index.json"
    for name in (path.name, f".{path.name}.{os.getpid()}"):
        (tmp_path / name).symlink_to(theirs)
    write_index(path, {"format": "of a test"})
    assert theirs.read_text() == "kept"
    assert (path.is_symlink(), path.stat().st_mode & 0o777, json.loads(path.read_text())) == (
        False,
        0o644,
        {"format": "of a test"},
    )
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(IsADirectoryError):
        write_index(tmp_path, {})
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


async def test_who_scans_may_verify_and_nothing_else(server, index, tmp_path):
    (tmp_path / "a.txt").write_bytes(TOKEN.encode())
    before = len(server.audit_records())
    assert (await found_in(server, tmp_path, "--index", index))[0] == 1
    calls = [one for one in server.audit_records()[before:] if one["event"] == "call"]
    assert {one["method"].rpartition("/")[2] for one in calls} == {"VerifyMac", "BatchVerifyMac"}
    assert (await ctl(server, "scan", tmp_path, "--direct", identity="scanner")).exit_code == 2
    assert (await ctl(server, "scan", "index", "-o", tmp_path / "i.json", identity="scanner")).exit_code == 4


async def test_ordinary_files_ask_the_vault_for_next_to_nothing(server, index, tmp_path):
    seed = secrets.randbits(32)
    print("seed", seed)
    source = random.Random(seed)
    words = [source.randbytes(12).hex() for _ in range(20_000)]
    (tmp_path / "words.txt").write_text("\n".join(words))
    before = len(server.audit_records())
    assert await found_in(server, tmp_path, "--index", index) == (0, set())
    asked = sum(one.get("items", 1) for one in server.audit_records()[before:] if one["event"] == "call")
    assert asked < 200  # of 20,000 words, and what they are when they are hex or base64


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda document: document["versions"].popitem(), "was changed after it was made"),
        (lambda document: document.update(min_length=99), "was changed after it was made"),
        (lambda document: document.update(format="vaultd-scan-index/9"), "has format"),
        (lambda document: document.pop("salt"), "is no index"),
    ],
)
async def test_an_index_that_was_changed_is_no_index(server, index, tmp_path, change, told):
    document = json.loads(index.read_text())
    change(document)
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    done = await ctl(server, "scan", tmp_path, "--index", changed)
    assert (done.exit_code, told in done.stderr) == (2, True), done.stderr


async def test_what_could_not_be_looked_at_is_exit_code_2(server, index, tmp_path):
    (tmp_path / "a.txt").write_text("clean")
    assert (await ctl(server, "scan", tmp_path, "--index", index)).exit_code == 0
    for arguments, environment in (
        ((tmp_path / "missing", "--index", index), {}),
        ((tmp_path, "--index", index), {"VAULTD_ADDR": "127.0.0.1:1"}),
        ((tmp_path, "--index", tmp_path / "a.txt"), {}),
        ((), {}),
        ((tmp_path, "--staged"), {}),
    ):
        done = await ctl(server, "scan", *arguments, **environment)
        assert (done.exit_code, done.stdout) == (2, ""), (arguments, done.stderr)


async def test_secrets_that_may_not_be_read_are_a_gap_that_somebody_must_allow(server, tmp_path):
    gap = f"{len(STORED) - 1} versions could not be read"
    (tmp_path / "a.txt").write_bytes(PASSWORD.encode())
    for extra, code in (((), 2), (("--allow-unreadable",), 0)):
        done = await ctl(server, "scan", tmp_path, *extra, identity="partial")
        assert (done.exit_code, done.stdout, gap in done.stderr) == (code, "", True), done.stderr
    out = tmp_path / "index.json"
    for extra, code in (((), 1), (("--allow-unreadable",), 0)):
        done = await ctl(server, "scan", "index", "-o", out, *extra, identity="partial")
        assert (done.exit_code, gap in done.stderr, out.exists()) == (code, True, code == 0), done.stderr
    (tmp_path / "b.txt").write_bytes(TOKEN.encode())
    assert await found_in(server, tmp_path / "b.txt", identity="partial") == (1, {("b.txt", 1, "token", "plain")})


# -- git --------------------------------------------------------------------------------------------------------------------


def git(directory: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


async def test_in_a_working_tree_what_git_ignores_is_left_out(server, index, tmp_path):
    git(tmp_path, "init")
    (tmp_path / ".gitignore").write_text("ignored\n")
    (tmp_path / "ignored").mkdir()
    for name in ("ignored/a.txt", "new.txt", "kept.txt", "wanted.lock"):
        (tmp_path / name).write_text(TOKEN)
    git(tmp_path, "add", "kept.txt")
    (tmp_path / "link").symlink_to(tmp_path / "ignored" / "a.txt")
    _, copies = await found_in(server, tmp_path, "--index", index, "--exclude", "*.lock")
    assert {file for file, *_ in copies} == {"new.txt", "kept.txt"}
    _, copies = await found_in(server, tmp_path, "--index", index, "--no-git")
    assert {file for file, *_ in copies} == {"new.txt", "kept.txt", "a.txt", "wanted.lock"}


async def test_the_index_at_the_top_of_the_tree_is_found_from_below(server, index, tmp_path, monkeypatch):
    git(tmp_path, "init")
    (tmp_path / ".vaultd-scan.json").write_bytes(index.read_bytes())
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.txt").write_text(TOKEN)
    git(tmp_path, "add", "-A")
    monkeypatch.chdir(tmp_path / "below")
    for what in ("--staged", "."):
        code, copies = await found_in(server, what)
        assert (code, copies) == (1, {("a.txt", 1, "token", "plain")})


async def test_a_commit_with_a_secret_is_refused_by_the_hook(server, index, tmp_path):
    (hook,) = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"].split()[0] == VAULTCTL.name
    (tmp_path / ".vaultd-scan.json").write_bytes(index.read_bytes())
    (tmp_path / "a b.txt").write_text(f"clean\ntoken: {TOKEN}\n")
    git(tmp_path, "init")
    script = tmp_path / ".git" / "hooks" / "pre-commit"
    script.write_text(
        f"#!/bin/sh\nexec {VAULTCTL.with_name(hook['entry'].split()[0])} {' '.join(hook['entry'].split()[1:])}\n"
    )
    script.chmod(0o755)
    environment = {**os.environ, **environment_of(server, "scanner")}

    def commit() -> subprocess.CompletedProcess[str]:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-m", "x"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    git(tmp_path, "add", "-A")
    (tmp_path / "a b.txt").write_text("clean\n")  # what is staged counts, and not what lies there now
    refused = await asyncio.to_thread(commit)
    assert refused.returncode == 1
    assert f"a b.txt:2: {version('token')}" in refused.stdout + refused.stderr
    assert TOKEN not in refused.stdout + refused.stderr
    git(tmp_path, "add", "-A")
    assert (await asyncio.to_thread(commit)).returncode == 0
