"""The load of the plain scenario: keep-alive connections that send the next request when the answer is whole."""

import asyncio
from collections.abc import Callable
from typing import Self

from bench.processes import Failure
from bench.wire import ANSWER, PLAIN, request

OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = b"\r\n\r\n" + ANSWER


class Client(asyncio.Protocol):
    """One connection; `load` counts its answers."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._data = b""
        self._write: Callable[[bytes], None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._write = transport.write  # type: ignore[attr-defined]

    def send(self) -> None:
        self._load.waiting += 1
        self._write(self._load.request)

    def data_received(self, data: bytes) -> None:
        if self._data:
            data = self._data + data
        if not (data.endswith(WHOLE) and data.startswith(OK)):
            self._data = data
            if not data.startswith(OK) or len(data) > 2 * len(ANSWER):
                self._load.fail(f"not the expected answer: {data[:300]!r}")
            return
        self._data = b""
        load = self._load
        load.answers += 1
        if load.running:
            self._write(load.request)
        else:
            load.waiting -= 1
            if not load.waiting:
                load.idle.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.fail("a keep-alive connection was closed")


class Load:
    """`connections` clients of one server; they stay open between rounds."""

    def __init__(self, port: int, connections: int) -> None:
        self._port = port
        self._connections = connections
        self._clients: list[Client] = []
        self._closing = False
        self.loop = asyncio.get_running_loop()
        self.request = request(PLAIN, port)
        self.answers = 0
        self.waiting = 0
        self.running = False
        self.idle: asyncio.Future[None] = self.loop.create_future()

    async def __aenter__(self) -> Self:
        for _ in range(self._connections):
            _, client = await self.loop.create_connection(lambda: Client(self), "127.0.0.1", self._port)
            self._clients.append(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        for client in self._clients:
            client.transport.close()

    def start(self) -> None:
        self.running = True
        self.idle = self.loop.create_future()
        for client in self._clients:
            client.send()

    async def stop(self) -> None:
        """No more requests; returns when every answer is here."""
        self.running = False
        await asyncio.wait_for(asyncio.shield(self.idle), 10)

    async def run(self, seconds: float) -> None:
        """Let the load go on for a while. Raises Failure as soon as an answer is wrong."""
        done, _ = await asyncio.wait({self.idle}, timeout=seconds)
        for future in done:
            future.result()

    def fail(self, reason: str) -> None:
        if not self._closing and not self.idle.done():
            self.idle.set_exception(Failure(reason))
