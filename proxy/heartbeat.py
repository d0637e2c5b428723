"""Comment lines on a stream (SSE) while nothing comes: the client, and whatever stands between, sees that we live.

The first comment takes our own head with it (200, text/event-stream), so an error after it can only be a last event.
Failover stays possible: a comment of ours is no byte of the backend's. One is written only between two events: inside
one, some readers would take it for a part of it.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from penstock.core.errors import BackendError, BackendStatus, BadAnswer, InvalidRequest, PenstockError
from penstock.core.retry import is_failure
from penstock.ext import DIALECT_OLLAMA, MEDIA_EVENT_STREAM
from penstock.proxy.exchange import Exchange
from penstock.proxy.reply import cut

if TYPE_CHECKING:
    from penstock.proxy.upstream.attempt import Reply

IDLE = b": penstock\n\n"
HEAD = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")

Words = Callable[[Exchange], bytes]
"""What the next comment says."""


class Heartbeat:
    """One per stream that has one. begun: a comment has gone out, and with it the head."""

    __slots__ = ("_exchange", "_last", "_loop", "_period_s", "_tail", "_task", "_words", "begun")

    def __init__(self, exchange: Exchange, period_s: float, words: Words, loop: asyncio.AbstractEventLoop) -> None:
        self._exchange = exchange
        self._period_s = period_s
        self._words = words
        self._loop = loop
        self._last = loop.time()
        self._tail = b"\n\n"
        self.begun = False
        self._task = loop.create_task(self._beat())

    def passed(self, body: bytes) -> None:
        """The client got this of the backend's."""
        self._last = self._loop.time()
        self._tail = (self._tail + body)[-4:] if len(body) < 4 else body[-4:]

    def stop(self) -> None:
        self._task.cancel()

    async def _beat(self) -> None:
        while not self._exchange.over:
            wait_s = self._last + self._period_s - self._loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            self._last = self._loop.time()
            if self._tail.endswith(EVENT_ENDS):
                await self._say(self._words(self._exchange))

    async def _say(self, comment: bytes) -> None:
        exchange = self._exchange
        if not exchange.answering:
            self.begun = True
            exchange.media = MEDIA_EVENT_STREAM
            own = (b"x-request-id", exchange.request_id)
            await exchange.start(200, [*HEAD, own, *exchange.cors, *exchange.told])
            exchange.first_byte = 0.0  # that is the backend's
        await exchange.write(comment)


def begin_heartbeat(period_s: float, exchange: Exchange, words: Words, loop: asyncio.AbstractEventLoop) -> None:
    """Give a request a heartbeat, if it asks for a stream of events."""
    endpoint = exchange.endpoint
    streams = exchange.peek is not None and exchange.peek.stream
    if streams and endpoint is not None and endpoint.dialect not in (None, DIALECT_OLLAMA):
        exchange.heartbeat = Heartbeat(exchange, period_s, words, loop)


# --- an answer that is no stream, after a comment has taken the head with it -------------------------------------

# Of an answer that says what is wrong, so much is read, and waited for so long.
ERROR_BYTES = 65_536
ERROR_S = 1.0


async def instead_of_stream(reply: "Reply", exchange: Exchange) -> None:
    """Tell what a backend answered as the last event; its connection is given back."""
    body, connection = reply.body, reply.connection
    try:
        async with asyncio.timeout(ERROR_S):
            while connection is not None and not connection.complete and len(body) < ERROR_BYTES:
                body += await connection.read()
    except (TimeoutError, BackendError):
        body = b""
    finally:
        if connection is not None:
            reply.pool.release(connection)
    await cut(exchange, told_as_error(reply.head.status, body))


def told_as_error(status: int, body: bytes) -> PenstockError:
    """The error of an answer that came where a stream was asked for, in the backend's words if it has any."""
    if status < 400:
        return BadAnswer("the backend's answer is no stream of events", phase="body")
    try:
        error = msgspec.json.decode(body)["error"]
        words = error if isinstance(error, str) else error["message"]
        message = f"the backend answered {status}: {words}"
    except (msgspec.DecodeError, KeyError, TypeError):
        message = f"the backend answered {status}"
    return BackendStatus(message, status=status) if is_failure(status) else InvalidRequest(message)
