import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Policy(_message.Message):
    __slots__ = ("roles", "groups", "bindings", "denies")
    ROLES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    BINDINGS_FIELD_NUMBER: _ClassVar[int]
    DENIES_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedCompositeFieldContainer[Role]
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    bindings: _containers.RepeatedCompositeFieldContainer[Binding]
    denies: _containers.RepeatedCompositeFieldContainer[Deny]
    def __init__(self, roles: _Optional[_Iterable[_Union[Role, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ..., bindings: _Optional[_Iterable[_Union[Binding, _Mapping]]] = ..., denies: _Optional[_Iterable[_Union[Deny, _Mapping]]] = ...) -> None: ...

class Role(_message.Message):
    __slots__ = ("name", "permissions")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    permissions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., permissions: _Optional[_Iterable[str]] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("name", "members")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    members: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., members: _Optional[_Iterable[str]] = ...) -> None: ...

class Binding(_message.Message):
    __slots__ = ("members", "role", "resource", "condition")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedScalarFieldContainer[str]
    role: str
    resource: str
    condition: str
    def __init__(self, members: _Optional[_Iterable[str]] = ..., role: _Optional[str] = ..., resource: _Optional[str] = ..., condition: _Optional[str] = ...) -> None: ...

class Deny(_message.Message):
    __slots__ = ("members", "permissions", "resource", "condition")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedScalarFieldContainer[str]
    permissions: _containers.RepeatedScalarFieldContainer[str]
    resource: str
    condition: str
    def __init__(self, members: _Optional[_Iterable[str]] = ..., permissions: _Optional[_Iterable[str]] = ..., resource: _Optional[str] = ..., condition: _Optional[str] = ...) -> None: ...

class ResourcePolicy(_message.Message):
    __slots__ = ("resource", "policy", "etag", "entries_added", "entries_removed")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_ADDED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_REMOVED_FIELD_NUMBER: _ClassVar[int]
    resource: str
    policy: Policy
    etag: str
    entries_added: int
    entries_removed: int
    def __init__(self, resource: _Optional[str] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., etag: _Optional[str] = ..., entries_added: _Optional[int] = ..., entries_removed: _Optional[int] = ...) -> None: ...

class GetPolicyRequest(_message.Message):
    __slots__ = ("resource",)
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    resource: str
    def __init__(self, resource: _Optional[str] = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("resource", "policy", "etag", "request_id")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    resource: str
    policy: Policy
    etag: str
    request_id: str
    def __init__(self, resource: _Optional[str] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class Circumstances(_message.Message):
    __slots__ = ("method", "time", "claims", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    method: str
    time: _timestamp_pb2.Timestamp
    claims: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, method: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., claims: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TestPolicyRequest(_message.Message):
    __slots__ = ("resource", "permissions", "principal", "policy", "policy_resource", "circumstances")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_RESOURCE_FIELD_NUMBER: _ClassVar[int]
    CIRCUMSTANCES_FIELD_NUMBER: _ClassVar[int]
    resource: str
    permissions: _containers.RepeatedScalarFieldContainer[str]
    principal: str
    policy: Policy
    policy_resource: str
    circumstances: Circumstances
    def __init__(self, resource: _Optional[str] = ..., permissions: _Optional[_Iterable[str]] = ..., principal: _Optional[str] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., policy_resource: _Optional[str] = ..., circumstances: _Optional[_Union[Circumstances, _Mapping]] = ...) -> None: ...

class TestPolicyResponse(_message.Message):
    __slots__ = ("permissions", "decisions")
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    permissions: _containers.RepeatedScalarFieldContainer[str]
    decisions: _containers.RepeatedCompositeFieldContainer[PolicyDecision]
    def __init__(self, permissions: _Optional[_Iterable[str]] = ..., decisions: _Optional[_Iterable[_Union[PolicyDecision, _Mapping]]] = ...) -> None: ...

class PolicyDecision(_message.Message):
    __slots__ = ("permission", "allowed", "reason")
    PERMISSION_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    permission: str
    allowed: bool
    reason: str
    def __init__(self, permission: _Optional[str] = ..., allowed: bool = ..., reason: _Optional[str] = ...) -> None: ...

class ExplainAccessRequest(_message.Message):
    __slots__ = ("principal", "method", "resource", "incident_id", "circumstances")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_ID_FIELD_NUMBER: _ClassVar[int]
    CIRCUMSTANCES_FIELD_NUMBER: _ClassVar[int]
    principal: str
    method: str
    resource: str
    incident_id: str
    circumstances: Circumstances
    def __init__(self, principal: _Optional[str] = ..., method: _Optional[str] = ..., resource: _Optional[str] = ..., incident_id: _Optional[str] = ..., circumstances: _Optional[_Union[Circumstances, _Mapping]] = ...) -> None: ...

class ExplainAccessResponse(_message.Message):
    __slots__ = ("refusal", "decisions", "allowed", "missing_permissions", "roles", "key_state", "quota_left", "advice", "secret_state")
    class QuotaLeftEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    MISSING_PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    KEY_STATE_FIELD_NUMBER: _ClassVar[int]
    QUOTA_LEFT_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    SECRET_STATE_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    decisions: _containers.RepeatedCompositeFieldContainer[PolicyDecision]
    allowed: bool
    missing_permissions: _containers.RepeatedScalarFieldContainer[str]
    roles: _containers.RepeatedScalarFieldContainer[str]
    key_state: str
    quota_left: _containers.ScalarMap[str, int]
    advice: _containers.RepeatedScalarFieldContainer[str]
    secret_state: str
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[PolicyDecision, _Mapping]]] = ..., allowed: bool = ..., missing_permissions: _Optional[_Iterable[str]] = ..., roles: _Optional[_Iterable[str]] = ..., key_state: _Optional[str] = ..., quota_left: _Optional[_Mapping[str, int]] = ..., advice: _Optional[_Iterable[str]] = ..., secret_state: _Optional[str] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("request_id", "principal", "method", "resources", "code", "reason", "time")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    principal: str
    method: str
    resources: _containers.RepeatedScalarFieldContainer[str]
    code: str
    reason: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., principal: _Optional[str] = ..., method: _Optional[str] = ..., resources: _Optional[_Iterable[str]] = ..., code: _Optional[str] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReviewAccessRequest(_message.Message):
    __slots__ = ("resource", "unused_for", "page_size", "page_token")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    UNUSED_FOR_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    resource: str
    unused_for: _duration_pb2.Duration
    page_size: int
    page_token: str
    def __init__(self, resource: _Optional[str] = ..., unused_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ReviewAccessResponse(_message.Message):
    __slots__ = ("grants", "next_page_token", "observed_since")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_SINCE_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedCompositeFieldContainer[AccessGrant]
    next_page_token: str
    observed_since: _timestamp_pb2.Timestamp
    def __init__(self, grants: _Optional[_Iterable[_Union[AccessGrant, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., observed_since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AccessGrant(_message.Message):
    __slots__ = ("principal", "group", "binding", "role", "bound_on", "condition", "permissions")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    BINDING_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    BOUND_ON_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    principal: str
    group: str
    binding: int
    role: str
    bound_on: str
    condition: str
    permissions: _containers.RepeatedCompositeFieldContainer[PermissionUse]
    def __init__(self, principal: _Optional[str] = ..., group: _Optional[str] = ..., binding: _Optional[int] = ..., role: _Optional[str] = ..., bound_on: _Optional[str] = ..., condition: _Optional[str] = ..., permissions: _Optional[_Iterable[_Union[PermissionUse, _Mapping]]] = ...) -> None: ...

class PermissionUse(_message.Message):
    __slots__ = ("permission", "last_use_time", "denied")
    PERMISSION_FIELD_NUMBER: _ClassVar[int]
    LAST_USE_TIME_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    permission: str
    last_use_time: _timestamp_pb2.Timestamp
    denied: str
    def __init__(self, permission: _Optional[str] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., denied: _Optional[str] = ...) -> None: ...
