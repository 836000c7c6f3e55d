"""A token as its operator sees it, by a process of its own that shares nothing with the server but the module.

python tests/reliability/hsm_token.py  < an order, as `Outside` writes it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

TIMEOUT_S = 60


class Outside:
    """Looks into a token, and puts known keys into it.  The PIN goes over a pipe."""

    def __init__(self, module: str, label: str, pin: str, environment: dict[str, str]) -> None:
        self._order = {"module": module, "label": label, "pin": pin}
        self._environment = {**os.environ, **environment}

    def look(self) -> dict[str, Any]:
        """Log in; returns `flags`, names of the token's flags, `objects`, counts by CKA_ID and class, and `husks`.

        SoftHSM writes an object bit by bit: a process that is killed meanwhile leaves one without CKA_ID, and without the
        key's value, which comes after it.
        """
        return self._run({})

    def put_secret(self, object_id: bytes, label: str, value: bytes) -> None:
        """Store an HMAC key whose value the caller knows."""
        self._run({"id": object_id.hex(), "name": label, "value": value.hex()})

    def _run(self, extra: dict[str, str]) -> Any:
        done = subprocess.run(
            [sys.executable, str(Path(__file__))],
            input=json.dumps({**self._order, **extra}),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"the token cannot be entered from outside: {done.stderr.strip()[-500:]}")
        return json.loads(done.stdout)


def workers_of(server_pid: int) -> list[int]:
    """Processes of HSM workers that the server is the parent of."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                named = b"vaultd.backends.pkcs11.worker" in (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == server_pid and named:
                found.append(int(entry.name))
    return found


def main() -> None:
    """Follow the order on standard input."""
    import pkcs11
    from pkcs11 import Attribute, KeyType, ObjectClass, TokenFlag

    order = json.load(sys.stdin)
    token = pkcs11.lib(order["module"]).get_token(token_label=order["label"])
    flags = [flag.name for flag in TokenFlag if flag in token.flags]
    objects: Counter[str] = Counter()
    with token.open(rw="value" in order, user_pin=order["pin"]) as session:
        if "value" in order:
            session.create_object(
                {
                    Attribute.CLASS: ObjectClass.SECRET_KEY,
                    Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
                    Attribute.VALUE: bytes.fromhex(order["value"]),
                    Attribute.ID: bytes.fromhex(order["id"]),
                    Attribute.LABEL: order["name"],
                    Attribute.TOKEN: True,
                    Attribute.PRIVATE: True,
                    Attribute.SENSITIVE: True,
                    Attribute.SIGN: True,
                }
            )
        for one in session.get_objects({Attribute.TOKEN: True}):
            if one[Attribute.ID]:
                objects[f"{bytes(one[Attribute.ID]).hex()} {one[Attribute.CLASS].name}"] += 1
        husks = len(list(session.get_objects({Attribute.ID: b""})))
    json.dump({"flags": flags, "objects": objects, "husks": husks}, sys.stdout)


if __name__ == "__main__":
    main()
