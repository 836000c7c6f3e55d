"""What Envoy is told: the process (`bootstrap`), and a listener (`listener`).

Nothing of it is left to defaults that matter.  Envoy has no upstream here: pyvoy answers every request in the process itself, so
that nothing is retried, routed, buffered as a whole or named after Envoy.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

HANDSHAKE_S: Final = 5
HEADERS_S: Final = 10
MAX_HEADER_KIB: Final = 64
"""With the certificates that Envoy adds; what a client sends beside is bounded by the application, which can say so."""
MAX_HEADERS: Final = 1_000
"""More than the application takes, which answers; beyond it Envoy resets the stream without a word."""
MAX_STREAMS: Final = 100
"""Of a connection, as on the other host: rapid reset, fairness between connections."""
STREAM_WINDOW_BYTES: Final = 1024 * 1024
CONNECTION_WINDOW_BYTES: Final = 8 * 1024 * 1024
BUFFER_BYTES: Final = 1024 * 1024
"""Of a stream, each way: with more that nobody has read, Envoy holds the sender back."""
FLUSH_S: Final = 10
CONNECTION_AGE_S: Final = 300
CONNECTION_GRACE_S: Final = 30
CONNECTION_IDLE_S: Final = 300
KEEPALIVE_S: Final = 60
KEEPALIVE_TIMEOUT_S: Final = 20
_TYPES: Final = "type.googleapis.com/"
_EXTENSIONS: Final = f"{_TYPES}envoy.extensions."
LISTENERS: Final = "listeners.json"
ADMIN: Final = "admin.sock"
CERTIFICATE, AUTHORITIES = "certificate", "authorities"

Config = dict[str, Any]
_READABLE_PATHS: Final[Config] = {
    "name": "envoy.filters.http.rbac",
    "typed_config": {
        "@type": f"{_EXTENSIONS}filters.http.rbac.v3.RBAC",
        "rules": {
            "action": "DENY",
            "policies": {
                "not-ascii": {
                    "permissions": [{"url_path": {"path": {"safe_regex": {"regex": "(?s).*(%[89A-Fa-f]|[^ -~]).*"}}}}],
                    "principals": [{"any": True}],
                }
            },
        },
    },
}
"""pyvoy answers nothing at all for a path that is not UTF-8 when it is decoded.  Methods of gRPC are ASCII."""
_NO_METHOD: Final = "this server has no such method; reflection or the protos list them"


def _is_unknown(status: int) -> Config:
    # What Envoy says itself to a gRPC client: 400 would be INTERNAL, and its texts name it.
    return {
        "filter": {
            "status_code_filter": {
                "comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": "none"}}
            }
        },
        "status_code": 404,  # for gRPC that is UNIMPLEMENTED
        "body": {"inline_string": _NO_METHOD},
    }


@dataclass(frozen=True, slots=True)
class App:
    """Where pyvoy finds an application: `module:attribute`, and its library."""

    name: str
    library: str


def bootstrap(directory: Path, app: App, max_connections: int) -> Config:
    """The process: an application that starts with it, and listeners as `listeners.json` of the directory has them.

    The application hangs on a listener that has no socket: Envoy loads Python only for one.  The admin interface is a socket
    in the directory, which is its user's alone.
    """
    return {
        "node": {"id": "vaultd", "cluster": "vaultd"},
        "admin": {"address": {"pipe": {"path": str(directory / ADMIN), "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "python",
                    "bind_to_port": False,
                    "address": _socket("127.0.0.1", 1),
                    "filter_chains": [{"filters": [_connection_manager(app, lifespan=True, mutual=False)]}],
                }
            ]
        },
        "dynamic_resources": {"lds_config": _files(directory / LISTENERS)},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_EXTENSIONS}resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": max_connections,
                    },
                }
            ]
        },
        "stats_config": {"stats_matcher": {"reject_all": True}},
    }


def listener(name: str, address: str, app: App, directory: Path, *, mutual: bool) -> Config:
    """A listener of TLS 1.3 and HTTP/2.  `mutual`: it demands a client certificate, else it never asks for one."""
    host, _, port = address.rpartition(":")
    validation = {"validation_context_sds_secret_config": _secret(directory, AUTHORITIES)} if mutual else {}
    tls = {
        "@type": f"{_EXTENSIONS}transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": mutual,
        # Every connection shows its certificate: what was verified before the authorities changed is not taken up again.
        "disable_stateless_session_resumption": True,
        "disable_stateful_session_resumption": True,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [_secret(directory, CERTIFICATE)],
            **validation,
        },
    }
    return {
        "@type": f"{_TYPES}envoy.config.listener.v3.Listener",
        "name": name,
        "address": _socket(host.strip("[]"), int(port)),
        "enable_reuse_port": False,  # no other local process may share the port
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [
            {
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "transport_socket_connect_timeout": f"{HANDSHAKE_S}s",  # TCP connections that never speak
                "filters": [_connection_manager(app, lifespan=False, mutual=mutual)],
            }
        ],
    }


def certificate_secret(certificate: bytes, key_path: str) -> Config:
    """The server's certificate.  The private key is not in it, but where `key_path` says."""
    return {
        "@type": f"{_EXTENSIONS}transport_sockets.tls.v3.Secret",
        "name": CERTIFICATE,
        "tls_certificate": {
            "certificate_chain": {"inline_bytes": base64.b64encode(certificate).decode()},
            "private_key": {"filename": key_path},
        },
    }


