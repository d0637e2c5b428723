"""HTTP/1.1 on the way in, on the worker's own loop: what the plain listener speaks.

granian serves TLS and HTTP/2 (`granian_face.py`) from threads of its own; every request crosses between them and this
loop four times. On one loop a request costs 0.7 and a streamed chunk 0.6 of that (`python -m bench`), and the socket is
at hand: a client that leaves is known at once, a cut answer ends uncleanly, a silent connection is closed in time, and
framing that could be read in two ways is refused (RFC 9112 §6.3). The application sees plain ASGI.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

from penstock.proxy.http1_connection import KEEP_ALIVE_S, ServerConnection

Application = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

BACKLOG = 4096
# After another process has taken over: how long an idle connection gets for one more request, whose answer then says
# "close"; and how long a connection may take from the kernel's hands into ours.
GRACE_S = 5.0
ARRIVAL_S = 0.5


class Listener:
    """Serves an ASGI application on a listening socket. receive_s: the longest time a head may take; 0 = no limit.

    app, receive_s: may be changed at any time; a request that has begun keeps its application.
    """

    def __init__(self, app: Application, sock: socket.socket, receive_s: float) -> None:
        self.app = app
        self.loop = asyncio.get_running_loop()
        self.draining = False
        """Answers say that they are the last on their connection."""
        self.closing = False
        """Connections close after their answer even if it did not say so, and idle ones at once."""
        self.connections: set[ServerConnection] = set()
        self.stopped: asyncio.Future[None] = self.loop.create_future()
        self._socket = sock.dup()
        self.receive_s = receive_s
        self._server: asyncio.Server | None = None
        self._second = -1
        self._date = b""
        self._outbox: list[tuple[Any, bytes]] = []
        # What `send` returns when the client is not behind. A finished future is the cheapest thing to await.
        self.sent = self.done(None)

    def __repr__(self) -> str:
        return f"<Listener {len(self.connections)} connections{', draining' if self.draining else ''}>"

    async def start(self) -> None:
        self._server = await self.loop.create_server(lambda: ServerConnection(self), sock=self._socket, backlog=BACKLOG)

    def drain(self) -> None:
        """Accept nothing more and let running requests end; then `stopped` is done."""
        self.draining = self.closing = True
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.close_if_idle()
        self._stop_if_empty()

    def leave(self) -> None:
        """As `drain`, for a server that another process has taken over: no client meets a connection that closes just
        when it is used, as those that are kept alive get their time for one more request."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        self.loop.call_later(ARRIVAL_S, self._leaving, self.loop.time() + GRACE_S)

    def _leaving(self, grace_until: float) -> None:
        """Again and again: close what has had its time."""
        if self.closing:
            return
        now = self.loop.time()
        if now > grace_until:
            for connection in tuple(self.connections):
                connection.close_if_silent(now, GRACE_S, GRACE_S)
        if self.connections:
            self.loop.call_later(ARRIVAL_S, self._leaving, grace_until)
        else:
            self.drain()

    def forget(self, connection: "ServerConnection") -> None:
        """A connection has closed."""
        self.connections.discard(connection)
        self._stop_if_empty()

    def _stop_if_empty(self) -> None:
        if self.closing and not self.connections and not self.stopped.done():
            self.stopped.set_result(None)

    def done(self, result: Any) -> "asyncio.Future[Any]":
        future = self.loop.create_future()
        future.set_result(result)
        return future

    def write_soon(self, transport: Any, data: bytes) -> None:
        """Write in the loop's next pass, together with the other answers of this one.

        The loop writes at the end of each pass. Requests to backends go out in one pass and answers to clients in the
        next, so that each side is woken once and not for every write between two of the other side's.
        """
        if not self._outbox:
            self.loop.call_soon(self.write_now)
        self._outbox.append((transport, data))

    def write_now(self) -> None:
        """Write what waits for the next pass."""
        outbox, self._outbox = self._outbox, []
        for transport, data in outbox:
            transport.write(data)

    def date(self) -> bytes:
        """The Date line (RFC 9110 §6.6.1), made once a second."""
        second = int(self.loop.time())
        if second != self._second:
            self._second = second
            self._date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        return self._date

    async def close_silent(self) -> None:
        """Again and again: close connections whose head takes too long, and idle ones; owned by the worker."""
        while True:
            limit = self.receive_s or KEEP_ALIVE_S
            await asyncio.sleep(min(max(limit / 4, 0.05), 5.0))
            now = self.loop.time()
            for connection in tuple(self.connections):
                connection.close_if_silent(now, limit)
