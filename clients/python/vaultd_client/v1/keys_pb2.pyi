import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vaultd_client.v1 import grant_pb2 as _grant_pb2
from vaultd_client.v1 import key_transfer_pb2 as _key_transfer_pb2
from vaultd_client.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateKeyRequest(_message.Message):
    __slots__ = ("parent", "key_id", "key", "request_id", "skip_initial_version")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SKIP_INITIAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    parent: str
    key_id: str
    key: _resources_pb2.Key
    request_id: str
    skip_initial_version: bool
    def __init__(self, parent: _Optional[str] = ..., key_id: _Optional[str] = ..., key: _Optional[_Union[_resources_pb2.Key, _Mapping]] = ..., request_id: _Optional[str] = ..., skip_initial_version: bool = ...) -> None: ...

class AdoptKeyRequest(_message.Message):
    __slots__ = ("parent", "key_id", "key", "token_key", "request_id")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    parent: str
    key_id: str
    key: _resources_pb2.Key
    token_key: TokenKey
    request_id: str
    def __init__(self, parent: _Optional[str] = ..., key_id: _Optional[str] = ..., key: _Optional[_Union[_resources_pb2.Key, _Mapping]] = ..., token_key: _Optional[_Union[TokenKey, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class TokenKey(_message.Message):
    __slots__ = ("slot", "object_id", "object_label")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_LABEL_FIELD_NUMBER: _ClassVar[int]
    slot: str
    object_id: bytes
    object_label: str
    def __init__(self, slot: _Optional[str] = ..., object_id: _Optional[bytes] = ..., object_label: _Optional[str] = ...) -> None: ...

class GetKeyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "show_deleted")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SHOW_DELETED_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    show_deleted: bool
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., show_deleted: bool = ...) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("keys", "next_page_token")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Key]
    next_page_token: str
    def __init__(self, keys: _Optional[_Iterable[_Union[_resources_pb2.Key, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateKeyRequest(_message.Message):
    __slots__ = ("key", "update_mask", "etag", "request_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    key: _resources_pb2.Key
    update_mask: _field_mask_pb2.FieldMask
    etag: str
    request_id: str
    def __init__(self, key: _Optional[_Union[_resources_pb2.Key, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RotateKeyRequest(_message.Message):
    __slots__ = ("name", "keep_primary", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEEP_PRIMARY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    keep_primary: bool
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., keep_primary: bool = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SetPrimaryVersionRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ListKeyVersionsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListKeyVersionsResponse(_message.Message):
    __slots__ = ("key_versions", "next_page_token")
    KEY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    key_versions: _containers.RepeatedCompositeFieldContainer[_resources_pb2.KeyVersion]
    next_page_token: str
    def __init__(self, key_versions: _Optional[_Iterable[_Union[_resources_pb2.KeyVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetKeyVersionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class EnableKeyVersionRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DisableKeyVersionRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DestroyKeyVersionRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RestoreKeyVersionRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteKeyRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class UndeleteKeyRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PurgeKeyRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetPublicKeyRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PublicKey(_message.Message):
    __slots__ = ("name", "key_version", "algorithm", "pem", "jwk", "raw")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    PEM_FIELD_NUMBER: _ClassVar[int]
    JWK_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    name: str
    key_version: str
    algorithm: _resources_pb2.Algorithm
    pem: str
    jwk: str
    raw: bytes
    def __init__(self, name: _Optional[str] = ..., key_version: _Optional[str] = ..., algorithm: _Optional[_Union[_resources_pb2.Algorithm, str]] = ..., pem: _Optional[str] = ..., jwk: _Optional[str] = ..., raw: _Optional[bytes] = ...) -> None: ...

class GetCapabilitiesRequest(_message.Message):
    __slots__ = ("parent",)
    PARENT_FIELD_NUMBER: _ClassVar[int]
    parent: str
    def __init__(self, parent: _Optional[str] = ...) -> None: ...

class GetCapabilitiesResponse(_message.Message):
    __slots__ = ("capabilities", "unavailable_levels", "unsupported")
    class Capability(_message.Message):
        __slots__ = ("algorithm", "purpose", "protection_level", "purpose_default", "max_input_bytes", "max_messages")
        ALGORITHM_FIELD_NUMBER: _ClassVar[int]
        PURPOSE_FIELD_NUMBER: _ClassVar[int]
        PROTECTION_LEVEL_FIELD_NUMBER: _ClassVar[int]
        PURPOSE_DEFAULT_FIELD_NUMBER: _ClassVar[int]
        MAX_INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
        MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
        algorithm: _resources_pb2.Algorithm
        purpose: _resources_pb2.KeyPurpose
        protection_level: _resources_pb2.ProtectionLevel
        purpose_default: bool
        max_input_bytes: int
        max_messages: int
        def __init__(self, algorithm: _Optional[_Union[_resources_pb2.Algorithm, str]] = ..., purpose: _Optional[_Union[_resources_pb2.KeyPurpose, str]] = ..., protection_level: _Optional[_Union[_resources_pb2.ProtectionLevel, str]] = ..., purpose_default: bool = ..., max_input_bytes: _Optional[int] = ..., max_messages: _Optional[int] = ...) -> None: ...
    class Unsupported(_message.Message):
        __slots__ = ("algorithm", "protection_level", "reason")
        ALGORITHM_FIELD_NUMBER: _ClassVar[int]
        PROTECTION_LEVEL_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        algorithm: _resources_pb2.Algorithm
        protection_level: _resources_pb2.ProtectionLevel
        reason: str
        def __init__(self, algorithm: _Optional[_Union[_resources_pb2.Algorithm, str]] = ..., protection_level: _Optional[_Union[_resources_pb2.ProtectionLevel, str]] = ..., reason: _Optional[str] = ...) -> None: ...
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_LEVELS_FIELD_NUMBER: _ClassVar[int]
    UNSUPPORTED_FIELD_NUMBER: _ClassVar[int]
    capabilities: _containers.RepeatedCompositeFieldContainer[GetCapabilitiesResponse.Capability]
    unavailable_levels: _containers.RepeatedScalarFieldContainer[_resources_pb2.ProtectionLevel]
    unsupported: _containers.RepeatedCompositeFieldContainer[GetCapabilitiesResponse.Unsupported]
    def __init__(self, capabilities: _Optional[_Iterable[_Union[GetCapabilitiesResponse.Capability, _Mapping]]] = ..., unavailable_levels: _Optional[_Iterable[_Union[_resources_pb2.ProtectionLevel, str]]] = ..., unsupported: _Optional[_Iterable[_Union[GetCapabilitiesResponse.Unsupported, _Mapping]]] = ...) -> None: ...

class GetKeyUsageRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetKeyUsageResponse(_message.Message):
    __slots__ = ("versions", "staleness")
    class VersionUsage(_message.Message):
        __slots__ = ("key_version", "messages", "bytes", "last_use_time", "messages_left")
        KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
        MESSAGES_FIELD_NUMBER: _ClassVar[int]
        BYTES_FIELD_NUMBER: _ClassVar[int]
        LAST_USE_TIME_FIELD_NUMBER: _ClassVar[int]
        MESSAGES_LEFT_FIELD_NUMBER: _ClassVar[int]
        key_version: str
        messages: int
        bytes: int
        last_use_time: _timestamp_pb2.Timestamp
        messages_left: int
        def __init__(self, key_version: _Optional[str] = ..., messages: _Optional[int] = ..., bytes: _Optional[int] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., messages_left: _Optional[int] = ...) -> None: ...
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[GetKeyUsageResponse.VersionUsage]
    staleness: _duration_pb2.Duration
    def __init__(self, versions: _Optional[_Iterable[_Union[GetKeyUsageResponse.VersionUsage, _Mapping]]] = ..., staleness: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
