"""Canaries: what goes in as a secret comes out nowhere but in the answer that it belongs to."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
import sqlite3
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from wire import (
    ADMIN,
    CRYPTO,
    GENEROUS,
    KEYS,
    METHODS,
    OK,
    PURPOSE_KEYS,
    SECRETS,
    SINGLE_KEY_CALLS,
    SINGLES,
    UNAVAILABLE,
    Outcome,
    World,
    call,
    key_of,
)

import vaultd
from collector import collecting
from harness import APP, FakeClock, running_server
from scraping import get
from tokens import AUDIENCE, ISSUER, TokenIssuer, segment
from vaultd.engine.clock import SystemClock
from vaultd.interceptors.rules import RULES
from vaultd.store.base import RowKey
from vaultd.telemetry.log import configure_logging
from vaultd_client.key_wrapping import Recipient, wrap_for_import
from vaultd_client.v1 import admin_pb2, crypto_pb2, key_transfer_pb2, keys_pb2, secrets_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import MethodDescriptor

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY_BYTES = 32
EXPOSED = {
    "audit/shipping/otlp.py": 1,
    "audit/shipping/webhook.py": 2,
    "backends/pkcs11/backend.py": 1,
    "backends/pkcs11/envelope.py": 2,
    "backends/pkcs11/root_key.py": 1,
    "backends/pkcs11/slot.py": 1,
    "backends/primitives/scheme.py": 4,
    "backends/primitives/wrapping.py": 2,
    "backends/rootkeys/base.py": 2,
    "backends/rootkeys/lines.py": 1,
    "backends/rootkeys/passphrase.py": 1,
    "engine/audit_witness.py": 1,
    "engine/key_backups.py": 2,
    "engine/key_wrapping.py": 1,
    "engine/ledger.py": 2,
    "engine/sealing.py": 5,
    "engine/secret_access.py": 1,
    "engine/secret_catalog.py": 1,
    "engine/secrets.py": 1,
    "engine/rotation_runner.py": 1,
    "rotation_targets.py": 1,
    "rotators/postgres.py": 3,
    "rotators/scram.py": 1,
    "rotators/webhook.py": 2,
    "services/secrets.py": 1,
    "workers/siblings.py": 1,
}
"""Uses of Secret.expose.  Each new one is a decision: change this number only with a reason in the review."""


def spellings(canary: bytes) -> list[bytes]:
    """The canary as it might be found: raw, hex, base64, and as Python prints bytes."""
    standard = base64.b64encode(canary).rstrip(b"=")
    url_safe = base64.urlsafe_b64encode(canary).rstrip(b"=")
    printed = repr(canary)[2:-1].encode()
    return [canary, canary.hex().encode(), canary.hex().upper().encode(), standard[:-1], url_safe[:-1], printed]


@dataclass
class Evidence:
    """What the server said and wrote while canaries went in."""

    canaries: list[bytes] = field(default_factory=list)
    material: list[bytes] = field(default_factory=list)
    refusals: list[Outcome] = field(default_factory=list)
    answered: int = 0
    methods: set[str] = field(default_factory=set)
    audit: bytes = b""
    log: bytes = b""
    stored: bytes = b""
    spans: bytes = b""
    span_names: set[str] = field(default_factory=set)
    metrics: bytes = b""

    def fresh(self) -> bytes:
        canary = os.urandom(CANARY_BYTES)
        self.canaries.append(canary)
        return canary

    def note(self, outcome: Outcome) -> Outcome:
        if outcome.code is OK:
            self.answered += 1
        else:
            self.refusals.append(outcome)
        return outcome

    def found_in(self, text: bytes, secrets: list[bytes]) -> list[str]:
        """The secrets that can be read in a text, in any spelling."""
        return [secret.hex() for secret in secrets if any(spelling in text for spelling in spellings(secret))]


def fill(message: Any, evidence: Evidence) -> Any:
    """A canary in every bytes and string field, at any depth."""
    for descriptor in message.DESCRIPTOR.fields:
        if descriptor.message_type is not None:
            if descriptor.message_type.full_name == "google.protobuf.Struct":
                getattr(message, descriptor.name)[evidence.fresh().hex()] = evidence.fresh().hex()
            elif descriptor.message_type.GetOptions().map_entry:
                texts = descriptor.message_type.fields_by_name["value"].type == descriptor.TYPE_STRING
                getattr(message, descriptor.name)[evidence.fresh().hex()] = evidence.fresh().hex() if texts else 1
            elif descriptor.is_repeated:
                fill(getattr(message, descriptor.name).add(), evidence)
            else:
                getattr(message, descriptor.name).SetInParent()
                fill(getattr(message, descriptor.name), evidence)
        elif descriptor.type in {descriptor.TYPE_BYTES, descriptor.TYPE_STRING}:
            canary = evidence.fresh()
            value = canary if descriptor.type == descriptor.TYPE_BYTES else base64.b64encode(canary).decode()
            if descriptor.is_repeated:
                getattr(message, descriptor.name).append(value)
            else:
                setattr(message, descriptor.name, value)
    return message


def every_method(world: World) -> dict[str, MethodDescriptor]:
    """Every method that the server has a route for, whichever service it is of: whoever adds an RPC adds nothing here."""
    pool = descriptor_pool.Default()
    return {
        path: pool.FindServiceByName(service).methods_by_name[name]
        for path in world.server.server.chain._routes
        for service, name in [path.strip("/").split("/")]
        if "reflection" not in service
    }


async def send(client: Any, path: str, method: MethodDescriptor, body: bytes) -> Outcome:
    """Make a call, of a stream up to its first answer."""
    if not (method.server_streaming or method.client_streaming):
        return await call(client, path, body)
    if method.client_streaming:
        stream = client.channel.stream_stream(path)(iter([body]), timeout=5)
    else:
        stream = client.channel.unary_stream(path)(body, timeout=5)
    try:
        await stream.read()
    except grpc.aio.AioRpcError as error:
        trailing = {key: value for key, value in error.trailing_metadata() or ()}
        return Outcome(error.code(), error.details() or "", trailing, b"", path)
    stream.cancel()
    return Outcome(OK, "", {}, b"", path)


async def canaries_everywhere(world: World, evidence: Evidence) -> None:
    """Every field of every RPC at once, whole and cut short."""
    for path, method in every_method(world).items():
        if path == f"{ADMIN}Seal":  # an empty message is a valid one
            continue
        request = fill(GetMessageClass(method.input_type)(), evidence)
        body = request.SerializeToString()
        evidence.methods.add(path)
        evidence.note(await send(world.admin, path, method, body))
        evidence.note(await send(world.admin, path, method, body[: len(body) // 2]))
        evidence.note(await send(world.admin, path, method, body + b"\x0c"))
        evidence.note(await send(world.server.client("stranger"), path, method, body))


def leaves(descriptor: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all bytes and string fields beneath the messages of a message, lists and maps left out."""
    for one in descriptor.fields:
        if one.is_repeated:
            continue
        if one.message_type is None:
            if above and one.type in {one.TYPE_BYTES, one.TYPE_STRING}:
                yield (*above, one.name)
        elif len(above) < 3:
            yield from leaves(one.message_type, (*above, one.name))


