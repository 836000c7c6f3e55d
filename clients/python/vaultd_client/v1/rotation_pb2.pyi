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

class RotationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROTATION_STATE_UNSPECIFIED: _ClassVar[RotationState]
    ROTATION_STATE_IDLE: _ClassVar[RotationState]
    ROTATION_STATE_DUE: _ClassVar[RotationState]
    ROTATION_STATE_RUNNING: _ClassVar[RotationState]
    ROTATION_STATE_ROLLING_BACK: _ClassVar[RotationState]
    ROTATION_STATE_OVERLAP: _ClassVar[RotationState]
    ROTATION_STATE_FAILED: _ClassVar[RotationState]

class RotationStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROTATION_STAGE_UNSPECIFIED: _ClassVar[RotationStage]
    ROTATION_STAGE_CREATE: _ClassVar[RotationStage]
    ROTATION_STAGE_SET: _ClassVar[RotationStage]
    ROTATION_STAGE_TEST: _ClassVar[RotationStage]
    ROTATION_STAGE_PROMOTE: _ClassVar[RotationStage]
    ROTATION_STAGE_RETIRE: _ClassVar[RotationStage]
    ROTATION_STAGE_ROLL_BACK: _ClassVar[RotationStage]

class BytesEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BYTES_ENCODING_UNSPECIFIED: _ClassVar[BytesEncoding]
    BYTES_ENCODING_RAW: _ClassVar[BytesEncoding]
    BYTES_ENCODING_HEX: _ClassVar[BytesEncoding]
    BYTES_ENCODING_BASE64: _ClassVar[BytesEncoding]
    BYTES_ENCODING_BASE64URL: _ClassVar[BytesEncoding]

class KeyPairType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_PAIR_TYPE_UNSPECIFIED: _ClassVar[KeyPairType]
    KEY_PAIR_TYPE_ED25519: _ClassVar[KeyPairType]
    KEY_PAIR_TYPE_X25519: _ClassVar[KeyPairType]
    KEY_PAIR_TYPE_EC_P256: _ClassVar[KeyPairType]
    KEY_PAIR_TYPE_EC_P384: _ClassVar[KeyPairType]
    KEY_PAIR_TYPE_RSA_3072: _ClassVar[KeyPairType]
    KEY_PAIR_TYPE_RSA_4096: _ClassVar[KeyPairType]
ROTATION_STATE_UNSPECIFIED: RotationState
ROTATION_STATE_IDLE: RotationState
ROTATION_STATE_DUE: RotationState
ROTATION_STATE_RUNNING: RotationState
ROTATION_STATE_ROLLING_BACK: RotationState
ROTATION_STATE_OVERLAP: RotationState
ROTATION_STATE_FAILED: RotationState
ROTATION_STAGE_UNSPECIFIED: RotationStage
ROTATION_STAGE_CREATE: RotationStage
ROTATION_STAGE_SET: RotationStage
ROTATION_STAGE_TEST: RotationStage
ROTATION_STAGE_PROMOTE: RotationStage
ROTATION_STAGE_RETIRE: RotationStage
ROTATION_STAGE_ROLL_BACK: RotationStage
BYTES_ENCODING_UNSPECIFIED: BytesEncoding
BYTES_ENCODING_RAW: BytesEncoding
BYTES_ENCODING_HEX: BytesEncoding
BYTES_ENCODING_BASE64: BytesEncoding
BYTES_ENCODING_BASE64URL: BytesEncoding
KEY_PAIR_TYPE_UNSPECIFIED: KeyPairType
KEY_PAIR_TYPE_ED25519: KeyPairType
KEY_PAIR_TYPE_X25519: KeyPairType
KEY_PAIR_TYPE_EC_P256: KeyPairType
KEY_PAIR_TYPE_EC_P384: KeyPairType
KEY_PAIR_TYPE_RSA_3072: KeyPairType
KEY_PAIR_TYPE_RSA_4096: KeyPairType

class PasswordGenerator(_message.Message):
    __slots__ = ("length", "lowercase", "uppercase", "digits", "symbols", "excluded_characters")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    LOWERCASE_FIELD_NUMBER: _ClassVar[int]
    UPPERCASE_FIELD_NUMBER: _ClassVar[int]
    DIGITS_FIELD_NUMBER: _ClassVar[int]
    SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    length: int
    lowercase: int
    uppercase: int
    digits: int
    symbols: int
    excluded_characters: str
    def __init__(self, length: _Optional[int] = ..., lowercase: _Optional[int] = ..., uppercase: _Optional[int] = ..., digits: _Optional[int] = ..., symbols: _Optional[int] = ..., excluded_characters: _Optional[str] = ...) -> None: ...

