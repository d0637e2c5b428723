"""Starts and stops the demo backend on a listening socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from penstock.proxy.demo.connection import Connection
from penstock.proxy.demo.options import DemoOptions
from penstock.proxy.demo.state import Demo
from penstock.proxy.demo.stats import Stats
from penstock.proxy.demo.wire import Wire


def _wall_s() -> int:
    return time.time_ns() // 1_000_000_000


class Server:
    """A listening demo backend; `close` ends its connections too."""

    def __init__(self, server: asyncio.Server, demo: Demo, connections: set[Wire]) -> None:
        self._server = server
        self._demo = demo
        self._connections = connections
        self.host, self.port = server.sockets[0].getsockname()[:2]

    def __repr__(self) -> str:
        return f"<demo server {self.host}:{self.port} connections={len(self._connections)}>"

    @property
    def stats(self) -> Stats:
        return self._demo.stats

    def close(self) -> None:
        """Stops listening and drops every connection, at once; calling it again does nothing."""
        self._server.close()
        for connection in list(self._connections):
            connection.abort()


async def start(
    host: str = "127.0.0.1",
    port: int = 0,
    options: DemoOptions | None = None,
    *,
    clock: Callable[[], int] = _wall_s,
) -> Server:
    """Listens; port 0 takes a free one, told by `.port`.

    `clock` gives wall time in s, for the `created` fields. Raises OSError when the address is taken,
    and Refused when the options name a fault that does not exist.
    """
    demo = Demo(options or DemoOptions(), clock)
    connections: set[Wire] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(demo, connections), host, port)
    return Server(server, demo, connections)
