"""A real HTTPS service that rotates: it checks what it is sent as docs/rotation.md says, and keeps credentials in memory."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"0123456789abcdef0123456789abcdef"
PATH = "/rotate?system=legacy"


class Webhook:
    """Accepts what was set, and not what was retired or rolled back.  `answers` are given instead, by stage, one by one."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.accepted: set[bytes] = set()
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, list[tuple[int, bytes]]] = {}
        self.faults: list[str] = []
        self.arrived = threading.Event()
        self.let_go = threading.Event()
        self.let_go.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.arrived.set()
                outer.let_go.wait(60)
                status, answer = outer.serve(self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: Any) -> None:
                del arguments

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                del request, client_address  # clients that hang up are what some tests are about

        self._server = Quiet(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}{PATH}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def serve(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        message = f"v1\n{headers['Vaultd-Timestamp']}\n{path}\n".encode() + body
        wanted = "v1=" + hmac.new(KEY, message, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, headers["Vaultd-Signature"]):
            self.faults.append("signature")
            return 401, b'{"reason": "BAD_SIGNATURE"}'
        asked = json.loads(body)
        self.asked.append(asked)
        self.headers.append(headers)
        stage = asked["stage"]
        if self.answers.get(stage):
            status, answer = self.answers[stage].pop(0)
            if status:
                return status, answer
        new, old = (b64decode(asked[name]) if asked[name] else b"" for name in ("new", "old"))
        if stage == "set":
            self.accepted.add(new)
        elif stage == "test" and new not in self.accepted:
            return 409, b'{"reason": "NOT_ACCEPTED"}'
        elif stage == "retire":
            self.accepted.discard(old)
        elif stage == "roll_back":
            self.accepted.discard(new)
        return 200, b"{}"

    def stages(self) -> list[str]:
        return [asked["stage"] for asked in self.asked]

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def __enter__(self) -> Webhook:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def target(self, directory: Path, ca_file: Path, **changes: Any) -> dict[str, Any]:
        """A section of `rotation.targets`; writes the key of the signature to a file in `directory`."""
        key = directory / "webhook.key"
        key.write_bytes(KEY)
        key.chmod(0o600)
        return {
            "name": "legacy",
            "type": "webhook",
            "secrets": ["vaults/default"],
            "url": self.url,
            "ca_file": str(ca_file),
            "hmac_key": {"path": str(key)},
            **changes,
        }
