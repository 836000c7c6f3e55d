"""Structured logs of the server's own doings.

No payloads, no secrets, no caller input.
"""
