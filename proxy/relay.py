"""Carry a backend's answer to the client, byte for byte, as it comes.

A model's whole (not streamed) answer is here already (`upstream/attempt.py` holds it). Everything else goes on chunk by
chunk: sent first, then scanned. While the client is slow, nothing is read from the backend.
"""

from collections.abc import Awaitable, Generator, Iterator
from time import perf_counter
from types import coroutine
from typing import Any

from penstock.core.endpoint import Endpoint
from penstock.core.errors import BackendError, IncompleteReply
from penstock.ext import (
    DIALECT_CHAT,
    DIALECT_RESPONSES,
    MEDIA_EVENT_STREAM,
    MEDIA_JSON,
    MEDIA_NDJSON,
    REPLY_COMPLETE,
    REPLY_ERROR,
    ReplyScanner,
    ResponseHead,
    Usage,
    UsageRemover,
    scan_answer,
)
from penstock.proxy.decoding import decoded
from penstock.proxy.exchange import Exchange
from penstock.proxy.heartbeat import instead_of_stream
from penstock.proxy.reply import cut
from penstock.proxy.upstream.attempt import Reply
from penstock.proxy.upstream.connection import Connection

# Image answers carry the images; their usage stands at the end.
COPY_BYTES = 16_777_216
DONE = object()  # an awaitable's first step was its last


def relay(reply: Reply, exchange: Exchange, endpoint: Endpoint) -> Awaitable[None]:
    """Send the whole of `reply` on, in the way its kind asks for, and give its connection back."""
    head = reply.head
    media = head.media
    dialect = endpoint.dialect
    streams = media == MEDIA_EVENT_STREAM and head.status == 200 and not head.encoded
    if exchange.heartbeat is not None and not streams:
        exchange.heartbeat.stop()
        if exchange.heartbeat.begun:
            return instead_of_stream(reply, exchange)
    exchange.media = media
    if reply.connection is None:
        exchange.answer_bytes = len(reply.body)
        sent = exchange.answer(head, reply.body) if exchange.method != "HEAD" else None
        return sent or _whole(reply, exchange)
    if dialect is not None and (streams or (media == MEDIA_NDJSON and head.status == 200 and not head.encoded)):
        return _stream(reply, reply.connection, exchange, ReplyScanner(dialect))
    copied = media == MEDIA_JSON and dialect is None and head.status == 200 and exchange.entry is not None
    return _opaque(reply, reply.connection, exchange, Copy() if copied else None)


async def _whole(reply: Reply, exchange: Exchange) -> None:
    """An answer that is here already, where `exchange.answer` cannot send it."""
    await exchange.start(reply.head.status, exchange.outgoing(reply.head))
    await exchange.finish(reply.body)


async def _stream(reply: Reply, connection: Connection, exchange: Exchange, scanner: ReplyScanner) -> None:
    """A model's stream. Its end is the dialect's end mark, not the end of the body."""
    remover = UsageRemover() if exchange.asked_usage else None
    outlet = Outlet(exchange, scanner, remover)
    try:
        await _begin_stream(reply, exchange, remover)
        try:
            last = await _all_but_the_last(connection, outlet)
            scanner.feed(last)
            scanner.finish()
            if remover is not None:
                last = remover.feed(last) + remover.finish()
        except BackendError as error:
            # After the end mark the reply is whole, whatever becomes of the connection.
            if not scanner.flags & REPLY_COMPLETE:
                await cut(exchange, error, told=bool(scanner.flags & REPLY_ERROR))
                return
            last = b""
        finally:
            exchange.usage, exchange.finish_reason = scanner.usage, scanner.finish_reason
            exchange.stream_lines = scanner.lines
        if scanner.flags & REPLY_COMPLETE:
            await exchange.finish(last)
            return
        await exchange.write(last)
        early = IncompleteReply("the backend ended the stream before the reply was complete", phase="body")
        await cut(exchange, early, told=bool(scanner.flags & REPLY_ERROR))
    finally:
        reply.pool.release(connection)