async def canaries_within_messages(world: World, evidence: Evidence) -> None:
    """Every bytes and string field of the messages within an otherwise valid request; of batches, within their items."""
    for path in SINGLES:
        if path in {f"{ADMIN}Seal", f"{ADMIN}RotateRootKey"}:
            continue
        for *above, name in leaves(METHODS[path].input_type):
            request = await world.kept_request(path)
            request = type(request).FromString(request.SerializeToString())
            holder = request
            for part in above:
                holder = getattr(holder, part)
            kind = holder.DESCRIPTOR.fields_by_name[name]
            canary = evidence.fresh()
            setattr(holder, name, canary if kind.type == kind.TYPE_BYTES else base64.b64encode(canary).decode())
            evidence.note(await call(world.admin, path, request))


async def canaries_one_by_one(world: World, evidence: Evidence) -> None:
    """Every bytes and string field of an otherwise valid request."""
    for path in SINGLES:
        if path in {f"{ADMIN}Seal", f"{ADMIN}RotateRootKey"}:
            continue
        for descriptor in METHODS[path].input_type.fields:
            if descriptor.type not in {descriptor.TYPE_BYTES, descriptor.TYPE_STRING} or descriptor.is_repeated:
                continue
            request = await world.request(path)
            canary = evidence.fresh()
            text = base64.b64encode(canary).decode()
            setattr(request, descriptor.name, canary if descriptor.type == descriptor.TYPE_BYTES else text)
            evidence.note(await call(world.admin, path, request))


