import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vaultd_client.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WrappingMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRAPPING_METHOD_UNSPECIFIED: _ClassVar[WrappingMethod]
    WRAPPING_METHOD_RSA_OAEP_3072_SHA256_AES_256_KWP: _ClassVar[WrappingMethod]
    WRAPPING_METHOD_RSA_OAEP_4096_SHA256_AES_256_KWP: _ClassVar[WrappingMethod]
    WRAPPING_METHOD_HPKE_X25519: _ClassVar[WrappingMethod]
    WRAPPING_METHOD_HPKE_MLKEM768_X25519: _ClassVar[WrappingMethod]

class ImportJobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMPORT_JOB_STATE_UNSPECIFIED: _ClassVar[ImportJobState]
    IMPORT_JOB_STATE_ACTIVE: _ClassVar[ImportJobState]
    IMPORT_JOB_STATE_EXPIRED: _ClassVar[ImportJobState]
WRAPPING_METHOD_UNSPECIFIED: WrappingMethod
WRAPPING_METHOD_RSA_OAEP_3072_SHA256_AES_256_KWP: WrappingMethod
WRAPPING_METHOD_RSA_OAEP_4096_SHA256_AES_256_KWP: WrappingMethod
WRAPPING_METHOD_HPKE_X25519: WrappingMethod
WRAPPING_METHOD_HPKE_MLKEM768_X25519: WrappingMethod
IMPORT_JOB_STATE_UNSPECIFIED: ImportJobState
IMPORT_JOB_STATE_ACTIVE: ImportJobState
IMPORT_JOB_STATE_EXPIRED: ImportJobState

class ImportJob(_message.Message):
    __slots__ = ("name", "wrapping_method", "state", "public_key_pem", "public_key_raw", "create_time", "expire_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_METHOD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_RAW_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    wrapping_method: WrappingMethod
    state: ImportJobState
    public_key_pem: str
    public_key_raw: bytes
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., wrapping_method: _Optional[_Union[WrappingMethod, str]] = ..., state: _Optional[_Union[ImportJobState, str]] = ..., public_key_pem: _Optional[str] = ..., public_key_raw: _Optional[bytes] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateImportJobRequest(_message.Message):
    __slots__ = ("parent", "import_job_id", "import_job", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    IMPORT_JOB_ID_FIELD_NUMBER: _ClassVar[int]
    IMPORT_JOB_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    import_job_id: str
    import_job: ImportJob
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., import_job_id: _Optional[str] = ..., import_job: _Optional[_Union[ImportJob, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetImportJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListImportJobsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListImportJobsResponse(_message.Message):
    __slots__ = ("import_jobs", "next_page_token")
    IMPORT_JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    import_jobs: _containers.RepeatedCompositeFieldContainer[ImportJob]
    next_page_token: str
    def __init__(self, import_jobs: _Optional[_Iterable[_Union[ImportJob, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ImportKeyVersionRequest(_message.Message):
    __slots__ = ("parent", "import_job", "algorithm", "wrapped_key", "wrapped_key_crc32c", "keep_primary", "prior_messages", "etag", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    IMPORT_JOB_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_CRC32C_FIELD_NUMBER: _ClassVar[int]
    KEEP_PRIMARY_FIELD_NUMBER: _ClassVar[int]
    PRIOR_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    import_job: str
    algorithm: _resources_pb2.Algorithm
    wrapped_key: bytes
    wrapped_key_crc32c: int
    keep_primary: bool
    prior_messages: int
    etag: str
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., import_job: _Optional[str] = ..., algorithm: _Optional[_Union[_resources_pb2.Algorithm, str]] = ..., wrapped_key: _Optional[bytes] = ..., wrapped_key_crc32c: _Optional[int] = ..., keep_primary: bool = ..., prior_messages: _Optional[int] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExportKeyVersionRequest(_message.Message):
    __slots__ = ("name", "wrapping_method", "public_key_pem", "public_key_raw", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_METHOD_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_RAW_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    wrapping_method: WrappingMethod
    public_key_pem: str
    public_key_raw: bytes
    request_id: str
    def __init__(self, name: _Optional[str] = ..., wrapping_method: _Optional[_Union[WrappingMethod, str]] = ..., public_key_pem: _Optional[str] = ..., public_key_raw: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExportKeyVersionResponse(_message.Message):
    __slots__ = ("key_version", "algorithm", "wrapping_method", "wrapped_key")
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    WRAPPING_METHOD_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    key_version: str
    algorithm: _resources_pb2.Algorithm
    wrapping_method: WrappingMethod
    wrapped_key: bytes
    def __init__(self, key_version: _Optional[str] = ..., algorithm: _Optional[_Union[_resources_pb2.Algorithm, str]] = ..., wrapping_method: _Optional[_Union[WrappingMethod, str]] = ..., wrapped_key: _Optional[bytes] = ...) -> None: ...

class BackupKeyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class BackupKeyResponse(_message.Message):
    __slots__ = ("name", "backup", "version_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    VERSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    backup: bytes
    version_count: int
    def __init__(self, name: _Optional[str] = ..., backup: _Optional[bytes] = ..., version_count: _Optional[int] = ...) -> None: ...

class RestoreKeyBackupRequest(_message.Message):
    __slots__ = ("parent", "backup", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    backup: bytes
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., backup: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...
