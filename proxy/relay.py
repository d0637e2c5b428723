"""Carry a backend's answer to the client, byte for byte, as it comes.

A model's whole (not streamed) answer is held until it is complete, so that a backend that fails half way is still a
clean error. Everything else goes on chunk by chunk: sent first, then scanned. While the client is slow, nothing is
read from the backend.
"""

from collections.abc import Coroutine
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

# A whole answer above this is not held: it goes on as it comes.
HOLD_BYTES = 16_777_216


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
    flags = 0
    await exchange.start(reply.head.status, exchange.outgoing(reply.head.headers))
    try:
        while True:
            body = await connection.read()
            if connection.complete:
                break
            await exchange.write(body)
            flags = scanner.feed(body)
        scanner.feed(body)
        flags = scanner.finish()
    except BackendError as error:
        # After the end mark the reply is whole, whatever becomes of the connection.
        if not flags & REPLY_COMPLETE:
            await cut(exchange, error, told=bool(flags & REPLY_ERROR))
            return
        body = b""
    finally:
        exchange.usage = scanner.usage
    if flags & REPLY_COMPLETE:
        await exchange.finish(body)
        return
    await exchange.write(body)
    early = IncompleteReply("the backend ended the stream before the reply was complete", phase="body")
    await cut(exchange, early, told=bool(flags & REPLY_ERROR))


async def _opaque(reply: Reply, exchange: Exchange) -> None:
    """Anything else: files, audio, errors of the backend's. Framing alone says where it ends."""
    connection = reply.connection
    await exchange.start(reply.head.status, exchange.outgoing(reply.head.headers))
    try:
        while True:
            body = await connection.read()
            if connection.complete:
                break
            await exchange.write(body)
    except BackendError as error:
        await cut(exchange, error)
    else:
        await exchange.finish(body)
