import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeyPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_PURPOSE_UNSPECIFIED: _ClassVar[KeyPurpose]
    KEY_PURPOSE_ENCRYPT_DECRYPT: _ClassVar[KeyPurpose]
    KEY_PURPOSE_DETERMINISTIC: _ClassVar[KeyPurpose]
    KEY_PURPOSE_ASYMMETRIC_DECRYPT: _ClassVar[KeyPurpose]
    KEY_PURPOSE_WRAP: _ClassVar[KeyPurpose]
    KEY_PURPOSE_SIGN: _ClassVar[KeyPurpose]
    KEY_PURPOSE_MAC: _ClassVar[KeyPurpose]
    KEY_PURPOSE_KEY_AGREEMENT: _ClassVar[KeyPurpose]
    KEY_PURPOSE_KEM: _ClassVar[KeyPurpose]
    KEY_PURPOSE_HPKE: _ClassVar[KeyPurpose]

class Algorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALGORITHM_UNSPECIFIED: _ClassVar[Algorithm]
    ALGORITHM_AES_128_GCM: _ClassVar[Algorithm]
    ALGORITHM_AES_256_GCM: _ClassVar[Algorithm]
    ALGORITHM_XAES_256_GCM: _ClassVar[Algorithm]
    ALGORITHM_AES_256_GCM_SIV: _ClassVar[Algorithm]
    ALGORITHM_CHACHA20_POLY1305: _ClassVar[Algorithm]
    ALGORITHM_AES_256_SIV: _ClassVar[Algorithm]
    ALGORITHM_AES_256_KWP: _ClassVar[Algorithm]
    ALGORITHM_RSA_OAEP_2048_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_OAEP_3072_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_OAEP_4096_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_OAEP_4096_SHA512: _ClassVar[Algorithm]
    ALGORITHM_RSA_PSS_2048_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_PSS_2048_SHA512: _ClassVar[Algorithm]
    ALGORITHM_RSA_PSS_3072_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_PSS_3072_SHA512: _ClassVar[Algorithm]
    ALGORITHM_RSA_PSS_4096_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_PSS_4096_SHA512: _ClassVar[Algorithm]
    ALGORITHM_RSA_PKCS1_2048_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_PKCS1_2048_SHA512: _ClassVar[Algorithm]
    ALGORITHM_RSA_PKCS1_3072_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_PKCS1_3072_SHA512: _ClassVar[Algorithm]
    ALGORITHM_RSA_PKCS1_4096_SHA256: _ClassVar[Algorithm]
    ALGORITHM_RSA_PKCS1_4096_SHA512: _ClassVar[Algorithm]
    ALGORITHM_EC_P256_SHA256: _ClassVar[Algorithm]
    ALGORITHM_EC_P384_SHA384: _ClassVar[Algorithm]
    ALGORITHM_EC_P521_SHA512: _ClassVar[Algorithm]
    ALGORITHM_EC_SECP256K1_SHA256: _ClassVar[Algorithm]
    ALGORITHM_ED25519: _ClassVar[Algorithm]
    ALGORITHM_ED448: _ClassVar[Algorithm]
    ALGORITHM_HMAC_SHA256: _ClassVar[Algorithm]
    ALGORITHM_HMAC_SHA384: _ClassVar[Algorithm]
    ALGORITHM_HMAC_SHA512: _ClassVar[Algorithm]
    ALGORITHM_AES_256_CMAC: _ClassVar[Algorithm]
    ALGORITHM_ECDH_P256: _ClassVar[Algorithm]
    ALGORITHM_ECDH_P384: _ClassVar[Algorithm]
    ALGORITHM_X25519: _ClassVar[Algorithm]
    ALGORITHM_ML_KEM_768: _ClassVar[Algorithm]
    ALGORITHM_ML_KEM_1024: _ClassVar[Algorithm]
    ALGORITHM_ML_DSA_44: _ClassVar[Algorithm]
    ALGORITHM_ML_DSA_65: _ClassVar[Algorithm]
    ALGORITHM_ML_DSA_87: _ClassVar[Algorithm]
    ALGORITHM_HPKE_X25519: _ClassVar[Algorithm]
    ALGORITHM_HPKE_MLKEM768_X25519: _ClassVar[Algorithm]

class ProtectionLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROTECTION_LEVEL_UNSPECIFIED: _ClassVar[ProtectionLevel]
    PROTECTION_LEVEL_SOFTWARE: _ClassVar[ProtectionLevel]
    PROTECTION_LEVEL_HSM: _ClassVar[ProtectionLevel]
    PROTECTION_LEVEL_HSM_ENVELOPE: _ClassVar[ProtectionLevel]

class KeyState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_STATE_UNSPECIFIED: _ClassVar[KeyState]
    KEY_STATE_ACTIVE: _ClassVar[KeyState]
    KEY_STATE_DELETED: _ClassVar[KeyState]

class KeyVersionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_VERSION_STATE_UNSPECIFIED: _ClassVar[KeyVersionState]
    KEY_VERSION_STATE_ENABLED: _ClassVar[KeyVersionState]
    KEY_VERSION_STATE_DISABLED: _ClassVar[KeyVersionState]
    KEY_VERSION_STATE_DESTROY_SCHEDULED: _ClassVar[KeyVersionState]
    KEY_VERSION_STATE_DESTROYED: _ClassVar[KeyVersionState]

class SignatureEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIGNATURE_ENCODING_UNSPECIFIED: _ClassVar[SignatureEncoding]
    SIGNATURE_ENCODING_DER: _ClassVar[SignatureEncoding]
    SIGNATURE_ENCODING_P1363: _ClassVar[SignatureEncoding]