async def canaries_that_work(world: World, evidence: Evidence) -> None:
    """Payloads that are accepted, and what the server makes of them."""
    for key_id in ("enc", "det", "oaep", "hpke"):
        name = f"vaults/default/keys/{key_id}"
        plaintext = evidence.fresh()
        aad = evidence.fresh() if key_id != "oaep" else b""
        request = crypto_pb2.EncryptRequest(name=name, plaintext=plaintext, associated_data=aad)
        sealed = (await call(world.admin, f"{CRYPTO}Encrypt", request)).message().ciphertext
        request = crypto_pb2.DecryptRequest(name=name, ciphertext=sealed, associated_data=aad)
        assert (await call(world.admin, f"{CRYPTO}Decrypt", request)).message().plaintext == plaintext
        batch = crypto_pb2.BatchDecryptRequest(
            items=[request, crypto_pb2.DecryptRequest(name="X", ciphertext=plaintext)]
        )
        evidence.note(await call(world.admin, f"{CRYPTO}BatchDecrypt", batch))
    wrap = crypto_pb2.WrapKeyRequest(name="vaults/default/keys/wrap", key_material=evidence.fresh())
    evidence.note(await call(world.admin, f"{CRYPTO}WrapKey", wrap))
    sign = crypto_pb2.SignRequest(name="vaults/default/keys/sign", message=evidence.fresh())
    evidence.note(await call(world.admin, f"{CRYPTO}Sign", sign))
    make = crypto_pb2.GenerateDataKeyRequest(name="vaults/default/keys/enc", include_plaintext=True, count=3)
    answer = (await call(world.admin, f"{CRYPTO}GenerateDataKey", make)).message()
    evidence.canaries += [key.plaintext for key in answer.data_keys]
    kem = crypto_pb2.EncapsulateRequest(name="vaults/default/keys/kem")
    evidence.canaries.append((await call(world.admin, f"{CRYPTO}Encapsulate", kem)).message().shared_secret)
    await secret_canaries_that_work(world, evidence)
    await keys_that_come_and_go(world, evidence)
    labelled = keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="labelled", key=key_of("MAC"))
    labelled.key.labels["k"] = evidence.fresh().hex()[:63]
    evidence.note(await call(world.admin, f"{KEYS}CreateKey", labelled))


async def secret_canaries_that_work(world: World, evidence: Evidence) -> None:
    """Payloads that are stored, given out, given out sealed, refused, and destroyed."""
    payload, secret = evidence.fresh(), "vaults/default/secrets/canary"
    create = secrets_pb2.CreateSecretRequest(parent="vaults/default", secret_id="canary", payload=payload)
    create.request_id = "canary"
    for _ in range(2):
        evidence.note(await call(world.admin, f"{SECRETS}CreateSecret", create))
    access = secrets_pb2.AccessSecretVersionRequest(name=secret)
    assert (await call(world.admin, f"{SECRETS}AccessSecretVersion", access)).message().payload == payload
    sealed = secrets_pb2.AccessSecretVersionRequest(name=secret, recipient_public_key=b"\x09" + bytes(31))
    answer = (await call(world.admin, f"{SECRETS}AccessSecretVersion", sealed)).message()
    assert evidence.found_in(answer.SerializeToString(), [payload]) == []
    missing = secrets_pb2.AccessSecretVersionRequest(name=f"{secret}/versions/nine")
    batch = secrets_pb2.BatchAccessSecretVersionsRequest(items=[access, sealed, missing])
    evidence.note(await call(world.admin, f"{SECRETS}BatchAccessSecretVersions", batch))
    add = secrets_pb2.AddSecretVersionRequest(parent=secret, payload=evidence.fresh(), expected_etag='"1"')
    assert evidence.note(await call(world.admin, f"{SECRETS}AddSecretVersion", add)).reason == "ETAG_MISMATCH"
    add.payload, add.expected_etag = evidence.fresh(), ""
    evidence.note(await call(world.admin, f"{SECRETS}AddSecretVersion", add))
    destroy = secrets_pb2.DestroySecretVersionRequest(name=f"{secret}/versions/1")
    evidence.note(await call(world.admin, f"{SECRETS}DestroySecretVersion", destroy))
    gone = secrets_pb2.AccessSecretVersionRequest(name=f"{secret}/versions/previous")
    evidence.note(await call(world.admin, f"{SECRETS}AccessSecretVersion", gone))


