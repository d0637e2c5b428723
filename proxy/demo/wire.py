"""One connection as bytes: writing under backpressure, the ways it ends, and clients that leave, at once."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from array import array
from typing import cast

from penstock.proxy.demo.state import Demo

_POLL_S = 0.001


class Wire(asyncio.Protocol):
    """Owns the task that sends an answer: it is cancelled when the connection is lost."""

    def __init__(self, demo: Demo, connections: set[Wire]) -> None:
        self.phase = ""
        self._demo = demo
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._path: str | None = None  # of the request being answered
        self._is_observer = False  # it asks for /demo/…
        self._is_counted = True  # the connection, in the figures
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.phase or "idle"
        return f"<demo connection {state} {self._path or ''}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but class
        self._connections.add(self)
        self._demo.stats.connection_opened()

    def eof_received(self) -> None:
        # one that only half-closes cannot be told from one that left: both are taken as leaving
        if self._path is not None:
            self._client_left()
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        self._connections.discard(self)
        if self._is_counted:
            self._demo.stats.connections_open -= 1
        self.stay_open()
        self._client_left()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def begin_request(self, path: str) -> None:
        self._is_observer = path.startswith("/demo/")
        self._path = path
        self.phase = "receiving"
        if not self._is_observer:
            self._demo.stats.request_began()

    def write(self, data: bytes) -> None:
        if not self._is_observer:
            self._demo.stats.bytes_sent += len(data)
        self._transport.write(data)

    async def drain(self) -> None:
        if self._transport.is_closing():
            await asyncio.sleep(0)  # the peer has left: let connection_lost run and cancel this
        if self._writable is not None:
            await self._writable

    async def drain_all(self) -> None:
        """Until the client's kernel has every byte: a TCP reset throws away what is still on its way."""
        self._transport.set_write_buffer_limits(high=0)
        await self.drain()
        while self._unacknowledged_bytes():  # noqa: ASYNC110 - the kernel has no event for it
            await asyncio.sleep(_POLL_S)

    def finish(self, *, keep_alive: bool) -> None:
        """The answer is out."""
        self._end_request()
        if not keep_alive:
            self.close()

    def close(self) -> None:
        """In order, behind what is still to be written."""
        self._closed = True
        self._transport.close()

    def reset(self) -> None:
        """By TCP reset."""
        self._end_request()
        self._closed = True
        self._transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._transport.abort()

    def abort(self) -> None:
        """The server goes away."""
        self._end_request()
        self._transport.abort()

    def close_in(self, delay_s: float) -> None:
        """Unless `stay_open` comes first."""
        self._idle_timer = self._loop.call_later(delay_s, self.close)

    def stay_open(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _unacknowledged_bytes(self) -> int:
        """tcp(7), SIOCOUTQ; taken as none where the system does not tell."""
        answer = array("i", [0])
        try:
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, answer)
        except OSError:
            return 0
        return answer[0]

    def _end_request(self) -> None:
        if self._path is not None and not self._is_observer:
            self._demo.stats.requests_active -= 1
        self._path = None
        self.phase = ""

    def _client_left(self) -> None:
        if self._path is not None and not self._is_observer:
            self._demo.stats.request_aborted(self._path, self.phase)
        self._end_request()