KEY_PURPOSE_UNSPECIFIED: KeyPurpose
KEY_PURPOSE_ENCRYPT_DECRYPT: KeyPurpose
KEY_PURPOSE_DETERMINISTIC: KeyPurpose
KEY_PURPOSE_ASYMMETRIC_DECRYPT: KeyPurpose
KEY_PURPOSE_WRAP: KeyPurpose
KEY_PURPOSE_SIGN: KeyPurpose
KEY_PURPOSE_MAC: KeyPurpose
KEY_PURPOSE_KEY_AGREEMENT: KeyPurpose
KEY_PURPOSE_KEM: KeyPurpose
KEY_PURPOSE_HPKE: KeyPurpose
ALGORITHM_UNSPECIFIED: Algorithm
ALGORITHM_AES_128_GCM: Algorithm
ALGORITHM_AES_256_GCM: Algorithm
ALGORITHM_XAES_256_GCM: Algorithm
ALGORITHM_AES_256_GCM_SIV: Algorithm
ALGORITHM_CHACHA20_POLY1305: Algorithm
ALGORITHM_AES_256_SIV: Algorithm
ALGORITHM_AES_256_KWP: Algorithm
ALGORITHM_RSA_OAEP_2048_SHA256: Algorithm
ALGORITHM_RSA_OAEP_3072_SHA256: Algorithm
ALGORITHM_RSA_OAEP_4096_SHA256: Algorithm
ALGORITHM_RSA_OAEP_4096_SHA512: Algorithm
ALGORITHM_RSA_PSS_2048_SHA256: Algorithm
ALGORITHM_RSA_PSS_2048_SHA512: Algorithm
ALGORITHM_RSA_PSS_3072_SHA256: Algorithm
ALGORITHM_RSA_PSS_3072_SHA512: Algorithm
ALGORITHM_RSA_PSS_4096_SHA256: Algorithm
ALGORITHM_RSA_PSS_4096_SHA512: Algorithm
ALGORITHM_RSA_PKCS1_2048_SHA256: Algorithm
ALGORITHM_RSA_PKCS1_2048_SHA512: Algorithm
ALGORITHM_RSA_PKCS1_3072_SHA256: Algorithm
ALGORITHM_RSA_PKCS1_3072_SHA512: Algorithm
ALGORITHM_RSA_PKCS1_4096_SHA256: Algorithm
ALGORITHM_RSA_PKCS1_4096_SHA512: Algorithm
ALGORITHM_EC_P256_SHA256: Algorithm
ALGORITHM_EC_P384_SHA384: Algorithm
ALGORITHM_EC_P521_SHA512: Algorithm
ALGORITHM_EC_SECP256K1_SHA256: Algorithm
ALGORITHM_ED25519: Algorithm
ALGORITHM_ED448: Algorithm
ALGORITHM_HMAC_SHA256: Algorithm
ALGORITHM_HMAC_SHA384: Algorithm
ALGORITHM_HMAC_SHA512: Algorithm
ALGORITHM_AES_256_CMAC: Algorithm
ALGORITHM_ECDH_P256: Algorithm
ALGORITHM_ECDH_P384: Algorithm
ALGORITHM_X25519: Algorithm
ALGORITHM_ML_KEM_768: Algorithm
ALGORITHM_ML_KEM_1024: Algorithm
ALGORITHM_ML_DSA_44: Algorithm
ALGORITHM_ML_DSA_65: Algorithm
ALGORITHM_ML_DSA_87: Algorithm
ALGORITHM_HPKE_X25519: Algorithm
ALGORITHM_HPKE_MLKEM768_X25519: Algorithm
PROTECTION_LEVEL_UNSPECIFIED: ProtectionLevel
PROTECTION_LEVEL_SOFTWARE: ProtectionLevel
PROTECTION_LEVEL_HSM: ProtectionLevel
PROTECTION_LEVEL_HSM_ENVELOPE: ProtectionLevel
KEY_STATE_UNSPECIFIED: KeyState
KEY_STATE_ACTIVE: KeyState
KEY_STATE_DELETED: KeyState
KEY_VERSION_STATE_UNSPECIFIED: KeyVersionState
KEY_VERSION_STATE_ENABLED: KeyVersionState
KEY_VERSION_STATE_DISABLED: KeyVersionState
KEY_VERSION_STATE_DESTROY_SCHEDULED: KeyVersionState
KEY_VERSION_STATE_DESTROYED: KeyVersionState
SIGNATURE_ENCODING_UNSPECIFIED: SignatureEncoding
SIGNATURE_ENCODING_DER: SignatureEncoding
SIGNATURE_ENCODING_P1363: SignatureEncoding