async def keys_that_come_and_go(world: World, evidence: Evidence) -> None:
    """Key material that is imported, exported and backed up; material that does not fit, and wrappings that do not open."""
    job = await world.import_job("default")
    name = await world.create("default", "transferred", key_of("MAC", "HMAC_SHA256", exportable=True))
    path, recipient, canary = f"{KEYS}ImportKeyVersion", Recipient(), evidence.fresh()
    for material in (canary, canary + evidence.fresh(), canary[:-1]):
        wrapped = wrap_for_import(job, material)
        for blob in (wrapped, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), material):
            request = key_transfer_pb2.ImportKeyVersionRequest(
                parent=name, import_job=job.name, algorithm="ALGORITHM_HMAC_SHA256", wrapped_key=blob
            )
            evidence.note(await call(world.admin, path, request))
    export = key_transfer_pb2.ExportKeyVersionRequest(
        name=name,
        wrapping_method=key_transfer_pb2.WRAPPING_METHOD_HPKE_MLKEM768_X25519,
        public_key_raw=recipient.public_key_raw,
        request_id="leaks-1",
    )
    exported = (await call(world.admin, f"{KEYS}ExportKeyVersion", export)).message()
    assert recipient.open(exported) == canary
    backup = (
        (await call(world.admin, f"{KEYS}BackupKey", key_transfer_pb2.BackupKeyRequest(name=name))).message().backup
    )
    evidence.canaries.append(backup[-CANARY_BYTES:])
    restore = key_transfer_pb2.RestoreKeyBackupRequest(parent="vaults/default", backup=backup)
    evidence.note(await call(world.admin, f"{KEYS}RestoreKeyBackup", restore))


async def canaries_beside_the_message(world: World, evidence: Evidence) -> None:
    """In headers and in the path."""
    metadata = [
        ("x-canary", evidence.fresh().hex()),
        ("x-canary-bin", evidence.fresh()),
        ("traceparent", evidence.fresh().hex()),
        ("tracestate", f"vendor={evidence.fresh().hex()}"),
        ("baggage", f"user={evidence.fresh().hex()}"),
        ("authorization", f"Bearer {evidence.fresh().hex()}"),
    ]
    for path in (f"{CRYPTO}Encrypt", f"{CRYPTO}{evidence.fresh().hex()}", f"/{evidence.fresh().hex()}/x"):
        evidence.note(await call(world.admin, path, b"", metadata=metadata))
        evidence.note(await call(world.server.without_certificate, path, b"", metadata=metadata))


