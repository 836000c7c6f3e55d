"""CRC32C of payloads: filled in requests, checked in answers.

They find what TLS cannot: bytes that change in a proxy that ends TLS, or in memory.  They keep nobody from changing anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import google_crc32c

from vaultd_client.errors import ChecksumMismatch, Refusal

if TYPE_CHECKING:
    from vaultd_client.method import Method

FAST: Final = google_crc32c.implementation == "c"
"""Without its C code a checksum costs more than the call that it guards: none is filled then."""
_crc32c: Final = google_crc32c.value


def fill_checksums(method: Method[Any, Any], request: Any) -> None:
    """Add what the request lacks.  Of a list of items: to each of them."""
    if method.single is not None:
        for item in request.items:
            fill_checksums(method.single, item)
    for name, covered in method.checksums:
        if len(covered) == 1:
            setattr(request, name, _crc32c(getattr(request, covered[0])))
            continue
        for one in covered:
            if request.HasField(one):
                setattr(request, name, _crc32c(getattr(request, one)))


def check_answer(method: Method[Any, Any], answer: Any) -> None:
    """Raise ChecksumMismatch when an answer does not fit its checksum.  Of a batch: each result."""
    if method.single is not None:
        for result in answer.results:
            if result.HasField("result"):
                check_answer(method.single, result.result)
    for name, (covered,) in method.answer_checksums:
        expected = getattr(answer, name)
        if expected != _crc32c(getattr(answer, covered)) and answer.HasField(name):
            text = f"{covered} is not what the server computed; ask again, and look for bad memory or a proxy"
            raise ChecksumMismatch(Refusal("DATA_LOSS", text, "ANSWER_CHECKSUM_MISMATCH"), method.path)