class Vault(_message.Message):
    __slots__ = ("name", "display_name", "labels", "create_time", "update_time", "etag")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    display_name: str
    labels: _containers.ScalarMap[str, str]
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, name: _Optional[str] = ..., display_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class Key(_message.Message):
    __slots__ = ("name", "uid", "purpose", "algorithm", "protection_level", "labels", "rotation_period", "next_rotation_time", "expire_time", "exportable", "destroy_scheduled_duration", "purge_protection", "state", "primary_version", "newest_version", "create_time", "update_time", "delete_time", "purge_time", "etag", "import_only", "min_decrypt_version", "notice_period")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    PROTECTION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ROTATION_PERIOD_FIELD_NUMBER: _ClassVar[int]
    NEXT_ROTATION_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPORTABLE_FIELD_NUMBER: _ClassVar[int]
    DESTROY_SCHEDULED_DURATION_FIELD_NUMBER: _ClassVar[int]
    PURGE_PROTECTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_VERSION_FIELD_NUMBER: _ClassVar[int]
    NEWEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    PURGE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    IMPORT_ONLY_FIELD_NUMBER: _ClassVar[int]
    MIN_DECRYPT_VERSION_FIELD_NUMBER: _ClassVar[int]
    NOTICE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: bytes
    purpose: KeyPurpose
    algorithm: Algorithm
    protection_level: ProtectionLevel
    labels: _containers.ScalarMap[str, str]
    rotation_period: _duration_pb2.Duration
    next_rotation_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    exportable: bool
    destroy_scheduled_duration: _duration_pb2.Duration
    purge_protection: bool
    state: KeyState
    primary_version: str
    newest_version: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    delete_time: _timestamp_pb2.Timestamp
    purge_time: _timestamp_pb2.Timestamp
    etag: str
    import_only: bool
    min_decrypt_version: int
    notice_period: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[bytes] = ..., purpose: _Optional[_Union[KeyPurpose, str]] = ..., algorithm: _Optional[_Union[Algorithm, str]] = ..., protection_level: _Optional[_Union[ProtectionLevel, str]] = ..., labels: _Optional[_Mapping[str, str]] = ..., rotation_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., next_rotation_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., exportable: bool = ..., destroy_scheduled_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., purge_protection: bool = ..., state: _Optional[_Union[KeyState, str]] = ..., primary_version: _Optional[str] = ..., newest_version: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., purge_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ..., import_only: bool = ..., min_decrypt_version: _Optional[int] = ..., notice_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class KeyVersion(_message.Message):
    __slots__ = ("name", "state", "algorithm", "protection_level", "create_time", "destroy_time", "destroy_event_time", "imported", "etag", "attestation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    PROTECTION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    DESTROY_TIME_FIELD_NUMBER: _ClassVar[int]
    DESTROY_EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: KeyVersionState
    algorithm: Algorithm
    protection_level: ProtectionLevel
    create_time: _timestamp_pb2.Timestamp
    destroy_time: _timestamp_pb2.Timestamp
    destroy_event_time: _timestamp_pb2.Timestamp
    imported: bool
    etag: str
    attestation: KeyAttestation
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[KeyVersionState, str]] = ..., algorithm: _Optional[_Union[Algorithm, str]] = ..., protection_level: _Optional[_Union[ProtectionLevel, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., destroy_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., destroy_event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., imported: bool = ..., etag: _Optional[str] = ..., attestation: _Optional[_Union[KeyAttestation, _Mapping]] = ...) -> None: ...

class KeyAttestation(_message.Message):
    __slots__ = ("slot", "token_label", "token_serial", "manufacturer", "model", "firmware_version", "object_id", "object_label", "sensitive", "always_sensitive", "extractable", "never_extractable", "local")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_LABEL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_SERIAL_FIELD_NUMBER: _ClassVar[int]
    MANUFACTURER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FIRMWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_LABEL_FIELD_NUMBER: _ClassVar[int]
    SENSITIVE_FIELD_NUMBER: _ClassVar[int]
    ALWAYS_SENSITIVE_FIELD_NUMBER: _ClassVar[int]
    EXTRACTABLE_FIELD_NUMBER: _ClassVar[int]
    NEVER_EXTRACTABLE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    slot: str
    token_label: str
    token_serial: str
    manufacturer: str
    model: str
    firmware_version: str
    object_id: bytes
    object_label: str
    sensitive: bool
    always_sensitive: bool
    extractable: bool
    never_extractable: bool
    local: bool
    def __init__(self, slot: _Optional[str] = ..., token_label: _Optional[str] = ..., token_serial: _Optional[str] = ..., manufacturer: _Optional[str] = ..., model: _Optional[str] = ..., firmware_version: _Optional[str] = ..., object_id: _Optional[bytes] = ..., object_label: _Optional[str] = ..., sensitive: bool = ..., always_sensitive: bool = ..., extractable: bool = ..., never_extractable: bool = ..., local: bool = ...) -> None: ...

class AuditReceipt(_message.Message):
    __slots__ = ("chain_id", "sequence", "leaf_hash")
    CHAIN_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    chain_id: bytes
    sequence: int
    leaf_hash: bytes
    def __init__(self, chain_id: _Optional[bytes] = ..., sequence: _Optional[int] = ..., leaf_hash: _Optional[bytes] = ...) -> None: ...
