"""How each algorithm's keys are encoded and used, on the `cryptography` package, whose exceptions end here.

No threads, no event loop, no storage; `catalogue.py` lists every algorithm.
"""
