"""Etags: whoever read a resource changes what was read, and nothing newer."""

from __future__ import annotations

from vaultd.errors import Aborted


def check_etag(given: str, current: str) -> None:
    """Raise Aborted unless `given` is empty or current."""
    if given and given != current:
        raise Aborted("ETAG_MISMATCH", "the resource changed since it was read; read it again and repeat the change")
