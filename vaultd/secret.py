"""Key bytes in Python's hands: a wrapper that cannot be printed, compared or pickled by accident."""

from __future__ import annotations

from typing import NoReturn, final


@final
class Secret:
    """Secret bytes.  `expose` is the only way in; grep finds every use and a test counts them.

    Python cannot promise to wipe memory (SECURITY.md): hold a Secret for as short a time as possible and prefer objects of
    OpenSSL, which keep the bytes outside the Python heap.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def expose(self, reason: str) -> bytes:
        """Return the bytes; `reason` says, for the reader of the code, why they are needed."""
        del reason
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return f"<secret {len(self._value)} B>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise TypeError("secrets are compared with hmac.compare_digest on exposed bytes")

    __hash__ = None  # type: ignore[assignment]  # a secret must not become a dict key

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled")
