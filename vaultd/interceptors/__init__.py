"""The steps between a host and a service, one file each; chain.py lists them in order.

Nothing here uses a key or writes a row.
"""
