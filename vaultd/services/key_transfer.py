"""Import, export and backup of keys, of KeysService: message to engine call and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from vaultd.engine.key_export import read_recipient
from vaultd.engine.key_import import ImportAsk
from vaultd.engine.key_wrapping import WrappingMethod
from vaultd.engine.model import ImportJobState
from vaultd.engine.paging import page_length, page_limit, page_start, page_token
from vaultd.errors import InvalidArgument
from vaultd.names import (
    parse_import_job_name,
    parse_key_name,
    parse_key_or_version_name,
    parse_vault_name,
)
from vaultd.services.convert import (
    ALGORITHM_NAMES,
    ALGORITHM_NUMBERS,
    key_message,
    set_time,
    time_us,
    version_message,
)
from vaultd_client.v1 import key_transfer_pb2 as pb
from vaultd_client.v1 import resources_pb2

if TYPE_CHECKING:
    from vaultd.engine.key_backups import KeyBackups
    from vaultd.engine.key_export import KeyExport
    from vaultd.engine.key_import import KeyImport
    from vaultd.engine.ledger import Ledger
    from vaultd.engine.model import ImportJob
    from vaultd.services.context import Context

METHOD_NUMBERS: Final[dict[WrappingMethod, Any]] = {
    method: pb.WrappingMethod.Value(f"WRAPPING_METHOD_{method.value}") for method in WrappingMethod
}
METHODS: Final = {number: method for method, number in METHOD_NUMBERS.items()}
JOB_STATES: Final[dict[ImportJobState, Any]] = {
    state: pb.ImportJobState.Value(f"IMPORT_JOB_STATE_{state.value}") for state in ImportJobState
}
DEFAULT_METHOD: Final = WrappingMethod.RSA_OAEP_3072_SHA256_AES_256_KWP


def import_job_message(job: ImportJob) -> pb.ImportJob:
    """An ImportJob as the wire has it."""
    method = WrappingMethod(job.method)
    pem, raw = "", b""
    if method is WrappingMethod.HPKE_MLKEM768_X25519:
        raw = job.public_key
    else:
        key = load_der_public_key(job.public_key)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
        if isinstance(key, X25519PublicKey):
            raw = key.public_bytes_raw()
    message = pb.ImportJob(
        name=job.name,
        wrapping_method=METHOD_NUMBERS[method],
        state=JOB_STATES[job.state],
        public_key_pem=pem,
        public_key_raw=raw,
    )
    set_time(message.create_time, job.create_us)
    set_time(message.expire_time, job.expire_us)
    return message


class KeyTransfer:
    """The methods of KeysService that bring keys in and out."""

    def __init__(self, imports: KeyImport, exports: KeyExport, backups: KeyBackups, ledger: Ledger) -> None:
        self._imports = imports
        self._exports = exports
        self._backups = backups
        self._ledger = ledger

    async def CreateImportJob(self, request: pb.CreateImportJobRequest, context: Context) -> pb.ImportJob:
        vault = parse_vault_name(request.parent, "parent")
        asked = request.import_job
        method = METHODS.get(asked.wrapping_method)
        if asked.wrapping_method and method is None:
            raise InvalidArgument(
                "ENUM_UNKNOWN",
                "import_job.wrapping_method is not known to this server",
                field="import_job.wrapping_method",
            )
        expire_us = time_us(asked, "expire_time", "import_job.expire_time")
        job = await self._imports.create_job(
            context.intent(request), vault, request.import_job_id, method or DEFAULT_METHOD, expire_us
        )
        return import_job_message(job)

    async def GetImportJob(self, request: pb.GetImportJobRequest, context: Context) -> pb.ImportJob:
        del context
        return import_job_message(await self._imports.get_job(*parse_import_job_name(request.name)))

    async def ListImportJobs(self, request: pb.ListImportJobsRequest, context: Context) -> pb.ListImportJobsResponse:
        del context
        vault = parse_vault_name(request.parent, "parent")
        limit = page_limit(request.page_size)
        query = f"import jobs {vault}"
        after = page_start(self._ledger, query, request.page_token)
        jobs = await self._imports.list_jobs(vault, after, limit + 1)
        messages = [import_job_message(job) for job in jobs]
        length = page_length((message.ByteSize() for message in messages), limit)
        response = pb.ListImportJobsResponse(import_jobs=messages[:length])
        if len(jobs) > length:
            response.next_page_token = page_token(self._ledger, query, jobs[length - 1].id)
        return response

    async def ImportKeyVersion(self, request: pb.ImportKeyVersionRequest, context: Context) -> resources_pb2.KeyVersion:
        ref = parse_key_name(request.parent, "parent")
        job_vault, job = parse_import_job_name(request.import_job, "import_job")
        algorithm = ALGORITHM_NAMES.get(request.algorithm)
        if algorithm is None:
            raise InvalidArgument("ALGORITHM_REQUIRED", "algorithm must be the key's algorithm", field="algorithm")
        ask = ImportAsk(
            job_vault,
            job,
            algorithm,
            request.wrapped_key,
            request.keep_primary,
            request.prior_messages if request.HasField("prior_messages") else None,
            request.etag,
        )
        return version_message(await self._imports.import_version(context.intent(request), ref, ask))

    async def ExportKeyVersion(
        self, request: pb.ExportKeyVersionRequest, context: Context
    ) -> pb.ExportKeyVersionResponse:
        ref = parse_key_or_version_name(request.name)
        method = METHODS.get(request.wrapping_method)
        if method is None:
            raise InvalidArgument(
                "WRAPPING_METHOD_REQUIRED", "wrapping_method must be one of WrappingMethod", field="wrapping_method"
            )
        recipient = read_recipient(method, request.public_key_pem, request.public_key_raw)
        exported = await self._exports.export(context.intent(request), ref, method, recipient)
        return pb.ExportKeyVersionResponse(
            key_version=exported.version_name,
            algorithm=ALGORITHM_NUMBERS[exported.algorithm.name],
            wrapping_method=METHOD_NUMBERS[WrappingMethod(exported.method)],
            wrapped_key=exported.wrapped,
        )

    async def BackupKey(self, request: pb.BackupKeyRequest, context: Context) -> pb.BackupKeyResponse:
        del context
        backup = await self._backups.back_up(parse_key_name(request.name))
        return pb.BackupKeyResponse(name=backup.name, backup=backup.blob, version_count=backup.versions)

    async def RestoreKeyBackup(self, request: pb.RestoreKeyBackupRequest, context: Context) -> resources_pb2.Key:
        vault = parse_vault_name(request.parent, "parent")
        return key_message(await self._backups.restore(context.intent(request), vault, request.backup))
