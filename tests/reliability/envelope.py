"""A long stream in constant memory, and streams that were damaged.

    python tests/reliability/envelope.py --gib 10 --harms 200 --seed 1

A real server, and a client in a process of its own that pipes what it encrypts into what it decrypts: bytes that are made on the
way, compared by their hash, with no file in between.  Then a stream of 24 MiB is damaged again and again (flipped, cut, segments
left out, exchanged, repeated, added, taken from another stream): each must be refused, and nothing may come out of the first
segment that is not as it was written, nor of any behind it.  One JSON line; exit code 1 when anything of that does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from processes import ENVIRONMENT, make_vault

from vaultd_client import Client

PROGRAM = Path(__file__).with_name("envelope_client.py")
MOST_MIB = 200
"""What the client may have at most; bytes that are held come on top of what Python and gRPC take."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=10)
    parser.add_argument("--harms", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        server = make_vault(directory)
        server.start()
        tls = directory / "tls"
        files = {"ca": tls / "ca.crt", "certificate": tls / "admin.crt", "key": tls / "admin.key"}
        try:
            with Client(server.address, **files) as admin:
                key = admin.create_key("vaults/default", "archive", {"purpose": "KEY_PURPOSE_ENCRYPT_DECRYPT"}).name
            variables = {"VAULTD_ADDR": server.address, "VAULTD_CA": files["ca"], "VAULTD_CERT": files["certificate"]}
            done = subprocess.run(
                [sys.executable, PROGRAM, key] + [f"--{name}={value}" for name, value in vars(wanted).items()],
                env={
                    **ENVIRONMENT,
                    **{name: str(value) for name, value in variables.items()},
                    "VAULTD_KEY": str(files["key"]),
                },
                stdout=subprocess.PIPE,
                check=True,
            )
        finally:
            server.stop()
    report = json.loads(done.stdout)
    print(json.dumps({**report, "cores": os.cpu_count(), "seed": wanted.seed}))
    stream, harms = report["stream"], report["harms"]
    refused = sum(harms.get("refused", {}).values())
    if not stream["same"] or stream["peak_mib"] >= MOST_MIB or refused != wanted.harms:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
