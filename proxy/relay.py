"""Carry a backend's answer to the client, byte for byte, as it comes.

A model's whole (not streamed) answer is held until it is complete, so that a backend that fails half way is still a
clean error. Everything else goes on chunk by chunk: sent first, then scanned. While the client is slow, nothing is
read from the backend.
"""

from collections.abc import Coroutine, Generator, Iterator
from types import coroutine
from typing import Any

from penstock.core.errors import BackendError, IncompleteReply
from penstock.ext import (
    MEDIA_EVENT_STREAM,
    MEDIA_JSON,
    MEDIA_NDJSON,
    REPLY_COMPLETE,
    REPLY_ERROR,
    ReplyScanner,
    scan_answer,
)
from penstock.proxy.exchange import Exchange
from penstock.proxy.reply import cut
from penstock.proxy.upstream.attempt import Reply
from penstock.proxy.upstream.connection import Connection

# A whole answer above this is not held: it goes on as it comes.
HOLD_BYTES = 16_777_216
DONE = object()  # an awaitable's first step was its last


def relay(reply: Reply, exchange: Exchange, dialect: int | None) -> Coroutine[Any, Any, None]:
    """Send the whole of `reply` on, in the way its kind asks for."""
    head = reply.head
    exchange.media = media = head.media
    if dialect is None or head.status != 200 or head.encoded:
        return _opaque(reply, exchange)
    if media in (MEDIA_EVENT_STREAM, MEDIA_NDJSON):
        return _stream(reply, exchange, ReplyScanner(dialect))
    if media == MEDIA_JSON and (head.content_length or 0) <= HOLD_BYTES:
        return _whole(reply, exchange, dialect)
    return _opaque(reply, exchange)


async def _whole(reply: Reply, exchange: Exchange, dialect: int) -> None:
    """A model's answer in one piece: complete, or a failed attempt that the client sees as an error only."""
    connection = reply.connection
    body = connection.take()
    if not connection.complete:
        parts = [body]
        while not connection.complete:
            parts.append(await connection.read())
        body = b"".join(parts)
    answer = scan_answer(body, dialect)
    if answer is not None:
        exchange.usage = answer.usage
        if not answer.complete:
            raise IncompleteReply("the backend's answer has no finish_reason: it was cut off", phase="body")
    await exchange.start(reply.head.status, exchange.outgoing(reply.head.headers))
    await exchange.finish(body)


async def _stream(reply: Reply, exchange: Exchange, scanner: ReplyScanner) -> None:
    """A model's stream. Its end is the dialect's end mark, not the end of the body."""
    connection = reply.connection
    outlet = Outlet(exchange, scanner)
    await exchange.start(reply.head.status, exchange.outgoing(reply.head.headers))
    try:
        last = await _all_but_the_last(connection, outlet)
        scanner.feed(last)
        scanner.finish()
    except BackendError as error:
        # After the end mark the reply is whole, whatever becomes of the connection.
        if not scanner.flags & REPLY_COMPLETE:
            await cut(exchange, error, told=bool(scanner.flags & REPLY_ERROR))
            return
        last = b""
    finally:
        exchange.usage = scanner.usage
    if scanner.flags & REPLY_COMPLETE:
        await exchange.finish(last)
        return
    await exchange.write(last)
    early = IncompleteReply("the backend ended the stream before the reply was complete", phase="body")
    await cut(exchange, early, told=bool(scanner.flags & REPLY_ERROR))


async def _opaque(reply: Reply, exchange: Exchange) -> None:
    """Anything else: files, audio, errors of the backend's. Framing alone says where it ends."""
    await exchange.start(reply.head.status, exchange.outgoing(reply.head.headers))
    try:
        last = await _all_but_the_last(reply.connection, Outlet(exchange, None))
    except BackendError as error:
        await cut(exchange, error)
    else:
        await exchange.finish(last)


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
    """

    __slots__ = ("_failure", "_scanner", "_send", "_unfinished")

    def __init__(self, exchange: Exchange, scanner: ReplyScanner | None) -> None:
        self._send = exchange.send
        self._scanner = scanner
        self._unfinished: tuple[Iterator[Any], Any] | None = None
        self._failure: Exception | None = None

    def push(self, body: bytes) -> bool:
        """Send; False if the client has to be waited for before more is sent."""
        waits_for: Any = DONE
        try:
            steps = self._send({"type": "http.response.body", "body": body, "more_body": True}).__await__()
            waits_for = next(steps, DONE)
        except Exception as error:  # noqa: BLE001 - the caller is the event loop; `flush` raises it in the task
            self._failure = error
            return False
        if self._scanner is not None:
            self._scanner.feed(body)
        if waits_for is DONE:
            return True
        self._unfinished = (steps, waits_for)
        return False

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
