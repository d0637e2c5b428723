"""Attempts: take a request to the first target that answers it.

One attempt is: take or open a connection, send, wait for the response's head. A failure goes to the table in
`core/retry.py`. Once `run` has returned, the answer belongs to the client and nothing is tried again.
"""

from collections.abc import Mapping

import msgspec

from penstock.core.errors import BackendError
from penstock.core.plan import Plan, PlannedTarget
from penstock.core.retry import Decision, decide
from penstock.ext import ResponseHead, splice
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
    target: PlannedTarget


async def run(plan: Plan, exchange: Exchange, pools: Mapping[str, Pool]) -> Reply:
    """The first answer any target gives, whatever its status. Raises BackendError, NoHealthyTarget."""
    tried = 0
    # A streamed body can be sent once only, so it never goes on a connection that may have died while idle.
    fresh = exchange.upload is not None
    while True:
        target = plan.targets[tried]
        exchange.backend = target.upstream.name
        exchange.attempts += 1
        try:
            return await _attempt(target, exchange, pools[target.upstream.name], fresh)
        except BackendError as error:
            replayable = exchange.upload is None or not exchange.upload.begun
            decision = decide(error, replayable=replayable, targets_left=len(plan.targets) - tried - 1)
            if decision is Decision.GIVE_UP:
                raise
            if decision is Decision.NEXT_TARGET:
                tried += 1
            fresh = decision is Decision.NEW_CONNECTION or exchange.upload is not None


async def _attempt(target: PlannedTarget, exchange: Exchange, pool: Pool, fresh: bool) -> Reply:
    connection = (None if fresh else pool.take()) or await pool.connect()
    try:
        timeouts = target.upstream.timeouts
        connection.silence_s = timeouts.idle_s
        connection.total_deadline = exchange.started + timeouts.total_s
        start = request_lines(target, exchange)
        if exchange.upload is not None:
            await send_upload(target, exchange, exchange.upload, start, connection)
        else:
            connection.deadline = exchange.now() + timeouts.first_byte_s
            await _send(target, exchange, start, connection)
        return Reply(await connection.head(), connection, pool, target)
    except BaseException:
        # A failure, or the client left: either way the backend must stop working on it now.
        connection.close()
        raise


async def _send(target: PlannedTarget, exchange: Exchange, start: bytes, connection: Connection) -> None:
    """Send a request whose body is held."""
    body = exchange.body
    if target.rename_json is not None:
        spans = exchange.peek.model_spans if exchange.peek is not None else []
        body = splice(body, [(begin, end, target.rename_json) for begin, end in spans])
    length = len(body) if body or exchange.head.has_body else -1
    if len(body) <= JOIN_BYTES:
        connection.send(exchange.head.encode(start, length, body), head_request=exchange.method == "HEAD")
        return
    connection.send(exchange.head.encode(start, length))
    connection.write(body)
    connection.await_room(exchange.now() + target.upstream.timeouts.send_s)
    await connection.drain()
    connection.await_answer(exchange.now() + target.upstream.timeouts.first_byte_s)


def request_lines(target: PlannedTarget, exchange: Exchange) -> bytes:
    """Request line and our header lines of one attempt."""
    path = target.upstream.path(exchange.path)
    if exchange.query:
        path = b"%b?%b" % (path, exchange.query)
    return b"%b %b HTTP/1.1\r\n%b" % (exchange.method.encode(), path, target.upstream.lines)
