"""Measures vaultd beside a bare grpc.aio echo on the same machine in the same minutes.  Prints figures and judges nothing.

`python -m bench --help` says how; nothing here is imported by the product.
"""