def authorities_secret(authorities: bytes) -> Config:
    """Whose client certificates are accepted.

    Revocation lists are not in it: the chain asks them with every call, so that an open connection is refused too, and whoever is
    refused is told why and recorded.  A list that is out of date would end every handshake without a word.
    """
    return {
        "@type": f"{_EXTENSIONS}transport_sockets.tls.v3.Secret",
        "name": AUTHORITIES,
        "validation_context": {"trusted_ca": {"inline_bytes": base64.b64encode(authorities).decode()}},
    }


def resources_file(version: str, resources: list[Config]) -> bytes:
    """A file of listeners, or of one secret."""
    return json.dumps({"version_info": version, "resources": resources}).encode()


def secret_path(directory: Path, name: str) -> Path:
    """Where a secret's file is."""
    return directory / f"{name}.json"


def _secret(directory: Path, name: str) -> Config:
    return {"name": name, "sds_config": _files(secret_path(directory, name))}


def _files(path: Path) -> Config:
    """Read again when something is moved into its directory."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
    }


def _socket(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}


def _connection_manager(app: App, *, lifespan: bool, mutual: bool) -> Config:
    # `Cert` is what the host reads, and `Chain` what else the client sent to lead up to an authority.
    forwarded: Config = (
        {
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": {"cert": True, "chain": True},
        }
        if mutual
        else {"forward_client_cert_details": "SANITIZE"}
    )
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "vaultd",
            "codec_type": "HTTP2",
            "http2_protocol_options": {
                "max_concurrent_streams": MAX_STREAMS,
                "initial_stream_window_size": STREAM_WINDOW_BYTES,
                "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
                "connection_keepalive": {"interval": f"{KEEPALIVE_S}s", "timeout": f"{KEEPALIVE_TIMEOUT_S}s"},
                # Against floods that cost the sender little: of frames that want no answer, and of answers that are not read.
                "max_outbound_frames": 10_000,
                "max_outbound_control_frames": 1_000,
                "max_consecutive_inbound_frames_with_empty_payload": 1,
                "max_inbound_priority_frames_per_stream": 100,
                "max_inbound_window_update_frames_per_data_frame_sent": 10,
            },
            "common_http_protocol_options": {
                "idle_timeout": f"{CONNECTION_IDLE_S}s",
                "max_connection_duration": f"{CONNECTION_AGE_S}s",
                "max_headers_count": MAX_HEADERS,
                "headers_with_underscores_action": "ALLOW",  # metadata may have them, and no header of ours does
            },
            "drain_timeout": f"{CONNECTION_GRACE_S}s",
            "max_request_headers_kb": MAX_HEADER_KIB,
            "request_headers_timeout": f"{HEADERS_S}s",
            # The chain bounds how long a message may be on its way and how long a call may last; a watcher may be still for hours.
            "stream_idle_timeout": "0s",
            "stream_flush_timeout": f"{FLUSH_S}s",  # what is answered as a whole, and its reader takes nothing of it
            "request_timeout": "0s",
            "use_remote_address": True,  # of the connection, and not what a header says
            "skip_xff_append": True,
            "generate_request_id": False,
            "preserve_external_request_id": False,
            "server_header_transformation": "PASS_THROUGH",
            "normalize_path": False,
            "merge_slashes": False,
            "route_config": {"virtual_hosts": []},
            **forwarded,
            "local_reply_config": {"mappers": [_is_unknown(400), _is_unknown(403)]},
            "http_filters": [
                _READABLE_PATHS,
                {
                    "name": "pyvoy",
                    "typed_config": {
                        "@type": f"{_EXTENSIONS}filters.http.dynamic_modules.v3.DynamicModuleFilter",
                        "dynamic_module_config": {"module": {"local": {"filename": app.library}}},
                        "filter_name": "pyvoy",
                        "terminal_filter": True,
                        "filter_config": {
                            "@type": f"{_TYPES}google.protobuf.StringValue",
                            "value": json.dumps(
                                {"app": app.name, "interface": "asgi", "loop": "uvloop", "lifespan": lifespan}
                            ),
                        },
                    },
                },
            ],
        },
    }
