"""Raw calls over the wire, every RPC of the descriptors, and one valid request for each of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from softhsm import put_key
from vaultd.engine.approvals import Ask
from vaultd.engine.permissions import PERMISSIONS
from vaultd_client.key_wrapping import wrap_for_import
from vaultd_client.v1 import (
    admin_pb2,
    approval_pb2,
    crypto_pb2,
    grant_pb2,
    identity_pb2,
    key_transfer_pb2,
    keys_pb2,
    policy_pb2,
    quota_pb2,
    resources_pb2,
    rotation_pb2,
    secrets_pb2,
    watch_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from harness import Client, RunningServer

CRYPTO = "/vaultd.v1.CryptoService/"
KEYS = "/vaultd.v1.KeysService/"
SECRETS = "/vaultd.v1.SecretsService/"
ADMIN = "/vaultd.v1.AdminService/"
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in (crypto_pb2, keys_pb2, secrets_pb2, admin_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
BATCHES = [path for path in METHODS if path.rpartition("/")[2].startswith("Batch")]
ROTATIONS = ("SetRotationPolicy", "DeleteRotationPolicy", "GetRotation", "RotateSecret", "CancelRotation")
STREAMS = [path for path, method in METHODS.items() if method.server_streaming]
ITEM_STREAMS = [path for path, method in METHODS.items() if method.client_streaming]
ENDLESS = [f"{ADMIN}Watch", f"{ADMIN}TailAudit"]
"""Streams that go on until their caller gives them up."""
SINGLES = [path for path in METHODS if path not in BATCHES and path not in STREAMS]
MUTATIONS = [
    *(
        f"{KEYS}{name}"
        for name in ("CreateKey", "AdoptKey", "UpdateKey", "RotateKey", "SetPrimaryVersion", "EnableKeyVersion")
    ),
    *(f"{KEYS}{name}" for name in ("DisableKeyVersion", "DestroyKeyVersion", "RestoreKeyVersion", "DeleteKey")),
    *(f"{KEYS}{name}" for name in ("UndeleteKey", "PurgeKey", "CreateGrant", "RevokeGrant")),
    *(f"{SECRETS}{name}" for name in ("CreateSecret", "UpdateSecret", "AddSecretVersion", "EnableSecretVersion")),
    *(f"{SECRETS}{name}" for name in ("DisableSecretVersion", "DestroySecretVersion", "SetAlias", "DeleteSecret")),
    *(f"{SECRETS}{name}" for name in ("UndeleteSecret", "PurgeSecret")),
    *(f"{SECRETS}{name}" for name in ROTATIONS if name != "GetRotation"),
    *(f"{KEYS}{name}" for name in ("CreateImportJob", "ImportKeyVersion", "ExportKeyVersion", "BackupKey")),
    f"{KEYS}RestoreKeyBackup",
    *(f"{ADMIN}{name}" for name in ("Init", "Seal", "Unseal", "RotateRootKey", "CreateVault", "UpdateVault")),
    *(f"{ADMIN}{name}" for name in ("DeleteVault", "SetPolicy")),
    *(f"{ADMIN}{name}" for name in ("CreateQuota", "UpdateQuota", "DeleteQuota")),
    *(f"{ADMIN}{name}" for name in ("SetApprovalRules", "ApproveRequest", "RejectRequest", "CancelApproval")),
    *(f"{ADMIN}{name}Identity" for name in ("Revoke", "Restore")),
]
GENEROUS = {
    "limits": {
        name: {"per_second": 1_000_000, "burst": 10_000_000}
        for name in ("symmetric", "asymmetric", "read", "mutation", "admin")
    }
}
"""Rates that no test reaches."""
FORBIDDEN_TEXT = ("<class", "Error(", "Traceback", "vaultd.errors", "object at 0x")

OWN_FAULT = "Internal error from Core"
"""What grpc.aio's client makes of a status that overtakes a message which it still sends, and never of ours."""

OK = grpc.StatusCode.OK
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def short(path: str) -> str:
    """The method without its package, for names of tests."""
    return path.rpartition("/")[2]


