import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResourceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESOURCE_KIND_UNSPECIFIED: _ClassVar[ResourceKind]
    RESOURCE_KIND_VAULT: _ClassVar[ResourceKind]
    RESOURCE_KIND_KEY: _ClassVar[ResourceKind]
    RESOURCE_KIND_KEY_VERSION: _ClassVar[ResourceKind]
    RESOURCE_KIND_SECRET: _ClassVar[ResourceKind]
    RESOURCE_KIND_SECRET_VERSION: _ClassVar[ResourceKind]
    RESOURCE_KIND_GRANTS: _ClassVar[ResourceKind]
    RESOURCE_KIND_QUOTA: _ClassVar[ResourceKind]
    RESOURCE_KIND_POLICY: _ClassVar[ResourceKind]
    RESOURCE_KIND_APPROVAL: _ClassVar[ResourceKind]
    RESOURCE_KIND_APPROVAL_RULES: _ClassVar[ResourceKind]
    RESOURCE_KIND_REVOKED_IDENTITY: _ClassVar[ResourceKind]
    RESOURCE_KIND_KEY_RING: _ClassVar[ResourceKind]
    RESOURCE_KIND_ROTATION: _ClassVar[ResourceKind]
    RESOURCE_KIND_IMPORT_JOB: _ClassVar[ResourceKind]

class ChangeType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANGE_TYPE_UNSPECIFIED: _ClassVar[ChangeType]
    CHANGE_TYPE_CREATED: _ClassVar[ChangeType]
    CHANGE_TYPE_UPDATED: _ClassVar[ChangeType]
    CHANGE_TYPE_DELETED: _ClassVar[ChangeType]
RESOURCE_KIND_UNSPECIFIED: ResourceKind
RESOURCE_KIND_VAULT: ResourceKind
RESOURCE_KIND_KEY: ResourceKind
RESOURCE_KIND_KEY_VERSION: ResourceKind
RESOURCE_KIND_SECRET: ResourceKind
RESOURCE_KIND_SECRET_VERSION: ResourceKind
RESOURCE_KIND_GRANTS: ResourceKind
RESOURCE_KIND_QUOTA: ResourceKind
RESOURCE_KIND_POLICY: ResourceKind
RESOURCE_KIND_APPROVAL: ResourceKind
RESOURCE_KIND_APPROVAL_RULES: ResourceKind
RESOURCE_KIND_REVOKED_IDENTITY: ResourceKind
RESOURCE_KIND_KEY_RING: ResourceKind
RESOURCE_KIND_ROTATION: ResourceKind
RESOURCE_KIND_IMPORT_JOB: ResourceKind
CHANGE_TYPE_UNSPECIFIED: ChangeType
CHANGE_TYPE_CREATED: ChangeType
CHANGE_TYPE_UPDATED: ChangeType
CHANGE_TYPE_DELETED: ChangeType

class WatchFilter(_message.Message):
    __slots__ = ("resource_prefix", "kinds")
    RESOURCE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    resource_prefix: str
    kinds: _containers.RepeatedScalarFieldContainer[ResourceKind]
    def __init__(self, resource_prefix: _Optional[str] = ..., kinds: _Optional[_Iterable[_Union[ResourceKind, str]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("resume_token", "filter", "after_revision", "heartbeat_interval")
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    resume_token: str
    filter: WatchFilter
    after_revision: int
    heartbeat_interval: _duration_pb2.Duration
    def __init__(self, resume_token: _Optional[str] = ..., filter: _Optional[_Union[WatchFilter, _Mapping]] = ..., after_revision: _Optional[int] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("revision", "kind", "name", "change_type", "etag", "time")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    revision: int
    kind: ResourceKind
    name: str
    change_type: ChangeType
    etag: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, revision: _Optional[int] = ..., kind: _Optional[_Union[ResourceKind, str]] = ..., name: _Optional[str] = ..., change_type: _Optional[_Union[ChangeType, str]] = ..., etag: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("events", "revision", "resume_token")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[WatchEvent]
    revision: int
    resume_token: str
    def __init__(self, events: _Optional[_Iterable[_Union[WatchEvent, _Mapping]]] = ..., revision: _Optional[int] = ..., resume_token: _Optional[str] = ...) -> None: ...
