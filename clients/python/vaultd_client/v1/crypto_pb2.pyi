from google.rpc import status_pb2 as _status_pb2
from vaultd_client.v1 import resources_pb2 as _resources_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncryptRequest(_message.Message):
    __slots__ = ("name", "plaintext", "associated_data", "plaintext_crc32c", "associated_data_crc32c")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    ASSOCIATED_DATA_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_CRC32C_FIELD_NUMBER: _ClassVar[int]
    ASSOCIATED_DATA_CRC32C_FIELD_NUMBER: _ClassVar[int]
    name: str
    plaintext: bytes
    associated_data: bytes
    plaintext_crc32c: int
    associated_data_crc32c: int
    def __init__(self, name: _Optional[str] = ..., plaintext: _Optional[bytes] = ..., associated_data: _Optional[bytes] = ..., plaintext_crc32c: _Optional[int] = ..., associated_data_crc32c: _Optional[int] = ...) -> None: ...

class EncryptResponse(_message.Message):
    __slots__ = ("ciphertext", "key_version", "ciphertext_crc32c")
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_CRC32C_FIELD_NUMBER: _ClassVar[int]
    ciphertext: bytes
    key_version: str
    ciphertext_crc32c: int
    def __init__(self, ciphertext: _Optional[bytes] = ..., key_version: _Optional[str] = ..., ciphertext_crc32c: _Optional[int] = ...) -> None: ...

class DecryptRequest(_message.Message):
    __slots__ = ("name", "ciphertext", "associated_data", "ciphertext_crc32c", "associated_data_crc32c")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    ASSOCIATED_DATA_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_CRC32C_FIELD_NUMBER: _ClassVar[int]
    ASSOCIATED_DATA_CRC32C_FIELD_NUMBER: _ClassVar[int]
    name: str
    ciphertext: bytes
    associated_data: bytes
    ciphertext_crc32c: int
    associated_data_crc32c: int
    def __init__(self, name: _Optional[str] = ..., ciphertext: _Optional[bytes] = ..., associated_data: _Optional[bytes] = ..., ciphertext_crc32c: _Optional[int] = ..., associated_data_crc32c: _Optional[int] = ...) -> None: ...

class DecryptResponse(_message.Message):
    __slots__ = ("plaintext", "key_version", "plaintext_crc32c")
    PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    PLAINTEXT_CRC32C_FIELD_NUMBER: _ClassVar[int]
    plaintext: bytes
    key_version: str
    plaintext_crc32c: int
    def __init__(self, plaintext: _Optional[bytes] = ..., key_version: _Optional[str] = ..., plaintext_crc32c: _Optional[int] = ...) -> None: ...

class ReEncryptRequest(_message.Message):
    __slots__ = ("source_name", "ciphertext", "source_associated_data", "destination_name", "destination_associated_data", "ciphertext_crc32c")
    SOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ASSOCIATED_DATA_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_NAME_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_ASSOCIATED_DATA_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_CRC32C_FIELD_NUMBER: _ClassVar[int]
    source_name: str
    ciphertext: bytes
    source_associated_data: bytes
    destination_name: str
    destination_associated_data: bytes
    ciphertext_crc32c: int
    def __init__(self, source_name: _Optional[str] = ..., ciphertext: _Optional[bytes] = ..., source_associated_data: _Optional[bytes] = ..., destination_name: _Optional[str] = ..., destination_associated_data: _Optional[bytes] = ..., ciphertext_crc32c: _Optional[int] = ...) -> None: ...

class ReEncryptResponse(_message.Message):
    __slots__ = ("ciphertext", "key_version", "source_key_version", "ciphertext_crc32c")
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_CRC32C_FIELD_NUMBER: _ClassVar[int]
    ciphertext: bytes
    key_version: str
    source_key_version: str
    ciphertext_crc32c: int
    def __init__(self, ciphertext: _Optional[bytes] = ..., key_version: _Optional[str] = ..., source_key_version: _Optional[str] = ..., ciphertext_crc32c: _Optional[int] = ...) -> None: ...

class SignRequest(_message.Message):
    __slots__ = ("name", "message", "digest", "signature_encoding", "input_crc32c")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ENCODING_FIELD_NUMBER: _ClassVar[int]
    INPUT_CRC32C_FIELD_NUMBER: _ClassVar[int]
    name: str
    message: bytes
    digest: bytes
    signature_encoding: _resources_pb2.SignatureEncoding
    input_crc32c: int
    def __init__(self, name: _Optional[str] = ..., message: _Optional[bytes] = ..., digest: _Optional[bytes] = ..., signature_encoding: _Optional[_Union[_resources_pb2.SignatureEncoding, str]] = ..., input_crc32c: _Optional[int] = ...) -> None: ...