def single_of(path: str) -> str:
    """The method that a batch repeats."""
    return {f"{SECRETS}BatchAccessSecretVersions": f"{SECRETS}AccessSecretVersion"}.get(path, path.replace("Batch", ""))


def request_class(path: str) -> type[Message]:
    return GetMessageClass(METHODS[path].input_type)


def response_class(path: str) -> type[Message]:
    return GetMessageClass(METHODS[path].output_type)


@dataclass(frozen=True)
class Outcome:
    """How a call ended."""

    code: grpc.StatusCode
    text: str
    trailing: dict[str, Any]
    body: bytes
    path: str

    @property
    def status(self) -> status_pb2.Status:
        return status_pb2.Status.FromString(self.trailing.get("grpc-status-details-bin", b""))

    @property
    def reason(self) -> str:
        return reason_in(self.status)

    @property
    def fields(self) -> list[str]:
        """The fields that BadRequest names."""
        bad = error_details_pb2.BadRequest()
        for detail in self.status.details:
            if detail.Unpack(bad):
                return [violation.field for violation in bad.field_violations]
        return []

    @property
    def refusal(self) -> tuple[Any, str, bytes]:
        """All that a refused caller sees."""
        return self.code, self.text, self.trailing.get("grpc-status-details-bin", b"")

    @property
    def request_id(self) -> str:
        return str(self.trailing["vaultd-request-id"])

    def message(self) -> Any:
        """The answer."""
        assert self.code is OK, (self.path, self.code, self.text)
        return response_class(self.path).FromString(self.body)

    def seen(self) -> bytes:
        """Every byte of the status and of the trailing metadata."""
        parts = [self.text.encode()]
        for key, value in self.trailing.items():
            parts += [key.encode(), value if isinstance(value, bytes) else str(value).encode()]
        return b"\n".join(parts)


def reason_in(status: status_pb2.Status) -> str:
    """The stable reason of a status; a batch item that had no room for details has it as its text."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            assert info.domain == "vaultd"
            return str(info.reason)
    return str(status.message)


def leaves(message: Any) -> Iterator[bytes]:
    """Every string and bytes value in a message, but field masks and permissions: those words are ours, not the caller's."""
    if message.DESCRIPTOR.full_name == "google.protobuf.FieldMask":
        return
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            for key, item in value.items():
                yield from (str(key).encode(), str(item).encode())
            continue
        for item in value if descriptor.is_repeated else [value]:
            if descriptor.message_type is not None:
                yield from leaves(item)
            elif isinstance(item, bytes):
                yield item
            elif isinstance(item, str) and item not in PERMISSIONS:
                yield item.encode()


def assert_safe(outcome: Outcome, *inputs: bytes) -> None:
    """A refusal is never a fault of ours, names no class, and says nothing of what came in."""
    assert outcome.code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, (outcome.path, outcome.text)
    seen = outcome.seen()
    for text in FORBIDDEN_TEXT:
        assert text.encode() not in seen, (outcome.path, text)
    for value in inputs:
        assert len(value) < 8 or value not in seen, (outcome.path, value[:64])


async def call(client: Client, path: str, request: Any = b"", **options: Any) -> Outcome:
    """Make a call with a message or with raw bytes; whatever comes back is checked to be safe."""
    body = request if isinstance(request, bytes) else request.SerializeToString()
    if path in STREAMS:
        return await _first_of_stream(client, path, body, {"timeout": 30, **options})
    pending = client.raw(path)(body, **{"timeout": 30, **options})
    try:
        answer = await pending
    except grpc.aio.AioRpcError as error:
        trailing = {key: value for key, value in error.trailing_metadata() or ()}
        outcome = Outcome(error.code(), error.details() or "", trailing, b"", path)
    else:
        trailing = {key: value for key, value in await pending.trailing_metadata() or ()}
        outcome = Outcome(OK, "", trailing, answer, path)
    inputs = () if isinstance(request, bytes) else tuple(leaves(request))
    assert_safe(outcome, *inputs)
    return outcome


