"""The upstream of the stream scenarios: `python -m bench.upstream GAP_S CHUNKS` prints its port and serves.

The request's model says what comes. "paced": CHUNKS events, one every GAP_S seconds, each a chunk and a write of its
own, the streams spread over the gap. "short": one event, and the end a millisecond later. "silent": one event, then
nothing.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator

import uvloop

from bench.wire import DONE, EVENT_BYTES, PACED, SHORT, event

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LENGTH = b"%x\r\n" % EVENT_BYTES
END = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE)
SHORT_S = 0.001
# uvloop's timers have steps of 1 ms; each new stream takes the next slot, so that streams do not come in bursts.
SLOTS = 10


class Source(asyncio.Protocol):
    """One connection; a request at a time."""

    def __init__(self, gap_s: float, chunks: int, slots: Iterator[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._gap_s = gap_s
        self._chunks = chunks
        self._slots = slots
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = transport.write  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        body = self._data.partition(b"\r\n\r\n")[2]
        if body.endswith(b"}]}"):
            self._data = b""
            self._write(HEAD + _chunk())
            self._go_on(body[:40])

    def _go_on(self, start: bytes) -> None:
        if PACED.encode() in start:
            self._left = self._chunks - 1
            self._due = self._slot()
            self._timer = self._loop.call_at(self._due, self._next)
        elif SHORT.encode() in start:
            self._timer = self._loop.call_later(SHORT_S, self._write, END)

    def _slot(self) -> float:
        """The first time from one gap on that lies on this stream's slot of the gap."""
        offset_s = next(self._slots) % SLOTS / SLOTS * self._gap_s
        return (self._loop.time() // self._gap_s + 2) * self._gap_s + offset_s

    def _next(self) -> None:
        if not self._left:
            self._write(END)
            return
        self._left -= 1
        self._write(_chunk())
        self._due += self._gap_s
        self._timer = self._loop.call_at(self._due, self._next)


def _chunk() -> bytes:
    return b"%b%b\r\n" % (LENGTH, event(time.monotonic_ns()))


async def _serve(gap_s: float, chunks: int) -> None:
    loop = asyncio.get_running_loop()
    slots = itertools.count()
    server = await loop.create_server(lambda: Source(gap_s, chunks, slots), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(float(sys.argv[1]), int(sys.argv[2])))