class SignResponse(_message.Message):
    __slots__ = ("signature", "key_version", "signature_crc32c")
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_CRC32C_FIELD_NUMBER: _ClassVar[int]
    signature: bytes
    key_version: str
    signature_crc32c: int
    def __init__(self, signature: _Optional[bytes] = ..., key_version: _Optional[str] = ..., signature_crc32c: _Optional[int] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("name", "message", "digest", "signature", "signature_encoding", "input_crc32c", "signature_crc32c")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_ENCODING_FIELD_NUMBER: _ClassVar[int]
    INPUT_CRC32C_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_CRC32C_FIELD_NUMBER: _ClassVar[int]
    name: str
    message: bytes
    digest: bytes
    signature: bytes
    signature_encoding: _resources_pb2.SignatureEncoding
    input_crc32c: int
    signature_crc32c: int
    def __init__(self, name: _Optional[str] = ..., message: _Optional[bytes] = ..., digest: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., signature_encoding: _Optional[_Union[_resources_pb2.SignatureEncoding, str]] = ..., input_crc32c: _Optional[int] = ..., signature_crc32c: _Optional[int] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("valid", "key_version")
    VALID_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    key_version: str
    def __init__(self, valid: bool = ..., key_version: _Optional[str] = ...) -> None: ...

class GenerateMacRequest(_message.Message):
    __slots__ = ("name", "data", "data_crc32c")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DATA_CRC32C_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    data_crc32c: int
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ..., data_crc32c: _Optional[int] = ...) -> None: ...

class GenerateMacResponse(_message.Message):
    __slots__ = ("mac", "key_version", "mac_crc32c")
    MAC_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAC_CRC32C_FIELD_NUMBER: _ClassVar[int]
    mac: bytes
    key_version: str
    mac_crc32c: int
    def __init__(self, mac: _Optional[bytes] = ..., key_version: _Optional[str] = ..., mac_crc32c: _Optional[int] = ...) -> None: ...

class VerifyMacRequest(_message.Message):
    __slots__ = ("name", "data", "mac", "data_crc32c", "mac_crc32c")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MAC_FIELD_NUMBER: _ClassVar[int]
    DATA_CRC32C_FIELD_NUMBER: _ClassVar[int]
    MAC_CRC32C_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    mac: bytes
    data_crc32c: int
    mac_crc32c: int
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ..., mac: _Optional[bytes] = ..., data_crc32c: _Optional[int] = ..., mac_crc32c: _Optional[int] = ...) -> None: ...

class VerifyMacResponse(_message.Message):
    __slots__ = ("valid", "key_version")
    VALID_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    key_version: str
    def __init__(self, valid: bool = ..., key_version: _Optional[str] = ...) -> None: ...

class WrapKeyRequest(_message.Message):
    __slots__ = ("name", "key_material", "key_material_crc32c")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_MATERIAL_FIELD_NUMBER: _ClassVar[int]
    KEY_MATERIAL_CRC32C_FIELD_NUMBER: _ClassVar[int]
    name: str
    key_material: bytes
    key_material_crc32c: int
    def __init__(self, name: _Optional[str] = ..., key_material: _Optional[bytes] = ..., key_material_crc32c: _Optional[int] = ...) -> None: ...

class WrapKeyResponse(_message.Message):
    __slots__ = ("wrapped_key", "key_version", "wrapped_key_crc32c")
    WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_CRC32C_FIELD_NUMBER: _ClassVar[int]
    wrapped_key: bytes
    key_version: str
    wrapped_key_crc32c: int
    def __init__(self, wrapped_key: _Optional[bytes] = ..., key_version: _Optional[str] = ..., wrapped_key_crc32c: _Optional[int] = ...) -> None: ...

class UnwrapKeyRequest(_message.Message):
    __slots__ = ("name", "wrapped_key", "wrapped_key_crc32c")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_CRC32C_FIELD_NUMBER: _ClassVar[int]
    name: str
    wrapped_key: bytes
    wrapped_key_crc32c: int
    def __init__(self, name: _Optional[str] = ..., wrapped_key: _Optional[bytes] = ..., wrapped_key_crc32c: _Optional[int] = ...) -> None: ...

