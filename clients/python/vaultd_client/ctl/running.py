"""Makes the calls of commands that are made of an RPC, and writes what comes back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from vaultd_client.ctl.calls import send
from vaultd_client.ctl.confirm import confirm
from vaultd_client.ctl.failures import FAILED, fail
from vaultd_client.ctl.output import Printer, is_secret, write_bytes
from vaultd_client.ctl.repeating import fresh_request_id, repeatable
from vaultd_client.errors import VaultdError
from vaultd_client.generated import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from vaultd_client.ctl.rpc_commands import RpcCommand
    from vaultd_client.ctl.session import Session
    from vaultd_client.method import Method

MAX_PAGE: Final = 1_000
BATCH_ITEMS: Final = 1_000
BATCH_BYTES: Final = 3_000_000


def method_of(snake: str) -> Method[Any, Any]:
    """The record of an RPC, by the name of the SDK's method."""
    found: Method[Any, Any] = getattr(table, snake.upper())
    return found


def parse(document: Any, message: type[Message]) -> Message:
    """A message from its proto JSON.  Raises Refused."""
    from google.protobuf.json_format import ParseDict, ParseError

    try:
        return ParseDict(document, message())
    except ParseError as error:
        fail(f"this is no {message.DESCRIPTOR.name}: {error}")


def fields_said(said: dict[str, Any]) -> list[str]:
    """What --fields says."""
    return [name.strip() for name in (said.get("fields") or "").split(",") if name.strip()]


class Run:
    """One run of a command."""

    def __init__(self, session: Session, command: RpcCommand, said: dict[str, Any]) -> None:
        self._session = session
        self._command = command
        self._rpc = command.rpc
        self._verb = command.verb
        self._said = said
        self._method = method_of(self._rpc.snake)
        self._printer = Printer(session.output, fields_said(said), reveal=bool(said.get("reveal")))

    def go(self) -> None:
        """Make the call, or calls, and write the answer.  Raises VaultdError, Refused."""
        if self._session.output == "raw" and not self._verb.raw:
            raise click.UsageError(f"{self._verb.command} has no bytes as its answer: --output table, json or yaml")
        if self._command.takes_items:
            self._batch()
        elif self._rpc.client_streaming:
            self._stream()
        else:
            self._single()

    def _single(self) -> None:
        document = self._command.request(self._session, self._said)
        if self._method.has_request_id:
            document.setdefault("request_id", fresh_request_id())
        request = parse(document, self._method.request)
        if self._verb.loses:
            question = self._verb.loses.format(name=self._said.get("named"), **_texts(document))
            confirm(f"{question} Go on?", yes=self._said["yes"])
        client = self._session.client()
        if self._command.lists_pages:
            self._printer.message(self._pages(request))
            return
        request_id = document.get("request_id")
        with repeatable(f"--request-id {request_id}" if request_id else ""):
            answer = send(client, self._rpc.snake, request)
        if self._rpc.server_streaming:
            for one in answer:
                self._printer.line(one)
            return
        self._write(answer)
        if self._verb.no_if_false and not getattr(answer, self._verb.no_if_false):
            click.get_current_context().exit(FAILED)

    def _pages(self, request: Any) -> Message:
        """All pages as one, or as many of them as hold so many items."""
        limit, whole, listed = self._said["limit"], None, ""
        while True:
            left = MAX_PAGE if limit is None or whole is None else limit - len(getattr(whole, listed))
            request.page_size = min(MAX_PAGE, limit if whole is None and limit else left)
            page = send(self._session.client(), self._rpc.snake, request)
            if whole is None:
                whole, listed = page, _listed_in(page)
            else:
                getattr(whole, listed).extend(getattr(page, listed))
                whole.next_page_token = page.next_page_token
            request.page_token = whole.next_page_token
            if not whole.next_page_token or (limit is not None and len(getattr(whole, listed)) >= limit):
                found: Message = whole
                return found

    def _write(self, answer: Any) -> None:
        raw, out = self._verb.raw, self._said.get("out")
        form = self._session.output
        if raw and (out is not None or form == "raw" or (form is None and self._prefers_bytes(raw))):
            value = getattr(answer, raw)
            write_bytes(value.encode() if isinstance(value, str) else value, out, secret=is_secret(raw))
        elif answer.DESCRIPTOR.fields or self._printer.form != "table":
            self._printer.message(answer)

    def _prefers_bytes(self, raw: str) -> bool:
        """Without --output: the bytes themselves, but for ciphertexts and the like on a terminal."""
        if self._said.get("fields") or self._said.get("reveal"):
            return False
        return is_secret(raw) or raw == "pem" or not sys.stdout.isatty()

    def _batch(self) -> None:
        """JSON lines in, in as many calls as it takes; JSON lines out.  Exit code 1 when an item failed."""
        failed = 0
        for items in self._chunks():
            answer = send(self._session.client(), self._rpc.snake, self._method.request(items=items))
            for result in answer.results:
                failed += result.WhichOneof("outcome") == "status"
                Printer("json").line(result)
        if failed:
            fail(f"{failed} items failed", FAILED)

    def _chunks(self) -> Iterator[list[Any]]:
        from google.protobuf.message_factory import GetMessageClass

        from vaultd_client.ctl.rpc_commands import read_lines

        item = GetMessageClass(self._method.request.DESCRIPTOR.fields_by_name["items"].message_type)
        chunk: list[Any] = []
        size = 0
        for document in read_lines(self._said["file"]):
            message = parse(document, item)
            bytes_more = message.ByteSize() + 8
            if chunk and (len(chunk) >= BATCH_ITEMS or size + bytes_more > BATCH_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append(message)
            size += bytes_more
        if chunk:
            yield chunk

    def _stream(self) -> None:
        from vaultd_client.ctl.rpc_commands import read_lines

        trouble: list[Exception] = []

        def requests() -> Iterator[Message]:
            try:
                for document in read_lines(self._said["file"]):
                    yield parse(document, self._method.request)
            except Exception as error:  # gRPC asks for requests in a thread of its own, and keeps errors to itself
                trouble.append(error)
                raise

        try:
            for answer in getattr(self._session.client(), self._rpc.snake)(requests()):
                Printer("json").line(answer)
        except VaultdError as error:
            raise trouble[0] if trouble else error from None


def _listed_in(page: Any) -> str:
    return str(
        next(field.name for field in page.DESCRIPTOR.fields if field.is_repeated and field.message_type is not None)
    )


def _texts(document: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in document.items() if isinstance(value, str) and name != "name"}
