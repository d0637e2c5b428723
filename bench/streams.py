"""Clients of streams: raw sockets that keep what came, note when, and prove at the end that it was whole."""

import asyncio
import time
from typing import Self

from bench.processes import Failure
from bench.wire import DONE, EVENT_BYTES, request, stamp_ns

OK = b"HTTP/1.1 200 OK\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Stream(asyncio.Protocol):
    """One streamed request on a connection of its own."""

    def __init__(self, port: int, model: str, *, keep_delays: bool = False) -> None:
        self._request = request(model, port)
        self._keep_delays = keep_delays
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._tail = b""
        self.begun: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.reads = 0
        self.delays_s: list[float] = []

    @classmethod
    async def open(cls, port: int, model: str, *, keep_delays: bool = False) -> Self:
        loop = asyncio.get_running_loop()
        made = lambda: cls(port, model, keep_delays=keep_delays)  # noqa: E731
        _, stream = await loop.create_connection(made, "127.0.0.1", port)
        return stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self.reads += 1
        self._parts.append(data)
        if self._keep_delays and b'"created":' in data:
            self.delays_s.append((now_ns - stamp_ns(data)) / 1e9)
        if b'"created":' in data and not self.begun.done():
            self.begun.set_result(None)
        self._tail = (self._tail + data[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]  # a read may end inside it
        if self._tail == LAST_CHUNK and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_exception(Failure(f"a stream was closed early; it began {self._parts[:1]!r}"))
            if not future.cancelled():
                future.exception()

    def close(self) -> None:
        self.transport.close()

    def check(self, events: int) -> None:
        """Raises Failure unless status 200 and exactly these events came, in order and whole, with the end mark."""
        head, _, body = b"".join(self._parts).partition(b"\r\n\r\n")
        got = whole_events(body)
        stamps = [stamp_ns(event) for event in got[:-1] if len(event) == EVENT_BYTES]
        if not head.startswith(OK) or got[-1] != DONE or len(stamps) != len(got) - 1 or sorted(stamps) != stamps:
            raise Failure(f"not the expected stream: {head!r} {body[-300:]!r}")
        if len(stamps) != events:
            raise Failure(f"a stream of {len(stamps)} events instead of {events}")


def whole_events(body: bytes) -> list[bytes]:
    """The events in a chunked body (RFC 9112 §7.1)."""
    parts: list[bytes] = []
    while True:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return [part + b"\n\n" for part in b"".join(parts).split(b"\n\n")[:-1]]
        parts.append(rest[:length])
        body = rest[length + 2 :]
