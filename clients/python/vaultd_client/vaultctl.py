"""The command `vaultctl`; what it does is in vaultd_client/ctl."""

from __future__ import annotations

from vaultd_client.ctl.root import main

if __name__ == "__main__":
    main(prog_name="vaultctl")
