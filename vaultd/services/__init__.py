"""One file per proto service: convert the request, call one engine method, convert the result.

No rules: an if about keys belongs in the engine.
"""