async def canaries_in_tokens(world: World, evidence: Evidence, issuer: TokenIssuer) -> None:
    """In every part of tokens that are accepted, wrong or broken: headers, claims, signature, the whole."""
    request = crypto_pb2.GenerateRandomBytesRequest(parent="vaults/default", length_bytes=8)
    client = world.server.without_certificate

    def text() -> str:
        return base64.b64encode(evidence.fresh()).decode()

    tokens = [
        issuer.token(
            nonce=text(), repository=text()
        ),  # accepted: a claim that nobody asked for, and one for the policy
        issuer.token(sub=None, nonce=text()),
        issuer.token(aud=text()),
        issuer.token(iss=text()),
        issuer.token(header={"kid": text()}),
        issuer.token(header={"jku": f"https://example.org/{text()}"}),
        issuer.token(header={"typ": text()}),
        f"{segment({'alg': text(), 'kid': 'k1'})}.{segment(issuer.claims(sub=text()))}.{segment(evidence.fresh())}",
        f"{segment({'alg': 'ES256', 'kid': 'k1'})}.{segment(issuer.claims(nonce=text()))}.{segment(evidence.fresh())}",
        f"{text()}.{text()}.{text()}",
        text(),
    ]
    evidence.canaries += [token.encode() for token in tokens]
    for token in tokens:
        for scheme in ("Bearer", "Basic"):
            metadata = [("authorization", f"{scheme} {token}")]
            evidence.note(await call(client, f"{CRYPTO}GenerateRandomBytes", request, metadata=metadata))
            evidence.note(await call(world.admin, f"{CRYPTO}GenerateRandomBytes", request, metadata=metadata))


def is_stream(path: str) -> bool:
    service, name = path.strip("/").split("/")
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    return bool(method.server_streaming or method.client_streaming)


async def tamper(server: Any, statement: str) -> None:
    """Change the database behind the server's back; on a thread, for the server may be in a transaction of its own."""

    def change() -> None:
        outside = sqlite3.connect(server.directory / "vault.db", timeout=60)
        with outside:
            assert outside.execute(statement).rowcount != 0
        outside.close()

    await asyncio.to_thread(change)


async def induced_failures(world: World, evidence: Evidence) -> None:
    """A row that was edited, a table that is gone, a log that cannot be written, a seal: with payloads under way."""
    server = world.server

    def calls(key: str = "enc") -> list[tuple[str, Any]]:
        name = f"vaults/default/keys/{key}"
        return [
            (f"{CRYPTO}Encrypt", crypto_pb2.EncryptRequest(name=name, plaintext=evidence.fresh())),
            (f"{CRYPTO}Decrypt", crypto_pb2.DecryptRequest(name=name, ciphertext=world.sealed["default"])),
            (f"{CRYPTO}GenerateDataKey", crypto_pb2.GenerateDataKeyRequest(name=name, include_plaintext=True)),
            (f"{KEYS}CreateKey", keys_pb2.CreateKeyRequest(parent="vaults/default", key_id="x", key=key_of("MAC"))),
        ]

    async def make(requests: list[tuple[str, Any]]) -> None:
        for path, request in requests:
            pending = server.admin.raw(path)(request.SerializeToString(), timeout=30)
            try:
                await pending
            except grpc.aio.AioRpcError as error:
                trailing = {key: value for key, value in error.trailing_metadata() or ()}
                evidence.note(Outcome(error.code(), error.details() or "", trailing, b"", path))
            else:
                evidence.answered += 1

    await world.create("default", "edited", key_of("ENCRYPT_DECRYPT"))
    await tamper(
        server,
        "UPDATE secrets SET secret = zeroblob(size) WHERE id = (SELECT secret_id FROM records WHERE id = 'edited'"
        " AND secret_id IS NOT NULL)",
    )
    await make(calls("edited")[:1])
    audit, away = server.directory / "audit", server.directory / "audit.away"
    audit.rename(away)
    audit.write_bytes(b"")
    for path in away.glob("*.jsonl"):
        path.rename(path.with_suffix(".gone"))
    server.server._audit_log.check()
    await make(calls())
    audit.unlink()
    for path in away.glob("*.gone"):
        path.rename(path.with_suffix(".jsonl"))
    away.rename(audit)
    server.server._audit_log.check()
    await tamper(server, "ALTER TABLE records RENAME TO elsewhere")
    server.server.engine.catalog.forget_all()
    await make(calls())
    await tamper(server, "ALTER TABLE elsewhere RENAME TO records")
    await make([(f"{ADMIN}Seal", admin_pb2.SealRequest()), *calls()])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def evidence(tmp_path_factory):
    """One run of the whole campaign, with everything that the process writes to stderr caught in a file."""
    directory = tmp_path_factory.mktemp("leaks")
    gathered = Evidence()
    caught = directory / "stderr"
    before, saved = sys.stderr, os.dup(2)
    handlers = logging.getLogger().handlers[:]
    level = logging.getLogger().level
    with caught.open("a", buffering=1) as stream:
        os.dup2(stream.fileno(), 2)
        sys.stderr = stream
        try:
            configure_logging("debug", json=True)
            issuer = TokenIssuer(FakeClock(SystemClock().now_us()))
            (directory / "ci.jwks").write_bytes(issuer.jwks())
            async with (
                collecting() as collector,
                running_server(
                    directory,
                    policy=TOKEN_POLICY,
                    listen_tls="127.0.0.1:0",
                    jwt=jwt_section(directory),
                    metrics={"listen": "127.0.0.1:0", "push_interval_s": 5},
                    otlp={"endpoint": f"http://127.0.0.1:{collector.port}"},
                    traces={"ratio": 1.0, "follow_parent": False, "max_per_second": 100_000, "max_queued": 1_000_000},
                    **GENEROUS,
                ) as server,
            ):
                await campaign(World(server), gathered, issuer)
                gathered.metrics += (await get(server, "/metrics"))[2]
                gathered.metrics += (await get(server, "/readyz"))[2]
                server.server.observing.spans.shutdown()
                gathered.spans = collector.received
                gathered.span_names = {span.name for span in collector.spans()}
        finally:
            sys.stderr = before
            os.dup2(saved, 2)
            os.close(saved)
            structlog.reset_defaults()
            logging.getLogger().handlers[:] = handlers
            logging.getLogger().setLevel(level)
    gathered.log = caught.read_bytes()
    gathered.audit = b"".join(path.read_bytes() for path in sorted((directory / "audit").iterdir()) if path.is_file())
    return gathered


