import datetime

from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from vaultd_client.v1 import quota_pb2 as _quota_pb2
from vaultd_client.v1 import approval_pb2 as _approval_pb2
from vaultd_client.v1 import policy_pb2 as _policy_pb2
from vaultd_client.v1 import identity_pb2 as _identity_pb2
from vaultd_client.v1 import resources_pb2 as _resources_pb2
from vaultd_client.v1 import watch_pb2 as _watch_pb2
from vaultd_client.v1 import audit_pb2 as _audit_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SealState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEAL_STATE_UNSPECIFIED: _ClassVar[SealState]
    SEAL_STATE_UNINITIALIZED: _ClassVar[SealState]
    SEAL_STATE_SEALED: _ClassVar[SealState]
    SEAL_STATE_UNSEALED: _ClassVar[SealState]
SEAL_STATE_UNSPECIFIED: SealState
SEAL_STATE_UNINITIALIZED: SealState
SEAL_STATE_SEALED: SealState
SEAL_STATE_UNSEALED: SealState

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("seal_state", "root_key_provider", "term", "rows_on_older_terms", "version", "start_time", "revision", "components")
    class ComponentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bool
        def __init__(self, key: _Optional[str] = ..., value: bool = ...) -> None: ...
    SEAL_STATE_FIELD_NUMBER: _ClassVar[int]
    ROOT_KEY_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    ROWS_ON_OLDER_TERMS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    seal_state: SealState
    root_key_provider: str
    term: int
    rows_on_older_terms: int
    version: str
    start_time: _timestamp_pb2.Timestamp
    revision: int
    components: _containers.ScalarMap[str, bool]
    def __init__(self, seal_state: _Optional[_Union[SealState, str]] = ..., root_key_provider: _Optional[str] = ..., term: _Optional[int] = ..., rows_on_older_terms: _Optional[int] = ..., version: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., components: _Optional[_Mapping[str, bool]] = ...) -> None: ...

class InitRequest(_message.Message):
    __slots__ = ("admin_principals", "passphrase")
    ADMIN_PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    admin_principals: _containers.RepeatedScalarFieldContainer[str]
    passphrase: bytes
    def __init__(self, admin_principals: _Optional[_Iterable[str]] = ..., passphrase: _Optional[bytes] = ...) -> None: ...

class SealRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnsealRequest(_message.Message):
    __slots__ = ("passphrase",)
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    passphrase: bytes
    def __init__(self, passphrase: _Optional[bytes] = ...) -> None: ...

class RotateRootKeyRequest(_message.Message):
    __slots__ = ("passphrase", "request_id")
    PASSPHRASE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    passphrase: bytes
    request_id: str
    def __init__(self, passphrase: _Optional[bytes] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateVaultRequest(_message.Message):
    __slots__ = ("vault_id", "vault", "request_id")
    VAULT_ID_FIELD_NUMBER: _ClassVar[int]
    VAULT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vault_id: str
    vault: _resources_pb2.Vault
    request_id: str
    def __init__(self, vault_id: _Optional[str] = ..., vault: _Optional[_Union[_resources_pb2.Vault, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetVaultRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListVaultsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListVaultsResponse(_message.Message):
    __slots__ = ("vaults", "next_page_token")
    VAULTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    vaults: _containers.RepeatedCompositeFieldContainer[_resources_pb2.Vault]
    next_page_token: str
    def __init__(self, vaults: _Optional[_Iterable[_Union[_resources_pb2.Vault, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateVaultRequest(_message.Message):
    __slots__ = ("vault", "update_mask", "etag", "request_id")
    VAULT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    vault: _resources_pb2.Vault
    update_mask: _field_mask_pb2.FieldMask
    etag: str
    request_id: str
    def __init__(self, vault: _Optional[_Union[_resources_pb2.Vault, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteVaultRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...
