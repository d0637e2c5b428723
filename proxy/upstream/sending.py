"""Sending a request to a target: its own head and body, with what that target needs changed in them."""

from penstock.core.plan import PlannedTarget, Timeouts
from penstock.ext import rewrite
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.connection import Connection
from penstock.proxy.upstream.upload import send_upload

# Below this, head and body go to the socket as one piece of memory; above, copying costs more than a second write.
JOIN_BYTES = 65_536


async def send_slowly(target: PlannedTarget, exchange: Exchange, connection: Connection, start: bytes) -> None:
    """Send a request that may take its time: an upload, or a body the socket may not take at once."""
    if exchange.upload is not None:
        await send_upload(target, exchange, exchange.upload, start, connection)
    else:
        await _send_large(target.upstream.timeouts, exchange, connection, start, changed(target, exchange))


def request(target: PlannedTarget, exchange: Exchange, start: bytes) -> bytes:
    """Head and held body in one piece, with what a target or a limit needs written into the body: the model's name
    there, usage asked for, a cap on output."""
    head, body, peek, cap = exchange.head, exchange.body, exchange.peek, exchange.output_cap
    if peek is not None and (cap or exchange.asked_usage or target.rename_json is not None):
        cap_name = target.cap_name if cap else b""
        return head.encode_changed(
            start, body, peek, target.rename_json, exchange.asked_usage, cap_name, cap, _uncompressed(exchange)
        )
    length = len(body) if body or head.content_length is not None else -1
    return head.encode(start, length, body, _uncompressed(exchange))


def _uncompressed(exchange: Exchange) -> bool:
    """The answer must come as it is: its usage has to be read, or lines of ours are put in."""
    return exchange.asked_usage or exchange.heartbeat is not None


def changed(target: PlannedTarget, exchange: Exchange) -> bytes:
    """The body alone, changed as in `request`."""
    body, peek, cap = exchange.body, exchange.peek, exchange.output_cap
    if peek is None:
        return body
    return rewrite(body, peek, target.rename_json, exchange.asked_usage, target.cap_name if cap else b"", cap)


def request_lines(target: PlannedTarget, exchange: Exchange) -> bytes:
    """Request line and our header lines of one attempt."""
    path = target.upstream.path(exchange.path)
    if exchange.query:
        path = b"%b?%b" % (path, exchange.query)
    return b"%b %b HTTP/1.1\r\n%b" % (exchange.method.encode(), path, target.upstream.lines)


async def _send_large(
    timeouts: Timeouts, exchange: Exchange, connection: Connection, start: bytes, body: bytes
) -> None:
    """Send a body that the socket may not take at once; only a backend that takes none of it is too slow."""
    connection.send(exchange.head.encode(start, len(body), b"", _uncompressed(exchange)))
    connection.write(body)
    connection.await_room(exchange.now() + timeouts.send_s)
    await connection.drain()
    # An answer ends the wait too; what the backend has not taken by then it does not want.
    connection.sending = connection.full
    connection.await_answer(exchange.now() + timeouts.first_byte_s)
