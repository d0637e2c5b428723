"""The connections to one backend: newest idle one first, a limit on all, idle ones closed after a while.

`take` is O(1) and synchronous; only a pool with no idle connection makes a request wait. The limit counts *places*:
a place is held by an open connection, by one being opened, or by a waiter it was just given to. A place that becomes
free goes to who waits longest, never to a newcomer.

Deadlines live on the connections; `sweep`, called a few times a second by the lifespan, ends what is past them. That
costs nothing per request, and a timeout is late by at most the sweep's period.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from math import inf, isfinite
from typing import Any

from penstock.core.errors import BackendTimeout, NoHealthyTarget
from penstock.proxy.upstream.connection import Connection, State, unreachable

Resolve = Callable[[str, int], Coroutine[Any, Any, list[tuple[int, str]]]]
"""(host, port) -> addresses as (family, address), best first. Raises OSError."""


class Pool:
    """name: the backend's. tls: None for plain HTTP. Times in seconds, by the loop's clock; inf = no limit."""

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
        self._max = max_connections
        self._idle_s = idle_s
        self._resolve = resolve
        self._silence_s = silence_s
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._places = 0
        self._connecting = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._lookup: asyncio.Task[list[tuple[int, str]]] | None = None

    def apart(self) -> "Pool":
        """Another pool to the same place, whose connections are used once: for questions of our own."""
        return Pool(
            self.name,
            self._host,
            self._port,
            tls=self._tls,
            connect_s=self._connect_s,
            max_connections=1,
            idle_s=0,
            resolve=self._resolve,
        )

    @property
    def active(self) -> int:
        """Connections with a request on them."""
        return len(self._all) - len(self._idle)

    def __repr__(self) -> str:
        return (
            f"<Pool {self.name} {self._host}:{self._port}: {self.active} active, {len(self._idle)} idle, "
            f"{self._connecting} connecting, {len(self._waiting)} waiting, at most {self._max}>"
        )

    def take(self) -> Connection | None:
        """The connection that became idle last, or None. It has served a request before."""
        while self._idle:
            connection = self._idle.pop()
            if connection.state is State.IDLE:
                return connection
        return None

    async def connect(self, *, fresh: bool = False) -> Connection:
        """A new connection or, if all places are taken, the next one given back (fresh: its place only).

        Raises ConnectFailed, BackendTimeout (phase connect), NoHealthyTarget (no place within connect_s).
        """
        if self._places < self._max and not self._waiting:
            self._places += 1
        elif (used := self.take() or await self._turn()) is not None:
            if not fresh:
                return used
            # It leaves us its place.
            self._all.discard(used)
            used.close()
        return await self._open_in_place()

    def release(self, connection: Connection) -> None:
        """Give a connection back after an exchange, finished or not: idle if it may be used again, else closed."""
        if not connection.reusable or self._idle_s == 0:
            connection.close()
        elif not (self._waiting and self._give(connection)):
            connection.state = State.IDLE
            connection.idle_since = connection.now()
            self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """A connection has closed."""
        if connection in self._all:
            self._all.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._free_place()

    def sweep(self, now: float) -> None:
        """Close idle connections past their time and fail active ones past their deadline."""
        for connection in tuple(self._all):
            if connection.state is State.IDLE and now - connection.idle_since > self._idle_s:
                connection.close()
            elif connection.state is State.ACTIVE and now > min(connection.deadline, connection.total_deadline):
                connection.expire()

    def close(self) -> None:
        """Close every connection, and one that is still being opened when it is given back; requests under way fail."""
        self._idle_s = 0
        for connection in tuple(self._all):
            connection.close()
        if self._lookup is not None:
            self._lookup.cancel()

    # --- places ---

    async def _turn(self) -> Connection | None:
        """Wait for a connection (returned, ready to use) or for a place to open one in (None)."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(_limit(self._connect_s)):
                return await turn
        except BaseException as error:
            self._hand_on(turn)
            if isinstance(error, TimeoutError):
                raise NoHealthyTarget(
                    f"all {self._max} connections to the backend {self.name!r} are busy", retry_after_s=1
                ) from None
            raise

    def _hand_on(self, turn: "asyncio.Future[Connection | None]") -> None:
        """Who waited has left; the turn may have come in the same moment."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn.done() and not turn.cancelled():
            if (connection := turn.result()) is not None:
                self.release(connection)
            else:
                self._free_place()

    def _free_place(self) -> None:
        if not self._give(None):
            self._places -= 1

    def _give(self, connection: Connection | None) -> bool:
        """Give who waits longest a connection, or (None) a place for one; False if nobody waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    # --- opening ---

    async def _open_in_place(self) -> Connection:
        self._connecting += 1
        try:
            connection = await self._open()
            if connection.state is State.CLOSED:
                raise unreachable(self.name, "it closed the connection at once")
        except BaseException:
            self._free_place()
            raise
        finally:
            self._connecting -= 1
        self._all.add(connection)
        connection.silence_s = self._silence_s
        return connection

    async def _open(self) -> Connection:
        """Try every address of the name in turn; each gets an equal share of the time that is left."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_s
        try:
            async with asyncio.timeout(_limit(self._connect_s)):
                addresses = await self._addresses()
        except TimeoutError:
            raise self._too_slow() from None
        except OSError as error:
            raise unreachable(self.name, error) from None
        failure: OSError | None = None
        for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            try:
                async with asyncio.timeout(_limit((until - loop.time()) / left)):
                    return await self._open_to(family, address)
            except OSError as error:  # TimeoutError is one
                failure = error
        if isinstance(failure, TimeoutError) and failure.errno is None:
            raise self._too_slow()
        raise unreachable(self.name, failure or "its name has no address")

    async def _addresses(self) -> list[tuple[int, str]]:
        """The name's addresses now; who asks while the question is open joins it.

        The system's resolver blocks one of a few threads that all backends share, and cannot be interrupted: a name
        that hangs may take one of them, not all.
        """
        if self._lookup is None:
            self._lookup = asyncio.get_running_loop().create_task(self._resolve(self._host, self._port))
            self._lookup.add_done_callback(self._looked_up)
        return await asyncio.shield(self._lookup)

    def _looked_up(self, lookup: "asyncio.Task[list[tuple[int, str]]]") -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # whoever waited has it; perhaps nobody does any more

    async def _open_to(self, family: int, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self, loop),
            address,
            self._port,
            family=family,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        return connection

    def _too_slow(self) -> BackendTimeout:
        return BackendTimeout(
            f"no connection to the backend {self.name!r} within {self._connect_s:g} s", phase="connect"
        )


def _limit(seconds: float) -> float | None:
    """As asyncio.timeout wants it."""
    return max(seconds, 0.0) if isfinite(seconds) else None


async def resolve(host: str, port: int) -> list[tuple[int, str]]:
    """The system's resolver, asked anew for every connection: addresses change, and new connections are rare."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(int(family), str(address[0])) for family, _, _, _, address in found]