class UnwrapKeyResponse(_message.Message):
    __slots__ = ("key_material", "key_version", "key_material_crc32c")
    KEY_MATERIAL_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEY_MATERIAL_CRC32C_FIELD_NUMBER: _ClassVar[int]
    key_material: bytes
    key_version: str
    key_material_crc32c: int
    def __init__(self, key_material: _Optional[bytes] = ..., key_version: _Optional[str] = ..., key_material_crc32c: _Optional[int] = ...) -> None: ...

class GenerateDataKeyRequest(_message.Message):
    __slots__ = ("name", "length_bytes", "include_plaintext", "count", "associated_data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ASSOCIATED_DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    length_bytes: int
    include_plaintext: bool
    count: int
    associated_data: bytes
    def __init__(self, name: _Optional[str] = ..., length_bytes: _Optional[int] = ..., include_plaintext: bool = ..., count: _Optional[int] = ..., associated_data: _Optional[bytes] = ...) -> None: ...

class GenerateDataKeyResponse(_message.Message):
    __slots__ = ("data_keys", "key_version")
    class DataKey(_message.Message):
        __slots__ = ("plaintext", "wrapped")
        PLAINTEXT_FIELD_NUMBER: _ClassVar[int]
        WRAPPED_FIELD_NUMBER: _ClassVar[int]
        plaintext: bytes
        wrapped: bytes
        def __init__(self, plaintext: _Optional[bytes] = ..., wrapped: _Optional[bytes] = ...) -> None: ...
    DATA_KEYS_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    data_keys: _containers.RepeatedCompositeFieldContainer[GenerateDataKeyResponse.DataKey]
    key_version: str
    def __init__(self, data_keys: _Optional[_Iterable[_Union[GenerateDataKeyResponse.DataKey, _Mapping]]] = ..., key_version: _Optional[str] = ...) -> None: ...

class EncapsulateRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class EncapsulateResponse(_message.Message):
    __slots__ = ("ciphertext", "shared_secret", "key_version")
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    SHARED_SECRET_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ciphertext: bytes
    shared_secret: bytes
    key_version: str
    def __init__(self, ciphertext: _Optional[bytes] = ..., shared_secret: _Optional[bytes] = ..., key_version: _Optional[str] = ...) -> None: ...

class DecapsulateRequest(_message.Message):
    __slots__ = ("name", "ciphertext")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    ciphertext: bytes
    def __init__(self, name: _Optional[str] = ..., ciphertext: _Optional[bytes] = ...) -> None: ...

class DecapsulateResponse(_message.Message):
    __slots__ = ("shared_secret", "key_version")
    SHARED_SECRET_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    shared_secret: bytes
    key_version: str
    def __init__(self, shared_secret: _Optional[bytes] = ..., key_version: _Optional[str] = ...) -> None: ...

class DeriveSharedSecretRequest(_message.Message):
    __slots__ = ("name", "peer_public_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    peer_public_key: bytes
    def __init__(self, name: _Optional[str] = ..., peer_public_key: _Optional[bytes] = ...) -> None: ...

class DeriveSharedSecretResponse(_message.Message):
    __slots__ = ("shared_secret", "key_version")
    SHARED_SECRET_FIELD_NUMBER: _ClassVar[int]
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    shared_secret: bytes
    key_version: str
    def __init__(self, shared_secret: _Optional[bytes] = ..., key_version: _Optional[str] = ...) -> None: ...

class GenerateRandomBytesRequest(_message.Message):
    __slots__ = ("parent", "length_bytes", "protection_level")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROTECTION_LEVEL_FIELD_NUMBER: _ClassVar[int]
    parent: str
    length_bytes: int
    protection_level: _resources_pb2.ProtectionLevel
    def __init__(self, parent: _Optional[str] = ..., length_bytes: _Optional[int] = ..., protection_level: _Optional[_Union[_resources_pb2.ProtectionLevel, str]] = ...) -> None: ...

class GenerateRandomBytesResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class InspectCiphertextRequest(_message.Message):
    __slots__ = ("name", "ciphertext")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    name: str
    ciphertext: bytes
    def __init__(self, name: _Optional[str] = ..., ciphertext: _Optional[bytes] = ...) -> None: ...

class InspectCiphertextResponse(_message.Message):
    __slots__ = ("key_version", "algorithm", "needs_reencrypt", "below_minimum")
    KEY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    NEEDS_REENCRYPT_FIELD_NUMBER: _ClassVar[int]
    BELOW_MINIMUM_FIELD_NUMBER: _ClassVar[int]
    key_version: str
    algorithm: _resources_pb2.Algorithm
    needs_reencrypt: bool
    below_minimum: bool
    def __init__(self, key_version: _Optional[str] = ..., algorithm: _Optional[_Union[_resources_pb2.Algorithm, str]] = ..., needs_reencrypt: bool = ..., below_minimum: bool = ...) -> None: ...

class BatchEncryptRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[EncryptRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[EncryptRequest, _Mapping]]] = ...) -> None: ...

class BatchEncryptResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: EncryptResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[EncryptResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchEncryptResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchEncryptResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchEncryptResult, _Mapping]]] = ...) -> None: ...

class BatchDecryptRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[DecryptRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[DecryptRequest, _Mapping]]] = ...) -> None: ...

class BatchDecryptResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: DecryptResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[DecryptResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchDecryptResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchDecryptResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchDecryptResult, _Mapping]]] = ...) -> None: ...

class BatchReEncryptRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ReEncryptRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[ReEncryptRequest, _Mapping]]] = ...) -> None: ...

class BatchReEncryptResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: ReEncryptResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[ReEncryptResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchReEncryptResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchReEncryptResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchReEncryptResult, _Mapping]]] = ...) -> None: ...

class BatchSignRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[SignRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[SignRequest, _Mapping]]] = ...) -> None: ...

class BatchSignResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: SignResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[SignResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchSignResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchSignResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchSignResult, _Mapping]]] = ...) -> None: ...

class BatchVerifyRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[VerifyRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[VerifyRequest, _Mapping]]] = ...) -> None: ...

class BatchVerifyResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: VerifyResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[VerifyResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchVerifyResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchVerifyResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchVerifyResult, _Mapping]]] = ...) -> None: ...

class BatchGenerateMacRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[GenerateMacRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[GenerateMacRequest, _Mapping]]] = ...) -> None: ...

class BatchGenerateMacResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: GenerateMacResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[GenerateMacResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchGenerateMacResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchGenerateMacResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchGenerateMacResult, _Mapping]]] = ...) -> None: ...

class BatchVerifyMacRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[VerifyMacRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[VerifyMacRequest, _Mapping]]] = ...) -> None: ...

class BatchVerifyMacResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: VerifyMacResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[VerifyMacResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchVerifyMacResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchVerifyMacResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchVerifyMacResult, _Mapping]]] = ...) -> None: ...

class BatchWrapKeyRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[WrapKeyRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[WrapKeyRequest, _Mapping]]] = ...) -> None: ...

class BatchWrapKeyResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: WrapKeyResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[WrapKeyResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchWrapKeyResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchWrapKeyResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchWrapKeyResult, _Mapping]]] = ...) -> None: ...

class BatchUnwrapKeyRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[UnwrapKeyRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[UnwrapKeyRequest, _Mapping]]] = ...) -> None: ...

class BatchUnwrapKeyResult(_message.Message):
    __slots__ = ("result", "status")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    result: UnwrapKeyResponse
    status: _status_pb2.Status
    def __init__(self, result: _Optional[_Union[UnwrapKeyResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class BatchUnwrapKeyResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchUnwrapKeyResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchUnwrapKeyResult, _Mapping]]] = ...) -> None: ...