class RandomBytesGenerator(_message.Message):
    __slots__ = ("length_bytes", "encoding")
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    length_bytes: int
    encoding: BytesEncoding
    def __init__(self, length_bytes: _Optional[int] = ..., encoding: _Optional[_Union[BytesEncoding, str]] = ...) -> None: ...

class KeyPairGenerator(_message.Message):
    __slots__ = ("type",)
    TYPE_FIELD_NUMBER: _ClassVar[int]
    type: KeyPairType
    def __init__(self, type: _Optional[_Union[KeyPairType, str]] = ...) -> None: ...

class RotationPolicy(_message.Message):
    __slots__ = ("password", "random_bytes", "key_pair", "target", "rotation_period", "next_rotation_time", "notice_period", "overlap")
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    RANDOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEY_PAIR_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ROTATION_PERIOD_FIELD_NUMBER: _ClassVar[int]
    NEXT_ROTATION_TIME_FIELD_NUMBER: _ClassVar[int]
    NOTICE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    password: PasswordGenerator
    random_bytes: RandomBytesGenerator
    key_pair: KeyPairGenerator
    target: str
    rotation_period: _duration_pb2.Duration
    next_rotation_time: _timestamp_pb2.Timestamp
    notice_period: _duration_pb2.Duration
    overlap: _duration_pb2.Duration
    def __init__(self, password: _Optional[_Union[PasswordGenerator, _Mapping]] = ..., random_bytes: _Optional[_Union[RandomBytesGenerator, _Mapping]] = ..., key_pair: _Optional[_Union[KeyPairGenerator, _Mapping]] = ..., target: _Optional[str] = ..., rotation_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., next_rotation_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., notice_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., overlap: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RotationFailure(_message.Message):
    __slots__ = ("stage", "reason", "text", "time")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    stage: RotationStage
    reason: str
    text: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, stage: _Optional[_Union[RotationStage, str]] = ..., reason: _Optional[str] = ..., text: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Rotation(_message.Message):
    __slots__ = ("name", "secret", "policy", "state", "stage", "run", "attempt", "failed_runs", "failure", "retry_time", "retire_time", "old_version", "new_version", "begin_time", "promote_time", "owner", "lease_expire_time", "cancelled", "create_time", "update_time", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FAILED_RUNS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RETRY_TIME_FIELD_NUMBER: _ClassVar[int]
    RETIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    OLD_VERSION_FIELD_NUMBER: _ClassVar[int]
    NEW_VERSION_FIELD_NUMBER: _ClassVar[int]
    BEGIN_TIME_FIELD_NUMBER: _ClassVar[int]
    PROMOTE_TIME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    secret: str
    policy: RotationPolicy
    state: RotationState
    stage: RotationStage
    run: str
    attempt: int
    failed_runs: int
    failure: RotationFailure
    retry_time: _timestamp_pb2.Timestamp
    retire_time: _timestamp_pb2.Timestamp
    old_version: str
    new_version: str
    begin_time: _timestamp_pb2.Timestamp
    promote_time: _timestamp_pb2.Timestamp
    owner: str
    lease_expire_time: _timestamp_pb2.Timestamp
    cancelled: bool
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, name: _Optional[str] = ..., secret: _Optional[str] = ..., policy: _Optional[_Union[RotationPolicy, _Mapping]] = ..., state: _Optional[_Union[RotationState, str]] = ..., stage: _Optional[_Union[RotationStage, str]] = ..., run: _Optional[str] = ..., attempt: _Optional[int] = ..., failed_runs: _Optional[int] = ..., failure: _Optional[_Union[RotationFailure, _Mapping]] = ..., retry_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., retire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., old_version: _Optional[str] = ..., new_version: _Optional[str] = ..., begin_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., promote_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., owner: _Optional[str] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cancelled: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class SetRotationPolicyRequest(_message.Message):
    __slots__ = ("name", "policy", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    policy: RotationPolicy
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., policy: _Optional[_Union[RotationPolicy, _Mapping]] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteRotationPolicyRequest(_message.Message):
    __slots__ = ("name", "etag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetRotationRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListRotationsRequest(_message.Message):
    __slots__ = ("parent", "states", "page_size", "page_token")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    parent: str
    states: _containers.RepeatedScalarFieldContainer[RotationState]
    page_size: int
    page_token: str
    def __init__(self, parent: _Optional[str] = ..., states: _Optional[_Iterable[_Union[RotationState, str]]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRotationsResponse(_message.Message):
    __slots__ = ("rotations", "next_page_token")
    ROTATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    rotations: _containers.RepeatedCompositeFieldContainer[Rotation]
    next_page_token: str
    def __init__(self, rotations: _Optional[_Iterable[_Union[Rotation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RotateSecretRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CancelRotationRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...
