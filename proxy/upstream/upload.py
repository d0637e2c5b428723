"""Sending a body that streams through: one part is read ahead while the one before goes out."""

import asyncio
from math import inf

from penstock.core.plan import PlannedTarget
from penstock.ext import splice
from penstock.proxy.exchange import ClientLeft, Exchange
from penstock.proxy.inbound import Upload
from penstock.proxy.sockets import find_client, is_open
from penstock.proxy.upstream.connection import Connection

# A client that leaves must be noticed within 100 ms.
LOOK_S = 0.03


async def send_upload(
    target: PlannedTarget, exchange: Exchange, upload: Upload, start: bytes, connection: Connection
) -> None:
    """Send head and body; returns when all is sent, or as soon as the backend answers before that."""
    prefix, length = _renamed(target, upload, exchange.head.content_length)
    upload.begun = connection.sending = True
    connection.send(exchange.head.encode(start, -2 if length is None else length))
    connection.await_room(inf)
    ahead = _read_ahead(exchange, upload)
    try:
        part = prefix
        while True:
            if part:
                await _write(connection, _chunk(part) if length is None else part, exchange, target)
            await _part_or_answer(ahead, connection)
            if connection.answered and (connection.full or exchange.body_open or (ahead.done() and ahead.result())):
                # It has decided without the rest. What still comes is dropped while the answer goes back.
                exchange.body_read()
                return
            if not (part := await ahead):
                break
            ahead = _read_ahead(exchange, upload)
    finally:
        ahead.cancel()
    if length is None:
        connection.write(b"0\r\n\r\n")
    connection.sending = False
    connection.await_answer(exchange.now() + target.upstream.timeouts.first_byte_s)


async def _part_or_answer(ahead: asyncio.Task[bytes], connection: Connection) -> None:
    """Wait for more of the body or for the backend's answer, whichever comes first. Raises BackendError."""
    while not ahead.done() and not connection.answered:
        news = connection.news()
        await asyncio.wait((ahead, news), return_when=asyncio.FIRST_COMPLETED)
        if news.done():
            news.result()


async def _write(connection: Connection, data: bytes, exchange: Exchange, target: PlannedTarget) -> None:
    connection.write(data)
    if connection.full and not connection.answered:
        # Only the backend's slowness counts as such; how slowly the client sends is `server.receive_s`.
        connection.await_room(exchange.now() + target.upstream.timeouts.send_s)
        await _drain(connection, exchange)
        connection.await_room(inf)
    else:
        await connection.drain()  # at once; raises if the backend has failed


async def _drain(connection: Connection, exchange: Exchange) -> None:
    """Wait for the backend to take more; meanwhile nobody reads from the client, so its socket is asked."""
    guard = asyncio.get_running_loop().create_task(_leave_when_gone(exchange))
    try:
        await connection.drain()
    finally:
        guard.cancel()


async def _leave_when_gone(exchange: Exchange) -> None:
    await asyncio.sleep(LOOK_S)
    client = find_client(exchange.scope)
    if client is None:
        return  # not a TCP socket of this process: nothing can be asked
    with client:
        while is_open(client):  # noqa: ASYNC110 - with bytes unread, the kernel sends no event for it
            await asyncio.sleep(LOOK_S)
    exchange.leave()


def _renamed(target: PlannedTarget, upload: Upload, length: int | None) -> tuple[bytes, int | None]:
    """The first part and the length of the body, with the target's name for the model in it."""
    if target.rename is None or upload.model_span is None:
        return upload.prefix, length
    name = target.rename.encode()
    prefix = splice(upload.prefix, [(*upload.model_span, name)])
    return prefix, None if length is None else length + len(prefix) - len(upload.prefix)


def _chunk(data: bytes) -> bytes:
    """One chunk of the chunked coding (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _read_ahead(exchange: Exchange, upload: Upload) -> asyncio.Task[bytes]:
    async def part() -> bytes:
        try:
            return await upload.next()
        except ClientLeft:
            # The owner may be waiting for the backend; tell it there.
            exchange.leave()
            raise

    task = asyncio.get_running_loop().create_task(part())
    task.add_done_callback(_retrieve)
    return task


def _retrieve(task: asyncio.Task[bytes]) -> None:
    """A read-ahead nobody waits for any more may fail; that is no news."""
    if not task.cancelled():
        task.exception()
