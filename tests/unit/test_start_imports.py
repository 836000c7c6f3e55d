"""What a server that does not use them must not wait for at every start."""

from __future__ import annotations

import subprocess
import sys

SLOW = ("cel", "typer")
LOOK = """
import sys
from vaultd.hosts.transport import restrict_transport
restrict_transport()
import vaultd.wiring
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


SUPERVISOR = """
import sys
import vaultd.cli, vaultd.config, vaultd.telemetry.log, vaultd.audit.segments, vaultd.engine.shared_buckets
import vaultd.workers.pages, vaultd.workers.supervisor
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_the_supervisor_of_workers_has_no_grpc_and_no_store_in_it():
    heavy = ("grpc", "sqlite3", "aiosqlite", "vaultd.wiring", "vaultd.backends.software", "opentelemetry.sdk")
    said = subprocess.run([sys.executable, "-c", SUPERVISOR, *heavy], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""


def test_what_is_slow_to_import_waits_until_it_is_used():
    said = subprocess.run([sys.executable, "-c", LOOK, *SLOW], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""