TOKEN_POLICY = {
    "bindings": [{"members": [APP, "jwt:ci:app"], "role": "crypto-user", "resource": "vaults/default"}],
}


def jwt_section(directory: Path) -> dict[str, Any]:
    issuer = {
        "id": "ci",
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "jwks_file": directory / "ci.jwks",
        "claims": ["repository"],
    }
    return {"issuers": [issuer]}


async def campaign(world: World, evidence: Evidence, issuer: TokenIssuer) -> None:
    server = world.server
    await world.furnish("default")
    server.add_identity("stranger", uri="spiffe://dev.vaultd/stranger")
    engine = server.server.engine
    for key_id in PURPOSE_KEYS:
        row = await engine.store.get(RowKey("key_version", "default", key_id, 1))
        evidence.material.append(engine.ledger.sealer.open_secret(row).expose("a test looks for it elsewhere"))
    root = (server.directory / "root.key").read_text().split()[-1]
    evidence.material.append(root.encode())
    await canaries_everywhere(world, evidence)
    await canaries_one_by_one(world, evidence)
    await canaries_within_messages(world, evidence)
    evidence.metrics += (await get(server, "/metrics"))[2]
    await canaries_that_work(world, evidence)
    await canaries_beside_the_message(world, evidence)
    await canaries_in_tokens(world, evidence, issuer)
    evidence.stored = b"".join(path.read_bytes() for path in server.directory.glob("vault.db*"))
    await induced_failures(world, evidence)


async def test_the_campaign_reached_refusals_answers_and_induced_failures(evidence):
    codes = {outcome.code for outcome in evidence.refusals}
    assert len(evidence.canaries) > 200
    assert len(evidence.refusals) > 200
    assert evidence.answered > 40
    assert {UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DATA_LOSS} <= codes
    assert {"AUDIT_UNAVAILABLE", "SEALED", "DECRYPTION_FAILED"} <= {
        outcome.reason for outcome in evidence.refusals if "grpc-status-details-bin" in outcome.trailing
    }


async def test_the_sinks_that_are_searched_are_not_empty(evidence):
    assert evidence.audit.count(b"\n") > 200
    assert b"SQLite format 3" in evidence.stored
    assert b'"event"' in evidence.log
    assert len(evidence.material) == len(PURPOSE_KEYS) + 1


