"""Carry a backend's answer to the client, byte for byte, as it comes.

A model's whole (not streamed) answer is held until it is complete, so that a backend that fails half way is still a
clean error. Everything else goes on chunk by chunk: sent first, then scanned. While the client is slow, nothing is
read from the backend.
"""

from collections.abc import Coroutine, Generator, Iterator
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
from penstock.proxy.reply import cut
from penstock.proxy.upstream.attempt import Reply
from penstock.proxy.upstream.connection import Connection

# A whole answer above this is not held: it goes on as it comes.
HOLD_BYTES = 16_777_216
# Image answers carry the images; their usage stands at the end.
COPY_BYTES = 16_777_216
DONE = object()  # an awaitable's first step was its last


def relay(reply: Reply, exchange: Exchange, endpoint: Endpoint) -> Coroutine[Any, Any, None]:
    """Send the whole of `reply` on, in the way its kind asks for."""
    head = reply.head
    exchange.media = media = head.media
    dialect = endpoint.dialect
    if head.status != 200:
        return _opaque(reply, exchange, None)
    if media == MEDIA_JSON and (head.content_length or 0) <= HOLD_BYTES:
        if dialect is not None:
            return _whole(reply, exchange, dialect)
        return _opaque(reply, exchange, Copy() if exchange.entry is not None else None)
    if dialect is not None and media in (MEDIA_EVENT_STREAM, MEDIA_NDJSON) and not head.encoded:
        return _stream(reply, exchange, ReplyScanner(dialect))
    return _opaque(reply, exchange, None)


async def _whole(reply: Reply, exchange: Exchange, dialect: int) -> None:
    """A model's answer in one piece: complete, or a failed attempt that the client sees as an error only."""
    connection = reply.connection
    body = connection.take()
    if not connection.complete:
        parts = [body]
        while not connection.complete:
            parts.append(await connection.read())
        body = b"".join(parts)
    text = decoded(body, reply.head.headers) if reply.head.encoded else body
    answer = None if text is None else scan_answer(text, dialect)
    if answer is not None:
        exchange.usage = answer.usage
        if not answer.complete:
            raise IncompleteReply("the backend's answer has no finish_reason: it was cut off", phase="body")
    exchange.answer_bytes = len(body)
    sent = exchange.answer(reply.head, body)
    if sent is not None:
        await sent
        return
    await exchange.start(reply.head.status, exchange.outgoing(reply.head))
    await exchange.finish(body)


async def _stream(reply: Reply, exchange: Exchange, scanner: ReplyScanner) -> None:
    """A model's stream. Its end is the dialect's end mark, not the end of the body."""
    connection = reply.connection
    remover = UsageRemover() if exchange.asked_usage else None
    outlet = Outlet(exchange, scanner, remover)
    headers = exchange.outgoing(reply.head)
    if remover is not None:  # the length would be that with the usage in it
        headers = [line for line in headers if line[0] != b"content-length"]
    await exchange.start(reply.head.status, headers)
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
        exchange.usage = scanner.usage
        exchange.stream_lines = scanner.lines
    if scanner.flags & REPLY_COMPLETE:
        await exchange.finish(last)
        return
    await exchange.write(last)
    early = IncompleteReply("the backend ended the stream before the reply was complete", phase="body")
    await cut(exchange, early, told=bool(scanner.flags & REPLY_ERROR))


async def _opaque(reply: Reply, exchange: Exchange, copy: "Copy | None") -> None:
    """Anything else: files, audio, errors of the backend's. Framing alone says where it ends."""
    await exchange.start(reply.head.status, exchange.outgoing(reply.head))
    try:
        last = await _all_but_the_last(reply.connection, Outlet(exchange, copy, None))
        if copy is not None:
            copy.feed(last)
            exchange.usage = copy.usage(reply.head)
    except BackendError as error:
        await cut(exchange, error)
    else:
        await exchange.finish(last)


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

    __slots__ = ("_failure", "_remover", "_scanner", "_send", "_unfinished")

    def __init__(self, exchange: Exchange, scanner: ReplyScanner | Copy | None, remover: UsageRemover | None) -> None:
        self._send = exchange.send
        self._scanner = scanner
        self._remover = remover
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
