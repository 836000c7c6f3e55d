"""Generated stubs of `protos/vaultd/v1`.  Written by `make generate`; edited by nobody."""
