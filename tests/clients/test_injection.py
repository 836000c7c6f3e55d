"""`vaultctl run` and `vaultctl render`, as processes of their own against a real server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner, Result

from clients.sdk_rig import VAULT, Audit, server_in_a_thread, sync_client
from clients.test_grpcurl import REPOSITORY
from clients.test_import_recipe import shell_blocks
from commandline import VAULTCTL, environment_of
from harness import APP
from vaultd.devpki import issue_client_certificate
from vaultd_client.ctl import private_files
from vaultd_client.ctl.root import main
from vaultd_client.injection import FILTERS, Template, TemplateInvalid, read_environment
from vaultd_client.secret_references import ReferenceInvalid, SecretReference

WITHOUT_GET = "spiffe://dev.vaultd/without-get"
POLICY = {
    "roles": [{"name": "access-only", "permissions": ["secrets.access"]}],
    "bindings": [
        {"members": [WITHOUT_GET], "role": "access-only", "resource": "vaults/default"},
        {"members": [APP], "role": "crypto-user", "resource": "vaults/default"},
        {"members": [APP], "role": "secret-reader", "resource": "vaults/default"},
    ],
}
PASSWORD = "p@ss'w\"rd/ä"  # what each spelling must take care of
PAYLOADS = {
    "db": json.dumps({"username": "orders_a", "password": PASSWORD, "port": 5432}).encode(),
    "token": b"one",
    "binary": b"\xff\xfe",
    "zero": b"a\0b",
    "withdrawn": b"s3cret",
    "turning": b"one",
    "stubborn": b"one",
    "rendered": b"one",
}
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("injection")
    with server_in_a_thread(directory, policy=POLICY) as server, sync_client(server, "admin") as admin:
        for secret_id, payload in PAYLOADS.items():
            admin.create_secret(VAULT, secret_id, payload=payload)
        admin.disable_secret_version(f"{VAULT}/secrets/withdrawn/versions/1")
        yield server


@pytest.fixture(scope="module")
def admin(server):
    with sync_client(server, "admin") as admin:
        yield admin


@pytest.fixture
def ctl(server, tmp_path):
    """Runs vaultctl to its end in a directory of its own."""

    def run(*arguments: object, data: str | None = None, **environment: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [VAULTCTL, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environment_of(server, "app"), **environment},
            input=data,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert not any(value in done.stderr for value in (PASSWORD, "s3cret", "orders_a"))
        return done

    return run


@pytest.fixture
def within(server):
    """Runs vaultctl within this process, which is faster: only what does not become another program."""

    def run(*arguments: object, data: str = "") -> Result:
        return CliRunner().invoke(main, [str(one) for one in arguments], input=data, env=environment_of(server, "app"))

    return run


@pytest.fixture
def start(server, tmp_path):
    """Starts vaultctl, and ends what is left of it."""
    started = []

    def begin(*arguments: object, environment: dict | None = None) -> subprocess.Popen:
        process = subprocess.Popen(
            [VAULTCTL, *map(str, arguments)],
            cwd=tmp_path,
            env=environment or {**os.environ, **environment_of(server, "app")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


ENVIRONMENT = """
# The secrets of orders
DB_USER=vaultd://vaults/default/secrets/db#username
export DB_URL="postgres://orders:{{ vaultd://vaults/default/secrets/db#password | url }}@db/orders"
TOKEN = vaultd://vaults/default/secrets/token/versions/1   # of us
PORT='{{ vaultd://vaults/default/secrets/db#port }}'
BLOB={{vaultd://vaults/default/secrets/binary|base64}}
KEY_URI=vaultd://vaults/default/keys/kek
GREETING='hello ${USER} {{ name }}'
"""


def test_run_fills_the_environment_of_the_command_in_one_call(ctl, server, tmp_path):
    (tmp_path / "orders.env").write_text(ENVIRONMENT)
    (tmp_path / "more.env").write_text("TOKEN=of the second file\nMORE=vaultd://vaults/default/secrets/token\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    audit = Audit(server)
    done = ctl(
        *(
            "run",
            "--env-file",
            "orders.env",
            "--env-file",
            "more.env",
            "--env",
            "MORE=db#username",
            "--drop-credentials",
        ),
        *("--", sys.executable, "-c", SHOW, "--env"),
        INHERITED="vaultd://vaults/default/secrets/db#password",
        OTHER="{{ vaultd://vaults/default/secrets/db }}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = {
        "DB_USER": "orders_a",
        "DB_URL": "postgres://orders:p%40ss%27w%22rd%2F%C3%A4@db/orders",
        "TOKEN": "of the second file",
        "PORT": "5432",
        "BLOB": "//4=",
        "KEY_URI": "vaultd://vaults/default/keys/kek",
        "GREETING": "hello ${USER} {{ name }}",
        "MORE": "orders_a",
        "INHERITED": PASSWORD,
        "OTHER": "{{ vaultd://vaults/default/secrets/db }}",
    }
    assert {name: found[name] for name in expected} == expected
    assert not [name for name in found if name.startswith("VAULTD_")]
    assert audit.methods() == ["BatchAccessSecretVersions"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_references_no_vault_is_asked_and_credentials_stay_unless_dropped(ctl):
    done = ctl("run", sys.executable, "-c", SHOW, VAULTD_ADDR="127.0.0.1:1")
    assert json.loads(done.stdout)["VAULTD_ADDR"] == "127.0.0.1:1"


def test_the_command_takes_the_place_of_vaultctl(ctl, start):
    assert ctl("run", "--env", "TOKEN=token", "--", "sh", "-c", 'test "$TOKEN" = one && exit 7').returncode == 7
    process = start("run", "--env", "TOKEN=token", "--", "sh", "-c", "echo $$ $TOKEN; exec tail -f /dev/null")
    assert process.stdout.readline() == f"{process.pid} one\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == -signal.SIGUSR1
    script = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd"
    direct = subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert ctl("run", "--env", "TOKEN=token", "--", "sh", "-c", script, data="").stdout == direct.stdout


def test_nothing_starts_when_a_secret_cannot_be_had_and_all_are_named(ctl, tmp_path):
    (tmp_path / "bad.env").write_text(
        "".join(
            f"{name}=vaultd://vaults/default/secrets/{secret}\n"
            for name, secret in (
                ("MISSING", "nothing"),
                ("WITHDRAWN", "withdrawn"),
                ("MEMBER", "db#nobody"),
                ("BINARY", "binary"),
                ("FINE", "token"),
            )
        )
    )
    done = ctl("run", "--env-file", "bad.env", "--", "touch", "started")
    assert done.returncode == 125
    lines = done.stderr.splitlines()
    assert lines[0] == "vaultctl: touch was not started"
    assert "MISSING: vaults/default/secrets/nothing: " in lines[1]
    assert "WITHDRAWN: vaults/default/secrets/withdrawn: SECRET_VERSION_DISABLED" in lines[2]
    assert lines[3:] == [
        "MEMBER: vaults/default/secrets/db is no JSON object with a member 'nobody'",
        "BINARY: vaults/default/secrets/binary: its value is no text (UTF-8); take it as base64: {{ vaultd://... | base64 }}",
    ]
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--env", "ZERO=zero", "true"], 125, "ZERO: a variable cannot hold a zero byte; take it as base64"),
        (["--env", "TOKEN", "true"], 125, "--env TOKEN: --env is NAME=SECRET"),
        (
            ["--env", "A=vaults/default/keys/k", "true"],
            125,
            "--env A: a reference is vaultd://vaults/VAULT/secrets/SECRET",
        ),
        (["--env", "A=vaults/elsewhere/secrets/s", "true"], 125, "A: vaults/elsewhere/secrets/s: PERMISSION_DENIED"),
        (["--env-file", "-", "true"], 125, "line 2 is no NAME=VALUE"),
        ([], 2, "Missing argument"),
    ],
)
def test_why_a_command_was_not_started(within, arguments, code, told):
    done = within("run", *arguments, data="A=1\n!!\n")
    assert (done.exit_code, told in done.stderr) == (code, True), done.stderr


def test_what_cannot_be_executed_is_told_as_a_shell_would(ctl):
    for command, code, told in (("no-such-command", 127, "there is no command"), ("/", 126, "/: Permission denied")):
        done = ctl("run", "--env", "TOKEN=token", command)
        assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def test_a_server_that_is_not_there_is_said(ctl):
    done = ctl("--timeout", "0.3", "run", "--env", "TOKEN=token", "true", VAULTD_ADDR="127.0.0.1:1")
    assert done.returncode == 125
    assert "UNREACHABLE" in done.stderr or "DEADLINE_EXCEEDED" in done.stderr


def test_watch_starts_the_command_again_with_the_new_secret_and_passes_signals_and_exit_codes_on(start, admin):
    secret = f"{VAULT}/secrets/turning"
    script = 'trap "exit 9" TERM; trap "echo hup" HUP; echo $TURNING; while :; do sleep 0.05; done'
    process = start("run", "--watch", "--env", "TURNING=turning", "--", "sh", "-c", script)
    assert process.stdout.readline() == "one\n"
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "hup\n"
    admin.add_secret_version(secret, b"not in service", keep_current=True)
    admin.add_secret_version(secret, b"two")
    assert process.stdout.readline() == "two\n"
    admin.disable_secret_version(f"{secret}/versions/3")  # what runs goes on with what it has
    assert process.stderr.readline() == "vaultctl: nothing was changed\n"
    assert "TURNING: vaults/default/secrets/turning: SECRET_VERSION_DISABLED" in process.stderr.readline()
    admin.set_alias(secret, "current", f"{secret}/versions/1")
    assert process.stdout.readline() == "one\n"
    process.terminate()
    assert process.wait() == 9


def test_a_command_that_does_not_end_is_killed_and_started_again(start, admin):
    script = 'trap "" TERM; echo $STUBBORN; while :; do sleep 0.05; done'
    process = start("run", "--watch", "--grace", "0.1", "--env", "STUBBORN=stubborn", "--", "sh", "-c", script)
    assert process.stdout.readline() == "one\n"
    admin.add_secret_version(f"{VAULT}/secrets/stubborn", b"two")
    assert process.stdout.readline() == "two\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 128 + signal.SIGUSR1


def test_watch_ends_with_the_command(ctl):
    assert ctl("run", "--watch", "--env", "TOKEN=token", "--", "sh", "-c", "exit 3").returncode == 3
    assert ctl("run", "--watch", "--env", "TOKEN=token", "--", "sh", "-c", "kill -KILL $$").returncode == 137
    assert ctl("run", "--watch", "--env", "TOKEN=token", "--", "no-such-command").returncode == 127


def test_watch_needs_the_right_to_watch(ctl, server):
    tls = server.directory / "tls"
    issue_client_certificate(tls, tls / "without-get", uri=WITHOUT_GET)
    who = {"VAULTD_CERT": str(tls / "without-get.crt"), "VAULTD_KEY": str(tls / "without-get.key")}
    script = ["--env", "TOKEN=token", "--", "sh", "-c", "echo $TOKEN"]
    assert ctl("run", *script, **who).stdout == "one\n"
    done = ctl("run", "--watch", *script, **who)
    assert (done.returncode, done.stdout, "PERMISSION_DENIED" in done.stderr) == (125, "", True)


TEMPLATE = """database:
  url: postgres://{{ vaultd://vaults/default/secrets/db#username }}:{{ vaultd://vaults/default/secrets/db#password | url }}@db
  password: {{ vaultd://vaults/default/secrets/db#password | json }}
  other: "{{ .Values.other }} {% raw %} ${HOME}"
shell: echo {{ vaultd://vaults/default/secrets/db#password | shell }}
"""


def test_render_fills_a_template_and_nothing_else_in_it(ctl, server, tmp_path):
    (tmp_path / "config.yaml.in").write_text(TEMPLATE)
    audit = Audit(server)
    done = ctl("render", "config.yaml.in")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1] == "  url: postgres://orders_a:p%40ss%27w%22rd%2F%C3%A4@db"
    assert json.loads(lines[2].removeprefix("  password: ")) == PASSWORD
    assert lines[3] == TEMPLATE.splitlines()[3]
    shell = subprocess.run(["sh", "-c", lines[4].removeprefix("shell: ")], capture_output=True, text=True, check=True)
    assert shell.stdout == f"{PASSWORD}\n"
    assert audit.methods() == ["BatchAccessSecretVersions"]
    assert ctl("render", "-", data="{{ vaultd://vaults/default/secrets/token }}").stdout == "one"


def test_render_replaces_a_private_file_or_leaves_it(within, tmp_path):
    out = tmp_path / "out.conf"
    out.write_text("before")
    out.chmod(0o644)
    done = within("render", "-", "-o", out, data="token={{ vaultd://vaults/default/secrets/token }}")
    assert (done.exit_code, out.read_text(), out.stat().st_mode & 0o777) == (0, "token=one", 0o600)
    for template, code, told in (
        ("{{ vaultd://vaults/default/secrets/withdrawn }}", 5, "SECRET_VERSION_DISABLED"),
        ("{{ vaultd://vaults/default/secrets/binary }}", 1, "its value is no text"),
        ("{{ vaultd://vaults/default/secrets/db | yaml }}", 2, "line 1: a filter is one of json, shell, url, base64"),
        ("\n{{ vaultd://vaults/default/secrets/db", 2, "line 2: a placeholder is not closed"),
        ("\n\n{{ vaultd:vaults/default/secrets/db }}", 2, "line 3: a reference begins with vaultd://"),
    ):
        done = within("render", "-", "-o", out, data=template)
        assert (done.exit_code, told in done.stderr) == (code, True), done.stderr
        assert out.read_text() == "token=one"
    assert [path.name for path in tmp_path.iterdir()] == ["out.conf"]
    assert within("render", "-", "--watch").exit_code == 2


def test_render_writes_again_when_a_secret_changed_and_runs_what_it_is_told(start, admin, tmp_path):
    (tmp_path / "template").write_text("{{ vaultd://vaults/default/secrets/rendered }}\n")
    process = start("render", "template", "-o", "out", "--watch", "--on-change", "cat out")
    secret = f"{VAULT}/secrets/rendered"
    assert process.stdout.readline() == "one\n"
    admin.add_secret_version(secret, b"two")
    assert process.stdout.readline() == "two\n"
    admin.disable_secret_version(f"{secret}/versions/2")
    line = process.stderr.readline()
    while "SECRET_VERSION_DISABLED" not in line:
        line = process.stderr.readline()
    assert (tmp_path / "out").read_text() == "two\n"
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130


def test_a_file_on_a_disk_is_told_from_one_in_memory(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/root rw\n"
        "2 1 0:5 / /run rw,nosuid shared:3 - tmpfs tmpfs rw\n"
        "3 2 8:2 / /run/disk rw - xfs /dev/sdb rw\n"
    )
    monkeypatch.setattr(private_files, "MOUNTS", mounts)
    told = [private_files.on_disk(private_files.Path(path)) for path in ("/etc/x", "/run/x", "/run/disk/x", "/runx")]
    assert told == ["/", "", "/run/disk", "/"]
    monkeypatch.setattr(private_files, "MOUNTS", tmp_path / "elsewhere")
    assert private_files.on_disk(private_files.Path("/etc/x")) == ""


@pytest.mark.parametrize("read", [json.loads, yaml.safe_load])
def test_a_string_of_json_is_one_of_yaml_too(read):
    last = 0x10FFFF
    edges = [*range(0x100), 0xD7FF, 0xE000, 0x2028, 0x2029, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x1F511, last]
    text = "".join(map(chr, edges)) + '" \\u0041 \U0001f511'
    assert read(f"[{FILTERS['json'](text.encode())}]") == [text]


def test_references_have_one_spelling():
    assert SecretReference.parse("vaultd://vaults/a/secrets/b/versions/latest#x y") == SecretReference(
        "vaults/a/secrets/b/versions/latest", "x y"
    )
    for text in (
        "vaults/a/secrets/b#",
        "vaults/a/secrets/b/",
        "vault/a/secrets/b",
        "vaults/A/secrets/b",
        "vaults/a/keys/b",
    ):
        with pytest.raises(ReferenceInvalid):
            SecretReference.parse(text)
    assert Template.parse("{{ vaultd://vaults/a/secrets/b#m | json }}").references == [
        SecretReference("vaults/a/secrets/b", "m")
    ]
    for line, told in (
        ("A", "line 1 is no NAME=VALUE"),
        ("1A=1", "line 1: a variable's name"),
        ("A=vaultd://x", "line 1, A: "),
    ):
        with pytest.raises(TemplateInvalid, match=told):
            read_environment(line)


def test_the_page_works_as_it_is_written(server, admin, tmp_path):
    admin.create_secret(VAULT, "orders-db", payload=b'{"username": "orders_a", "password": "correct horse"}')
    admin.create_secret(VAULT, "api-token", payload=b"t0ken")
    page = REPOSITORY / "docs" / "integrations.md"
    blocks = [block for block in shell_blocks(page) if "vaultctl" in block]
    rendered = tmp_path / "app.yaml"
    script = "\n".join(["set -euo pipefail", *blocks]).replace("/dev/shm/", f"{tmp_path}/")  # noqa: S108  # as the page has it
    path = f"{VAULTCTL.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **environment_of(server, "app"), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (printed,) = re.findall(r"^```text\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert done.stdout == printed
    database = yaml.safe_load(rendered.read_text())["database"]
    assert database == {"user": "orders_a", "password": "correct horse", "pool": "{{ .Values.pool }}"}
