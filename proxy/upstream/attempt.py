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
            body = _spliced(target, exchange)
            length = len(body) if body or exchange.head.content_length is not None else -1
            if length <= JOIN_BYTES:
                connection.send(
                    exchange.head.encode(start, length, body, exchange.asked_usage), exchange.method == "HEAD"
                )
            else:
                await _send_large(timeouts, exchange, connection, start, body)
        while (head := connection.response) is None:
            await connection.news()
        return Reply(head, connection, pool)
    except BaseException:
        # A failure, or the client left: either way the backend must stop working on it now.
        connection.close()
        raise


def _spliced(target: PlannedTarget, exchange: Exchange) -> bytes:
    """The held body, with what a target or a limit needs spliced in: the model's name there, usage, a cap on output."""
    if exchange.peek is None or (target.rename_json is None and not exchange.asked_usage and not exchange.output_cap):
        return exchange.body
    cap_name = target.cap_name if exchange.output_cap else b""
    return rewrite(
        exchange.body, exchange.peek, target.rename_json, exchange.asked_usage, cap_name, exchange.output_cap
    )


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
