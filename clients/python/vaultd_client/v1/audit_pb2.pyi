import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuditCheckpoint(_message.Message):
    __slots__ = ("chain_id", "tree_size", "root_hash", "first_sequence", "sign_time", "note")
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    TREE_SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_HASH_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SIGN_TIME_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    chain_id: bytes
    tree_size: int
    root_hash: bytes
    first_sequence: int
    sign_time: _timestamp_pb2.Timestamp
    note: str
    def __init__(self, chain_id: _Optional[bytes] = ..., tree_size: _Optional[int] = ..., root_hash: _Optional[bytes] = ..., first_sequence: _Optional[int] = ..., sign_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., note: _Optional[str] = ...) -> None: ...

class GetInclusionProofRequest(_message.Message):
    __slots__ = ("sequence", "chain_id", "leaf_hash")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    chain_id: bytes
    leaf_hash: bytes
    def __init__(self, sequence: _Optional[int] = ..., chain_id: _Optional[bytes] = ..., leaf_hash: _Optional[bytes] = ...) -> None: ...

class InclusionProof(_message.Message):
    __slots__ = ("sequence", "leaf_hash", "leaf_index", "path", "checkpoint", "public_keys")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    LEAF_INDEX_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEYS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    leaf_hash: bytes
    leaf_index: int
    path: _containers.RepeatedScalarFieldContainer[bytes]
    checkpoint: AuditCheckpoint
    public_keys: str
    def __init__(self, sequence: _Optional[int] = ..., leaf_hash: _Optional[bytes] = ..., leaf_index: _Optional[int] = ..., path: _Optional[_Iterable[bytes]] = ..., checkpoint: _Optional[_Union[AuditCheckpoint, _Mapping]] = ..., public_keys: _Optional[str] = ...) -> None: ...

class GetConsistencyProofRequest(_message.Message):
    __slots__ = ("tree_size", "chain_id")
    TREE_SIZE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    tree_size: int
    chain_id: bytes
    def __init__(self, tree_size: _Optional[int] = ..., chain_id: _Optional[bytes] = ...) -> None: ...

class ConsistencyProof(_message.Message):
    __slots__ = ("tree_size", "path", "checkpoint")
    TREE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    tree_size: int
    path: _containers.RepeatedScalarFieldContainer[bytes]
    checkpoint: AuditCheckpoint
    def __init__(self, tree_size: _Optional[int] = ..., path: _Optional[_Iterable[bytes]] = ..., checkpoint: _Optional[_Union[AuditCheckpoint, _Mapping]] = ...) -> None: ...

class VerifyAuditRequest(_message.Message):
    __slots__ = ("first_sequence", "max_records", "chain_id")
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDS_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    first_sequence: int
    max_records: int
    chain_id: bytes
    def __init__(self, first_sequence: _Optional[int] = ..., max_records: _Optional[int] = ..., chain_id: _Optional[bytes] = ...) -> None: ...

class VerifyAuditResponse(_message.Message):
    __slots__ = ("intact", "first_sequence", "last_sequence", "checkpoints", "next_sequence", "bad_segment", "bad_line", "bad_sequence", "problem", "checkpoint")
    INTACT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BAD_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    BAD_LINE_FIELD_NUMBER: _ClassVar[int]
    BAD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    intact: bool
    first_sequence: int
    last_sequence: int
    checkpoints: int
    next_sequence: int
    bad_segment: str
    bad_line: int
    bad_sequence: int
    problem: str
    checkpoint: AuditCheckpoint
    def __init__(self, intact: bool = ..., first_sequence: _Optional[int] = ..., last_sequence: _Optional[int] = ..., checkpoints: _Optional[int] = ..., next_sequence: _Optional[int] = ..., bad_segment: _Optional[str] = ..., bad_line: _Optional[int] = ..., bad_sequence: _Optional[int] = ..., problem: _Optional[str] = ..., checkpoint: _Optional[_Union[AuditCheckpoint, _Mapping]] = ...) -> None: ...

class AuditFilter(_message.Message):
    __slots__ = ("events", "methods", "principals", "codes", "resource_prefix")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedScalarFieldContainer[str]
    methods: _containers.RepeatedScalarFieldContainer[str]
    principals: _containers.RepeatedScalarFieldContainer[str]
    codes: _containers.RepeatedScalarFieldContainer[str]
    resource_prefix: str
    def __init__(self, events: _Optional[_Iterable[str]] = ..., methods: _Optional[_Iterable[str]] = ..., principals: _Optional[_Iterable[str]] = ..., codes: _Optional[_Iterable[str]] = ..., resource_prefix: _Optional[str] = ...) -> None: ...

class TailAuditRequest(_message.Message):
    __slots__ = ("after_sequence", "start_time", "filter", "stop_at_end", "heartbeat_interval", "chain_id")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    STOP_AT_END_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    start_time: _timestamp_pb2.Timestamp
    filter: AuditFilter
    stop_at_end: bool
    heartbeat_interval: _duration_pb2.Duration
    chain_id: bytes
    def __init__(self, after_sequence: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., filter: _Optional[_Union[AuditFilter, _Mapping]] = ..., stop_at_end: bool = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., chain_id: _Optional[bytes] = ...) -> None: ...

class AuditRecord(_message.Message):
    __slots__ = ("sequence", "line")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    line: bytes
    def __init__(self, sequence: _Optional[int] = ..., line: _Optional[bytes] = ...) -> None: ...

class TailAuditResponse(_message.Message):
    __slots__ = ("records", "sequence", "chain_id")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[AuditRecord]
    sequence: int
    chain_id: bytes
    def __init__(self, records: _Optional[_Iterable[_Union[AuditRecord, _Mapping]]] = ..., sequence: _Optional[int] = ..., chain_id: _Optional[bytes] = ...) -> None: ...