class CryptoOperation(_message.Message):
    __slots__ = ("id", "encrypt", "decrypt", "reencrypt", "sign", "verify", "generate_mac", "verify_mac", "wrap_key", "unwrap_key", "generate_data_key", "encapsulate", "decapsulate", "derive_shared_secret", "generate_random_bytes", "inspect_ciphertext")
    ID_FIELD_NUMBER: _ClassVar[int]
    ENCRYPT_FIELD_NUMBER: _ClassVar[int]
    DECRYPT_FIELD_NUMBER: _ClassVar[int]
    REENCRYPT_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    GENERATE_MAC_FIELD_NUMBER: _ClassVar[int]
    VERIFY_MAC_FIELD_NUMBER: _ClassVar[int]
    WRAP_KEY_FIELD_NUMBER: _ClassVar[int]
    UNWRAP_KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATE_DATA_KEY_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATE_FIELD_NUMBER: _ClassVar[int]
    DECAPSULATE_FIELD_NUMBER: _ClassVar[int]
    DERIVE_SHARED_SECRET_FIELD_NUMBER: _ClassVar[int]
    GENERATE_RANDOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    INSPECT_CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    id: int
    encrypt: EncryptRequest
    decrypt: DecryptRequest
    reencrypt: ReEncryptRequest
    sign: SignRequest
    verify: VerifyRequest
    generate_mac: GenerateMacRequest
    verify_mac: VerifyMacRequest
    wrap_key: WrapKeyRequest
    unwrap_key: UnwrapKeyRequest
    generate_data_key: GenerateDataKeyRequest
    encapsulate: EncapsulateRequest
    decapsulate: DecapsulateRequest
    derive_shared_secret: DeriveSharedSecretRequest
    generate_random_bytes: GenerateRandomBytesRequest
    inspect_ciphertext: InspectCiphertextRequest
    def __init__(self, id: _Optional[int] = ..., encrypt: _Optional[_Union[EncryptRequest, _Mapping]] = ..., decrypt: _Optional[_Union[DecryptRequest, _Mapping]] = ..., reencrypt: _Optional[_Union[ReEncryptRequest, _Mapping]] = ..., sign: _Optional[_Union[SignRequest, _Mapping]] = ..., verify: _Optional[_Union[VerifyRequest, _Mapping]] = ..., generate_mac: _Optional[_Union[GenerateMacRequest, _Mapping]] = ..., verify_mac: _Optional[_Union[VerifyMacRequest, _Mapping]] = ..., wrap_key: _Optional[_Union[WrapKeyRequest, _Mapping]] = ..., unwrap_key: _Optional[_Union[UnwrapKeyRequest, _Mapping]] = ..., generate_data_key: _Optional[_Union[GenerateDataKeyRequest, _Mapping]] = ..., encapsulate: _Optional[_Union[EncapsulateRequest, _Mapping]] = ..., decapsulate: _Optional[_Union[DecapsulateRequest, _Mapping]] = ..., derive_shared_secret: _Optional[_Union[DeriveSharedSecretRequest, _Mapping]] = ..., generate_random_bytes: _Optional[_Union[GenerateRandomBytesRequest, _Mapping]] = ..., inspect_ciphertext: _Optional[_Union[InspectCiphertextRequest, _Mapping]] = ...) -> None: ...

class CryptoStreamRequest(_message.Message):
    __slots__ = ("operations", "receipts")
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[CryptoOperation]
    receipts: bool
    def __init__(self, operations: _Optional[_Iterable[_Union[CryptoOperation, _Mapping]]] = ..., receipts: bool = ...) -> None: ...

