"""Health and reflection over the wire, with the stubs that everybody uses."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from wire import GENEROUS

from harness import running_server
from vaultd.interceptors.chain import NOBODY
from vaultd.services.context import Context
from vaultd.services.health import COMPONENTS, HealthBoard, HealthService
from vaultd_client.v1 import admin_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVICES = ["vaultd.v1.AdminService", "vaultd.v1.CryptoService", "vaultd.v1.KeysService", "vaultd.v1.SecretsService"]
NAMES = ["", "storage", "audit", "seal", *SERVICES]
REFLECTION = {
    version: f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory):
    async with running_server(tmp_path_factory.mktemp("health"), **GENEROUS) as running:
        yield running


def health(channel) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(channel)


async def check(channel, name: str) -> int:
    return (await health(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=60)).status


async def reflect(channel, path: str, *requests) -> list:
    """Ask on one stream; the answers."""
    stream = channel.stream_stream(
        path,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [answer async for answer in stream(iter(requests), timeout=60)]


@pytest.mark.parametrize("name", NAMES)
async def test_everything_serves_on_a_server_that_serves(server, name):
    assert await check(server.admin.channel, name) == SERVING


async def test_health_answers_an_identity_that_may_do_nothing_else(server):
    assert await check(server.add_identity("stranger", uri="spiffe://dev.vaultd/stranger").channel, "") == SERVING


@pytest.mark.parametrize("name", ["nothing", "Storage", "vaultd.v1.CertificatesService", "hsm"])
async def test_an_unknown_name_is_not_found_by_check(server, name):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await check(server.admin.channel, name)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert name not in refused.value.details()


async def test_a_name_of_more_than_256_characters_is_refused(server):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await check(server.admin.channel, "a" * 257)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_watch_tells_the_present_state_first(server):
    watch = health(server.admin.channel).Watch(health_pb2.HealthCheckRequest(service="storage"), timeout=60)
    assert (await watch.read()).status == SERVING
    watch.cancel()


async def test_watch_of_an_unknown_name_says_so_and_goes_on(server):
    watch = health(server.admin.channel).Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=60)
    assert (await watch.read()).status == SERVICE_UNKNOWN
    assert not watch.done()
    watch.cancel()


@pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x05ab"])
async def test_a_malformed_health_request_is_refused_with_a_clear_status(server, body):
    for path in ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"):
        with pytest.raises(grpc.aio.AioRpcError, match="not a valid encoding") as refused:
            [answer async for answer in server.admin.channel.unary_stream(path)(body, timeout=60)]
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_sealed_server_is_not_serving_though_its_storage_is(tmp_path):
    async with running_server(tmp_path, initialize=False, **GENEROUS) as empty:
        channel = empty.admin.channel
        states = {name: await check(channel, name) for name in NAMES}
    serving = {name for name, state in states.items() if state == SERVING}
    assert serving == {"storage", "audit"}


async def test_watch_sees_the_server_become_ready(tmp_path):
    async with running_server(tmp_path, initialize=False, **GENEROUS) as empty:
        watch = health(empty.admin.channel).Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
        seen = [(await watch.read()).status]
        await empty.admin.admin.Init(admin_pb2.InitRequest(admin_principals=["spiffe://dev.vaultd/admin"]))
        seen.append((await watch.read()).status)
        watch.cancel()
    assert seen == [NOT_SERVING, SERVING]


async def test_a_server_that_drains_says_so_to_watchers_before_it_goes(tmp_path):
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(running_server(tmp_path, **GENEROUS))
        channel = await stack.enter_async_context(running.channel("app"))
        watch = health(channel).Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
        seen = [(await watch.read()).status]
        running.server.board.drain()
        seen.append((await watch.read()).status)
        during = {name: await check(channel, name) for name in NAMES}
        watch.cancel()
    assert seen == [SERVING, NOT_SERVING]
    assert set(during.values()) == {NOT_SERVING}


async def test_watchers_hear_of_a_shutdown_and_a_call_under_way_ends_well(tmp_path):
    stack = AsyncExitStack()
    running = await stack.enter_async_context(running_server(tmp_path, **GENEROUS))
    channel = running.channel("app")
    watch = health(channel).Watch(health_pb2.HealthCheckRequest(service=""), timeout=60)
    first = (await watch.read()).status
    closing = asyncio.create_task(stack.aclose())
    second = (await watch.read()).status
    watch.cancel()
    await closing
    await channel.close()
    assert (first, second) == (SERVING, NOT_SERVING)


@pytest.mark.parametrize("version", REFLECTION)
async def test_reflection_lists_the_services(server, version):
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = await reflect(server.admin.channel, REFLECTION[version], request)
    names = {service.name for service in answer.list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("version", REFLECTION)
@pytest.mark.parametrize("symbol", [*SERVICES, "vaultd.v1.EncryptRequest", "vaultd.v1.CryptoService.Encrypt"])
async def test_reflection_gives_the_file_of_a_symbol_and_all_that_it_imports(server, version, symbol):
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    (answer,) = await reflect(server.admin.channel, REFLECTION[version], request)
    raw = answer.file_descriptor_response.file_descriptor_proto
    files = [FileDescriptorProto.FromString(one) for one in raw]
    given = {file.name for file in files}
    assert {name for file in files for name in file.dependency} <= given
    assert any(name.startswith("vaultd/v1/") for name in given)


@pytest.mark.parametrize("version", REFLECTION)
async def test_reflection_answers_many_questions_on_one_stream_in_order(server, version):
    questions = [
        reflection_pb2.ServerReflectionRequest(file_by_filename="vaultd/v1/crypto.proto"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="vaultd.v1.Nothing"),
        reflection_pb2.ServerReflectionRequest(list_services=""),
    ]
    answers = await reflect(server.admin.channel, REFLECTION[version], *questions)
    kinds = [answer.WhichOneof("message_response") for answer in answers]
    assert kinds == ["file_descriptor_response", "error_response", "list_services_response"]
    assert answers[1].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("version", REFLECTION)
async def test_reflection_is_not_there_when_it_is_off(tmp_path, version):
    async with running_server(tmp_path, reflection=False, **GENEROUS) as quiet:
        stream = quiet.admin.channel.stream_stream(REFLECTION[version])(timeout=60)
        code = await stream.code()
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_change_while_an_answer_is_on_its_way_is_told_next():
    board = HealthBoard(SERVICES)
    for component in COMPONENTS:
        board.set(component, True)

    async def requests():
        yield health_pb2.HealthCheckRequest()

    told = HealthService(board).Watch(requests(), Context(NOBODY, "Watch", None))
    assert (await anext(told)).status == SERVING
    board.drain()  # the client has not asked for more yet
    assert (await anext(told)).status == NOT_SERVING
    with pytest.raises(StopAsyncIteration):
        await anext(told)
