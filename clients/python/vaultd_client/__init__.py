"""Client side of vaultd: the generated stubs of package vaultd.v1 live in `vaultd_client.v1`, once for server and clients.

The command `vaultctl` is here, too (vaultctl.py).

No server code may be imported from here.
"""
