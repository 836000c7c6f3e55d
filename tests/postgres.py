"""A PostgreSQL server of a test's own: Debian's binaries, a temporary cluster, 127.0.0.1, TLS, passwords as SCRAM only."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from ports import free_port
from vaultd.devpki import create_dev_pki

DATABASE = "orders"
ADMIN = "rotator"
ADMIN_PASSWORD = "the rotator's own, 24 chars"
USERS = ("orders_a", "orders_b")
RECIPE = Path(__file__).resolve().parents[1] / "docs/rotation.md"


def setup() -> list[str]:
    """The statements of docs/rotation.md, with a password of ours; and a role that may do nothing."""
    written = RECIPE.read_text().split("```sql\n")[1].split("```")[0]
    password = ADMIN_PASSWORD.replace("'", "''")
    statements = written.replace("something long", password).strip().splitlines()
    return [*statements, "CREATE ROLE bystander LOGIN PASSWORD 'bystander'"]


def binaries() -> Path:
    """Where the newest server's programs are; tests/system-packages.sh installs them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    assert found, "no PostgreSQL: sh tests/system-packages.sh installs it"
    return found[-1].parent


def _as_postgres(*command: str) -> list[str]:
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else list(command)


class Postgres:
    """A running server.  `log` has every statement that it was sent."""

    def __init__(self) -> None:
        # Not below a test's own directory: the server's user must be able to get in, and sockets want short paths.
        self.directory = Path(tempfile.mkdtemp(prefix="vaultd-pg-"))
        self.port = free_port()
        self.ca_file = self.directory / "tls/ca.crt"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._make()
            self.start()
            for statement in setup():
                self.sql(statement)
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        create_dev_pki(self.directory / "tls", hosts=["127.0.0.1"])
        data = self.directory / "data"
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (self.directory, *self.directory.rglob("*")):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self.directory.chmod(0o711)
        command = [str(binaries() / "initdb"), "-D", str(data), "-U", "postgres", "-E", "UTF8", "--no-locale"]
        subprocess.run(
            _as_postgres(*command, "--auth-local=peer", "--auth-host=scram-sha-256", "--no-sync"),
            check=True,
            capture_output=True,
            cwd=self.directory,
        )
        if os.geteuid() != 0:  # peer would want the role of this user's name
            (data / "pg_hba.conf").write_text("local all postgres trust\n")
        hba = (data / "pg_hba.conf").read_text().splitlines()
        local = [line for line in hba if line.startswith("local") and "replication" not in line]
        (data / "pg_hba.conf").write_text("\n".join([*local, "hostssl all all 127.0.0.0/8 scram-sha-256", ""]))
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(
                f"listen_addresses = '127.0.0.1, 127.0.0.2'\nport = {self.port}\nunix_socket_directories = '{self.directory}'\n"
                f"ssl = on\nssl_cert_file = '{self.directory}/tls/server.crt'\nssl_key_file = '{self.directory}/tls/server.key'\n"
                "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nlog_statement = 'all'\n"
                "max_connections = 200\nshared_buffers = 16MB\nautovacuum = off\n"
            )

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _as_postgres(str(binaries() / "postgres"), "-D", str(self.directory / "data")),
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        ready = [str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until = time.monotonic() + 30
        while subprocess.run(ready, check=False).returncode:
            assert time.monotonic() < until, self.log
            assert self._process.poll() is None, self.log
            time.sleep(0.02)  # another process can only be asked again

    def stop(self) -> None:
        """End the server at once; its data stays."""
        if self._process is not None and self._process.poll() is None:
            pid = int((self.directory / "data/postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, signal.SIGINT)
            self._process.wait(30)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def sql(self, statement: str) -> str:
        """Run a statement as the superuser, over the socket; gives what psql prints."""
        command = [str(binaries() / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory)]
        done = subprocess.run(
            _as_postgres(*command, "-p", str(self.port), "-U", "postgres", "-d", "postgres", "-c", statement),
            check=True,
            capture_output=True,
            text=True,
            cwd=self.directory,
        )
        return done.stdout.strip()

    def has_password(self, role: str) -> bool:
        have = self.sql("SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL").splitlines()
        return role in have

    async def connect(self, user: str, password: str) -> Any:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=user, password=password, database=DATABASE, ssl=context, timeout=10
        )

    async def logs_in(self, user: str, password: str) -> bool:
        """Whether a role and a password are accepted."""
        try:
            connection = await self.connect(user, password)
        except asyncpg.InvalidPasswordError:
            return False
        try:
            return await connection.fetchval("SELECT session_user::text") == user
        finally:
            await connection.close()

    def target(self, directory: Path, **changes: Any) -> dict[str, Any]:
        """A section of `rotation.targets`; writes the admin's password to a file in `directory`."""
        password = directory / "pg-admin.password"
        password.write_text(ADMIN_PASSWORD + "\n")
        password.chmod(0o600)
        return {
            "name": "orders-db",
            "type": "postgres",
            "secrets": ["vaults/default/secrets/orders-db"],
            "host": "127.0.0.1",
            "port": self.port,
            "database": DATABASE,
            "users": list(USERS),
            "admin": {"username": ADMIN, "password": {"path": str(password)}},
            "tls": {"ca_file": str(self.ca_file)},
            **changes,
        }
