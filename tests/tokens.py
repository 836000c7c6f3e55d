"""A token issuer of tests: PyJWT signs, so that another library than the server's decides what a good token is."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

if TYPE_CHECKING:
    from pathlib import Path

    from harness import FakeClock

ISSUER = "https://issuer.example.org"
AUDIENCE = "vaultd"


def segment(value: Any) -> str:
    """A part of a token: base64url of JSON, or of bytes as they are."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def new_key(algorithm: str = "ES256") -> Any:
    if algorithm.startswith("ES"):
        return ec.generate_private_key({"256": ec.SECP256R1, "384": ec.SECP384R1, "512": ec.SECP521R1}[algorithm[2:]]())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65_537, 2_048)


class TokenIssuer:
    """Keys by kid, and tokens signed with them, in the time of a clock."""

    def __init__(self, clock: FakeClock, issuer: str = ISSUER, algorithm: str = "ES256") -> None:
        self.clock = clock
        self.issuer = issuer
        self.keys: dict[str, tuple[str, Any]] = {}
        self.add("k1", algorithm)

    def add(self, kid: str, algorithm: str = "ES256") -> None:
        self.keys[kid] = (algorithm, new_key(algorithm))

    def jwks(self) -> bytes:
        return json.dumps({"keys": [self.jwk(kid) for kid in self.keys]}).encode()

    def jwk(self, kid: str) -> dict[str, Any]:
        algorithm, key = self.keys[kid]
        made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
        return {**made, "kid": kid, "use": "sig", "alg": algorithm}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Good claims; a change to None takes a claim away."""
        now = self.clock.us // 1_000_000
        given = {"iss": self.issuer, "aud": AUDIENCE, "sub": "app", "iat": now, "nbf": now, "exp": now + 600, **changes}
        return {name: value for name, value in given.items() if value is not None}

    def token(self, *, kid: str = "k1", header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        algorithm, own = self.keys[kid]
        return jwt.encode(self.claims(**changes), key or own, algorithm, headers={"kid": kid, **(header or {})})


class KeyServer:
    """A real HTTP(S) server on 127.0.0.1: paths, and what they answer.  Counts what it was asked."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.let_go = threading.Event()
        self.let_go.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers.get("Authorization", "")))
                outer.let_go.wait(60)
                status, body, headers = outer.answers.get(self.path, (404, b"", {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                del arguments

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                del request, client_address  # clients that hang up are what some tests are about

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def serve(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.answers[path] = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def __enter__(self) -> KeyServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
