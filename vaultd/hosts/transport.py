"""Settings of gRPC's core that only the environment reaches.  Must be applied before anything imports grpc."""

from __future__ import annotations

import os
from typing import Final

NO_TLS12_CIPHER: Final = "ECDHE-PSK-AES128-CBC-SHA"
"""The only TLS 1.2 cipher suite on offer needs a pre-shared key, which nobody has: TLS 1.2 handshakes fail.

gRPC's Python API cannot set the least TLS version, and releases before 1.80 do not tell the negotiated one either.  The
cipher suites of TLS 1.3 are not affected by this setting.
"""


def restrict_transport() -> None:
    """TLS 1.3 only, and no handshake noise of gRPC's core on standard error."""
    os.environ["GRPC_SSL_CIPHER_SUITES"] = NO_TLS12_CIPHER
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def is_restricted() -> bool:
    """Whether restrict_transport was applied."""
    return os.environ.get("GRPC_SSL_CIPHER_SUITES") == NO_TLS12_CIPHER
