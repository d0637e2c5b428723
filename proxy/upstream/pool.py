"""The connections to one backend: newest idle one first, a limit on all, idle ones closed after a while.

`take` is O(1) and synchronous; only a pool with no idle connection makes a request wait. Deadlines live on the
connections; `sweep`, called a few times a second by the lifespan, closes what is past them. That costs nothing per
request, and a timeout is late by at most the sweep's period.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf, isfinite

from penstock.core.errors import NoHealthyTarget
from penstock.proxy.upstream.connection import Connection, State, unreachable

Resolve = Callable[[str, int], Awaitable[list[tuple[int, str]]]]
"""(host, port) -> addresses as (family, address), best first. Raises OSError."""


class Pool:
    """name: the backend's. tls: None for plain HTTP. Times in seconds, by the loop's clock."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        connect_s: float,
        max_connections: int,
        idle_s: float,
        resolve: Resolve,
        silence_s: float = inf,
    ) -> None:
        self.name = name
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_s = connect_s
        self._patience_s = connect_s if isfinite(connect_s) else None
        self._max = max_connections
        self._idle_s = idle_s
        self._resolve = resolve
        self._silence_s = silence_s
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()

    def __repr__(self) -> str:
        active = len(self._all) - len(self._idle)
        return (
            f"<Pool {self.name} {self._host}:{self._port}: {active} active, {len(self._idle)} idle, "
            f"{self._connecting} connecting, {len(self._waiting)} waiting, at most {self._max}>"
        )

    def take(self) -> Connection | None:
        """The connection that became idle last, or None. It has served a request before."""
        while self._idle:
            connection = self._idle.pop()
            if connection.state is State.IDLE:
                return connection
        return None

    async def connect(self) -> Connection:
        """A new connection, or the next one given back if all are taken. Raises ConnectFailed or NoHealthyTarget."""
        while len(self._all) + self._connecting >= self._max:
            # A fresh connection was asked for and every place is taken: an idle one makes room.
            if (connection := self.take()) is not None:
                connection.close()
                self.forget(connection)
            elif (connection := await self._turn()) is not None:
                return connection
        self._connecting += 1
        try:
            connection = await self._open()
            self._all.add(connection)
            return connection
        finally:
            self._connecting -= 1
            self._admit(None)

    def release(self, connection: Connection) -> None:
        """Give a connection back after an exchange, finished or not: idle if it may be used again, else closed."""
        if not connection.reusable:
            connection.close()
            return
        if self._waiting and self._admit(connection):
            return
        connection.state = State.IDLE
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """A connection has closed."""
        if connection in self._all:
            self._all.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._admit(None)

    def sweep(self, now: float) -> None:
        """Close idle connections past their time and fail active ones past their deadline."""
        expired = [c for c in self._idle if now - c.idle_since > self._idle_s]
        for connection in expired:
            connection.close()
        for connection in tuple(self._all):
            if connection.state is State.ACTIVE and (now > connection.deadline or now > connection.total_deadline):
                connection.expire()

    def close(self) -> None:
        """Close every connection; requests under way fail."""
        for connection in tuple(self._all):
            connection.close()

    @property
    def active(self) -> int:
        return len(self._all) - len(self._idle)

    async def _turn(self) -> Connection | None:
        """Wait for a connection (returned, ready to use) or for room to open one (None)."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._patience_s):
                return await turn
        except TimeoutError:
            raise NoHealthyTarget(
                f"all {self._max} connections to the backend {self.name!r} are busy", retry_after_s=1
            ) from None
        except asyncio.CancelledError:
            # The turn came and its owner left in the same moment: hand it on.
            if turn.done() and not turn.cancelled():
                self._hand_on(turn.result())
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _hand_on(self, connection: Connection | None) -> None:
        if connection is not None:
            self.release(connection)
        else:
            self._admit(None)

    def _admit(self, connection: Connection | None) -> bool:
        """Wake who waits longest, with a connection or (None) with the news that there is room."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    async def _open(self) -> Connection:
        """Try every address of the name in turn, all within connect_s."""
        loop = asyncio.get_running_loop()
        failure: OSError | str = "its name has no address"
        try:
            async with asyncio.timeout(self._patience_s):
                for family, address in await self._resolve(self._host, self._port):
                    try:
                        _, connection = await loop.create_connection(
                            lambda: Connection(self, loop),
                            address,
                            self._port,
                            family=family,
                            ssl=self._tls,
                            server_hostname=self._host if self._tls else None,
                        )
                        connection.silence_s = self._silence_s
                        return connection
                    except OSError as error:
                        failure = error
        except TimeoutError:
            failure = f"no connection within {self._connect_s:g} s"
        except OSError as error:
            failure = error
        raise unreachable(self.name, failure)


async def resolve(host: str, port: int) -> list[tuple[int, str]]:
    """The system's resolver, asked anew for every connection: addresses change, and new connections are rare."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(int(family), str(address[0])) for family, _, _, _, address in found]
