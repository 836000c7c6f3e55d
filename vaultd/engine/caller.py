"""Who calls, as identity established it and policy looks at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_CLAIMS: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """An authenticated principal.

    claims: what its token says besides, verified, for conditions of the policy; empty for a certificate.  One object is kept for
    one credential, so that it may be the key of a cache.
    """

    principal: str
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS)