async def _first_of_stream(client: Client, path: str, body: bytes, options: dict[str, Any]) -> Outcome:
    """One message, and what comes back: the first answer of an endless stream, or the last of one that ends; or the status."""
    stream = client.channel.stream_stream(path)(**options)
    answer = b""
    try:
        await stream.write(body)
        await stream.done_writing()
        while (message := await stream.read()) is not grpc.aio.EOF:
            answer += message  # put one behind another, messages are one
            if path in ENDLESS:
                stream.cancel()
                return Outcome(OK, "", {}, answer, path)
    except grpc.aio.AioRpcError as error:
        if error.details() == OWN_FAULT:
            return await _first_of_stream(client, path, body, options)
        trailing = {key: value for key, value in error.trailing_metadata() or ()}
        outcome = Outcome(error.code(), error.details() or "", trailing, b"", path)
        assert_safe(outcome)
        return outcome
    trailing = {key: value for key, value in await stream.trailing_metadata() or ()}
    return Outcome(await stream.code(), "", trailing, answer, path)


async def call_each(client: Client, path: str, requests: list[Any]) -> list[Outcome]:
    """Make many calls, one after another."""
    return [await call(client, path, request) for request in requests]


def verdicts(outcome: Outcome) -> set[tuple[grpc.StatusCode, str]]:
    """(code, reason) of a call, or of each item of a batch that was answered."""
    if outcome.code is not OK:
        return {(outcome.code, outcome.reason)}
    if outcome.path not in BATCHES and outcome.path not in ITEM_STREAMS:
        return {(OK, "")}
    found = set()
    for result in outcome.message().results:
        if result.WhichOneof("outcome") != "status":
            found.add((OK, ""))
        else:
            code = next(code for code in grpc.StatusCode if code.value[0] == result.status.code)
            found.add((code, reason_in(result.status)))
    return found


PURPOSE_KEYS = {
    "enc": ("ENCRYPT_DECRYPT", "XAES_256_GCM"),
    "det": ("DETERMINISTIC", "AES_256_SIV"),
    "oaep": ("ASYMMETRIC_DECRYPT", "RSA_OAEP_2048_SHA256"),
    "wrap": ("WRAP", "AES_256_KWP"),
    "sign": ("SIGN", "EC_P256_SHA256"),
    "mac": ("MAC", "HMAC_SHA256"),
    "agree": ("KEY_AGREEMENT", "X25519"),
    "kem": ("KEM", "ML_KEM_768"),
    "hpke": ("HPKE", "HPKE_X25519"),
}
"""Key id -> purpose and algorithm; one key for each purpose."""

SINGLE_KEY_CALLS = {
    "Encrypt": ("enc", {"plaintext": b"plain text"}),
    "Decrypt": ("enc", {"ciphertext": b"?"}),
    "Sign": ("sign", {"message": b"a message"}),
    "Verify": ("sign", {"message": b"a message", "signature": b"not a signature"}),
    "GenerateMac": ("mac", {"data": b"some data"}),
    "VerifyMac": ("mac", {"data": b"some data", "mac": bytes(32)}),
    "WrapKey": ("wrap", {"key_material": b"0123456789abcdef"}),
    "UnwrapKey": ("wrap", {"wrapped_key": b"?"}),
    "GenerateDataKey": ("enc", {"length_bytes": 32}),
    "Encapsulate": ("kem", {}),
    "Decapsulate": ("kem", {"ciphertext": bytes(1088)}),
    "DeriveSharedSecret": ("agree", {"peer_public_key": b"\x09" + bytes(31)}),
    "InspectCiphertext": ("enc", {"ciphertext": b"?"}),
}
"""Crypto method that names one key -> the key that fits, and the other fields."""


def key_of(purpose: str, algorithm: str | None = None, **fields: Any) -> resources_pb2.Key:
    """A Key to create."""
    chosen = resources_pb2.Algorithm.Value(f"ALGORITHM_{algorithm}") if algorithm else 0
    return resources_pb2.Key(
        purpose=resources_pb2.KeyPurpose.Value(f"KEY_PURPOSE_{purpose}"), algorithm=chosen, **fields
    )


def quota_of(vault: str, **fields: Any) -> quota_pb2.Quota:
    """A quota on a vault, to create."""
    quota = quota_pb2.Quota(**{"subject": "*", "resource": f"vaults/{vault}", **fields})
    quota.windows.add(count=1_000_000_000).period.FromSeconds(1)
    return quota


