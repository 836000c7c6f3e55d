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


def test_what_is_slow_to_import_waits_until_it_is_used():
    said = subprocess.run([sys.executable, "-c", LOOK, *SLOW], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""
