"""CryptoStream and ReEncryptStream: their messages taken apart into single requests, and results put together."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vaultd.errors import InvalidArgument, VaultdError
from vaultd_client.v1 import crypto_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vaultd.services.context import Context
    from vaultd.services.encoding import Encoded

    Stale = Callable[[Sequence[Any], Context], Awaitable[list[Encoded | VaultdError]]]

MAX_OPERATIONS: Final = 1_000
ANSWER_BYTES: Final = 1024
"""What an answer has at most beside what comes out of its request: names, codes, a receipt or a status."""
_SIGNATURE_BYTES: Final = 5 * 1024
_MAX_RANDOM_BYTES: Final = 65_536
_MAX_DATA_KEYS: Final = 100
_MAX_DATA_KEY_BYTES: Final = 1024
_REENCRYPT: Final = "/vaultd.v1.CryptoService/ReEncrypt"
_METHODS: Final = {
    field.name: f"/vaultd.v1.CryptoService/{field.message_type.name.removesuffix('Request')}"
    for field in pb.CryptoOperation.DESCRIPTOR.oneofs_by_name["request"].fields
    if field.message_type is not None
}


class Operation(NamedTuple):
    """One single request of a stream.

    method: the full method of its single call, empty for one that this server does not know.  size: bytes that it came in.
    receipt: whether its result carries the receipt of its record.  answer: bytes that its result has at most.
    """

    id: int
    method: str
    request: Any
    size: int
    receipt: bool
    answer: int


def answer_bytes(request: Any, size: int) -> int:
    """How large the result of a request of so many bytes can be; the request was not validated, and its numbers may be anything."""
    if isinstance(request, pb.GenerateRandomBytesRequest):
        return ANSWER_BYTES + min(max(request.length_bytes, 0), _MAX_RANDOM_BYTES)
    if isinstance(request, pb.GenerateDataKeyRequest):
        count = min(max(request.count, 1), _MAX_DATA_KEYS)
        length = min(request.length_bytes, _MAX_DATA_KEY_BYTES) if request.length_bytes > 0 else 32
        return ANSWER_BYTES + count * (2 * length + 128)  # in the clear and wrapped
    if isinstance(request, pb.SignRequest):
        return ANSWER_BYTES + _SIGNATURE_BYTES
    return ANSWER_BYTES + size


def _check_count(count: int, field: str) -> None:
    if not 1 <= count <= MAX_OPERATIONS:
        raise InvalidArgument("BATCH_SIZE", f"{field} must be 1 to {MAX_OPERATIONS}", field=field)


class CryptoSession:
    """One CryptoStream."""

    def read(self, message: pb.CryptoStreamRequest) -> list[Operation]:
        """The operations; raises InvalidArgument for none, and for too many."""
        _check_count(len(message.operations), "operations")
        receipts = message.receipts
        read = []
        for operation in message.operations:
            kind = operation.WhichOneof("request")
            size = operation.ByteSize()
            if kind is None:
                read.append(Operation(operation.id, "", None, size, receipts, ANSWER_BYTES))
            else:
                request = getattr(operation, kind)
                answer = answer_bytes(request, size)
                read.append(Operation(operation.id, _METHODS[kind], request, size, receipts, answer))
        return read

    def response(self) -> pb.CryptoStreamResponse:
        return pb.CryptoStreamResponse()

    def slot(self, response: pb.CryptoStreamResponse, operation: Operation) -> tuple[Any, Any]:
        slot = response.results.add(id=operation.id)
        return slot, getattr(slot, _FIELDS.get(operation.method, "status"))

    def serving(self, method: str) -> None:
        del method

    def finish(self, response: Any, ended: Sequence[tuple[Any, VaultdError | None]]) -> None:
        del response, ended

    def last(self) -> bytes:
        return b""


_FIELDS: Final = {method: field for field, method in _METHODS.items()}


class ReEncryptSession:
    """One ReEncryptStream: the names of its keys, and the counts of its report.

    `stale` re-encrypts what is not on the newest version.  `version_of` names the version in a ciphertext's header, or nothing.
    """

    def __init__(self, stale: Stale, version_of: Callable[[str, bytes], Awaitable[str]]) -> None:
        self._stale = stale
        self._version_of = version_of
        self._source = ""
        self._destination = ""
        self._left_on: dict[int, str] = {}
        self._report = pb.ReEncryptReport()
        self._counted: Counter[str] = Counter()

    def read(self, message: pb.ReEncryptStreamRequest) -> list[Operation]:
        """The items as requests of ReEncrypt; raises InvalidArgument."""
        _check_count(len(message.items), "items")
        if message.source_name and message.source_name != self._source:
            self._source, self._destination = message.source_name, message.source_name
        if message.destination_name:
            self._destination = message.destination_name
        if not self._source:
            raise InvalidArgument(
                "SOURCE_MISSING", "source_name is missing: the first message names the key", field="source_name"
            )
        read = []
        for item in message.items:
            request = pb.ReEncryptRequest(
                source_name=self._source,
                ciphertext=item.ciphertext,
                source_associated_data=item.associated_data,
                destination_name=self._destination,
                destination_associated_data=item.associated_data,
            )
            size = item.ByteSize()
            read.append(Operation(item.id, _REENCRYPT, request, size, False, answer_bytes(request, size)))
        return read

    def response(self) -> pb.ReEncryptStreamResponse:
        return pb.ReEncryptStreamResponse()

    def slot(self, response: pb.ReEncryptStreamResponse, operation: Operation) -> tuple[Any, Any]:
        slot = response.results.add(id=operation.id)
        return slot, slot.result

    def serving(self, method: str) -> Any:
        del method
        return self._serve

    async def _serve(self, requests: Sequence[Any], context: Context) -> list[Encoded | VaultdError]:
        outcomes = await self._stale(requests, context)
        for request, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, VaultdError):
                version = await self._version_of(request.source_name, request.ciphertext)
                if version:
                    self._report.left[version] += 1
        return outcomes

    def finish(self, response: pb.ReEncryptStreamResponse, ended: Sequence[tuple[Any, VaultdError | None]]) -> None:
        report = self._report
        for slot, error in ended:
            if error is not None:
                report.failed += 1
                report.failures[error.reason] += 1
            elif slot.result.ciphertext:
                report.moved += 1
                report.moved_from[slot.result.source_key_version] += 1
            else:
                slot.unchanged = True
                report.unchanged += 1
        response.report.CopyFrom(report)

    def last(self) -> bytes:
        return pb.ReEncryptStreamResponse(report=self._report, done=True).SerializeToString()