@dataclass
class World:
    """A server with one key of each purpose in each of its vaults, and valid requests for every RPC."""

    server: RunningServer
    sealed: dict[str, bytes] = field(default_factory=dict)
    wrapped: dict[str, bytes] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict)
    _lending: set[str] = field(default_factory=set)
    _ruled: bool = False
    _jobs: dict[str, key_transfer_pb2.ImportJob] = field(default_factory=dict)

    @property
    def admin(self) -> Client:
        return self.server.admin

    async def furnish(self, vault: str) -> None:
        """Make the keys of a vault."""
        for key_id, (purpose, algorithm) in PURPOSE_KEYS.items():
            await self.create(vault, key_id, key_of(purpose, algorithm))
        encrypt = crypto_pb2.EncryptRequest(name=f"vaults/{vault}/keys/enc", plaintext=b"plain text")
        self.sealed[vault] = (await self.admin.crypto.Encrypt(encrypt)).ciphertext
        wrap = crypto_pb2.WrapKeyRequest(name=f"vaults/{vault}/keys/wrap", key_material=b"0123456789abcdef")
        self.wrapped[vault] = (await self.admin.crypto.WrapKey(wrap)).wrapped_key
        await self.create_secret(vault, "shown")

    async def create(self, vault: str, key_id: str, key: resources_pb2.Key) -> str:
        """Make a key; return its name."""
        request = keys_pb2.CreateKeyRequest(parent=f"vaults/{vault}", key_id=key_id, key=key)
        return str((await self.admin.keys.CreateKey(request)).name)

    def fresh_id(self) -> str:
        return f"k{next(self._numbers)}"

    async def fresh_key(self, vault: str = "default", purpose: str = "enc", **fields: Any) -> str:
        """Make a key that no other test uses; return its name."""
        return await self.create(vault, self.fresh_id(), key_of(*PURPOSE_KEYS[purpose], **fields))

    async def kept_request(self, path: str, vault: str = "default") -> Any:
        """A valid request that may be used often, since it will be refused."""
        if (path, vault) not in self._kept:
            self._kept[path, vault] = await self.request(path, vault)
        return self._kept[path, vault]

    async def request(self, path: str, vault: str = "default") -> Any:
        """A fresh valid request, with what it needs in place, so that a caller who may make it gets OK."""
        name = short(path)
        if name == "CryptoStream":
            encrypt = await self.request(f"{CRYPTO}Encrypt", vault)
            return crypto_pb2.CryptoStreamRequest(operations=[crypto_pb2.CryptoOperation(id=1, encrypt=encrypt)])
        if name == "ReEncryptStream":
            item = crypto_pb2.ReEncryptStreamItem(id=1, ciphertext=self.sealed[vault])
            return crypto_pb2.ReEncryptStreamRequest(source_name=f"vaults/{vault}/keys/enc", items=[item])
        if name.startswith("Batch"):
            return request_class(path)(items=[await self.request(single_of(path), vault)])
        if path.startswith(SECRETS):
            return await self._secrets_request(name, vault)
        if path.startswith(CRYPTO):
            return self.crypto_request(name, vault)
        if path.startswith(ADMIN):
            return await self._admin_request(name, vault)
        return await self._keys_request(name, vault)

    def crypto_request(self, name: str, vault: str = "default", key_name: str = "") -> Any:
        """A valid crypto request, by default on the key that fits."""
        if name == "GenerateRandomBytes":
            return crypto_pb2.GenerateRandomBytesRequest(parent=f"vaults/{vault}", length_bytes=16)
        if name == "ReEncrypt":
            key = key_name or f"vaults/{vault}/keys/enc"
            return crypto_pb2.ReEncryptRequest(
                source_name=key, destination_name=key, ciphertext=self.sealed.get(vault, b"?")
            )
        key_id, fields = SINGLE_KEY_CALLS[name]
        given = dict(fields)
        if "ciphertext" in given and name != "Decapsulate":
            given["ciphertext"] = self.sealed.get(vault, b"?")
        if "wrapped_key" in given:
            given["wrapped_key"] = self.wrapped.get(vault, b"?")
        return request_class(CRYPTO + name)(name=key_name or f"vaults/{vault}/keys/{key_id}", **given)

    async def _keys_request(self, name: str, vault: str) -> Any:
        make = request_class(f"{KEYS}{name}")
        if name.endswith(("Grant", "Grants")):
            return await self._grant_request(name, vault)
        if name in {"ImportKeyVersion", "ExportKeyVersion", "BackupKey", "RestoreKeyBackup"} or "ImportJob" in name:
            return await self._transfer_request(name, vault)
        if name == "CreateKey":
            return make(parent=f"vaults/{vault}", key_id=self.fresh_id(), key=key_of("MAC"))
        if name == "AdoptKey":
            slots = self.server.server.slots
            object_id = await put_key(slots[0], "HMAC_SHA256", "of somebody else") if slots else b"no token here"
            key = key_of("MAC", "HMAC_SHA256", protection_level=resources_pb2.PROTECTION_LEVEL_HSM)
            token_key = keys_pb2.TokenKey(object_id=object_id)
            return make(parent=f"vaults/{vault}", key_id=self.fresh_id(), key=key, token_key=token_key)
        if name in {"ListKeys", "GetCapabilities"}:
            return make(parent=f"vaults/{vault}")
        if name == "ListKeyVersions":
            return make(parent=f"vaults/{vault}/keys/enc")
        if name in {"GetKey", "GetKeyUsage", "GetKeyVersion"}:
            return make(name=f"vaults/{vault}/keys/enc")
        if name == "GetPublicKey":
            return make(name=f"vaults/{vault}/keys/sign")
        key = await self.fresh_key(vault, "mac")
        if name == "UpdateKey":
            request = make(key=resources_pb2.Key(name=key, labels={"team": "a"}))
            request.update_mask.paths.append("labels")
            return request
        if name in {"UndeleteKey", "PurgeKey"}:
            await self.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=key))
        version = f"{key}/versions/1"
        if name == "RestoreKeyVersion":
            await self.admin.keys.DestroyKeyVersion(keys_pb2.DestroyKeyVersionRequest(name=version))
        on_version = name == "SetPrimaryVersion" or name.endswith("KeyVersion")
        return make(name=version if on_version else key)

    async def create_secret(self, vault: str, secret_id: str, payload: bytes = b"a payload", **fields: Any) -> str:
        """Make a secret with one version; return its name."""
        secret = secrets_pb2.Secret(**fields)
        request = secrets_pb2.CreateSecretRequest(
            parent=f"vaults/{vault}", secret_id=secret_id, secret=secret, payload=payload
        )
        return str((await self.admin.secrets.CreateSecret(request)).name)

    async def _secrets_request(self, name: str, vault: str) -> Any:
        make = request_class(f"{SECRETS}{name}")
        if name == "CreateSecret":
            return make(parent=f"vaults/{vault}", secret_id=self.fresh_id(), payload=b"a payload")
        if name in {"ListSecrets", "ListRotations"}:
            return make(parent=f"vaults/{vault}")
        if name == "ListSecretVersions":
            return make(parent=f"vaults/{vault}/secrets/shown")
        if name in {"GetSecret", "GetSecretVersion", "AccessSecretVersion"}:
            return make(name=f"vaults/{vault}/secrets/shown")
        secret = await self.create_secret(vault, self.fresh_id())
        if name == "UpdateSecret":
            request = make(secret=secrets_pb2.Secret(name=secret, labels={"team": "a"}, keep_versions=3))
            request.update_mask.paths.extend(["labels", "keep_versions"])
            return request
        if name == "AddSecretVersion":
            return make(parent=secret, payload=b"another payload")
        if name in ROTATIONS:
            if name != "SetRotationPolicy":
                await self.admin.secrets.SetRotationPolicy(rotation_pb2.SetRotationPolicyRequest(name=secret))
            return make(name=secret)
        if name == "SetAlias":
            return make(name=secret, alias="canary", version=f"{secret}/versions/1")
        if name in {"UndeleteSecret", "PurgeSecret"}:
            await self.admin.secrets.DeleteSecret(secrets_pb2.DeleteSecretRequest(name=secret))
        return make(name=f"{secret}/versions/1" if name.endswith("SecretVersion") else secret)

    async def import_job(self, vault: str) -> key_transfer_pb2.ImportJob:
        """The import job of a vault that all its imports share."""
        if vault not in self._jobs:
            create = key_transfer_pb2.CreateImportJobRequest(parent=f"vaults/{vault}", import_job_id=self.fresh_id())
            create.import_job.wrapping_method = key_transfer_pb2.WRAPPING_METHOD_HPKE_X25519
            self._jobs[vault] = await self.admin.keys.CreateImportJob(create)
        return self._jobs[vault]

    async def _transfer_request(self, name: str, vault: str) -> Any:
        make = request_class(f"{KEYS}{name}")
        if name == "CreateImportJob":
            job = key_transfer_pb2.ImportJob(wrapping_method=key_transfer_pb2.WRAPPING_METHOD_HPKE_X25519)
            return make(parent=f"vaults/{vault}", import_job_id=self.fresh_id(), import_job=job)
        if name == "ListImportJobs":
            return make(parent=f"vaults/{vault}")
        if name == "GetImportJob":
            return make(name=(await self.import_job(vault)).name)
        key = await self.fresh_key(vault, "mac", exportable=True)
        if name == "ImportKeyVersion":
            job = await self.import_job(vault)
            wrapped = wrap_for_import(job, b"k" * 32)
            return make(
                parent=key, import_job=job.name, algorithm=resources_pb2.ALGORITHM_HMAC_SHA256, wrapped_key=wrapped
            )
        if name == "ExportKeyVersion":
            method = key_transfer_pb2.WRAPPING_METHOD_HPKE_X25519
            return make(name=key, wrapping_method=method, public_key_raw=b"\x09" + bytes(31))
        if name == "BackupKey":
            return make(name=key)
        backup = (await self.admin.keys.BackupKey(key_transfer_pb2.BackupKeyRequest(name=key))).backup
        await self.admin.keys.DeleteKey(keys_pb2.DeleteKeyRequest(name=key))
        await self.admin.keys.PurgeKey(keys_pb2.PurgeKeyRequest(name=key))
        return make(parent=f"vaults/{vault}", backup=backup)

    async def fresh_quota(self, vault: str) -> str:
        """Make a quota that refuses nothing; return its name."""
        request = quota_pb2.CreateQuotaRequest(
            parent=f"vaults/{vault}", quota_id=self.fresh_id(), quota=quota_of(vault)
        )
        return str((await self.admin.admin.CreateQuota(request)).name)

    async def _quota_request(self, name: str, vault: str) -> Any:
        make = getattr(quota_pb2, f"{name}Request")
        if name == "CreateQuota":
            return make(parent=f"vaults/{vault}", quota_id=self.fresh_id(), quota=quota_of(vault))
        if name == "ListQuotas":
            return make(parent=f"vaults/{vault}")
        if name == "ListOwnQuotas":
            return make(resource=f"vaults/{vault}", method="CryptoService.Encrypt")
        quota = await self.fresh_quota(vault)
        if name == "UpdateQuota":
            request = make(quota=quota_pb2.Quota(name=quota, windows=quota_of(vault).windows))
            request.update_mask.paths.append("windows")
            return request
        return make(name=quota)

    async def _grant_request(self, name: str, vault: str) -> Any:
        if name == "ListGrants":
            return grant_pb2.ListGrantsRequest(parent=f"vaults/{vault}/keys/mac")
        create = grant_pb2.CreateGrantRequest(parent=f"vaults/{vault}/keys/lent")
        if vault not in self._lending:
            self._lending.add(vault)
            await self.create(vault, "lent", key_of("MAC"))
        create.grant.grantee = "spiffe://dev.vaultd/grantee"
        create.grant.permissions.append("crypto.generate_mac")
        if name == "CreateGrant":
            return create
        grant = await self.admin.keys.CreateGrant(create)
        return request_class(f"{KEYS}{name}")(name=grant.name)

    async def _approval_request(self, name: str) -> Any:
        """A request on approvals, which the administrator may make: one of its own for Cancel, of somebody else for the rest."""
        approvers = ["spiffe://dev.vaultd/admin", "spiffe://dev.vaultd/approver"]
        method, guarded = f"{KEYS}DeleteKey", "vaults/default/keys/guarded"
        rule = approval_pb2.ApprovalRule(
            id="guard", methods=[method], resource=guarded, approvers=approvers, required=1
        )
        replace_rules = approval_pb2.SetApprovalRulesRequest(rules=[rule])
        if name == "SetApprovalRules":
            return replace_rules
        make = request_class(f"{ADMIN}{name}")
        if name in {"GetApprovalRules", "ListApprovals"}:
            return make()
        if not self._ruled:
            self._ruled = True
            await self.admin.admin.SetApprovalRules(replace_rules)
        approvals = self.server.server.engine.approvals
        fresh = self.fresh_id()
        requester = (
            "spiffe://dev.vaultd/admin" if name == "CancelApproval" else f"spiffe://dev.vaultd/requester-{fresh}"
        )
        ask = Ask(requester, method, (guarded,), "{}", f"digest of {fresh}", digest_shown=True)
        return make(name=(await approvals.ask(ask, approvals.covering(method, [guarded]))).name)

    async def policy_request(self, name: str, vault: str = "default") -> Any:
        """A valid request about the policy of a vault; SetPolicy sets what is set."""
        resource = f"vaults/{vault}"
        if name == "GetPolicy":
            return policy_pb2.GetPolicyRequest(resource=resource)
        if name == "SetPolicy":
            current = await self.admin.admin.GetPolicy(policy_pb2.GetPolicyRequest(resource=resource))
            return policy_pb2.SetPolicyRequest(resource=resource, policy=current.policy)
        if name == "TestPolicy":
            return policy_pb2.TestPolicyRequest(
                resource=resource, principal="spiffe://dev.vaultd/app", permissions=["crypto.encrypt"]
            )
        if name == "ExplainAccess":
            return policy_pb2.ExplainAccessRequest(
                resource=f"{resource}/keys/enc", principal="spiffe://dev.vaultd/app", method="Encrypt"
            )
        return policy_pb2.ReviewAccessRequest(resource=resource)

    async def _identity_request(self, name: str) -> Any:
        if name == "ListRevokedIdentities":
            return identity_pb2.ListRevokedIdentitiesRequest()
        principal = f"spiffe://dev.vaultd/fresh/{self.fresh_id()}"
        revoke = identity_pb2.RevokeIdentityRequest(principal=principal)
        if name == "RevokeIdentity":
            return revoke
        await self.admin.admin.RevokeIdentity(revoke)
        return identity_pb2.RestoreIdentityRequest(principal=principal)

    async def _admin_request(self, name: str, vault: str) -> Any:
        make = request_class(f"{ADMIN}{name}")
        if "Approv" in name or name == "RejectRequest":
            return await self._approval_request(name)
        if name.endswith(("Quota", "Quotas")):
            return await self._quota_request(name, vault)
        if name.endswith(("Policy", "Access")):
            return await self.policy_request(name, vault)
        if name in {"RevokeIdentity", "ListRevokedIdentities", "RestoreIdentity"}:
            return await self._identity_request(name)
        if name == "Watch":
            return make(filter=watch_pb2.WatchFilter(resource_prefix=f"vaults/{vault}"))
        if name == "GetInclusionProof":
            return make(sequence=1)
        if name == "GetConsistencyProof":
            return make(tree_size=1)
        if name == "TailAudit":
            return make(after_sequence=0, stop_at_end=True)
        if name == "Init":
            return make(admin_principals=["spiffe://dev.vaultd/somebody"])
        if name == "CreateVault":
            return make(vault_id=self.fresh_id())
        if name == "GetVault":
            return make(name=f"vaults/{vault}")
        if name == "UpdateVault":
            request = make(vault=resources_pb2.Vault(name=f"vaults/{vault}", display_name="A vault"))
            request.update_mask.paths.append("display_name")
            return request
        if name == "DeleteVault":
            if vault != "default":
                return make(name=f"vaults/{vault}")
            fresh = await self.admin.admin.CreateVault(admin_pb2.CreateVaultRequest(vault_id=self.fresh_id()))
            return make(name=fresh.name)
        return make()