@pytest.mark.parametrize("spelled", range(6))
async def test_the_search_would_find_a_secret_in_every_spelling(spelled):
    secret = os.urandom(CANARY_BYTES)
    text = b"before " + spellings(secret)[spelled] + b" after"
    assert Evidence().found_in(text, [secret, os.urandom(CANARY_BYTES)]) == [secret.hex()]


async def test_no_canary_is_in_a_status_or_in_its_trailing_metadata(evidence):
    for outcome in evidence.refusals:
        assert evidence.found_in(outcome.seen(), evidence.canaries) == [], outcome.path


async def test_no_key_material_is_in_a_status_or_in_its_trailing_metadata(evidence):
    for outcome in evidence.refusals:
        assert evidence.found_in(outcome.seen(), evidence.material) == [], outcome.path


async def test_no_class_name_is_in_a_status(evidence):
    for outcome in evidence.refusals:
        assert not re.search(rb"<class|Error\(|Traceback|sqlite", outcome.seen()), outcome.path


async def test_no_canary_is_in_the_audit_log(evidence):
    assert evidence.found_in(evidence.audit, evidence.canaries) == []


async def test_no_key_material_is_in_the_audit_log(evidence):
    assert evidence.found_in(evidence.audit, evidence.material) == []


async def test_no_canary_is_in_what_the_process_logged(evidence):
    assert evidence.found_in(evidence.log, evidence.canaries) == []


async def test_no_key_material_is_in_what_the_process_logged(evidence):
    assert evidence.found_in(evidence.log, evidence.material) == []


async def test_no_canary_and_no_key_material_is_in_a_span(evidence):
    assert evidence.found_in(evidence.spans, evidence.canaries + evidence.material) == []


async def test_no_canary_and_no_key_material_is_in_the_metrics(evidence):
    assert evidence.found_in(evidence.metrics, evidence.canaries + evidence.material) == []


async def test_every_rpc_of_the_rules_got_canaries_and_was_traced_and_counted(evidence):
    wanted = {rule.method for rule in RULES if not rule.open} - {f"{ADMIN}Seal"}
    assert wanted <= evidence.methods
    unary = {path for path in wanted if not is_stream(path)}
    assert {path.removeprefix("/") for path in unary} <= evidence.span_names
    for path in unary:
        assert f'rpc_method="{path.removeprefix("/")}"'.encode() in evidence.metrics


async def test_no_key_material_is_in_the_database_or_its_journal(evidence):
    assert evidence.found_in(evidence.stored, evidence.material) == []


async def test_no_payload_is_in_the_database_or_its_journal(evidence):
    assert evidence.found_in(evidence.stored, evidence.canaries) == []


# -- the code itself ----------------------------------------------------------------------------------------------------


async def test_secrets_are_exposed_in_these_places_and_no_others():
    root = Path(vaultd.__file__).parent
    counted = {
        str(path.relative_to(root)): path.read_text().count(".expose(")
        for path in root.rglob("*.py")
        if ".expose(" in path.read_text()
    }
    assert counted == EXPOSED


def every_message(descriptor):
    yield descriptor
    for nested in descriptor.nested_types:
        yield from every_message(nested)


async def test_no_field_lets_a_caller_choose_a_nonce():
    files = {GetMessageClass(method.input_type).DESCRIPTOR.file for method in METHODS.values()}
    names = {
        field.name
        for file in files
        for top in file.message_types_by_name.values()
        for message in every_message(top)
        for field in message.fields
    }
    words = {word for name in names for word in name.split("_")}
    assert words & {"nonce", "iv", "salt", "padding", "hash", "mode"} <= {"hash"}
    assert {name for name in names if "hash" in name.split("_")} <= {"leaf_hash", "root_hash"}


async def test_every_method_with_a_payload_was_given_a_canary(evidence):
    assert set(SINGLE_KEY_CALLS) <= {outcome.path.rpartition("/")[2] for outcome in evidence.refusals}
