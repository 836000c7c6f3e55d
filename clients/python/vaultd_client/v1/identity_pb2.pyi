import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RevokedIdentity(_message.Message):
    __slots__ = ("principal", "reason", "revoked_by", "revoke_time")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REVOKED_BY_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TIME_FIELD_NUMBER: _ClassVar[int]
    principal: str
    reason: str
    revoked_by: str
    revoke_time: _timestamp_pb2.Timestamp
    def __init__(self, principal: _Optional[str] = ..., reason: _Optional[str] = ..., revoked_by: _Optional[str] = ..., revoke_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RevokeIdentityRequest(_message.Message):
    __slots__ = ("principal", "reason", "request_id")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    principal: str
    reason: str
    request_id: str
    def __init__(self, principal: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ListRevokedIdentitiesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRevokedIdentitiesResponse(_message.Message):
    __slots__ = ("revoked_identities", "next_page_token")
    REVOKED_IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revoked_identities: _containers.RepeatedCompositeFieldContainer[RevokedIdentity]
    next_page_token: str
    def __init__(self, revoked_identities: _Optional[_Iterable[_Union[RevokedIdentity, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RestoreIdentityRequest(_message.Message):
    __slots__ = ("principal", "request_id")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    principal: str
    request_id: str
    def __init__(self, principal: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...
