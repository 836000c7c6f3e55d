"""Server reflection, v1 and v1alpha, of the services that are served.  Both versions have the same messages on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

    from vaultd.services.context import Context

_NOT_FOUND = 5


def _name_fields(message: DescriptorProto) -> None:
    """Fill in the JSON names, which descriptors in memory leave out: without them clients print snake_case."""
    for field in message.field:
        first, *others = field.name.split("_")
        field.json_name = first + "".join(word.capitalize() for word in others)
    for nested in message.nested_type:
        _name_fields(nested)


class ReflectionService:
    """Answers with the descriptors of these services and of what they import, and of nothing else in the process."""

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        self._services = sorted(service.full_name for service in services)
        self._files: dict[str, FileDescriptor] = {}
        self._symbols: dict[str, FileDescriptor] = {}
        for service in services:
            self._learn(service.file)
        self._learn(error_details_pb2.DESCRIPTOR)  # so that clients can show the details of our errors

    def _learn(self, file: FileDescriptor) -> None:
        if file.name in self._files:
            return
        self._files[file.name] = file
        for service in file.services_by_name.values():
            self._symbols[service.full_name] = file
            self._symbols.update((method.full_name, file) for method in service.methods)
        for message in file.message_types_by_name.values():
            self._learn_message(message, file)
        self._symbols.update((enum.full_name, file) for enum in file.enum_types_by_name.values())
        for dependency in file.dependencies:
            self._learn(dependency)

    def _learn_message(self, message: object, file: FileDescriptor) -> None:
        self._symbols[message.full_name] = file  # type: ignore[attr-defined]  # a message Descriptor
        for nested in message.nested_types:  # type: ignore[attr-defined]  # a message Descriptor
            self._learn_message(nested, file)

    def _answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        response = pb.ServerReflectionResponse(valid_host=request.host)
        response.original_request.CopyFrom(request)
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                response.list_services_response.service.add(name=name)
            return response
        file = None
        if kind == "file_by_filename":
            file = self._files.get(request.file_by_filename)
        elif kind == "file_containing_symbol":
            file = self._symbols.get(request.file_containing_symbol)
        if file is None:
            response.error_response.error_code = _NOT_FOUND
            response.error_response.error_message = "not found"
            return response
        response.file_descriptor_response.file_descriptor_proto.extend(self._closure(file))
        return response

    @staticmethod
    def _closure(file: FileDescriptor) -> list[bytes]:
        """The file and all that it imports, each once."""
        seen: dict[str, bytes] = {}

        def visit(one: FileDescriptor) -> None:
            if one.name not in seen:
                proto = FileDescriptorProto()
                one.CopyToProto(proto)
                for message in proto.message_type:
                    _name_fields(message)
                seen[one.name] = proto.SerializeToString()
                for dependency in one.dependencies:
                    visit(dependency)

        visit(file)
        return list(seen.values())

    async def ServerReflectionInfo(
        self, requests: AsyncIterator[pb.ServerReflectionRequest], context: Context
    ) -> AsyncIterator[pb.ServerReflectionResponse]:
        del context
        async for request in requests:
            yield self._answer(request)
