"""The baseline of keys in a token: one thread, one session, nothing else.  `python -m bench.token_loop TOKEN_DIRECTORY`.

The first line on standard input names the keys' objects; each further one is a slice as JSON, and each line on standard
output what came of it.  An operation is what vaultd asks of the token for one item, and makes of it: digest, nonce.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pkcs11
from pkcs11 import MGF, Attribute, Mechanism, ObjectClass
from pkcs11.mechanisms import GCMParams

from bench.cases import DATA
from vaultd import softhsm
from vaultd.dev import HSM_LABEL
from vaultd.engine.catalog import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

_HEADER: Final = bytes(HEADER_BYTES)
"""As long as the associated data that vaultd binds to a ciphertext."""
_BETWEEN_CLOCKS_S: Final = 0.005


def _operations(session: Any, names: dict[str, str]) -> dict[str, Callable[[], object]]:
    def find(kind: ObjectClass, key: str) -> Any:
        (found,) = session.get_objects({Attribute.CLASS: kind, Attribute.LABEL: names[key]})
        return found

    p256, rsa = find(ObjectClass.PRIVATE_KEY, "p256"), find(ObjectClass.PRIVATE_KEY, "rsa2048")
    aes = find(ObjectClass.SECRET_KEY, "aes")

    def sign_p256() -> object:
        return p256.sign(hashlib.sha256(DATA).digest(), mechanism=Mechanism.ECDSA)

    def sign_rsa() -> object:
        digest, parameter = hashlib.sha256(DATA).digest(), (Mechanism.SHA256, MGF.SHA256, 32)
        return rsa.sign(digest, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameter)

    def encrypt() -> object:
        nonce = os.urandom(12)
        return nonce + aes.encrypt(DATA, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, _HEADER, 128))

    return {"p256": sign_p256, "rsa2048": sign_rsa, "aes": encrypt}


def _run(operation: Callable[[], object], seconds: float) -> dict[str, float]:
    began = time.perf_counter()
    operation()
    # As many operations between two looks at the clock as a few milliseconds hold: one, for RSA.
    stride = max(1, int(_BETWEEN_CLOCKS_S / (time.perf_counter() - began)))
    done, cpu_s, began = 0, time.process_time(), time.perf_counter()
    while (elapsed_s := time.perf_counter() - began) < seconds:
        for _ in range(stride):
            operation()
        done += stride
    return {"operations": done, "elapsed_s": elapsed_s, "cpu_s": time.process_time() - cpu_s}


def main() -> None:
    """Log in once, then run what is asked for."""
    directory = Path(sys.argv[1])
    os.environ.update(softhsm.environment(directory))
    library = pkcs11.lib(str(softhsm.find_module()))
    token = library.get_token(token_label=HSM_LABEL)
    with token.open(user_pin=softhsm.make_token(directory, HSM_LABEL).read_text().strip()) as session:
        print("ready", ".".join(map(str, library.library_version)), flush=True)
        operations = _operations(session, json.loads(sys.stdin.readline()))
        for line in sys.stdin:
            order = json.loads(line)
            print(json.dumps(_run(operations[order["operation"]], order["seconds"])), flush=True)


if __name__ == "__main__":
    main()
