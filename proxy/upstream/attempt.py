"""Attempts: take a request to the first target that answers it.

One attempt is: take or open a connection, send, wait for the response's head. A failure goes to the table in
`core/retry.py`. Once `run` has returned, the answer belongs to the client and nothing is tried again.
"""

from collections.abc import Mapping
from time import perf_counter

import msgspec

from penstock.core.errors import BackendError
from penstock.core.plan import Plan, PlannedTarget, Timeouts
from penstock.core.retry import Decision, decide
from penstock.ext import ResponseHead, rewrite
from penstock.proxy.exchange import Exchange
from penstock.proxy.upstream.connection import Connection
from penstock.proxy.upstream.pool import Pool
from penstock.proxy.upstream.upload import send_upload

# Below this, head and body go to the socket as one piece of memory; above, copying costs more than a second write.
JOIN_BYTES = 65_536


class Reply(msgspec.Struct, frozen=True):
    """A backend's answer under way. Whoever holds it gives the connection back to the pool."""

    head: ResponseHead
    connection: Connection
    pool: Pool


async def run(plan: Plan, exchange: Exchange, pools: Mapping[str, Pool]) -> Reply:
    """The first answer any target gives, whatever its status. Raises BackendError, NoHealthyTarget."""
    tried = 0
    total_since = exchange.now()
    # A streamed body can be sent once only, so it never goes on a connection that may have died while idle.
    fresh = exchange.upload is not None
    while True:
        target = plan.targets[tried]
        try:
            return await _attempt(target, exchange, pools[target.upstream.name], fresh, total_since)
        except BackendError as error:
            replayable = exchange.upload is None or not exchange.upload.begun
            decision = decide(error, replayable=replayable, targets_left=len(plan.targets) - tried - 1)
            if decision is Decision.GIVE_UP:
                raise
            if decision is Decision.NEXT_TARGET:
                tried += 1
            error.__traceback__ = None  # it holds frames that hold the error
            fresh = decision is Decision.NEW_CONNECTION or exchange.upload is not None


async def _attempt(target: PlannedTarget, exchange: Exchange, pool: Pool, fresh: bool, total_since: float) -> Reply:
    exchange.backend = pool.name
    exchange.attempts += 1
    connection = (None if fresh else pool.take()) or await pool.connect(fresh=fresh)
    try:
        timeouts = target.upstream.timeouts
        connection.total_deadline = total_since + timeouts.total_s
        connection.deadline = exchange.now() + timeouts.first_byte_s
        exchange.target = target
        exchange.sent = perf_counter()
        start = target.start if target.start and not exchange.query else request_lines(target, exchange)
        if exchange.upload is not None:
            await send_upload(target, exchange, exchange.upload, start, connection)
        else:
            body = exchange.body
            if len(body) > JOIN_BYTES:
                await _send_large(timeouts, exchange, connection, start, _changed(target, exchange))
            else:
                connection.send(_request(target, exchange, start), exchange.method == "HEAD")
        while (head := connection.response) is None:
            await connection.news()
        return Reply(head, connection, pool)
    except BaseException:
        # A failure, or the client left: either way the backend must stop working on it now.
        connection.close()
        raise


def _request(target: PlannedTarget, exchange: Exchange, start: bytes) -> bytes:
    """Head and held body in one piece, with what a target or a limit needs written into the body."""
    head, body, peek = exchange.head, exchange.body, exchange.peek
    if peek is None or not _changes(target, exchange):
        length = len(body) if body or head.content_length is not None else -1
        return head.encode(start, length, body, exchange.asked_usage)
    cap = exchange.output_cap
    return head.encode_changed(
        start, body, peek, target.rename_json, exchange.asked_usage, target.cap_name if cap else b"", cap
    )


def _changed(target: PlannedTarget, exchange: Exchange) -> bytes:
    """The body alone, changed as in `_request`."""
    cap = exchange.output_cap
    if exchange.peek is None or not _changes(target, exchange):
        return exchange.body
    cap_name = target.cap_name if cap else b""
    return rewrite(exchange.body, exchange.peek, target.rename_json, exchange.asked_usage, cap_name, cap)


def _changes(target: PlannedTarget, exchange: Exchange) -> bool:
    return bool(target.rename_json is not None or exchange.asked_usage or exchange.output_cap)


async def _send_large(
    timeouts: Timeouts, exchange: Exchange, connection: Connection, start: bytes, body: bytes
) -> None:
    """Send a body that the socket may not take at once; only a backend that takes none of it is too slow."""
    connection.send(exchange.head.encode(start, len(body), b"", exchange.asked_usage))
    connection.write(body)
    connection.await_room(exchange.now() + timeouts.send_s)
    await connection.drain()
    # An answer ends the wait too; what the backend has not taken by then it does not want.
    connection.sending = connection.full
    connection.await_answer(exchange.now() + timeouts.first_byte_s)


def request_lines(target: PlannedTarget, exchange: Exchange) -> bytes:
    """Request line and our header lines of one attempt."""
    path = target.upstream.path(exchange.path)
    if exchange.query:
        path = b"%b?%b" % (path, exchange.query)
    return b"%b %b HTTP/1.1\r\n%b" % (exchange.method.encode(), path, target.upstream.lines)