def _begin_stream(reply: Reply, exchange: Exchange, remover: UsageRemover | None) -> Awaitable[None]:
    if exchange.answering:  # a heartbeat took the head with it
        exchange.first_byte = perf_counter()
        return exchange.write(b"")
    headers = exchange.outgoing(reply.head)
    if remover is not None or exchange.heartbeat is not None:  # the length would be another
        headers = [line for line in headers if line[0] != b"content-length"]
    return exchange.start(reply.head.status, headers)


async def _opaque(reply: Reply, connection: Connection, exchange: Exchange, copy: "Copy | None") -> None:
    """Anything else: files, audio, errors of the backend's. Framing alone says where it ends."""
    try:
        await exchange.start(reply.head.status, exchange.outgoing(reply.head))
        try:
            if reply.body:  # what was held of it, before it became too much
                await exchange.write(reply.body)
            last = await _all_but_the_last(connection, Outlet(exchange, copy, None))
            if copy is not None:
                copy.feed(last)
                exchange.usage = copy.usage(reply.head)
        except BackendError as error:
            await cut(exchange, error)
        else:
            await exchange.finish(last)
    finally:
        reply.pool.release(connection)


class Copy:
    """A JSON answer of a kind that is not a chat (images, transcripts, rankings), kept to read its usage at the end."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= COPY_BYTES:
            self._parts.append(body)

    def usage(self, head: ResponseHead) -> Usage | None:
        """What it says of tokens and seconds; images and audio say it as /v1/responses does."""
        text = decoded(b"".join(self._parts), head.headers) if self._size <= COPY_BYTES else None
        for dialect in (DIALECT_CHAT, DIALECT_RESPONSES) if text else ():
            answer = scan_answer(text or b"", dialect)
            if answer is not None and answer.usage is not None:
                return answer.usage
        return None


async def _all_but_the_last(connection: Connection, outlet: "Outlet") -> bytes:
    """Send the body on as it comes; its last part is returned, to be sent with the end of the answer."""
    while True:
        body = connection.take()
        if connection.complete:
            return body
        if body:
            outlet.push(body)
        await outlet.flush()
        await connection.pushed(outlet.push)
        await outlet.flush()


class Outlet:
    """The way to the client: sends at once, from whatever callback it is called in, and scans what was sent.

    `send` of ASGI gives an awaitable; as a rule it is done at its first step, and then no task needs to wait for it.
    Where it is not (the client is slow), `push` says False and `flush` is what finishes it.
    remover: takes the usage out again that the client did not ask for.
    """

    __slots__ = ("_failure", "_heartbeat", "_remover", "_scanner", "_send", "_unfinished")

    def __init__(self, exchange: Exchange, scanner: ReplyScanner | Copy | None, remover: UsageRemover | None) -> None:
        self._send = exchange.send
        self._scanner = scanner
        self._remover = remover
        self._heartbeat = exchange.heartbeat
        self._unfinished: tuple[Iterator[Any], Any] | None = None
        self._failure: Exception | None = None

    def push(self, body: bytes) -> bool:
        """Send; False if the client has to be waited for before more is sent."""
        waits_for: Any = DONE
        read = body
        if self._remover is not None:
            body = self._remover.feed(body)
            if not body:
                self._scan(read)
                return True
        try:
            steps = self._send({"type": "http.response.body", "body": body, "more_body": True}).__await__()
            waits_for = next(steps, DONE)
        except Exception as error:  # noqa: BLE001 - the caller is the event loop; `flush` raises it in the task
            self._failure = error
            return False
        self._scan(read)
        if self._heartbeat is not None:
            self._heartbeat.passed(body)
        if waits_for is DONE:
            return True
        self._unfinished = (steps, waits_for)
        return False

    def _scan(self, body: bytes) -> None:
        if self._scanner is not None:
            self._scanner.feed(body)

    async def flush(self) -> None:
        """Wait until the client has taken what was pushed."""
        if self._unfinished is not None:
            unfinished, self._unfinished = self._unfinished, None
            await _rest_of(*unfinished)
        if self._failure is not None:
            raise self._failure


@coroutine
def _rest_of(steps: Iterator[Any], waits_for: Any) -> Generator[Any, Any, None]:
    """Go on with an awaitable whose first step has been made and said what it waits for."""
    while True:
        yield waits_for
        try:
            waits_for = next(steps)
        except StopIteration:
            return