class CryptoResult(_message.Message):
    __slots__ = ("id", "encrypt", "decrypt", "reencrypt", "sign", "verify", "generate_mac", "verify_mac", "wrap_key", "unwrap_key", "generate_data_key", "encapsulate", "decapsulate", "derive_shared_secret", "generate_random_bytes", "inspect_ciphertext", "status", "receipt")
    ID_FIELD_NUMBER: _ClassVar[int]
    ENCRYPT_FIELD_NUMBER: _ClassVar[int]
    DECRYPT_FIELD_NUMBER: _ClassVar[int]
    REENCRYPT_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    VERIFY_FIELD_NUMBER: _ClassVar[int]
    GENERATE_MAC_FIELD_NUMBER: _ClassVar[int]
    VERIFY_MAC_FIELD_NUMBER: _ClassVar[int]
    WRAP_KEY_FIELD_NUMBER: _ClassVar[int]
    UNWRAP_KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATE_DATA_KEY_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATE_FIELD_NUMBER: _ClassVar[int]
    DECAPSULATE_FIELD_NUMBER: _ClassVar[int]
    DERIVE_SHARED_SECRET_FIELD_NUMBER: _ClassVar[int]
    GENERATE_RANDOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    INSPECT_CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    id: int
    encrypt: EncryptResponse
    decrypt: DecryptResponse
    reencrypt: ReEncryptResponse
    sign: SignResponse
    verify: VerifyResponse
    generate_mac: GenerateMacResponse
    verify_mac: VerifyMacResponse
    wrap_key: WrapKeyResponse
    unwrap_key: UnwrapKeyResponse
    generate_data_key: GenerateDataKeyResponse
    encapsulate: EncapsulateResponse
    decapsulate: DecapsulateResponse
    derive_shared_secret: DeriveSharedSecretResponse
    generate_random_bytes: GenerateRandomBytesResponse
    inspect_ciphertext: InspectCiphertextResponse
    status: _status_pb2.Status
    receipt: _resources_pb2.AuditReceipt
    def __init__(self, id: _Optional[int] = ..., encrypt: _Optional[_Union[EncryptResponse, _Mapping]] = ..., decrypt: _Optional[_Union[DecryptResponse, _Mapping]] = ..., reencrypt: _Optional[_Union[ReEncryptResponse, _Mapping]] = ..., sign: _Optional[_Union[SignResponse, _Mapping]] = ..., verify: _Optional[_Union[VerifyResponse, _Mapping]] = ..., generate_mac: _Optional[_Union[GenerateMacResponse, _Mapping]] = ..., verify_mac: _Optional[_Union[VerifyMacResponse, _Mapping]] = ..., wrap_key: _Optional[_Union[WrapKeyResponse, _Mapping]] = ..., unwrap_key: _Optional[_Union[UnwrapKeyResponse, _Mapping]] = ..., generate_data_key: _Optional[_Union[GenerateDataKeyResponse, _Mapping]] = ..., encapsulate: _Optional[_Union[EncapsulateResponse, _Mapping]] = ..., decapsulate: _Optional[_Union[DecapsulateResponse, _Mapping]] = ..., derive_shared_secret: _Optional[_Union[DeriveSharedSecretResponse, _Mapping]] = ..., generate_random_bytes: _Optional[_Union[GenerateRandomBytesResponse, _Mapping]] = ..., inspect_ciphertext: _Optional[_Union[InspectCiphertextResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., receipt: _Optional[_Union[_resources_pb2.AuditReceipt, _Mapping]] = ...) -> None: ...

class CryptoStreamResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[CryptoResult]
    def __init__(self, results: _Optional[_Iterable[_Union[CryptoResult, _Mapping]]] = ...) -> None: ...

class ReEncryptStreamItem(_message.Message):
    __slots__ = ("id", "ciphertext", "associated_data")
    ID_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    ASSOCIATED_DATA_FIELD_NUMBER: _ClassVar[int]
    id: int
    ciphertext: bytes
    associated_data: bytes
    def __init__(self, id: _Optional[int] = ..., ciphertext: _Optional[bytes] = ..., associated_data: _Optional[bytes] = ...) -> None: ...

class ReEncryptStreamRequest(_message.Message):
    __slots__ = ("source_name", "destination_name", "items")
    SOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_NAME_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    source_name: str
    destination_name: str
    items: _containers.RepeatedCompositeFieldContainer[ReEncryptStreamItem]
    def __init__(self, source_name: _Optional[str] = ..., destination_name: _Optional[str] = ..., items: _Optional[_Iterable[_Union[ReEncryptStreamItem, _Mapping]]] = ...) -> None: ...

class ReEncryptStreamResult(_message.Message):
    __slots__ = ("id", "result", "status", "unchanged")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    id: int
    result: ReEncryptResponse
    status: _status_pb2.Status
    unchanged: bool
    def __init__(self, id: _Optional[int] = ..., result: _Optional[_Union[ReEncryptResponse, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., unchanged: bool = ...) -> None: ...

class ReEncryptReport(_message.Message):
    __slots__ = ("moved", "unchanged", "failed", "moved_from", "left", "failures")
    class MovedFromEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class LeftEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class FailuresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MOVED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    MOVED_FROM_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    moved: int
    unchanged: int
    failed: int
    moved_from: _containers.ScalarMap[str, int]
    left: _containers.ScalarMap[str, int]
    failures: _containers.ScalarMap[str, int]
    def __init__(self, moved: _Optional[int] = ..., unchanged: _Optional[int] = ..., failed: _Optional[int] = ..., moved_from: _Optional[_Mapping[str, int]] = ..., left: _Optional[_Mapping[str, int]] = ..., failures: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ReEncryptStreamResponse(_message.Message):
    __slots__ = ("results", "report", "done")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ReEncryptStreamResult]
    report: ReEncryptReport
    done: bool
    def __init__(self, results: _Optional[_Iterable[_Union[ReEncryptStreamResult, _Mapping]]] = ..., report: _Optional[_Union[ReEncryptReport, _Mapping]] = ..., done: bool = ...) -> None: ...
